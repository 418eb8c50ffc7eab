//! Figures that leave the media thread: what `/stats` and `track_stats` are made of.

use crate::ids::TrackKey;
use crate::rtp::params::{Codec, MediaKind, SourceType};

/// A track that a peer sends to us. Counters since the track began.
#[derive(Clone, Debug, PartialEq)]
pub struct ReceivedTrackStats {
    /// Which.
    pub track: TrackKey,
    /// The publisher's track id.
    pub track_id: String,
    /// The publisher's stream id.
    pub stream_id: String,
    /// Which layer, as the publisher calls it; empty where it has one only.
    pub rid: String,
    /// Audio or video.
    pub kind: MediaKind,
    /// Codec of its last packet.
    pub codec: Codec,
    /// Packets received, retransmissions that filled a gap included.
    pub packets_received: u64,
    /// Packets that never came (RFC 3550, A.3; not below 0).
    pub packets_lost: u64,
    /// Payload bytes received.
    pub bytes_received: u64,
    /// Bit/s over the last second.
    pub bitrate: u64,
    /// Interarrival jitter (RFC 3550, A.8) in milliseconds.
    pub jitter_ms: f32,
}

/// A track that we send to a peer.
#[derive(Clone, Debug, PartialEq)]
pub struct SentTrackStats {
    /// Which published (or mixed) track it carries.
    pub track: TrackKey,
    /// The publisher's track id.
    pub track_id: String,
    /// The publisher's stream id.
    pub stream_id: String,
    /// Audio or video.
    pub kind: MediaKind,
    /// Codec.
    pub codec: Codec,
    /// Packets sent, retransmissions not counted.
    pub packets_sent: u64,
    /// Cumulative loss that the receiver reported.
    pub packets_lost: u64,
    /// Fraction lost of the last report, 0 to 1.
    pub fraction_lost: f32,
    /// Payload bytes sent.
    pub bytes_sent: u64,
    /// Bit/s over the last second.
    pub bitrate: u64,
    /// Retransmissions sent.
    pub retransmitted: u64,
    /// Camera or screen.
    pub source: SourceType,
    /// The layer that flows, 0 the lowest; `None`: none does.
    pub layer: Option<u8>,
    /// The best layer that the publisher sends now.
    pub best_layer: u8,
}

/// One peer's figures.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeerStats {
    /// What it publishes.
    pub received: Vec<ReceivedTrackStats>,
    /// What it gets.
    pub sent: Vec<SentTrackStats>,
    /// All bytes from its address, any protocol.
    pub bytes_ingress: u64,
    /// All bytes to its address.
    pub bytes_egress: u64,
    /// Bit/s that may be sent to it, by the estimate of its link and its own limit; `None`: neither is known.
    pub estimate_bps: Option<u64>,
    /// Bit/s that it may send, as it was told; `None`: no limit.
    pub publish_limit_bps: Option<u64>,
    /// Round-trip time from reports, ms.
    pub round_trip_ms: Option<f32>,
}
