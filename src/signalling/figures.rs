//! The wire's form of figures: `track_stats` and `/stats`, with the keys that the old clients read.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::room::snapshot::{PeerSnapshot, RoomSnapshot};
use crate::rtp::params::MediaKind;
use crate::signalling::protocol::source_name;
use crate::stats::{ReceivedTrackStats, SentTrackStats};

/// One client's figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClientFigures {
    id: String,
    name: String,
    /// Bit/s that the client can send by its own estimate, and not more than it may; 0: neither is known.
    publisher_bandwidth: u64,
    /// Bit/s that the client can be sent: the estimate of its link, and its own limit; 0: neither is known.
    consumer_bandwidth: u64,
    /// Bit/s that the server sends to it now.
    current_bitrate: u64,
    current_publish_limitation: String,
    voice_activity_duration_ms: u64,
    sent_track_stats: Vec<SentFigures>,
    received_track_stats: Vec<ReceivedFigures>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct SentFigures {
    id: String,
    stream_id: String,
    kind: &'static str,
    codec: String,
    packets_lost: u64,
    packets_sent: u64,
    fraction_lost: f32,
    bytes_sent: u64,
    current_bitrate: u64,
    source: &'static str,
    quality: &'static str,
    max_quality: &'static str,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct ReceivedFigures {
    id: String,
    stream_id: String,
    rid: String,
    kind: &'static str,
    codec: String,
    current_bitrate: u64,
    packets_lost: u64,
    packets_received: u64,
    bytes_received: u64,
}

/// One room's figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RoomFigures {
    /// Clients with a media connection.
    active_sessions: usize,
    clients_count: usize,
    bitrate_sent: u64,
    bitrate_received: u64,
    bytes_ingress: u64,
    bytes_egress: u64,
    received_tracks: TrackCounts,
    sent_tracks: TrackCounts,
    /// Milliseconds of the Unix epoch.
    timestamp: u64,
    client_stats: BTreeMap<String, ClientFigures>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct TrackCounts {
    audio: usize,
    video: usize,
}

impl TrackCounts {
    fn of(kinds: impl Iterator<Item = MediaKind>) -> Self {
        let mut counts = TrackCounts::default();
        for kind in kinds {
            match kind {
                MediaKind::Audio => counts.audio += 1,
                MediaKind::Video => counts.video += 1,
            }
        }
        counts
    }
}

impl From<&PeerSnapshot> for ClientFigures {
    fn from(peer: &PeerSnapshot) -> Self {
        ClientFigures {
            id: peer.id.to_string(),
            name: peer.name.clone(),
            publisher_bandwidth: peer.publisher_bandwidth,
            consumer_bandwidth: peer.consumer_bandwidth,
            current_bitrate: peer.stats.sent.iter().map(|t| t.bitrate).sum(),
            current_publish_limitation: peer.publish_limitation.clone(),
            voice_activity_duration_ms: peer.voice_activity.as_millis() as u64,
            sent_track_stats: peer.stats.sent.iter().map(SentFigures::from).collect(),
            received_track_stats: peer
                .stats
                .received
                .iter()
                .map(ReceivedFigures::from)
                .collect(),
        }
    }
}

/// The name of a layer, as `switch_quality` names them. A track's best layer is high where it has no other; with others
/// the three names are those of three layers.
fn quality(layer: Option<u8>, best: u8) -> &'static str {
    match (layer, best) {
        (None, _) => "none",
        (Some(_), 0) | (Some(2..), _) => "high",
        (Some(1), _) => "mid",
        (Some(0), _) => "low",
    }
}

impl From<&SentTrackStats> for SentFigures {
    fn from(track: &SentTrackStats) -> Self {
        SentFigures {
            id: track.track_id.clone(),
            stream_id: track.stream_id.clone(),
            kind: track.kind.as_str(),
            codec: mime(track.kind, track.codec.encoding_name()),
            packets_lost: track.packets_lost,
            packets_sent: track.packets_sent,
            fraction_lost: track.fraction_lost,
            bytes_sent: track.bytes_sent,
            current_bitrate: track.bitrate,
            source: source_name(track.source),
            quality: quality(track.layer, track.best_layer),
            max_quality: quality(Some(track.best_layer), track.best_layer),
        }
    }
}

impl From<&ReceivedTrackStats> for ReceivedFigures {
    fn from(track: &ReceivedTrackStats) -> Self {
        ReceivedFigures {
            id: track.track_id.clone(),
            stream_id: track.stream_id.clone(),
            rid: track.rid.clone(),
            kind: track.kind.as_str(),
            codec: mime(track.kind, track.codec.encoding_name()),
            current_bitrate: track.bitrate,
            packets_lost: track.packets_lost,
            packets_received: track.packets_received,
            bytes_received: track.bytes_received,
        }
    }
}

impl RoomFigures {
    /// `timestamp`: milliseconds of the Unix epoch.
    pub fn new(room: &RoomSnapshot, timestamp: u64) -> Self {
        let stats = || room.peers.iter().map(|p| &p.stats);
        let received = || stats().flat_map(|s| &s.received);
        let sent = || stats().flat_map(|s| &s.sent);
        RoomFigures {
            active_sessions: room.peers.iter().filter(|p| p.connected).count(),
            clients_count: room.peers.len(),
            bitrate_sent: sent().map(|t| t.bitrate).sum(),
            bitrate_received: received().map(|t| t.bitrate).sum(),
            bytes_ingress: stats().map(|s| s.bytes_ingress).sum(),
            bytes_egress: stats().map(|s| s.bytes_egress).sum(),
            received_tracks: TrackCounts::of(distinct(received()).map(|t| t.kind)),
            sent_tracks: TrackCounts::of(sent().map(|t| t.kind)),
            timestamp,
            client_stats: room
                .peers
                .iter()
                .map(|p| (p.id.to_string(), ClientFigures::from(p)))
                .collect(),
        }
    }
}

/// The layers of a track follow each other; they count as one.
fn distinct<'s>(
    received: impl Iterator<Item = &'s ReceivedTrackStats>,
) -> impl Iterator<Item = &'s ReceivedTrackStats> {
    let mut before = None;
    received.filter(move |stats| before.replace(stats.track) != Some(stats.track))
}

/// As WebRTC stats name codecs: `video/H264`.
fn mime(kind: MediaKind, encoding: &str) -> String {
    format!("{}/{encoding}", kind.as_str())
}

#[cfg(test)]
mod tests;
