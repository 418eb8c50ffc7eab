//! The session descriptions of the light peers: just what the server asks for.

use std::fmt::Write;

use talksy_unit::rtp::params::{
    AnnouncedSsrc, Codec, Encodings, ExtensionIds, MediaKind, PayloadParams, ReceiveLine, Ssrc,
};

use super::connection::Local;

pub const AUDIO_SSRC: Ssrc = Ssrc(0x0a0d_0001);
pub const VIDEO_SSRC: Ssrc = Ssrc(0x0a0d_0002);
pub const OPUS: u8 = 111;
pub const H264: u8 = 102;
/// Chromium's ids of the extensions that the server reads.
pub const PUBLISHED: ExtensionIds = ExtensionIds {
    mid: Some(4),
    rid: None,
    repaired_rid: None,
    audio_level: Some(1),
    transport_cc: Some(3),
    abs_send_time: Some(2),
    video_orientation: None,
    dependency_descriptor: None,
    playout_delay: None,
};

const EXTENSIONS: [(&str, &str); 4] = [
    ("mid", "urn:ietf:params:rtp-hdrext:sdes:mid"),
    ("level", "urn:ietf:params:rtp-hdrext:ssrc-audio-level"),
    (
        "transport",
        "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
    ),
    (
        "time",
        "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    ),
];

/// The offer of a microphone (mid 0) and a camera (mid 1).
pub fn offer(local: &Local) -> String {
    let mut out = head("0 1");
    microphone(&mut out, local);
    media(&mut out, local, "video", &[H264, 103], "1");
    let _ = write!(out, "a=rtpmap:{H264} H264/90000\r\n");
    for feedback in ["transport-cc", "ccm fir", "nack", "nack pli"] {
        let _ = write!(out, "a=rtcp-fb:{H264} {feedback}\r\n");
    }
    let _ = write!(
        out,
        "a=fmtp:{H264} level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n\
         a=rtpmap:103 rtx/90000\r\na=fmtp:103 apt={H264}\r\na=ssrc-group:FID {VIDEO_SSRC} 7\r\n\
         a=ssrc:{VIDEO_SSRC} cname:bench\r\na=ssrc:7 cname:bench\r\n"
    );
    out
}

/// The offer of a microphone alone. Of the comparison with other servers only.
#[allow(dead_code)]
pub fn offer_audio(local: &Local) -> String {
    let mut out = head("0");
    microphone(&mut out, local);
    out
}

fn microphone(out: &mut String, local: &Local) {
    media(out, local, "audio", &[OPUS], "0");
    let _ = write!(
        out,
        "a=extmap:1 {}\r\na=rtpmap:{OPUS} opus/48000/2\r\na=rtcp-fb:{OPUS} transport-cc\r\n\
         a=fmtp:{OPUS} minptime=10;useinbandfec=1\r\na=ssrc:{AUDIO_SSRC} cname:bench\r\n",
        EXTENSIONS[1].1
    );
}

fn head(mids: &str) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {mids}\r\na=msid-semantic: WMS *\r\n"
    )
}

fn media(out: &mut String, local: &Local, kind: &str, formats: &[u8], mid: &str) {
    let formats: Vec<String> = formats.iter().map(u8::to_string).collect();
    let _ = write!(
        out,
        "m={kind} 9 UDP/TLS/RTP/SAVPF {}\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na=sendonly\r\na=rtcp-mux\r\n\
         a=rtcp-rsize\r\na=msid:bench {kind}\r\na=setup:actpass\r\n",
        formats.join(" ")
    );
    transport(out, local);
    let ids = [(4, 0), (3, 2), (2, 3)];
    for (id, at) in ids {
        let _ = write!(out, "a=extmap:{id} {}\r\n", EXTENSIONS[at].1);
    }
}

fn transport(out: &mut String, local: &Local) {
    let _ = write!(
        out,
        "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=fingerprint:sha-256 {}\r\n",
        local.ufrag, local.pwd, local.fingerprint
    );
}

/// An answer that takes everything, as the DTLS client.
pub fn answer(offer: &str, local: &Local) -> String {
    let mids: Vec<&str> = values(offer, "a=mid:").collect();
    let mut out = head(&mids.join(" "));
    for section in sections(offer) {
        for line in section.lines() {
            match line {
                "a=sendonly" => out.push_str("a=recvonly\r\n"),
                _ if is_kept(line) => {
                    let _ = write!(out, "{line}\r\n");
                }
                _ => {}
            }
        }
        transport(&mut out, local);
        out.push_str("a=setup:active\r\n");
    }
    out
}

fn is_kept(line: &str) -> bool {
    let kept = [
        "m=",
        "c=",
        "a=mid",
        "a=rtcp",
        "a=rtpmap",
        "a=fmtp",
        "a=extmap",
        "a=sctp",
        "a=max",
        "a=inactive",
    ];
    kept.iter().any(|prefix| line.starts_with(prefix))
}

fn sections(sdp: &str) -> impl Iterator<Item = &str> {
    let starts: Vec<usize> = sdp.match_indices("\r\nm=").map(|(at, _)| at + 2).collect();
    let ends: Vec<usize> = starts.iter().skip(1).copied().chain([sdp.len()]).collect();
    starts
        .into_iter()
        .zip(ends)
        .map(|(start, end)| &sdp[start..end])
}

fn values<'s>(section: &'s str, prefix: &'s str) -> impl Iterator<Item = &'s str> {
    section
        .lines()
        .filter_map(move |line| line.strip_prefix(prefix))
}

/// The server's `a=ice-ufrag` and `a=ice-pwd`.
pub fn credentials(sdp: &str) -> Option<(String, String)> {
    let value = |prefix| values(sdp, prefix).next().map(str::to_string);
    Some((value("a=ice-ufrag:")?, value("a=ice-pwd:")?))
}

/// What the server sends, as the packet path of a receiver wants it.
pub fn receive_lines(offer: &str) -> Vec<ReceiveLine> {
    sections(offer).filter_map(receive_line).collect()
}

fn receive_line(section: &str) -> Option<ReceiveLine> {
    let (kind, codec) = match section.get(2..7)? {
        "audio" => (MediaKind::Audio, Codec::Opus),
        "video" => (MediaKind::Video, Codec::H264),
        _ => return None,
    };
    values(section, "a=").find(|line| *line == "sendonly")?;
    let id = |at: usize| {
        let mut maps = values(section, "a=extmap:").filter_map(|map| map.split_once(' '));
        let (id, _) = maps.find(|(_, uri)| *uri == EXTENSIONS[at].1)?;
        id.parse().ok()
    };
    let ssrc = |value: &str| value.split(' ').next()?.parse().ok().map(Ssrc);
    let formats = section.lines().next()?.split(' ').skip(3);
    let numbers: Vec<u8> = formats.filter_map(|format| format.parse().ok()).collect();
    Some(ReceiveLine {
        mid: values(section, "a=mid:").next()?.into(),
        kind,
        payloads: vec![PayloadParams {
            payload_type: *numbers.first()?,
            codec,
            rtx: numbers.get(1).copied(),
            red: None,
            stereo: false,
            nack: kind == MediaKind::Video,
            pli: false,
            fir: false,
            transport_cc: true,
        }],
        extensions: ExtensionIds {
            mid: id(0),
            audio_level: id(1),
            transport_cc: id(2),
            abs_send_time: id(3),
            ..ExtensionIds::default()
        },
        ssrcs: vec![AnnouncedSsrc {
            primary: values(section, "a=ssrc:").find_map(ssrc)?,
            rtx: None,
        }],
        encodings: Encodings::Single,
        stream_id: "bench".into(),
        track_id: kind.as_str().into(),
    })
}
