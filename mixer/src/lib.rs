//! Samples and pixels in, samples and pixels out.
//!
//! No I/O, clock, async, codec or RTP: the caller decodes, tells the time by calling once per tick, and encodes.

pub mod audio;
pub mod video;
