//! Where datagrams come densely, the loop looks at its sockets once in two milliseconds, and finds several at a look.
//!
//! Falling asleep and being woken costs more than forwarding a packet. A worker of fifty voices would do it for each of
//! their packets; what a packet waits for the next look (a millisecond on average) is far below what jitter buffers
//! absorb, and what leaves together shares system calls.

use std::time::{Duration, Instant};

/// Between two looks at the sockets.
const INTERVAL: Duration = Duration::from_millis(2);
/// Wakes are counted for so long.
const WINDOW: Duration = Duration::from_millis(20);
/// So many wakes in a window are dense: 400 in a second. Resting leaves 500 of them at most.
const DENSE: u32 = 8;

/// How often the loop has been woken of late.
#[derive(Debug)]
pub struct Coalescing {
    window: Instant,
    wakes: u32,
    dense: bool,
    looked: Instant,
}

impl Coalescing {
    /// Nothing came yet.
    pub fn new(now: Instant) -> Self {
        Coalescing {
            window: now,
            wakes: 0,
            dense: false,
            looked: now,
        }
    }

    /// The poll ended at `now`, because something was there.
    pub fn woken(&mut self, now: Instant) {
        let length = now.saturating_duration_since(self.window);
        if length >= WINDOW {
            // A window that lasted longer was a quiet one.
            self.dense = self.wakes >= DENSE && length < 2 * WINDOW;
            self.window = now;
            self.wakes = 0;
        }
        self.wakes += 1;
        self.looked = now;
    }

    /// How long to rest before the next poll, when nothing more is there to do.
    pub fn rest(&self, now: Instant) -> Option<Duration> {
        let rest = (self.looked + INTERVAL).saturating_duration_since(now);
        (self.dense && !rest.is_zero()).then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wakes at even distances for `time`; the rests that would be made right after each.
    fn wake(coalescing: &mut Coalescing, from: Instant, every: Duration, time: Duration) -> u32 {
        let mut rests = 0;
        let mut at = from;
        while at < from + time {
            coalescing.woken(at);
            rests += u32::from(coalescing.rest(at).is_some());
            at += every;
        }
        rests
    }

    #[test]
    fn rests_only_where_datagrams_come_densely_and_ends_when_they_do_not() {
        let start = Instant::now();
        let mut coalescing = Coalescing::new(start);
        let second = Duration::from_secs(1);
        let few = wake(&mut coalescing, start, Duration::from_millis(4), second);
        assert_eq!(few, 0, "250 packets in a second are worked at once");
        let at = start + second;
        let many = wake(&mut coalescing, at, Duration::from_micros(400), second);
        assert!(many > 2300, "{many} rests after 2500 wakes");
        // Resting itself makes the wakes rarer, and does not end it.
        let at = at + second;
        let resting = wake(&mut coalescing, at, Duration::from_micros(2100), second);
        assert!(resting > 450, "{resting} rests");
        let at = at + second;
        let few = wake(&mut coalescing, at, Duration::from_millis(4), second);
        assert!(few <= 10, "{few} rests after it has become quiet");
        coalescing.woken(at + 2 * second);
        assert_eq!(coalescing.rest(at + 2 * second), None);
    }

    #[test]
    fn a_look_that_took_long_is_followed_by_no_rest() {
        let start = Instant::now();
        let mut coalescing = Coalescing::new(start);
        let every = Duration::from_micros(400);
        wake(&mut coalescing, start, every, Duration::from_millis(100));
        let at = start + Duration::from_millis(100);
        coalescing.woken(at);
        assert_eq!(
            coalescing.rest(at + Duration::from_micros(300)),
            Some(Duration::from_micros(1700))
        );
        assert_eq!(coalescing.rest(at + Duration::from_millis(2)), None);
    }
}
