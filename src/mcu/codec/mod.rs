//! The codecs of the mixed delivery, each behind a small safe face.

pub mod opus;
