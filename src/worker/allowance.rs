//! How much one member may send: beyond it what comes is dropped, so that a client in a loop, or one that means it, costs
//! its worker a bounded part of its time.
//!
//! Only what is authentic is paid for: whoever sends in a member's name, without its keys, uses up nothing of what it has. DTLS
//! is the exception, because only the association can tell: such a forger holds up the member's data channel, and nothing else.

use std::time::{Duration, Instant};

/// RTP packets a second in the long run, and at once after a rest. 4 Mbit/s of simulcast are 450 packets, with
/// retransmissions, probes at twice the rate and a voice about 1200; this is 38 Mbit/s of full packets.
const MEDIA: (u32, u32) = (4000, 1000);
/// RTCP packets: a viewer of 25 pictures on a bad line sends up to 50 NACKs a second for each.
const REPORTS: (u32, u32) = (2000, 1000);
/// STUN: checks come fifty times a second at most, and seldom once the path stands.
const CHECKS: (u32, u32) = (200, 400);
/// DTLS records, which carry the data channel: texts, and what acknowledges them.
const RECORDS: (u32, u32) = (500, 500);
/// Texts on the data channel; a datagram may bring dozens.
const TEXTS: (u32, u32) = (100, 200);

/// Bounds of one member, kept when it begins a new session.
#[derive(Clone, Debug)]
pub struct Allowance {
    /// RTP packets.
    pub media: Bucket,
    /// RTCP packets.
    pub reports: Bucket,
    /// STUN.
    pub checks: Bucket,
    /// DTLS.
    pub records: Bucket,
    /// Texts on the data channel.
    pub texts: Bucket,
}

impl Allowance {
    /// Everything full.
    pub fn new(now: Instant) -> Self {
        let full = |(rate, burst)| Bucket::new(now, rate, burst);
        Allowance {
            media: full(MEDIA),
            reports: full(REPORTS),
            checks: full(CHECKS),
            records: full(RECORDS),
            texts: full(TEXTS),
        }
    }
}

/// A token bucket that counts in the time that it takes to fill.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// One token.
    token: Duration,
    /// All tokens.
    depth: Duration,
    /// When it is full again. The more this lies ahead, the fewer tokens are left.
    full: Instant,
}

impl Bucket {
    /// `rate` tokens a second, `burst` at most; full.
    pub fn new(now: Instant, rate: u32, burst: u32) -> Self {
        let token = Duration::from_secs(1) / rate;
        let depth = token * burst;
        Bucket {
            token,
            depth,
            full: now,
        }
    }

    /// Whether a token is left; takes it.
    pub fn take(&mut self, now: Instant) -> bool {
        let may = !self.is_empty(now);
        if may {
            self.full = self.full.max(now) + self.token;
        }
        may
    }

    /// Whether no token is left.
    pub fn is_empty(&self, now: Instant) -> bool {
        self.full.max(now) + self.token > now + self.depth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `rate` packets a second pass within `seconds`.
    fn pass(bucket: &mut Bucket, begin: Instant, rate: u32, seconds: u32) -> u32 {
        let at = |n: u32| begin + Duration::from_secs(1) * n / rate;
        (0..rate * seconds).filter(|n| bucket.take(at(*n))).count() as u32
    }

    #[test]
    fn a_flood_passes_at_the_rate_and_its_end_is_forgiven() {
        let begin = Instant::now();
        let mut bucket = Allowance::new(begin).media;
        let (rate, burst) = MEDIA;
        let passed = pass(&mut bucket, begin, 50_000, 10);
        assert!((passed.abs_diff(10 * rate + burst)) < 10, "{passed}");
        let end = begin + Duration::from_secs(10);
        let left = (0..burst).filter(|_| bucket.take(end)).count();
        assert!(left <= 1, "{left}");
        let rested = end + Duration::from_secs(60);
        assert!(!bucket.is_empty(rested));
        let at_once = (0..2 * burst).filter(|_| bucket.take(rested)).count();
        assert_eq!(at_once as u32, burst);
    }

    /// Chromium at 4 Mbit/s: packets of 1100 bytes, paced in bursts; 10 % of retransmissions; a probe at twice the rate for
    /// a fifth of the time; a keyframe of half a second's bytes at once every two seconds; a voice.
    #[test]
    fn a_publisher_of_four_megabits_with_simulcast_repairs_and_probes_loses_nothing() {
        let begin = Instant::now();
        let mut bucket = Allowance::new(begin).media;
        for tick in 0..12_000u32 {
            let now = begin + Duration::from_millis(5) * tick;
            let probe = if tick % 200 < 40 { 5 } else { 0 };
            let keyframe = if tick % 400 == 0 { 230 } else { 0 };
            for _ in 0..3 + probe + keyframe + tick % 2 {
                assert!(bucket.take(now), "tick {tick}");
            }
        }
    }

    #[test]
    fn time_that_stands_still_or_goes_back_makes_no_tokens() {
        let begin = Instant::now() + Duration::from_secs(60);
        let mut bucket = Bucket::new(begin, 10, 3);
        let taken = |bucket: &mut Bucket, now| (0..10).filter(|_| bucket.take(now)).count();
        assert_eq!(taken(&mut bucket, begin), 3);
        assert_eq!(taken(&mut bucket, begin - Duration::from_secs(1)), 0);
        assert_eq!(taken(&mut bucket, begin + Duration::from_millis(100)), 1);
    }
}
