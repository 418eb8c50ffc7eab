//! Loss and jitter of a stream that is received (RFC 3550, appendices A.3 and A.8).

use std::time::{Duration, Instant};

use super::ntp::Ntp;
use super::params::Ssrc;
use super::rtcp::ReportBlock;

/// Counts one received stream. Extended sequence numbers and timestamps in, report blocks out.
#[derive(Clone, Debug)]
pub struct Reception {
    clock_rate: u32,
    /// Whole turns of the counter that the first number already had: the report counts those since.
    turns_before: u64,
    base: u64,
    highest: u64,
    received: u64,
    bytes: u64,
    expected_before: u64,
    received_before: u64,
    transit: Option<Transit>,
    jitter: f64,
    last_report: Option<(Ntp, Instant)>,
}

/// Arrival and timestamp of the packet before.
#[derive(Clone, Copy, Debug)]
struct Transit {
    arrival: Instant,
    timestamp: u64,
}

impl Reception {
    /// A stream that begins with sequence number `first`.
    pub fn new(clock_rate: u32, first: u64) -> Self {
        Reception {
            clock_rate,
            turns_before: first & !0xffff,
            base: first,
            highest: first,
            received: 0,
            bytes: 0,
            expected_before: 0,
            received_before: 0,
            transit: None,
            jitter: 0.0,
            last_report: None,
        }
    }

    /// A packet that was not seen before. `retransmitted` ones tell nothing about jitter.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        seq: u64,
        timestamp: u64,
        size: usize,
        retransmitted: bool,
    ) {
        self.base = self.base.min(seq);
        self.highest = self.highest.max(seq);
        self.received += 1;
        self.bytes += size as u64;
        if retransmitted {
            return;
        }
        if let Some(last) = self.transit {
            // A.8: the difference of transit times of two packets, in media clock units.
            let arrival = now.saturating_duration_since(last.arrival).as_secs_f64()
                * f64::from(self.clock_rate);
            let sent = timestamp.wrapping_sub(last.timestamp) as i64 as f64;
            self.jitter += ((arrival - sent).abs() - self.jitter) / 16.0;
        }
        self.transit = Some(Transit {
            arrival: now,
            timestamp,
        });
    }

    /// A sender report for this stream came.
    pub fn handle_sender_report(&mut self, now: Instant, ntp: Ntp) {
        self.last_report = Some((ntp, now));
    }

    /// The block for the next receiver report; begins a new interval of the fraction lost.
    pub fn report(&mut self, now: Instant, ssrc: Ssrc) -> ReportBlock {
        let expected = self.expected();
        let expected_now = expected - self.expected_before;
        let received_now = self.received - self.received_before;
        self.expected_before = expected;
        self.received_before = self.received;
        let lost_now = expected_now.saturating_sub(received_now);
        let (last_sr, delay) = match self.last_report {
            None => (0, 0),
            Some((ntp, at)) => (ntp.middle(), delay_units(now.saturating_duration_since(at))),
        };
        ReportBlock {
            ssrc,
            // A.3: a fixed-point fraction; all lost is 255.
            fraction_lost: (lost_now * 256)
                .checked_div(expected_now)
                .unwrap_or(0)
                .min(255) as u8,
            cumulative_lost: i32::try_from(expected as i64 - self.received as i64)
                .unwrap_or(i32::MAX),
            highest_seq: (self.highest - self.turns_before) as u32,
            jitter: self.jitter as u32,
            last_sr,
            delay_since_last_sr: delay,
        }
    }

    fn expected(&self) -> u64 {
        self.highest - self.base + 1
    }

    /// Packets that came.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Payload bytes that came.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Packets that never came.
    pub fn lost(&self) -> u64 {
        self.expected().saturating_sub(self.received)
    }

    /// Interarrival jitter.
    pub fn jitter(&self) -> Duration {
        Duration::from_secs_f64(self.jitter / f64::from(self.clock_rate))
    }
}

/// In 1/65536 s, as DLSR counts.
fn delay_units(delay: Duration) -> u32 {
    (super::ntp::units(delay) >> 16).min(u64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(now: Instant, seqs: &[u64]) -> Reception {
        let mut reception = Reception::new(90_000, seqs[0]);
        for &seq in seqs {
            reception.handle_packet(now, seq, seq * 3000, 100, false);
        }
        reception
    }

    #[test]
    fn the_fraction_lost_covers_one_interval_and_the_sum_all() {
        let now = Instant::now();
        let mut reception = stream(now, &[131_070, 131_071, 131_074, 131_073]);
        let block = reception.report(now, Ssrc(1));
        assert_eq!((block.fraction_lost, block.cumulative_lost), (51, 1));
        assert_eq!(
            block.highest_seq,
            (1 << 16) + 2,
            "one turn since the beginning"
        );
        for seq in 131_075..131_080 {
            reception.handle_packet(now, seq, 0, 100, false);
        }
        let block = reception.report(now, Ssrc(1));
        assert_eq!((block.fraction_lost, block.cumulative_lost), (0, 1));
        assert_eq!(
            (reception.received(), reception.lost(), reception.bytes()),
            (9, 1, 900)
        );
    }

    #[test]
    fn a_retransmission_repairs_the_sum_without_disturbing_jitter() {
        let now = Instant::now();
        let mut reception = Reception::new(90_000, 10);
        for n in 0..100u64 {
            if n != 50 {
                let at = now + Duration::from_millis(n * 10);
                reception.handle_packet(at, 10 + n, n * 900, 1, false);
            }
        }
        reception.handle_packet(now + Duration::from_secs(3), 60, 50 * 900, 1, true);
        assert_eq!(reception.lost(), 0);
        assert!(reception.jitter() < Duration::from_micros(1));
    }

    #[test]
    fn jitter_converges_to_the_mean_difference() {
        let now = Instant::now();
        let mut reception = Reception::new(48_000, 0);
        for n in 0..1000u64 {
            let at = now + Duration::from_millis(n * 20 + n % 2 * 8);
            reception.handle_packet(at, n, n * 960, 1, false);
        }
        let millis = reception.jitter().as_secs_f64() * 1e3;
        assert!((millis - 8.0).abs() < 0.01, "{millis}");
    }

    #[test]
    fn the_delay_since_the_last_report_is_told() {
        let now = Instant::now();
        let mut reception = stream(now, &[5]);
        assert_eq!(reception.report(now, Ssrc(1)).last_sr, 0);
        reception.handle_sender_report(now, Ntp(0x1111_2222_3333_4444));
        let block = reception.report(now + Duration::from_millis(500), Ssrc(1));
        assert_eq!(block.last_sr, 0x2222_3333);
        assert_eq!(block.delay_since_last_sr, 32_768);
    }
}
