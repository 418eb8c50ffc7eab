//! Synthetic participants: real WebRTC peers that join through the server's own socket.
//!
//! `--demo 6` fills a room with them, so that one person without a camera sees the whole product; the integration tests
//! use the same [`Participant`] as their peer in Rust. Picture and voice are encoded once into loops
//! ([`PictureLoop`], [`VoiceLoop`]), so a running participant costs its packets and nothing else.

mod keyframes;
mod observed;
mod participant;
mod peer;
mod picture;
mod send;
mod session;
#[cfg(test)]
mod tests;
mod voice;

pub use observed::{Observed, ReceivedTrack};
pub use participant::{Mode, Participant, ParticipantConfig};
pub use picture::{Picture, PictureLoop};
pub use voice::{FRAME_DURATION, FRAME_SAMPLES, SAMPLE_RATE, Sound, Turns, VoiceLoop, VoicePacket};

use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Candidates that wait for the session task; further ones are dropped.
const PEER_EVENTS: usize = 32;
/// Between two joins: a newcomer's first second costs more than the rest of its stay.
const JOIN_INTERVAL: Duration = Duration::from_millis(250);
/// Before a participant whose session broke joins again.
const REJOIN_DELAY: Duration = Duration::from_secs(2);

const NAMES: [&str; 8] = [
    "Ada", "Ben", "Chidi", "Dora", "Emre", "Fumiko", "Gita", "Hugo",
];

/// An RTP packet that a participant received.
#[derive(Clone, Debug)]
pub struct ReceivedPacket {
    /// Index into [`Observed::tracks`].
    pub track: usize,
    /// The packet, decrypted.
    pub packet: rtc::rtp::Packet,
}

/// What can end a participant.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The WebSocket failed.
    #[error("the socket failed: {0}")]
    Socket(Box<tokio_tungstenite::tungstenite::Error>),
    /// The PeerConnection refused something.
    #[error("the peer connection failed: {0}")]
    Peer(#[from] webrtc::error::Error),
    /// The picture cannot be encoded.
    #[error("the picture cannot be encoded: {0}")]
    Picture(String),
    /// The voice cannot be encoded.
    #[error("the voice cannot be encoded: {0}")]
    Voice(#[from] opus::Error),
    /// The server's answer has none of the codecs that we can send.
    #[error("the server's answer refuses H.264 or Opus")]
    CodecRefused,
    /// The session is over.
    #[error("the session has ended")]
    Closed,
    /// What was waited for did not happen in time.
    #[error("not in time; seen until then: {0:?}")]
    Deadline(Box<Observed>),
}

impl From<tokio_tungstenite::tungstenite::Error> for DemoError {
    fn from(error: tokio_tungstenite::tungstenite::Error) -> Self {
        DemoError::Socket(Box::new(error))
    }
}

/// Keeps `count` publishing participants in `room` of the server at `url` (its `/ws`) until the future is dropped.
/// They speak in turns, and join again when their session breaks.
///
/// # Errors
/// When the loops cannot be encoded. A server that is not there (yet) is no error.
pub async fn run(url: &str, room: &str, count: usize) -> Result<(), DemoError> {
    let epoch = Instant::now();
    let mut participants = JoinSet::new();
    for index in 0..count as u32 {
        let (video, audio) = encode_loops(index, count as u32).await?;
        let name = NAMES[index as usize % NAMES.len()];
        let config = ParticipantConfig {
            video: Some(Arc::new(video)),
            audio: Some(Arc::new(audio)),
            subscribe: false,
            epoch,
            ..ParticipantConfig::viewer(url, room, &format!("{name} {}", index + 1))
        };
        participants.spawn(stay(config));
        tokio::time::sleep(JOIN_INTERVAL).await;
    }
    while participants.join_next().await.is_some() {}
    Ok(())
}

/// The loops of participant `index`, encoded on a blocking thread.
async fn encode_loops(index: u32, count: u32) -> Result<(PictureLoop, VoiceLoop), DemoError> {
    let encoding = tokio::task::spawn_blocking(move || {
        let video = PictureLoop::encode(&Picture::numbered(index + 1))?;
        let audio = VoiceLoop::encode(Sound::numbered(index), Turns::Shared { index, count })?;
        Ok((video, audio))
    });
    encoding.await.map_err(|_| DemoError::Closed)?
}

/// Joins, and joins again, for ever.
async fn stay(config: ParticipantConfig) {
    loop {
        let ended = match Participant::join(config.clone()).await {
            Ok(mut participant) => participant.ended().await,
            Err(error) => Err(error),
        };
        match ended {
            Ok(()) => tracing::info!(name = config.name, "demo participant was asked to leave"),
            Err(error) => {
                tracing::warn!(name = config.name, %error, "demo participant lost its session")
            }
        }
        tokio::time::sleep(REJOIN_DELAY).await;
    }
}
