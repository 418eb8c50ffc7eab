//! From a source's RTP packets to complete pictures: order restored, gaps declared, units assembled.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

/// How long a missing packet is waited for. A retransmission takes a round trip (100 to 150 ms on a mobile link)
/// and a bit; what is later than that would hold the tile's picture back visibly.
pub const RETRANSMISSION_WAIT: Duration = Duration::from_millis(200);

/// Packets held behind a gap: half a second of 3 Mbit/s. When it is full the gap is given up.
pub const HELD_PACKETS: usize = 160;

/// A video packet as the tap delivers it.
#[derive(Clone, Debug)]
pub struct VideoPacket {
    /// Extended sequence number.
    pub seq: u64,
    /// RTP timestamp, 90 kHz.
    pub timestamp: u32,
    /// Last packet of its picture.
    pub marker: bool,
    /// Quarter turns clockwise that the picture needs (3GPP TS 26.114, CVO). `None`: as before.
    pub orientation: Option<u8>,
    /// When it came.
    pub arrival: Instant,
    /// RTP payload.
    pub payload: Bytes,
}

/// What comes out in order.
#[derive(Debug)]
pub enum Step {
    /// The next packet.
    Packet(VideoPacket),
    /// Packets are missing here for good.
    Gap,
}

/// Restores the order of one source's packets, and gives a retransmission its time.
#[derive(Debug, Default)]
pub struct Reorder {
    next: Option<u64>,
    held: BTreeMap<u64, VideoPacket>,
    /// Packets that came after their place was given up, or twice.
    pub late: u64,
    /// Packets that never came.
    pub lost: u64,
}

impl Reorder {
    /// Packets that were taken and have not come out.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Takes a packet in any order.
    pub fn push(&mut self, packet: VideoPacket) {
        if self.next.is_some_and(|next| packet.seq < next) {
            self.late += 1;
            return;
        }
        self.held.insert(packet.seq, packet);
    }

    /// The next step, if one can be made at `now`.
    pub fn pop(&mut self, now: Instant) -> Option<Step> {
        let (&first, packet) = self.held.first_key_value()?;
        let next = self.next.unwrap_or(first);
        if first != next {
            let waited = now.saturating_duration_since(packet.arrival);
            if waited < RETRANSMISSION_WAIT && self.held.len() < HELD_PACKETS {
                return None;
            }
            self.lost += first - next;
            self.next = Some(first);
            return Some(Step::Gap);
        }
        self.next = Some(first + 1);
        self.held
            .pop_first()
            .map(|(_, packet)| Step::Packet(packet))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(seq: u64, arrival: Instant) -> VideoPacket {
        VideoPacket {
            seq,
            timestamp: 0,
            marker: false,
            orientation: None,
            arrival,
            payload: Bytes::new(),
        }
    }

    fn drain(reorder: &mut Reorder, now: Instant) -> Vec<Option<u64>> {
        std::iter::from_fn(|| reorder.pop(now))
            .map(|step| match step {
                Step::Packet(packet) => Some(packet.seq),
                Step::Gap => None,
            })
            .collect()
    }

    #[test]
    fn a_retransmission_in_time_closes_the_gap() {
        let start = Instant::now();
        let mut reorder = Reorder::default();
        for seq in [10, 12, 13] {
            reorder.push(packet(seq, start));
        }
        assert_eq!(drain(&mut reorder, start), [Some(10)]);
        reorder.push(packet(11, start + RETRANSMISSION_WAIT / 2));
        assert_eq!(
            drain(&mut reorder, start + RETRANSMISSION_WAIT / 2),
            [Some(11), Some(12), Some(13)]
        );
        assert_eq!(reorder.lost, 0);
    }

    #[test]
    fn a_gap_is_declared_once_and_what_comes_later_is_late() {
        let start = Instant::now();
        let mut reorder = Reorder::default();
        for seq in [10, 13, 14] {
            reorder.push(packet(seq, start));
        }
        assert_eq!(
            drain(&mut reorder, start + RETRANSMISSION_WAIT),
            [Some(10), None, Some(13), Some(14)]
        );
        reorder.push(packet(11, start + RETRANSMISSION_WAIT));
        assert_eq!(drain(&mut reorder, start + 2 * RETRANSMISSION_WAIT), []);
        assert_eq!((reorder.lost, reorder.late), (2, 1));
    }

    #[test]
    fn a_flood_behind_a_gap_is_bounded() {
        let start = Instant::now();
        let mut reorder = Reorder::default();
        reorder.push(packet(1, start));
        drain(&mut reorder, start);
        let mut out = 0;
        for seq in 3..3000 {
            reorder.push(packet(seq, start));
            out += drain(&mut reorder, start).len();
            assert!(reorder.held.len() <= HELD_PACKETS);
        }
        assert!(out > 2800);
    }
}
