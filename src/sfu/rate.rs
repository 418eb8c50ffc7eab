//! Bit rates out of byte counters.

use std::time::{Duration, Instant};

/// Shortest stretch that a rate is taken over; within it the last rate is repeated.
const MIN_SPAN: Duration = Duration::from_millis(500);

/// The rate between successive readings of a counter that only grows.
#[derive(Clone, Debug, Default)]
pub(super) struct RateMeter {
    last: Option<(Instant, u64)>,
    rate: u64,
}

impl RateMeter {
    /// Bit/s since the reading before; 0 at first.
    pub fn read(&mut self, now: Instant, bytes: u64) -> u64 {
        match self.last {
            None => self.last = Some((now, bytes)),
            Some((at, before)) => {
                let span = now.saturating_duration_since(at);
                if span >= MIN_SPAN {
                    let bits = 8.0 * bytes.saturating_sub(before) as f64;
                    self.rate = (bits / span.as_secs_f64()) as u64;
                    self.last = Some((now, bytes));
                }
            }
        }
        self.rate
    }
}
