//! The mixed picture of one room: decode, compose, encode once per rung.
//!
//! [`VideoMix`] has no threads and no clock: whoever owns it pushes access units in, calls [`VideoMix::tick`] when
//! [`VideoMix::next_tick`] says so, sends what the tick has encoded, and passes [`VideoMix::keyframe_wishes`] on
//! to the senders. Each source that is seen is decoded once, each rung in use is composed and encoded once, and
//! without listeners nothing is.
//!
//! Sources are decoded in the tick, or ([`VideoMix::add_fed_source`]) each by a job of its own: then a tick takes the
//! newest picture that is ready, and waits for none.

mod budget;
mod decoder;
mod exchange;
mod job;
mod overload;
#[cfg(test)]
pub(in crate::mcu) mod recorded;
mod rung;
mod source;
mod stats;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use talksy_mixer::video::layout::{Arrangement, Director, Kind, Person, Scene, Wish};
use talksy_mixer::video::{Avatar, Picture, Rect, Size, Theme, TileSpec};

use crate::ids::{PeerId, TrackKey};
use crate::mcu::codec::VideoCodec;
use crate::mcu::codec::h264::EncoderConfig;
pub use crate::mcu::ladder::{Ladder, Shape, VideoRung};
use crate::mcu::pool::Spawner;
use decoder::DecodeCounters;
pub use decoder::{DecodeDrop, MAX_RESTARTS, Unit};
pub use job::{DECODE_INTERVAL, FEED_PACKETS, Fed, Feed};
pub use overload::{CALM, Load, Overload, PATIENCE};
use rung::Rung;
pub use rung::{KEYFRAME_WINDOW, NEWCOMER_WINDOW, STILL_INTERVAL};
pub use source::{CAMERA_TIMEOUT, KEYFRAME_WISH_INTERVAL, SCREEN_TIMEOUT, SOURCE_QUEUE};
use source::{Intake, Source};
pub use stats::{DECODE_DROPS, VideoStats};

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
    /// Is marked as without a camera.
    pub camera_off: bool,
    /// On the name card, in place of initials.
    pub avatar: Option<Arc<Avatar>>,
}

/// How the picture is divided, and who is large in it by somebody's choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LayoutWish {
    /// The kind of picture.
    pub kind: Kind,
    /// Who is large where the kind is [`Kind::Pinned`].
    pub pinned: Option<PeerId>,
}

/// The places of one rung's picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The kind as it is shown, which may differ from what was asked for, and who is pinned.
    pub shown: LayoutWish,
    /// Width and height in pixels.
    pub canvas: (u32, u32),
    /// Whose tile is where, the large one first, then in reading order. A screen is a tile of its peer.
    pub tiles: Vec<(PeerId, Rect)>,
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

impl AccessUnit {
    fn as_unit(&self) -> Unit<'_> {
        Unit {
            data: &self.data,
            keyframe: self.keyframe,
            arrival: self.arrival,
            orientation: self.orientation,
            broken: self.broken,
        }
    }
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

/// The mixed picture of one room.
pub struct VideoMix {
    ladder: Ladder,
    theme: Theme,
    participants: Vec<Participant>,
    director: Director,
    scene: Scene,
    /// By tile: the ordinal of the last time that its speech began or ended, or that its screen came.
    spoke: BTreeMap<u64, u64>,
    events: u64,
    people: Vec<Person>,
    /// Of the last tick, since the first one.
    clock: Duration,
    sources: Vec<(TrackKey, Source)>,
    listeners: BTreeMap<PeerId, Listener>,
    /// Those in use, the largest first.
    rungs: Vec<Rung>,
    tiles: Vec<Tile>,
    specs: Vec<TileSpec>,
    layout_changed: bool,
    wishes: Vec<TrackKey>,
    versions: u64,
    started: Option<Instant>,
    stats: VideoStats,
    decodes: Arc<DecodeCounters>,
    load: Load,
    ticks: usize,
}

/// What one listener receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listener {
    rung: VideoRung,
    /// The rung that it still sees, until the first keyframe of the other.
    leaving: Option<VideoRung>,
}

impl Listener {
    fn needs(&self, rung: VideoRung) -> bool {
        self.rung == rung || self.leaving == Some(rung)
    }
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
    pub fn new(ladder: Ladder) -> Self {
        VideoMix {
            ladder,
            theme: Theme::default(),
            participants: Vec::new(),
            director: Director::default(),
            scene: Scene::default(),
            spoke: BTreeMap::new(),
            events: 0,
            people: Vec::new(),
            clock: Duration::ZERO,
            sources: Vec::new(),
            listeners: BTreeMap::new(),
            rungs: Vec::new(),
            tiles: Vec::new(),
            specs: Vec::new(),
            layout_changed: false,
            wishes: Vec::new(),
            versions: 0,
            started: None,
            stats: VideoStats::default(),
            decodes: Arc::default(),
            load: Load::Normal,
            ticks: 0,
        }
    }

    /// The colours and the font of everything that is drawn from now on. For a mix without listeners.
    pub fn set_theme(&mut self, theme: Theme) {
        self.theme = theme;
    }

    /// Who may have a tile, in the order of the tiles. Sources of others are not shown.
    pub fn set_participants(&mut self, participants: Vec<Participant>) {
        if self.participants == participants {
            return;
        }
        for participant in &participants {
            let before = self
                .participants
                .iter()
                .find(|p| p.peer == participant.peer);
            if before.is_some_and(|p| p.speaking) != participant.speaking {
                self.events += 1;
                self.spoke.insert(participant.peer.0, self.events);
            }
        }
        self.participants = participants;
        self.place_tiles();
    }

    /// Divides the picture like this from the next tick on. A shared screen that comes later is shown large all
    /// the same, until another wish.
    pub fn set_layout(&mut self, wish: LayoutWish) {
        self.director.set_wish(Wish {
            kind: wish.kind,
            pinned: wish.pinned.map(|peer| peer.0),
        });
        // Everybody is told, also where it was so before.
        self.layout_changed = true;
        self.direct(true);
    }

    /// A track of `peer` that may be pushed from now on, and is decoded in the tick. A track that is known already
    /// begins anew.
    pub fn add_source(&mut self, track: TrackKey, peer: PeerId, screen: bool) {
        let source = Source::new(peer, screen, VideoCodec::H264, Intake::Tick);
        self.begin_source(track, source);
    }

    /// The same, but the track's packets come by `feed`, and each time that it is seen a job is started which
    /// decodes them.
    pub fn add_fed_source(
        &mut self,
        track: TrackKey,
        peer: PeerId,
        screen: bool,
        (codec, feed): (VideoCodec, Arc<Feed>),
        spawner: Spawner,
    ) {
        let source = Source::new(peer, screen, codec, Intake::Job(feed, spawner));
        self.begin_source(track, source);
    }

    fn begin_source(&mut self, track: TrackKey, source: Source) {
        self.drop_source(track);
        let screen = source.screen;
        self.sources.push((track, source));
        if screen {
            self.events += 1;
            self.spoke.insert(screen_tile(track), self.events);
        }
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
            self.stats.dropped_muted += source.set_muted(muted, &self.decodes);
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
            Some((_, source)) if source.is_muted() => self.stats.dropped_muted += 1,
            Some((_, source)) => self.stats.dropped_hidden += u64::from(!source.push(unit)),
            None => self.stats.dropped_unknown += 1,
        }
    }

    /// `peer` receives `rung` from its next keyframe on. One who receives another rung already goes on with that one
    /// until then.
    pub fn add_listener(&mut self, peer: PeerId, rung: VideoRung) {
        let before = self.listeners.get(&peer).copied();
        if before.is_some_and(|before| before.rung == rung) {
            return;
        }
        let sees = before.map(|before| before.leaving.unwrap_or(before.rung));
        let leaving = sees.filter(|sees| *sees != rung);
        self.listeners.insert(peer, Listener { rung, leaving });
        self.open_and_close_rungs();
        let window = match sees {
            None => NEWCOMER_WINDOW,
            Some(_) => KEYFRAME_WINDOW,
        };
        if sees != Some(rung)
            && let Some(rung) = self.rung_mut(rung)
        {
            rung.request_keyframe(window);
        }
    }

    /// The listener changes to another rung. Ignored for who is none.
    pub fn set_rung(&mut self, peer: PeerId, rung: VideoRung) {
        if self.listeners.contains_key(&peer) {
            self.add_listener(peer, rung);
        }
    }

    /// What a rung's encoder is to make, bit/s, within [`Ladder::least`] and what the ladder says. A rung that opens
    /// later begins with what the ladder says.
    pub fn set_bitrate(&mut self, rung: VideoRung, bps: u32) {
        let (least, nominal) = (self.ladder.least(rung.step), self.ladder.of(rung).bitrate);
        let bps = bps.clamp(least, nominal);
        if let Some(rung) = self.rung_mut(rung)
            && !rung.set_bitrate(bps)
        {
            self.stats.encode_failed += 1;
        }
    }

    /// `peer` does not receive any more. The last one to go stops all decoding and encoding.
    pub fn remove_listener(&mut self, peer: PeerId) {
        self.listeners.remove(&peer);
        self.open_and_close_rungs();
    }

    /// A receiver of the rung needs a keyframe. However many ask, one comes per [`KEYFRAME_WINDOW`].
    pub fn request_keyframe(&mut self, rung: VideoRung) {
        if let Some(rung) = self.rung_mut(rung) {
            rung.request_keyframe(KEYFRAME_WINDOW);
        }
    }

    /// How much of the picture is made from now on.
    pub fn set_load(&mut self, load: Load) {
        self.load = load;
        for rung in &mut self.rungs {
            rung.set_slow(load >= Load::HalfRate);
        }
    }

    /// Until when a tick that is due then has to be done: the shortest time between two pictures.
    pub fn deadline(&self, due: Instant) -> Option<Instant> {
        let periods = self.rungs.iter().map(Rung::period);
        periods.min().map(|period| due + period)
    }

    /// The rungs that somebody receives, the largest first.
    pub fn rungs_in_use(&self) -> impl Iterator<Item = VideoRung> + '_ {
        self.rungs.iter().map(Rung::id)
    }

    /// When [`tick`](Self::tick) has something to do; `None` while nobody listens.
    pub fn next_tick(&self, now: Instant) -> Option<Instant> {
        self.rungs.iter().map(|rung| rung.due(now)).min()
    }

    /// Takes what was decoded, then composes and encodes the rungs that are due. Ticks that come too early do
    /// nothing; after late ones the missed pictures are left out.
    pub fn tick(&mut self, now: Instant, out: &mut VideoTick) {
        out.clear();
        out.layout_changed = std::mem::take(&mut self.layout_changed);
        if self.next_tick(now).is_none_or(|due| due > now) {
            return;
        }
        self.clock = now.saturating_duration_since(*self.started.get_or_insert(now));
        self.direct(false);
        out.layout_changed |= std::mem::take(&mut self.layout_changed);
        self.ticks += 1;
        let fresh = |at: usize| self.load < Load::OldTiles || (at + self.ticks).is_multiple_of(2);
        for (at, (track, source)) in self.sources.iter_mut().enumerate() {
            source.decode();
            if fresh(at) {
                source.update(&mut self.versions);
            }
            if source.take_keyframe_wish(now) && !self.wishes.contains(track) {
                self.wishes.push(*track);
            }
        }
        let clock = self.clock;
        let (tiles, sources) = (&self.tiles, &self.sources);
        let picture_of = |i: usize| {
            let source = tiles.get(i).and_then(|tile| tile.source);
            match source.and_then(|at| sources[at].1.picture(now)) {
                Some((view, version)) => Picture::Frame { view, version },
                None => Picture::Card,
            }
        };
        for rung in &mut self.rungs {
            if rung.due(now) <= now {
                rung.run(now, clock, picture_of, out, &mut self.stats);
            }
        }
        self.arrive(out);
    }

    /// Listeners that waited for a keyframe of their rung have it now, and need the one before no more.
    fn arrive(&mut self, out: &VideoTick) {
        let mut arrived = false;
        for frame in out.frames.iter().filter(|frame| frame.keyframe) {
            for listener in self.listeners.values_mut() {
                if listener.rung == frame.rung {
                    arrived |= listener.leaving.take().is_some();
                }
            }
        }
        if arrived {
            self.open_and_close_rungs();
        }
    }

    /// The sources that should send a keyframe: they begin, or a part of them was lost. A source is named at most
    /// once per [`KEYFRAME_WISH_INTERVAL`], and again until its keyframe comes.
    pub fn keyframe_wishes(&mut self) -> std::vec::Drain<'_, TrackKey> {
        self.wishes.drain(..)
    }

    /// The places of a rung's picture as of now, also while nobody receives it.
    pub fn layout(&self, rung: VideoRung) -> Layout {
        let EncoderConfig { width, height, .. } = self.ladder.of(rung);
        let peer_of = |id: u64| {
            let at = self.specs.iter().position(|spec| spec.id == id)?;
            Some(self.tiles[at].peer)
        };
        let tiles = match self.rungs.iter().find(|open| open.id() == rung) {
            Some(rung) => rung
                .tiles()
                .filter_map(|(id, rect)| Some((peer_of(id)?, rect)))
                .collect(),
            None => {
                let mut arrangement = Arrangement::new(Size {
                    width: width as usize,
                    height: height as usize,
                });
                let placed = arrangement.arrange(self.scene, &self.people).iter();
                placed
                    .filter_map(|placed| Some((peer_of(placed.id)?, placed.rect)))
                    .collect()
            }
        };
        let kind = self.scene.kind;
        let pinned = self.scene.large.filter(|_| kind == Kind::Pinned);
        Layout {
            shown: LayoutWish {
                kind,
                pinned: pinned.and_then(peer_of),
            },
            canvas: (width, height),
            tiles,
        }
    }

    /// Calls `tell` with each source whose largest tile has changed, in pixels (`None`: it is not to be seen any
    /// more), until that returns true for it.
    pub fn tell_shown(&mut self, mut tell: impl FnMut(TrackKey, Option<Size>) -> bool) {
        for (track, source) in &mut self.sources {
            if source.shown_news().is_some_and(|shown| tell(*track, shown)) {
                source.set_told();
            }
        }
    }

    /// Counters since the mix began.
    pub fn stats(&self) -> VideoStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let dropped = |reason| self.decodes.dropped(reason);
        VideoStats {
            decoded: count(&self.decodes.decoded),
            damaged: count(&self.decodes.damaged),
            dropped_queue_full: dropped(DecodeDrop::QueueFull),
            dropped_before_keyframe: dropped(DecodeDrop::BeforeKeyframe),
            dropped_undecodable: dropped(DecodeDrop::Undecodable),
            dropped_too_many: dropped(DecodeDrop::TooMany),
            dropped_panicked: dropped(DecodeDrop::Panicked),
            dropped_given_up: dropped(DecodeDrop::GivenUp),
            ..self.stats
        }
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

    fn rung_mut(&mut self, id: VideoRung) -> Option<&mut Rung> {
        self.rungs.iter_mut().find(|rung| rung.id() == id)
    }

    /// Makes the rungs that have listeners, and ends those that have none.
    fn open_and_close_rungs(&mut self) {
        let listeners = &self.listeners;
        let is_needed = |id| listeners.values().any(|listener| listener.needs(id));
        self.rungs.retain(|rung| is_needed(rung.id()));
        for listener in self.listeners.values() {
            let id = listener.rung;
            if self.rungs.iter().any(|rung| rung.id() == id) {
                continue;
            }
            match Rung::new(id, self.ladder.of(id), self.theme.clone()) {
                Ok(mut opened) => {
                    // Who changes rungs finds everybody where they were.
                    let like = self.rungs.iter().find(|rung| rung.id().shape == id.shape);
                    if let Some(like) = like {
                        opened.seat_like(like, self.scene);
                    }
                    opened.set_tiles(self.scene, &self.specs);
                    opened.set_slow(self.load >= Load::HalfRate);
                    self.layout_changed = true;
                    let at = self.rungs.partition_point(|rung| rung.id() > id);
                    self.rungs.insert(at, opened);
                }
                Err(error) => {
                    self.stats.encode_failed += 1;
                    tracing::error!(?id, %error, "the mixed picture cannot be made");
                }
            }
        }
        self.look_who_is_shown();
    }

    /// Wakes the sources that some rung in use shows, and puts the others to sleep.
    fn look_who_is_shown(&mut self) {
        let area = |size: &Size| size.width * size.height;
        for (at, (_, source)) in self.sources.iter_mut().enumerate() {
            let of_source = |tile: &Tile| tile.source == Some(at);
            let tile = self.tiles.iter().position(of_source);
            let id = tile.map(|tile| self.specs[tile].id);
            let places = self.rungs.iter().flat_map(|rung| rung.tiles());
            let sizes = places
                .filter(|(shown, _)| Some(*shown) == id)
                .map(|(_, rect)| rect.size());
            let unused = source.set_shown(sizes.max_by_key(area), &self.decodes);
            match self.listeners.is_empty() {
                true => self.stats.dropped_unheard += unused,
                false => self.stats.dropped_hidden += unused,
            }
        }
    }

    /// What may be seen: a tile per participant with the camera that is on, and one per screen.
    fn place_tiles(&mut self) {
        self.tiles.clear();
        self.specs.clear();
        let spoke = &self.spoke;
        let spoke = |tile: u64| spoke.get(&tile).copied().unwrap_or(0);
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
            let id = participant.peer.0;
            self.tiles.push(Tile {
                peer: participant.peer,
                source: camera,
            });
            self.specs.push(TileSpec {
                id,
                name: participant.name.clone(),
                colour: id,
                speaking: participant.speaking,
                spoke: spoke(id),
                muted: participant.muted,
                camera_off: participant.camera_off,
                screen: false,
                avatar: participant.avatar.clone(),
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
                    id: screen_tile(*track),
                    name: format!("{} (screen)", participant.name),
                    colour: participant.peer.0,
                    spoke: spoke(screen_tile(*track)),
                    screen: true,
                    ..TileSpec::default()
                });
            }
        }
        self.people.clear();
        self.people.extend(self.specs.iter().map(TileSpec::person));
        // Whoever is not there any more is forgotten; screens may be muted and come back.
        let (participants, sources) = (&self.participants, &self.sources);
        self.spoke.retain(|id, _| {
            participants.iter().any(|p| p.peer.0 == *id)
                || sources.iter().any(|(track, _)| screen_tile(*track) == *id)
        });
        self.direct(true);
    }

    /// Looks for another speaker or screen to be large; places everybody anew if there is one, or if `people`
    /// have changed.
    fn direct(&mut self, people_changed: bool) {
        let before = self.scene;
        self.scene = self.director.direct(self.clock, &self.people);
        self.layout_changed |= self.scene != before;
        if self.scene == before && !people_changed {
            return;
        }
        for rung in &mut self.rungs {
            self.layout_changed |= rung.set_tiles(self.scene, &self.specs);
        }
        self.look_who_is_shown();
    }
}

/// The tile of a screen. Track keys are counted, peer ids random: complemented, they do not meet.
fn screen_tile(track: TrackKey) -> u64 {
    !track.0
}
