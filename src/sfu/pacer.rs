//! The pacer of one peer: what leaves does so at a rate that its link can take.
//!
//! A leaky bucket that everything fills. Voice never waits. Retransmissions wait in the subscriber's own list, video
//! here, padding is made when there is room. While the bucket is not full and nothing waits, a packet passes
//! straight through: nothing is copied.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The bucket holds what leaves in this time, and [`MIN_BURST`] at least.
const BURST: Duration = Duration::from_millis(10);
/// Bits: three full packets.
const MIN_BURST: f64 = 3.0 * 1250.0 * 8.0;
/// Between two releases at least: the worker's timers are no finer, and packets leave in groups.
const GRAIN: Duration = Duration::from_millis(2);
/// What would wait longer than this leaves faster.
pub const MAX_DELAY: Duration = Duration::from_millis(400);
/// Video that would wait longer than this at the pacer's rate makes it full: no frame begins any more, up to the next
/// keyframe after it has drained.
pub const FULL: Duration = Duration::from_millis(1000);
/// Bytes that wait at most: a keyframe of any size that is of use. Beyond it, packets are dropped within a frame.
pub const MAX_BYTES: usize = 512 << 10;
/// Voice may fill the bucket beyond its size by what leaves in this time, no further.
const MAX_DEBT: Duration = Duration::from_millis(100);
/// Bit/s that stand for no limit.
pub const UNLIMITED: f64 = 1e12;
/// Buffers that are kept for reuse.
const SPARE: usize = 64;

/// A packet that waits, plain.
#[derive(Debug, Default)]
pub struct Held {
    /// On which sender.
    pub sender: u64,
    /// Length of its RTP header.
    pub header_len: usize,
    /// It carries a transport-wide number, to be written when it leaves.
    pub numbered: bool,
    /// Header and payload.
    pub packet: Vec<u8>,
}

/// See the module's text.
#[derive(Debug)]
pub struct Pacer {
    /// Bit/s.
    rate: f64,
    /// Bits in the bucket at `at`.
    level: f64,
    at: Option<Instant>,
    queue: VecDeque<Held>,
    bytes: usize,
    spare: Vec<Vec<u8>>,
}

impl Default for Pacer {
    fn default() -> Self {
        Pacer {
            rate: UNLIMITED,
            level: 0.0,
            at: None,
            queue: VecDeque::new(),
            bytes: 0,
            spare: Vec::new(),
        }
    }
}

impl Pacer {
    /// Bit/s from now on.
    pub fn set_rate(&mut self, now: Instant, bps: f64) {
        self.drain(now);
        self.rate = bps.clamp(1.0, UNLIMITED);
    }

    /// Whether a packet may leave now, as far as the rate is concerned.
    pub fn has_room(&mut self, now: Instant) -> bool {
        self.drain(now);
        self.level < self.burst()
    }

    /// Whether video that comes now passes straight through.
    pub fn is_open(&mut self, now: Instant) -> bool {
        self.queue.is_empty() && self.has_room(now)
    }

    /// So many bytes left.
    pub fn note_sent(&mut self, now: Instant, bytes: usize) {
        self.drain(now);
        let most = self.burst() + self.rate * MAX_DEBT.as_secs_f64();
        self.level = (self.level + 8.0 * bytes as f64).min(most);
    }

    /// No frame may begin to wait.
    pub fn is_full(&self) -> bool {
        self.delay() > FULL
    }

    /// Keeps a packet until [`Self::release`]; false: there is no room, and it is dropped.
    pub fn hold(&mut self, sender: u64, header_len: usize, numbered: bool, packet: &[u8]) -> bool {
        if self.bytes + packet.len() > MAX_BYTES {
            return false;
        }
        let mut kept = self.spare.pop().unwrap_or_default();
        kept.clear();
        kept.extend_from_slice(packet);
        self.bytes += packet.len();
        self.queue.push_back(Held {
            sender,
            header_len,
            numbered,
            packet: kept,
        });
        true
    }

    /// The next packet, if it may leave now. Give it back by [`Self::recycle`].
    pub fn release(&mut self, now: Instant) -> Option<Held> {
        if self.queue.is_empty() || !self.has_room(now) {
            return None;
        }
        let held = self.queue.pop_front()?;
        self.bytes -= held.packet.len();
        Some(held)
    }

    /// Drops what waits of one sender; how many packets that were.
    pub fn discard(&mut self, sender: u64) -> u64 {
        let (mut discarded, count) = (0, self.queue.len());
        for _ in 0..count {
            let Some(held) = self.queue.pop_front() else {
                break;
            };
            if held.sender == sender {
                self.bytes -= held.packet.len();
                self.recycle(held);
                discarded += 1;
            } else {
                self.queue.push_back(held);
            }
        }
        discarded
    }

    /// Takes a released packet's memory back.
    pub fn recycle(&mut self, held: Held) {
        if self.spare.len() < SPARE {
            self.spare.push(held.packet);
        }
    }

    /// How long the last packet in the queue will have waited.
    pub fn delay(&self) -> Duration {
        let seconds = 8.0 * self.bytes as f64 / self.rate;
        Duration::from_secs_f64(seconds.min(60.0))
    }

    /// When there is room again; `None` if nothing here waits for it.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.room_at().filter(|_| !self.queue.is_empty())
    }

    /// When a packet may leave that has to wait now. `None`: nothing ever had to.
    pub fn room_at(&self) -> Option<Instant> {
        let surplus = (self.level - self.burst() / 2.0).max(0.0);
        let wait = Duration::from_secs_f64((surplus / self.speed()).min(1.0));
        Some(self.at? + wait.max(GRAIN))
    }

    fn drain(&mut self, now: Instant) {
        let passed = self
            .at
            .map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.level = (self.level - self.speed() * passed.as_secs_f64()).max(0.0);
        self.at = Some(self.at.map_or(now, |at| at.max(now)));
    }

    /// What waits is gone within [`MAX_DELAY`].
    fn speed(&self) -> f64 {
        let needed = 8.0 * self.bytes as f64 / MAX_DELAY.as_secs_f64();
        self.rate.max(needed)
    }

    fn burst(&self) -> f64 {
        (self.rate * BURST.as_secs_f64()).max(MIN_BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Sends `count` packets of 1250 bytes at once; returns when each left.
    fn burst(pacer: &mut Pacer, t0: Instant, count: usize) -> Vec<Duration> {
        let mut left = Vec::new();
        for _ in 0..count {
            if pacer.is_open(t0) {
                pacer.note_sent(t0, 1250);
                left.push(Duration::ZERO);
            } else {
                assert!(pacer.hold(1, 12, true, &[0; 1250]));
            }
        }
        let mut now = t0;
        while let Some(next) = pacer.poll_timeout() {
            assert!(next > now);
            now = next;
            while let Some(held) = pacer.release(now) {
                pacer.note_sent(now, held.packet.len());
                pacer.recycle(held);
                left.push(now - t0);
            }
        }
        left
    }

    #[test]
    fn without_a_rate_everything_passes() {
        let t0 = Instant::now();
        let left = burst(&mut Pacer::default(), t0, 500);
        assert!(left.iter().all(Duration::is_zero));
    }

    #[test]
    fn a_keyframe_leaves_at_the_rate() {
        let t0 = Instant::now();
        let mut pacer = Pacer::default();
        pacer.set_rate(t0, 1e6);
        // 300 kbit at 1 Mbit/s.
        let left = burst(&mut pacer, t0, 30);
        assert_eq!(left.len(), 30);
        let last = left[29];
        assert!((ms(220)..ms(310)).contains(&last), "{last:?}");
        for window in left.windows(5) {
            assert!(window[4] - window[0] >= ms(5), "no burst of five: {left:?}");
        }
    }

    #[test]
    fn what_waits_too_long_leaves_faster_and_nothing_new_begins() {
        let t0 = Instant::now();
        let mut pacer = Pacer::default();
        pacer.set_rate(t0, 100_000.0);
        for _ in 0..20 {
            pacer.hold(1, 12, true, &[0; 1250]);
        }
        assert!(pacer.is_full());
        let mut now = t0;
        while let Some(next) = pacer.poll_timeout() {
            now = next;
            while let Some(held) = pacer.release(now) {
                pacer.note_sent(now, held.packet.len());
            }
        }
        let took = now - t0;
        assert!((ms(300)..ms(1500)).contains(&took), "{took:?}");
        assert!(!pacer.is_full());
    }

    #[test]
    fn what_one_sender_has_waiting_can_be_dropped() {
        let t0 = Instant::now();
        let mut pacer = Pacer::default();
        pacer.set_rate(t0, 100_000.0);
        pacer.note_sent(t0, 10_000);
        for n in 0..6u8 {
            pacer.hold(u64::from(n % 2), 12, true, &[n; 1000]);
        }
        assert_eq!((pacer.discard(0), pacer.bytes), (3, 3_000));
        let mut left = Vec::new();
        let mut now = t0;
        while let Some(next) = pacer.poll_timeout() {
            now = next.max(now);
            while let Some(held) = pacer.release(now) {
                left.push(held.packet[0]);
            }
        }
        assert_eq!(left, [1, 3, 5], "the others' order stays");
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut pacer = Pacer::default();
        pacer.set_rate(Instant::now(), 1.0);
        let taken = (0..1000)
            .filter(|_| pacer.hold(1, 12, true, &[0; 1250]))
            .count();
        assert_eq!(taken, MAX_BYTES / 1250);
    }

    #[test]
    fn voice_delays_video_but_does_not_shut_it_out() {
        let t0 = Instant::now();
        let mut pacer = Pacer::default();
        pacer.set_rate(t0, 50_000.0);
        pacer.hold(1, 12, true, &[0; 1000]);
        for n in 0..100 {
            pacer.note_sent(t0 + ms(n * 20), 200);
        }
        let at = pacer.poll_timeout().expect("it waits");
        assert!(at < t0 + ms(3000));
    }
}
