//! The codecs of the mixed delivery, each behind a small safe face.

pub mod h264;
mod openh264_raw;
pub mod opus;
