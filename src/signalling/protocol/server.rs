//! Server to client.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

use super::{audio_name, mode_name, source_name};
use crate::ids::PeerId;
use crate::reach::IceServer;
use crate::room::{AvailableTrack, DeliveredTrack, ModeReason, Notice, PeerSummary};
use crate::signalling::figures::ClientFigures;
use crate::signalling::protocol::layout::layout_name;
use crate::worker::{self, Delivery, LayoutTile, MixedLayout, Renegotiation, VoiceReport};

/// A message of the server. `Serialize` writes the whole envelope.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerMessage {
    /// The first message of every socket.
    ClientId(PeerId),
    /// The second.
    Welcome(Welcome),
    /// The reply to the client's offer.
    Answer(String),
    /// The server's own offer.
    Offer(String),
    /// A trickled candidate of the server.
    Candidate {
        /// `candidate:…`.
        candidate: String,
        /// Tag of its m-line.
        mid: String,
        /// Index of that m-line.
        mline_index: u16,
    },
    /// Ids of the client's own tracks that have arrived.
    TracksAdded(Vec<String>),
    /// Tracks of others; no two of one track id.
    TracksAvailable(Vec<AvailableTrack>),
    /// Whether the client may offer.
    AllowRenegotiation(Renegotiation),
    /// Whether the client's link is stable.
    NetworkCondition {
        /// Stable?
        stable: bool,
    },
    /// The client's own figures.
    TrackStats(Box<ClientFigures>),
    /// A publisher's voice, in the form of the old server.
    VoiceDetected(VoiceDetected),
    /// The server changed what it forwards of a track.
    BitrateAdjusted {
        /// Which track.
        track_id: String,
        /// Bit/s.
        bitrate: u64,
    },
    /// Something that could not be carried out: one sentence.
    Error(String),
    /// How the client receives from now on.
    Mode {
        /// The delivery.
        delivery: Delivery,
        /// Why.
        reason: ModeReason,
    },
    /// Everybody in the room.
    RoomPeers(std::sync::Arc<[PeerSummary]>),
    /// Another dominant speaker.
    ActiveSpeaker {
        /// Who; `None`: the last one has left.
        client_id: Option<PeerId>,
    },
    /// On which m-line a track sits.
    Delivered(DeliveredTrack),
    /// The tiles of the mixed picture.
    Layout(MixedLayout),
    /// A line of text of the room.
    Chat {
        /// Who wrote it.
        from: PeerId,
        /// The text.
        text: String,
        /// When, milliseconds of the Unix epoch.
        at: u64,
    },
}

/// What a client is told of itself and the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Its id.
    pub client_id: PeerId,
    /// Where it is.
    pub room_id: String,
    /// Its display name.
    pub name: String,
    /// How it receives.
    pub delivery: Delivery,
    /// Ways to the server beside its candidates.
    pub ice_servers: Vec<IceServer>,
    /// How its signalling goes on after its socket breaks.
    pub resume: Resumption,
}

/// Where a client's signalling stands. Numbered messages are counted from 1, over all sockets of a stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resumption {
    /// By which it comes back; good once.
    pub token: Option<String>,
    /// This socket goes on with an earlier one's stay.
    pub resumed: bool,
    /// Number of the server's last message before those that follow.
    pub sent: u64,
    /// Messages of the client that were taken.
    pub received: u64,
}

/// The old server's voice activity object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VoiceDetected {
    /// The track's media stream.
    pub ssrc: u32,
    /// The publisher's track id.
    pub track_id: String,
    /// The publisher's stream id.
    pub stream_id: String,
    /// The packets that decided.
    pub packets: Vec<VoicePacket>,
}

/// One packet of a [`VoiceDetected`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VoicePacket {
    /// RTP sequence number.
    pub sequence_no: u16,
    /// RTP timestamp.
    pub timestamp: u32,
    /// RFC 6464 level: -dBov, 127 is silence.
    pub audio_level: u8,
    /// RFC 6464 voice flag.
    pub is_voice: bool,
}

impl From<&VoiceReport> for VoiceDetected {
    fn from(report: &VoiceReport) -> Self {
        let packet = |packet: &worker::VoicePacket| VoicePacket {
            sequence_no: packet.seq,
            timestamp: packet.timestamp,
            audio_level: packet.dbov,
            is_voice: packet.voice,
        };
        VoiceDetected {
            ssrc: report.ssrc.0,
            track_id: report.track_id.clone(),
            stream_id: report.stream_id.clone(),
            packets: report.packets.iter().map(packet).collect(),
        }
    }
}

impl ServerMessage {
    /// The message's text on the wire.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("its maps have text keys and its numbers are finite")
    }

    /// The form of a room's notice. `client_id` and `room_id` are those of the socket.
    pub fn from_notice(notice: Notice, client_id: PeerId, room_id: &str) -> Self {
        match notice {
            Notice::Welcome { name, delivery } => ServerMessage::Welcome(Welcome {
                client_id,
                room_id: room_id.to_owned(),
                name,
                delivery,
                ice_servers: Vec::new(),
                resume: Resumption::default(),
            }),
            Notice::Answer(sdp) => ServerMessage::Answer(sdp),
            Notice::Offer(sdp) => ServerMessage::Offer(sdp),
            Notice::Candidate {
                candidate,
                mid,
                mline_index,
            } => ServerMessage::Candidate {
                candidate,
                mid,
                mline_index,
            },
            Notice::TracksAdded(ids) => ServerMessage::TracksAdded(ids),
            Notice::TracksAvailable(tracks) => ServerMessage::TracksAvailable(tracks),
            Notice::Renegotiation(reply) => ServerMessage::AllowRenegotiation(reply),
            Notice::Delivered(track) => ServerMessage::Delivered(track),
            Notice::Mode { delivery, reason } => ServerMessage::Mode { delivery, reason },
            Notice::Peers(peers) => ServerMessage::RoomPeers(peers),
            Notice::Layout(layout) => ServerMessage::Layout(layout),
            Notice::BitrateAdjusted { track_id, bitrate } => {
                ServerMessage::BitrateAdjusted { track_id, bitrate }
            }
            Notice::NetworkCondition { stable } => ServerMessage::NetworkCondition { stable },
            Notice::ActiveSpeaker(client_id) => ServerMessage::ActiveSpeaker { client_id },
            Notice::Voice(report) => ServerMessage::VoiceDetected((&*report).into()),
            Notice::Chat { from, text, at } => ServerMessage::Chat { from, text, at },
            Notice::Stats(stats) => ServerMessage::TrackStats(Box::new((&*stats).into())),
            Notice::Error(text) => ServerMessage::Error(text),
        }
    }

    /// Whether it counts for a client that resumes: not what every socket begins with, nor figures, which the next
    /// ones replace.
    pub fn is_numbered(&self) -> bool {
        let unnumbered = matches!(
            self,
            ServerMessage::ClientId(_) | ServerMessage::Welcome(_) | ServerMessage::TrackStats(_)
        );
        !unnumbered
    }

    fn kind(&self) -> &'static str {
        match self {
            ServerMessage::ClientId(_) => "clientid",
            ServerMessage::Welcome(_) => "welcome",
            ServerMessage::Answer(_) => "answer",
            ServerMessage::Offer(_) => "offer",
            ServerMessage::Candidate { .. } => "candidate",
            ServerMessage::TracksAdded(_) => "tracks_added",
            ServerMessage::TracksAvailable(_) => "tracks_available",
            ServerMessage::AllowRenegotiation(_) => "allow_renegotiation",
            ServerMessage::NetworkCondition { .. } => "network_condition",
            ServerMessage::TrackStats(_) => "track_stats",
            ServerMessage::VoiceDetected(_) => "voice_detected",
            ServerMessage::BitrateAdjusted { .. } => "bitrate_adjusted",
            ServerMessage::Error(_) => "error",
            ServerMessage::Mode { .. } => "mode",
            ServerMessage::RoomPeers(_) => "room_peers",
            ServerMessage::ActiveSpeaker { .. } => "active_speaker",
            ServerMessage::Delivered(_) => "delivered",
            ServerMessage::Layout(_) => "layout",
            ServerMessage::Chat { .. } => "chat",
        }
    }
}

impl Serialize for ServerMessage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut envelope = serializer.serialize_struct("message", 3)?;
        let status = !matches!(self, ServerMessage::Error(_));
        envelope.serialize_field("status", &status)?;
        envelope.serialize_field("type", self.kind())?;
        envelope.serialize_field("data", &Data::from(self))?;
        envelope.end()
    }
}

/// The `data` of each message.
#[derive(Serialize)]
#[serde(untagged)]
enum Data<'a> {
    Text(String),
    Str(&'a str),
    Bool(bool),
    Number(u64),
    Welcome {
        client_id: String,
        room_id: &'a str,
        name: &'a str,
        mode: &'static str,
        audio: &'static str,
        ice_servers: &'a [IceServer],
        resume_token: Option<&'a str>,
        resumed: bool,
        sent: u64,
        received: u64,
        server: ServerInfo,
    },
    Description {
        #[serde(rename = "type")]
        kind: &'static str,
        sdp: &'a str,
    },
    #[serde(rename_all = "camelCase")]
    Candidate {
        candidate: &'a str,
        sdp_mid: &'a str,
        #[serde(rename = "sdpMLineIndex")]
        mline_index: u16,
    },
    Added(BTreeMap<&'a str, Added<'a>>),
    Available(BTreeMap<&'a str, Available<'a>>),
    Figures(&'a ClientFigures),
    Voice(&'a VoiceDetected),
    Bitrate {
        track_id: &'a str,
        bitrate: u64,
    },
    Mode {
        mode: &'static str,
        audio: &'static str,
        reason: &'static str,
    },
    Peers {
        peers: Vec<Peer<'a>>,
    },
    Speaker {
        client_id: Option<String>,
    },
    Delivered {
        mid: &'a str,
        client_id: Option<String>,
        track_id: Option<&'a str>,
        stream_id: Option<&'a str>,
    },
    Layout {
        kind: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        pinned: Option<String>,
        canvas: Size,
        tiles: Vec<Tile>,
    },
    Chat {
        text: &'a str,
        from: String,
        at: u64,
    },
}

#[derive(Serialize)]
struct ServerInfo {
    version: &'static str,
}

#[derive(Serialize)]
struct Added<'a> {
    id: &'a str,
}

#[derive(Serialize)]
struct Available<'a> {
    id: &'a str,
    client_id: String,
    client_name: &'a str,
    track_id: &'a str,
    stream_id: &'a str,
    source: &'static str,
    source_type: &'static str,
    kind: &'static str,
    is_simulcast: bool,
}

#[derive(Serialize)]
struct Peer<'a> {
    client_id: String,
    name: &'a str,
    speaking: bool,
    muted: bool,
}

#[derive(Serialize)]
struct Size {
    width: u32,
    height: u32,
}

#[derive(Serialize)]
struct Tile {
    client_id: String,
    x: u32,
    y: u32,
    width: u32,
    height: u32,
}

impl<'a> From<&'a ServerMessage> for Data<'a> {
    fn from(message: &'a ServerMessage) -> Self {
        match message {
            ServerMessage::ClientId(id) => Data::Text(id.to_string()),
            ServerMessage::Welcome(welcome) => Data::welcome(welcome),
            ServerMessage::Answer(sdp) => Data::Description {
                kind: "answer",
                sdp,
            },
            ServerMessage::Offer(sdp) => Data::Description { kind: "offer", sdp },
            ServerMessage::Candidate {
                candidate,
                mid,
                mline_index,
            } => Data::Candidate {
                candidate,
                sdp_mid: mid,
                mline_index: *mline_index,
            },
            ServerMessage::TracksAdded(ids) => {
                Data::Added(ids.iter().map(|id| (id.as_str(), Added { id })).collect())
            }
            ServerMessage::TracksAvailable(tracks) => Data::Available(
                tracks
                    .iter()
                    .map(|t| (t.track_id.as_str(), Available::from(t)))
                    .collect(),
            ),
            ServerMessage::AllowRenegotiation(Renegotiation::Allowed) => Data::Bool(true),
            ServerMessage::AllowRenegotiation(Renegotiation::Refused) => Data::Bool(false),
            ServerMessage::AllowRenegotiation(Renegotiation::Settled) => Data::Str("ok"),
            ServerMessage::NetworkCondition { stable } => Data::Number((*stable).into()),
            ServerMessage::TrackStats(figures) => Data::Figures(figures),
            ServerMessage::VoiceDetected(voice) => Data::Voice(voice),
            ServerMessage::BitrateAdjusted { track_id, bitrate } => Data::Bitrate {
                track_id,
                bitrate: *bitrate,
            },
            ServerMessage::Error(text) => Data::Str(text),
            ServerMessage::Mode { delivery, reason } => Data::Mode {
                mode: mode_name(*delivery),
                audio: audio_name(*delivery),
                reason: match reason {
                    ModeReason::Requested => "requested",
                },
            },
            ServerMessage::RoomPeers(peers) => Data::Peers {
                peers: peers.iter().map(Peer::from).collect(),
            },
            ServerMessage::ActiveSpeaker { client_id } => Data::Speaker {
                client_id: client_id.map(|id| id.to_string()),
            },
            ServerMessage::Delivered(track) => Data::Delivered {
                mid: &track.mid,
                client_id: track.client_id.map(|id| id.to_string()),
                track_id: track.track_id.as_deref(),
                stream_id: track.stream_id.as_deref(),
            },
            ServerMessage::Layout(layout) => Data::Layout {
                kind: layout_name(layout.shown.kind),
                pinned: layout.shown.pinned.map(|id| id.to_string()),
                canvas: Size {
                    width: layout.canvas.0,
                    height: layout.canvas.1,
                },
                tiles: layout.tiles.iter().map(Tile::from).collect(),
            },
            ServerMessage::Chat { from, text, at } => Data::Chat {
                text,
                from: from.to_string(),
                at: *at,
            },
        }
    }
}

impl<'a> Data<'a> {
    fn welcome(welcome: &'a Welcome) -> Self {
        Data::Welcome {
            client_id: welcome.client_id.to_string(),
            room_id: &welcome.room_id,
            name: &welcome.name,
            mode: mode_name(welcome.delivery),
            audio: audio_name(welcome.delivery),
            ice_servers: &welcome.ice_servers,
            resume_token: welcome.resume.token.as_deref(),
            resumed: welcome.resume.resumed,
            sent: welcome.resume.sent,
            received: welcome.resume.received,
            server: ServerInfo {
                version: env!("CARGO_PKG_VERSION"),
            },
        }
    }
}

impl<'a> From<&'a AvailableTrack> for Available<'a> {
    fn from(track: &'a AvailableTrack) -> Self {
        Available {
            id: &track.track_id,
            client_id: track.client_id.to_string(),
            client_name: &track.client_name,
            track_id: &track.track_id,
            stream_id: &track.stream_id,
            source: source_name(track.source),
            source_type: source_name(track.source),
            kind: track.kind.as_str(),
            is_simulcast: track.is_simulcast,
        }
    }
}

impl<'a> From<&'a PeerSummary> for Peer<'a> {
    fn from(peer: &'a PeerSummary) -> Self {
        Peer {
            client_id: peer.client_id.to_string(),
            name: &peer.name,
            speaking: peer.speaking,
            muted: peer.muted,
        }
    }
}

impl From<&LayoutTile> for Tile {
    fn from(tile: &LayoutTile) -> Self {
        Tile {
            client_id: tile.peer.to_string(),
            x: tile.x,
            y: tile.y,
            width: tile.width,
            height: tile.height,
        }
    }
}
