//! Packets of one peer through its `Publisher` and on through the `Subscriber` of another: what comes out is whole.
//!
//! The input is a run of packets: two bytes of length, one that says RTP or RTCP, then the plain packet.

#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use talksy_unit::rtp::header::RtpPacket;
use talksy_unit::rtp::ntp::Ntp;
use talksy_unit::rtp::params::{
    AnnouncedSsrc, Codec, Encodings, ExtensionIds, PayloadParams, ReceiveLine, SendLine, Ssrc,
};
use talksy_unit::sfu::{Layer, Publisher, Subscriber, Target};

const IDS: ExtensionIds = ExtensionIds {
    mid: Some(1),
    rid: Some(2),
    repaired_rid: Some(3),
    audio_level: Some(4),
    transport_cc: Some(5),
    abs_send_time: Some(6),
    video_orientation: Some(7),
    dependency_descriptor: Some(8),
    playout_delay: Some(9),
};
const LINES: [(&str, Codec, u8); 7] = [
    ("a", Codec::Opus, 111),
    ("h", Codec::H264, 102),
    ("8", Codec::Vp8, 96),
    ("9", Codec::Vp9, 98),
    ("1", Codec::Av1, 45),
    // In three layers.
    ("H", Codec::H264, 102),
    ("V", Codec::Vp8, 96),
];

fn payloads(codec: Codec, payload_type: u8) -> Vec<PayloadParams> {
    vec![PayloadParams {
        payload_type,
        codec,
        rtx: Some(payload_type + 1),
        red: (codec == Codec::Opus).then_some(63),
        stereo: false,
        nack: true,
        pli: true,
        fir: true,
        transport_cc: true,
    }]
}

fn receive_line(at: usize) -> ReceiveLine {
    let (mid, codec, payload_type) = LINES[at];
    let layered = mid.chars().all(char::is_uppercase);
    ReceiveLine {
        mid: mid.into(),
        kind: codec.kind(),
        payloads: payloads(codec, payload_type),
        extensions: IDS,
        ssrcs: vec![AnnouncedSsrc {
            primary: Ssrc(at as u32),
            rtx: Some(Ssrc(at as u32 + 100)),
        }],
        encodings: match layered {
            true => Encodings::Rids(["q", "h", "f"].map(String::from).to_vec()),
            false => Encodings::Single,
        },
        stream_id: "stream".into(),
        track_id: mid.into(),
    }
}

fn send_line(at: usize) -> SendLine {
    let (mid, codec, payload_type) = LINES[at];
    SendLine {
        sender: at as u64,
        mid: mid.into(),
        kind: codec.kind(),
        payloads: payloads(codec, payload_type),
        extensions: IDS,
        ssrc: Ssrc(at as u32 + 200),
        rtx_ssrc: Ssrc(at as u32 + 300),
        cname: "cname".into(),
    }
}

fuzz_target!(|data: &[u8]| {
    let mut now = Instant::now();
    let mut publisher = Publisher::new(Ssrc(1));
    let lines: Vec<ReceiveLine> = (0..LINES.len()).map(receive_line).collect();
    publisher.set_lines(&lines);
    let mut subscriber = Subscriber::new(Ssrc(2));
    let lines: Vec<SendLine> = (0..LINES.len()).map(send_line).collect();
    subscriber.set_lines(&lines);
    let mut out = Vec::new();
    let mut rest = data;
    while let Some((&[high, low, kind], tail)) = rest.split_first_chunk::<3>() {
        let len = usize::from(u16::from_be_bytes([high, low])).min(tail.len());
        let (packet, tail) = tail.split_at(len);
        rest = tail;
        now += Duration::from_millis(u64::from(kind >> 2));
        out.clear();
        if kind & 1 != 0 {
            publisher.handle_rtcp(now, Ntp(1 << 40), packet);
            for (track, layer) in subscriber.handle_rtcp(now, Ntp(1 << 40), packet) {
                publisher.request_keyframe(now, track, layer);
            }
        } else if let Ok(received) = publisher.handle_rtp(now, packet) {
            let sender = LINES.iter().position(|line| line.1 == received.codec);
            let sender = sender.expect("a codec of the lines") as u64;
            subscriber.attach(sender, received.track, received.codec);
            if kind & 2 != 0 {
                let layer = Layer(kind >> 2 & 3);
                let temporal = kind >> 4 & 3;
                subscriber.set_target(sender, Target::UpTo { layer, temporal });
            }
            for packet in received.recovered().chain([received]) {
                out.clear();
                if let Ok(header_len) = subscriber.forward(now, sender, &packet, &mut out) {
                    let written = RtpPacket::parse(&out).expect("what is sent can be read");
                    assert_eq!(written.header_len, header_len);
                    assert_eq!(written.ssrc, Ssrc(sender as u32 + 200));
                }
            }
        }
        out.clear();
        for _ in 0..2000 {
            if subscriber.poll_retransmission(now, &mut out).is_none() {
                break;
            }
        }
        assert!(subscriber.memory() < 32 << 20);
        out.clear();
        while publisher.poll_feedback(now, &mut out) {
            assert!(out.len() < 1 << 20, "feedback comes to an end");
        }
    }
});
