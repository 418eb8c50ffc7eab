//! What one peer's link can take: the estimate, and the pacer that keeps to it.

use std::time::Instant;

use super::pacer::{Pacer, UNLIMITED};
use crate::rtp::bwe::{Estimator, MAX, OVERHEAD};
use crate::rtp::twcc::Feedback;

/// How far packets may come faster than the estimate: on a slow link a keyframe's own queue hurts everything behind
/// it, on a fast one it is gone at once. Bit/s of the estimate up to which the lower factor holds, and from which
/// the higher one does.
const FACTORS: (f64, f64) = (1.25, 2.5);
const BETWEEN: (f64, f64) = (1e6, 3e6);

/// Below this many bit/s the pace is not lowered so that a queue drains: voices, which do not wait, take half of it.
const NARROW: u64 = 160_000;

/// Estimator and pacer of one peer.
#[derive(Debug, Default)]
pub struct Congestion {
    /// How much may be sent.
    pub estimator: Estimator,
    /// What waits for it.
    pub pacer: Pacer,
}

impl Congestion {
    /// A plain packet of `size` bytes leaves, under this transport-wide number where that was agreed.
    pub fn handle_sent(&mut self, now: Instant, number: Option<u16>, size: usize) {
        self.estimator.handle_sent(now, number, size);
        self.pacer.note_sent(now, size + OVERHEAD);
    }

    /// As [`Self::handle_sent`] for the padding of a probe: what goes beyond the pace on purpose delays no picture.
    pub fn handle_padding(&mut self, now: Instant, number: Option<u16>, size: usize) {
        self.estimator.handle_sent(now, number, size);
    }

    /// Transport-wide feedback of the peer.
    pub fn handle_feedback(&mut self, now: Instant, feedback: &Feedback<'_>) {
        self.estimator.handle_feedback(now, feedback);
        self.adjust(now);
    }

    /// Brings the pacer in line with the estimate.
    pub fn adjust(&mut self, now: Instant) {
        let estimate = self.estimator.path_estimate(now);
        let rate = if estimate >= MAX {
            UNLIMITED
        } else {
            // The first guess is a low one, and the first keyframe large.
            let factor = if self.estimator.is_starting(now) {
                FACTORS.1
            } else {
                factor(estimate as f64)
            };
            let whole = self.estimator.undrained(now).min(NARROW);
            (factor * estimate as f64).max(whole as f64)
        };
        self.pacer.set_rate(now, rate);
    }
}

fn factor(estimate: f64) -> f64 {
    let (low, high) = FACTORS;
    let (from, to) = BETWEEN;
    low + (high - low) * ((estimate - from) / (to - from)).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_the_link_the_smoother_the_pace() {
        assert_eq!(factor(300_000.0), 1.25);
        assert_eq!(factor(2e6), 1.875);
        assert_eq!(factor(50e6), 2.5);
    }
}
