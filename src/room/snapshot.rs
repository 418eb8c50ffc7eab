//! A room's figures at one instant: what `/stats` and `track_stats` are written from.

use std::time::Duration;

use crate::ids::PeerId;
use crate::stats::PeerStats;

/// One member's figures.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerSnapshot {
    /// Who.
    pub id: PeerId,
    /// Display name.
    pub name: String,
    /// Has a connection now.
    pub connected: bool,
    /// Bit/s that the client can send by its own estimate, and not more than it may; 0: neither is known.
    pub publisher_bandwidth: u64,
    /// Bit/s that the client can be sent: the estimate of its link, and its own limit; 0: neither is known.
    pub consumer_bandwidth: u64,
    /// What holds the client's encoder back, in the words of WebRTC stats (`none`, `cpu`, `bandwidth`, `other`).
    pub publish_limitation: String,
    /// How long it has spoken since it joined.
    pub voice_activity: Duration,
    /// The worker's latest figures.
    pub stats: PeerStats,
}

/// A room and its members, in order of their ids.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoomSnapshot {
    /// Members.
    pub peers: Vec<PeerSnapshot>,
}
