//! Requests of clients, one function each.

use super::member::Link;
use super::{MAX_SUBSCRIBE, Room};
use crate::ids::{PeerId, TrackKey};
use crate::room::channel::ChannelReport;
use crate::room::{
    AudioMode, LayoutError, LayoutRequest, Mode, ModeReason, Notice, Quality, TrackRef,
};
use crate::rtp::params::MediaKind;
use crate::worker::{
    Command, Delivery, LayoutKind, LayoutWish, Renegotiation, SourceType, Target, mixed_track_id,
};

pub(super) const AUTO_REFUSED: &str =
    "mode auto is not available yet: the delivery stays as it is; ask for sfu or mcu";

impl Room {
    pub(super) fn offer(&mut self, peer: PeerId, sdp: String) {
        let room = self.key;
        let Some(member) = self.members.get_mut(&peer) else {
            return;
        };
        if member.link == Link::Lost {
            member.link = Link::Waiting;
            let params = member.params(true);
            self.command(Command::AddPeer { room, peer, params });
            self.restore_limits(peer);
        }
        self.command(Command::Offer { peer, sdp });
    }

    /// For requests that need a transport: without one they would never be answered.
    pub(super) fn for_transport(&mut self, peer: PeerId, what: &str, command: Command) {
        if self.link(peer) == Some(Link::Lost) {
            let text = format!("the {what} belongs to no connection: begin anew with an offer");
            self.refuse(peer, text);
        } else {
            self.command(command);
        }
    }

    pub(super) fn ask_renegotiation(&mut self, peer: PeerId) {
        if self.link(peer) == Some(Link::Lost) {
            // Nothing of the server's can be out, and an offer is what the client has to make.
            self.notify(peer, Notice::Renegotiation(Renegotiation::Allowed));
        } else {
            self.command(Command::AskRenegotiation { peer });
        }
    }

    pub(super) fn type_tracks(&mut self, peer: PeerId, types: Vec<(String, SourceType)>) {
        let mut known = Vec::new();
        let (mut unknown, mut pictures) = (Vec::new(), Vec::new());
        for (track_id, source) in types {
            let Some(key) = self.track_of(peer, &track_id) else {
                unknown.push(track_id);
                continue;
            };
            let is_picture = (self.tracks.get(&key))
                .is_some_and(|track| track.published.kind == MediaKind::Video);
            if is_picture && source == SourceType::Music {
                pictures.push(track_id);
                known.push((key, SourceType::Media));
            } else {
                known.push((key, source));
            }
        }
        self.set_sources(known);
        if !pictures.is_empty() {
            let text = format!(
                "tracks_added: only sound can be music, and this is a picture: {}",
                list(&pictures)
            );
            self.refuse(peer, text);
        }
        if !unknown.is_empty() {
            let text = format!("tracks_added: you publish no track {}", list(&unknown));
            self.refuse(peer, text);
        }
    }

    pub(super) fn subscribe(&mut self, peer: PeerId, wanted: &[TrackRef]) {
        let Some(member) = self.members.get(&peer) else {
            return;
        };
        if member.delivery == Delivery::Mixed {
            return self.refuse(
                peer,
                "subscribe_tracks: in mode mcu everything comes mixed; switch to sfu first",
            );
        }
        if member.link == Link::Lost {
            return self.refuse(
                peer,
                "subscribe_tracks: there is no connection: begin anew with an offer",
            );
        }
        if wanted.len() > MAX_SUBSCRIBE {
            let text = format!("subscribe_tracks: more than {MAX_SUBSCRIBE} tracks in one message");
            return self.refuse(peer, text);
        }
        let delivery = member.delivery;
        let is_mixed = |key: &TrackKey| {
            let track = self.tracks.get(key);
            track.is_some_and(|track| !delivery.forwards(track.published.kind))
        };
        let mut tracks = Vec::new();
        let (mut unknown, mut own, mut mixed) = (Vec::new(), Vec::new(), Vec::new());
        for track in wanted {
            let owner = track.client_id.parse().ok();
            match owner.and_then(|owner| self.track_of(owner, &track.track_id)) {
                _ if owner == Some(peer) => own.push(track.track_id.clone()),
                Some(key) if is_mixed(&key) => mixed.push(track.track_id.clone()),
                Some(key) if !tracks.contains(&key) => tracks.push(key),
                Some(_) => {}
                None => unknown.push(format!("{} of client {}", track.track_id, track.client_id)),
            }
        }
        if !tracks.is_empty() {
            self.with_member(peer, |m| m.subscribed.extend(&tracks));
            self.command(Command::Subscribe { peer, tracks });
        }
        if !mixed.is_empty() {
            let text = format!(
                "subscribe_tracks: with audio=mixed the sound of the others comes mixed; switch_audio to forwarded before \
                 you ask for {}",
                list(&mixed)
            );
            self.refuse(peer, text);
        }
        if !own.is_empty() {
            let text = format!("subscribe_tracks: your own track {}", list(&own));
            self.refuse(peer, text);
        }
        if !unknown.is_empty() {
            let text = format!("subscribe_tracks: there is no track {}", list(&unknown));
            self.refuse(peer, text);
        }
    }

    pub(super) fn switch_mode(&mut self, peer: PeerId, mode: Mode) {
        let Some(member) = self.members.get(&peer) else {
            return;
        };
        match mode.delivery(member.audio) {
            Some(delivery) => self.deliver(peer, delivery),
            None => self.refuse(peer, AUTO_REFUSED),
        }
    }

    /// Where everything comes mixed, the wish is kept for the time when it does not.
    pub(super) fn switch_audio(&mut self, peer: PeerId, audio: AudioMode) {
        let Some(member) = self.members.get_mut(&peer) else {
            return;
        };
        member.audio = audio;
        let delivery = match member.delivery {
            Delivery::Mixed => Some(Delivery::Mixed),
            Delivery::Forward | Delivery::MixedAudio => Mode::Sfu.delivery(audio),
        };
        if let Some(delivery) = delivery {
            self.deliver(peer, delivery);
        }
    }

    /// What comes as before goes on; tracks of a kind that is forwarded from now on are announced. Asking for what is
    /// already so is confirmed, but changes nothing.
    fn deliver(&mut self, peer: PeerId, delivery: Delivery) {
        let (room_tracks, Some(member)) = (&self.tracks, self.members.get_mut(&peer)) else {
            return;
        };
        let before = std::mem::replace(&mut member.delivery, delivery);
        let kind = |key: &TrackKey| room_tracks.get(key).map(|track| track.published.kind);
        let goes_on = |key: &TrackKey| kind(key).is_some_and(|kind| delivery.forwards(kind));
        member.subscribed.retain(goes_on);
        member.delivered.retain(|_, key| goes_on(key));
        let is_news = |key: &TrackKey| {
            kind(key).is_some_and(|kind| delivery.forwards(kind) && !before.forwards(kind))
        };
        let news: Vec<TrackKey> = room_tracks.keys().copied().filter(is_news).collect();
        if before != delivery && member.link != Link::Lost {
            self.command(Command::SetDelivery { peer, delivery });
        }
        let reason = ModeReason::Requested;
        self.notify(peer, Notice::Mode { delivery, reason });
        self.tell_available(peer, &news);
    }

    /// One picture is shared by all who receive it, so anybody in the room decides for everybody. The worker
    /// answers with the new tiles.
    ///
    /// # Errors
    /// Somebody is to be pinned who cannot be.
    pub fn set_layout(&mut self, wanted: &LayoutRequest) -> Result<(), LayoutError> {
        let pinned = match (wanted.kind, &wanted.pinned) {
            (LayoutKind::Pinned, None) => return Err(LayoutError::NobodyPinned),
            (LayoutKind::Pinned, Some(id)) => Some(self.showable(id)?),
            _ => None,
        };
        let wish = LayoutWish {
            kind: wanted.kind,
            pinned,
        };
        let room = self.key;
        self.command(Command::SetLayout { room, wish });
        Ok(())
    }

    /// A member that has a tile.
    fn showable(&self, id: &str) -> Result<PeerId, LayoutError> {
        let peer = id.parse().ok();
        let member = peer.and_then(|peer| Some((peer, self.members.get(&peer)?)));
        let Some((peer, member)) = member else {
            return Err(LayoutError::Unknown(list(&[id])));
        };
        if member.published.is_empty() {
            return Err(LayoutError::PublishesNothing(peer));
        }
        Ok(peer)
    }

    pub(super) fn mute(&mut self, peer: PeerId, track_id: &str, muted: bool) {
        let Some(key) = self.track_of(peer, track_id) else {
            let text = format!("mute: you publish no track {}", list(&[track_id]));
            return self.refuse(peer, text);
        };
        if let Some(track) = self.tracks.get_mut(&key)
            && track.muted != muted
        {
            track.muted = muted;
            self.roster.touch();
            self.command(Command::SetMuted { track: key, muted });
        }
    }

    pub(super) fn chat(&mut self, from: PeerId, text: &str, at: u64) {
        for to in self.member_ids() {
            let text = text.to_owned();
            self.notify(to, Notice::Chat { from, text, at });
        }
    }

    pub(super) fn limit_receiving(&mut self, peer: PeerId, bps: Option<u64>) {
        self.with_member(peer, |m| m.max_receive_bps = bps);
        if self.link(peer) != Some(Link::Lost) {
            self.command(Command::SetReceiveLimit { peer, bps });
        }
    }

    /// 0 takes the limit away: whoever wants to send nothing mutes.
    pub(super) fn limit_publishing(&mut self, peer: PeerId, bps: u64) {
        let bps = (bps > 0).then_some(bps);
        self.with_member(peer, |m| m.max_publish_bps = bps);
        if self.link(peer) != Some(Link::Lost) {
            self.command(Command::SetPublishLimit { peer, bps });
        }
    }

    pub(super) fn switch_quality(&mut self, peer: PeerId, quality: Quality) {
        let target = quality.into();
        self.with_member(peer, |m| m.target = target);
        if self.link(peer) != Some(Link::Lost) {
            self.command(Command::SetTarget { peer, target });
        }
    }

    /// What the worker has forgotten with a member's old connection.
    pub(super) fn restore_limits(&mut self, peer: PeerId) {
        let Some(member) = self.members.get(&peer) else {
            return;
        };
        let (target, bps) = (member.target, member.max_publish_bps);
        if target != Target::BEST {
            self.command(Command::SetTarget { peer, target });
        }
        if bps.is_some() {
            self.command(Command::SetPublishLimit { peer, bps });
        }
    }

    /// The client names what it shows by track id: every subscribed track of that name is meant, or the mixed picture.
    fn resize(&mut self, peer: PeerId, track_id: &str, width: u32, height: u32) {
        let Some(member) = self.members.get(&peer) else {
            return;
        };
        if track_id == mixed_track_id(MediaKind::Video) {
            return self.command(Command::SetPictureSize {
                peer,
                width,
                height,
            });
        }
        let named = |key: &&TrackKey| {
            let track = self.tracks.get(key);
            track.is_some_and(|track| track.published.track_id == track_id)
        };
        let tracks: Vec<TrackKey> = member.subscribed.iter().filter(named).copied().collect();
        for track in tracks {
            self.command(Command::SetVideoSize {
                peer,
                track,
                width,
                height,
            });
        }
    }

    pub(super) fn report(&mut self, peer: PeerId, report: ChannelReport) {
        match report {
            ChannelReport::Outgoing {
                available_bps,
                limitation,
            } => self.with_member(peer, |m| {
                m.publisher_bandwidth = available_bps;
                m.publish_limitation = limitation;
            }),
            ChannelReport::VideoSize {
                track_id,
                width,
                height,
            } => self.resize(peer, &track_id, width, height),
        }
    }
}

/// At most this many ids are named in one error.
const MAX_LISTED: usize = 5;
/// Longest part of an id that is repeated in an error.
const MAX_LISTED_CHARS: usize = 100;

fn list(ids: &[impl AsRef<str>]) -> String {
    let mut text = ids
        .iter()
        .take(MAX_LISTED)
        .map(|id| id.as_ref().chars().take(MAX_LISTED_CHARS).collect())
        .collect::<Vec<String>>()
        .join(", ");
    if ids.len() > MAX_LISTED {
        text.push_str(&format!(" and {} more", ids.len() - MAX_LISTED));
    }
    text
}
