//! What a room knows of a member and of its tracks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::presence::Presence;
use crate::ids::{PeerId, TrackKey};
use crate::room::snapshot::PeerSnapshot;
use crate::room::{AudioMode, JoinRequest};
use crate::stats::PeerStats;
use crate::worker::{Delivery, PeerParams, PublishedTrack, Shape, SourceType, Target};

#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) delivery: Delivery,
    /// What it wants while it is forwarded.
    pub(super) audio: AudioMode,
    pub(super) max_receive_bps: Option<u64>,
    pub(super) canvas: Option<Shape>,
    pub(super) link: Link,
    /// Own tracks, in order of arrival: at most the limit.
    pub(super) published: Vec<TrackKey>,
    pub(super) subscribed: BTreeSet<TrackKey>,
    pub(super) presence: Presence,
    /// What sits on which m-line, by its tag, while the track is there.
    pub(super) delivered: BTreeMap<String, TrackKey>,
    pub(super) voice: Voice,
    pub(super) publisher_bandwidth: u64,
    pub(super) max_publish_bps: Option<u64>,
    pub(super) target: Target,
    pub(super) publish_limitation: String,
    pub(super) stats: PeerStats,
}

/// A member's media transport, as far as the room cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// The worker knows it; nothing is connected yet.
    Waiting,
    /// Media flows.
    Connected,
    /// It is gone for good and the worker has forgotten it; the client's next offer begins anew.
    Lost,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Voice {
    Silent { spoken: Duration },
    Speaking { spoken: Duration, since: Instant },
}

#[derive(Debug)]
pub(super) struct Track {
    pub(super) published: PublishedTrack,
    pub(super) owner: PeerId,
    pub(super) typing: Typing,
    pub(super) muted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Typing {
    /// The client may still say what it is; others are not told of it.
    Awaited { until: Instant },
    /// Others may have it.
    Known(SourceType),
}

impl Member {
    pub(super) fn new(name: String, delivery: Delivery, request: &JoinRequest) -> Self {
        Member {
            name,
            delivery,
            audio: request.audio,
            max_receive_bps: request.max_receive_bps,
            canvas: request.canvas,
            link: Link::Waiting,
            published: Vec::new(),
            subscribed: BTreeSet::new(),
            presence: Presence::default(),
            delivered: BTreeMap::new(),
            voice: Voice::Silent {
                spoken: Duration::ZERO,
            },
            publisher_bandwidth: 0,
            max_publish_bps: None,
            target: Target::BEST,
            publish_limitation: "none".into(),
            stats: PeerStats::default(),
        }
    }

    pub(super) fn params(&self, client_offers_first: bool) -> PeerParams {
        PeerParams {
            name: self.name.clone(),
            delivery: self.delivery,
            client_offers_first,
            max_receive_bps: self.max_receive_bps,
            canvas: self.canvas,
        }
    }

    pub(super) fn snapshot(&self, id: PeerId, now: Instant) -> PeerSnapshot {
        PeerSnapshot {
            id,
            name: self.name.clone(),
            connected: self.link == Link::Connected,
            publisher_bandwidth: match (self.publisher_bandwidth, self.max_publish_bps) {
                (0, limit) => limit.unwrap_or(0),
                (told, limit) => told.min(limit.unwrap_or(told)),
            },
            consumer_bandwidth: self
                .stats
                .estimate_bps
                .or(self.max_receive_bps)
                .unwrap_or(0),
            publish_limitation: self.publish_limitation.clone(),
            voice_activity: self.voice.total(now),
            stats: self.stats.clone(),
        }
    }
}

impl Typing {
    pub(super) fn deadline(self) -> Option<Instant> {
        match self {
            Typing::Awaited { until } => Some(until),
            Typing::Known(_) => None,
        }
    }
}

impl Voice {
    pub(super) fn is_speaking(self) -> bool {
        matches!(self, Voice::Speaking { .. })
    }

    pub(super) fn total(self, now: Instant) -> Duration {
        match self {
            Voice::Silent { spoken } => spoken,
            Voice::Speaking { spoken, since } => spoken + now.saturating_duration_since(since),
        }
    }

    /// It fell silent `hold` ago.
    pub(super) fn ended(self, now: Instant, hold: Duration) -> Self {
        let spoken = match self {
            Voice::Silent { spoken } => spoken,
            Voice::Speaking { spoken, since } => {
                spoken + now.saturating_duration_since(since).saturating_sub(hold)
            }
        };
        Voice::Silent { spoken }
    }

    pub(super) fn changed(self, now: Instant, speaking: bool) -> Self {
        let spoken = self.total(now);
        if speaking {
            Voice::Speaking { spoken, since: now }
        } else {
            Voice::Silent { spoken }
        }
    }
}
