//! What was sent under transport-wide numbers, until its fate is known.

use std::time::Duration;

use crate::rtp::ring::{Numbered, Ring};
use crate::rtp::unwrap::SeqUnwrapper;

/// Packets that are remembered; four seconds at 5 Mbit/s. A packet whose feedback comes after it was overwritten
/// counts neither as received nor as lost.
pub const CAPACITY: u64 = 2048;
/// Of slower streams it is these last microseconds.
const MEMORY: u64 = 4_000_000;
/// A packet counts as lost when one that was sent this much later has arrived. Reordering and jitter below it are
/// no loss.
pub const SETTLE: Duration = Duration::from_millis(200);

/// One sent packet. Times are microseconds of the estimator's epoch.
#[derive(Clone, Copy, Debug, Default)]
pub struct SentPacket {
    /// Extended transport-wide number; 0: the place is empty.
    pub seq: u64,
    /// When it left.
    pub sent: u64,
    /// Bytes on the wire.
    pub size: u32,
    /// The probe that it belongs to; 0: none.
    pub cluster: u32,
    /// It is known to have arrived.
    pub arrived: bool,
    /// Feedback said that it had not.
    pub missed: bool,
}

impl Numbered for SentPacket {
    fn number(&self) -> u64 {
        self.seq
    }

    fn time(&self) -> u64 {
        self.sent
    }
}

/// A ring by number; allocates with its first packet.
#[derive(Debug)]
pub struct History {
    seqs: SeqUnwrapper,
    packets: Ring<SentPacket>,
    /// Everything before has been counted.
    settled: u64,
    /// The highest number that feedback was about; 0: none yet.
    covered: u64,
}

/// Packets whose fate became certain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Those that arrived.
    pub received: u32,
    /// Those that did not.
    pub lost: u32,
}

impl Default for History {
    fn default() -> Self {
        History {
            seqs: SeqUnwrapper::default(),
            packets: Ring::new(CAPACITY as usize, MEMORY),
            settled: 0,
            covered: 0,
        }
    }
}

impl History {
    /// A packet leaves; numbers ascend.
    pub fn insert(&mut self, seq: u16, sent: u64, size: u32, cluster: u32) {
        let seq = self.seqs.unwrap(seq);
        if self.settled == 0 {
            self.settled = seq;
        }
        self.packets.insert(SentPacket {
            seq,
            sent,
            size,
            cluster,
            arrived: false,
            missed: false,
        });
    }

    /// Feedback is about the packet whose number ends in `seq`: the bytes before it that no feedback was about, because
    /// the message was lost.
    pub fn cover(&mut self, seq: u16) -> u32 {
        let seq = self.seqs.peek(seq);
        if seq <= self.covered || self.seqs.highest().is_none_or(|highest| seq > highest) {
            return 0;
        }
        let before = std::mem::replace(&mut self.covered, seq);
        if before == 0 {
            return 0;
        }
        let skipped = (before + 1).max(seq.saturating_sub(CAPACITY - 1))..seq;
        skipped
            .filter_map(|seq| self.packets.get(seq))
            .filter(|packet| !packet.arrived && !packet.missed)
            .map(|packet| packet.size)
            .sum()
    }

    /// Feedback covers the packet whose number ends in `seq`, and it had not arrived by then.
    pub fn miss(&mut self, seq: u16) {
        let seq = self.seqs.peek(seq);
        if let Some(packet) = self.packets.get_mut(seq) {
            packet.missed = true;
        }
    }

    /// The packet whose number ends in `seq`, if its arrival is news; from now on it is none.
    pub fn arrive(&mut self, seq: u16) -> Option<SentPacket> {
        let highest = self.seqs.highest()?;
        let seq = self.seqs.peek(seq);
        let packet = self.packets.get_mut(seq)?;
        if seq > highest || packet.arrived {
            return None;
        }
        packet.arrived = true;
        Some(*packet)
    }

    /// Counts the packets that were sent [`SETTLE`] before `newest`, the latest departure that has arrived. Those that no
    /// feedback was about are not counted: feedback is lost, too, and would count every loss on the way back dozens of
    /// times.
    pub fn settle(&mut self, newest: u64) -> Settled {
        let mut counts = Settled::default();
        let Some(highest) = self.seqs.highest() else {
            return counts;
        };
        self.settled = self.settled.max((highest + 1).saturating_sub(CAPACITY));
        while self.settled <= highest {
            if let Some(packet) = self.packets.get(self.settled) {
                if packet.sent + SETTLE.as_micros() as u64 > newest {
                    break;
                }
                if packet.arrived {
                    counts.received += 1;
                } else if packet.missed {
                    counts.lost += 1;
                }
            }
            self.settled += 1;
        }
        counts
    }

    /// Departure of the packet that was sent last.
    pub fn last_sent(&self) -> Option<u64> {
        let highest = self.seqs.highest()?;
        Some(self.packets.get(highest)?.sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE_MICROS: u64 = SETTLE.as_micros() as u64;

    #[test]
    fn a_packet_arrives_once_and_only_if_it_was_sent() {
        let mut history = History::default();
        assert!(history.arrive(5).is_none());
        history.insert(65_535, 10, 1200, 0);
        history.insert(0, 20, 300, 7);
        let packet = history.arrive(0).expect("sent");
        assert_eq!((packet.sent, packet.size, packet.cluster), (20, 300, 7));
        assert!(history.arrive(0).is_none(), "told twice");
        assert!(history.arrive(1).is_none(), "never sent");
        assert!(history.arrive(65_535).is_some());
    }

    #[test]
    fn loss_is_certain_only_after_a_while() {
        let mut history = History::default();
        for n in 0..10u16 {
            history.insert(n, u64::from(n) * 50_000, 100, 0);
        }
        for n in [0u16, 1, 3, 4, 9] {
            history.arrive(n);
        }
        // Nothing was heard of 7 and 8.
        for n in [2u16, 5, 6] {
            history.miss(n);
        }
        let early = history.settle(SETTLE_MICROS + 100_000);
        assert_eq!((early.received, early.lost), (2, 1));
        history.arrive(5);
        let late = history.settle(450_000);
        assert_eq!((late.received, late.lost), (3, 0), "5 came late");
    }

    #[test]
    fn what_lost_feedback_was_about_is_known_by_the_next() {
        let mut history = History::default();
        for n in 0..10u16 {
            history.insert(n, u64::from(n), 100, 0);
        }
        let skipped: Vec<u32> = [1u16, 2, 5, 4, 6, 300].map(|n| history.cover(n)).into();
        assert_eq!(skipped, [0, 0, 200, 0, 0, 0]);
    }

    #[test]
    fn what_was_overwritten_is_not_counted() {
        let mut history = History::default();
        for n in 0..(CAPACITY as u32 + 100) {
            history.insert(n as u16, u64::from(n), 100, 0);
        }
        assert!(history.arrive(50).is_none());
        (0..=u16::MAX).for_each(|seq| history.miss(seq));
        let counts = history.settle(u64::MAX / 2);
        assert_eq!(u64::from(counts.lost), CAPACITY);
    }
}
