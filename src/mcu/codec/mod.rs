//! The codecs behind narrow seams.
