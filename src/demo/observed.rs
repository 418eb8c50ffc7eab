//! What a participant has seen so far: the counters that tests wait for.

use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};

use crate::rtp::params::MediaKind;

/// Latest server messages that are kept whole; older ones are only counted.
const KEPT_MESSAGES: usize = 256;
/// Message types that are counted apart: the protocol has fewer, a confused server may not fill the memory.
const KEPT_TYPES: usize = 64;

/// Everything that a participant has observed. Cheap to clone for a test, not meant for hot paths.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The id that the server gave us.
    pub client_id: Option<String>,
    /// ICE and DTLS are up.
    pub connected: bool,
    /// Offers that the server made.
    pub server_offers: u64,
    /// Offers of the server that crossed our own and were left for it to roll back.
    pub crossed_offers: u64,
    /// Answers of the server to our offers.
    pub server_answers: u64,
    /// Keyframe requests (PLI, FIR) for what we publish.
    pub keyframe_requests: u64,
    /// Labels of the data channels that opened, an own one included.
    pub data_channels: Vec<String>,
    /// Tracks that we receive, in order of appearance.
    pub tracks: Vec<ReceivedTrack>,
    /// Messages of the server by type.
    pub message_counts: BTreeMap<String, u64>,
    /// The latest whole messages `(type, data)`, oldest first.
    pub messages: VecDeque<(String, Value)>,
    /// The socket is gone; nothing will change any more.
    pub closed: bool,
}

/// One track that arrives, and what came of it.
#[derive(Clone, Debug)]
pub struct ReceivedTrack {
    /// Audio or video.
    pub kind: MediaKind,
    /// The publisher's stream id.
    pub stream_id: String,
    /// The track id in the server's SDP.
    pub track_id: String,
    /// Synchronisation source.
    pub ssrc: u32,
    /// E.g. `video/H264`; empty when the crate does not know.
    pub codec: String,
    /// RTP packets.
    pub packets: u64,
    /// RTP payload bytes.
    pub bytes: u64,
    /// Packets with the marker bit: for video, complete pictures.
    pub frames: u64,
    /// H.264 packets that begin a keyframe (an SPS, or an IDR slice's first packet).
    pub keyframes: u64,
    /// Sequence numbers that were skipped and never came, at most.
    pub gaps: u64,
    /// The track has ended.
    pub ended: bool,
}

impl Observed {
    /// Messages of type `kind` so far.
    pub fn count(&self, kind: &str) -> u64 {
        self.message_counts.get(kind).copied().unwrap_or(0)
    }

    /// The data of the latest message of type `kind` that is still kept.
    pub fn last(&self, kind: &str) -> Option<&Value> {
        self.messages
            .iter()
            .rev()
            .find(|(k, _)| k == kind)
            .map(|(_, data)| data)
    }

    /// Received tracks of one kind.
    pub fn tracks_of(&self, kind: MediaKind) -> impl Iterator<Item = &ReceivedTrack> {
        self.tracks.iter().filter(move |t| t.kind == kind)
    }

    /// Packets of all tracks of one kind.
    pub fn packets_of(&self, kind: MediaKind) -> u64 {
        self.tracks_of(kind).map(|t| t.packets).sum()
    }

    pub(super) fn record(&mut self, kind: &str, data: Value) {
        if let Some(count) = self.message_counts.get_mut(kind) {
            *count += 1;
        } else if self.message_counts.len() < KEPT_TYPES {
            self.message_counts.insert(kind.to_owned(), 1);
        }
        if self.messages.len() == KEPT_MESSAGES {
            self.messages.pop_front();
        }
        self.messages.push_back((kind.to_owned(), data));
    }
}

impl ReceivedTrack {
    pub(super) fn new(kind: MediaKind, stream_id: String, track_id: String) -> Self {
        ReceivedTrack {
            kind,
            stream_id,
            track_id,
            ssrc: 0,
            codec: String::new(),
            packets: 0,
            bytes: 0,
            frames: 0,
            keyframes: 0,
            gaps: 0,
            ended: false,
        }
    }

    /// Counts one packet. `expected` is the sequence number after the highest one seen.
    pub(super) fn record(&mut self, packet: &rtc::rtp::Packet, expected: &mut Option<u16>) {
        self.packets += 1;
        self.bytes += packet.payload.len() as u64;
        self.frames += u64::from(packet.header.marker);
        if self.codec.eq_ignore_ascii_case("video/H264") && begins_keyframe(&packet.payload) {
            self.keyframes += 1;
        }
        let seq = packet.header.sequence_number;
        match expected.map(|e| seq.wrapping_sub(e)) {
            // Late or repeated: it fills a gap at most.
            Some(ahead) if ahead >= 0x8000 => self.gaps = self.gaps.saturating_sub(1),
            ahead => {
                self.gaps += u64::from(ahead.unwrap_or(0));
                *expected = Some(seq.wrapping_add(1));
            }
        }
    }
}

/// Whether an H.264 payload (RFC 6184, 5) starts a keyframe: it holds an SPS, or the start of an IDR slice without one.
fn begins_keyframe(payload: &[u8]) -> bool {
    const SPS: u8 = 7;
    const STAP_A: u8 = 24;
    match payload.first().map(|b| b & 31) {
        Some(SPS) => true,
        // Aggregates begin with a 16 bit size, then the unit itself (RFC 6184, 5.7.1).
        Some(STAP_A) => payload.get(3).is_some_and(|b| b & 31 == SPS),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn packet(seq: u16, payload: &'static [u8]) -> rtc::rtp::Packet {
        let mut packet = rtc::rtp::Packet::default();
        packet.header.sequence_number = seq;
        packet.payload = payload.into();
        packet
    }

    #[test]
    fn gaps_count_what_never_came_across_the_wrap() {
        let mut track = ReceivedTrack::new(MediaKind::Video, "s".into(), "t".into());
        let mut expected = None;
        for seq in [65_533, 65_535, 1, 0, 2] {
            track.record(&packet(seq, b"x"), &mut expected);
        }
        // 65534 is missing, 0 came late.
        assert_eq!((track.packets, track.gaps), (5, 1));
    }

    #[test]
    fn a_keyframe_is_counted_once_at_its_parameter_sets() {
        assert!(begins_keyframe(&[0x67, 1, 2]));
        assert!(begins_keyframe(&[0x78, 0, 3, 0x67, 1, 2]));
        assert!(!begins_keyframe(&[0x7c, 0x85]));
        for broken in [&[][..], &[0x78], &[0x78, 0, 1]] {
            assert!(!begins_keyframe(broken));
        }
    }

    #[test]
    fn messages_are_counted_for_ever_and_kept_for_a_while() {
        let mut observed = Observed::default();
        for i in 0..1000 {
            observed.record("mode", json!(i));
        }
        for i in 0..100 {
            observed.record(&format!("odd{i}"), Value::Null);
        }
        assert_eq!(observed.count("mode"), 1000);
        assert_eq!(observed.last("mode"), Some(&json!(999)));
        assert!(observed.messages.len() <= KEPT_MESSAGES);
        assert!(observed.message_counts.len() <= KEPT_TYPES);
    }
}
