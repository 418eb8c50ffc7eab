//! The mixed delivery of a room: decode, mix, compose, encode once per rung.

pub mod audio;
pub mod codec;
pub mod jitter;
pub mod video;
