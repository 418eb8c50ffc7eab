//! One room's state machine. Pure: the time is an argument, what to do comes out of [`Room::poll_output`].

mod events;
mod member;
mod presence;
mod requests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use self::member::{Link, Member, Track, Typing};
use self::requests::AUTO_REFUSED;

use crate::ids::{PeerId, RoomKey, TrackKey};
use crate::room::roster::Roster;
use crate::room::snapshot::RoomSnapshot;
use crate::room::{AvailableTrack, JoinRequest, Mode, Notice, PeerSummary, Request};
use crate::rtp::params::MediaKind;
use crate::worker::{Command, Delivery, Event, SourceType, VoiceLimits, mixed_track_id};

/// A published track that its client never types counts as media after this time.
pub const UNTYPED_FOR: Duration = Duration::from_secs(2);

/// More tracks than this in one `subscribe_tracks` are refused.
pub const MAX_SUBSCRIBE: usize = 1024;

/// What a room allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Members at one time.
    pub peers_per_room: usize,
    /// Published tracks of one member at one time.
    pub tracks_per_peer: usize,
    /// An empty room is removed after this time.
    pub empty_for: Duration,
    /// How much of the room is forwarded to each member.
    pub voices: VoiceLimits,
    /// A member with a broken socket, of which nothing else is heard either, is gone for the others after this time.
    pub gone_after: Duration,
}

/// A client that may not enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// As many members as the limit allows.
    #[error("the room is full: it takes {0} participants")]
    RoomFull(usize),
    /// The id is a member's already.
    #[error("this client is in the room already")]
    Duplicate,
}

/// What the room's task has to do.
#[derive(Debug)]
pub enum Output {
    /// Hand this to the room's worker.
    Command(Command),
    /// Tell a member.
    Notify(PeerId, Notice),
}

/// The state of one room.
#[derive(Debug)]
pub struct Room {
    key: RoomKey,
    limits: Limits,
    members: BTreeMap<PeerId, Member>,
    tracks: BTreeMap<TrackKey, Track>,
    outputs: VecDeque<Output>,
    roster: Roster,
    guests: u64,
    /// The dominant speaker; the last one, where nobody speaks.
    active: Option<PeerId>,
    empty_since: Option<Instant>,
}

impl Room {
    /// A room without members.
    pub fn new(key: RoomKey, limits: Limits, now: Instant) -> Self {
        Room {
            key,
            limits,
            members: BTreeMap::new(),
            tracks: BTreeMap::new(),
            outputs: VecDeque::new(),
            roster: Roster::default(),
            guests: 0,
            active: None,
            empty_since: Some(now),
        }
    }

    /// What to do next; `None`: nothing until the next `handle_*`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Room::handle_timeout`] is wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let typing = self.tracks.values().filter_map(|t| t.typing.deadline());
        let empty = self.empty_since.map(|since| since + self.limits.empty_for);
        let gone_after = self.limits.gone_after;
        let gone = self.members.values().filter_map(|m| m.gone_at(gone_after));
        typing
            .chain(empty)
            .chain(gone)
            .chain(self.roster.due())
            .min()
    }

    /// Whether the room has been empty for so long that it may go.
    pub fn expired(&self, now: Instant) -> bool {
        self.empty_since
            .is_some_and(|since| since + self.limits.empty_for <= now)
    }

    /// Number of members.
    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    /// The figures of those members who are there.
    pub fn snapshot(&self, now: Instant) -> RoomSnapshot {
        let there = |(_, member): &(&PeerId, &Member)| !member.presence.is_hidden();
        let there = self.members.iter().filter(there);
        let peers = there.map(|(id, m)| m.snapshot(*id, now));
        RoomSnapshot {
            peers: peers.collect(),
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due: Vec<TrackKey> = self
            .tracks
            .iter()
            .filter(|(_, t)| t.typing.deadline().is_some_and(|until| until <= now))
            .map(|(key, _)| *key)
            .collect();
        self.set_sources(due.into_iter().map(|key| (key, SourceType::Media)));
        self.hide_gone(now);
        self.tell_peers(now);
    }

    /// A client enters. Its first notice is the welcome.
    pub fn handle_join(
        &mut self,
        now: Instant,
        peer: PeerId,
        request: JoinRequest,
    ) -> Result<(), JoinError> {
        if self.members.contains_key(&peer) {
            return Err(JoinError::Duplicate);
        }
        if self.members.len() >= self.limits.peers_per_room {
            return Err(JoinError::RoomFull(self.limits.peers_per_room));
        }
        let name = request.name.clone().unwrap_or_else(|| {
            self.guests += 1;
            format!("Guest {}", self.guests)
        });
        let delivery = request.mode.delivery(request.audio);
        let delivery = delivery.or_else(|| Mode::Sfu.delivery(request.audio));
        let delivery = delivery.unwrap_or(Delivery::Forward);
        let member = Member::new(name.clone(), delivery, &request);
        self.notify(peer, Notice::Welcome { name, delivery });
        if request.mode == Mode::Auto {
            self.refuse(peer, AUTO_REFUSED);
        }
        self.command(Command::AddPeer {
            room: self.key,
            peer,
            params: member.params(request.publish),
        });
        self.members.insert(peer, member);
        self.empty_since = None;
        self.roster.touch();
        self.tell_peers(now);
        Ok(())
    }

    /// A member leaves, for whatever reason. Unknown ids are ignored.
    pub fn handle_leave(&mut self, now: Instant, peer: PeerId) {
        let Some(member) = self.members.remove(&peer) else {
            return;
        };
        if member.link != Link::Lost {
            self.command(Command::RemovePeer { peer });
        }
        for key in member.published {
            self.forget_track(key);
        }
        if self.members.is_empty() {
            self.empty_since = Some(now);
        }
        if self.active == Some(peer) {
            self.set_active(None);
        }
        self.roster.touch();
        self.tell_peers(now);
    }

    /// A member asks for something. What cannot be done is answered with [`Notice::Error`].
    pub fn handle_request(&mut self, now: Instant, peer: PeerId, request: Request) {
        if !self.members.contains_key(&peer) {
            return;
        }
        match request {
            Request::Offer(sdp) => self.offer(peer, sdp),
            Request::Answer(sdp) => {
                self.for_transport(peer, "answer", Command::Answer { peer, sdp })
            }
            Request::Candidate(candidate) => {
                self.for_transport(peer, "candidate", Command::Candidate { peer, candidate })
            }
            Request::TrackTypes(types) => self.type_tracks(peer, types),
            Request::Subscribe(tracks) => self.subscribe(peer, &tracks),
            Request::AskRenegotiation => self.ask_renegotiation(peer),
            Request::SwitchMode(mode) => self.switch_mode(peer, mode),
            Request::SwitchAudio(audio) => self.switch_audio(peer, audio),
            Request::Layout(wanted) => {
                if let Err(error) = self.set_layout(&wanted) {
                    self.refuse(peer, error.to_string());
                }
            }
            Request::Avatar(avatar) => self.command(Command::SetAvatar { peer, avatar }),
            Request::Mute { track_id, muted } => self.mute(peer, &track_id, muted),
            Request::Chat { text, at } => self.chat(peer, &text, at),
            Request::ReceiveLimit(bps) => self.limit_receiving(peer, bps),
            Request::PublishBandwidth(bps) => self.limit_publishing(peer, bps),
            Request::SwitchQuality(quality) => self.switch_quality(peer, quality),
            Request::Report(report) => self.report(peer, report),
            Request::SocketLost { heard } => self.socket_lost(peer, heard),
            Request::SocketBack { restate } => self.socket_back(peer, restate),
        }
        self.tell_peers(now);
    }

    /// The worker tells something. Events of peers that have left are ignored.
    pub fn handle_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Answer { peer, sdp } => self.notify_member(peer, Notice::Answer(sdp)),
            Event::Offer { peer, sdp } => self.notify_member(peer, Notice::Offer(sdp)),
            Event::Candidate {
                peer,
                candidate,
                mid,
                mline_index,
            } => self.notify_member(
                peer,
                Notice::Candidate {
                    candidate,
                    mid,
                    mline_index,
                },
            ),
            Event::RenegotiationReply { peer, reply } => {
                self.notify_member(peer, Notice::Renegotiation(reply));
            }
            Event::Connected { peer } => self.connected(peer),
            Event::MediaSilent { peer } => self.media_silent(now, peer),
            Event::MediaHeard { peer } => self.media_heard(peer),
            Event::Disconnected { peer, .. } => self.disconnected(now, peer),
            Event::TrackPublished { peer, track } => self.track_published(now, peer, track),
            Event::TrackEnded { peer, track } => self.track_ended(peer, track),
            Event::Delivered { peer, track, mid } => self.delivered(peer, track, mid),
            // The room's task reads it and makes a request of it: a room never sees JSON.
            Event::ChannelText { .. } => {}
            Event::Speaking { peer, speaking } => self.speaking(now, peer, speaking),
            Event::ActiveSpeaker { peer } => self.active_speaker(peer),
            Event::Voice { peer, report } => self.voice(now, peer, report),
            Event::Layout { peer, layout } => self.notify_member(peer, Notice::Layout(layout)),
            Event::PictureAdjusted { peer, bitrate } => {
                let track_id = mixed_track_id(MediaKind::Video);
                self.notify_member(peer, Notice::BitrateAdjusted { track_id, bitrate });
            }
            Event::BitrateAdjusted {
                peer,
                track,
                bitrate,
            } => self.bitrate_adjusted(peer, track, bitrate),
            Event::NetworkCondition { peer, stable } => {
                self.notify_member(peer, Notice::NetworkCondition { stable });
            }
            Event::Stats { peer, stats } => self.stats(now, peer, *stats),
            Event::Failed { peer, message } => self.notify_member(peer, Notice::Error(message)),
        }
        self.tell_peers(now);
    }
}

/// What the handlers share.
impl Room {
    fn command(&mut self, command: Command) {
        self.outputs.push_back(Output::Command(command));
    }

    fn notify(&mut self, peer: PeerId, notice: Notice) {
        self.outputs.push_back(Output::Notify(peer, notice));
    }

    fn notify_member(&mut self, peer: PeerId, notice: Notice) {
        if self.members.contains_key(&peer) {
            self.notify(peer, notice);
        }
    }

    fn refuse(&mut self, peer: PeerId, text: impl Into<String>) {
        self.notify(peer, Notice::Error(text.into()));
    }

    fn with_member(&mut self, peer: PeerId, change: impl FnOnce(&mut Member)) {
        if let Some(member) = self.members.get_mut(&peer) {
            change(member);
        }
    }

    fn link(&self, peer: PeerId) -> Option<Link> {
        self.members.get(&peer).map(|m| m.link)
    }

    fn member_ids(&self) -> Vec<PeerId> {
        self.members.keys().copied().collect()
    }

    /// The latest track that `owner` publishes under this id.
    fn track_of(&self, owner: PeerId, track_id: &str) -> Option<TrackKey> {
        let published = &self.members.get(&owner)?.published;
        let is_it = |key: &&TrackKey| {
            let track = self.tracks.get(key);
            track.is_some_and(|t| t.published.track_id == track_id)
        };
        published.iter().rev().find(is_it).copied()
    }

    fn forget_track(&mut self, key: TrackKey) {
        self.tracks.remove(&key);
        for member in self.members.values_mut() {
            member.subscribed.remove(&key);
            member.delivered.retain(|_, delivered| *delivered != key);
        }
    }

    /// Says what tracks show, and tells the others of those for which this is news.
    fn set_sources(&mut self, sources: impl IntoIterator<Item = (TrackKey, SourceType)>) {
        let mut news = Vec::new();
        for (key, source) in sources {
            let Some(track) = self.tracks.get_mut(&key) else {
                continue;
            };
            if track.typing != Typing::Known(source) {
                track.typing = Typing::Known(source);
                news.push(key);
                self.command(Command::SetSource { track: key, source });
            }
        }
        for peer in self.member_ids() {
            self.tell_available(peer, &news);
        }
    }

    fn tell_everything_available(&mut self, peer: PeerId) {
        let all: Vec<TrackKey> = self.tracks.keys().copied().collect();
        self.tell_available(peer, &all);
    }

    /// Tells a member of those tracks that it may subscribe to: of the kinds that are forwarded to it, once it is connected
    /// (old pages are ready for `ontrack` only then), and never of its own.
    fn tell_available(&mut self, peer: PeerId, keys: &[TrackKey]) {
        let Some(member) = self.members.get(&peer) else {
            return;
        };
        if member.link != Link::Connected {
            return;
        }
        let delivery = member.delivery;
        let tracks = keys.iter().filter_map(|key| self.available(peer, *key));
        let tracks = tracks.filter(|track| delivery.forwards(track.kind));
        for batch in without_shared_ids(tracks) {
            self.notify(peer, Notice::TracksAvailable(batch));
        }
    }

    fn available(&self, to: PeerId, key: TrackKey) -> Option<AvailableTrack> {
        let track = self.tracks.get(&key).filter(|t| t.owner != to)?;
        let Typing::Known(source) = track.typing else {
            return None;
        };
        Some(AvailableTrack {
            client_id: track.owner,
            client_name: self.members.get(&track.owner)?.name.clone(),
            track_id: track.published.track_id.clone(),
            stream_id: track.published.stream_id.clone(),
            source,
            kind: track.published.kind,
            is_simulcast: track.published.simulcast,
        })
    }

    fn tell_peers(&mut self, now: Instant) {
        if !self.roster.take(now) {
            return;
        }
        let peers = self.peer_summaries();
        for peer in self.member_ids() {
            self.notify(peer, Notice::Peers(peers.clone()));
        }
    }

    /// Everybody who is there.
    fn peer_summaries(&self) -> std::sync::Arc<[PeerSummary]> {
        self.members
            .iter()
            .filter(|(_, member)| !member.presence.is_hidden())
            .map(|(id, member)| PeerSummary {
                client_id: *id,
                name: member.name.clone(),
                speaking: member.voice.is_speaking(),
                muted: self.is_muted(member),
            })
            .collect()
    }

    fn is_muted(&self, member: &Member) -> bool {
        let mut sound = member
            .published
            .iter()
            .filter_map(|key| self.tracks.get(key))
            .filter(|t| t.published.kind == MediaKind::Audio)
            .peekable();
        sound.peek().is_some() && sound.all(|t| t.muted)
    }
}

/// `tracks_available` is keyed by track id, and publishers may use the same one: such tracks go into different
/// messages.
fn without_shared_ids(tracks: impl Iterator<Item = AvailableTrack>) -> Vec<Vec<AvailableTrack>> {
    let mut batches: Vec<(BTreeSet<String>, Vec<AvailableTrack>)> = Vec::new();
    for track in tracks {
        let free = batches
            .iter_mut()
            .find(|(ids, _)| !ids.contains(&track.track_id));
        let (ids, batch) = match free {
            Some(batch) => batch,
            None => {
                batches.push(Default::default());
                batches.last_mut().expect("one was pushed")
            }
        };
        ids.insert(track.track_id.clone());
        batch.push(track);
    }
    batches.into_iter().map(|(_, batch)| batch).collect()
}

#[cfg(test)]
mod tests;
