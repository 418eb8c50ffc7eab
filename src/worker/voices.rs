//! Who speaks, for the rooms of a worker: elections, what is withheld from forwarded clients, and what they are told.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use crate::ids::{PeerId, RoomKey, TrackKey};
use crate::rtp::opus::payload_samples;
use crate::rtp::params::{MediaKind, Ssrc};
use crate::sfu::{Received, Sound, Speakers, VoiceId};
use crate::worker::delivery::BEST_LAYER;
use crate::worker::demux::Slot;
use crate::worker::speaking::VoicePacket;
use crate::worker::thread::Worker;
use crate::worker::{Event, SourceType, VoiceLimits};

/// Samples of 20 ms.
const SLOT_SAMPLES: u32 = 960;
/// What silence is, in the terms of RFC 6464.
const SILENCE: u8 = 127;

/// A publisher began or stopped speaking, and how that showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoiceReport {
    /// The publisher's track id.
    pub track_id: String,
    /// The publisher's stream id.
    pub stream_id: String,
    /// The publisher's media stream.
    pub ssrc: Ssrc,
    /// Hz.
    pub clock_rate: u32,
    /// Speaks now?
    pub speaking: bool,
    /// The last packets, oldest first; at an end only those without voice.
    pub packets: Vec<VoicePacket>,
}

/// The voices of one room.
#[derive(Debug)]
pub struct Voices {
    /// Dominance and loudness.
    pub speakers: Speakers,
    limits: VoiceLimits,
    /// Members, who was dominant last first; those who never were follow in the order in which they came.
    order: Vec<Slot>,
    spoken: usize,
}

impl Voices {
    /// A room where nobody has spoken.
    pub fn new(limits: VoiceLimits) -> Self {
        let mut speakers = Speakers::default();
        speakers.set_limit(limits.audio);
        Voices {
            speakers,
            limits,
            order: Vec::new(),
            spoken: 0,
        }
    }

    /// A member came.
    pub fn enter(&mut self, slot: Slot) {
        self.order.push(slot);
    }

    /// A member left.
    pub fn leave(&mut self, slot: Slot) {
        if let Some(at) = self.order.iter().position(|known| *known == slot) {
            self.order.remove(at);
            self.spoken -= usize::from(at < self.spoken);
        }
    }

    /// A member won an election.
    fn speaks(&mut self, slot: Slot) {
        if let Some(at) = self.order.iter().position(|known| *known == slot) {
            self.order[..=at].rotate_right(1);
            self.spoken += usize::from(at >= self.spoken);
        }
    }

    /// Whose picture comes before the other tiles of `slot`: of the others, who was dominant last. `None`: nobody spoke.
    pub fn dominant_for(&self, slot: Slot) -> Option<Slot> {
        let spoken = &self.order[..self.spoken];
        spoken.iter().copied().find(|speaker| *speaker != slot)
    }

    /// Members by how recently they were the dominant speaker: what an allocator of bandwidth serves first.
    pub fn order(&self) -> &[Slot] {
        &self.order
    }

    /// The mixer has ended: levels are all there is.
    pub fn forget_decoded(&mut self) {
        self.speakers.set_all_decoded(None);
    }
}

impl Worker {
    /// A track of sound has a voice.
    pub(super) fn add_voice(&mut self, now: Instant, key: TrackKey) {
        let Some(track) = self.tracks.get_mut(&key) else {
            return;
        };
        let Some(room) = self.rooms.get_mut(&track.room) else {
            return;
        };
        match track.info.kind {
            MediaKind::Audio => {
                let voice = room.voices.speakers.insert(now);
                if room.bus.is_some() {
                    room.voices.speakers.set_decoded(voice, Some(false));
                }
                track.voice = Some(voice);
            }
            MediaKind::Video => {
                let room = track.room;
                self.choose_pictures(now, room);
            }
        }
    }

    /// It became known what a track shows.
    pub(super) fn voice_source(&mut self, now: Instant, key: TrackKey) {
        let Some(track) = self.tracks.get(&key) else {
            return;
        };
        let music = track.source.is_music();
        match (track.voice, self.rooms.get_mut(&track.room)) {
            (Some(voice), Some(room)) => room.voices.speakers.set_screen(voice, music),
            _ => {
                let room = track.room;
                self.choose_pictures(now, room);
            }
        }
    }

    /// A packet of sound: whether it is voice, and whether it is among the loudest.
    pub(super) fn hear(&mut self, now: Instant, slot: Slot, packet: &Received<'_>) {
        let Some(track) = self.tracks.get_mut(&packet.track) else {
            return;
        };
        let (Some(voice), Some(room)) = (track.voice, self.rooms.get_mut(&track.room)) else {
            return;
        };
        if track.muted {
            return;
        }
        let speakers = &mut room.voices.speakers;
        let sound = Sound {
            level: packet.level,
            slots: payload_samples(packet.payload).map_or(1, |n| n.div_ceil(SLOT_SAMPLES)),
        };
        let passage = speakers.handle_packet(now, voice, sound);
        let believed = speakers.is_believed(voice);
        if passage.passes == track.withheld {
            self.set_withheld(packet.track, !passage.passes);
        }
        if let Some(displaced) = passage.displaced {
            self.withhold_voice(displaced, packet.track);
        }
        let Some(level) = packet.level else {
            return;
        };
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        peer.has_levels = true;
        let heard = VoicePacket {
            seq: packet.seq as u16,
            timestamp: packet.timestamp as u32,
            dbov: if believed { level.dbov } else { SILENCE },
            voice: believed && level.voice,
        };
        if let Some(speaking) = peer.speaking.handle_packet(now, heard) {
            self.on_voice(now, slot, Some(packet.track), speaking);
        }
    }

    /// Another voice of the room has taken this one's place.
    fn withhold_voice(&mut self, displaced: VoiceId, by: TrackKey) {
        let Some(room) = self.tracks.get(&by).map(|track| track.room) else {
            return;
        };
        let found = self
            .tracks
            .iter_mut()
            .find(|(_, track)| track.room == room && track.voice == Some(displaced));
        if let Some((key, _)) = found {
            let key = *key;
            self.set_withheld(key, true);
        }
    }

    /// Stops or resumes the forwarding of a track. Numbers go on without a gap, so that no receiver asks for what was
    /// not sent.
    fn set_withheld(&mut self, key: TrackKey, withheld: bool) {
        let Some(track) = self.tracks.get_mut(&key) else {
            return;
        };
        track.withheld = withheld;
        if !withheld {
            return;
        }
        for (slot, sender) in &track.subscribers {
            if let Some(peer) = self.peers.get_mut(*slot) {
                peer.session.subscriber.pause(*sender);
            }
        }
    }

    /// Of the cameras, those of the members who spoke last are forwarded. Called when that order or the tracks change.
    pub(super) fn choose_pictures(&mut self, now: Instant, key: RoomKey) {
        let Some(room) = self.rooms.get(&key) else {
            return;
        };
        let Some(limit) = room.voices.limits.video else {
            return;
        };
        let mut left = limit;
        let mut changes = Vec::new();
        for slot in room.voices.order() {
            let Some(peer) = self.peers.get(*slot) else {
                continue;
            };
            for track_key in &peer.published {
                let Some(track) = self.tracks.get(track_key) else {
                    continue;
                };
                if track.info.kind != MediaKind::Video {
                    continue;
                }
                let screen = track.source == SourceType::Screen;
                let shown = screen || left > 0;
                left -= usize::from(shown && !screen);
                if track.withheld == shown {
                    changes.push((*track_key, !shown));
                }
            }
        }
        for (track, withheld) in changes {
            self.set_withheld(track, withheld);
            if !withheld {
                self.request_keyframe(now, key, track, BEST_LAYER);
            }
        }
    }

    /// The elections that are due.
    pub(super) fn elect(&mut self, now: Instant) {
        let mut elected: smallvec::SmallVec<[(RoomKey, VoiceId); 4]> = Default::default();
        for (key, room) in &mut self.rooms {
            let winner = room.voices.speakers.handle_timeout(now);
            elected.extend(winner.map(|voice| (*key, voice)));
        }
        for (key, voice) in elected {
            let owner = self
                .tracks
                .values()
                .find(|track| track.room == key && track.voice == Some(voice))
                .map(|track| track.publisher);
            let Some(slot) = owner else {
                continue;
            };
            self.emit(slot, |peer| Event::ActiveSpeaker { peer });
            if let Some(room) = self.rooms.get_mut(&key) {
                room.voices.speaks(slot);
            }
            self.choose_pictures(now, key);
        }
    }

    /// The mixer begins to decode: whoever claims to speak is checked from now on.
    pub(super) fn begin_decoding(&mut self, key: RoomKey) {
        if let Some(room) = self.rooms.get_mut(&key) {
            room.voices.speakers.set_all_decoded(Some(false));
        }
    }

    /// The mixer has decoded a member's sound and heard that it began or stopped speaking.
    pub(super) fn on_decoded(&mut self, id: PeerId, speaking: bool) {
        let Some(&slot) = self.slots.get(&id) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        if let Some(room) = self.rooms.get_mut(&peer.room) {
            let tracks = peer.published.iter().filter_map(|key| self.tracks.get(key));
            for voice in tracks.filter_map(|track| track.voice) {
                room.voices.speakers.set_decoded(voice, Some(speaking));
            }
        }
        if !peer.has_levels && peer.speaking.set(speaking) {
            self.on_speaking(slot, speaking);
        }
    }

    /// The levels of a member say that it began or stopped speaking.
    pub(super) fn on_voice(
        &mut self,
        now: Instant,
        slot: Slot,
        track: Option<TrackKey>,
        speaking: bool,
    ) {
        let Some(peer) = self.peers.get(slot) else {
            return;
        };
        let mut published = peer.published.iter();
        let is_voice = |key: &&TrackKey| {
            let track = self.tracks.get(*key);
            track.is_some_and(|track| track.voice.is_some())
        };
        let key = track.or_else(|| published.find(is_voice).copied());
        if let Some(key) = key
            && let Some(track) = self.tracks.get(&key)
            && let Some(ssrc) = peer.session.publisher.ssrc(key)
        {
            let report = VoiceReport {
                track_id: track.info.track_id.clone(),
                stream_id: track.info.stream_id.clone(),
                ssrc,
                clock_rate: track.info.codec.clock_rate(),
                speaking,
                // An end without packets, as with DTX, is shown by none.
                packets: (peer.speaking.recent().iter().copied())
                    .filter(|packet| speaking || !packet.voice)
                    .collect(),
            };
            self.tell_channels(now, slot, &report);
            let report = Arc::new(report);
            self.emit(slot, |peer| Event::Voice { peer, report });
        }
        self.on_speaking(slot, speaking);
    }

    /// The data channels of those who are forwarded a member's voice.
    fn tell_channels(&mut self, now: Instant, publisher: Slot, report: &VoiceReport) {
        let text = channel_text(report);
        let room = self.peers[publisher].room;
        let Some(room) = self.rooms.get(&room) else {
            return;
        };
        for slot in &room.members {
            if let Some(peer) = self.peers.get_mut(*slot)
                && *slot != publisher
                && peer.params.delivery.forwards(MediaKind::Audio)
                && peer.session.is_connected()
            {
                peer.session.send_text(now, &text);
                peer.touched = true;
                self.touched.push(*slot);
            }
        }
    }
}

/// `vad_started` and `vad_ended` as the old server's clients read them.
fn channel_text(report: &VoiceReport) -> String {
    #[derive(Serialize)]
    struct Message<'a> {
        #[serde(rename = "type")]
        kind: &'static str,
        data: Activity<'a>,
    }
    #[derive(Serialize)]
    struct Activity<'a> {
        #[serde(rename = "trackID")]
        track_id: &'a str,
        #[serde(rename = "streamID")]
        stream_id: &'a str,
        ssrc: u32,
        #[serde(rename = "clockRate")]
        clock_rate: u32,
        #[serde(rename = "audioLevels")]
        levels: Vec<Level>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Level {
        sequence_no: u16,
        timestamp: u32,
        audio_level: u8,
        is_voice: bool,
    }
    let levels = report.packets.iter().map(|packet| Level {
        sequence_no: packet.seq,
        timestamp: packet.timestamp,
        audio_level: packet.dbov,
        is_voice: packet.voice,
    });
    let message = Message {
        kind: if report.speaking {
            "vad_started"
        } else {
            "vad_ended"
        },
        data: Activity {
            track_id: &report.track_id,
            stream_id: &report.stream_id,
            ssrc: report.ssrc.0,
            clock_rate: report.clock_rate,
            levels: levels.collect(),
        },
    };
    serde_json::to_string(&message).expect("it has text keys and whole numbers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_clients_read_the_beginning_of_a_voice() {
        let report = VoiceReport {
            track_id: "t".into(),
            stream_id: "s".into(),
            ssrc: Ssrc(7),
            clock_rate: 48_000,
            speaking: true,
            packets: vec![VoicePacket {
                seq: 3,
                timestamp: 960,
                dbov: 30,
                voice: true,
            }],
        };
        assert_eq!(
            channel_text(&report),
            r#"{"type":"vad_started","data":{"trackID":"t","streamID":"s","ssrc":7,"clockRate":48000,"audioLevels":[{"sequenceNo":3,"timestamp":960,"audioLevel":30,"isVoice":true}]}}"#
        );
        let ended = VoiceReport {
            speaking: false,
            ..report
        };
        assert!(channel_text(&ended).starts_with(r#"{"type":"vad_ended","#));
    }

    #[test]
    fn the_last_speakers_come_first_and_the_silent_in_the_order_of_their_coming() {
        let mut voices = Voices::new(VoiceLimits::default());
        (0..5).for_each(|slot| voices.enter(slot));
        voices.speaks(3);
        voices.speaks(1);
        assert_eq!(voices.order(), [1, 3, 0, 2, 4]);
        voices.speaks(3);
        voices.leave(1);
        voices.enter(1);
        assert_eq!(voices.order(), [3, 0, 2, 4, 1]);
    }
}
