//! What the mixed picture counts.

#[cfg(doc)]
use super::{FEED_PACKETS, MAX_RESTARTS, SOURCE_QUEUE};

/// Counters since the mix began. Every access unit that is not decoded is in one of the `dropped_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VideoStats {
    /// Access units decoded.
    pub decoded: u64,
    /// Of these, the ones with missing or wrong parts.
    pub damaged: u64,
    /// Canvases composed, changed or not.
    pub composed: u64,
    /// Canvases encoded.
    pub encoded: u64,
    /// Of these, keyframes.
    pub keyframes: u64,
    /// Canvases that the encoder refused.
    pub encode_failed: u64,
    /// Of a track that is not, or no longer, a source.
    pub dropped_unknown: u64,
    /// Nobody listens.
    pub dropped_unheard: u64,
    /// The source is muted.
    pub dropped_muted: u64,
    /// No tile of any rung in use shows the source.
    pub dropped_hidden: u64,
    /// More than [`SOURCE_QUEUE`] waited for a tick, or more than [`FEED_PACKETS`] packets for a decoder.
    pub dropped_queue_full: u64,
    /// No keyframe has come yet.
    pub dropped_before_keyframe: u64,
    /// Too large, or parameter sets that cannot be used.
    pub dropped_undecodable: u64,
    /// More pictures, or other sizes, a second than a source may have.
    pub dropped_too_many: u64,
    /// The decoder panicked with it, and was made anew.
    pub dropped_panicked: u64,
    /// The decoder has panicked more than [`MAX_RESTARTS`] times.
    pub dropped_given_up: u64,
}

/// Of how many kinds [`VideoStats::decode_drops`] are.
pub const DECODE_DROPS: usize = 8;

impl VideoStats {
    /// What was not decoded although somebody listens, with names for metrics.
    pub fn decode_drops(&self) -> [(&'static str, u64); DECODE_DROPS] {
        [
            ("muted", self.dropped_muted),
            ("hidden", self.dropped_hidden),
            ("queue_full", self.dropped_queue_full),
            ("before_keyframe", self.dropped_before_keyframe),
            ("undecodable", self.dropped_undecodable),
            ("too_many", self.dropped_too_many),
            ("panicked", self.dropped_panicked),
            ("given_up", self.dropped_given_up),
        ]
    }
}
