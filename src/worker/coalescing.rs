//! Where datagrams come densely, the loop looks at its sockets once in two milliseconds, where they are voices alone once
//! in five, and finds several at a look.
//!
//! Falling asleep and being woken costs more than forwarding a packet. A worker of fifty voices would do it for each of
//! their packets; what a packet waits for the next look (half of it on average) is far below what jitter buffers
//! absorb, and what leaves together shares system calls. Pictures wait less: senders measure their links by when the
//! packets of a picture arrive.

use std::time::{Duration, Instant};

/// Between two looks at the sockets.
const INTERVAL: Duration = Duration::from_millis(2);
/// The same while there is nothing but voices.
const VOICES_INTERVAL: Duration = Duration::from_millis(5);
/// The last picture is so long ago: there is nothing but voices.
const PICTURES_GONE: Duration = Duration::from_secs(1);
/// Wakes are counted for so long.
const WINDOW: Duration = Duration::from_millis(20);
/// So many wakes in a window are dense: 400 in a second. Resting leaves 500 of them at most,
const DENSE: u32 = 8;
/// and long rests 200: with so many in a window each of them was long enough for the next packet.
const STILL_DENSE: u32 = 4;

/// How often the loop has been woken of late.
#[derive(Debug)]
pub struct Coalescing {
    window: Instant,
    wakes: u32,
    dense: bool,
    looked: Instant,
    picture: Option<Instant>,
}

impl Coalescing {
    /// Nothing came yet.
    pub fn new(now: Instant) -> Self {
        Coalescing {
            window: now,
            wakes: 0,
            dense: false,
            looked: now,
            picture: None,
        }
    }

    /// A packet of a picture passed.
    pub fn note_picture(&mut self, now: Instant) {
        self.picture = Some(now);
    }

    /// The poll ended at `now`, because something was there.
    pub fn woken(&mut self, now: Instant) {
        let length = now.saturating_duration_since(self.window);
        if length >= WINDOW {
            // A window that lasted longer was a quiet one.
            let long_rests = self.dense && self.interval(now) == VOICES_INTERVAL;
            let enough = if long_rests { STILL_DENSE } else { DENSE };
            self.dense = self.wakes >= enough && length < 2 * WINDOW;
            self.window = now;
            self.wakes = 0;
        }
        self.wakes += 1;
        self.looked = now;
    }

    /// How long to rest before the next poll, when nothing more is there to do.
    pub fn rest(&self, now: Instant) -> Option<Duration> {
        let rest = (self.looked + self.interval(now)).saturating_duration_since(now);
        (self.dense && !rest.is_zero()).then_some(rest)
    }

    fn interval(&self, now: Instant) -> Duration {
        match self.picture {
            Some(at) if now < at + PICTURES_GONE => INTERVAL,
            _ => VOICES_INTERVAL,
        }
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
        let resting = wake(&mut coalescing, at, Duration::from_micros(5060), second);
        assert!(resting > 190, "{resting} rests");
        let at = at + second;
        let few = wake(&mut coalescing, at, Duration::from_micros(7000), second);
        assert!(few <= 10, "{few} rests after it has become quiet");
        coalescing.woken(at + 2 * second);
        assert_eq!(coalescing.rest(at + 2 * second), None);
    }

    #[test]
    fn beside_pictures_rests_are_short() {
        let start = Instant::now();
        let mut coalescing = Coalescing::new(start);
        let second = Duration::from_secs(1);
        coalescing.note_picture(start + second);
        wake(&mut coalescing, start, Duration::from_micros(400), second);
        let mut at = start + second;
        coalescing.woken(at);
        assert_eq!(coalescing.rest(at), Some(INTERVAL));
        // At such rests these wakes say that half of them waited for nothing.
        let few = wake(&mut coalescing, at, Duration::from_micros(4000), second / 2);
        assert!(few <= 10, "{few} rests");
        wake(&mut coalescing, at, Duration::from_micros(400), second);
        at += 2 * second;
        wake(&mut coalescing, at, Duration::from_micros(400), second);
        coalescing.woken(at + second);
        assert_eq!(coalescing.rest(at + second), Some(VOICES_INTERVAL));
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
            Some(Duration::from_micros(4700))
        );
        assert_eq!(coalescing.rest(at + VOICES_INTERVAL), None);
    }
}
