//! What a room tells one of its members, free of the wire's form.

use std::sync::Arc;

use crate::ids::PeerId;
use crate::room::snapshot::PeerSnapshot;
use crate::rtp::params::MediaKind;
use crate::worker::{Delivery, MixedLayout, Renegotiation, SourceType, VoiceReport};

/// A published track of another member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AvailableTrack {
    /// Its publisher.
    pub client_id: PeerId,
    /// The publisher's display name.
    pub client_name: String,
    /// Track id of the publisher's msid.
    pub track_id: String,
    /// Stream id of the publisher's msid.
    pub stream_id: String,
    /// Camera or screen.
    pub source: SourceType,
    /// Audio or video.
    pub kind: MediaKind,
    /// Whether the publisher sends it in several layers.
    pub is_simulcast: bool,
}

/// A track that sits on an m-line of the member now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveredTrack {
    /// The m-line's tag.
    pub mid: String,
    /// The publisher; `None` for the mixer's tracks.
    pub client_id: Option<PeerId>,
    /// Track id of the publisher's msid; `None` for the mixer's tracks.
    pub track_id: Option<String>,
    /// Stream id of the publisher's msid; `None` for the mixer's tracks.
    pub stream_id: Option<String>,
}

/// One line of `room_peers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerSummary {
    /// Who.
    pub client_id: PeerId,
    /// Display name.
    pub name: String,
    /// Speaks now.
    pub speaking: bool,
    /// Publishes sound and has muted all of it.
    pub muted: bool,
}

/// Why the delivery is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModeReason {
    /// The client asked for it.
    Requested,
}

/// From a room to one member. The first is always [`Notice::Welcome`].
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// The member is in.
    Welcome {
        /// Its display name.
        name: String,
        /// How it receives.
        delivery: Delivery,
    },
    /// The answer to the client's offer.
    Answer(String),
    /// The server's own offer.
    Offer(String),
    /// A candidate of the server.
    Candidate {
        /// `candidate:…`.
        candidate: String,
        /// Tag of its m-line.
        mid: String,
        /// Index of that m-line.
        mline_index: u16,
    },
    /// Ids of the member's own tracks that have arrived.
    TracksAdded(Vec<String>),
    /// Tracks of others that can be subscribed to. No two share a track id.
    TracksAvailable(Vec<AvailableTrack>),
    /// Whether the client may offer.
    Renegotiation(Renegotiation),
    /// A track sits on an m-line now.
    Delivered(DeliveredTrack),
    /// How the member receives from now on.
    Mode {
        /// The delivery.
        delivery: Delivery,
        /// Why.
        reason: ModeReason,
    },
    /// Everybody in the room.
    Peers(Arc<[PeerSummary]>),
    /// Another dominant speaker; `None`: the last one has left.
    ActiveSpeaker(Option<PeerId>),
    /// Another member began or stopped speaking.
    Voice(Arc<VoiceReport>),
    /// The tiles of the mixed picture.
    Layout(MixedLayout),
    /// Another layer of a track is forwarded to the member than before, or none.
    BitrateAdjusted {
        /// Track id of the publisher's msid.
        track_id: String,
        /// Bit/s; 0: paused.
        bitrate: u64,
    },
    /// The member's link became good or bad.
    NetworkCondition {
        /// Good?
        stable: bool,
    },
    /// A line of text.
    Chat {
        /// Who wrote it.
        from: PeerId,
        /// The text.
        text: String,
        /// When, milliseconds of the Unix epoch.
        at: u64,
    },
    /// The member's own figures.
    Stats(Box<PeerSnapshot>),
    /// A request that could not be carried out: one sentence.
    Error(String),
}
