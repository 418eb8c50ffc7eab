//! The mixed delivery: the room's bus, its listeners, and its streams on their way to them.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::ids::{PeerId, RoomKey, TrackKey};
use crate::mcu::audio::{AudioLevel, AudioPacket, AudioRung, MixId};
use crate::mcu::bus::{Bus, BusOutput, MixedAudio};
use crate::mcu::codec::SourceCodec;
use crate::mcu::feed::VideoPacket;
use crate::mcu::ladder::VideoRung;
use crate::mcu::video::Participant;
use crate::rtp::ntp::Ntp;
use crate::rtp::params::{Codec, MediaKind, SendLine};
use crate::sfu::{
    DropReason, Layer, LayerSet, Publisher, Received, SenderClock, Tap, Target, layer_for_tile,
};
use crate::worker::delivery::{Carried, close_sender, open_sender};
use crate::worker::demux::Slot;
use crate::worker::figures::mixed_track_id;
use crate::worker::rungs::{audio_rung, first_rung, target_of};
use crate::worker::session::Forwarding;
use crate::worker::state::{MixedSender, MixedView, Peer, Track, prefetch_receivers, video_codec};
use crate::worker::thread::Worker;
use crate::worker::{Avatar, Event, LayoutWish, MixedLayout, SourceType};

/// Stream and track ids of the mixed tracks.
pub(super) const MIXED_STREAM: &str = "mixed";

/// Taken for the tile of a picture until the bus has told its size.
pub(super) const UNTOLD_TILE: (u32, u32) = (640, 360);

/// Lets the bus have the layer that fits the track's tile, and nothing where there is no tile. What it has goes on until a
/// keyframe of the returned layer is there.
pub(super) fn aim(track: &mut Track, publisher: &mut Publisher, now: Instant) -> Option<Layer> {
    let target = match track.tile {
        None => Target::Paused,
        Some(_) if !track.info.simulcast => Target::BEST,
        Some(tile) => Target::UpTo {
            layer: layer_for_tile(&publisher.layers(now, track.info.key), tile),
            temporal: u8::MAX,
        },
    };
    track.tap.set_target(target)
}

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
        Codec::Opus | Codec::G722 | Codec::Pcmu | Codec::Pcma => bus.push_audio(
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
        Codec::H264 | Codec::Vp8 => bus.push_video(
            packet.track,
            VideoPacket {
                seq: place.seq,
                timestamp,
                marker: packet.marker,
                orientation: packet.orientation,
                arrival: now,
                payload,
            },
        ),
        Codec::Vp9 | Codec::Av1 => {}
    }
    false
}

/// Opens a sender of a mixed track and returns its id.
fn open_mixed(peer: &mut Peer, codec: Codec) -> u64 {
    let cname = format!("{MIXED_STREAM}-{}", peer.id);
    open_sender(
        peer,
        Carried {
            kind: codec.kind(),
            codec,
            stream_id: MIXED_STREAM.into(),
            track_id: mixed_track_id(codec.kind()),
            cname,
            dedicated: true,
        },
    )
}

/// The bus makes the sound for one who is to hear it.
fn listen(bus: &Bus, id: PeerId, rung: AudioRung, sound: &MixedSender) {
    bus.add_listener(id, rung);
    bus.set_stereo(id, sound.stereo);
    bus.set_lossy(id, sound.lossy);
}

impl Worker {
    /// Opens the senders of what the peer gets mixed, as far as they are not there yet.
    pub(super) fn begin_mixed(&mut self, slot: Slot) {
        let peer = &mut self.peers[slot];
        let delivery = peer.params.delivery;
        if !delivery.forwards(MediaKind::Audio) && peer.receiving.sound.is_none() {
            let sender = open_mixed(peer, Codec::Opus);
            let limit = peer.params.max_receive_bps;
            peer.receiving.sound = Some(MixedSender::new(sender, limit));
        }
        if !delivery.forwards(MediaKind::Video) && peer.receiving.picture.is_none() {
            let shape = peer.params.canvas.unwrap_or_default();
            peer.receiving.picture = Some(MixedView {
                sender: open_mixed(peer, Codec::H264),
                line: false,
                listening: false,
                track: None,
                rung: first_rung(&self.codecs.ladder, shape, peer.params.max_receive_bps),
                shape,
                share: None,
            });
        }
    }

    /// Ends the mixed sound, if the peer has it.
    pub(super) fn end_mixed_sound(&mut self, slot: Slot) {
        let peer = &mut self.peers[slot];
        let Some(sound) = peer.receiving.sound.take() else {
            return;
        };
        close_sender(peer, sound.sender);
        let (id, room) = (peer.id, peer.room);
        if let Some(bus) = self.rooms.get(&room).and_then(|room| room.bus.as_ref()) {
            bus.remove_listener(id);
        }
    }

    /// Ends the mixed picture, if the peer has it.
    pub(super) fn end_mixed_picture(&mut self, slot: Slot) {
        let peer = &mut self.peers[slot];
        let Some(view) = peer.receiving.picture.take() else {
            return;
        };
        close_sender(peer, view.sender);
        let (id, room) = (peer.id, peer.room);
        if let Some(bus) = self.rooms.get(&room).and_then(|room| room.bus.as_ref()) {
            bus.set_picture(id, None);
        }
        view.rung
            .video
            .inspect(|rung| self.adjust_rung(room, *rung));
    }

    pub(super) fn on_mixed_lines(&mut self, slot: Slot, send: &[SendLine]) {
        let receiving = &mut self.peers[slot].receiving;
        let has_line = |sender| send.iter().any(|line| line.sender == sender);
        if let Some(view) = &mut receiving.picture {
            view.line = has_line(view.sender);
        }
        if let Some(sound) = &mut receiving.sound {
            sound.line = has_line(sound.sender);
            sound.stereo = send
                .iter()
                .filter(|line| line.sender == sound.sender)
                .flat_map(|line| &line.payloads)
                .any(|payload| payload.stereo);
            let sound = *sound;
            if let (true, Some((id, bus))) = (sound.listening, self.bus_of(slot)) {
                bus.set_stereo(id, sound.stereo);
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
        let receiving = &mut peer.receiving;
        let hears = receiving.sound.as_mut().is_some_and(MixedSender::begins);
        let sees = receiving.picture.as_mut().is_some_and(MixedView::begins);
        let audio = audio_rung(receiving);
        let video = receiving.picture.and_then(|view| view.listens_to().video);
        let sound = receiving.sound;
        if !hears && !sees {
            return;
        }
        self.update_bus(room);
        if let Some(bus) = self.rooms.get(&room).and_then(|room| room.bus.as_ref()) {
            if let (true, Some(sound)) = (hears, sound) {
                listen(bus, id, audio, &sound);
            }
            if sees {
                bus.set_picture(id, video);
            }
        }
        self.tell_layout(slot);
    }

    /// The bus of a peer's room, and what the peer is called there.
    fn bus_of(&self, slot: Slot) -> Option<(PeerId, &Bus)> {
        let peer = self.peers.get(slot)?;
        Some((peer.id, self.rooms.get(&peer.room)?.bus.as_ref()?))
    }

    /// The mixed sound is encoded for a link that loses packets, or for one that does not.
    pub(super) fn note_loss(&mut self, slot: Slot) {
        let peer = &mut self.peers[slot];
        let loss = peer.session.subscriber.loss();
        let Some(sound) = &mut peer.receiving.sound else {
            return;
        };
        let news = sound.note_loss(loss).filter(|_| sound.listening);
        if let (Some(lossy), Some((id, bus))) = (news, self.bus_of(slot)) {
            bus.set_lossy(id, lossy);
        }
    }

    /// The client cannot take what a mixed sender carries. False: it is no mixed sender's.
    pub(super) fn on_mixed_refused(&mut self, slot: Slot, sender: u64, reason: &str) -> bool {
        let receiving = &self.peers[slot].receiving;
        let message = if receiving.picture.is_some_and(|view| view.sender == sender) {
            format!("there is no mixed picture for this client: {reason}; the mixed sound goes on")
        } else if receiving.sound.is_some_and(|sound| sound.sender == sender) {
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
                track.tile = Some(UNTOLD_TILE);
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
            let receiving = &peer.receiving;
            if let Some(sound) = receiving.sound.filter(|sound| sound.listening) {
                listen(bus, peer.id, audio_rung(receiving), &sound);
            }
            if let Some(view) = receiving.picture.filter(|view| view.listening) {
                bus.set_picture(peer.id, view.listens_to().video);
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
                if is_video && !is_watched {
                    if std::mem::take(&mut track.tapped) {
                        track.tap = Tap::default();
                        track.tile = Some(UNTOLD_TILE);
                        bus.remove_source(*track_key);
                    }
                    continue;
                }
                if track.tapped {
                    continue;
                }
                let screen = track.source == SourceType::Screen;
                match track.info.kind {
                    MediaKind::Audio => {
                        bus.add_audio_source(*track_key, peer.id, track.source.is_music());
                        if let Some(codec) = SourceCodec::of(track.info.codec) {
                            bus.set_codec(*track_key, codec);
                        }
                    }
                    MediaKind::Video => match video_codec(track.info.codec) {
                        Some(codec) => bus.add_video_source(*track_key, peer.id, screen, codec),
                        None => continue,
                    },
                }
                track.tapped = true;
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
                avatar: peer.avatar.clone(),
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
        let rung = peer.receiving.picture.and_then(|view| view.rung.video);
        let room = self.rooms.get(&peer.room);
        let layout = rung.and_then(|rung| room?.layouts.get(&rung)).cloned();
        if let Some(layout) = layout {
            self.emit(slot, |peer| Event::Layout { peer, layout });
        }
    }

    /// It outlives the bus, and is seen from the next picture on.
    pub(super) fn set_avatar(&mut self, id: PeerId, avatar: Option<Arc<Avatar>>) {
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        peer.avatar = avatar;
        let room = peer.room;
        self.update_bus(room);
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
        // Sound, which comes fifty times in a second, touches nobody but those whom it is sent to.
        self.flagged |=
            !matches!(&output, BusOutput::Audio { speaking, .. } if speaking.is_empty());
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
                self.coalescing.note_picture(now);
                self.send_picture(now, room, rung, timestamp, keyframe, &access_unit);
            }
            BusOutput::Layout { room, rung, layout } => self.on_layout(room, rung, layout),
            BusOutput::Shown { track, size } => self.on_shown(now, track, size),
            BusOutput::LowestOnly { room, lowest_only } => {
                // The next allocations obey.
                if let Some(room) = self.rooms.get_mut(&room) {
                    room.lowest_only = lowest_only && room.bus.is_some();
                }
            }
            BusOutput::KeyframeWanted { track } => {
                let wanted = self.tracks.get(&track);
                if let Some((room, layer)) =
                    wanted.and_then(|track| Some((track.room, track.tap.needed()?)))
                {
                    self.request_keyframe(now, room, track, layer);
                }
            }
        }
    }

    /// The bus shows a track larger or smaller than before, or not at all.
    fn on_shown(&mut self, now: Instant, key: TrackKey, size: Option<(u32, u32)>) {
        let Some(track) = self.tracks.get_mut(&key).filter(|track| track.tapped) else {
            return;
        };
        track.tile = size;
        let room = track.room;
        let Some(peer) = self.peers.get_mut(track.publisher) else {
            return;
        };
        if let Some(layer) = aim(track, &mut peer.session.publisher, now) {
            self.request_keyframe(now, room, key, layer);
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
            let view = self.peers[slot].receiving.picture;
            if view.is_some_and(|view| view.rung.video == Some(rung)) {
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
        stream.seq += 1;
        let packet = Received {
            marker: frame.marker,
            keyframe: true,
            ..packet(
                stream.key,
                Codec::Opus,
                stream.seq,
                timestamp,
                &frame.payload,
            )
        };
        let mut listeners = std::mem::take(&mut self.listeners);
        listeners.clear();
        let hear = routes.iter().filter(|(_, mix)| *mix == frame.mix);
        listeners.extend(hear.filter_map(|(peer, _)| self.slots.get(peer)));
        for (at, &slot) in listeners.iter().enumerate() {
            prefetch_receivers(&self.peers, |n| listeners.get(at + n).copied());
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
        self.listeners = listeners;
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
        let picture = room.pictures.entry(rung.shape).or_default();
        picture.clock = Some(SenderClock {
            ntp: Ntp::from_system(SystemTime::now()),
            timestamp,
            generation: 0,
        });
        let layer = Layer(rung.step);
        let mut layers: LayerSet = std::iter::once(layer).collect();
        let mut listeners: SmallVec<[(Slot, u64); 16]> = SmallVec::new();
        for &slot in &room.members {
            let Some(peer) = self.peers.get_mut(slot) else {
                continue;
            };
            let Some(view) = &mut peer.receiving.picture else {
                continue;
            };
            let Some(wanted) = view.listens_to().video.filter(|_| view.listening) else {
                continue;
            };
            if wanted.shape == rung.shape {
                layers.insert(Layer(wanted.step));
            }
            let subscriber = &mut peer.session.subscriber;
            if view.track != Some(picture.key) {
                if !(keyframe && wanted == rung) {
                    continue;
                }
                view.track = Some(picture.key);
                subscriber.attach(view.sender, picture.key, Codec::H264);
                subscriber.set_target(view.sender, target_of(view.rung));
            }
            // What it leaves flows until it has a keyframe of what it wants.
            if wanted == rung || subscriber.current(view.sender) == Some(layer) {
                listeners.push((slot, view.sender));
            }
        }
        let peers = &mut self.peers;
        let (dirty, timers) = (&mut self.dirty, &mut self.timers);
        let mut wants_keyframe = false;
        self.packetizer.packetize(access_unit, |payload, last| {
            let seq = &mut picture.seqs[usize::from(rung.step)];
            *seq += 1;
            let packet = Received {
                layer,
                layers,
                generation: u32::from(rung.step),
                shift: Some(0),
                marker: last,
                keyframe,
                ..packet(picture.key, Codec::H264, *seq, timestamp, payload)
            };
            for &(slot, sender) in &listeners {
                let Some(peer) = peers.get_mut(slot) else {
                    continue;
                };
                let forwarding = peer.session.forward(now, sender, &packet);
                wants_keyframe |= forwarding == Forwarding::WantsKeyframe;
                if forwarding == Forwarding::Held {
                    timers.wake(slot, peer.wake_for_pacer());
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

/// A packet of a mixed track's only layer.
fn packet(track: TrackKey, codec: Codec, seq: u64, timestamp: u64, payload: &[u8]) -> Received<'_> {
    Received {
        track,
        first: false,
        codec,
        layer: Layer::default(),
        layers: LayerSet::LOWEST,
        temporal: 0,
        rises_to: 0,
        generation: 0,
        seq,
        timestamp,
        shift: None,
        marker: false,
        keyframe: false,
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
