//! H.264 over RTP (RFC 6184), packetization mode 1: [`Packetizer`] and [`Depacketizer`].

mod depacketizer;
mod packetizer;
pub mod sps;

pub use depacketizer::{AccessUnit, Depacketizer, MAX_ACCESS_UNIT};
pub use packetizer::{MAX_PAYLOAD, Packetizer};

/// NAL unit types (ITU-T H.264, table 7-1; RFC 6184, table 1).
mod nal {
    pub const IDR: u8 = 5;
    pub const SPS: u8 = 7;
    pub const DELIMITER: u8 = 9;
    pub const STAP_A: u8 = 24;
    pub const FU_A: u8 = 28;

    /// The type in a NAL unit's first byte.
    pub fn of(header: u8) -> u8 {
        header & 0x1f
    }
}

/// Width and height in pixels, where a payload carries a sequence parameter set, alone or in a STAP-A.
pub fn picture_size(payload: &[u8]) -> Option<(u32, u32)> {
    let (&header, mut rest) = payload.split_first()?;
    match nal::of(header) {
        nal::SPS => sps::picture_size(payload).ok(),
        nal::STAP_A => loop {
            let (size, tail) = rest.split_first_chunk::<2>()?;
            let (unit, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*size)))?;
            if unit
                .first()
                .is_some_and(|header| nal::of(*header) == nal::SPS)
            {
                return sps::picture_size(unit).ok();
            }
            rest = tail;
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An access unit of NAL units with these types and sizes, none of whose bytes looks like a start code.
    fn access_unit(nals: &[(u8, usize)]) -> Vec<u8> {
        let mut unit = Vec::new();
        for (nth, &(nal_type, size)) in nals.iter().enumerate() {
            unit.extend_from_slice(&[0, 0, 0, 1, 0x60 | nal_type]);
            unit.extend((0..size).map(|at| 1 + ((at * 7 + nth) % 255) as u8));
        }
        unit
    }

    struct Sent {
        unit: usize,
        timestamp: u64,
        marker: bool,
        payload: Vec<u8>,
    }

    fn send(units: &[Vec<u8>]) -> Vec<Sent> {
        let mut packetizer = Packetizer::default();
        let mut sent = Vec::new();
        for (nth, unit) in units.iter().enumerate() {
            packetizer.packetize(unit, |payload, marker| {
                sent.push(Sent {
                    unit: nth,
                    timestamp: nth as u64 * 3000,
                    marker,
                    payload: payload.to_vec(),
                });
            });
        }
        sent
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// The very first packet is never lost: nothing tells of it.
        #[test]
        fn units_survive_and_losses_are_marked(
            shapes in proptest::collection::vec(proptest::collection::vec(
                (prop_oneof![Just(1u8), Just(5), Just(6), Just(7), Just(8)], prop_oneof![1usize..60, 1000usize..6000]), 1..5), 1..12),
            lost in proptest::collection::hash_set(1usize..80, 0..6),
        ) {
            let units: Vec<Vec<u8>> = shapes.iter().map(|shape| access_unit(shape)).collect();
            let sent = send(&units);
            let mut depacketizer = Depacketizer::default();
            let mut got = Vec::new();
            for (seq, packet) in sent.iter().enumerate() {
                prop_assert!(packet.payload.len() <= MAX_PAYLOAD);
                if !lost.contains(&seq) {
                    depacketizer.push(seq as u64, packet.timestamp, packet.marker, &packet.payload, |unit| {
                        got.push((unit.timestamp, unit.data.to_vec(), unit.broken, unit.keyframe));
                    });
                }
            }
            for (timestamp, data, broken, keyframe) in &got {
                let nth = (timestamp / 3000) as usize;
                let harmed = sent.iter().enumerate().any(|(seq, packet)| packet.unit == nth && lost.contains(&seq));
                if !broken {
                    prop_assert!(!harmed, "unit {} lost a packet", nth);
                }
                if !harmed {
                    prop_assert_eq!(data, &units[nth]);
                    prop_assert_eq!(*keyframe, shapes[nth].iter().any(|(nal_type, _)| *nal_type == nal::IDR));
                }
            }
            if lost.iter().all(|seq| *seq >= sent.len()) {
                prop_assert_eq!(got.len(), units.len());
                prop_assert!(got.iter().all(|unit| !unit.2));
            }
        }
    }

    #[test]
    fn parameter_sets_travel_in_one_aggregate() {
        let unit = access_unit(&[(7, 20), (8, 4), (nal::IDR, 3000)]);
        let sent = send(&[unit]);
        assert_eq!(nal::of(sent[0].payload[0]), nal::STAP_A);
        assert_eq!(nal::of(sent[1].payload[0]), nal::FU_A);
        assert_eq!(sent.len(), 4);
        let markers: Vec<bool> = sent.iter().map(|packet| packet.marker).collect();
        assert_eq!(markers, [false, false, false, true]);
    }
}
