//! A session description as it came, reduced to what a forwarding server needs.

use std::collections::HashSet;
use std::io::Cursor;

use rtc::sdp::description::media::MediaDescription;
use rtc::sdp::description::session::SessionDescription;

use super::codecs::{Payload, PayloadReader};
use super::extensions::{Mapping, parse_extmap};
use super::{ChannelParams, NegotiationError, RemoteTransport};
use crate::rtp::params::{AnnouncedSsrc, Encodings, MAX_ENCODINGS, MediaKind, Mid, Ssrc};

/// Longer descriptions are refused before they are read, in bytes.
pub(super) const MAX_SDP: usize = 256 * 1024;
/// Candidates of one description; further ones are ignored, the best come first.
const MAX_CANDIDATES: usize = 64;
/// Streams that one m-line announces; further ones are ignored, the packets' MID tells their line.
const MAX_SSRCS: usize = 16;
/// Longest `mid`, in bytes: it has to fit a one-byte header extension (RFC 8285, section 4.2).
const MAX_MID: usize = 16;
/// Longest stream or track id, in bytes (RFC 8830, section 2).
const MAX_ID: usize = 64;

/// Offer or answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Offer,
    Answer,
}

/// Which ways media flows on an m-line, as its owner sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Direction {
    pub send: bool,
    pub receive: bool,
}

impl Direction {
    /// As the other side sees it.
    pub(super) fn reversed(self) -> Self {
        Direction {
            send: self.receive,
            receive: self.send,
        }
    }

    /// What both allow.
    pub(super) fn and(self, other: Self) -> Self {
        Direction {
            send: self.send && other.send,
            receive: self.receive && other.receive,
        }
    }

    /// Its attribute (RFC 8866, section 6.7).
    pub(super) fn as_str(self) -> &'static str {
        match (self.send, self.receive) {
            (true, true) => "sendrecv",
            (true, false) => "sendonly",
            (false, true) => "recvonly",
            (false, false) => "inactive",
        }
    }
}

/// The ids of a track, braces stripped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TrackNames {
    /// `None`: the track is in no stream.
    pub stream: Option<String>,
    /// `None`: the description does not tell.
    pub track: Option<String>,
}

/// One m-line.
#[derive(Clone, Debug)]
pub(super) struct Section {
    /// `audio`, `video`, `application` or something else.
    pub media: String,
    pub protocol: String,
    pub formats: Vec<String>,
    /// Empty where the m-line has none, which only a rejected one may.
    pub mid: Mid,
    /// Not rejected, in the BUNDLE group, and with rtcp-mux if it is media.
    pub live: bool,
    pub direction: Direction,
    /// The accepted ones.
    pub payloads: Vec<Payload>,
    pub extensions: Vec<Mapping>,
    pub track: TrackNames,
    pub ssrcs: Vec<AnnouncedSsrc>,
    pub encodings: Encodings,
    /// Of an m=application that is a data channel.
    pub channel: Option<ChannelParams>,
}

impl Section {
    /// `None`: neither audio nor video.
    pub(super) fn kind(&self) -> Option<MediaKind> {
        kind_of(&self.media)
    }

    /// The numeric formats.
    pub(super) fn payload_types(&self) -> Vec<u8> {
        payload_types(&self.formats)
    }
}

fn kind_of(media: &str) -> Option<MediaKind> {
    [MediaKind::Audio, MediaKind::Video]
        .into_iter()
        .find(|kind| kind.as_str() == media)
}

/// A checked session description.
#[derive(Clone, Debug)]
pub(super) struct Description {
    pub sections: Vec<Section>,
    /// `None`: all m-lines are rejected, so that there is nothing to transport.
    pub transport: Option<RemoteTransport>,
    /// Its side only answers connectivity checks (RFC 8445, section 2.5).
    pub ice_lite: bool,
}

impl Description {
    /// Reads and checks what the client sent.
    pub(super) fn parse(sdp: &str, role: Role, max_lines: usize) -> Result<Self, NegotiationError> {
        if sdp.len() > MAX_SDP {
            return Err(NegotiationError::TooLong(sdp.len()));
        }
        // Before it is parsed: that costs as much as the description is long.
        let lines = sdp.lines().filter(|line| line.starts_with("m="));
        check_count(lines.count(), max_lines)?;
        let parsed = SessionDescription::unmarshal(&mut Cursor::new(sdp))
            .map_err(|error| NegotiationError::NotADescription(excerpt(&error.to_string())))?;
        if parsed.media_descriptions.is_empty() {
            return Err(NegotiationError::NoLines);
        }
        check_count(parsed.media_descriptions.len(), max_lines)?;
        let bundle = bundle_group(&parsed);
        let sections = parsed
            .media_descriptions
            .iter()
            .enumerate()
            .map(|(index, media)| section(index, media, role, &bundle))
            .collect::<Result<Vec<_>, _>>()?;
        check_mids(&sections)?;
        let unbundled = parsed.media_descriptions.iter().any(|m| has_port(m, role));
        if unbundled && bundle.is_empty() {
            return Err(NegotiationError::NotBundled);
        }
        let transport = transport(&parsed, &sections, &bundle, role)?;
        Ok(Description {
            sections,
            transport,
            ice_lite: parsed.has_attribute("ice-lite"),
        })
    }
}

/// The beginning of a parser's complaint: it may quote the whole line.
fn excerpt(message: &str) -> String {
    const LONGEST: usize = 120;
    let mut text: String = message
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(LONGEST)
        .collect();
    if message.chars().nth(LONGEST).is_some() {
        text.push('…');
    }
    text
}

/// The mids of the first BUNDLE group (RFC 9143, section 7.1); the first of them is the tagged m-line.
fn bundle_group(parsed: &SessionDescription) -> Vec<&str> {
    parsed
        .attributes
        .iter()
        .filter(|attribute| attribute.key == "group")
        .filter_map(|attribute| attribute.value.as_deref()?.strip_prefix("BUNDLE"))
        .map(|mids| mids.split_ascii_whitespace().collect())
        .next()
        .unwrap_or_default()
}

/// Port 0 means rejected, except for a bundle-only m-line of an offer (RFC 9143, section 6).
fn has_port(media: &MediaDescription, role: Role) -> bool {
    let bundle_only = role == Role::Offer && media.has_attribute("bundle-only");
    media.media_name.port.value != 0 || bundle_only
}

fn section(
    index: usize,
    media: &MediaDescription,
    role: Role,
    bundle: &[&str],
) -> Result<Section, NegotiationError> {
    let name = &media.media_name;
    let mid = value(media, "mid").unwrap_or_default();
    let wanted = has_port(media, role);
    if (wanted && mid.is_empty()) || mid.len() > MAX_MID || token(mid, MAX_MID) != mid {
        return Err(NegotiationError::BadMid(index));
    }
    let protocol = name.protos.join("/");
    let kind = kind_of(&name.media);
    let rtp = matches!(
        protocol.as_str(),
        "UDP/TLS/RTP/SAVPF" | "TCP/TLS/RTP/SAVPF" | "RTP/SAVPF"
    );
    let channel = channel(media, &protocol);
    let usable = match kind {
        // RFC 8834, section 4.5 asks for rtcp-mux, and BUNDLE for it too (RFC 9143, section 9.3).
        Some(_) => rtp && media.has_attribute("rtcp-mux"),
        None => channel.is_some(),
    };
    let mut section = Section {
        media: token(&name.media, MAX_ID),
        protocol: protocol.chars().filter(|c| !c.is_control()).collect(),
        formats: name
            .formats
            .iter()
            .map(|format| token(format, MAX_ID))
            .collect(),
        mid: Mid::from(mid),
        live: wanted && usable && bundle.contains(&mid),
        direction: direction(media),
        payloads: Vec::new(),
        extensions: values(media, "extmap").filter_map(parse_extmap).collect(),
        track: track_names(media),
        ssrcs: Vec::new(),
        encodings: Encodings::Single,
        channel,
    };
    if let Some(kind) = kind {
        (section.encodings, section.ssrcs) = encodings(media, kind);
        section.payloads = payloads(media, kind, &section.payload_types());
    }
    Ok(section)
}

fn check_mids(sections: &[Section]) -> Result<(), NegotiationError> {
    let mut seen = HashSet::new();
    for (index, section) in sections.iter().enumerate() {
        if !section.mid.as_str().is_empty() && !seen.insert(&section.mid) {
            return Err(NegotiationError::BadMid(index));
        }
    }
    Ok(())
}

/// Absent means sendrecv (RFC 8866, section 6.7).
fn direction(media: &MediaDescription) -> Direction {
    let has = |name| media.has_attribute(name);
    Direction {
        send: !has("recvonly") && !has("inactive"),
        receive: !has("sendonly") && !has("inactive"),
    }
}

fn payload_types(formats: &[String]) -> Vec<u8> {
    let mut found = Vec::new();
    for number in formats.iter().filter_map(|format| format.parse().ok()) {
        if number < 128 && !found.contains(&number) {
            found.push(number);
        }
    }
    found
}

fn payloads(media: &MediaDescription, kind: MediaKind, payload_types: &[u8]) -> Vec<Payload> {
    let mut reader = PayloadReader::default();
    values(media, "rtpmap").for_each(|value| reader.rtpmap(value));
    values(media, "fmtp").for_each(|value| reader.fmtp(value));
    values(media, "rtcp-fb").for_each(|value| reader.feedback(value));
    reader.finish(kind, payload_types)
}

/// The form of RFC 8841, section 4.3; the older `a=sctpmap` form is not spoken any more.
fn channel(media: &MediaDescription, protocol: &str) -> Option<ChannelParams> {
    let name = &media.media_name;
    let spoken = name.media == "application"
        && matches!(protocol, "UDP/DTLS/SCTP" | "TCP/DTLS/SCTP")
        && name
            .formats
            .iter()
            .any(|format| format == "webrtc-datachannel");
    if !spoken {
        return None;
    }
    let number = |name| value(media, name).and_then(|text| text.parse::<u64>().ok());
    Some(ChannelParams {
        sctp_port: number("sctp-port")
            .and_then(|port| port.try_into().ok())
            .unwrap_or(5000),
        // RFC 8841, section 6.1: 64 KiB where it does not say, any size where it says 0.
        max_message_size: match number("max-message-size") {
            None => 64 * 1024,
            Some(0) => u64::MAX,
            Some(size) => size,
        },
    })
}

/// RFC 8830, or where it is missing the older `a=ssrc:… msid:`.
fn track_names(media: &MediaDescription) -> TrackNames {
    let of_ssrc = || {
        values(media, "ssrc")
            .filter_map(|value| value.split_once(' '))
            .find_map(|(_, attribute)| attribute.strip_prefix("msid:"))
    };
    let msid = value(media, "msid").or_else(of_ssrc).unwrap_or_default();
    let mut ids = msid.split_ascii_whitespace().map(clean_id);
    TrackNames {
        stream: ids.next().filter(|id| id != "-" && !id.is_empty()),
        track: ids.next().filter(|id| !id.is_empty()),
    }
}

fn clean_id(id: &str) -> String {
    token(id.trim_matches(['{', '}']), MAX_ID)
}

/// What of `text` may stand in a token (RFC 8866, section 9), at most `longest` bytes of it.
pub(super) fn token(text: &str, longest: usize) -> String {
    let of_token = |c: &char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`{|}~".contains(*c);
    text.chars().filter(of_token).take(longest).collect()
}

/// The streams of an m-line's track, and those that are announced by SSRC. Several are taken of video only: by the
/// rids of `a=simulcast` (RFC 8853), or by a group with the semantics SIM, which older pages write into their offer.
fn encodings(media: &MediaDescription, kind: MediaKind) -> (Encodings, Vec<AnnouncedSsrc>) {
    let groups: Vec<(&str, Vec<u32>)> = values(media, "ssrc-group")
        .filter_map(|value| value.split_once(' '))
        .map(|(semantics, list)| (semantics, numbers(list)))
        .take(2 * MAX_SSRCS)
        .collect();
    let mut announced = ssrcs(media, &groups);
    let rids = rids(media);
    if kind == MediaKind::Video && !rids.is_empty() {
        return (Encodings::Rids(rids), Vec::new());
    }
    let layers = groups.iter().find(|(semantics, _)| *semantics == "SIM");
    if let Some((_, layers)) = layers {
        let known = |ssrc: &u32| announced.iter().find(|a| a.primary.0 == *ssrc).copied();
        let of_group: Vec<_> = layers
            .iter()
            .filter_map(known)
            .take(MAX_ENCODINGS)
            .collect();
        if kind == MediaKind::Video && of_group.len() > 1 {
            return (Encodings::Ssrcs, of_group);
        }
    }
    // A page that lists rids without a=simulcast sends one of them, nobody knows which.
    if media.has_attribute("rid") || layers.is_some() {
        announced.truncate(1);
    }
    (Encodings::Single, announced)
}

/// The rids that `a=simulcast` lists for sending, without pauses, the first of alternatives each.
fn rids(media: &MediaDescription) -> Vec<String> {
    let mut fields = value(media, "simulcast")
        .unwrap_or_default()
        .split_ascii_whitespace();
    let list = fields.find(|field| *field == "send").and(fields.next());
    let sent = |rid: &str| {
        let mut lines = values(media, "rid").map(|line| line.split_ascii_whitespace());
        lines.any(|mut fields| fields.next() == Some(rid) && fields.next() == Some("send"))
    };
    let mut found: Vec<String> = Vec::new();
    for stream in list.unwrap_or_default().split(';') {
        let rid = stream.split(',').next().unwrap_or_default();
        let rid = rid.trim_start_matches('~');
        // RFC 8851, section 10: rid-id; and it has to fit a one-byte header extension.
        let well_formed = (1..=MAX_MID).contains(&rid.len())
            && rid
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_');
        if well_formed && sent(rid) && !found.iter().any(|f| f == rid) {
            found.push(rid.to_owned());
        }
    }
    found.truncate(MAX_ENCODINGS);
    found
}

/// The streams that are announced by SSRC, without those that only repair others.
fn ssrcs(media: &MediaDescription, groups: &[(&str, Vec<u32>)]) -> Vec<AnnouncedSsrc> {
    let pairs: Vec<(u32, u32)> = groups
        .iter()
        .filter(|(semantics, list)| *semantics == "FID" && list.len() == 2)
        .map(|(_, list)| (list[0], list[1]))
        .collect();
    let secondary = |ssrc: u32| {
        pairs.iter().any(|(_, rtx)| *rtx == ssrc)
            || groups
                .iter()
                .any(|(s, list)| s.starts_with("FEC") && list.iter().skip(1).any(|x| *x == ssrc))
    };
    let mut found: Vec<AnnouncedSsrc> = Vec::new();
    for ssrc in values(media, "ssrc").flat_map(|value| numbers(value).into_iter().next()) {
        if found.len() < MAX_SSRCS && !secondary(ssrc) && found.iter().all(|f| f.primary.0 != ssrc)
        {
            let rtx = pairs.iter().find(|(primary, _)| *primary == ssrc);
            found.push(AnnouncedSsrc {
                primary: Ssrc(ssrc),
                rtx: rtx.map(|(_, rtx)| Ssrc(*rtx)),
            });
        }
    }
    found
}

fn numbers(list: &str) -> Vec<u32> {
    list.split_ascii_whitespace()
        .map_while(|n| n.parse().ok())
        .collect()
}

/// The transport of the BUNDLE group: its tagged m-line speaks for all (RFC 9143, section 9.4).
fn transport(
    parsed: &SessionDescription,
    sections: &[Section],
    bundle: &[&str],
    role: Role,
) -> Result<Option<RemoteTransport>, NegotiationError> {
    let tagged = bundle.iter().find_map(|mid| {
        sections
            .iter()
            .position(|section| section.live && section.mid.as_str() == *mid)
    });
    let Some(tagged) = tagged else {
        return Ok(None);
    };
    let media = &parsed.media_descriptions[tagged];
    let attribute = |name: &str| value(media, name).or_else(|| session_value(parsed, name));
    // RFC 8842, section 5: the server never takes the active role.
    match attribute("setup") {
        None | Some("active") => {}
        Some("actpass") if role == Role::Offer => {}
        Some(_) => return Err(NegotiationError::Setup),
    }
    let ufrag = attribute("ice-ufrag").unwrap_or_default();
    let pwd = attribute("ice-pwd").unwrap_or_default();
    // RFC 8839, section 5.4.
    if !(4..=256).contains(&ufrag.len()) || !(22..=256).contains(&pwd.len()) {
        return Err(NegotiationError::NoIceCredentials);
    }
    let mut fingerprints: Vec<_> = values(media, "fingerprint")
        .filter_map(fingerprint)
        .collect();
    if fingerprints.is_empty() {
        let session = parsed.attributes.iter().filter(|a| a.key == "fingerprint");
        fingerprints = session
            .filter_map(|a| fingerprint(a.value.as_deref()?))
            .collect();
    }
    if fingerprints.is_empty() {
        return Err(NegotiationError::NoFingerprint);
    }
    Ok(Some(RemoteTransport {
        ufrag: ufrag.to_owned(),
        pwd: pwd.to_owned(),
        fingerprints,
        candidates: candidates(parsed),
    }))
}

/// RFC 8122, section 5.
fn fingerprint(value: &str) -> Option<(String, String)> {
    let (algorithm, digest) = value.split_once(' ')?;
    Some((
        algorithm.to_ascii_lowercase(),
        digest.trim().to_ascii_uppercase(),
    ))
}

fn check_count(lines: usize, limit: usize) -> Result<(), NegotiationError> {
    if lines > limit {
        return Err(NegotiationError::TooManyLines { lines, limit });
    }
    Ok(())
}

/// Of all m-lines: before BUNDLE is agreed a browser may list each m-line's own.
fn candidates(parsed: &SessionDescription) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let media = parsed.media_descriptions.iter();
    for candidate in media.flat_map(|media| values(media, "candidate")) {
        if found.len() < MAX_CANDIDATES && found.iter().all(|known| known != candidate) {
            found.push(candidate.to_owned());
        }
    }
    found
}

fn value<'a>(media: &'a MediaDescription, name: &str) -> Option<&'a str> {
    let mut attributes = media.attributes.iter();
    attributes.find(|a| a.key == name)?.value.as_deref()
}

fn values<'a>(media: &'a MediaDescription, name: &'a str) -> impl Iterator<Item = &'a str> {
    media
        .attributes
        .iter()
        .filter(move |attribute| attribute.key == name)
        .filter_map(|attribute| attribute.value.as_deref())
}

fn session_value<'a>(parsed: &'a SessionDescription, name: &str) -> Option<&'a str> {
    let mut attributes = parsed.attributes.iter();
    attributes.find(|a| a.key == name)?.value.as_deref()
}
