//! One sender's video as the compositor knows it: whether it is looked at, and its newest picture.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use talksy_mixer::video::View;
use talksy_mixer::video::layout::Size;

use super::AccessUnit;
use super::decoder::{DecodeCounters, SourceDecoder};
use super::exchange::{PictureReader, exchange};
use super::job::{DecodeJob, Feed};
use crate::ids::PeerId;
use crate::mcu::codec::VideoCodec;
use crate::mcu::pool::Spawner;

/// Access units that wait for the next tick, where they are decoded in it. A full queue is emptied, and the source
/// goes on at its next keyframe: half a stream cannot be decoded.
pub const SOURCE_QUEUE: usize = 24;
/// A keyframe is asked for at most this often.
pub const KEYFRAME_WISH_INTERVAL: Duration = Duration::from_millis(500);
/// A camera without a new picture for this long shows its card.
pub const CAMERA_TIMEOUT: Duration = Duration::from_secs(3);
/// The same for screens, which send nothing new while nothing moves.
pub const SCREEN_TIMEOUT: Duration = Duration::from_secs(15);

/// Where a source is decoded.
pub(super) enum Intake {
    /// In the tick, from what [`super::VideoMix::push`] brought.
    Tick,
    /// By a job of its own, from its feed.
    Job(Arc<Feed>, Spawner),
}

/// A video track that may be decoded. Its decoder lives while it is awake: shown somewhere, and not muted.
pub(super) struct Source {
    pub(super) peer: PeerId,
    pub(super) screen: bool,
    codec: VideoCodec,
    intake: Intake,
    muted: bool,
    /// Its largest tile in any rung in use.
    shown: Option<Size>,
    /// What was last told of `shown`.
    told: Option<Option<Size>>,
    awake: Option<Awake>,
    last_wish: Option<Instant>,
}

struct Awake {
    reader: PictureReader,
    /// Where it is decoded in the tick.
    inline: Option<Inline>,
    version: u64,
}

struct Inline {
    queue: VecDeque<AccessUnit>,
    decoder: SourceDecoder,
}

impl Source {
    pub(super) fn new(peer: PeerId, screen: bool, codec: VideoCodec, intake: Intake) -> Self {
        Source {
            peer,
            screen,
            codec,
            intake,
            muted: false,
            shown: None,
            told: None,
            awake: None,
            last_wish: None,
        }
    }

    /// Access units that wait.
    pub(super) fn queued(&self) -> u64 {
        let inline = self.awake.as_ref().and_then(|awake| awake.inline.as_ref());
        inline.map_or(0, |inline| inline.queue.len() as u64)
    }

    /// Of what it sends.
    #[cfg(test)]
    pub(super) fn codec(&self) -> VideoCodec {
        self.codec
    }

    pub(super) fn is_muted(&self) -> bool {
        self.muted
    }

    /// Muted sources show their card at once; what they send meanwhile is lost, so they go on with a keyframe.
    /// Returns how many access units have waited in vain.
    pub(super) fn set_muted(&mut self, muted: bool, counters: &Arc<DecodeCounters>) -> u64 {
        self.muted = muted;
        self.wake_or_sleep(counters)
    }

    /// The largest tile that shows it; `None`: it is not to be seen anywhere. Returns how many access units have
    /// waited in vain.
    pub(super) fn set_shown(&mut self, shown: Option<Size>, counters: &Arc<DecodeCounters>) -> u64 {
        self.shown = shown;
        self.wake_or_sleep(counters)
    }

    /// Its largest tile, if that is another than was told last.
    pub(super) fn shown_news(&self) -> Option<Option<Size>> {
        (self.told != Some(self.shown)).then_some(self.shown)
    }

    /// The news have been passed on.
    pub(super) fn set_told(&mut self) {
        self.told = Some(self.shown);
        // A feed is open from the beginning, so that a track's first keyframe is not lost.
        if self.awake.is_none() {
            self.close_feed();
        }
    }

    fn wake_or_sleep(&mut self, counters: &Arc<DecodeCounters>) -> u64 {
        let wanted = self.shown.is_some() && !self.muted;
        if wanted == self.awake.is_some() {
            return 0;
        }
        if !wanted {
            return self.sleep();
        }
        let (writer, reader) = exchange();
        let decoder = SourceDecoder::new(self.codec, writer, counters.clone());
        let inline = match &self.intake {
            Intake::Tick => Some(Inline {
                queue: VecDeque::with_capacity(SOURCE_QUEUE),
                decoder,
            }),
            Intake::Job(feed, spawner) => {
                spawner.spawn_now(Box::new(DecodeJob::new(feed.open(), decoder)));
                None
            }
        };
        self.awake = Some(Awake {
            reader,
            inline,
            version: 0,
        });
        0
    }

    /// Forgets everything that decoding has brought, and what waits for it.
    pub(super) fn sleep(&mut self) -> u64 {
        let queued = self.queued();
        self.awake = None;
        queued + self.close_feed()
    }

    fn close_feed(&self) -> u64 {
        match &self.intake {
            Intake::Tick => 0,
            Intake::Job(feed, _) => feed.close(),
        }
    }

    /// False: it is not shown, so the unit is of no use.
    pub(super) fn push(&mut self, unit: AccessUnit) -> bool {
        let Some(Awake {
            inline: Some(inline),
            ..
        }) = &mut self.awake
        else {
            return false;
        };
        if inline.queue.len() >= SOURCE_QUEUE {
            inline.decoder.skip(inline.queue.len() as u64);
            inline.queue.clear();
        }
        inline.queue.push_back(unit);
        true
    }

    /// Decodes all that waits, where that is done in the tick.
    pub(super) fn decode(&mut self) {
        let inline = self.awake.as_mut().and_then(|awake| awake.inline.as_mut());
        let Some(inline) = inline else {
            return;
        };
        while let Some(unit) = inline.queue.pop_front() {
            inline.decoder.decode(unit.as_unit());
        }
    }

    /// Takes the newest picture. It gets the next of `versions`.
    pub(super) fn update(&mut self, versions: &mut u64) {
        if let Some(awake) = &mut self.awake
            && awake.reader.update()
        {
            *versions += 1;
            awake.version = *versions;
        }
    }

    /// The newest picture and its version, unless it is too old to be shown.
    pub(super) fn picture(&self, now: Instant) -> Option<(View<'_>, u64)> {
        let awake = self.awake.as_ref()?;
        let (view, arrival) = awake.reader.picture()?;
        let timeout = match self.screen {
            true => SCREEN_TIMEOUT,
            false => CAMERA_TIMEOUT,
        };
        let fresh = now.saturating_duration_since(arrival) < timeout;
        fresh.then_some((view, awake.version))
    }

    /// Whether its sender should be asked for a keyframe now. Asking is remembered.
    pub(super) fn take_keyframe_wish(&mut self, now: Instant) -> bool {
        let needed = self
            .awake
            .as_ref()
            .is_some_and(|awake| awake.reader.needs_keyframe());
        let due = self
            .last_wish
            .is_none_or(|last| now.saturating_duration_since(last) >= KEYFRAME_WISH_INTERVAL);
        if needed && due {
            self.last_wish = Some(now);
        }
        needed && due
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.close_feed();
    }
}
