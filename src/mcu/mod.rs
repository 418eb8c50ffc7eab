//! The mixed delivery of a room: decode, mix, compose, encode once per rung.

pub mod codec;
pub mod video;
