//! The mixed picture of one room: decode, compose, encode once per rung.
//!
//! [`VideoMix`] has no threads and no clock: whoever owns it pushes access units in, calls [`VideoMix::tick`] when
//! [`VideoMix::next_tick`] says so, sends what the tick has encoded, and passes [`VideoMix::keyframe_wishes`] on
//! to the senders. Each source is decoded once, each rung in use is composed and encoded once, and without
//! listeners nothing is.

mod rung;
mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

use bytes::Bytes;
use talksy_mixer::video::layout::{self, CAMERA_ASPECT};
use talksy_mixer::video::{Picture, Rect, Size, TileSpec};

use crate::ids::{PeerId, TrackKey};
use crate::mcu::codec::h264::EncoderConfig;
use rung::Rung;
pub use rung::{KEYFRAME_WINDOW, NEWCOMER_WINDOW, STILL_INTERVAL, VideoRung};
use source::Source;
pub use source::{CAMERA_TIMEOUT, KEYFRAME_WISH_INTERVAL, SCREEN_TIMEOUT, SOURCE_QUEUE};

/// What the rungs look like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VideoConfig {
    /// [`VideoRung::Standard`].
    pub standard: EncoderConfig,
    /// [`VideoRung::Low`].
    pub low: EncoderConfig,
}

impl VideoConfig {
    /// The measures of one rung.
    pub fn of(&self, rung: VideoRung) -> EncoderConfig {
        match rung {
            VideoRung::Standard => self.standard,
            VideoRung::Low => self.low,
        }
    }
}

impl Default for VideoConfig {
    fn default() -> Self {
        VideoConfig {
            standard: EncoderConfig {
                width: 640,
                height: 360,
                fps: 20,
                bitrate: 400_000,
            },
            low: EncoderConfig {
                width: 320,
                height: 180,
                fps: 10,
                bitrate: 120_000,
            },
        }
    }
}

/// Somebody who has a tile, with or without video.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Participant {
    /// Who.
    pub peer: PeerId,
    /// Written on the tile.
    pub name: String,
    /// Has a green border.
    pub speaking: bool,
    /// Is marked as silent.
    pub muted: bool,
}

/// One encoded picture of a sender.
#[derive(Clone, Debug)]
pub struct AccessUnit {
    /// Annex B.
    pub data: Bytes,
    /// 90 kHz, the sender's.
    pub timestamp: u32,
    /// Has an IDR slice.
    pub keyframe: bool,
    /// When its last packet came.
    pub arrival: Instant,
    /// Quarters to turn it clockwise before it is shown (3GPP TS 26.114, 7.4.5).
    pub orientation: u8,
    /// Packets before it were lost for good.
    pub broken: bool,
}

/// What one tick has brought. Kept by the caller and used again, so that a tick allocates nothing.
#[derive(Debug, Default)]
pub struct VideoTick {
    /// The bytes of all frames.
    pub data: Vec<u8>,
    /// At most one per rung.
    pub frames: Vec<EncodedFrame>,
    /// A tile came, went or changed places since the last tick: see [`VideoMix::layout`].
    pub layout_changed: bool,
}

impl VideoTick {
    /// The access units with their rungs.
    pub fn encoded(&self) -> impl Iterator<Item = (&EncodedFrame, &[u8])> {
        let bytes = |frame: &EncodedFrame| &self.data[frame.data.clone()];
        self.frames.iter().map(move |frame| (frame, bytes(frame)))
    }

    fn clear(&mut self) {
        self.data.clear();
        self.frames.clear();
        self.layout_changed = false;
    }
}

/// One encoded picture of a rung.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedFrame {
    /// Whose listeners get it.
    pub rung: VideoRung,
    /// Where in [`VideoTick::data`]; Annex B.
    pub data: Range<usize>,
    /// An IDR picture with its parameter sets.
    pub keyframe: bool,
    /// 90 kHz, one clock for all rungs, from 0 at the first tick.
    pub timestamp: u32,
}

/// Counters since the mix began. Every access unit that is not decoded is in one of the `dropped_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VideoStats {
    /// Access units decoded.
    pub decoded: u64,
    /// Of these, the ones with missing or wrong parts.
    pub damaged: u64,
    /// Canvases composed, changed or not.
    pub composed: u64,
    /// Canvases encoded.
    pub encoded: u64,
    /// Of these, keyframes.
    pub keyframes: u64,
    /// Canvases that the encoder refused.
    pub encode_failed: u64,
    /// Of a track that is not, or no longer, a source.
    pub dropped_unknown: u64,
    /// Nobody listens.
    pub dropped_unheard: u64,
    /// The source is muted.
    pub dropped_muted: u64,
    /// More than [`SOURCE_QUEUE`] waited for a tick.
    pub dropped_queue_full: u64,
    /// No keyframe has come yet.
    pub dropped_before_keyframe: u64,
    /// Too large, or parameter sets that cannot be used.
    pub dropped_undecodable: u64,
}

/// The mixed picture of one room.
pub struct VideoMix {
    config: VideoConfig,
    participants: Vec<Participant>,
    sources: Vec<(TrackKey, Source)>,
    listeners: BTreeMap<PeerId, VideoRung>,
    rungs: [Option<Rung>; VideoRung::ALL.len()],
    tiles: Vec<Tile>,
    specs: Vec<TileSpec>,
    layout_changed: bool,
    wishes: Vec<TrackKey>,
    versions: u64,
    started: Option<Instant>,
    stats: VideoStats,
}

/// Who is seen in a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tile {
    peer: PeerId,
    /// Index into the sources.
    source: Option<usize>,
}

impl VideoMix {
    /// A mix of nobody for nobody.
    pub fn new(config: VideoConfig) -> Self {
        VideoMix {
            config,
            participants: Vec::new(),
            sources: Vec::new(),
            listeners: BTreeMap::new(),
            rungs: [None, None],
            tiles: Vec::new(),
            specs: Vec::new(),
            layout_changed: false,
            wishes: Vec::new(),
            versions: 0,
            started: None,
            stats: VideoStats::default(),
        }
    }

    /// Who has a tile, in the order of the tiles. Sources of others are not shown.
    pub fn set_participants(&mut self, participants: Vec<Participant>) {
        if self.participants != participants {
            self.participants = participants;
            self.place_tiles();
        }
    }

    /// A track of `peer` that may be pushed from now on. A track that is known already begins anew.
    pub fn add_source(&mut self, track: TrackKey, peer: PeerId, screen: bool) {
        self.drop_source(track);
        self.sources.push((track, Source::new(peer, screen)));
        self.place_tiles();
    }

    /// The track has ended.
    pub fn remove_source(&mut self, track: TrackKey) {
        self.drop_source(track);
        self.place_tiles();
    }

    /// The camera is off (or on again): its tile shows the card.
    pub fn set_muted(&mut self, track: TrackKey, muted: bool) {
        if let Some((_, source)) = self.sources.iter_mut().find(|(known, _)| *known == track) {
            source.set_muted(muted, &mut self.stats);
            self.place_tiles();
        }
    }

    /// One access unit of a source, in decoding order. It is decoded in the next tick.
    pub fn push(&mut self, track: TrackKey, unit: AccessUnit) {
        if self.listeners.is_empty() {
            self.stats.dropped_unheard += 1;
            return;
        }
        match self.sources.iter_mut().find(|(known, _)| *known == track) {
            Some((_, source)) => source.push(unit, &mut self.stats),
            None => self.stats.dropped_unknown += 1,
        }
    }

    /// `peer` receives `rung` from the next tick on, beginning with a keyframe.
    pub fn add_listener(&mut self, peer: PeerId, rung: VideoRung) {
        if self.listeners.insert(peer, rung) != Some(rung) {
            self.open_and_close_rungs();
            if let Some(rung) = &mut self.rungs[rung.index()] {
                rung.request_keyframe(NEWCOMER_WINDOW);
            }
        }
    }

    /// The listener changes to another rung. Ignored for who is none.
    pub fn set_rung(&mut self, peer: PeerId, rung: VideoRung) {
        if self.listeners.contains_key(&peer) {
            self.add_listener(peer, rung);
        }
    }

    /// `peer` does not receive any more. The last one to go stops all decoding and encoding.
    pub fn remove_listener(&mut self, peer: PeerId) {
        self.listeners.remove(&peer);
        self.open_and_close_rungs();
        if self.listeners.is_empty() {
            for (_, source) in &mut self.sources {
                self.stats.dropped_unheard += source.queued();
                source.sleep();
            }
        }
    }

    /// A receiver of the rung needs a keyframe. However many ask, one comes per [`KEYFRAME_WINDOW`].
    pub fn request_keyframe(&mut self, rung: VideoRung) {
        if let Some(rung) = &mut self.rungs[rung.index()] {
            rung.request_keyframe(KEYFRAME_WINDOW);
        }
    }

    /// When [`tick`](Self::tick) has something to do; `None` while nobody listens.
    pub fn next_tick(&self, now: Instant) -> Option<Instant> {
        self.rungs.iter().flatten().map(|rung| rung.due(now)).min()
    }

    /// Decodes what has come, then composes and encodes the rungs that are due. Ticks that come too early do
    /// nothing; after late ones the missed pictures are left out.
    pub fn tick(&mut self, now: Instant, out: &mut VideoTick) {
        out.clear();
        out.layout_changed = std::mem::take(&mut self.layout_changed);
        if self.next_tick(now).is_none_or(|due| due > now) {
            return;
        }
        for (track, source) in &mut self.sources {
            source.decode(&mut self.versions, &mut self.stats);
            if source.take_keyframe_wish(now) && !self.wishes.contains(track) {
                self.wishes.push(*track);
            }
        }
        let clock = now.saturating_duration_since(*self.started.get_or_insert(now));
        let (tiles, sources) = (&self.tiles, &self.sources);
        let picture_of = |i: usize| {
            let source = tiles.get(i).and_then(|tile| tile.source);
            match source.and_then(|at| sources[at].1.picture(now)) {
                Some((view, version)) => Picture::Frame { view, version },
                None => Picture::Card,
            }
        };
        for rung in self.rungs.iter_mut().flatten() {
            if rung.due(now) <= now {
                rung.run(now, clock, picture_of, out, &mut self.stats);
            }
        }
    }

    /// The sources that should send a keyframe: they begin, or a part of them was lost. A source is named at most
    /// once per [`KEYFRAME_WISH_INTERVAL`], and again until its keyframe comes.
    pub fn keyframe_wishes(&mut self) -> std::vec::Drain<'_, TrackKey> {
        self.wishes.drain(..)
    }

    /// Canvas of a rung in pixels, and whose tile is where, in reading order. A screen is a tile of its peer.
    pub fn layout(&self, rung: VideoRung) -> ((u32, u32), Vec<(PeerId, Rect)>) {
        let EncoderConfig { width, height, .. } = self.config.of(rung);
        let canvas = Size {
            width: width as usize,
            height: height as usize,
        };
        let mut rects = Vec::new();
        layout::grid(self.tiles.len(), canvas, CAMERA_ASPECT, &mut rects);
        let peers = self.tiles.iter().map(|tile| tile.peer);
        ((width, height), peers.zip(rects).collect())
    }

    /// Counters since the mix began.
    pub fn stats(&self) -> VideoStats {
        self.stats
    }

    fn drop_source(&mut self, track: TrackKey) {
        self.sources.retain(|(known, source)| {
            let other = *known != track;
            if !other {
                self.stats.dropped_unknown += source.queued();
            }
            other
        });
    }

    /// Makes the rungs that have listeners, and ends those that have none.
    fn open_and_close_rungs(&mut self) {
        for id in VideoRung::ALL {
            let wanted = self.listeners.values().any(|rung| *rung == id);
            let rung = &mut self.rungs[id.index()];
            if !wanted {
                *rung = None;
            } else if rung.is_none() {
                match Rung::new(id, self.config.of(id)) {
                    Ok(mut opened) => {
                        opened.set_tiles(&self.specs);
                        *rung = Some(opened);
                    }
                    Err(error) => {
                        self.stats.encode_failed += 1;
                        tracing::error!(?id, %error, "the mixed picture cannot be made");
                    }
                }
            }
        }
    }

    /// A tile per participant with the camera that is on, and one per screen.
    fn place_tiles(&mut self) {
        let before: Vec<u64> = self.specs.iter().map(|spec| spec.id).collect();
        self.tiles.clear();
        self.specs.clear();
        for participant in &self.participants {
            let of_peer = |screen: bool| {
                let sources = self.sources.iter().enumerate();
                sources.filter(move |(_, (_, source))| {
                    source.peer == participant.peer && source.screen == screen
                })
            };
            let camera = of_peer(false)
                .find(|(_, (_, source))| !source.is_muted())
                .map(|(at, _)| at);
            self.tiles.push(Tile {
                peer: participant.peer,
                source: camera,
            });
            self.specs.push(TileSpec {
                id: participant.peer.0,
                name: participant.name.clone(),
                colour: participant.peer.0,
                speaking: participant.speaking,
                muted: participant.muted,
                screen: false,
            });
            for (at, (track, source)) in of_peer(true) {
                if source.is_muted() {
                    continue;
                }
                self.tiles.push(Tile {
                    peer: participant.peer,
                    source: Some(at),
                });
                self.specs.push(TileSpec {
                    // Track keys are counted, peer ids random: complemented, they do not meet.
                    id: !track.0,
                    name: format!("{} (screen)", participant.name),
                    colour: participant.peer.0,
                    speaking: false,
                    muted: false,
                    screen: true,
                });
            }
        }
        self.tiles.truncate(layout::MAX_TILES);
        self.specs.truncate(layout::MAX_TILES);
        self.layout_changed |= before.iter().ne(self.specs.iter().map(|spec| &spec.id));
        for rung in self.rungs.iter_mut().flatten() {
            rung.set_tiles(&self.specs);
        }
    }
}
