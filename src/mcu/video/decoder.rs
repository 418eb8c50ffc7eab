//! One source's decoder: access units in, the newest picture out, and its troubles kept to itself.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::budget::Budget;
use super::exchange::PictureWriter;
use crate::mcu::codec::{PictureDecoder, VideoCodec};

/// How often a source's decoder is made anew after a panic. Then the source is given up: its tile stays a card.
pub const MAX_RESTARTS: u32 = 3;
/// Pictures of one source that are decoded at once, after a stall of the network, and in a second later on. What is
/// beyond is dropped up to the next keyframe: nobody's camera has 120 pictures a second in a tile.
const PICTURES: (u32, u32) = (90, 75);
/// How long nothing is decoded of a source that sends too many.
const PENALTY: Duration = Duration::from_millis(500);
/// Changes of one source's picture size at once, and in a second later on: each makes codec and scalers allocate.
const SIZES: (u32, u32) = (8, 2);

/// One encoded picture, as its assembler has it.
#[derive(Clone, Copy, Debug)]
pub struct Unit<'a> {
    /// H.264: Annex B. VP8: a frame.
    pub data: &'a [u8],
    /// A decoder can begin here.
    pub keyframe: bool,
    /// When its last packet came.
    pub arrival: Instant,
    /// Quarters to turn it clockwise before it is shown (3GPP TS 26.114, 7.4.5).
    pub orientation: u8,
    /// Packets before it were lost for good.
    pub broken: bool,
}

/// Why a unit was not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeDrop {
    /// No keyframe has come yet.
    BeforeKeyframe,
    /// Too large, or in a format that is not decoded.
    Undecodable,
    /// More waited than may.
    QueueFull,
    /// More pictures, or sizes, a second than a source may have.
    TooMany,
    /// The decoder panicked with it.
    Panicked,
    /// The decoder has panicked too often.
    GivenUp,
}

/// Of all sources of one mix, since it began.
#[derive(Debug, Default)]
pub struct DecodeCounters {
    /// Units decoded.
    pub decoded: AtomicU64,
    /// Of these, the ones with missing or wrong parts.
    pub damaged: AtomicU64,
    drops: [AtomicU64; 6],
}

impl DecodeCounters {
    /// What was dropped for this reason.
    pub fn dropped(&self, reason: DecodeDrop) -> u64 {
        self.drops[reason as usize].load(Ordering::Relaxed)
    }

    /// Counts `count` units.
    pub fn count(&self, reason: DecodeDrop, count: u64) {
        self.drops[reason as usize].fetch_add(count, Ordering::Relaxed);
    }
}

/// See the module's text. It lives while its source is shown.
pub struct SourceDecoder {
    codec: VideoCodec,
    state: State,
    output: PictureWriter,
    pictures: Budget,
    sizes: Budget,
    size: Option<(usize, usize)>,
    /// Since it sent too many.
    shut_until: Option<Instant>,
    restarts: u32,
    counters: Arc<DecodeCounters>,
}

enum State {
    /// Nothing can be decoded before a keyframe. What there is of a decoder is used again.
    AwaitingKeyframe(Option<PictureDecoder>),
    /// Pictures come.
    Decoding {
        decoder: PictureDecoder,
        /// They are wrong until the next keyframe.
        damaged: bool,
        /// Parts of the last keyframe were missing. There was nothing to conceal them with: they are grey, and so
        /// is what follows.
        grey: bool,
    },
    GivenUp,
}

impl SourceDecoder {
    /// A decoder that waits for a keyframe.
    pub fn new(codec: VideoCodec, output: PictureWriter, counters: Arc<DecodeCounters>) -> Self {
        SourceDecoder {
            codec,
            state: State::AwaitingKeyframe(None),
            output,
            pictures: Budget::new(PICTURES.0, PICTURES.1),
            sizes: Budget::new(SIZES.0, SIZES.1),
            size: None,
            shut_until: None,
            restarts: 0,
            counters,
        }
    }

    /// Of what it decodes.
    pub fn codec(&self) -> VideoCodec {
        self.codec
    }

    /// Nobody takes the pictures any more.
    pub fn is_abandoned(&self) -> bool {
        self.output.is_abandoned()
    }

    /// `count` units were thrown away unseen, because too many waited: it goes on at the next keyframe.
    pub fn skip(&mut self, count: u64) {
        self.counters.count(DecodeDrop::QueueFull, count);
        self.await_keyframe();
    }

    /// Decodes a unit and hands over the picture that it brings. Everything that goes wrong ends here.
    pub fn decode(&mut self, unit: Unit<'_>) {
        let result = catch_unwind(AssertUnwindSafe(|| self.try_decode(unit)));
        match result {
            Ok(Ok(damaged)) => {
                self.counters.decoded.fetch_add(1, Ordering::Relaxed);
                let damaged = u64::from(damaged);
                self.counters.damaged.fetch_add(damaged, Ordering::Relaxed);
            }
            Ok(Err(reason)) => self.counters.count(reason, 1),
            Err(_) => self.restart(unit.arrival),
        }
        self.tell_needs();
    }

    /// After a panic: the tile becomes the card, and another decoder is tried, though not for ever.
    fn restart(&mut self, now: Instant) {
        self.counters.count(DecodeDrop::Panicked, 1);
        self.restarts += 1;
        let next = match self.restarts > MAX_RESTARTS {
            true => State::GivenUp,
            false => State::AwaitingKeyframe(None),
        };
        tracing::warn!(
            restarts = self.restarts,
            "a decoder panicked; its source has a card"
        );
        let broken = std::mem::replace(&mut self.state, next);
        // What panicked once may do so again on its way out.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(broken)));
        self.output.publish_nothing(now);
    }

    /// Tells whether something was missing or wrong.
    fn try_decode(&mut self, unit: Unit<'_>) -> Result<bool, DecodeDrop> {
        if let State::GivenUp = self.state {
            return Err(DecodeDrop::GivenUp);
        }
        if unit.broken && !unit.keyframe && !self.codec.is_concealed() {
            // The last good picture stays.
            self.await_keyframe();
        }
        self.begin(unit)?;
        if !self.pictures.take(unit.arrival) {
            return Err(self.shut(unit.arrival));
        }
        let State::Decoding {
            decoder,
            damaged,
            grey,
        } = &mut self.state
        else {
            return Err(DecodeDrop::BeforeKeyframe);
        };
        let Ok(decoded) = decoder.decode(unit.data) else {
            self.await_keyframe();
            return Err(DecodeDrop::Undecodable);
        };
        let harmed = decoded.damaged;
        *damaged = harmed || (!unit.keyframe && (*damaged || unit.broken));
        *grey = match unit.keyframe {
            true => harmed || decoded.picture.is_none(),
            false => *grey,
        };
        // The last good picture stays.
        let Some(view) = decoded.picture.filter(|_| !*grey) else {
            return Ok(harmed);
        };
        let size = Some((view.width(), view.height()));
        if self.size != size && !self.sizes.take(unit.arrival) {
            return Err(self.shut(unit.arrival));
        }
        self.size = size;
        self.output.publish(view, unit.orientation, unit.arrival);
        Ok(harmed)
    }

    /// With a keyframe, what waited begins to decode.
    fn begin(&mut self, unit: Unit<'_>) -> Result<(), DecodeDrop> {
        let State::AwaitingKeyframe(kept) = &mut self.state else {
            return Ok(());
        };
        if !unit.keyframe {
            return Err(DecodeDrop::BeforeKeyframe);
        }
        if self.shut_until.is_some_and(|until| unit.arrival < until) {
            return Err(DecodeDrop::TooMany);
        }
        let decoder = match kept.take() {
            Some(kept) => kept,
            None => PictureDecoder::new(self.codec).ok_or(DecodeDrop::Undecodable)?,
        };
        self.state = State::Decoding {
            decoder,
            damaged: false,
            grey: false,
        };
        Ok(())
    }

    fn shut(&mut self, now: Instant) -> DecodeDrop {
        self.shut_until = Some(now + PENALTY);
        self.await_keyframe();
        DecodeDrop::TooMany
    }

    fn await_keyframe(&mut self) {
        let before = std::mem::replace(&mut self.state, State::AwaitingKeyframe(None));
        self.state = match before {
            State::Decoding { decoder, .. } => State::AwaitingKeyframe(Some(decoder)),
            before => before,
        };
        self.tell_needs();
    }

    fn tell_needs(&self) {
        self.output.set_needs_keyframe(match self.state {
            State::AwaitingKeyframe(_) => true,
            State::Decoding { damaged, .. } => damaged,
            State::GivenUp => false,
        });
    }
}
