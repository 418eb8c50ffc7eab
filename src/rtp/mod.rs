//! RTP and RTCP, pure: views of headers and extensions, unwrapping, feedback, payload formats.
//!
//! Nothing here reads a clock, opens a socket or knows a room. Every parser takes bytes from the network and
//! answers `Option` or `Result`; none of them panics.

pub mod bwe;
pub mod demux;
pub mod dependency_descriptor;
pub mod extension;
pub mod h264;
pub mod header;
pub mod keyframe;
pub mod nack;
pub mod ntp;
pub mod opus;
pub mod params;
pub mod playout;
pub mod reception;
pub mod red;
pub mod ring;
pub mod rtcp;
pub mod rtx;
pub mod twcc;
pub mod unwrap;
pub mod vp8;
pub mod vp9;
pub mod window;
