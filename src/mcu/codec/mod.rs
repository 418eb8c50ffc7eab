//! The codecs behind narrow seams.

pub mod h264;
mod openh264_raw;
