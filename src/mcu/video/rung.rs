//! One quality of the mixed picture: a canvas and its encoder, shared by all who receive it.

use std::time::{Duration, Instant};

use talksy_mixer::video::layout::{Kind, Scene};
use talksy_mixer::video::{Compositor, Picture, Rect, Theme, TileSpec};

use super::{EncodedFrame, VideoRung, VideoStats, VideoTick};
use crate::mcu::codec::h264::{Encoder, EncoderConfig, H264Error, Usage};

/// At most one keyframe per rung in this time, however many ask.
pub const KEYFRAME_WINDOW: Duration = Duration::from_millis(500);
/// The same for a listener that has just come, and sees nothing at all until then.
pub const NEWCOMER_WINDOW: Duration = Duration::from_millis(150);
/// A canvas that does not change is encoded this often: receivers take longer gaps for a freeze, and viewers for a
/// broken line.
pub const STILL_INTERVAL: Duration = Duration::from_millis(250);

pub(super) struct Rung {
    id: VideoRung,
    config: EncoderConfig,
    compositor: Compositor,
    encoder: Encoder,
    usage: Usage,
    /// Bit/s that the encoder is to make.
    bitrate: u32,
    /// When the next picture is due; `None`: at once.
    next: Option<Instant>,
    /// A keyframe is wanted, when the last one is this old.
    keyframe_wanted: Option<Duration>,
    last_keyframe: Option<Instant>,
    last_encoded: Option<Instant>,
    /// The canvas has changed since it was last encoded.
    changed: bool,
    /// Half the frame rate has to do.
    slow: bool,
}

impl Rung {
    pub(super) fn new(
        id: VideoRung,
        config: EncoderConfig,
        theme: Theme,
    ) -> Result<Self, H264Error> {
        Ok(Rung {
            id,
            config,
            compositor: Compositor::new(config.width as usize, config.height as usize, theme),
            encoder: Encoder::new(config)?,
            usage: Usage::default(),
            bitrate: config.bitrate,
            next: None,
            keyframe_wanted: Some(Duration::ZERO),
            last_keyframe: None,
            last_encoded: None,
            changed: true,
            slow: false,
        })
    }

    pub(super) fn id(&self) -> VideoRung {
        self.id
    }

    /// Tells whether a tile came, went or moved. A shared screen is encoded as such: the next picture is a keyframe
    /// of another encoder then.
    pub(super) fn set_tiles(&mut self, scene: Scene, specs: &[TileSpec]) -> bool {
        let usage = match scene.kind {
            Kind::Screen => Usage::Screen,
            Kind::Grid | Kind::Speaker | Kind::Pinned => Usage::Camera,
        };
        if usage != self.usage {
            self.usage = usage;
            let config = EncoderConfig {
                bitrate: self.bitrate,
                ..self.config
            };
            match Encoder::for_usage(config, usage) {
                Ok(encoder) => {
                    self.encoder = encoder;
                    self.keyframe_wanted = Some(Duration::ZERO);
                }
                // The old one goes on: a picture that is less sharp.
                Err(error) => tracing::error!(id = ?self.id, %error, "no encoder for a new scene"),
            }
        }
        self.compositor.set_tiles(scene, specs)
    }

    /// Everybody sits where they sit in another rung of the same shape. Before the first tiles are set.
    pub(super) fn seat_like(&mut self, other: &Rung, scene: Scene) {
        self.compositor.seat_like(&other.compositor, scene);
    }

    /// What its encoder is to make, bit/s. False when that refuses.
    pub(super) fn set_bitrate(&mut self, bps: u32) -> bool {
        self.bitrate = bps;
        self.encoder.set_bitrate(bps).is_ok()
    }

    /// Whose tile is where, by the ids of the specs; see [`Compositor::tiles`].
    pub(super) fn tiles(&self) -> impl Iterator<Item = (u64, Rect)> + '_ {
        self.compositor.tiles()
    }

    /// A keyframe as soon as the last one is `window` old.
    pub(super) fn request_keyframe(&mut self, window: Duration) {
        let wanted = self.keyframe_wanted.map_or(window, |w| w.min(window));
        self.keyframe_wanted = Some(wanted);
    }

    pub(super) fn due(&self, now: Instant) -> Instant {
        self.next.unwrap_or(now)
    }

    /// Composes and, if there is a reason to, encodes. `picture_of` is asked per tile.
    pub(super) fn run<'a>(
        &mut self,
        now: Instant,
        clock: Duration,
        picture_of: impl FnMut(usize) -> Picture<'a>,
        out: &mut VideoTick,
        stats: &mut VideoStats,
    ) {
        self.schedule(now);
        self.changed |= self.compositor.compose(picture_of);
        stats.composed += 1;
        let since = |last: Option<Instant>| last.map(|last| now.saturating_duration_since(last));
        let age = since(self.last_keyframe);
        let keyframe = self
            .keyframe_wanted
            .is_some_and(|window| age.is_none_or(|age| age >= window));
        let still = since(self.last_encoded).is_none_or(|t| t >= STILL_INTERVAL);
        if keyframe || self.changed || still {
            self.encode(now, clock, keyframe, out, stats);
        }
    }

    /// Half the frame rate, or the whole again.
    pub(super) fn set_slow(&mut self, slow: bool) {
        self.slow = slow;
    }

    /// From one picture to the next.
    pub(super) fn period(&self) -> Duration {
        let period = Duration::from_secs(1) / self.config.fps.max(1);
        if self.slow { 2 * period } else { period }
    }

    /// Keeps the beat, but never makes up for pictures that were missed.
    fn schedule(&mut self, now: Instant) {
        let period = self.period();
        let next = self.due(now) + period;
        self.next = Some(if next <= now { now + period } else { next });
    }

    fn encode(
        &mut self,
        now: Instant,
        clock: Duration,
        keyframe: bool,
        out: &mut VideoTick,
        stats: &mut VideoStats,
    ) {
        if keyframe {
            self.encoder.request_keyframe();
        }
        let start = out.data.len();
        let millis = clock.as_millis() as u64;
        let picture = self.compositor.canvas().view();
        let Ok(keyframe) = self.encoder.encode(picture, millis, &mut out.data) else {
            out.data.truncate(start);
            stats.encode_failed += 1;
            return;
        };
        self.changed = false;
        self.last_encoded = Some(now);
        stats.encoded += 1;
        if keyframe {
            self.keyframe_wanted = None;
            self.last_keyframe = Some(now);
            stats.keyframes += 1;
        }
        out.frames.push(EncodedFrame {
            rung: self.id,
            data: start..out.data.len(),
            keyframe,
            timestamp: rtp_time(clock),
        });
    }
}

/// The 90 kHz clock of video (RFC 6184, section 5.1); wraps.
fn rtp_time(clock: Duration) -> u32 {
    (clock.as_nanos() * 9 / 100_000) as u32
}
