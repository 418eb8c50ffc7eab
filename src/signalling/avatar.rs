//! From a client's image file to an avatar: work of milliseconds, away from everything that has a deadline.

use std::sync::Arc;

use talksy_mixer::video::Avatar;
use talksy_mixer::video::avatar::AvatarError;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// Images of all clients that are decoded at a time, some 16 MiB and one core each. The others' sockets wait.
static DECODERS: Semaphore = Semaphore::const_new(1);

/// Decodes a PNG or JPEG on a thread of its own.
///
/// # Errors
/// What [`Avatar::decode`] refuses, or what its decoder panics at.
pub async fn decode(file: Vec<u8>) -> Result<Arc<Avatar>, AvatarError> {
    let _turn = DECODERS.acquire().await;
    match spawn_blocking(move || Avatar::decode(&file)).await {
        Ok(decoded) => decoded.map(Arc::new),
        Err(_) => Err(AvatarError::Undecodable("its decoder failed".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_no_image_is_refused() {
        let refused = decode(b"\x89PNG\r\n\x1a\nnothing".to_vec()).await;
        assert!(matches!(refused, Err(AvatarError::Undecodable(_))));
    }
}
