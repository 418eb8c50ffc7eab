//! The picture's half of a bus.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use crossbeam_channel::Receiver;
use crossbeam_queue::ArrayQueue;

use super::{
    Alive, BusCounters, BusOutput, BusSender, LayoutTile, MixedLayout, PICTURE_INTERVAL, drain,
    raise,
};
use crate::ids::{PeerId, RoomKey, TrackKey};
use crate::mcu::feed::VideoPacket;
use crate::mcu::ladder::VideoRung;
use crate::mcu::pool::Job;
use crate::mcu::source::VideoSource;
use crate::mcu::video::{LayoutWish, Participant, VideoMix, VideoTick};

/// What the worker says to it.
pub(super) enum VideoControl {
    AddSource {
        track: TrackKey,
        peer: PeerId,
        screen: bool,
    },
    RemoveSource(TrackKey),
    Muted(TrackKey, bool),
    Participants(Vec<Participant>),
    Layout(LayoutWish),
    SetListener(PeerId, VideoRung),
    RemoveListener(PeerId),
    Bitrate(VideoRung, u32),
    Keyframe(VideoRung),
}

/// Runs when a rung's picture is due.
pub(super) struct VideoJob {
    pub(super) room: RoomKey,
    pub(super) mix: VideoMix,
    pub(super) sources: Vec<VideoSource>,
    pub(super) control: Receiver<VideoControl>,
    pub(super) tap: Arc<ArrayQueue<(TrackKey, VideoPacket)>>,
    pub(super) tick: VideoTick,
    pub(super) output: BusSender,
    pub(super) counters: Arc<BusCounters>,
    pub(super) _alive: Alive,
}

impl VideoJob {
    fn apply(mix: &mut VideoMix, sources: &mut Vec<VideoSource>, control: VideoControl) {
        match control {
            VideoControl::AddSource {
                track,
                peer,
                screen,
            } => {
                mix.add_source(track, peer, screen);
                sources.push(VideoSource::new(track));
            }
            VideoControl::RemoveSource(track) => {
                mix.remove_source(track);
                sources.retain(|source| source.track() != track);
            }
            VideoControl::Muted(track, muted) => mix.set_muted(track, muted),
            VideoControl::Participants(participants) => mix.set_participants(participants),
            VideoControl::Layout(wish) => mix.set_layout(wish),
            VideoControl::SetListener(peer, rung) => mix.add_listener(peer, rung),
            VideoControl::RemoveListener(peer) => mix.remove_listener(peer),
            VideoControl::Bitrate(rung, bps) => mix.set_bitrate(rung, bps),
            VideoControl::Keyframe(rung) => mix.request_keyframe(rung),
        }
    }

    fn send_layout(&self) {
        for rung in self.mix.rungs_in_use() {
            let layout = self.mix.layout(rung);
            let tiles = layout.tiles.into_iter().map(|(peer, rect)| LayoutTile {
                peer,
                x: rect.x as u32,
                y: rect.y as u32,
                width: rect.width as u32,
                height: rect.height as u32,
            });
            let layout = MixedLayout {
                shown: layout.shown,
                canvas: layout.canvas,
                tiles: tiles.collect(),
            };
            self.output.send(BusOutput::Layout {
                room: self.room,
                rung,
                layout,
            });
        }
    }
}

impl Job for VideoJob {
    fn run(&mut self, now: Instant) -> Option<Instant> {
        let (mix, sources) = (&mut self.mix, &mut self.sources);
        if !drain(&self.control, |control| Self::apply(mix, sources, control)) {
            return None;
        }
        while let Some((track, packet)) = self.tap.pop() {
            if let Some(source) = sources.iter_mut().find(|source| source.track() == track) {
                source.push(packet);
            }
        }
        for source in sources.iter_mut() {
            while let Some(unit) = source.pop(now) {
                mix.push(source.track(), unit);
            }
        }
        mix.tick(now, &mut self.tick);
        let stats = mix.stats();
        raise(
            &self.counters.video_decodes,
            &self.output.totals.video_decodes,
            stats.decoded,
        );
        raise(
            &self.counters.video_encodes,
            &self.output.totals.video_encodes,
            stats.encoded,
        );
        raise(
            &self.counters.video_keyframes,
            &self.output.totals.video_keyframes,
            stats.keyframes,
        );
        for track in self.mix.keyframe_wishes() {
            self.output.send(BusOutput::KeyframeWanted { track });
        }
        if self.tick.layout_changed {
            self.send_layout();
        }
        for (frame, access_unit) in self.tick.encoded() {
            self.output.send(BusOutput::Video {
                room: self.room,
                rung: frame.rung,
                timestamp: frame.timestamp,
                keyframe: frame.keyframe,
                access_unit: Bytes::copy_from_slice(access_unit),
            });
        }
        // The rungs keep their own beat; control messages are looked at once a picture at least.
        let due = self.mix.next_tick(now);
        Some(due.map_or(now + PICTURE_INTERVAL, |due| {
            due.clamp(now, now + PICTURE_INTERVAL)
        }))
    }
}
