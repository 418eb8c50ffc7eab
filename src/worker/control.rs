//! Commands of the rooms.

use std::time::Instant;

use crate::ids::{PeerId, RoomKey, TrackKey};
use crate::mcu::audio::MixId;
use crate::rtp::params::MediaKind;
use crate::worker::bandwidth::Bandwidth;
use crate::worker::delivery::BEST_LAYER;
use crate::worker::demux::Slot;
use crate::worker::session::{Refusal, Session};
use crate::worker::state::{MediaRoom, Peer, Receiving};
use crate::worker::thread::Worker;
use crate::worker::{Command, Delivery, Event, PeerParams, Renegotiation, SourceType, Target};

impl Worker {
    pub(super) fn handle_command(&mut self, now: Instant, command: Command) {
        match command {
            Command::OpenRoom {
                room,
                events,
                voices,
            } => {
                self.rooms.insert(room, MediaRoom::new(events, voices));
            }
            Command::CloseRoom { room } => self.close_room(now, room),
            Command::AddPeer { room, peer, params } => self.add_peer(now, room, peer, params),
            Command::RemovePeer { peer } => {
                if let Some(&slot) = self.slots.get(&peer) {
                    self.remove_peer(now, slot);
                }
            }
            Command::Offer { peer, sdp } => {
                self.describe(now, peer, |session| session.handle_offer(now, &sdp));
            }
            Command::Answer { peer, sdp } => {
                self.describe(now, peer, |session| session.handle_answer(now, &sdp));
            }
            Command::Candidate { peer, candidate } => {
                self.describe(now, peer, |session| {
                    session.handle_candidate(candidate.clone())
                });
            }
            Command::AskRenegotiation { peer } => self.ask_renegotiation(now, peer),
            Command::Subscribe { peer, tracks } => self.subscribe(peer, &tracks),
            Command::SetDelivery { peer, delivery } => self.set_delivery(now, peer, delivery),
            Command::SetReceiveLimit { peer, bps } => self.set_receive_limit(now, peer, bps),
            Command::SetTarget { peer, target } => self.set_target(now, peer, target),
            Command::SetVideoSize {
                peer,
                track,
                width,
                height,
            } => self.set_video_size(now, peer, track, (width, height)),
            Command::SetPictureSize {
                peer,
                width,
                height,
            } => self.set_picture_size(now, peer, (width, height)),
            Command::SetPublishLimit { peer, bps } => {
                if let Some(peer) = self.peer_mut(peer) {
                    peer.session.publish_limit.set(now, bps);
                    peer.publish_limit = bps;
                    peer.touched = true;
                }
            }
            Command::SetSource { track, source } => self.set_source(now, track, source),
            Command::SetMuted { track, muted } => self.set_muted(now, track, muted),
            Command::RestartIce { peer } => {
                if let Some(peer) = self.peer_mut(peer) {
                    peer.session.restart_ice();
                    peer.touched = true;
                }
            }
            Command::Restate { peer } => self.restate(peer),
            Command::Suspend { peer } => self.suspend(peer),
            Command::SetAvatar { peer, avatar } => self.set_avatar(peer, avatar),
            Command::SetLayout { room, wish } => self.set_layout(room, wish),
            Command::SendText { peer, text } => {
                if let Some(peer) = self.peer_mut(peer) {
                    peer.session.send_text(now, &text);
                    peer.touched = true;
                }
            }
            Command::Connect(incoming) => self.connect_stream(now, *incoming),
            Command::Figures { reply } => {
                // Whoever asked may have gone.
                let _ = reply.send(Box::new(self.figures(now)));
            }
        }
    }

    pub(super) fn peer_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        let slot = *self.slots.get(&id)?;
        self.peers.get_mut(slot)
    }

    fn restate(&mut self, id: PeerId) {
        let Some(&slot) = self.slots.get(&id) else {
            return;
        };
        let peer = &mut self.peers[slot];
        peer.session.repeat_offer();
        peer.touched = true;
        self.tell_layout(slot);
    }

    fn suspend(&mut self, id: PeerId) {
        let Some(&slot) = self.slots.get(&id) else {
            return;
        };
        for track in std::mem::take(&mut self.peers[slot].published) {
            self.end_track(track, true);
        }
        self.peers[slot].suspended = true;
    }

    /// A description or a candidate: what cannot be done is told to the client. A client that has made itself a
    /// new connection gets a new session.
    fn describe(
        &mut self,
        now: Instant,
        id: PeerId,
        apply: impl Fn(&mut Session) -> Result<(), Refusal>,
    ) {
        let Some(&slot) = self.slots.get(&id) else {
            return;
        };
        let mut result = apply(&mut self.peers[slot].session);
        if result == Err(Refusal::OtherConnection) {
            self.renew_session(now, slot);
            result = apply(&mut self.peers[slot].session);
        }
        self.peers[slot].touched = true;
        let message = match result {
            Ok(()) => return,
            Err(Refusal::Sentence(message)) => message,
            Err(Refusal::OtherConnection) => {
                "the description belongs to another connection: join again".to_string()
            }
        };
        self.emit(slot, |peer| Event::Failed { peer, message });
    }

    fn add_peer(&mut self, now: Instant, room: RoomKey, id: PeerId, params: PeerParams) {
        if !self.rooms.contains_key(&room) || self.slots.contains_key(&id) {
            return;
        }
        let session = match self.new_session(now, params.client_offers_first) {
            Ok(session) => session,
            Err(error) => {
                tracing::error!(peer = %id, %error, "no transport for a new peer");
                let message =
                    format!("the server could not open a media transport: {error}; try again");
                if let Some(room) = self.rooms.get_mut(&room) {
                    room.emit(Event::Failed { peer: id, message });
                }
                return;
            }
        };
        let slot = self.peers.insert(Peer {
            id,
            room,
            params,
            session,
            receiving: Receiving::default(),
            published: Vec::new(),
            speaking: Default::default(),
            has_levels: false,
            bandwidth: Bandwidth::new(now),
            publish_limit: None,
            target: Target::BEST,
            next_sender: 1,
            deadline: now,
            stats_due: now,
            suspended: false,
            avatar: None,
            dirty: false,
            touched: true,
        });
        self.peers[slot].stats_due = self.next_report(now, slot);
        self.timers.wake(slot, now);
        self.slots.insert(id, slot);
        if let Some(room) = self.rooms.get_mut(&room) {
            room.members.push(slot);
            room.voices.enter(slot);
        }
        self.begin_mixed(slot);
    }

    pub(super) fn remove_peer(&mut self, now: Instant, slot: Slot) {
        self.end_media(slot, false);
        self.demux.forget(slot);
        let Some(mut peer) = self.peers.try_remove(slot) else {
            return;
        };
        self.timers.remove(slot);
        peer.session.close(now, &mut self.socket);
        self.past.add(&peer.session);
        let estimator = peer.session.subscriber.estimator();
        self.past
            .bandwidth
            .merge(&peer.bandwidth.counters(estimator));
        self.slots.remove(&peer.id);
        if let Some(room) = self.rooms.get_mut(&peer.room) {
            room.members.retain(|member| *member != slot);
            room.voices.leave(slot);
            // What only this peer heard has nobody to hear it any more.
            room.audio
                .retain(|mix, _| !matches!(mix, MixId::Minus(owner, _) if *owner == peer.id));
        }
        self.update_bus(peer.room);
        self.choose_pictures(now, peer.room);
    }

    /// Everything that the peer publishes and is sent ends; the peer stays.
    pub(super) fn end_media(&mut self, slot: Slot, tell: bool) {
        for track in std::mem::take(&mut self.peers[slot].published) {
            self.end_track(track, tell);
        }
        self.stop_receiving(slot);
    }

    fn close_room(&mut self, now: Instant, key: RoomKey) {
        let members = self
            .rooms
            .get(&key)
            .map(|room| room.members.clone())
            .unwrap_or_default();
        for slot in members {
            self.remove_peer(now, slot);
        }
        if let Some(room) = self.rooms.remove(&key) {
            self.past.dropped_events += room.dropped_events;
        }
    }

    fn ask_renegotiation(&mut self, now: Instant, id: PeerId) {
        let Some(&slot) = self.slots.get(&id) else {
            return;
        };
        let peer = &mut self.peers[slot];
        peer.touched = true;
        let allowed = peer.session.negotiator().ask_renegotiation(now);
        let reply = if allowed {
            Renegotiation::Allowed
        } else {
            Renegotiation::Refused
        };
        self.emit(slot, |peer| Event::RenegotiationReply { peer, reply });
    }

    fn set_delivery(&mut self, now: Instant, id: PeerId, delivery: Delivery) {
        let Some(&slot) = self.slots.get(&id) else {
            return;
        };
        let peer = &mut self.peers[slot];
        if peer.params.delivery == delivery {
            return;
        }
        peer.params.delivery = delivery;
        peer.touched = true;
        // Whoever switches has a page that follows offers of the server.
        if !peer.params.client_offers_first {
            peer.session.negotiator().allow_offers();
        }
        for kind in [MediaKind::Audio, MediaKind::Video] {
            match kind {
                _ if !delivery.forwards(kind) => self.stop_forwarding(slot, kind),
                MediaKind::Audio => self.end_mixed_sound(slot),
                MediaKind::Video => self.end_mixed_picture(slot),
            }
        }
        self.begin_mixed(slot);
        let room = self.peers[slot].room;
        self.update_bus(room);
        self.peers[slot].deadline = now;
        self.timers.wake(slot, now);
    }

    fn set_source(&mut self, now: Instant, key: TrackKey, source: SourceType) {
        let Some(track) = self.tracks.get_mut(&key) else {
            return;
        };
        if track.source == source {
            return;
        }
        track.source = source;
        let room = track.room;
        self.voice_source(now, key);
        let Some(track) = self.tracks.get_mut(&key) else {
            return;
        };
        // The bus treats screens and their sound differently: it takes the source anew.
        if std::mem::take(&mut track.tapped)
            && let Some(bus) = self.rooms.get_mut(&room).and_then(|room| room.bus.as_mut())
        {
            bus.remove_source(key);
        }
        self.update_bus(room);
    }

    fn set_muted(&mut self, now: Instant, key: TrackKey, muted: bool) {
        let Some(track) = self.tracks.get_mut(&key) else {
            return;
        };
        track.muted = muted;
        let room = track.room;
        if muted
            && let Some(voice) = track.voice
            && let Some(room) = self.rooms.get_mut(&room)
        {
            room.voices.speakers.release(voice);
        }
        if let Some(peer) = self.peers.get_mut(track.publisher) {
            peer.session.publisher.set_muted(now, key, muted);
            peer.touched = true;
        }
        if let Some(bus) = self.rooms.get(&room).and_then(|room| room.bus.as_ref()) {
            bus.set_muted(key, muted);
        }
        if !muted {
            self.request_keyframe(now, room, key, BEST_LAYER);
        }
        self.update_bus(room);
    }
}
