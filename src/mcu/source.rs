//! One video source of a room: packets in any order, access units out.

use std::time::Instant;

use crate::mcu::codec::VideoCodec;
use crate::mcu::feed::{Reorder, Step, VideoPacket};
use crate::mcu::video::Unit;
use crate::rtp::{h264, vp8};

/// See the module's text.
pub struct VideoSource {
    reorder: Reorder,
    depacketizer: Depacketizer,
    /// Said by the packets that have it: the last one of a keyframe, or where it changes.
    orientation: u8,
}

enum Depacketizer {
    H264(h264::Depacketizer),
    Vp8(vp8::Depacketizer),
}

impl VideoSource {
    /// A source without packets.
    pub fn new(codec: VideoCodec) -> Self {
        VideoSource {
            reorder: Reorder::default(),
            depacketizer: match codec {
                VideoCodec::Vp8 => Depacketizer::Vp8(vp8::Depacketizer::default()),
                _ => Depacketizer::H264(h264::Depacketizer::default()),
            },
            orientation: 0,
        }
    }

    /// Packets that wait for others before them, or for [`next`](Self::next).
    pub fn held(&self) -> usize {
        self.reorder.held()
    }

    /// Takes a packet in any order.
    pub fn push(&mut self, packet: VideoPacket) {
        self.reorder.push(packet);
    }

    /// Calls `emit` with the next complete picture; false if there is none at `now`. Twice at once where the end of
    /// one was lost.
    pub fn next(&mut self, now: Instant, mut emit: impl FnMut(Unit<'_>)) -> bool {
        let mut emitted = false;
        while !emitted {
            let packet = match self.reorder.pop(now) {
                None => return false,
                // A gap needs no call of its own: the depacketizer sees it in the sequence numbers.
                Some(Step::Gap) => continue,
                Some(Step::Packet(packet)) => packet,
            };
            self.orientation = packet.orientation.unwrap_or(self.orientation);
            let orientation = self.orientation;
            let emit = |unit: h264::AccessUnit<'_>| {
                emitted = true;
                emit(Unit {
                    data: unit.data,
                    keyframe: unit.keyframe,
                    arrival: packet.arrival,
                    orientation,
                    broken: unit.broken,
                });
            };
            let (time, payload) = (u64::from(packet.timestamp), &packet.payload);
            match &mut self.depacketizer {
                Depacketizer::H264(depacketizer) => {
                    depacketizer.push(packet.seq, time, packet.marker, payload, emit);
                }
                Depacketizer::Vp8(depacketizer) => {
                    depacketizer.push(packet.seq, time, packet.marker, payload, emit);
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcu::feed::RETRANSMISSION_WAIT;
    use bytes::Bytes;

    fn packet(seq: u64, nal: u8, arrival: Instant) -> VideoPacket {
        VideoPacket {
            seq,
            timestamp: seq as u32 * 3000,
            marker: true,
            orientation: None,
            arrival,
            payload: Bytes::from(vec![0x60 | nal, 0x88, seq as u8]),
        }
    }

    /// The number of the next picture's packet, whether it is a keyframe, and whether it is broken.
    fn next(source: &mut VideoSource, now: Instant) -> Option<(u8, bool, bool)> {
        let mut got = None;
        source.next(now, |unit| {
            got = Some((unit.data[6], unit.keyframe, unit.broken));
        });
        got
    }

    #[test]
    fn pictures_come_in_order_and_a_loss_marks_the_next_one() {
        let start = Instant::now();
        let mut source = VideoSource::new(VideoCodec::H264);
        for (seq, nal) in [(10, 5), (12, 1), (11, 1), (14, 1)] {
            source.push(packet(seq, nal, start));
        }
        assert_eq!(next(&mut source, start), Some((10, true, false)));
        assert_eq!(next(&mut source, start), Some((11, false, false)));
        assert_eq!(next(&mut source, start), Some((12, false, false)));
        let none = next(&mut source, start);
        assert_eq!(none, None, "a retransmission of 13 may come");
        assert_eq!(source.held(), 1);
        let late = next(&mut source, start + RETRANSMISSION_WAIT);
        assert_eq!(late, Some((14, false, true)), "13 is given up");
    }
    #[test]
    fn a_picture_is_turned_as_was_said_last() {
        let start = Instant::now();
        let mut source = VideoSource::new(VideoCodec::H264);
        for (seq, orientation) in [(1, None), (2, Some(3)), (3, None), (4, Some(0)), (5, None)] {
            source.push(VideoPacket {
                orientation,
                ..packet(seq, 5, start)
            });
        }
        let mut turns = Vec::new();
        while source.next(start, |unit| turns.push(unit.orientation)) {}
        assert_eq!(turns, [0, 3, 3, 0, 0]);
    }
}
