//! Sequence numbers and timestamps of one leg: one unbroken stream, whatever sources it is made of.

use std::time::{Duration, Instant};

use super::DropReason;
use crate::rtp::window::{Novelty, SeqWindow};

/// A new source whose own timestamps, moved as the old one's were, come this close to the moment they should show
/// keeps that shift: the mixes of a room share one clock.
const SAME_CLOCK: Duration = Duration::from_millis(250);
/// A source whose place in time the sender reports tell is put there, unless that is further than this from the moment
/// in which it comes: a large keyframe takes its time, but a clock may also be wrong.
const MAX_ALIGNMENT: Duration = Duration::from_millis(500);

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
/// Within a source the distance between packets stays what it was, less those that are left out: loss stays loss, and
/// late packets take their own place. A new source follows the last packet sent without a gap; its time goes on where
/// the sender reports put it, or else later by the time that has passed. No number is given twice: encryption relies on that (RFC 3711, section 9.1).
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
    /// Those that were left out, and how many there were.
    left_out: SeqWindow,
    left_out_count: u64,
    /// From its time to that of the track; see [`super::Received::shift`].
    shift: Option<u64>,
    catch_up: Option<CatchUp>,
}

/// A keyframe whose moment is past when it comes: what was sent meanwhile is as new as it. Its time begins after that
/// and runs at half speed until it has made up for it, so that it never goes back and ends up right.
#[derive(Clone, Copy, Debug)]
struct CatchUp {
    /// Of the source.
    first: u64,
    /// On this leg.
    begins: u64,
    /// By how much it is late.
    late: u64,
}

impl Source {
    fn seq(&self, seq: u64) -> u64 {
        let earlier = self.left_out_count - self.left_out.count_above(seq).min(self.left_out_count);
        seq.wrapping_add(self.seq_offset).wrapping_sub(earlier)
    }

    fn timestamp(&self, timestamp: u64) -> u64 {
        if let Some(catch_up) = self.catch_up {
            let since = timestamp.saturating_sub(catch_up.first);
            if since < 2 * catch_up.late {
                return catch_up.begins + since / 2;
            }
        }
        timestamp.wrapping_add(self.timestamp_offset)
    }
}

/// What becomes of the place of a packet that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// The next packet takes it.
    Closed,
    /// Later ones have been sent: something empty has to fill it.
    Hole(Rewritten),
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

    /// The next packet begins a new source. `shift` takes its time to that of the track (see
    /// [`super::Received::shift`]); the source before is of the same track where both have one.
    pub fn begin(
        &mut self,
        now: Instant,
        seq: u64,
        timestamp: u64,
        shift: Option<u64>,
        clock_rate: u32,
    ) {
        let timestamp_offset = self.join(now, timestamp, shift, clock_rate);
        let aligned = timestamp.wrapping_add(timestamp_offset);
        let begins = self.last.map(|last| last.timestamp + 1);
        let catch_up = begins
            .filter(|begins| aligned < *begins)
            .map(|begins| CatchUp {
                first: timestamp,
                begins,
                late: begins - aligned,
            });
        self.source = Some(Source {
            seq_offset: self.next_seq.wrapping_sub(seq),
            timestamp_offset,
            first: seq,
            seen: SeqWindow::default(),
            left_out: SeqWindow::default(),
            left_out_count: 0,
            shift,
            catch_up,
        });
    }

    /// The offset with which a new source goes on from the last packet.
    fn join(&self, now: Instant, timestamp: u64, shift: Option<u64>, clock_rate: u32) -> u64 {
        let Some(last) = self.last else {
            return 0;
        };
        let passed = ticks(now.saturating_duration_since(last.at), clock_rate);
        let expected = last.timestamp + passed.max(1);
        if let Some(source) = &self.source {
            if let (Some(old), Some(new)) = (source.shift, shift) {
                let offset = source.timestamp_offset.wrapping_add(new).wrapping_sub(old);
                let aligned = timestamp.wrapping_add(offset);
                if aligned.abs_diff(expected) <= ticks(MAX_ALIGNMENT, clock_rate) {
                    return offset;
                }
            }
            let kept = timestamp.wrapping_add(source.timestamp_offset);
            if kept > last.timestamp && kept.abs_diff(expected) <= ticks(SAME_CLOCK, clock_rate) {
                return source.timestamp_offset;
            }
        }
        expected.wrapping_sub(timestamp)
    }

    /// A sender report told more about the source in force.
    pub fn set_shift(&mut self, shift: Option<u64>) {
        if let Some(source) = &mut self.source {
            source.shift = shift.or(source.shift);
        }
    }

    /// The packet's numbers on this leg.
    pub fn rewrite(
        &mut self,
        now: Instant,
        seq: u64,
        timestamp: u64,
    ) -> Result<Rewritten, DropReason> {
        self.mark(seq)?;
        let source = self.source.as_ref().ok_or(DropReason::NotAttached)?;
        let rewritten = Rewritten {
            seq: source.seq(seq),
            timestamp: source.timestamp(timestamp),
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

    /// A packet of the source in force does not go on, and its receiver is not to miss it.
    pub fn leave_out(&mut self, seq: u64, timestamp: u64) -> Result<LeftOut, DropReason> {
        let newest = self.mark(seq)?;
        let source = self.source.as_mut().ok_or(DropReason::NotAttached)?;
        if newest {
            source.left_out.insert(seq);
            source.left_out_count += 1;
            return Ok(LeftOut::Closed);
        }
        let place = Rewritten {
            seq: source.seq(seq),
            timestamp: source.timestamp(timestamp),
        };
        // Those above it may all have been left out.
        self.next_seq = self.next_seq.max(place.seq + 1);
        Ok(LeftOut::Hole(place))
    }

    /// Marks a packet as seen; true: none above it was.
    fn mark(&mut self, seq: u64) -> Result<bool, DropReason> {
        let source = self.source.as_mut().ok_or(DropReason::NotAttached)?;
        if seq < source.first {
            return Err(DropReason::TooOld);
        }
        match source.seen.insert(seq) {
            Novelty::Newest => Ok(true),
            Novelty::Late => Ok(false),
            Novelty::Duplicate => Err(DropReason::Duplicate),
            Novelty::TooOld => Err(DropReason::TooOld),
        }
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
