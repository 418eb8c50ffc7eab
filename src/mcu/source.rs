//! One video source of a room: packets in any order, access units out.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use crate::ids::TrackKey;
use crate::mcu::feed::{Reorder, Step, VideoPacket};
use crate::mcu::video::AccessUnit;
use crate::rtp::h264::Depacketizer;

/// See the module's text.
pub struct VideoSource {
    track: TrackKey,
    reorder: Reorder,
    depacketizer: Depacketizer,
    ready: VecDeque<AccessUnit>,
}

impl VideoSource {
    /// A source without packets.
    pub fn new(track: TrackKey) -> Self {
        VideoSource {
            track,
            reorder: Reorder::default(),
            depacketizer: Depacketizer::default(),
            ready: VecDeque::new(),
        }
    }

    /// Whose packets these are.
    pub fn track(&self) -> TrackKey {
        self.track
    }

    /// Takes a packet in any order.
    pub fn push(&mut self, packet: VideoPacket) {
        self.reorder.push(packet);
    }

    /// The next complete picture, if there is one at `now`.
    pub fn pop(&mut self, now: Instant) -> Option<AccessUnit> {
        while self.ready.is_empty() {
            // A gap needs no call of its own: the depacketizer sees it in the sequence numbers.
            let Step::Packet(packet) = self.reorder.pop(now)? else {
                continue;
            };
            let ready = &mut self.ready;
            let (arrival, orientation) = (packet.arrival, packet.orientation);
            let timestamp = u64::from(packet.timestamp);
            self.depacketizer.push(
                packet.seq,
                timestamp,
                packet.marker,
                &packet.payload,
                |unit| {
                    ready.push_back(AccessUnit {
                        data: Bytes::copy_from_slice(unit.data),
                        timestamp: unit.timestamp as u32,
                        keyframe: unit.keyframe,
                        arrival,
                        orientation,
                        broken: unit.broken,
                    });
                },
            );
        }
        self.ready.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcu::feed::RETRANSMISSION_WAIT;

    fn packet(seq: u64, timestamp: u32, nal: u8, arrival: Instant) -> VideoPacket {
        let payload = Bytes::from(vec![0x60 | nal, 0x88, 0x80]);
        VideoPacket {
            seq,
            timestamp,
            marker: true,
            orientation: 0,
            arrival,
            payload,
        }
    }

    #[test]
    fn pictures_come_in_order_and_a_loss_marks_the_next_one() {
        let start = Instant::now();
        let mut source = VideoSource::new(TrackKey(1));
        for (seq, nal) in [(10, 5), (12, 1), (11, 1), (14, 1)] {
            source.push(packet(seq, seq as u32 * 3000, nal, start));
        }
        let first = source.pop(start).expect("the IDR picture is complete");
        assert!(first.keyframe && !first.broken);
        assert_eq!(
            source.pop(start).map(|unit| unit.timestamp),
            Some(11 * 3000)
        );
        assert_eq!(
            source.pop(start).map(|unit| unit.timestamp),
            Some(12 * 3000)
        );
        assert!(
            source.pop(start).is_none(),
            "a retransmission of 13 may come"
        );
        let late = source
            .pop(start + RETRANSMISSION_WAIT)
            .expect("13 is given up");
        assert!(late.broken && late.timestamp == 14 * 3000);
    }
}
