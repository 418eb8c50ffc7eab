//! What the SDP agreed about an m-line, in the form that the packet path needs.
//!
//! `transport::negotiation` writes these, `sfu` reads them. Payload types and extension ids belong to one leg
//! (one peer connection) only; under BUNDLE the extension ids of all its m-lines agree (RFC 8843, section 9.2).

use std::fmt;
use std::sync::Arc;

/// Audio or video.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MediaKind {
    /// An audio m-line or track.
    Audio,
    /// A video m-line or track.
    Video,
}

impl MediaKind {
    /// The SDP media name, and the wire protocol's `kind`.
    pub fn as_str(self) -> &'static str {
        match self {
            MediaKind::Audio => "audio",
            MediaKind::Video => "video",
        }
    }
}

/// What a published track shows: decides its place in layouts, and its bitrate's priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SourceType {
    /// Camera or microphone.
    #[default]
    Media,
    /// A shared screen or its sound.
    Screen,
    /// Sound that is no speech: an instrument, a player. Mixed as it is, like that of a screen; to the others it is media.
    Music,
}

impl SourceType {
    /// Sound that is meant to be heard as it is: it is neither gated nor levelled, and nobody's voice.
    pub fn is_music(self) -> bool {
        self != SourceType::Media
    }
}

/// The codecs that are forwarded. All sound and H.264 are also mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Codec {
    /// RFC 7587.
    Opus,
    /// G.722, RFC 3551, section 4.5.2.
    G722,
    /// G.711 with μ-law, RFC 3551, section 4.5.14.
    Pcmu,
    /// G.711 with A-law, RFC 3551, section 4.5.14.
    Pcma,
    /// RFC 6184, constrained baseline or above, packetization-mode 1.
    H264,
    /// RFC 7741.
    Vp8,
    /// RFC 9628.
    Vp9,
    /// AV1 RTP specification of the Alliance for Open Media.
    Av1,
}

impl Codec {
    /// All of them.
    pub const ALL: [Codec; 8] = [
        Codec::Opus,
        Codec::G722,
        Codec::Pcmu,
        Codec::Pcma,
        Codec::H264,
        Codec::Vp8,
        Codec::Vp9,
        Codec::Av1,
    ];

    /// Audio or video.
    pub fn kind(self) -> MediaKind {
        match self {
            Codec::Opus | Codec::G722 | Codec::Pcmu | Codec::Pcma => MediaKind::Audio,
            _ => MediaKind::Video,
        }
    }

    /// RTP clock rate in Hz. That of G.722 is not its sample rate (RFC 3551, section 4.5.2).
    pub fn clock_rate(self) -> u32 {
        match self {
            Codec::Opus => 48_000,
            Codec::G722 | Codec::Pcmu | Codec::Pcma => 8_000,
            _ => 90_000,
        }
    }

    /// The encoding name in `a=rtpmap`.
    pub fn encoding_name(self) -> &'static str {
        match self {
            Codec::Opus => "opus",
            Codec::G722 => "G722",
            Codec::Pcmu => "PCMU",
            Codec::Pcma => "PCMA",
            Codec::H264 => "H264",
            Codec::Vp8 => "VP8",
            Codec::Vp9 => "VP9",
            Codec::Av1 => "AV1",
        }
    }

    /// The codec of an `a=rtpmap` encoding name, in any case.
    pub fn from_encoding_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|codec| codec.encoding_name().eq_ignore_ascii_case(name))
    }
}

/// The identification tag of an m-line (RFC 5888). Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mid(pub Arc<str>);

impl Mid {
    /// The tag's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Mid {
    fn from(text: &str) -> Self {
        Mid(text.into())
    }
}

impl fmt::Display for Mid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Mid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mid {}", self.0)
    }
}

/// A synchronisation source (RFC 3550, section 3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ssrc(pub u32);

impl fmt::Display for Ssrc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Ssrc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ssrc {:08x}", self.0)
    }
}

/// The ids that one leg gave to the RTP header extensions in use (RFC 8285). `None`: not negotiated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtensionIds {
    /// `urn:ietf:params:rtp-hdrext:sdes:mid` (RFC 8843).
    pub mid: Option<u8>,
    /// `urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id` (RFC 8852).
    pub rid: Option<u8>,
    /// `urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id` (RFC 8852).
    pub repaired_rid: Option<u8>,
    /// `urn:ietf:params:rtp-hdrext:ssrc-audio-level` (RFC 6464).
    pub audio_level: Option<u8>,
    /// Transport-wide sequence numbers (draft-holmer-rmcat-transport-wide-cc-extensions-01).
    pub transport_cc: Option<u8>,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time`.
    pub abs_send_time: Option<u8>,
    /// `urn:3gpp:video-orientation` (3GPP TS 26.114).
    pub video_orientation: Option<u8>,
    /// AV1 dependency descriptor.
    pub dependency_descriptor: Option<u8>,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/playout-delay`.
    pub playout_delay: Option<u8>,
}

/// One payload type of an m-line, as one leg numbers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadParams {
    /// RTP payload type, 0 to 127.
    pub payload_type: u8,
    /// What it carries.
    pub codec: Codec,
    /// The payload type of its retransmissions (RFC 4588).
    pub rtx: Option<u8>,
    /// The payload type of its redundant form (RFC 2198). Opus only.
    pub red: Option<u8>,
    /// The peer likes to receive two channels (RFC 7587, section 6.1: `stereo=1`). Opus only.
    pub stereo: bool,
    /// Generic NACK (RFC 4585) was agreed.
    pub nack: bool,
    /// Picture loss indication (RFC 4585) was agreed.
    pub pli: bool,
    /// Full intra request (RFC 5104) was agreed.
    pub fir: bool,
    /// Transport-wide feedback was agreed.
    pub transport_cc: bool,
}

/// A primary SSRC that the remote side announced, with that of its retransmissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnouncedSsrc {
    /// The media stream.
    pub primary: Ssrc,
    /// From `a=ssrc-group:FID` (RFC 5576).
    pub rtx: Option<Ssrc>,
}

/// Streams of one track at once; further ones are declined.
pub const MAX_ENCODINGS: usize = 3;

/// How the streams of one track are told apart on an m-line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Encodings {
    /// There is one at a time, by whatever SSRC.
    #[default]
    Single,
    /// By the RTP stream ids of `a=simulcast` (RFC 8853), in its order. SSRCs of the SDP do not count: they do not say
    /// whose they are.
    Rids(Vec<String>),
    /// `ssrcs` are those of an `a=ssrc-group:SIM`, in its order: lowest first.
    Ssrcs,
}

/// An m-line on which the peer sends to us: at most one published track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiveLine {
    /// Its tag.
    pub mid: Mid,
    /// Audio or video.
    pub kind: MediaKind,
    /// What the peer may send, most preferred first. Never empty.
    pub payloads: Vec<PayloadParams>,
    /// The leg's extension ids.
    pub extensions: ExtensionIds,
    /// SSRCs from the SDP. Empty when the peer identifies its streams by MID only.
    pub ssrcs: Vec<AnnouncedSsrc>,
    /// Simulcast, if it was accepted.
    pub encodings: Encodings,
    /// Stream id of the publisher's msid, braces stripped; the track's id where the SDP names none.
    pub stream_id: String,
    /// Track id of the publisher's msid, braces stripped; made up (random) where the SDP names none.
    pub track_id: String,
}

impl ReceiveLine {
    /// How many streams of one track it may carry at once, at least 1.
    pub fn streams(&self) -> usize {
        match &self.encodings {
            Encodings::Single => 1,
            Encodings::Rids(rids) => rids.len().max(1),
            Encodings::Ssrcs => self.ssrcs.len().max(1),
        }
    }
}

/// An m-line on which we send to the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendLine {
    /// Which sender sits on it (see `transport::negotiation::SenderId`).
    pub sender: u64,
    /// Its tag.
    pub mid: Mid,
    /// Audio or video.
    pub kind: MediaKind,
    /// What the peer takes on this line. A sender whose codec is missing here cannot send.
    pub payloads: Vec<PayloadParams>,
    /// The leg's extension ids.
    pub extensions: ExtensionIds,
    /// Our media stream.
    pub ssrc: Ssrc,
    /// Our retransmissions.
    pub rtx_ssrc: Ssrc,
    /// Canonical name (RFC 3550): the same for the tracks that are to be played in sync.
    pub cname: String,
}
