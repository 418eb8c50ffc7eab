//! The voice-activity weighted mix of a room: 48 kHz, mono or stereo, `f32`, one call per 20 ms.
//!
//! Start at [`Mixer`]. Each tick has two stages, so that the caller decodes only what may be heard: sources are
//! hinted (RFC 6464 level, or that there is none) and ranked; then the few that were asked for are fed and mixed.

pub mod agc;
pub mod detector;
pub mod frame;
pub mod gain;
pub mod level;
pub mod limiter;
pub mod loudness;
pub mod mixer;
pub mod rate;
pub mod resample;
mod source;
pub mod splice;
pub mod vad;
pub mod voice;
mod wide;

pub use frame::{FRAME_SAMPLES, Frame, SAMPLE_RATE, SILENCE, StereoFrame};
pub use level::AudioLevel;
pub use mixer::{Hint, Mix, MixFor, Mixer, MixerConfig, OwnerId, SourceId, SourceKind};
