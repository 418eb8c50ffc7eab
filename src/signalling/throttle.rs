//! How fast one socket may talk.

use std::time::{Duration, Instant};

/// Credit of a socket that has been quiet, in messages: a page's whole join fits many times.
const BURST: f64 = 500.0;
/// Messages a second in the long run.
const RATE: f64 = 200.0;
/// A message costs one, and one more for each of these bytes.
const BYTES_PER_CREDIT: f64 = 4096.0;

/// A token bucket. Nothing is dropped by it: the reader waits, and the client's TCP connection with it.
#[derive(Debug)]
pub struct Throttle {
    credit: f64,
    at: Instant,
}

impl Throttle {
    /// A full bucket.
    pub fn new(now: Instant) -> Self {
        Throttle {
            credit: BURST,
            at: now,
        }
    }

    /// Pays for a message of `bytes` and says how long to wait before the next one is read.
    pub fn pay(&mut self, now: Instant, bytes: usize) -> Duration {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.credit = (self.credit + elapsed * RATE).min(BURST);
        self.at = now;
        self.credit -= 1.0 + bytes as f64 / BYTES_PER_CREDIT;
        Duration::from_secs_f64((-self.credit / RATE).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_a_flood_waits_at_the_stated_rate() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        for _ in 0..400 {
            assert_eq!(throttle.pay(start, 100), Duration::ZERO);
        }
        let mut now = start;
        for _ in 0..1100 {
            now += throttle.pay(now, 0);
        }
        let seconds = (now - start).as_secs_f64();
        assert!((4.9..5.2).contains(&seconds), "{seconds}");
    }

    #[test]
    fn large_messages_cost_more() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        let wait: Duration = (0..16).map(|_| throttle.pay(start, 256 * 1024)).sum();
        assert!(wait > Duration::from_secs(1), "{wait:?}");
    }
}
