//! What the integration tests share: a Chromium to look through, pictures and sounds to recognise, the server itself.
//!
//! Each test binary uses its own part of it.
#![allow(dead_code)]

pub mod analysis;
pub mod bidi;
pub mod browser;
pub mod call;
pub mod firewall;
pub mod media;
pub mod network;
pub mod page;
pub mod peer;
pub mod person;
pub mod pressure;
pub mod process;
pub mod proxy;
pub mod python;
pub mod relay;
pub mod server;
pub mod turn;
pub mod wire;

use std::time::{Duration, Instant};

/// Between two looks at a condition that cannot be waited for otherwise.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Asks `probe` until it gives a value.
///
/// # Panics
/// When `within` has passed, with `what` and the last refusal.
pub async fn eventually<T, E: std::fmt::Debug>(
    what: &str,
    within: Duration,
    mut probe: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + within;
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(refusal) if Instant::now() >= deadline => {
                panic!("{what}: not within {within:?}, at last {refusal:?}")
            }
            Err(_) => tokio::time::sleep(POLL_INTERVAL).await,
        }
    }
}
