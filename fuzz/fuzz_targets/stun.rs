//! What a socket does with a datagram before it knows whose it is.

#![no_main]

use libfuzzer_sys::fuzz_target;
use talksy_unit::rtp::demux::{DatagramKind, classify};
use talksy_unit::transport::requested_ufrag;

fuzz_target!(|data: &[u8]| {
    let kind = classify(data);
    if let Some(ufrag) = requested_ufrag(data) {
        assert_eq!(kind, DatagramKind::Stun);
        assert!(ufrag.len() < data.len());
    }
});
