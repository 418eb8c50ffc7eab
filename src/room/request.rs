//! What a client asks of its room, free of the wire's form.

use std::sync::Arc;
use std::time::Instant;

use crate::ids::PeerId;
use crate::room::channel::ChannelReport;
use crate::worker::{Avatar, Delivery, Layer, LayoutKind, Shape, SourceType, Target};

/// How a client enters a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// Display name, already trimmed and bounded; `None` gets a name of the room's making.
    pub name: Option<String>,
    /// How it wants to receive.
    pub mode: Mode,
    /// How it wants to hear the others where they are forwarded.
    pub audio: AudioMode,
    /// False for a view-only client: the server makes the first offer.
    pub publish: bool,
    /// Upper bound of what it wants to receive, bit/s.
    pub max_receive_bps: Option<u64>,
    /// How its mixed canvas lies; `None`: as the element that shows it.
    pub canvas: Option<Shape>,
}

/// The wire's `mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// Every track of the others, forwarded.
    #[default]
    Sfu,
    /// One mixed pair.
    Mcu,
    /// The server chooses. Not available yet: the room says so and leaves the delivery as it is.
    Auto,
}

/// The wire's `audio`: how the others' sound comes in [`Mode::Sfu`]. In [`Mode::Mcu`] it comes mixed anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AudioMode {
    /// Every track by itself.
    #[default]
    Forwarded,
    /// One mixed track.
    Mixed,
}

impl Mode {
    /// The delivery that was asked for; `None` where the server would have to choose.
    pub fn delivery(self, audio: AudioMode) -> Option<Delivery> {
        match (self, audio) {
            (Mode::Sfu, AudioMode::Forwarded) => Some(Delivery::Forward),
            (Mode::Sfu, AudioMode::Mixed) => Some(Delivery::MixedAudio),
            (Mode::Mcu, _) => Some(Delivery::Mixed),
            (Mode::Auto, _) => None,
        }
    }
}

/// A step of `switch_quality`: spatial layer and, in the finer names, temporal layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quality {
    /// No video at all.
    None,
    /// A spatial layer, and the temporal one where the client named it. 0 is the lowest of three.
    Layer {
        /// Spatial layer.
        spatial: u8,
        /// Temporal layer; `None`: the highest.
        temporal: Option<u8>,
    },
}

impl From<Quality> for Target {
    fn from(quality: Quality) -> Self {
        match quality {
            Quality::None => Target::Paused,
            Quality::Layer { spatial, temporal } => Target::UpTo {
                layer: Layer(spatial),
                temporal: temporal.unwrap_or(u8::MAX),
            },
        }
    }
}

/// How the room's mixed picture should be divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutRequest {
    /// The kind of picture.
    pub kind: LayoutKind,
    /// Client id of who is to be large, unchecked; only for [`LayoutKind::Pinned`].
    pub pinned: Option<String>,
}

/// A layout that the room cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Nobody was named.
    #[error("layout: pinned needs the client id of who is to be large, as \"pinned\"")]
    NobodyPinned,
    /// Nobody in the room has this id.
    #[error("layout: there is no client {0} in this room to be pinned")]
    Unknown(String),
    /// They only watch.
    #[error("layout: client {0} publishes nothing that could be shown large")]
    PublishesNothing(PeerId),
}

/// A published track, as subscribers name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackRef {
    /// The publisher's client id, unchecked.
    pub client_id: String,
    /// The track id of the publisher's msid.
    pub track_id: String,
}

/// A request of a member to its room.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// The client's session description, to be answered.
    Offer(String),
    /// The client's answer to the server's offer.
    Answer(String),
    /// A trickled candidate; empty: there are no more.
    Candidate(String),
    /// What the client's own tracks show, by track id.
    TrackTypes(Vec<(String, SourceType)>),
    /// Tracks of others to be forwarded.
    Subscribe(Vec<TrackRef>),
    /// May the client offer now?
    AskRenegotiation,
    /// Change the delivery mid-call.
    SwitchMode(Mode),
    /// Change how the others' sound comes, mid-call.
    SwitchAudio(AudioMode),
    /// Which picture the mixer should draw.
    Layout(LayoutRequest),
    /// A picture for the client's card in the mixed picture; `None`: its initials.
    Avatar(Option<Arc<Avatar>>),
    /// Silence or release one of the client's own tracks.
    Mute {
        /// Track id of the publisher's msid.
        track_id: String,
        /// Muted?
        muted: bool,
    },
    /// A line of text for the room.
    Chat {
        /// The text, bounded.
        text: String,
        /// When it came, milliseconds of the Unix epoch.
        at: u64,
    },
    /// Bit/s to receive at most; `None` takes the limit away.
    ReceiveLimit(Option<u64>),
    /// Bit/s that the client says it may send.
    PublishBandwidth(u64),
    /// Which layer to receive.
    SwitchQuality(Quality),
    /// A report over the data channel `internal`.
    Report(ChannelReport),
    /// Not the client's own words: its socket broke, and may be resumed.
    SocketLost {
        /// When something came over it last.
        heard: Instant,
    },
    /// Not the client's own words: it has a new socket.
    SocketBack {
        /// It may have missed anything: it is told what holds now.
        restate: bool,
    },
}
