//! An RTCP compound: every list in it ends, whatever counts it claims.

#![no_main]

use libfuzzer_sys::fuzz_target;
use talksy_unit::rtp::rtcp::{Rtcp, packets};

/// A transport-wide feedback message speaks of 65 535 packets at most, by run lengths.
const MOST_IN_FEEDBACK: usize = u16::MAX as usize;

fuzz_target!(|data: &[u8]| {
    let mut messages = 0;
    for packet in packets(data) {
        messages += 1;
        match packet {
            Ok(Rtcp::SenderReport { blocks, .. } | Rtcp::ReceiverReport { blocks }) => {
                assert!(blocks.count() <= 31);
            }
            Ok(Rtcp::Nack { seqs, .. }) => assert!(seqs.count() <= data.len() / 4 * 17),
            Ok(Rtcp::Fir { requests }) => assert!(requests.count() <= data.len() / 8),
            Ok(Rtcp::TransportWide(feedback)) => {
                assert!(feedback.packets().count() <= MOST_IN_FEEDBACK);
            }
            Ok(_) | Err(_) => {}
        }
    }
    assert!(messages <= data.len() / 4 + 1);
});
