//! Who is sent what: subscriptions to forwarded tracks, and the tracks themselves.

use std::time::Instant;

use crate::ids::{PeerId, RoomKey, TrackKey};
use crate::rtp::params::{Codec, MediaKind, SendLine, Ssrc};
use crate::sfu::{Layer, Received, Tap};
use crate::transport::negotiation::{SenderId, SenderSpec};
use crate::worker::Event;
use crate::worker::demux::Slot;
use crate::worker::mixed::{UNTOLD_TILE, aim};
use crate::worker::session::Forwarding;
use crate::worker::state::{Forwarded, Peer, Track, prefetch_receivers};
use crate::worker::thread::Worker;

/// What a sender carries, as its m-line says it.
pub(super) struct Carried {
    pub kind: MediaKind,
    pub codec: Codec,
    pub stream_id: String,
    pub track_id: String,
    /// The same for what is to be played in sync (RFC 3550, section 6.5.1).
    pub cname: String,
    /// Keeps its m-line for ever.
    pub dedicated: bool,
}

/// Opens a sender in the peer's offer/answer and returns its id.
pub(super) fn open_sender(peer: &mut Peer, carried: Carried) -> u64 {
    let id = peer.next_sender;
    peer.next_sender += 1;
    peer.touched = true;
    peer.session.negotiator().add_sender(SenderSpec {
        id: SenderId(id),
        kind: carried.kind,
        codec: carried.codec,
        stream_id: carried.stream_id,
        track_id: carried.track_id,
        ssrc: Ssrc(rand::random()),
        rtx_ssrc: Ssrc(rand::random()),
        cname: carried.cname,
        dedicated: carried.dedicated,
    });
    id
}

/// Closes a sender: nothing more is sent on it, its m-line becomes free.
pub(super) fn close_sender(peer: &mut Peer, sender: u64) {
    peer.touched = true;
    peer.session.subscriber.detach(sender);
    peer.session.negotiator().remove_sender(SenderId(sender));
}

/// Of the layers of a track, the best that flows.
pub(super) const BEST_LAYER: Layer = Layer(u8::MAX);

impl Worker {
    /// First packet of a track: the room hears of it, and the mixer if there is one.
    pub(super) fn publish(&mut self, now: Instant, slot: Slot, key: TrackKey) {
        let peer = &mut self.peers[slot];
        let Some(info) = peer.session.publisher.published(key) else {
            return;
        };
        peer.published.push(key);
        let (id, room) = (peer.id, peer.room);
        let track = Track {
            room,
            publisher: slot,
            info: info.clone(),
            source: Default::default(),
            muted: false,
            tapped: false,
            tap: Tap::default(),
            tile: Some(UNTOLD_TILE),
            voice: None,
            withheld: false,
            subscribers: Vec::new(),
        };
        self.tracks.insert(key, track);
        self.emit(slot, |_| Event::TrackPublished {
            peer: id,
            track: info,
        });
        self.add_voice(now, key);
        self.update_bus(room);
    }

    /// A track is over: its subscribers lose their senders.
    pub(super) fn end_track(&mut self, key: TrackKey, tell: bool) {
        let Some(track) = self.tracks.remove(&key) else {
            return;
        };
        if let (Some(voice), Some(room)) = (track.voice, self.rooms.get_mut(&track.room)) {
            room.voices.speakers.remove(voice);
        }
        for slot in self
            .rooms
            .get(&track.room)
            .map(|room| room.members.clone())
            .unwrap_or_default()
        {
            let peer = &mut self.peers[slot];
            if let Some(forwarded) = peer.receiving.tracks.remove(&key) {
                close_sender(peer, forwarded.sender);
            }
        }
        if let Some(bus) = self
            .rooms
            .get_mut(&track.room)
            .and_then(|room| room.bus.as_mut())
        {
            bus.remove_source(key);
        }
        if let Some(peer) = self.peers.get_mut(track.publisher) {
            peer.published.retain(|published| *published != key);
            if tell {
                self.emit(track.publisher, |peer| Event::TrackEnded {
                    peer,
                    track: key,
                });
            }
        }
        self.update_bus(track.room);
    }

    /// Opens a sender for each track that the peer does not have yet.
    pub(super) fn subscribe(&mut self, id: PeerId, wanted: &[TrackKey]) {
        let Some(&slot) = self.slots.get(&id) else {
            return;
        };
        for &key in wanted {
            let Some(track) = self.tracks.get(&key) else {
                continue;
            };
            let Some(publisher) = self.peers.get(track.publisher).map(|peer| peer.id) else {
                continue;
            };
            let peer = &mut self.peers[slot];
            if track.publisher == slot || track.room != peer.room {
                continue;
            }
            let info = &track.info;
            let forwards = peer.params.delivery.forwards(info.kind);
            if !forwards || peer.receiving.tracks.contains_key(&key) {
                continue;
            }
            let sender = open_sender(
                peer,
                Carried {
                    kind: info.kind,
                    codec: info.codec,
                    stream_id: info.stream_id.clone(),
                    track_id: info.track_id.clone(),
                    cname: publisher.to_string(),
                    dedicated: false,
                },
            );
            peer.receiving.tracks.insert(
                key,
                Forwarded {
                    sender,
                    attached: false,
                },
            );
        }
    }

    /// Closes all senders of a peer, forwarded or mixed.
    pub(super) fn stop_receiving(&mut self, slot: Slot) {
        for kind in [MediaKind::Audio, MediaKind::Video] {
            self.stop_forwarding(slot, kind);
        }
        self.end_mixed_sound(slot);
        self.end_mixed_picture(slot);
    }

    /// Closes the senders of the others' tracks of one kind.
    pub(super) fn stop_forwarding(&mut self, slot: Slot, kind: MediaKind) {
        let peer = &mut self.peers[slot];
        let mut closed = Vec::new();
        peer.receiving.tracks.retain(|key, forwarded| {
            let track = self.tracks.get_mut(key);
            let track = track.filter(|track| track.info.kind == kind);
            let Some(track) = track else {
                return true;
            };
            let subscribers = &mut track.subscribers;
            subscribers.retain(|(subscriber, _)| *subscriber != slot);
            closed.push(forwarded.sender);
            false
        });
        for sender in closed {
            close_sender(peer, sender);
        }
    }

    /// The m-lines are agreed: senders that have one now begin to send.
    pub(super) fn on_lines(
        &mut self,
        now: Instant,
        slot: Slot,
        ended: Vec<TrackKey>,
        send: &[SendLine],
    ) {
        if !ended.is_empty() {
            for key in ended {
                self.end_track(key, true);
            }
            let room = self.peers[slot].room;
            self.choose_pictures(now, room);
        }
        self.on_mixed_lines(slot, send);
        let peer = &mut self.peers[slot];
        let (id, room) = (peer.id, peer.room);
        let mut begun = Vec::new();
        for (&key, forwarded) in peer
            .receiving
            .tracks
            .iter_mut()
            .filter(|(_, forwarded)| !forwarded.attached)
        {
            let Some(line) = send.iter().find(|line| line.sender == forwarded.sender) else {
                continue;
            };
            let Some(track) = self.tracks.get_mut(&key) else {
                continue;
            };
            forwarded.attached = true;
            peer.session
                .subscriber
                .attach(forwarded.sender, key, track.info.codec);
            if track.info.kind == MediaKind::Video {
                peer.session
                    .subscriber
                    .set_target(forwarded.sender, peer.target);
            }
            track.subscribers.push((slot, forwarded.sender));
            begun.push((key, line.mid.to_string(), track.info.kind));
        }
        if !begun.is_empty() {
            peer.bandwidth.due = now;
            self.timers.wake(slot, now);
        }
        for (track, mid, kind) in begun {
            self.emit(slot, |_| Event::Delivered {
                peer: id,
                track,
                mid,
            });
            let withheld = self.tracks.get(&track).is_some_and(|track| track.withheld);
            if kind == MediaKind::Video && !withheld {
                self.request_keyframe(now, room, track, BEST_LAYER);
            }
        }
    }

    /// The client cannot take what a sender carries.
    pub(super) fn on_refused(&mut self, slot: Slot, sender: u64, reason: &str) {
        if self.on_mixed_refused(slot, sender, reason) {
            return;
        }
        let peer = &mut self.peers[slot];
        let tracks = &mut peer.receiving.tracks;
        let Some(key) = tracks
            .iter()
            .find(|(_, f)| f.sender == sender)
            .map(|(key, _)| *key)
        else {
            return;
        };
        tracks.remove(&key);
        close_sender(peer, sender);
        let Some(track) = self.tracks.get_mut(&key) else {
            return;
        };
        track
            .subscribers
            .retain(|subscription| *subscription != (slot, sender));
        let message = format!(
            "track {} cannot be delivered: {reason}",
            track.info.track_id
        );
        self.emit(slot, |peer| Event::Failed { peer, message });
    }

    /// A packet of a published track goes to its subscribers and to the mixer's tap.
    pub(super) fn forward(&mut self, now: Instant, packet: &Received<'_>) {
        let Some(track) = self.tracks.get_mut(&packet.track) else {
            return;
        };
        if track.muted {
            return;
        }
        let mut wants_keyframe = false;
        let subscribers: &[(Slot, u64)] = if track.withheld {
            &[]
        } else {
            &track.subscribers
        };
        let work = subscribers.len() as u32 + 1;
        if let Some(room) = self.rooms.get_mut(&track.room)
            && !room.share.take(now, work)
        {
            self.counters.over_share += 1;
            return;
        }
        for (at, &(slot, sender)) in subscribers.iter().enumerate() {
            prefetch_receivers(&self.peers, |n| Some(subscribers.get(at + n)?.0));
            let Some(peer) = self.peers.get_mut(slot) else {
                continue;
            };
            let forwarding = peer.session.forward(now, sender, packet);
            wants_keyframe |= forwarding == Forwarding::WantsKeyframe;
            if forwarding == Forwarding::Held {
                self.timers.wake(slot, peer.wake_for_pacer());
            }
            wants_keyframe |=
                packet.broken && matches!(forwarding, Forwarding::Queued | Forwarding::Held);
            if forwarding == Forwarding::Queued && !std::mem::replace(&mut peer.dirty, true) {
                self.dirty.push(slot);
            }
        }
        // The mixer decodes what the track was published with: a browser changes codecs by another track.
        if track.tapped
            && packet.codec == track.info.codec
            && let Some(bus) = self
                .rooms
                .get(&track.room)
                .and_then(|room| room.bus.as_ref())
        {
            if packet.keyframe
                && track.info.simulcast
                && let Some(peer) = self.peers.get_mut(track.publisher)
            {
                // Its size may be another now.
                aim(track, &mut peer.session.publisher, now);
            }
            wants_keyframe |= super::mixed::tap(bus, &mut track.tap, now, packet);
        }
        if wants_keyframe {
            let room = track.room;
            self.request_keyframe(now, room, packet.track, packet.layer);
        }
    }

    /// Asks for a keyframe of a forwarded track's layer from its publisher, of a mixed track from the bus.
    pub(super) fn request_keyframe(
        &mut self,
        now: Instant,
        room: RoomKey,
        key: TrackKey,
        layer: Layer,
    ) {
        if let Some(track) = self.tracks.get(&key) {
            if track.info.kind == MediaKind::Video
                && let Some(peer) = self.peers.get_mut(track.publisher)
            {
                peer.session.publisher.request_keyframe(now, key, layer);
                peer.touched = true;
                self.touched.push(track.publisher);
            }
        } else if let Some(room) = self.rooms.get(&room)
            && let Some(rung) = room.rung_of(key, layer)
            && let Some(bus) = &room.bus
        {
            bus.request_keyframe(rung);
        }
    }
}
