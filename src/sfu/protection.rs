//! Redundant audio (RFC 2198) of the server's own making, for a leg that loses packets and takes it: each packet brings
//! the frames before it once more. It needs nothing of the publisher, who hears of no listener's loss.

/// Frames that are kept, and so the most copies of one.
pub(super) const MAX_COPIES: usize = 2;
/// Longer frames are neither repeated nor sent with others: music at such rates takes the place of everything else, and
/// three of these still fit a datagram.
const MAX_FRAME: usize = 400;
/// The age that a block's header can tell (14 bits), in units of the clock.
const MAX_AGE: u32 = 0x3fff;
/// Loss from which on each frame is sent once more, from which on twice, and below which that ends.
const LOSSY: f64 = 0.02;
const VERY_LOSSY: f64 = 0.08;
const FINE: f64 = 0.01;

/// How often each frame is to be repeated on a path that loses this share of the packets; `before` is what was done so
/// far. `crowded`: its queue is long, so that the loss may come from sending too much.
pub(super) fn copies(loss: f64, before: usize, crowded: bool) -> usize {
    match loss {
        _ if crowded => 0,
        loss if loss >= VERY_LOSSY => MAX_COPIES,
        loss if loss >= LOSSY => before.max(1),
        loss if loss >= FINE => before.min(1),
        _ => 0,
    }
}

/// A frame as it was sent.
#[derive(Debug, Default)]
struct Frame {
    seq: u64,
    timestamp: u32,
    payload: Vec<u8>,
}

/// The last frames of one stream. Allocates with its first packets only.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// The newest first.
    kept: [Option<Frame>; MAX_COPIES],
    packed: Vec<u8>,
}

impl Frames {
    /// Packs `payload` with up to `copies` frames before it, and keeps it for later. False: there is none before it that
    /// is still of use.
    pub fn pack(
        &mut self,
        place: (u64, u32),
        payload: &[u8],
        copies: usize,
        payload_type: u8,
    ) -> bool {
        let copies = if payload.len() > MAX_FRAME { 0 } else { copies };
        let mut out = std::mem::take(&mut self.packed);
        out.clear();
        let kept = || self.kept[..copies.min(MAX_COPIES)].iter().enumerate();
        let count = kept()
            .map_while(|(at, frame)| useful(place, at, frame))
            .count();
        let frames = || {
            kept()
                .take(count)
                .rev()
                .filter_map(|(at, frame)| useful(place, at, frame))
        };
        for (age, frame) in frames() {
            let len = frame.payload.len();
            out.extend_from_slice(&[
                0x80 | payload_type,
                (age >> 6) as u8,
                (age << 2) as u8 | (len >> 8) as u8,
                len as u8,
            ]);
        }
        if count > 0 {
            out.push(payload_type & 0x7f);
            frames().for_each(|(_, frame)| out.extend_from_slice(&frame.payload));
            out.extend_from_slice(payload);
        }
        self.packed = out;
        self.keep(place, payload);
        count > 0
    }

    /// What [`Self::pack`] packed: a whole payload.
    pub fn packed(&self) -> &[u8] {
        &self.packed
    }

    fn keep(&mut self, (seq, timestamp): (u64, u32), payload: &[u8]) {
        let newest = self.kept[0].as_ref().is_none_or(|frame| frame.seq < seq);
        if !newest {
            return;
        }
        self.kept.rotate_right(1);
        let frame = self.kept[0].get_or_insert_default();
        frame.seq = seq;
        frame.timestamp = timestamp;
        frame.payload.clear();
        if payload.len() <= MAX_FRAME {
            frame.payload.extend_from_slice(payload);
        }
    }
}

/// The age of the frame that stands at this place of those kept, if it belongs right before the packet. One that is late
/// brings nothing of those after it, and what stands in between is not left out.
fn useful((seq, timestamp): (u64, u32), at: usize, frame: &Option<Frame>) -> Option<(u32, &Frame)> {
    let frame = frame.as_ref()?;
    let age = timestamp.wrapping_sub(frame.timestamp);
    let before = frame.seq + at as u64 + 1 == seq;
    (before && age > 0 && age <= MAX_AGE && !frame.payload.is_empty()).then_some((age, frame))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::red::Red;
    use proptest::prelude::*;

    fn write(frames: &mut Frames, seq: u64, payload: &[u8], copies: usize) -> Option<Vec<u8>> {
        let place = (seq, (seq * 960) as u32);
        let packed = frames.pack(place, payload, copies, 111);
        packed.then(|| frames.packed().to_vec())
    }

    fn blocks(packet: &[u8]) -> Vec<(u16, Vec<u8>)> {
        let red = Red::parse(packet).expect("well-formed");
        red.blocks()
            .map(|block| (block.timestamp_offset, block.payload.to_vec()))
            .collect()
    }

    #[test]
    fn each_packet_brings_those_before_it() {
        let mut frames = Frames::default();
        assert_eq!(write(&mut frames, 1, b"one", 2), None);
        let second = write(&mut frames, 2, b"two", 2).expect("one before it");
        assert_eq!(blocks(&second), [(960, b"one".into()), (0, b"two".into())]);
        let third = write(&mut frames, 3, b"three", 2).expect("two before it");
        let all = [
            (1920, b"one".into()),
            (960, b"two".into()),
            (0, b"three".into()),
        ];
        assert_eq!(blocks(&third), all);
        let fourth = write(&mut frames, 4, b"four", 1).expect("one is wanted");
        assert_eq!(
            blocks(&fourth),
            [(960, b"three".into()), (0, b"four".into())]
        );
    }

    #[test]
    fn what_is_late_far_or_long_is_not_repeated() {
        let mut frames = Frames::default();
        write(&mut frames, 5, b"five", 2);
        assert_eq!(write(&mut frames, 4, b"late", 2), None);
        assert_eq!(write(&mut frames, 7, b"after a gap", 2), None);
        assert_eq!(
            write(&mut frames, 8, &[0; 1000], 1),
            None,
            "too long together"
        );
        assert_eq!(write(&mut frames, 9, b"after music", 1), None);
        let long_after = (10, 9 * 960 + 20_000);
        assert!(!frames.pack(long_after, b"after a silence", 2, 111));
    }

    #[test]
    fn loss_begins_it_and_a_queue_ends_it() {
        assert_eq!(copies(0.015, 0, false), 0);
        assert_eq!(copies(0.02, 0, false), 1);
        assert_eq!(copies(0.015, 1, false), 1);
        assert_eq!(copies(0.1, 1, false), 2);
        assert_eq!(copies(0.05, 2, false), 2);
        assert_eq!(copies(0.009, 2, false), 0);
        assert_eq!(copies(0.2, 2, true), 0);
    }

    proptest! {
        #[test]
        fn a_reader_finds_every_frame_as_it_was(
            steps in proptest::collection::vec((0u64..20, 0usize..600, 0usize..4), 1..60)
        ) {
            let mut frames = Frames::default();
            let payload = |seq: u64, len: usize| vec![seq as u8; len];
            let mut sent = std::collections::HashMap::new();
            for (seq, len, copies) in steps {
                let payload = payload(seq, len);
                if let Some(packet) = write(&mut frames, seq, &payload, copies) {
                    for (age, frame) in blocks(&packet) {
                        let of = seq - u64::from(age) / 960;
                        if of != seq {
                            prop_assert_eq!(&frame, &sent[&of]);
                        }
                    }
                }
                sent.entry(seq).or_insert(payload);
            }
        }
    }
}
