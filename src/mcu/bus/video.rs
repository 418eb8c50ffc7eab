//! The picture's half of a bus.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::Receiver;

use super::{
    Alive, BusCounters, BusOutput, BusSender, LayoutTile, MixedLayout, PICTURE_INTERVAL, drain,
    raise,
};
use crate::ids::{PeerId, RoomKey, TrackKey};
use crate::mcu::codec::VideoCodec;
use crate::mcu::ladder::VideoRung;
use crate::mcu::pool::{Job, Spawner};
use crate::mcu::video::{Feed, LayoutWish, Load, Overload, Participant, VideoMix, VideoTick};

/// What the worker says to it.
pub(super) enum VideoControl {
    AddSource {
        track: TrackKey,
        peer: PeerId,
        screen: bool,
        codec: VideoCodec,
        feed: Arc<Feed>,
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

/// Counts the room among those with its load, as long as it lives.
pub(super) struct LoadGauge {
    load: Load,
    counters: [Arc<BusCounters>; 2],
}

impl LoadGauge {
    pub(super) fn new(counters: [Arc<BusCounters>; 2]) -> Self {
        let gauge = LoadGauge {
            load: Load::Normal,
            counters,
        };
        gauge.each(|rooms| rooms.fetch_add(1, Ordering::Relaxed));
        gauge
    }

    fn set(&mut self, load: Load) {
        self.each(|rooms| rooms.fetch_sub(1, Ordering::Relaxed));
        self.load = load;
        self.each(|rooms| rooms.fetch_add(1, Ordering::Relaxed));
    }

    fn each(&self, change: impl Fn(&AtomicU64) -> u64) {
        for counters in &self.counters {
            change(&counters.loads[self.load as usize]);
        }
    }
}

impl Drop for LoadGauge {
    fn drop(&mut self) {
        self.each(|rooms| rooms.fetch_sub(1, Ordering::Relaxed));
    }
}

/// While nobody is sent the picture, messages are looked at so often.
const UNSEEN_INTERVAL: Duration = Duration::from_millis(100);

/// Runs when a rung's picture is due.
pub(super) struct VideoJob {
    pub(super) room: RoomKey,
    pub(super) mix: VideoMix,
    pub(super) decoders: Spawner,
    pub(super) control: Receiver<VideoControl>,
    pub(super) tick: VideoTick,
    pub(super) overload: Overload,
    pub(super) gauge: LoadGauge,
    /// What the worker was told last.
    pub(super) lowest_only: bool,
    pub(super) output: BusSender,
    pub(super) counters: Arc<BusCounters>,
    pub(super) _alive: Alive,
}

impl VideoJob {
    fn apply(mix: &mut VideoMix, decoders: &Spawner, control: VideoControl) {
        match control {
            VideoControl::AddSource {
                track,
                peer,
                screen,
                codec,
                feed,
            } => mix.add_fed_source(track, peer, screen, (codec, feed), decoders.clone()),
            VideoControl::RemoveSource(track) => mix.remove_source(track),
            VideoControl::Muted(track, muted) => mix.set_muted(track, muted),
            VideoControl::Participants(participants) => mix.set_participants(participants),
            VideoControl::Layout(wish) => mix.set_layout(wish),
            VideoControl::SetListener(peer, rung) => mix.add_listener(peer, rung),
            VideoControl::RemoveListener(peer) => mix.remove_listener(peer),
            VideoControl::Bitrate(rung, bps) => mix.set_bitrate(rung, bps),
            VideoControl::Keyframe(rung) => mix.request_keyframe(rung),
        }
    }

    /// A tick is done. One that comes after its deadline is late, and where many are, less is made of the picture.
    fn watch_deadline(&mut self, deadline: Instant) {
        let now = Instant::now();
        let late = now > deadline;
        for counters in [&*self.counters, &*self.output.totals] {
            let late = u64::from(late);
            counters.late_pictures.fetch_add(late, Ordering::Relaxed);
        }
        let before = self.overload.load();
        let changed = self.overload.tick(now, late);
        let lowest_only = self.overload.load() == Load::LowestOnly;
        if lowest_only != self.lowest_only {
            let room = self.room;
            // Said again with the next picture, if it gets lost.
            let said = self
                .output
                .send(BusOutput::LowestOnly { room, lowest_only });
            self.lowest_only ^= said;
        }
        let Some(load) = changed else {
            return;
        };
        self.gauge.set(load);
        self.mix.set_load(load);
        let (room, load_name) = (self.room, load.name());
        match load > before {
            true => tracing::warn!(
                ?room,
                load = load_name,
                "pictures are late: less is made of them"
            ),
            false => tracing::info!(
                ?room,
                load = load_name,
                "pictures are in time: more is made of them"
            ),
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
        let (mix, decoders) = (&mut self.mix, &self.decoders);
        if !drain(&self.control, |control| Self::apply(mix, decoders, control)) {
            return None;
        }
        let due = mix.next_tick(now).filter(|due| *due <= now);
        mix.tick(now, &mut self.tick);
        let deadline = due.and_then(|due| mix.deadline(due));
        let output = &self.output;
        mix.tell_shown(|track, size| {
            let size = size.map(|size| (size.width as u32, size.height as u32));
            output.send(BusOutput::Shown { track, size })
        });
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
        for (at, (_, count)) in stats.decode_drops().into_iter().enumerate() {
            let total = &self.output.totals.decode_drops[at];
            raise(&self.counters.decode_drops[at], total, count);
        }
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
        if let Some(deadline) = deadline {
            self.watch_deadline(deadline);
        }
        // The rungs keep their own beat; control messages are looked at once a picture at least, or while nobody looks a
        // little less often.
        let due = self.mix.next_tick(now);
        Some(due.map_or(now + UNSEEN_INTERVAL, |due| {
            due.clamp(now, now + PICTURE_INTERVAL)
        }))
    }
}
