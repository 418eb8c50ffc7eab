//! RTP payloads into access units.

use super::nal;

/// Largest access unit that is assembled, in bytes. What goes beyond is dropped, and the unit is broken.
pub const MAX_ACCESS_UNIT: usize = 2 * 1024 * 1024;

const START_CODE: [u8; 4] = [0, 0, 0, 1];

/// One picture, coded: an Annex-B byte stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessUnit<'a> {
    /// NAL units, each after a four-byte start code. Never empty.
    pub data: &'a [u8],
    /// Extended RTP timestamp, 90 kHz.
    pub timestamp: u64,
    /// It holds an IDR slice: decoding can begin here.
    pub keyframe: bool,
    /// Packets are missing in it or just before it, or it was too large: it may decode into garbage.
    pub broken: bool,
}

/// Assembles access units from packets in sequence order (late ones are the jitter buffer's business).
///
/// Holds one unit, in a buffer that is kept.
#[derive(Debug, Default)]
pub struct Depacketizer {
    unit: Vec<u8>,
    timestamp: u64,
    keyframe: bool,
    broken: bool,
    next_seq: Option<u64>,
    /// Where the NAL unit of an unfinished FU-A begins in `unit`, start code included.
    fragment: Option<usize>,
}

impl Depacketizer {
    /// Takes one packet, and calls `emit` with what it completes: nothing, the unit before it (whose marker was
    /// lost), its own unit, or both.
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
            self.broken = true;
            self.drop_fragment();
        }
        if timestamp != self.timestamp && !payload.is_empty() {
            // The end of the unit before this was not marked: with a gap it is incomplete, and so may this one be.
            self.finish(&mut emit);
            self.broken |= gap;
            self.timestamp = timestamp;
        }
        self.take(payload);
        if marker && !payload.is_empty() {
            self.finish(&mut emit);
        }
    }

    /// Forgets the unfinished unit; the next packet begins a new stream.
    pub fn reset(&mut self) {
        self.clear();
        self.next_seq = None;
    }

    fn take(&mut self, payload: &[u8]) {
        let Some((&header, body)) = payload.split_first() else {
            return;
        };
        match nal::of(header) {
            nal::FU_A => self.fragment(header, body),
            nal::STAP_A => {
                self.drop_stale_fragment();
                self.aggregate(body);
            }
            1..=23 => {
                self.drop_stale_fragment();
                self.nal_unit(payload);
            }
            // STAP-B, MTAP and FU-B belong to the interleaved mode, which is never negotiated.
            _ => self.broken = true,
        }
    }

    /// RFC 6184, section 5.7.1. A trailing byte, or a size beyond the payload, ends it.
    fn aggregate(&mut self, mut body: &[u8]) {
        while let Some((size, tail)) = body.split_first_chunk::<2>() {
            let size = usize::from(u16::from_be_bytes(*size));
            let Some((unit, tail)) = tail.split_at_checked(size) else {
                self.broken = true;
                return;
            };
            self.nal_unit(unit);
            body = tail;
        }
        self.broken |= !body.is_empty();
    }

    /// RFC 6184, section 5.8.
    fn fragment(&mut self, indicator: u8, body: &[u8]) {
        let Some((&header, data)) = body.split_first() else {
            self.broken = true;
            return;
        };
        if header & 0x80 != 0 {
            self.drop_stale_fragment();
            let start = self.unit.len();
            self.nal_unit(&[indicator & 0xe0 | nal::of(header)]);
            if self.unit.len() > start {
                self.fragment = Some(start);
            }
        }
        if self.fragment.is_none() {
            self.broken = true;
            return;
        }
        if self.unit.len() + data.len() > MAX_ACCESS_UNIT {
            self.broken = true;
            self.drop_fragment();
            return;
        }
        self.unit.extend_from_slice(data);
        if header & 0x40 != 0 {
            self.fragment = None;
        }
    }

    fn nal_unit(&mut self, unit: &[u8]) {
        let Some(&header) = unit.first() else {
            return;
        };
        if self.unit.len() + START_CODE.len() + unit.len() > MAX_ACCESS_UNIT {
            self.broken = true;
            return;
        }
        self.keyframe |= nal::of(header) == nal::IDR;
        self.unit.extend_from_slice(&START_CODE);
        self.unit.extend_from_slice(unit);
    }

    /// A fragment that never got its end, although nothing seems lost.
    fn drop_stale_fragment(&mut self) {
        if self.fragment.is_some() {
            self.broken = true;
            self.drop_fragment();
        }
    }

    fn drop_fragment(&mut self) {
        if let Some(start) = self.fragment.take() {
            self.unit.truncate(start);
        }
    }

    fn finish(&mut self, emit: &mut impl FnMut(AccessUnit<'_>)) {
        self.drop_stale_fragment();
        if self.unit.is_empty() {
            // Nothing to emit, but what was lost still harms the next unit.
            self.keyframe = false;
            return;
        }
        emit(AccessUnit {
            data: &self.unit,
            timestamp: self.timestamp,
            keyframe: self.keyframe,
            broken: self.broken,
        });
        self.clear();
    }

    fn clear(&mut self) {
        self.unit.clear();
        self.keyframe = false;
        self.broken = false;
        self.fragment = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Unit = (u64, Vec<u8>, bool, bool);

    fn run(packets: &[(u64, u64, bool, &[u8])]) -> Vec<Unit> {
        let mut depacketizer = Depacketizer::default();
        let mut units = Vec::new();
        for &(seq, timestamp, marker, payload) in packets {
            depacketizer.push(seq, timestamp, marker, payload, |unit| {
                units.push((
                    unit.timestamp,
                    unit.data.to_vec(),
                    unit.keyframe,
                    unit.broken,
                ));
            });
        }
        units
    }

    #[test]
    fn an_aggregate_with_one_trailing_byte_is_broken_and_no_more() {
        let units = run(&[(1, 90, true, &[0x78, 0, 2, 0x67, 1, 9])]);
        assert_eq!(units, [(90, vec![0, 0, 0, 1, 0x67, 1], false, true)]);
    }

    #[test]
    fn a_stale_fragment_is_dropped() {
        let units = run(&[
            (1, 90, false, &[0x7c, 0x81, 1, 2, 3]),
            (3, 180, false, &[0x7c, 0x85, 4]),
            (4, 180, true, &[0x7c, 0x45, 5]),
        ]);
        assert_eq!(units, [(180, vec![0, 0, 0, 1, 0x65, 4, 5], true, true)]);
    }

    #[test]
    fn a_fragment_whose_beginning_is_missing_is_dropped() {
        let units = run(&[
            (1, 90, false, &[0x61, 7]),
            (2, 90, true, &[0x7c, 0x41, 1]),
            (3, 180, true, &[0x61, 8]),
        ]);
        assert_eq!(
            units,
            [
                (90, vec![0, 0, 0, 1, 0x61, 7], false, true),
                (180, vec![0, 0, 0, 1, 0x61, 8], false, false)
            ]
        );
    }

    #[test]
    fn a_lost_marker_completes_the_unit_with_the_next_timestamp() {
        let units = run(&[(1, 90, false, &[0x61, 7]), (3, 180, true, &[0x61, 8])]);
        assert_eq!(units.len(), 2);
        assert!(
            units.iter().all(|unit| unit.3),
            "either may have lost the packet"
        );
    }

    #[test]
    fn a_gap_between_units_breaks_the_later_one() {
        let units = run(&[(1, 90, true, &[0x61, 7]), (5, 270, true, &[0x61, 8])]);
        assert_eq!((units[0].3, units[1].3), (false, true));
    }

    #[test]
    fn duplicates_and_empty_payloads_change_nothing() {
        let units = run(&[
            (1, 90, false, &[0x61, 7]),
            (1, 90, false, &[0x61, 7]),
            (2, 95, false, &[]),
            (3, 90, true, &[0x61, 8]),
        ]);
        assert_eq!(
            units,
            [(
                90,
                vec![0, 0, 0, 1, 0x61, 7, 0, 0, 0, 1, 0x61, 8],
                false,
                false
            )]
        );
    }

    #[test]
    fn an_endless_unit_stops_growing() {
        let mut depacketizer = Depacketizer::default();
        let payload = [0x61u8; 60_000];
        for seq in 0..100 {
            depacketizer.push(seq, 90, false, &payload, |_| panic!("never complete"));
        }
        assert!(depacketizer.unit.len() <= MAX_ACCESS_UNIT);
        depacketizer.push(100, 90, true, &payload, |unit| assert!(unit.broken));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(packets in proptest::collection::vec(
            (0u64..3, 0u64..3, any::<bool>(), prop_oneof![Just(0x78u8), Just(0x7c), any::<u8>()], proptest::collection::vec(any::<u8>(), 0..12)), 0..40)
        ) {
            let mut depacketizer = Depacketizer::default();
            let mut seq = 0;
            for (step, timestamp, marker, first, mut payload) in packets {
                seq += step;
                payload.insert(0, first);
                depacketizer.push(seq, timestamp, marker, &payload, |unit| assert!(!unit.data.is_empty()));
            }
        }
    }
}
