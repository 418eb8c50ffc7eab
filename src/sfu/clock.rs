//! The publisher's clock, moved onto the server's, so that what is forwarded can be played in sync.

use std::time::{Duration, Instant};

use crate::rtp::ntp::Ntp;

/// The minimum is taken over the last one to two of these: longer than a queue stands, short enough to follow drift.
const WINDOW: Duration = Duration::from_secs(30);
/// A difference of one second to the minimum is no queue but a clock that was set.
const STEP: i64 = 1 << 32;

/// A moment on a track's media clock and on the server's wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderClock {
    /// The server's wall clock.
    pub ntp: Ntp,
    /// Extended RTP timestamp of that moment, as in [`super::Received::timestamp`].
    pub timestamp: u64,
    /// The stream it holds for, as in [`super::Received::generation`].
    pub generation: u32,
}

impl SenderClock {
    /// The media clock at another moment.
    pub fn timestamp_at(&self, wall: Ntp, clock_rate: u32) -> u64 {
        let units = i128::from(wall.units_since(self.ntp));
        let ticks = (units * i128::from(clock_rate)) >> 32;
        self.timestamp.wrapping_add_signed(ticks as i64)
    }
}

/// How far the server's wall clock is ahead of a peer's: the least that its sender reports have shown, since what
/// is more is their way through the network. One for all tracks of a peer, or they would drift apart.
#[derive(Clone, Debug, Default)]
pub(super) struct ClockOffset {
    current: Option<i64>,
    previous: Option<i64>,
    began: Option<Instant>,
}

impl ClockOffset {
    /// A sender report with time `sent` has come at `wall`.
    pub fn handle_report(&mut self, now: Instant, wall: Ntp, sent: Ntp) {
        let sample = wall.units_since(sent);
        if self
            .offset()
            .is_some_and(|offset| sample.abs_diff(offset) > STEP as u64)
        {
            *self = ClockOffset::default();
        }
        let began = *self.began.get_or_insert(now);
        if now.saturating_duration_since(began) >= WINDOW {
            self.began = Some(now);
            self.previous = self.current.take();
        }
        self.current = Some(self.current.map_or(sample, |least| least.min(sample)));
    }

    /// In units of 2⁻³² s.
    pub fn offset(&self) -> Option<i64> {
        self.current.into_iter().chain(self.previous).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = (1 << 32) / 1000;

    #[test]
    fn the_media_clock_runs_both_ways() {
        let clock = SenderClock {
            ntp: Ntp(1 << 40),
            timestamp: 1_000_000,
            generation: 0,
        };
        assert_eq!(
            clock.timestamp_at(Ntp((1 << 40) + (1 << 31)), 90_000),
            1_045_000
        );
        assert_eq!(
            clock.timestamp_at(Ntp((1 << 40) - (1 << 31)), 90_000),
            955_000
        );
    }

    #[test]
    fn the_quickest_report_counts_until_it_is_old() {
        let t0 = Instant::now();
        let wall = Ntp(1000 << 32);
        let mut offset = ClockOffset::default();
        for (second, delay) in [(0, 40), (1, 10), (2, 90)] {
            offset.handle_report(
                t0 + Duration::from_secs(second),
                wall,
                wall.shifted(-delay * MS),
            );
        }
        assert_eq!(offset.offset(), Some(10 * MS));
        for second in 3..70 {
            offset.handle_report(
                t0 + Duration::from_secs(second),
                wall,
                wall.shifted(-30 * MS),
            );
        }
        assert_eq!(offset.offset(), Some(30 * MS));
    }

    #[test]
    fn a_clock_that_was_set_is_followed_at_once() {
        let now = Instant::now();
        let wall = Ntp(1000 << 32);
        let mut offset = ClockOffset::default();
        offset.handle_report(now, wall, wall);
        offset.handle_report(now, wall, wall.shifted(-5000 * MS));
        assert_eq!(offset.offset(), Some(5000 * MS));
    }
}
