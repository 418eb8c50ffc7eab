//! How long a receiver should hold pictures back, so that what is lost on the way can be repaired in time.

use std::time::{Duration, Instant};

/// The unit of the extension.
const UNIT: Duration = Duration::from_millis(10);
/// What its twelve bits can say.
const MAX_UNITS: u16 = 0x0fff;

/// The extension `http://www.webrtc.org/experiments/rtp-hdrext/playout-delay`: what a sender asks the receiver to keep
/// between capture and display, in units of 10 ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlayoutDelay {
    /// At least this, 0 to 4095.
    pub min: u16,
    /// At most this, 0 to 4095.
    pub max: u16,
}

impl PlayoutDelay {
    /// From the extension's three bytes.
    pub fn from_bytes([a, b, c]: [u8; 3]) -> Self {
        PlayoutDelay {
            min: u16::from(a) << 4 | u16::from(b) >> 4,
            max: u16::from(b & 15) << 8 | u16::from(c),
        }
    }

    /// The extension's three bytes; what does not fit is written as the most that does.
    pub fn to_bytes(self) -> [u8; 3] {
        let (min, max) = (self.min.min(MAX_UNITS), self.max.min(MAX_UNITS));
        [
            (min >> 4) as u8,
            (min << 4) as u8 | (max >> 8) as u8,
            max as u8,
        ]
    }
}

/// Packets over which the loss of a path is smoothed.
const LOSS_PACKETS: f64 = 200.0;
/// Less loss is no reason to hold anything back. A single burst in [`LOSS_PACKETS`] stays below it.
const LOSSY: f64 = 0.015;
/// One packet in so many may come too late, once in a minute or two of an ordinary camera.
const SPARED: f64 = 10_000.0;
/// Rounds of asking and answering that are waited for, whatever the loss.
const MAX_ROUNDS: f64 = 5.0;
/// Of a round, what is not the path: the timers of who asks.
const ROUND_TIMERS: Duration = Duration::from_millis(20);
/// Assumed until a round trip is measured.
const DEFAULT_ROUND_TRIP: Duration = Duration::from_millis(100);
/// The share of repairs that are quicker than what is measured, and how fast that follows.
const PERCENTILE: f64 = 0.98;
const PERCENTILE_STEP: f64 = 0.05;
/// Longer repairs are not waited for.
pub const MAX_REPAIR: Duration = Duration::from_millis(400);

/// How long what is lost on one path takes to be there after all.
#[derive(Clone, Copy, Debug)]
pub struct RepairTime {
    loss: f64,
    round_trip: Duration,
    /// Seconds; see [`PERCENTILE`].
    slowest: f64,
}

impl Default for RepairTime {
    fn default() -> Self {
        RepairTime {
            loss: 0.0,
            round_trip: DEFAULT_ROUND_TRIP,
            slowest: 0.0,
        }
    }
}

impl RepairTime {
    /// Of so many packets that were sent, so many did not come by themselves.
    pub fn handle_packets(&mut self, sent: u64, lost: u64) {
        if sent == 0 {
            return;
        }
        let share = (lost as f64 / sent as f64).min(1.0);
        let weight = sent as f64 / (sent as f64 + LOSS_PACKETS);
        self.loss += weight * (share - self.loss);
    }

    /// One packet was there this long after it was missed.
    pub fn handle_repair(&mut self, took: Duration) {
        let slower = took.as_secs_f64() > self.slowest;
        let step = if slower { PERCENTILE } else { PERCENTILE - 1.0 };
        self.slowest = (self.slowest + step * PERCENTILE_STEP).max(0.0);
    }

    /// Time there and back.
    pub fn set_round_trip(&mut self, round_trip: Duration) {
        self.round_trip = round_trip;
    }

    /// Share of the packets that are lost, smoothed: 0 to 1.
    pub fn loss(&self) -> f64 {
        self.loss
    }

    /// The time within which all but very few repairs end, [`MAX_REPAIR`] at most; zero where little is lost.
    ///
    /// A round of asking and answering fails if either is lost; so many rounds are needed until all of them have
    /// failed for one packet in `SPARED` only. Where repairs are seen to take longer, that counts.
    pub fn needed(&self) -> Duration {
        if self.loss < LOSSY {
            return Duration::ZERO;
        }
        let arrives = 1.0 - self.loss;
        let fails = (1.0 - arrives * arrives).clamp(0.0, 0.99);
        let rounds = ((SPARED * self.loss).ln() / -fails.ln()).round();
        let round = self.round_trip + self.round_trip / 4 + ROUND_TIMERS;
        let expected = round.mul_f64(rounds.clamp(1.0, MAX_ROUNDS));
        expected
            .max(Duration::from_secs_f64(self.slowest))
            .min(MAX_REPAIR)
    }
}

/// The delay of a leg moves in steps of this, so that it does not wobble.
const STEP: Duration = Duration::from_millis(50);
/// And falls by one of them after so long without need of it.
const FALL: Duration = Duration::from_secs(10);
/// More is never asked for: a conversation suffers more from it than from a picture that stands for a moment.
pub const MAX_PLAYOUT: Duration = Duration::from_millis(500);
/// Receivers have their own reasons to wait longer.
const LONGEST: u16 = 1000;

/// What one leg's receiver is asked to hold back: rises at once, falls slowly.
#[derive(Clone, Copy, Debug, Default)]
pub struct Playout {
    steps: u32,
    spoken: bool,
    low_since: Option<Instant>,
}

impl Playout {
    /// Takes in what is needed now and says what to write. `None`: nothing was ever needed, so the receiver need not be
    /// told anything. `publisher` is what the sender of the picture asked for itself: never less than that is written.
    pub fn update(
        &mut self,
        now: Instant,
        needed: Duration,
        publisher: Option<PlayoutDelay>,
    ) -> Option<PlayoutDelay> {
        self.follow(now, needed.min(MAX_PLAYOUT));
        self.spoken |= self.steps > 0 || publisher.is_some();
        if !self.spoken {
            return None;
        }
        let ours = self.delay().as_millis() / UNIT.as_millis();
        let theirs = publisher.unwrap_or(PlayoutDelay {
            min: 0,
            max: LONGEST,
        });
        let min = theirs.min.max(ours as u16);
        Some(PlayoutDelay {
            min,
            max: theirs.max.max(min),
        })
    }

    /// What is asked for.
    pub fn delay(&self) -> Duration {
        STEP * self.steps
    }

    fn follow(&mut self, now: Instant, needed: Duration) {
        let wanted = needed.as_millis().div_ceil(STEP.as_millis()) as u32;
        if wanted >= self.steps {
            self.steps = wanted;
            self.low_since = None;
            return;
        }
        let since = *self.low_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= FALL {
            self.steps -= 1;
            self.low_since = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn path(loss_percent: u64, round_trip: u64) -> RepairTime {
        let mut path = RepairTime::default();
        path.set_round_trip(ms(round_trip));
        for _ in 0..100 {
            path.handle_packets(100, loss_percent);
        }
        path
    }

    #[test]
    fn a_good_path_is_not_waited_for_and_a_bad_one_for_about_four_rounds() {
        assert_eq!(path(0, 50).needed(), Duration::ZERO);
        assert_eq!(path(1, 50).needed(), Duration::ZERO);
        let (five, ten) = (path(5, 50).needed(), path(10, 50).needed());
        assert!(ms(150) < five && five < ms(250), "{five:?}");
        assert!(ms(280) < ten && ten < ms(360), "{ten:?}");
        assert_eq!(path(10, 300).needed(), MAX_REPAIR);
        assert_eq!(path(100, 50).needed(), MAX_REPAIR);
    }

    #[test]
    fn a_single_burst_is_no_lossy_path() {
        let mut path = path(0, 50);
        path.handle_packets(3, 3);
        assert_eq!(path.needed(), Duration::ZERO);
    }

    #[test]
    fn repairs_that_are_seen_to_be_slow_are_waited_for() {
        let mut path = path(2, 20);
        assert!(path.needed() < ms(120));
        for n in 0..600 {
            path.handle_repair(ms(if n % 10 == 0 { 300 } else { 30 }));
        }
        assert!(path.needed() > ms(250), "{:?}", path.needed());
        for _ in 0..600 {
            path.handle_repair(ms(30));
        }
        assert!(path.needed() < ms(120));
    }

    #[test]
    fn a_legs_delay_rises_at_once_and_falls_slowly_by_steps() {
        let t0 = Instant::now();
        let mut playout = Playout::default();
        assert_eq!(playout.update(t0, Duration::ZERO, None), None);
        let said = playout.update(t0, ms(220), None).expect("a need");
        assert_eq!((said.min, said.max), (25, LONGEST));
        for seconds in 1..=10 {
            playout.update(t0 + ms(1000 * seconds), ms(180), None);
        }
        assert_eq!(playout.delay(), ms(250));
        playout.update(t0 + ms(11_000), ms(180), None);
        assert_eq!(playout.delay(), ms(200));
        for seconds in 12..200 {
            playout.update(t0 + ms(1000 * seconds), Duration::ZERO, None);
        }
        let told = playout.update(t0 + ms(200_000), Duration::ZERO, None);
        assert_eq!(told.map(|said| said.min), Some(0), "the end is told, too");
    }

    #[test]
    fn the_publishers_own_wish_stands() {
        let now = Instant::now();
        let wish = PlayoutDelay { min: 30, max: 40 };
        let mut playout = Playout::default();
        assert_eq!(playout.update(now, Duration::ZERO, Some(wish)), Some(wish));
        let said = playout.update(now, ms(450), Some(wish));
        assert_eq!(said, Some(PlayoutDelay { min: 45, max: 45 }));
    }

    proptest! {
        #[test]
        fn the_extension_is_read_as_it_was_written(min in 0u16..4096, max in 0u16..4096) {
            let value = PlayoutDelay { min, max };
            prop_assert_eq!(PlayoutDelay::from_bytes(value.to_bytes()), value);
        }

        #[test]
        fn nothing_makes_the_need_leave_its_bounds(
            steps in proptest::collection::vec((0u64..300, 0u64..400, 0u64..9000), 0..100)
        ) {
            let mut path = RepairTime::default();
            for (sent, lost, took) in steps {
                path.handle_packets(sent, lost);
                path.handle_repair(ms(took));
                path.set_round_trip(ms(took));
                prop_assert!(path.needed() <= MAX_REPAIR);
            }
        }
    }
}
