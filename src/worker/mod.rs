//! The media thread: one UDP port and its peers' TCP connections, the transports of its peers, the forwarding of its rooms.
//!
//! A room lives on one worker. The room's actor sends [`Command`]s and hears [`Event`]s; nothing else is shared.
//! Packets never leave this thread between their arrival and their last departure.

mod acceptor;
mod allowance;
mod bandwidth;
mod coalescing;
mod control;
mod delivery;
mod demux;
mod figures;
mod load;
mod mixed;
mod moved;
mod network;
mod rungs;
mod session;
mod shares;
mod socket;
mod speaking;
mod start;
mod state;
mod streams;
mod tcp;
mod thread;
mod timers;
mod upkeep;
mod voices;

pub use crate::mcu::bus::{LayoutTile, MixedLayout};
pub use crate::mcu::ladder::Shape;
pub use crate::mcu::video::LayoutWish;
pub use crate::rtp::params::SourceType;
pub use crate::sfu::{Layer, PublishedTrack, Target};
pub use acceptor::{Acceptor, AcceptorCounters, Directory, Incoming, listen};
pub use figures::{WorkerFigures, mixed_track_id};
pub use load::Load;
pub use network::is_missing_family;
pub use speaking::{HOLD as SPEAKING_HOLD, VoicePacket};
pub use start::{Media, MediaConfig, StartError, start_all};
pub use talksy_mixer::video::Avatar;
pub use talksy_mixer::video::layout::Kind as LayoutKind;
pub use tcp::canonical;
pub use thread::{WorkerConfig, start as start_worker};
pub use voices::VoiceReport;

use std::sync::Arc;
use std::time::Duration;

use crate::ids::{PeerId, RoomKey, TrackKey};
use crate::rtp::params::MediaKind;

/// How a peer receives its room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// SFU: every subscribed track of the others, as it came.
    Forward,
    /// SFU with one sound: every subscribed picture as it came, and one mixed audio track.
    MixedAudio,
    /// MCU: one mixed audio and one composited video track.
    Mixed,
}

impl Delivery {
    /// Whether the others' tracks of this kind come as they are; otherwise one mixed track comes in their place.
    pub fn forwards(self, kind: MediaKind) -> bool {
        match self {
            Delivery::Forward => true,
            Delivery::MixedAudio => kind == MediaKind::Video,
            Delivery::Mixed => false,
        }
    }
}

/// How much of a large room each forwarded client gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VoiceLimits {
    /// Sounds that are forwarded at one time: the loudest. `None`: all.
    pub audio: Option<usize>,
    /// Cameras that are forwarded at one time: of those who spoke last. Screens are forwarded besides. `None`: all.
    pub video: Option<usize>,
}

/// What a peer is when it enters a worker.
#[derive(Clone, Debug)]
pub struct PeerParams {
    /// Shown in the mixed picture.
    pub name: String,
    /// How it wants to receive.
    pub delivery: Delivery,
    /// Whether a first offer of the client is awaited before the server may offer. False for `publish=0`, and
    /// for `mode=mcu` without publishing.
    pub client_offers_first: bool,
    /// Upper bound of what it wants to receive, bit/s. Chooses the mixed rung.
    pub max_receive_bps: Option<u64>,
    /// How its mixed canvas lies; `None`: as the element that shows it, which it tells.
    pub canvas: Option<Shape>,
}

/// From a room's actor to its worker. Commands for a peer that is gone are ignored.
#[derive(Debug)]
pub enum Command {
    /// Opens a room; its events go to `events`. Comes before any of its peers.
    OpenRoom {
        /// Which room.
        room: RoomKey,
        /// Where [`Event`]s of this room go.
        events: EventSender,
        /// How much of it is forwarded.
        voices: VoiceLimits,
    },
    /// The room is gone, with all of its peers.
    CloseRoom {
        /// Which room.
        room: RoomKey,
    },
    /// A peer enters.
    AddPeer {
        /// Which room.
        room: RoomKey,
        /// Who.
        peer: PeerId,
        /// How.
        params: PeerParams,
    },
    /// A peer leaves; its tracks end with it.
    RemovePeer {
        /// Who.
        peer: PeerId,
    },
    /// The client's SDP offer. Answered by [`Event::Answer`] or [`Event::Failed`].
    Offer {
        /// Who.
        peer: PeerId,
        /// The session description.
        sdp: String,
    },
    /// The client's SDP answer.
    Answer {
        /// Who.
        peer: PeerId,
        /// The session description.
        sdp: String,
    },
    /// A trickled ICE candidate (the value of an `a=candidate` line); an empty one ends the candidates.
    Candidate {
        /// Who.
        peer: PeerId,
        /// `candidate:…`, with or without that prefix.
        candidate: String,
    },
    /// The client asks whether it may offer. Answered by [`Event::RenegotiationReply`].
    AskRenegotiation {
        /// Who.
        peer: PeerId,
    },
    /// Forward these tracks to this peer. Tracks it already has are left alone. Only of
    /// kinds that its [`Delivery`] forwards.
    Subscribe {
        /// Who.
        peer: PeerId,
        /// What.
        tracks: Vec<TrackKey>,
    },
    /// Changes how the peer receives. Forwarded tracks of a kind that comes mixed now end; where a kind is forwarded
    /// again its mixed track ends, and the room subscribes anew. What comes as before goes on.
    SetDelivery {
        /// Who.
        peer: PeerId,
        /// How.
        delivery: Delivery,
    },
    /// Bit/s that the peer wants to receive at most; `None` takes the limit away.
    SetReceiveLimit {
        /// Who.
        peer: PeerId,
        /// Bit/s.
        bps: Option<u64>,
    },
    /// The peer shows a track in an element of this size.
    SetVideoSize {
        /// Who.
        peer: PeerId,
        /// Which track.
        track: TrackKey,
        /// Pixels; 0 is off screen.
        width: u32,
        /// Pixels; 0 is off screen.
        height: u32,
    },
    /// The peer shows the mixed picture in an element of this size.
    SetPictureSize {
        /// Who.
        peer: PeerId,
        /// Pixels; 0 is off screen.
        width: u32,
        /// Pixels; 0 is off screen.
        height: u32,
    },
    /// Bit/s that the peer may send at most; `None` takes the limit away.
    SetPublishLimit {
        /// Who.
        peer: PeerId,
        /// Bit/s.
        bps: Option<u64>,
    },
    /// What a peer gets of every forwarded picture, from now on.
    SetTarget {
        /// Who.
        peer: PeerId,
        /// Up to which layer, or nothing.
        target: Target,
    },
    /// What a track shows.
    SetSource {
        /// Which track.
        track: TrackKey,
        /// Camera or screen.
        source: SourceType,
    },
    /// The publisher muted or unmuted a track: no packets of it are forwarded or mixed while muted.
    SetMuted {
        /// Which track.
        track: TrackKey,
        /// Muted?
        muted: bool,
    },
    /// Makes an offer with new ICE credentials, because nothing is heard of the client any more. The association,
    /// its keys and all m-lines stay.
    RestartIce {
        /// Who.
        peer: PeerId,
    },
    /// The client has a new socket and may have missed what was said on the old one: an offer that is out and the
    /// layout are told once more.
    Restate {
        /// Who.
        peer: PeerId,
    },
    /// The client has disappeared: what it publishes ends for the others. A track is published anew, under its old
    /// key, with its next packet.
    Suspend {
        /// Who.
        peer: PeerId,
    },
    /// What is on the peer's card in the mixed picture, in place of its initials.
    SetAvatar {
        /// Whose.
        peer: PeerId,
        /// `None`: initials again.
        avatar: Option<Arc<Avatar>>,
    },
    /// How the room's mixed picture is divided. All who receive it are told by [`Event::Layout`], also where it
    /// was so before.
    SetLayout {
        /// Which room.
        room: RoomKey,
        /// How.
        wish: LayoutWish,
    },
    /// Text for the peer's data channel `internal`; dropped while it is not open.
    SendText {
        /// Who.
        peer: PeerId,
        /// JSON text.
        text: String,
    },
    /// Of no room: a TCP connection whose first request names a peer of this worker.
    Connect(Box<Incoming>),
    /// Of no room: what the worker did so far, for whoever prints it.
    Figures {
        /// Dropped unanswered by a worker that has ended.
        reply: tokio::sync::oneshot::Sender<Box<WorkerFigures>>,
    },
}

/// A bounded queue into a room's actor.
pub type EventSender = tokio::sync::mpsc::Sender<Event>;

/// The answer to "may I offer?".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renegotiation {
    /// Yes: the server does not offer until the client's offer is answered (10 s at most).
    Allowed,
    /// No: an offer of the server is out.
    Refused,
    /// Pushed later to a client that was refused: now it may.
    Settled,
}

/// From a worker to the room's actor.
#[derive(Clone, Debug)]
pub enum Event {
    /// The reply to the peer's offer.
    Answer {
        /// To whom.
        peer: PeerId,
        /// The session description.
        sdp: String,
    },
    /// The server's own offer.
    Offer {
        /// To whom.
        peer: PeerId,
        /// The session description.
        sdp: String,
    },
    /// A trickled candidate of the server.
    Candidate {
        /// To whom.
        peer: PeerId,
        /// `candidate:…`.
        candidate: String,
        /// Its m-line.
        mid: String,
        /// Index of that m-line.
        mline_index: u16,
    },
    /// See [`Renegotiation`].
    RenegotiationReply {
        /// To whom.
        peer: PeerId,
        /// The reply.
        reply: Renegotiation,
    },
    /// ICE and DTLS are up for the first time: media flows both ways.
    Connected {
        /// Who.
        peer: PeerId,
    },
    /// Nothing was heard of the peer's transport for [`MEDIA_SILENCE`]: no media, no answer to a check.
    MediaSilent {
        /// Who.
        peer: PeerId,
    },
    /// It was heard again after [`Event::MediaSilent`].
    MediaHeard {
        /// Who.
        peer: PeerId,
    },
    /// The transport is gone for good (closed, failed, timed out), and the peer with it. The room keeps its
    /// membership: with the client's next offer it adds the peer anew.
    Disconnected {
        /// Who.
        peer: PeerId,
        /// A sentence for the log.
        reason: String,
    },
    /// First packet of a published track.
    TrackPublished {
        /// Whose.
        peer: PeerId,
        /// What.
        track: PublishedTrack,
    },
    /// A published track has ended.
    TrackEnded {
        /// Whose.
        peer: PeerId,
        /// What.
        track: TrackKey,
    },
    /// A forwarded (or mixed) track sits on an m-line of this peer now.
    Delivered {
        /// To whom.
        peer: PeerId,
        /// What.
        track: TrackKey,
        /// On which m-line.
        mid: String,
    },
    /// A message of the data channel `internal`.
    ChannelText {
        /// From whom.
        peer: PeerId,
        /// At most 64 KiB; longer ones are dropped and counted.
        text: String,
    },
    /// Began or stopped speaking (RFC 6464 levels; decoded voice where the mixer runs).
    Speaking {
        /// Who.
        peer: PeerId,
        /// Speaks now?
        speaking: bool,
    },
    /// The room has another dominant speaker. Where nobody speaks, the last one stays.
    ActiveSpeaker {
        /// Who.
        peer: PeerId,
    },
    /// As [`Event::Speaking`], with the packets that showed it; only where the client's packets tell their level.
    Voice {
        /// Whose.
        peer: PeerId,
        /// What was heard.
        report: std::sync::Arc<VoiceReport>,
    },
    /// The tiles of the picture that this peer receives; sent on change and to every new listener.
    Layout {
        /// To whom.
        peer: PeerId,
        /// Who is where.
        layout: MixedLayout,
    },
    /// Another layer of a track is forwarded to this peer than before, or none.
    BitrateAdjusted {
        /// To whom.
        peer: PeerId,
        /// What.
        track: TrackKey,
        /// Bit/s of payload; 0: paused.
        bitrate: u64,
    },
    /// Another rung of the mixed picture is sent to this peer than before, or none.
    PictureAdjusted {
        /// To whom.
        peer: PeerId,
        /// Bit/s of payload; 0: paused.
        bitrate: u64,
    },
    /// The link to a peer became good or bad.
    NetworkCondition {
        /// Whose.
        peer: PeerId,
        /// Everything that it wants fits, without loss or delay.
        stable: bool,
    },
    /// The figures of one peer, once a second while it has a connection.
    Stats {
        /// Whose.
        peer: PeerId,
        /// The figures.
        stats: Box<crate::stats::PeerStats>,
    },
    /// Something that the client asked for could not be done: a sentence for its `error` message.
    Failed {
        /// To whom.
        peer: PeerId,
        /// What happened and what to do.
        message: String,
    },
}

/// Silence until [`Event::MediaSilent`].
pub const MEDIA_SILENCE: Duration = Duration::from_secs(5);

/// How often a connected peer's figures go to its room.
pub const STATS_INTERVAL: Duration = Duration::from_secs(1);

/// The worker's thread has ended, or its queue of [`COMMAND_QUEUE`] commands is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the media worker does not take commands: it is overloaded or has stopped")]
pub struct WorkerBusy;

/// Rooms → one worker. When it is full the sender is refused, and the room tells its client so.
pub const COMMAND_QUEUE: usize = 4096;

/// The way into a worker's thread. Cheap to clone.
#[derive(Clone)]
pub struct WorkerHandle {
    commands: crossbeam_channel::Sender<Command>,
    wake: std::sync::Arc<dyn Fn() + Send + Sync>,
    load: std::sync::Arc<Load>,
}

impl WorkerHandle {
    /// A handle whose worker reads `commands` and is woken by `wake` after each.
    pub fn new(
        commands: crossbeam_channel::Sender<Command>,
        wake: std::sync::Arc<dyn Fn() + Send + Sync>,
    ) -> Self {
        WorkerHandle {
            commands,
            wake,
            load: Default::default(),
        }
    }

    /// The same handle, which tells the load that the worker notes here.
    pub fn with_load(self, load: std::sync::Arc<Load>) -> Self {
        WorkerHandle { load, ..self }
    }

    /// How busy the worker is.
    pub fn load(&self) -> &Load {
        &self.load
    }

    /// Queues a command; never blocks.
    pub fn send(&self, command: Command) -> Result<(), WorkerBusy> {
        self.offer(command).map_err(|(_, busy)| busy)
    }

    /// As [`WorkerHandle::send`], but gives a refused command back, to be sent again in its order.
    pub fn offer(&self, command: Command) -> Result<(), (Command, WorkerBusy)> {
        self.commands
            .try_send(command)
            .map_err(|refused| (refused.into_inner(), WorkerBusy))?;
        (self.wake)();
        Ok(())
    }
}
