//! Sequence numbers and timestamps of one leg: one unbroken stream, whatever sources it is made of.

use std::time::{Duration, Instant};

use super::DropReason;
use crate::rtp::window::{Novelty, SeqWindow};

/// A new source whose own timestamps, moved as the old one's were, come this close to the moment they should show
/// keeps that shift: the mixes of a room share one clock.
const SAME_CLOCK: Duration = Duration::from_millis(250);

/// A packet's place in the leg's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// Extended sequence number.
    pub seq: u64,
    /// Extended timestamp.
    pub timestamp: u64,
}

/// Maps the numbers of successive sources onto one stream.
///
/// Within a source the distance between packets stays what it was: loss stays loss, and late packets take their
/// own place. A new source follows the last packet sent without a gap, later by the time that has passed. No number
/// is given twice: encryption relies on that (RFC 3711, section 9.1).
#[derive(Clone, Debug)]
pub struct Rewriter {
    next_seq: u64,
    last: Option<Last>,
    source: Option<Source>,
}

/// The packet with the highest timestamp so far.
#[derive(Clone, Copy, Debug)]
struct Last {
    timestamp: u64,
    at: Instant,
}

/// The source in force. Offsets are added modulo 2⁶⁴.
#[derive(Clone, Debug)]
struct Source {
    seq_offset: u64,
    timestamp_offset: u64,
    first: u64,
    seen: SeqWindow,
}

impl Rewriter {
    /// A stream that begins with this sequence number. Below 2¹⁵ it cannot wrap before the receiver has seen it
    /// (RFC 3711, section 3.3.1).
    pub fn new(initial_seq: u16) -> Self {
        Rewriter {
            next_seq: (1 << 16) + u64::from(initial_seq),
            last: None,
            source: None,
        }
    }

    /// The next packet begins a new source.
    pub fn begin(&mut self, now: Instant, seq: u64, timestamp: u64, clock_rate: u32) {
        let timestamp_offset = self.join(now, timestamp, clock_rate);
        self.source = Some(Source {
            seq_offset: self.next_seq.wrapping_sub(seq),
            timestamp_offset,
            first: seq,
            seen: SeqWindow::default(),
        });
    }

    /// The offset with which a new source goes on from the last packet.
    fn join(&self, now: Instant, timestamp: u64, clock_rate: u32) -> u64 {
        let Some(last) = self.last else {
            return 0;
        };
        let passed = ticks(now.saturating_duration_since(last.at), clock_rate);
        let expected = last.timestamp + passed.max(1);
        if let Some(source) = &self.source {
            let kept = timestamp.wrapping_add(source.timestamp_offset);
            if kept > last.timestamp && kept.abs_diff(expected) <= ticks(SAME_CLOCK, clock_rate) {
                return source.timestamp_offset;
            }
        }
        expected.wrapping_sub(timestamp)
    }

    /// The packet's numbers on this leg.
    pub fn rewrite(
        &mut self,
        now: Instant,
        seq: u64,
        timestamp: u64,
    ) -> Result<Rewritten, DropReason> {
        let source = self.source.as_mut().ok_or(DropReason::NotAttached)?;
        if seq < source.first {
            return Err(DropReason::TooOld);
        }
        match source.seen.insert(seq) {
            Novelty::Newest | Novelty::Late => {}
            Novelty::Duplicate => return Err(DropReason::Duplicate),
            Novelty::TooOld => return Err(DropReason::TooOld),
        }
        let rewritten = Rewritten {
            seq: seq.wrapping_add(source.seq_offset),
            timestamp: timestamp.wrapping_add(source.timestamp_offset),
        };
        self.next_seq = self.next_seq.max(rewritten.seq + 1);
        if self
            .last
            .is_none_or(|last| rewritten.timestamp > last.timestamp)
        {
            self.last = Some(Last {
                timestamp: rewritten.timestamp,
                at: now,
            });
        }
        Ok(rewritten)
    }

    /// A timestamp of the source in force, on this leg. For sender reports.
    pub fn map_timestamp(&self, timestamp: u64) -> Option<u64> {
        let source = self.source.as_ref()?;
        Some(timestamp.wrapping_add(source.timestamp_offset))
    }
}

fn ticks(duration: Duration, clock_rate: u32) -> u64 {
    (duration.as_nanos() * u128::from(clock_rate) / 1_000_000_000) as u64
}

#[cfg(test)]
mod tests;
