//! What arrives: the rate of acknowledged bytes by the receiver's clock.

use std::collections::VecDeque;

/// One step of the window, µs.
const STEP: i64 = 40_000;
/// Steps in the window: 480 ms.
const STEPS: usize = 12;
/// Full steps from which on there is a rate.
const MIN_STEPS: i64 = 5;
/// What a busy path lets through is taken over the last packets that span this time, µs, out of so many.
const BUSY: i64 = 120_000;
const LATEST: usize = 64;

/// Sums by step of 40 ms.
#[derive(Debug, Default)]
pub struct AckedRate {
    bytes: [u64; STEPS],
    /// The newest step, by arrival.
    newest: i64,
    first: Option<i64>,
    /// Arrivals and sizes of the last packets, oldest first.
    latest: VecDeque<(i64, u32)>,
}

impl AckedRate {
    /// A packet of `size` bytes arrived at `arrival` µs.
    pub fn handle_packet(&mut self, arrival: i64, size: u32) {
        let step = arrival.div_euclid(STEP);
        if self
            .first
            .is_none_or(|_| step - self.newest > 2 * STEPS as i64)
        {
            self.latest.clear();
            *self = AckedRate {
                newest: step,
                first: Some(step),
                latest: std::mem::take(&mut self.latest),
                ..AckedRate::default()
            };
        }
        while self.newest < step {
            self.newest += 1;
            let slot = self.newest.rem_euclid(STEPS as i64) as usize;
            self.bytes[slot] = 0;
        }
        if self.newest - step < STEPS as i64 {
            let slot = step.rem_euclid(STEPS as i64) as usize;
            self.bytes[slot] += u64::from(size);
        }
        if self.latest.len() == LATEST {
            self.latest.pop_front();
        }
        // Once, and with the first packet only, this allocates.
        self.latest.reserve_exact(LATEST - self.latest.len());
        self.latest.push_back((arrival, size));
    }

    /// Bit/s over the last half second, without the newest step, which is not full yet; `None` until half of that has
    /// passed.
    pub fn rate(&self) -> Option<f64> {
        let known = (self.newest - self.first?).min(STEPS as i64 - 1);
        if known < MIN_STEPS {
            return None;
        }
        let bytes: u64 = (1..=known)
            .map(|back| self.bytes[(self.newest - back).rem_euclid(STEPS as i64) as usize])
            .sum();
        Some(bytes as f64 * 8.0 * 1e6 / (known * STEP) as f64)
    }

    /// Bit/s of the last packets that came one after the other. While a queue grows, that is what the path lets
    /// through, however little was sent before.
    pub fn busy(&self) -> Option<f64> {
        let (newest, _) = *self.latest.back()?;
        let mut bytes = 0;
        for &(arrival, size) in self.latest.iter().rev() {
            if newest - arrival >= BUSY {
                return Some(f64::from(bytes) * 8.0 * 1e6 / (newest - arrival) as f64);
            }
            bytes += size;
        }
        // So many in so little time: a fast path.
        let (oldest, first_size) = *self.latest.front()?;
        let span = newest - oldest;
        (self.latest.len() == LATEST && span > 0)
            .then(|| f64::from(bytes - first_size) * 8.0 * 1e6 / span as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(acked: &mut AckedRate, from: i64, to: i64, every: i64, size: u32) {
        let mut at = from;
        while at < to {
            acked.handle_packet(at, size);
            at += every;
        }
    }

    #[test]
    fn a_steady_stream_has_its_rate() {
        let mut acked = AckedRate::default();
        assert_eq!(acked.rate(), None);
        feed(&mut acked, 0, 2_000_000, 5_000, 1000);
        let rate = acked.rate().expect("two seconds");
        assert!((rate - 1_600_000.0).abs() < 20_000.0, "{rate}");
    }

    #[test]
    fn a_narrower_path_shows_at_once() {
        let mut acked = AckedRate::default();
        feed(&mut acked, 0, 2_000_000, 5_000, 1000);
        feed(&mut acked, 2_000_000, 2_160_000, 20_000, 1000);
        let (long, narrow) = (acked.rate().unwrap(), acked.busy().unwrap());
        assert!((narrow - 400_000.0).abs() < 60_000.0, "{narrow}");
        assert!(long > 1_000_000.0, "{long}");
    }

    #[test]
    fn a_pause_is_forgotten_and_a_late_packet_does_no_harm() {
        let mut acked = AckedRate::default();
        feed(&mut acked, 0, 1_000_000, 5_000, 1000);
        acked.handle_packet(9_000_000, 1000);
        assert_eq!(acked.rate(), None);
        acked.handle_packet(1_000_000, 1000);
        feed(&mut acked, 9_000_000, 10_000_000, 10_000, 1000);
        let rate = acked.rate().unwrap();
        assert!((rate - 800_000.0).abs() < 20_000.0, "{rate}");
    }
}
