//! The mixed delivery: the room's bus, its listeners, and its streams on their way to them.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use crate::ids::RoomKey;
use crate::mcu::audio::{AudioLevel, AudioPacket, MixId};
use crate::mcu::bus::{Bus, BusOutput, MixedAudio, Rung};
use crate::mcu::feed::VideoPacket;
use crate::mcu::video::{Participant, VideoRung};
use crate::rtp::ntp::Ntp;
use crate::rtp::params::{Codec, MediaKind, SendLine};
use crate::sfu::{DropReason, Layer, LayerSet, Received, SenderClock, Tap};
use crate::worker::delivery::{BEST_LAYER, Carried, close_sender, open_sender};
use crate::worker::demux::Slot;
use crate::worker::figures::mixed_track_id;
use crate::worker::session::Forwarding;
use crate::worker::state::{MixedSender, MixedTrack, Receiving, is_mixable};
use crate::worker::thread::Worker;
use crate::worker::{Event, LayoutWish, MixedLayout, SourceType};

/// Stream and track ids of the mixed tracks.
pub(super) const MIXED_STREAM: &str = "mixed";

/// Hands a copy of a packet to the codec threads, if it is of the layer that they take. True: nothing goes there before
/// a keyframe of the packet's layer.
pub(super) fn tap(bus: &Bus, tap: &mut Tap, now: Instant, packet: &Received<'_>) -> bool {
    let place = match tap.take(now, packet) {
        Ok(place) => place,
        Err(reason) => return reason == DropReason::AwaitingKeyframe,
    };
    let payload = Bytes::copy_from_slice(packet.payload);
    let timestamp = place.timestamp as u32;
    match packet.codec {
        Codec::Opus => bus.push_audio(
            packet.track,
            AudioPacket {
                seq: place.seq,
                timestamp,
                arrival: now,
                level: packet.level.map(|level| AudioLevel {
                    dbov: level.dbov,
                    voice: level.voice,
                }),
                payload,
            },
        ),
        Codec::H264 => bus.push_video(
            packet.track,
            VideoPacket {
                seq: place.seq,
                timestamp,
                marker: packet.marker,
                orientation: packet.orientation.unwrap_or(0),
                arrival: now,
                payload,
            },
        ),
        Codec::Vp8 | Codec::Vp9 | Codec::Av1 => {}
    }
    false
}

impl Worker {
    /// Opens the senders of what the peer gets mixed, as far as they are not there yet.
    pub(super) fn begin_mixed(&mut self, slot: Slot) {
        let peer = &mut self.peers[slot];
        let delivery = peer.params.delivery;
        let mut begun = false;
        for codec in [Codec::Opus, Codec::H264] {
            let kind = codec.kind();
            if delivery.forwards(kind) || peer.receiving.mixed(kind).is_some() {
                continue;
            }
            let carried = Carried {
                kind,
                codec,
                stream_id: MIXED_STREAM.into(),
                track_id: mixed_track_id(kind),
                cname: format!("{MIXED_STREAM}-{}", peer.id),
                dedicated: true,
            };
            let sender = open_sender(peer, carried);
            *peer.receiving.mixed(kind) = Some(MixedSender::new(sender));
            begun = true;
        }
        if begun {
            peer.receiving.rung = Rung::for_limit(peer.params.max_receive_bps);
        }
    }

    /// Ends the mixed track of a kind, if the peer has it.
    pub(super) fn end_mixed(&mut self, slot: Slot, kind: MediaKind) {
        let peer = &mut self.peers[slot];
        let Some(ended) = peer.receiving.mixed(kind).take() else {
            return;
        };
        close_sender(peer, ended.sender);
        let (id, room) = (peer.id, peer.room);
        if let Some(bus) = self.rooms.get(&room).and_then(|room| room.bus.as_ref()) {
            match kind {
                MediaKind::Audio => bus.remove_listener(id),
                MediaKind::Video => bus.remove_viewer(id),
            }
        }
    }

    pub(super) fn on_mixed_lines(&mut self, slot: Slot, send: &[SendLine]) {
        let receiving = &mut self.peers[slot].receiving;
        for mixed in [&mut receiving.sound, &mut receiving.picture] {
            if let Some(mixed) = mixed {
                mixed.line = send.iter().any(|line| line.sender == mixed.sender);
            }
        }
        self.begin_listening(slot);
    }

    /// For a client whose keys are there the bus makes what has an m-line.
    pub(super) fn begin_listening(&mut self, slot: Slot) {
        let peer = &mut self.peers[slot];
        if !peer.session.is_connected() {
            return;
        }
        let (id, room) = (peer.id, peer.room);
        let Receiving {
            sound,
            picture,
            rung,
            ..
        } = &mut peer.receiving;
        let hears = sound.as_mut().is_some_and(MixedSender::begins);
        let sees = picture.as_mut().is_some_and(MixedSender::begins);
        let rung = *rung;
        if !hears && !sees {
            return;
        }
        self.update_bus(room);
        if let Some(bus) = self.rooms.get(&room).and_then(|room| room.bus.as_ref()) {
            if hears {
                bus.add_listener(id, rung);
            }
            if sees {
                bus.add_viewer(id, rung);
            }
        }
        self.tell_layout(slot);
    }

    /// The client cannot take what a mixed sender carries. False: it is no mixed sender's.
    pub(super) fn on_mixed_refused(&mut self, slot: Slot, sender: u64, reason: &str) -> bool {
        let receiving = &self.peers[slot].receiving;
        let is = |mixed: Option<MixedSender>| mixed.is_some_and(|mixed| mixed.sender == sender);
        let message = if is(receiving.picture) {
            format!("there is no mixed picture for this client: {reason}; the mixed sound goes on")
        } else if is(receiving.sound) {
            format!("there is no mixed sound for this client: {reason}")
        } else {
            return false;
        };
        self.emit(slot, |peer| Event::Failed { peer, message });
        true
    }

    /// Brings the bus in line with the room: it lives while somebody is sent any of the mix, hears every sound that it can
    /// decode, sees the pictures while somebody is sent the mixed one, and knows who has a tile.
    pub(super) fn update_bus(&mut self, key: RoomKey) {
        let Some(room) = self.rooms.get_mut(&key) else {
            return;
        };
        let peers = &self.peers;
        let members = || room.members.iter().filter_map(|slot| peers.get(*slot));
        let is_watched = members().any(|peer| peer.receiving.sees_mix());
        let is_wanted = is_watched || members().any(|peer| peer.receiving.hears_mix());
        if room.bus.is_some() && (!is_wanted || room.is_mix_broken()) {
            room.end_mix();
            room.voices.forget_decoded();
            let tracks = self.tracks.values_mut();
            tracks.filter(|track| track.room == key).for_each(|track| {
                track.tapped = false;
                track.tap = Tap::default();
            });
        }
        if !is_wanted {
            return;
        }
        let is_new = room.bus.is_none();
        let bus = room
            .bus
            .get_or_insert_with(|| Bus::start(key, &self.codecs, self.bus_sender.clone()));
        if is_new {
            bus.set_layout(room.layout_wish);
        }
        for slot in room.members.iter().filter(|_| is_new) {
            let Some(peer) = peers.get(*slot) else {
                continue;
            };
            if peer.receiving.hears_mix() {
                bus.add_listener(peer.id, peer.receiving.rung);
            }
            if peer.receiving.sees_mix() {
                bus.add_viewer(peer.id, peer.receiving.rung);
            }
        }
        let mut participants = Vec::with_capacity(room.members.len());
        for &slot in &room.members {
            let Some(peer) = peers.get(slot) else {
                continue;
            };
            if peer.published.is_empty() {
                continue;
            }
            let (mut muted, mut camera_off) = (true, true);
            for track_key in &peer.published {
                let Some(track) = self.tracks.get_mut(track_key) else {
                    continue;
                };
                let is_video = track.info.kind == MediaKind::Video;
                muted &= is_video || track.muted;
                camera_off &= !is_video || track.muted || track.source == SourceType::Screen;
                let is_mixed = is_mixable(track.info.codec) && (is_watched || !is_video);
                if std::mem::replace(&mut track.tapped, is_mixed) == is_mixed {
                    continue;
                }
                if !is_mixed {
                    track.tap = Tap::default();
                    bus.remove_source(*track_key);
                    continue;
                }
                let screen = track.source == SourceType::Screen;
                match track.info.kind {
                    MediaKind::Audio => bus.add_audio_source(*track_key, peer.id, screen),
                    MediaKind::Video => bus.add_video_source(*track_key, peer.id, screen),
                }
                if track.muted {
                    bus.set_muted(*track_key, true);
                }
            }
            participants.push(Participant {
                peer: peer.id,
                name: peer.params.name.clone(),
                speaking: peer.speaking.is_speaking(),
                muted,
                camera_off,
                avatar: None,
            });
        }
        bus.set_participants(participants);
        if is_new {
            self.begin_decoding(key);
        }
    }

    /// The tiles of the picture that a mixed peer receives.
    pub(super) fn tell_layout(&mut self, slot: Slot) {
        let peer = &self.peers[slot];
        if !peer.receiving.sees_mix() {
            return;
        }
        let rung = peer.receiving.rung.video();
        let room = self.rooms.get(&peer.room);
        let layout = room.and_then(|room| room.layouts.get(&rung)).cloned();
        if let Some(layout) = layout {
            self.emit(slot, |peer| Event::Layout { peer, layout });
        }
    }

    /// The wish outlives the bus. What the bus says next is told to everybody: it is the answer.
    pub(super) fn set_layout(&mut self, key: RoomKey, wish: LayoutWish) {
        let Some(room) = self.rooms.get_mut(&key) else {
            return;
        };
        room.layout_wish = wish;
        room.layouts.clear();
        if let Some(bus) = &room.bus {
            bus.set_layout(wish);
        }
    }

    pub(super) fn handle_bus(&mut self, now: Instant, output: BusOutput) {
        match output {
            BusOutput::Audio {
                room,
                frames,
                routes,
                speaking,
            } => {
                for (id, is_speaking) in speaking {
                    self.on_decoded(id, is_speaking);
                }
                for frame in &frames {
                    self.send_audio(now, room, frame, &routes);
                }
            }
            BusOutput::Video {
                room,
                rung,
                timestamp,
                keyframe,
                access_unit,
            } => {
                self.send_picture(now, room, rung, timestamp, keyframe, &access_unit);
            }
            BusOutput::Layout { room, rung, layout } => self.on_layout(room, rung, layout),
            BusOutput::KeyframeWanted { track } => {
                if let Some(room) = self.tracks.get(&track).map(|track| track.room) {
                    self.request_keyframe(now, room, track, BEST_LAYER);
                }
            }
        }
    }

    fn on_layout(&mut self, key: RoomKey, rung: VideoRung, layout: MixedLayout) {
        let Some(room) = self.rooms.get_mut(&key).filter(|room| room.bus.is_some()) else {
            return;
        };
        if room.layouts.get(&rung) == Some(&layout) {
            return;
        }
        room.layouts.insert(rung, layout);
        for slot in room.members.clone() {
            if self.peers[slot].receiving.rung.video() == rung {
                self.tell_layout(slot);
            }
        }
    }

    /// One frame of one mix to everybody who hears it.
    fn send_audio(
        &mut self,
        now: Instant,
        key: RoomKey,
        frame: &MixedAudio,
        routes: &[(crate::ids::PeerId, MixId)],
    ) {
        // What a bus sent before it ended comes too late.
        let Some(room) = self.rooms.get_mut(&key).filter(|room| room.bus.is_some()) else {
            return;
        };
        if matches!(frame.mix, MixId::Minus(peer, _) if !self.slots.contains_key(&peer)) {
            return;
        }
        let timestamp = room.audio_time.unwrap(frame.timestamp);
        let stream = room.audio.entry(frame.mix).or_default();
        stream.clock = Some(SenderClock {
            ntp: Ntp::from_system(SystemTime::now()),
            timestamp,
            generation: 0,
        });
        let packet = next_packet(
            stream,
            Codec::Opus,
            timestamp,
            frame.marker,
            true,
            &frame.payload,
        );
        for (peer, _) in routes.iter().filter(|(_, mix)| *mix == frame.mix) {
            let Some(&slot) = self.slots.get(peer) else {
                continue;
            };
            let peer = &mut self.peers[slot];
            let Some(sound) = peer.receiving.sound.as_mut().filter(|sound| sound.line) else {
                continue;
            };
            let sender = sound.sender;
            if sound.track.replace(packet.track) != Some(packet.track) {
                peer.session
                    .subscriber
                    .attach(sender, packet.track, Codec::Opus);
            }
            let forwarding = peer.session.forward(now, sender, &packet);
            if forwarding == Forwarding::Queued && !std::mem::replace(&mut peer.dirty, true) {
                self.dirty.push(slot);
            }
        }
    }

    /// One picture of one rung to everybody on it. A client that moves to the rung begins with a keyframe, and
    /// stays on its old one until then.
    fn send_picture(
        &mut self,
        now: Instant,
        key: RoomKey,
        rung: VideoRung,
        timestamp: u32,
        keyframe: bool,
        access_unit: &[u8],
    ) {
        let Some(room) = self.rooms.get_mut(&key).filter(|room| room.bus.is_some()) else {
            return;
        };
        let timestamp = room.video_time.unwrap(timestamp);
        let stream = room.video.entry(rung).or_default();
        stream.clock = Some(SenderClock {
            ntp: Ntp::from_system(SystemTime::now()),
            timestamp,
            generation: 0,
        });
        let listeners: Vec<(Slot, u64)> = room
            .members
            .iter()
            .filter_map(|&slot| {
                let peer = self.peers.get_mut(slot)?;
                let wanted = peer.receiving.rung.video();
                let picture = peer.receiving.picture.as_mut();
                let picture = picture.filter(|picture| picture.line && picture.listening)?;
                if picture.track != Some(stream.key) {
                    if !(keyframe && wanted == rung) {
                        return None;
                    }
                    picture.track = Some(stream.key);
                    peer.session
                        .subscriber
                        .attach(picture.sender, stream.key, Codec::H264);
                }
                Some((slot, picture.sender))
            })
            .collect();
        let peers = &mut self.peers;
        let (dirty, next_timer) = (&mut self.dirty, &mut self.next_timer);
        let mut wants_keyframe = false;
        self.packetizer.packetize(access_unit, |payload, last| {
            let packet = next_packet(stream, Codec::H264, timestamp, last, keyframe, payload);
            for &(slot, sender) in &listeners {
                let Some(peer) = peers.get_mut(slot) else {
                    continue;
                };
                let forwarding = peer.session.forward(now, sender, &packet);
                wants_keyframe |= forwarding == Forwarding::WantsKeyframe;
                if forwarding == Forwarding::Held {
                    *next_timer = (*next_timer).min(peer.wake_for_pacer());
                }
                if forwarding == Forwarding::Queued && !std::mem::replace(&mut peer.dirty, true) {
                    dirty.push(slot);
                }
            }
        });
        if wants_keyframe && let Some(bus) = &room.bus {
            bus.request_keyframe(rung);
        }
    }

    /// A peer began or stopped speaking: the room is told, and its tile gets or loses its border.
    pub(super) fn on_speaking(&mut self, slot: Slot, speaking: bool) {
        self.emit(slot, |peer| Event::Speaking { peer, speaking });
        let room = self.peers[slot].room;
        if self.rooms.get(&room).is_some_and(|room| room.bus.is_some()) {
            self.update_bus(room);
        }
    }
}

fn next_packet<'p>(
    stream: &mut MixedTrack,
    codec: Codec,
    timestamp: u64,
    marker: bool,
    keyframe: bool,
    payload: &'p [u8],
) -> Received<'p> {
    stream.seq += 1;
    Received {
        track: stream.key,
        first: false,
        codec,
        layer: Layer::default(),
        layers: LayerSet::LOWEST,
        temporal: 0,
        rises_to: 0,
        generation: 0,
        seq: stream.seq,
        timestamp,
        shift: None,
        marker,
        keyframe,
        recovered: false,
        broken: false,
        repair_time: Duration::ZERO,
        level: None,
        orientation: None,
        playout: None,
        dependency_descriptor: None,
        red: None,
        within_red: false,
        payload,
    }
}
