//! A room's mixed delivery: jobs on the codec threads, fed by taps, heard by the worker.
//!
//! One job makes the sound, one the pictures, and each source that is seen has one that decodes it. The bus lives while
//! somebody in the room is mixed. Dropping it ends all jobs, their decoders and encoders.

mod audio;
mod video;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use audio::{AudioControl, AudioJob};
use video::{LoadGauge, VideoControl, VideoJob};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};
use crossbeam_queue::ArrayQueue;
use talksy_mixer::video::Theme;

use crate::ids::{PeerId, RoomKey, TrackKey};
use crate::mcu::audio::{
    AUDIO_DROPS, AudioMix, AudioMixConfig, AudioPacket, AudioRung, AudioTick, MixId,
};
use crate::mcu::codec::{SourceCodec, VideoCodec};
use crate::mcu::feed::VideoPacket;
use crate::mcu::ladder::{Ladder, VideoRung};
use crate::mcu::pool::Pool;
use crate::mcu::video::{
    DECODE_DROPS, Fed, Feed, LayoutWish, Load, Overload, Participant, VideoMix, VideoTick,
};

/// Audio packets waiting for the next tick of a room: 200 sources at 50 packets/s have 20 ms of room for a burst
/// of 80 ms. When it is full the oldest goes: its turn to be played has passed first.
pub const AUDIO_TAP: usize = 1024;
/// Control messages waiting; 4 a participant. When it is full the message is lost with an error in the log, which
/// only a dead codec thread can bring about.
pub const CONTROL_QUEUE: usize = 4096;
/// Outputs of all rooms of one worker that wait for it: half a second of 20 rooms. When it is full the output is
/// dropped and counted; the listeners see loss.
pub const OUTPUT_QUEUE: usize = 4096;

/// How often control messages of a picture are looked at, at least.
pub const PICTURE_INTERVAL: Duration = Duration::from_millis(50);
/// The audio clock.
pub const AUDIO_INTERVAL: Duration = Duration::from_millis(20);
/// A clock that is later than this gives up the time it lost instead of catching up.
const MAX_LAG: Duration = Duration::from_millis(100);

/// What a mixed client is to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rung {
    /// Its picture; `None`: none for now.
    pub video: Option<VideoRung>,
    /// Its sound.
    pub audio: AudioRung,
}

/// A tile of the mixed picture, in canvas pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayoutTile {
    /// Whose tile.
    pub peer: PeerId,
    /// Left edge.
    pub x: u32,
    /// Top edge.
    pub y: u32,
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

/// How a mixed picture is divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MixedLayout {
    /// The kind as it is shown, and who is pinned.
    pub shown: LayoutWish,
    /// Width and height in pixels.
    pub canvas: (u32, u32),
    /// Who is where, the large one first. A screen is a tile of who shares it.
    pub tiles: Vec<LayoutTile>,
}

/// One encoded 20 ms frame of one mix.
#[derive(Clone, Debug)]
pub struct MixedAudio {
    /// Which mix.
    pub mix: MixId,
    /// 48 kHz, 960 a tick.
    pub timestamp: u32,
    /// The first frame after a pause.
    pub marker: bool,
    /// One Opus packet.
    pub payload: Bytes,
}

/// From a bus to its worker.
#[derive(Clone, Debug)]
pub enum BusOutput {
    /// The frames of one tick, and who hears which.
    Audio {
        /// Of which room.
        room: RoomKey,
        /// At most K+1 a rung.
        frames: Vec<MixedAudio>,
        /// Every listener with its mix.
        routes: Vec<(PeerId, MixId)>,
        /// Who began or stopped speaking.
        speaking: Vec<(PeerId, bool)>,
    },
    /// One encoded picture.
    Video {
        /// Of which room.
        room: RoomKey,
        /// Of which rung.
        rung: VideoRung,
        /// 90 kHz.
        timestamp: u32,
        /// An IDR picture.
        keyframe: bool,
        /// Annex-B.
        access_unit: Bytes,
    },
    /// The tiles of a rung's picture.
    Layout {
        /// Of which room.
        room: RoomKey,
        /// Of which rung.
        rung: VideoRung,
        /// The tiles.
        layout: MixedLayout,
    },
    /// How large this source is shown.
    Shown {
        /// Which source.
        track: TrackKey,
        /// Width and height of its largest tile; `None`: it is not to be seen, and its packets are not wanted.
        size: Option<(u32, u32)>,
    },
    /// The codec threads are overloaded: everybody is to be given the lowest rung, or no longer.
    LowestOnly {
        /// In which room.
        room: RoomKey,
        /// Whether.
        lowest_only: bool,
    },
    /// The decoder of this source cannot go on without a keyframe.
    KeyframeWanted {
        /// Which source.
        track: TrackKey,
    },
}

/// The way back into a worker: a bounded queue and its alarm.
#[derive(Clone)]
pub struct BusSender {
    queue: Sender<BusOutput>,
    wake: Arc<dyn Fn() + Send + Sync>,
    dropped: Arc<AtomicU64>,
    totals: Arc<BusCounters>,
}

impl BusSender {
    /// A sender into `queue`; `wake` is called after each output.
    pub fn new(queue: Sender<BusOutput>, wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        BusSender {
            queue,
            wake,
            dropped: Arc::default(),
            totals: Arc::default(),
        }
    }

    /// What the codecs did for all rooms of this worker, also for those that are no longer mixed.
    pub fn totals(&self) -> &BusCounters {
        &self.totals
    }

    /// Outputs that a full queue refused.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// False: it was dropped.
    fn send(&self, output: BusOutput) -> bool {
        let sent = self.queue.try_send(output).is_ok();
        if !sent {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        (self.wake)();
        sent
    }
}

/// The two pools of codec threads, and what they draw with.
#[derive(Clone)]
pub struct CodecPools {
    /// For sound.
    pub audio: Pool,
    /// For pictures.
    pub video: Pool,
    /// How they look.
    pub theme: Theme,
    /// In what qualities they are made.
    pub ladder: Ladder,
    /// How rooms' sound is mixed and encoded.
    pub sound: AudioMixConfig,
}

impl CodecPools {
    /// Starts the threads.
    ///
    /// # Errors
    /// The operating system refuses a thread.
    pub fn start(audio_threads: usize, video_threads: usize) -> std::io::Result<Self> {
        Ok(CodecPools {
            audio: Pool::start("audio", audio_threads)?,
            video: Pool::start("video", video_threads)?,
            theme: Theme::default(),
            ladder: Ladder::default(),
            sound: AudioMixConfig::default(),
        })
    }
}

/// What the codec threads did for a room, for figures and tests.
#[derive(Debug, Default)]
pub struct BusCounters {
    /// Opus packets decoded.
    pub audio_decodes: AtomicU64,
    /// Opus packets encoded.
    pub audio_encodes: AtomicU64,
    /// Pictures decoded.
    pub video_decodes: AtomicU64,
    /// Pictures encoded.
    pub video_encodes: AtomicU64,
    /// Of these, keyframes.
    pub video_keyframes: AtomicU64,
    /// Tapped packets that a full tap displaced.
    pub displaced: AtomicU64,
    /// What was not decoded, in the order of [`crate::mcu::video::VideoStats::decode_drops`].
    pub decode_drops: [AtomicU64; DECODE_DROPS],
    /// What was not heard, in the order of [`crate::mcu::audio::AudioCounters::drops`].
    pub audio_drops: [AtomicU64; AUDIO_DROPS],
    /// Pictures of the mix that were not done before their deadline.
    pub late_pictures: AtomicU64,
    /// Rooms by [`Load`], lightest first, as of now.
    pub loads: [AtomicU64; Load::ALL.len()],
}

/// Brings one room's counter up to `count`, and the worker's total with it.
fn raise(of_room: &AtomicU64, total: &AtomicU64, count: u64) {
    let before = of_room.swap(count, Ordering::Relaxed);
    total.fetch_add(count.saturating_sub(before), Ordering::Relaxed);
}

/// See the module's text. Held by the worker.
pub struct Bus {
    audio_control: Sender<AudioControl>,
    video_control: Sender<VideoControl>,
    audio_tap: Arc<ArrayQueue<(TrackKey, AudioPacket)>>,
    feeds: HashMap<TrackKey, Arc<Feed>>,
    counters: Arc<BusCounters>,
    totals: Arc<BusCounters>,
    broken: Arc<AtomicBool>,
}

/// Held by a job: when the pool drops it while the bus lives, the job has panicked.
struct Alive(Arc<AtomicBool>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Bus {
    /// Starts the room's two jobs.
    pub fn start(room: RoomKey, pools: &CodecPools, output: BusSender) -> Self {
        let now = Instant::now();
        let (audio_control, audio_commands) = crossbeam_channel::bounded(CONTROL_QUEUE);
        let (video_control, video_commands) = crossbeam_channel::bounded(CONTROL_QUEUE);
        let audio_tap = Arc::new(ArrayQueue::new(AUDIO_TAP));
        let counters = Arc::new(BusCounters::default());
        let broken = Arc::new(AtomicBool::new(false));
        let totals = output.totals.clone();
        let mut picture = VideoMix::new(pools.ladder.clone());
        picture.set_theme(pools.theme.clone());
        let audio = AudioJob {
            room,
            mix: AudioMix::new(pools.sound),
            control: audio_commands,
            tap: audio_tap.clone(),
            tick: AudioTick::default(),
            due: now,
            output: output.clone(),
            counters: counters.clone(),
            _alive: Alive(broken.clone()),
        };
        let video = VideoJob {
            room,
            mix: picture,
            decoders: pools.video.spawner(),
            control: video_commands,
            tick: VideoTick::default(),
            overload: Overload::default(),
            gauge: LoadGauge::new([counters.clone(), totals.clone()]),
            lowest_only: false,
            output,
            counters: counters.clone(),
            _alive: Alive(broken.clone()),
        };
        pools.audio.spawn(now, Box::new(audio));
        pools.video.spawn(now, Box::new(video));
        Bus {
            audio_control,
            video_control,
            audio_tap,
            feeds: HashMap::new(),
            counters,
            broken,
            totals,
        }
    }

    /// A codec has panicked and took its half of the mix with it.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// What the room's codecs did so far.
    pub fn counters(&self) -> &BusCounters {
        &self.counters
    }

    /// A microphone, or with `music` a sound that is not to be gated.
    pub fn add_audio_source(&self, track: TrackKey, peer: PeerId, music: bool) {
        self.audio(AudioControl::AddSource { track, peer, music });
    }

    /// What a sound's packets carry, if that is not Opus; right after it was added.
    pub fn set_codec(&self, track: TrackKey, codec: SourceCodec) {
        if codec != SourceCodec::Opus {
            self.audio(AudioControl::SetCodec(track, codec));
        }
    }

    /// A camera or a screen.
    pub fn add_video_source(
        &mut self,
        track: TrackKey,
        peer: PeerId,
        screen: bool,
        codec: VideoCodec,
    ) {
        let feed = Arc::new(Feed::default());
        self.feeds.insert(track, feed.clone());
        self.video(VideoControl::AddSource {
            track,
            peer,
            screen,
            codec,
            feed,
        });
    }

    /// The track has ended.
    pub fn remove_source(&mut self, track: TrackKey) {
        self.feeds.remove(&track);
        self.audio(AudioControl::RemoveSource(track));
        self.video(VideoControl::RemoveSource(track));
    }

    /// The track is muted, or no longer.
    pub fn set_muted(&self, track: TrackKey, muted: bool) {
        self.audio(AudioControl::Muted(track, muted));
        self.video(VideoControl::Muted(track, muted));
    }

    /// Everybody who has a tile, in a stable order.
    pub fn set_participants(&self, participants: Vec<Participant>) {
        self.video(VideoControl::Participants(participants));
    }

    /// How the room wants its picture divided.
    pub fn set_layout(&self, wish: LayoutWish) {
        self.video(VideoControl::Layout(wish));
    }

    /// A client that is to be sent the sound. Known already: changes its rung.
    pub fn add_listener(&self, peer: PeerId, rung: AudioRung) {
        self.audio(AudioControl::AddListener(peer, rung));
    }

    /// It moves to another rung, with what it gets.
    pub fn set_rung(&self, peer: PeerId, rung: Rung) {
        self.audio(AudioControl::SetRung(peer, rung.audio));
        self.set_picture(peer, rung.video);
    }

    /// The picture that a client is to be sent from now on, if any.
    pub fn set_picture(&self, peer: PeerId, rung: Option<VideoRung>) {
        self.video(match rung {
            Some(rung) => VideoControl::SetListener(peer, rung),
            None => VideoControl::RemoveListener(peer),
        });
    }

    /// What a rung's encoder is to make, bit/s, until the rung has no listener any more.
    pub fn set_bitrate(&self, rung: VideoRung, bps: u32) {
        self.video(VideoControl::Bitrate(rung, bps));
    }

    /// Whether it takes the sound in two channels; until this is called it does not.
    pub fn set_stereo(&self, peer: PeerId, stereo: bool) {
        self.audio(AudioControl::SetStereo(peer, stereo));
    }

    /// Whether its link loses packets; until this is called it does not.
    pub fn set_lossy(&self, peer: PeerId, lossy: bool) {
        self.audio(AudioControl::SetLossy(peer, lossy));
    }

    /// It wants no sound any more.
    pub fn remove_listener(&self, peer: PeerId) {
        self.audio(AudioControl::RemoveListener(peer));
    }

    /// A listener of this rung lost its picture.
    pub fn request_keyframe(&self, rung: VideoRung) {
        self.video(VideoControl::Keyframe(rung));
    }

    /// A packet of a source, for the next tick.
    pub fn push_audio(&self, track: TrackKey, packet: AudioPacket) {
        self.displaced(self.audio_tap.force_push((track, packet)).is_some());
    }

    /// A packet of a source, for its decoder.
    pub fn push_video(&self, track: TrackKey, packet: VideoPacket) {
        let feed = self.feeds.get(&track);
        let fed = feed.map_or(Fed::Closed, |feed| feed.push(packet));
        self.displaced(fed == Fed::Full);
    }

    fn displaced(&self, displaced: bool) {
        for counters in [&self.counters, &self.totals] {
            counters
                .displaced
                .fetch_add(u64::from(displaced), Ordering::Relaxed);
        }
    }

    fn audio(&self, control: AudioControl) {
        if self.audio_control.try_send(control).is_err() {
            tracing::error!(
                "the audio mix of a room does not take commands: its codec thread is gone"
            );
        }
    }

    fn video(&self, control: VideoControl) {
        if self.video_control.try_send(control).is_err() {
            tracing::error!(
                "the picture of a room does not take commands: its codec thread is gone"
            );
        }
    }
}

/// Drains a control queue; false when the bus is gone.
fn drain<T>(queue: &Receiver<T>, mut apply: impl FnMut(T)) -> bool {
    loop {
        match queue.try_recv() {
            Ok(control) => apply(control),
            Err(crossbeam_channel::TryRecvError::Empty) => return true,
            Err(crossbeam_channel::TryRecvError::Disconnected) => return false,
        }
    }
}

#[cfg(test)]
mod tests;
