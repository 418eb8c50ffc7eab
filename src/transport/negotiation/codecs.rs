//! The payload types of an m-line: which of them are accepted, and in what order.

use crate::rtp::params::{Codec, MediaKind, PayloadParams};

/// What we say about Opus (RFC 7587, section 6.1): in-band FEC repairs single losses, and who is silent sends nothing.
const OPUS_FMTP: &str = "minptime=10;useinbandfec=1;usedtx=1";

/// The H.264 that everything decodes and the mixer encodes (RFC 6184, section 8.1).
const H264_FMTP: &str = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";

/// Format parameters longer than this are not those of a codec that is accepted.
const MAX_FMTP: usize = 256;

/// Feedback lines of one m-line; further ones are ignored.
const MAX_FEEDBACK: usize = 1024;

/// The feedback that a payload type has (RFC 4585, section 4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Feedback {
    pub nack: bool,
    pub pli: bool,
    pub fir: bool,
    pub transport_cc: bool,
}

impl Feedback {
    const ALL: Feedback = Feedback {
        nack: true,
        pli: true,
        fir: true,
        transport_cc: true,
    };
    const AUDIO: Feedback = Feedback {
        nack: false,
        pli: false,
        fir: false,
        transport_cc: true,
    };

    fn merge(&mut self, value: &str) {
        match value {
            "nack" => self.nack = true,
            "nack pli" => self.pli = true,
            "ccm fir" => self.fir = true,
            "transport-cc" => self.transport_cc = true,
            // goog-remb among them: transport-wide feedback takes its place.
            _ => {}
        }
    }

    fn and(self, other: Feedback) -> Feedback {
        Feedback {
            nack: self.nack && other.nack,
            pli: self.pli && other.pli,
            fir: self.fir && other.fir,
            transport_cc: self.transport_cc && other.transport_cc,
        }
    }

    /// The values of its `a=rtcp-fb` lines.
    pub(super) fn values(self) -> impl Iterator<Item = &'static str> {
        [
            (self.transport_cc, "transport-cc"),
            (self.fir, "ccm fir"),
            (self.nack, "nack"),
            (self.pli, "nack pli"),
        ]
        .into_iter()
        .filter_map(|(has, value)| has.then_some(value))
    }
}

/// The redundant form of a payload type (RFC 2198).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RedPayload {
    pub payload_type: u8,
    /// Listed before the plain form: the client is to send it rather than that.
    pub preferred: bool,
}

/// A payload type that is accepted, with its retransmissions and its redundant form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Payload {
    pub payload_type: u8,
    pub codec: Codec,
    /// Its format parameters, empty for none.
    pub fmtp: String,
    pub rtx: Option<u8>,
    pub red: Option<RedPayload>,
    pub feedback: Feedback,
    /// The client likes to receive two channels.
    pub stereo: bool,
    /// Lower is better, and two payload types of one rank are the same configuration.
    rank: u8,
}

impl Payload {
    /// In the packet path's form.
    pub(super) fn params(&self) -> PayloadParams {
        PayloadParams {
            payload_type: self.payload_type,
            codec: self.codec,
            rtx: self.rtx,
            red: self.red.map(|red| red.payload_type),
            stereo: self.stereo,
            nack: self.feedback.nack,
            pli: self.feedback.pli,
            fir: self.feedback.fir,
            transport_cc: self.feedback.transport_cc,
        }
    }

    /// This payload type as the other side's answer confirms it, with the other side's numbers.
    pub(super) fn confirmed(&self, answered: &[Payload]) -> Option<Payload> {
        let theirs = answered.iter().find(|p| p.rank == self.rank)?;
        Some(Payload {
            payload_type: theirs.payload_type,
            rtx: self.rtx.and(theirs.rtx),
            red: self.red.zip(theirs.red).map(|(ours, theirs)| RedPayload {
                payload_type: theirs.payload_type,
                ..ours
            }),
            feedback: self.feedback.and(theirs.feedback),
            stereo: theirs.stereo,
            ..self.clone()
        })
    }

    /// The numbers in the m-line, most preferred first; retransmissions stand behind all others.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u8> {
        let before = self.red.filter(|red| red.preferred);
        let after = self.red.filter(|red| !red.preferred);
        let red = |red: RedPayload| red.payload_type;
        (before.map(red).into_iter())
            .chain([self.payload_type])
            .chain(after.map(red))
    }

    /// The feedback that a description of ours lists. Without a stream for retransmissions a packet is sent again under
    /// its own number: a publisher of Opus may do that, but encryption forbids it to us (RFC 3711, section 9.1).
    pub(super) fn feedback_of(&self, receives: bool) -> Feedback {
        Feedback {
            nack: self.feedback.nack && (receives || self.rtx.is_some()),
            ..self.feedback
        }
    }

    /// The format parameters that a description of ours has.
    pub(super) fn own_fmtp(&self) -> String {
        if self.codec != Codec::Opus {
            return self.fmtp.clone();
        }
        // RFC 7587, section 6.1: who says that it sends stereo is told that stereo is welcome; nobody else is.
        let mut fmtp = OPUS_FMTP.to_owned();
        if parameter(&self.fmtp, "sprop-stereo") == Some("1") {
            fmtp.push_str(";stereo=1");
        }
        // And who likes to receive it may get it.
        if self.stereo {
            fmtp.push_str(";sprop-stereo=1");
        }
        fmtp
    }
}

/// The best payload type of `codec` among `payloads`.
pub(super) fn best_of(payloads: &[Payload], codec: Codec) -> Option<&Payload> {
    payloads
        .iter()
        .filter(|p| p.codec == codec)
        .min_by_key(|p| p.rank)
}

/// The payload type that a publisher is to send: H.264 if it can, so that the mixer can show it.
pub(super) fn best(payloads: &[Payload]) -> Option<&Payload> {
    payloads.iter().min_by_key(|p| p.rank)
}

/// The attributes of an m-line that describe its payload types, as they come.
#[derive(Default)]
pub(super) struct PayloadReader {
    rtpmap: Vec<(u8, String)>,
    fmtp: Vec<(u8, String)>,
    /// `None`: for all (`*`).
    feedback: Vec<(Option<u8>, String)>,
}

impl PayloadReader {
    /// The value of `a=rtpmap`.
    pub(super) fn rtpmap(&mut self, value: &str) {
        insert(&mut self.rtpmap, value);
    }

    /// The value of `a=fmtp`.
    pub(super) fn fmtp(&mut self, value: &str) {
        insert(&mut self.fmtp, value);
    }

    /// The value of `a=rtcp-fb`.
    pub(super) fn feedback(&mut self, value: &str) {
        let entry = match value.strip_prefix("* ") {
            Some(rest) => Some((None, rest.trim().to_owned())),
            None => numbered(value).map(|(pt, rest)| (Some(pt), rest)),
        };
        if self.feedback.len() < MAX_FEEDBACK {
            self.feedback.extend(entry);
        }
    }

    /// The accepted ones of `payload_types`, in their order.
    pub(super) fn finish(self, kind: MediaKind, payload_types: &[u8]) -> Vec<Payload> {
        let mut payloads: Vec<Payload> = Vec::new();
        for &payload_type in payload_types {
            if payloads.iter().all(|p| p.payload_type != payload_type)
                && let Some(payload) = self.payload(kind, payload_type, payload_types)
            {
                payloads.push(payload);
            }
        }
        payloads
    }

    fn payload(&self, kind: MediaKind, payload_type: u8, listed: &[u8]) -> Option<Payload> {
        let codec = match self.value(&self.rtpmap, payload_type) {
            Some(rtpmap) => accepted_codec(rtpmap)?,
            None => static_codec(payload_type)?,
        };
        let fmtp = self.value(&self.fmtp, payload_type).unwrap_or_default();
        let rank = rank(codec, fmtp)?;
        let clean = fmtp.len() <= MAX_FMTP && fmtp.chars().all(|c| (' '..='~').contains(&c));
        if codec.kind() != kind || !clean {
            return None;
        }
        let mut feedback = Feedback::default();
        for (pt, value) in &self.feedback {
            if pt.is_none_or(|pt| pt == payload_type) {
                feedback.merge(value);
            }
        }
        Some(Payload {
            payload_type,
            codec,
            fmtp: fmtp.to_owned(),
            rtx: listed
                .iter()
                .copied()
                .find(|rtx| self.repairs(*rtx, payload_type)),
            red: self.red_of(payload_type, listed),
            feedback,
            stereo: codec == Codec::Opus && parameter(fmtp, "stereo") == Some("1"),
            rank,
        })
    }

    /// RFC 4588, section 8.1.
    fn repairs(&self, rtx: u8, payload_type: u8) -> bool {
        let is_rtx = self
            .value(&self.rtpmap, rtx)
            .is_some_and(|map| map.len() > 4 && map.as_bytes()[..4].eq_ignore_ascii_case(b"rtx/"));
        let apt = self
            .value(&self.fmtp, rtx)
            .and_then(|fmtp| parameter(fmtp, "apt"));
        is_rtx && apt.and_then(|apt| apt.parse().ok()) == Some(payload_type)
    }

    /// RFC 2198, section 5: all blocks of the redundant form are of the one type that it is to repeat.
    fn red_of(&self, payload_type: u8, listed: &[u8]) -> Option<RedPayload> {
        let is_red = |red: u8| {
            let map = self.value(&self.rtpmap, red)?;
            let fmtp = self.value(&self.fmtp, red)?;
            let mut blocks = fmtp.split('/').map(|block| block.trim().parse::<u8>());
            let right = map.eq_ignore_ascii_case("red/48000/2")
                && blocks.all(|block| block == Ok(payload_type));
            right.then_some(red)
        };
        let at = listed.iter().position(|red| is_red(*red).is_some())?;
        let plain = listed.iter().position(|plain| *plain == payload_type)?;
        Some(RedPayload {
            payload_type: listed[at],
            preferred: at < plain,
        })
    }

    fn value<'a>(&self, list: &'a [(u8, String)], payload_type: u8) -> Option<&'a str> {
        let entry = list.iter().find(|(pt, _)| *pt == payload_type);
        entry.map(|(_, value)| value.as_str())
    }
}

/// The first line of a payload type counts: so the lists have at most 256 entries.
fn insert(list: &mut Vec<(u8, String)>, value: &str) {
    if let Some((number, rest)) = numbered(value)
        && list.iter().all(|(known, _)| *known != number)
    {
        list.push((number, rest));
    }
}

fn numbered(value: &str) -> Option<(u8, String)> {
    let (number, rest) = value.split_once(' ')?;
    Some((number.parse().ok()?, rest.trim().to_owned()))
}

/// The value of `name` in `name=value;name=value`.
fn parameter<'a>(fmtp: &'a str, name: &str) -> Option<&'a str> {
    fmtp.split(';').find_map(|part| {
        let (key, value) = part.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn accepted_codec(rtpmap: &str) -> Option<Codec> {
    let mut parts = rtpmap.split('/');
    let codec = Codec::from_encoding_name(parts.next()?.trim())?;
    let clock: u32 = parts.next()?.trim().parse().ok()?;
    let channels = parts.next().unwrap_or("1").trim();
    let right = match codec {
        Codec::Opus => channels == "2",
        Codec::G722 | Codec::Pcmu | Codec::Pcma => channels == "1",
        _ => true,
    };
    (right && clock == codec.clock_rate()).then_some(codec)
}

/// Payload types that mean something without an rtpmap (RFC 3551, section 6).
fn static_codec(payload_type: u8) -> Option<Codec> {
    [Codec::Pcmu, Codec::Pcma, Codec::G722]
        .into_iter()
        .find(|codec| standard_numbers(*codec).0 == payload_type)
}

/// The order of preference. `None`: a configuration that is not accepted.
fn rank(codec: Codec, fmtp: &str) -> Option<u8> {
    match codec {
        Codec::Opus => Some(0),
        Codec::H264 => {
            // RFC 6184, section 8.1: absent means mode 0, and plain baseline.
            if parameter(fmtp, "packetization-mode") != Some("1") {
                return None;
            }
            let profile = parameter(fmtp, "profile-level-id").unwrap_or("42000a");
            let profile = u32::from_str_radix(profile, 16).ok()?;
            match (profile >> 16, (profile >> 8) & 0x40) {
                (0x42, 0) => Some(2),
                (0x42, _) => Some(1),
                _ => None,
            }
        }
        Codec::Vp8 => Some(3),
        // Only 8 bit 4:2:0 (RFC 9628, section 6; AV1 RTP specification, section 7.2).
        Codec::Vp9 => (parameter(fmtp, "profile-id").unwrap_or("0") == "0").then_some(4),
        Codec::Av1 => (parameter(fmtp, "profile").unwrap_or("0") == "0").then_some(5),
        // Behind Opus, the one with the wider band first.
        Codec::G722 => Some(6),
        Codec::Pcmu => Some(7),
        Codec::Pcma => Some(8),
    }
}

/// The payload types in use on one leg. Under BUNDLE a number means one thing (RFC 9143, section 9.1).
#[derive(Clone, Debug, Default)]
pub(super) struct PayloadNumbers {
    known: Vec<Payload>,
    /// One bit for each number that the client has used for anything.
    used: u128,
}

impl PayloadNumbers {
    /// The client listed these numbers on an m-line, and `payloads` of them are accepted.
    pub(super) fn learn(&mut self, payload_types: &[u8], payloads: &[Payload]) {
        for &pt in payload_types {
            self.used |= bit(pt);
        }
        for payload in payloads {
            let at = (self.known.iter()).position(|known| known.rank == payload.rank);
            let before = at.map(|at| self.known.swap_remove(at));
            // A client that leaves RED out of one m-line may take it on another: its answer says.
            let red = before
                .filter(|before| before.payload_type == payload.payload_type)
                .and_then(|before| before.red);
            self.known.push(Payload {
                red: payload.red.or(red),
                ..payload.clone()
            });
        }
    }

    /// The payload type of `codec` on a new m-line of ours. `None`: all numbers are in use.
    pub(super) fn for_offer(&mut self, codec: Codec) -> Option<Payload> {
        if let Some(known) = best_of(&self.known, codec) {
            return Some(Payload {
                red: known.red.map(|red| RedPayload {
                    preferred: false,
                    ..red
                }),
                ..known.clone()
            });
        }
        let (standard, standard_rtx) = standard_numbers(codec);
        let payload_type = self.allocate(standard)?;
        let rtx = standard_rtx.and_then(|number| self.allocate(number));
        let red = match codec {
            Codec::Opus => self.allocate(63),
            _ => None,
        };
        let fmtp = match codec {
            Codec::Opus => OPUS_FMTP,
            Codec::H264 => H264_FMTP,
            Codec::Vp9 => "profile-id=0",
            Codec::Vp8 | Codec::Av1 | Codec::G722 | Codec::Pcmu | Codec::Pcma => "",
        };
        let payload = Payload {
            payload_type,
            codec,
            fmtp: fmtp.to_owned(),
            rtx,
            red: red.map(|payload_type| RedPayload {
                payload_type,
                preferred: false,
            }),
            feedback: match codec.kind() {
                MediaKind::Audio => Feedback::AUDIO,
                MediaKind::Video => Feedback::ALL,
            },
            stereo: false,
            rank: rank(codec, fmtp)?,
        };
        self.known.push(payload.clone());
        Some(payload)
    }

    fn allocate(&mut self, standard: u8) -> Option<u8> {
        // The dynamic range first, then what RFC 5761, section 4 leaves besides it.
        let number = std::iter::once(standard)
            .chain(96..=127)
            .chain(35..=63)
            .find(|number| self.used & bit(*number) == 0)?;
        self.used |= bit(number);
        Some(number)
    }
}

fn bit(payload_type: u8) -> u128 {
    1u128.checked_shl(payload_type.into()).unwrap_or(0)
}

fn standard_numbers(codec: Codec) -> (u8, Option<u8>) {
    match codec {
        Codec::Opus => (111, None),
        Codec::Pcmu => (0, None),
        Codec::Pcma => (8, None),
        Codec::G722 => (9, None),
        Codec::Vp8 => (96, Some(97)),
        Codec::Vp9 => (98, Some(99)),
        Codec::H264 => (108, Some(109)),
        Codec::Av1 => (45, Some(46)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn video(lines: &[&str], payload_types: &[u8]) -> Vec<Payload> {
        let mut reader = PayloadReader::default();
        for line in lines {
            match line.split_once(':') {
                Some(("rtpmap", value)) => reader.rtpmap(value),
                Some(("fmtp", value)) => reader.fmtp(value),
                Some(("rtcp-fb", value)) => reader.feedback(value),
                _ => panic!("{line}"),
            }
        }
        reader.finish(MediaKind::Video, payload_types)
    }

    #[test]
    fn constrained_baseline_is_preferred_and_mode_zero_and_main_profile_are_declined() {
        let payloads = video(
            &[
                "rtpmap:96 VP8/90000",
                "rtpmap:97 H264/90000",
                "fmtp:97 packetization-mode=1;profile-level-id=42001f",
                "rtpmap:98 H264/90000",
                "fmtp:98 profile-level-id=42e01f; packetization-mode=1",
                "rtpmap:99 H264/90000",
                "fmtp:99 packetization-mode=0;profile-level-id=42e01f",
                "rtpmap:100 H264/90000",
                "fmtp:100 packetization-mode=1;profile-level-id=4d001f",
                "rtpmap:101 VP9/90000",
                "fmtp:101 profile-id=2",
            ],
            &[96, 97, 98, 99, 100, 101],
        );
        let numbers: Vec<_> = payloads.iter().map(|p| p.payload_type).collect();
        assert_eq!(numbers, [96, 97, 98]);
        assert_eq!(best(&payloads).map(|p| p.payload_type), Some(98));
    }

    #[test]
    fn retransmissions_and_feedback_belong_to_their_payload_type() {
        let payloads = video(
            &[
                "rtpmap:96 VP8/90000",
                "rtcp-fb:96 nack",
                "rtcp-fb:* ccm fir",
                "rtcp-fb:96 goog-remb",
                "rtpmap:97 rtx/90000",
                "fmtp:97 apt=96",
                "rtpmap:98 VP9/90000",
            ],
            &[96, 97, 98],
        );
        assert_eq!(payloads[0].rtx, Some(97));
        assert_eq!(
            payloads[0].feedback.values().collect::<Vec<_>>(),
            ["ccm fir", "nack"]
        );
        assert_eq!(payloads[1].rtx, None);
        assert_eq!(
            payloads[1].feedback.values().collect::<Vec<_>>(),
            ["ccm fir"]
        );
    }

    #[test]
    fn a_codec_that_the_client_has_not_named_gets_a_number_that_the_client_does_not_use() {
        let mut numbers = PayloadNumbers::default();
        numbers.learn(&[108, 96, 97], &[]);
        let payload = numbers.for_offer(Codec::H264).unwrap();
        assert_eq!((payload.payload_type, payload.rtx), (98, Some(109)));
        assert_eq!(numbers.for_offer(Codec::H264).unwrap(), payload);
    }

    #[test]
    fn mono_opus_at_another_clock_is_not_opus() {
        assert_eq!(accepted_codec("opus/48000/2"), Some(Codec::Opus));
        assert_eq!(accepted_codec("OPUS/48000/1"), None);
        assert_eq!(accepted_codec("opus/16000/2"), None);
        assert_eq!(accepted_codec("opus"), None);
    }
}
