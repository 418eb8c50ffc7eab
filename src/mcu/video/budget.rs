//! What one source may cost: a bucket of tokens.

use std::time::{Duration, Instant};

/// So many at once, and so many a second later on.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    burst: f64,
    per_second: f64,
    left: f64,
    last: Option<Instant>,
}

impl Budget {
    /// A full one.
    pub fn new(burst: u32, per_second: u32) -> Self {
        Budget {
            burst: f64::from(burst),
            per_second: f64::from(per_second),
            left: f64::from(burst),
            last: None,
        }
    }

    /// Whether another one is within the budget. It is used up if so.
    pub fn take(&mut self, now: Instant) -> bool {
        let passed = self
            .last
            .map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.last = self.last.max(Some(now));
        self.left = (self.left + passed.as_secs_f64() * self.per_second).min(self.burst);
        let enough = self.left >= 1.0;
        if enough {
            self.left -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let start = Instant::now();
        let mut budget = Budget::new(5, 10);
        assert_eq!((0..9).filter(|_| budget.take(start)).count(), 5);
        let passed = (1..=1000).filter(|ms| budget.take(start + Duration::from_millis(*ms)));
        assert_eq!(passed.count(), 10);
        assert!(!budget.take(start), "time that runs back brings nothing");
        let later = start + Duration::from_secs(60);
        assert_eq!((0..9).filter(|_| budget.take(later)).count(), 5);
    }
}
