//! The server over bad networks: real browsers behind links that lose, delay, reorder and hold back.
//!
//! Each client has a namespace and a bridge of its own (`support/network`). One scenario at a time; figures are printed
//! as `figure` lines. What is asserted is about the network: a busy machine has its own allowance, named where it is used.

#[path = "../support/mod.rs"]
mod support;

mod bench;
mod caps;
mod keyframes;
mod loss;
mod rungs;

use talksy_unit::demo::Sound;
use tokio::sync::{Mutex, MutexGuard};

/// Voices that differ well.
const LOW_VOICE: Sound = Sound::Voice { pitch_hz: 125.0 };
const HIGH_VOICE: Sound = Sound::Voice { pitch_hz: 205.0 };

static STAGE: Mutex<()> = Mutex::const_new(());

/// Held by the scenario that runs.
async fn alone() -> MutexGuard<'static, ()> {
    STAGE.lock().await
}
