//! The server as its users meet it: the built binary, its own page, real browsers with faces and voices of their own.
//!
//! One scenario at a time: each may have three browsers, and a browser wants half a core. Deadlines that the product promises
//! stand in the tests as they are promised; what a busy machine may add is [`SLACK`].

#[path = "../support/mod.rs"]
mod support;

mod call;
mod churn;
mod delay;
mod layouts;
mod mixed;
mod mixed_audio;
mod old_page;
mod pace;
mod renegotiation;
mod sending;
mod simulcast;
mod sound;
mod voices;

use std::time::Duration;
use talksy_unit::demo::Sound;
use tokio::sync::{Mutex, MutexGuard};

/// What two slow cores under three browsers may add to a promised time.
const SLACK: Duration = Duration::from_secs(2);

/// Voices that differ well.
const LOW_VOICE: Sound = Sound::Voice { pitch_hz: 125.0 };
const HIGH_VOICE: Sound = Sound::Voice { pitch_hz: 205.0 };
const ABSENT_VOICE: Sound = Sound::Voice { pitch_hz: 155.0 };

/// Likeness of a voice that is heard alone; whole pieces of it may be stretched by a busy browser's jitter buffer.
const ALONE: f32 = 0.45;
/// Likeness of a voice that is heard together with another as loud.
const AMONG_TWO: f32 = 0.3;
/// More likeness than this has nobody who is not there.
const ABSENT: f32 = 0.26;

static STAGE: Mutex<()> = Mutex::const_new(());

/// Held by the scenario that runs.
async fn alone() -> MutexGuard<'static, ()> {
    STAGE.lock().await
}
