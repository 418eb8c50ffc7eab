//! RTP payloads into VP8 frames (RFC 7741, section 4).

use super::Descriptor;
use crate::rtp::h264::{AccessUnit, MAX_ACCESS_UNIT};

/// Assembles frames from packets in sequence order. A frame of which a packet is missing is left out, and the next one
/// is broken: what a decoder would make of half a frame is worse than nothing.
///
/// Holds one frame, in a buffer that is kept.
#[derive(Debug, Default)]
pub struct Depacketizer {
    frame: Vec<u8>,
    timestamp: u64,
    keyframe: bool,
    /// The frame's first packet was there, and none since is missing.
    whole: bool,
    /// A frame before this one is missing.
    broken: bool,
    next_seq: Option<u64>,
}

impl Depacketizer {
    /// Takes one packet, and calls `emit` with the frame that it completes, without payload descriptors.
    ///
    /// A packet at or below the last one's `seq` is ignored. An empty payload only continues the sequence.
    pub fn push(
        &mut self,
        seq: u64,
        timestamp: u64,
        marker: bool,
        payload: &[u8],
        mut emit: impl FnMut(AccessUnit<'_>),
    ) {
        let gap = match self.next_seq {
            Some(next) if seq < next => return,
            Some(next) => seq > next,
            None => false,
        };
        self.next_seq = Some(seq + 1);
        if gap {
            self.give_up();
            self.broken = true;
        }
        if payload.is_empty() {
            return;
        }
        if timestamp != self.timestamp {
            // Its end was not marked: all frames of a stream have another time.
            self.give_up();
            self.timestamp = timestamp;
        }
        match Descriptor::parse(payload) {
            Some(descriptor) => self.take(&descriptor, payload),
            None => self.give_up(),
        }
        if marker {
            self.finish(&mut emit);
        }
    }

    fn take(&mut self, descriptor: &Descriptor, payload: &[u8]) {
        if descriptor.starts_frame {
            self.give_up();
            self.whole = true;
            self.keyframe = descriptor.starts_keyframe(payload);
        }
        let data = payload.get(descriptor.length..).unwrap_or_default();
        if !self.whole || self.frame.len() + data.len() > MAX_ACCESS_UNIT {
            self.give_up();
            self.broken = true;
            return;
        }
        self.frame.extend_from_slice(data);
    }

    /// What there is of a frame will not become whole.
    fn give_up(&mut self) {
        self.broken |= !self.frame.is_empty();
        self.frame.clear();
        self.whole = false;
    }

    fn finish(&mut self, emit: &mut impl FnMut(AccessUnit<'_>)) {
        if self.whole && !self.frame.is_empty() {
            emit(AccessUnit {
                data: &self.frame,
                timestamp: self.timestamp,
                keyframe: self.keyframe,
                broken: self.broken,
            });
            self.broken = false;
        }
        self.frame.clear();
        self.whole = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A frame in packets of at most `size` bytes, with minimal descriptors.
    fn packets(frame: &[u8], size: usize) -> Vec<Vec<u8>> {
        let parts = frame.chunks(size).enumerate();
        parts
            .map(|(nth, part)| [&[if nth == 0 { 0x10 } else { 0 }][..], part].concat())
            .collect()
    }

    fn frame(nth: usize, size: usize) -> Vec<u8> {
        let mut frame: Vec<u8> = (0..size).map(|at| (at * 7 + nth) as u8).collect();
        // Only the first one is a keyframe.
        frame[0] = u8::from(nth > 0);
        frame
    }

    proptest! {
        #[test]
        fn whole_frames_come_out_and_what_follows_a_loss_is_broken(
            sizes in prop::collection::vec(1usize..4000, 1..12),
            lost in prop::collection::hash_set(1u64..40, 0..5),
        ) {
            let frames: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(nth, size)| frame(nth, *size)).collect();
            let mut depacketizer = Depacketizer::default();
            let (mut seq, mut got, mut harmed) = (0, Vec::new(), Vec::new());
            for (nth, frame) in frames.iter().enumerate() {
                let parts = packets(frame, 1100);
                let count = parts.len();
                for (at, part) in parts.iter().enumerate() {
                    if lost.contains(&seq) {
                        harmed.push(nth);
                    } else {
                        depacketizer.push(seq, nth as u64 * 3000, at + 1 == count, part, |unit| {
                            got.push(((unit.timestamp / 3000) as usize, unit.data.to_vec(), unit.broken, unit.keyframe));
                        });
                    }
                    seq += 1;
                }
            }
            let mut next = 0;
            for (nth, data, broken, keyframe) in &got {
                prop_assert_eq!(data, &frames[*nth]);
                prop_assert_eq!(*keyframe, *nth == 0);
                prop_assert_eq!(*broken, *nth != next, "{}", nth);
                next = nth + 1;
            }
            let whole = (0..frames.len()).filter(|nth| !harmed.contains(nth)).count();
            prop_assert_eq!(got.len(), whole);
        }

        #[test]
        fn no_packets_make_it_panic_or_hold_more_than_a_frame(
            packets in prop::collection::vec((0u64..3, 0u64..2, any::<bool>(), prop::collection::vec(any::<u8>(), 0..60)), 0..60),
        ) {
            let mut depacketizer = Depacketizer::default();
            let (mut seq, mut timestamp) = (0, 0);
            for (step, later, marker, payload) in packets {
                seq += step;
                timestamp += later;
                depacketizer.push(seq, timestamp, marker, &payload, |unit| assert!(!unit.data.is_empty()));
            }
        }
    }

    #[test]
    fn a_frame_without_end_is_bounded() {
        let mut depacketizer = Depacketizer::default();
        let mut part = vec![0; 1200];
        part[0] = 0x10;
        for seq in 0..4000 {
            depacketizer.push(seq, 0, false, &part, |_| panic!("it never ends"));
            part[0] = 0;
        }
        assert!(depacketizer.frame.capacity() <= 2 * MAX_ACCESS_UNIT);
        depacketizer.push(4000, 3000, true, &[0x10, 0, 1, 2], |unit| {
            assert!(unit.broken)
        });
    }
}
