//! Payloads as they are looked into: keyframes, H.264 access units, Opus durations, retransmissions.
//!
//! The input is a run of packets: two bytes of length, one of flags, then the payload.

#![no_main]

use libfuzzer_sys::fuzz_target;
use talksy_unit::rtp::h264::{Depacketizer, MAX_ACCESS_UNIT, Packetizer};
use talksy_unit::rtp::keyframe::starts_keyframe;
use talksy_unit::rtp::params::Codec;
use talksy_unit::rtp::{opus, rtx};

fuzz_target!(|data: &[u8]| {
    let mut depacketizer = Depacketizer::default();
    let mut packetizer = Packetizer::default();
    let (mut seq, mut timestamp) = (0, 0);
    let mut rest = data;
    while let Some((&[high, low, flags], tail)) = rest.split_first_chunk::<3>() {
        let len = usize::from(u16::from_be_bytes([high, low])).min(tail.len());
        let (payload, tail) = tail.split_at(len);
        rest = tail;
        for codec in [Codec::Opus, Codec::H264, Codec::Vp8, Codec::Vp9, Codec::Av1] {
            starts_keyframe(codec, payload);
        }
        if let Some((_, inner)) = rtx::unwrap(payload) {
            assert!(inner.len() < payload.len());
        }
        if let Some(samples) = opus::payload_samples(payload) {
            assert!(samples <= 120 * 48, "RFC 6716, section 3.2.5");
        }
        seq += 1 + u64::from(flags >> 2 & 3);
        timestamp += u64::from(flags >> 1 & 1) * 3000;
        depacketizer.push(seq, timestamp, flags & 1 != 0, payload, |unit| {
            assert!(!unit.data.is_empty() && unit.data.len() <= MAX_ACCESS_UNIT);
            packetizer.packetize(unit.data, |payload, _| assert!(!payload.is_empty()));
        });
    }
});
