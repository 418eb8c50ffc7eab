//! Payloads as they are looked into: keyframes, H.264 access units, Opus durations, retransmissions, redundant audio.
//!
//! The input is a run of packets: two bytes of length, one of flags, then the payload.

#![no_main]

use libfuzzer_sys::fuzz_target;
use talksy_unit::rtp::dependency_descriptor::{self, Structure};
use talksy_unit::rtp::h264::{Depacketizer, MAX_ACCESS_UNIT, Packetizer};
use talksy_unit::rtp::keyframe::starts_keyframe;
use talksy_unit::rtp::params::Codec;
use talksy_unit::rtp::red::Red;
use talksy_unit::rtp::{opus, rtx, vp8, vp9};

fuzz_target!(|data: &[u8]| {
    let mut depacketizer = Depacketizer::default();
    let mut frames = vp8::Depacketizer::default();
    let mut packetizer = Packetizer::default();
    let mut structure = None;
    let (mut seq, mut timestamp) = (0, 0);
    let mut rest = data;
    while let Some((&[high, low, flags], tail)) = rest.split_first_chunk::<3>() {
        let len = usize::from(u16::from_be_bytes([high, low])).min(tail.len());
        let (payload, tail) = tail.split_at(len);
        rest = tail;
        for codec in [Codec::Opus, Codec::H264, Codec::Vp8, Codec::Vp9, Codec::Av1] {
            starts_keyframe(codec, payload);
        }
        descriptors(payload);
        structure = Structure::parse(payload).or(structure);
        if let Some(structure) = &structure {
            structure.layers(payload);
        }
        if let Some((_, inner)) = rtx::unwrap(payload) {
            assert!(inner.len() < payload.len());
        }
        if let Ok(red) = Red::parse(payload) {
            assert!(
                red.blocks()
                    .all(|block| block.payload.len() <= payload.len())
            );
            let mut out = Vec::new();
            red.write(red.primary().payload_type, 96, &mut out);
            assert!(Red::parse(&out).is_ok() && out.len() <= payload.len());
        }
        if let Some(samples) = opus::payload_samples(payload) {
            assert!(samples <= 120 * 48, "RFC 6716, section 3.2.5");
        }
        seq += 1 + u64::from(flags >> 2 & 3);
        timestamp += u64::from(flags >> 1 & 1) * 3000;
        frames.push(seq, timestamp, flags & 1 != 0, payload, |unit| {
            assert!(!unit.data.is_empty() && unit.data.len() <= MAX_ACCESS_UNIT);
            vp8::frame_size(unit.data);
        });
        depacketizer.push(seq, timestamp, flags & 1 != 0, payload, |unit| {
            assert!(!unit.data.is_empty() && unit.data.len() <= MAX_ACCESS_UNIT);
            packetizer.packetize(unit.data, |payload, _| assert!(!payload.is_empty()));
        });
    }
});

/// What is read of a descriptor, and what is written into one: the numbers alone.
fn descriptors(payload: &[u8]) {
    let mut again = payload.to_vec();
    if let Some(descriptor) = vp8::Descriptor::parse(payload) {
        descriptor.starts_keyframe(payload);
        descriptor.size(payload);
        descriptor.renumber(&mut again, 0x1234, 0x56);
        let renumbered = vp8::Descriptor::parse(&again).expect("it is as long as before");
        assert_eq!(
            renumbered.starts_keyframe(&again),
            descriptor.starts_keyframe(payload)
        );
    }
    again.copy_from_slice(payload);
    if let Some(descriptor) = vp9::Descriptor::parse(payload) {
        descriptor.renumber(&mut again, 0x1234, 0x56);
        let renumbered = vp9::Descriptor::parse(&again).expect("it is as long as before");
        assert_eq!(renumbered.starts_keyframe(), descriptor.starts_keyframe());
    }
    again.copy_from_slice(payload);
    if dependency_descriptor::frame_number(payload).is_some() {
        dependency_descriptor::set_frame_number(&mut again, 0x789a);
        assert_eq!(dependency_descriptor::frame_number(&again), Some(0x789a));
    }
}
