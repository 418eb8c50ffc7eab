//! The sound's half of a bus.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use crossbeam_channel::Receiver;
use crossbeam_queue::ArrayQueue;

use super::{
    AUDIO_INTERVAL, Alive, BusCounters, BusOutput, BusSender, MixedAudio, drain, next_beat, raise,
};
use crate::ids::{PeerId, RoomKey, TrackKey};
use crate::mcu::audio::{AudioMix, AudioPacket, AudioRung, AudioTick};
use crate::mcu::pool::Job;

/// What the worker says to it.
pub(super) enum AudioControl {
    AddSource {
        track: TrackKey,
        peer: PeerId,
        music: bool,
    },
    RemoveSource(TrackKey),
    Muted(TrackKey, bool),
    AddListener(PeerId, AudioRung),
    SetRung(PeerId, AudioRung),
    RemoveListener(PeerId),
}

/// Ticks every [`AUDIO_INTERVAL`].
pub(super) struct AudioJob {
    pub(super) room: RoomKey,
    pub(super) mix: AudioMix,
    pub(super) control: Receiver<AudioControl>,
    pub(super) tap: Arc<ArrayQueue<(TrackKey, AudioPacket)>>,
    pub(super) tick: AudioTick,
    pub(super) due: Instant,
    pub(super) output: BusSender,
    pub(super) counters: Arc<BusCounters>,
    pub(super) _alive: Alive,
}

impl AudioJob {
    fn apply(mix: &mut AudioMix, control: AudioControl) {
        match control {
            AudioControl::AddSource { track, peer, music } => mix.add_source(track, peer, music),
            AudioControl::RemoveSource(track) => mix.remove_source(track),
            AudioControl::Muted(track, muted) => mix.set_muted(track, muted),
            AudioControl::AddListener(peer, rung) => mix.add_listener(peer, rung),
            AudioControl::SetRung(peer, rung) => mix.set_rung(peer, rung),
            AudioControl::RemoveListener(peer) => mix.remove_listener(peer),
        }
    }
}

impl Job for AudioJob {
    fn run(&mut self, now: Instant) -> Option<Instant> {
        let mix = &mut self.mix;
        if !drain(&self.control, |control| Self::apply(mix, control)) {
            return None;
        }
        while let Some((track, packet)) = self.tap.pop() {
            mix.push(track, packet);
        }
        // The mix lives on planned time: a late tick is made up, not moved.
        mix.tick(self.due, &mut self.tick);
        let counters = mix.counters();
        raise(
            &self.counters.audio_decodes,
            &self.output.totals.audio_decodes,
            counters.decodes,
        );
        raise(
            &self.counters.audio_encodes,
            &self.output.totals.audio_encodes,
            counters.encodes,
        );
        if !self.tick.frames.is_empty() || !self.tick.speaking_changes.is_empty() {
            let frames = self.tick.frames.iter().map(|frame| MixedAudio {
                mix: frame.mix,
                timestamp: frame.timestamp,
                marker: frame.resumes,
                payload: Bytes::copy_from_slice(self.tick.payload(frame)),
            });
            self.output.send(BusOutput::Audio {
                room: self.room,
                frames: frames.collect(),
                routes: self.tick.routes.clone(),
                speaking: self.tick.speaking_changes.clone(),
            });
        }
        self.due = next_beat(self.due, now, AUDIO_INTERVAL);
        Some(self.due)
    }
}
