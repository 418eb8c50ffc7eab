//! An RTP header with its extensions: never outside of the packet, and what is written again reads the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use talksy_unit::rtp::extension::Extensions;
use talksy_unit::rtp::header::{HeaderFields, RtpPacket};
use talksy_unit::rtp::params::ExtensionIds;

const IDS: ExtensionIds = ExtensionIds {
    mid: Some(1),
    rid: Some(2),
    repaired_rid: Some(3),
    audio_level: Some(4),
    transport_cc: Some(5),
    abs_send_time: Some(6),
    video_orientation: Some(7),
    dependency_descriptor: Some(15),
    playout_delay: Some(14),
};

fuzz_target!(|data: &[u8]| {
    let Ok(packet) = RtpPacket::parse(data) else {
        return;
    };
    assert!(packet.payload.len() < data.len());
    assert!(packet.extension.elements().count() < data.len());
    let extensions = Extensions::parse(packet.extension, &IDS);
    let fields = HeaderFields {
        payload_type: packet.payload_type,
        marker: packet.marker,
        seq: packet.seq,
        timestamp: packet.timestamp,
        ssrc: packet.ssrc,
    };
    let mut again = Vec::new();
    let header_len = fields.write(&IDS, &extensions, &mut again);
    assert_eq!(header_len, again.len());
    again.extend_from_slice(packet.payload);
    let written = RtpPacket::parse(&again).expect("what was written can be read");
    assert_eq!(written.payload, packet.payload);
    assert_eq!(
        (written.ssrc, written.seq, written.timestamp, written.marker),
        (packet.ssrc, packet.seq, packet.timestamp, packet.marker)
    );
    let read = Extensions::parse(written.extension, &IDS);
    assert_eq!(read.transport_cc, extensions.transport_cc);
    assert_eq!(read.audio_level, extensions.audio_level);
});
