//! The mixed delivery of a room: decode, mix, compose, encode once per rung.

pub mod audio;
pub mod bus;
pub mod codec;
pub mod feed;
pub mod jitter;
pub mod ladder;
pub mod pool;
pub mod source;
pub mod video;
