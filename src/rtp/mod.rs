//! RTP and RTCP, pure: views of headers and extensions, unwrapping, feedback, payload formats.
//!
//! Nothing here reads a clock, opens a socket or knows a room. Every parser takes bytes from the network and
//! answers `Option` or `Result`; none of them panics.

pub mod params;
