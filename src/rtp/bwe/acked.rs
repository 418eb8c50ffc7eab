//! What arrives: the rate of acknowledged bytes by the receiver's clock.

/// One step of the window, µs.
const STEP: i64 = 40_000;
/// Steps in the window: 480 ms.
const STEPS: usize = 12;
/// Steps in the short window: 240 ms.
const RECENT: usize = 6;
/// The short window says something from so many packets on.
const MIN_RECENT: u32 = 4;

/// Sums by step of 40 ms.
#[derive(Debug, Default)]
pub struct AckedRate {
    bytes: [u64; STEPS],
    packets: [u32; STEPS],
    /// The newest step, by arrival.
    newest: i64,
    first: Option<i64>,
}

impl AckedRate {
    /// A packet of `size` bytes arrived at `arrival` µs.
    pub fn handle_packet(&mut self, arrival: i64, size: u32) {
        let step = arrival.div_euclid(STEP);
        if self
            .first
            .is_none_or(|_| step - self.newest > 2 * STEPS as i64)
        {
            *self = AckedRate {
                newest: step,
                first: Some(step),
                ..AckedRate::default()
            };
        }
        while self.newest < step {
            self.newest += 1;
            let slot = self.newest.rem_euclid(STEPS as i64) as usize;
            (self.bytes[slot], self.packets[slot]) = (0, 0);
        }
        if self.newest - step < STEPS as i64 {
            let slot = step.rem_euclid(STEPS as i64) as usize;
            self.bytes[slot] += u64::from(size);
            self.packets[slot] += 1;
        }
    }

    /// Bit/s over the last half second; `None` until half of that has passed.
    pub fn rate(&self) -> Option<f64> {
        self.over(STEPS).map(|(rate, _)| rate)
    }

    /// The lower one of the rates over half and over a quarter of a second: what a path that has just become
    /// narrower lets through.
    pub fn narrowest(&self) -> Option<f64> {
        let long = self.rate()?;
        match self.over(RECENT) {
            Some((recent, packets)) if packets >= MIN_RECENT => Some(long.min(recent)),
            _ => Some(long),
        }
    }

    /// Without the newest step, which is not full yet.
    fn over(&self, steps: usize) -> Option<(f64, u32)> {
        let known = (self.newest - self.first?).min(steps as i64 - 1);
        if known < RECENT as i64 - 1 {
            return None;
        }
        let (bytes, packets) = (1..=known).fold((0, 0), |(bytes, packets), back| {
            let slot = (self.newest - back).rem_euclid(STEPS as i64) as usize;
            (bytes + self.bytes[slot], packets + self.packets[slot])
        });
        let rate = bytes as f64 * 8.0 * 1e6 / (known * STEP) as f64;
        Some((rate, packets))
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
    fn a_narrower_path_shows_in_a_quarter_of_a_second() {
        let mut acked = AckedRate::default();
        feed(&mut acked, 0, 2_000_000, 5_000, 1000);
        feed(&mut acked, 2_000_000, 2_280_000, 20_000, 1000);
        let (long, narrow) = (acked.rate().unwrap(), acked.narrowest().unwrap());
        assert!((narrow - 400_000.0).abs() < 60_000.0, "{narrow}");
        assert!(long > 700_000.0, "{long}");
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
