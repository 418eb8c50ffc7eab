//! Lines and packets for the tests of this module.

use std::time::{Duration, Instant};

use crate::ids::TrackKey;
use crate::rtp::extension::{AudioLevel, Extensions};
use crate::rtp::header::HeaderFields;
use crate::rtp::params::*;
use crate::sfu::{Layer, LayerSet, Received};

pub const MEDIA: Ssrc = Ssrc(0x1111);
pub const RTX: Ssrc = Ssrc(0x2222);
pub const OWN: Ssrc = Ssrc(0x9999);
pub const OUT: Ssrc = Ssrc(0xaaaa_0100);
pub const OUT_RTX: Ssrc = Ssrc(0xbbbb_0100);

/// What a publisher's leg calls things.
pub const IN_IDS: ExtensionIds = ExtensionIds {
    mid: Some(4),
    rid: Some(10),
    repaired_rid: Some(11),
    audio_level: Some(1),
    transport_cc: Some(3),
    abs_send_time: Some(2),
    video_orientation: Some(13),
    dependency_descriptor: Some(12),
    playout_delay: None,
};
/// What a subscriber's leg calls them.
pub const OUT_IDS: ExtensionIds = ExtensionIds {
    mid: Some(9),
    rid: None,
    repaired_rid: None,
    audio_level: Some(7),
    transport_cc: Some(5),
    abs_send_time: Some(6),
    video_orientation: Some(8),
    dependency_descriptor: None,
    playout_delay: Some(10),
};

pub const KEY: &[u8] = &[0x65, 0x88, 1, 2, 3];
pub const DELTA: &[u8] = &[0x41, 0x9a, 4, 5, 6];

pub fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub fn payload(codec: Codec, payload_type: u8) -> PayloadParams {
    let video = codec.kind() == MediaKind::Video;
    PayloadParams {
        payload_type,
        codec,
        rtx: video.then_some(payload_type + 1),
        red: None,
        stereo: false,
        nack: video,
        pli: video,
        fir: video,
        transport_cc: true,
    }
}

pub fn receive_line(mid: &str, payloads: Vec<PayloadParams>) -> ReceiveLine {
    ReceiveLine {
        mid: mid.into(),
        kind: payloads[0].codec.kind(),
        payloads,
        extensions: IN_IDS,
        ssrcs: vec![],
        encodings: Encodings::Single,
        stream_id: "stream".into(),
        track_id: format!("track-{mid}"),
    }
}

pub fn video_in() -> ReceiveLine {
    ReceiveLine {
        ssrcs: vec![AnnouncedSsrc {
            primary: MEDIA,
            rtx: Some(RTX),
        }],
        ..receive_line(
            "v",
            vec![payload(Codec::H264, 102), payload(Codec::Vp8, 96)],
        )
    }
}

pub fn audio_in() -> ReceiveLine {
    receive_line("a", vec![payload(Codec::Opus, 111)])
}

pub fn send_line(sender: u64, codec: Codec) -> SendLine {
    SendLine {
        sender,
        mid: format!("s{sender}").as_str().into(),
        kind: codec.kind(),
        payloads: vec![payload(codec, 120)],
        extensions: OUT_IDS,
        ssrc: Ssrc(OUT.0 + sender as u32),
        rtx_ssrc: Ssrc(OUT_RTX.0 + sender as u32),
        cname: "cname".into(),
    }
}

/// An RTP packet of a publisher.
pub fn rtp(ssrc: Ssrc, payload_type: u8, seq: u16, timestamp: u32, payload: &[u8]) -> Vec<u8> {
    with_extensions(
        ssrc,
        payload_type,
        seq,
        timestamp,
        payload,
        Extensions::default(),
    )
}

pub fn with_extensions(
    ssrc: Ssrc,
    payload_type: u8,
    seq: u16,
    timestamp: u32,
    payload: &[u8],
    extensions: Extensions<'_>,
) -> Vec<u8> {
    let fields = HeaderFields {
        payload_type,
        marker: true,
        seq,
        timestamp,
        ssrc,
    };
    let mut out = Vec::new();
    fields.write(&IN_IDS, &extensions, &mut out);
    out.extend_from_slice(payload);
    out
}

/// A packet as ingest gives it.
pub fn received(track: TrackKey, seq: u64, payload: &[u8]) -> Received<'_> {
    Received {
        track,
        first: false,
        codec: Codec::H264,
        layer: Layer(0),
        layers: LayerSet::LOWEST,
        temporal: 0,
        rises_to: 0,
        generation: 0,
        seq,
        timestamp: seq * 3000,
        shift: None,
        marker: true,
        keyframe: payload == KEY,
        recovered: false,
        broken: false,
        repair_time: Duration::ZERO,
        level: None,
        orientation: None,
        playout: None,
        dependency_descriptor: None,
        red: None,
        within_red: false,
        payload,
    }
}

pub fn audio(track: TrackKey, seq: u64) -> Received<'static> {
    Received {
        codec: Codec::Opus,
        timestamp: seq * 960,
        keyframe: true,
        level: Some(AudioLevel {
            dbov: 30,
            voice: true,
        }),
        ..received(track, seq, b"opus")
    }
}

pub fn start() -> Instant {
    Instant::now()
}
