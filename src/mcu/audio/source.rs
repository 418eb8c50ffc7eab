//! One source of the mix: its jitter buffer, and, while somebody may hear it, its decoder.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use talksy_mixer::audio::{AudioLevel, FRAME_SAMPLES, Frame, Hint, SourceId};

use super::counters::AudioCounters;
use super::decoder::{DecoderKind, SourceDecoder};
use super::voice::Voice;
use crate::ids::PeerId;
use crate::mcu::codec::SourceCodec;
use crate::mcu::codec::opus::is_stereo;
use crate::mcu::jitter::{JitterBuffer, Refused};

/// Packets that a source keeps for the time it wakes up: a decoder without a past needs 5 to 10 of them until it
/// sounds as if it had been awake. The oldest goes.
const PRE_ROLL: usize = 10;

/// Ticks without a packet after which a source counts as silent.
const SILENT_AFTER: u32 = 6;

/// Ticks for which a source is not heard that sent what no encoder sends: a second. (SRTP lets nothing through that was damaged on its way.)
const NOT_HEARD_AFTER_GARBAGE: u32 = 50;

/// How late a source is played, after the arrival of a packet that the network did not hold up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceDelay {
    /// What it is.
    pub delay: Duration,
    /// What the jitter of the last packets calls for.
    pub target: Duration,
}

/// What of a source is heard in a tick.
pub(super) struct Played<'a> {
    /// The sound; of two channels, half their sum.
    pub mid: &'a Frame,
    /// Of two channels: half of left minus right.
    pub side: Option<&'a Frame>,
    /// The next tick's sound, where its packet is there already.
    pub ahead: Option<&'a Frame>,
}

/// See the module.
pub(super) struct AudioSource {
    pub peer: PeerId,
    pub id: SourceId,
    pub muted: bool,
    pub speaking: bool,
    pub jitter: JitterBuffer,
    codec: SourceCodec,
    /// It has sent two channels.
    stereo: bool,
    history: VecDeque<Bytes>,
    level: Option<AudioLevel>,
    since_packet: u32,
    /// Ticks for which it is not heard yet, because of what it sent.
    shut_out: u32,
    awake: Option<Voice>,
}

impl AudioSource {
    pub fn new(peer: PeerId, id: SourceId) -> Self {
        AudioSource {
            peer,
            id,
            muted: false,
            speaking: false,
            jitter: JitterBuffer::new(SourceCodec::Opus),
            codec: SourceCodec::Opus,
            stereo: false,
            history: VecDeque::with_capacity(PRE_ROLL + 1),
            level: None,
            since_packet: SILENT_AFTER,
            shut_out: 0,
            awake: None,
        }
    }

    /// What its packets carry. What came until now is forgotten.
    pub fn set_codec(&mut self, codec: SourceCodec) {
        self.codec = codec;
        self.jitter = JitterBuffer::new(codec);
        self.history.clear();
        self.stereo = false;
    }

    /// Takes a packet into the jitter buffer.
    ///
    /// # Errors
    /// Why it was not taken.
    pub fn push(
        &mut self,
        seq: u64,
        timestamp: u32,
        arrival: Instant,
        level: Option<AudioLevel>,
        payload: Bytes,
    ) -> Result<(), Refused> {
        let stereo = self.codec == SourceCodec::Opus && is_stereo(&payload);
        self.jitter.push(seq, timestamp, arrival, payload)?;
        self.stereo |= stereo;
        self.since_packet = 0;
        self.level = level;
        Ok(())
    }

    /// How it is to be decoded; `wide`: somebody hears two channels.
    pub fn wanted_decoder(&self, wide: bool) -> DecoderKind {
        DecoderKind::of(self.codec, wide && self.stereo)
    }

    /// It sent a packet that no encoder makes: what else it sends may be noise at full scale.
    pub fn shut_out(&mut self) {
        self.shut_out = NOT_HEARD_AFTER_GARBAGE;
    }

    /// What the mixer can know before anything is decoded. Newer than the sound that is played: a voice is noticed,
    /// and its decoder awake, before its first syllable.
    pub fn hint(&mut self) -> Hint {
        if self.muted || self.since_packet >= SILENT_AFTER {
            return Hint::Silent;
        }
        if self.shut_out > 0 {
            self.shut_out -= 1;
            self.since_packet += 1;
            return Hint::Silent;
        }
        self.since_packet += 1;
        self.level.map_or(Hint::NoLevel, Hint::Level)
    }

    pub fn is_awake(&self) -> bool {
        self.awake.is_some()
    }

    /// Takes a decoder and decodes the recent past; `heard` gets its sound.
    pub fn wake(
        &mut self,
        mut voice: Voice,
        counters: &mut AudioCounters,
        mut heard: impl FnMut(&Frame),
    ) {
        voice.reset();
        for payload in &self.history {
            counters.pre_roll += 1;
            if voice.pre_roll(payload, &mut heard).is_err() {
                counters.undecodable += 1;
            }
        }
        self.awake = Some(voice);
    }

    /// Goes on with another kind of decoder, if its own is not `kind`; the new one hears the recent past first.
    pub fn change_decoder(&mut self, kind: DecoderKind, counters: &mut AudioCounters) {
        let Some(voice) = self.awake.as_mut().filter(|voice| !voice.decodes(kind)) else {
            return;
        };
        let Ok(mut decoder) = SourceDecoder::new(kind) else {
            return;
        };
        for payload in &self.history {
            if !decoder.takes(payload) {
                continue;
            }
            counters.pre_roll += 1;
            if decoder.decode(payload).is_err() {
                counters.undecodable += 1;
            }
        }
        voice.set_decoder(decoder);
    }

    /// Gives its decoder back.
    pub fn sleep(&mut self) -> Option<Voice> {
        self.awake.take()
    }

    /// Lets a tick pass that nobody hears.
    pub fn skip(&mut self, now: Instant) {
        let history = &mut self.history;
        self.jitter.skip(now, |payload| remember(history, payload));
    }

    /// Forgets what waits, and what was.
    pub fn clear(&mut self) {
        if self.jitter.has_packets() || !self.history.is_empty() {
            self.jitter.clear();
            self.history.clear();
        }
        self.since_packet = SILENT_AFTER;
    }

    /// How late it is played; `None` while nothing plays.
    pub fn delay(&self, now: Instant) -> Option<SourceDelay> {
        let buffered = self.awake.as_ref()?.sound.len();
        let target = self.jitter.target() as i64;
        let lag = self
            .jitter
            .is_playing()
            .then(|| self.jitter.lag(now, buffered))?;
        let micros = |samples: i64| Duration::from_micros((samples.max(0) * 125 / 6) as u64);
        Some(SourceDelay {
            delay: micros(target + lag),
            target: micros(target),
        })
    }

    /// The sound of this tick, and that of the next one where its packet is there already. `None`: asleep, or silent
    /// for as long as anybody would hear it.
    pub fn next_frame(&mut self, now: Instant, counters: &mut AudioCounters) -> Option<Played<'_>> {
        if self.shut_out > 0 {
            self.skip(now);
            return None;
        }
        let undecodable = counters.undecodable;
        let voice = self.awake.as_mut()?;
        voice.follow_clock(now, &mut self.jitter, counters);
        while !voice.has_frame() {
            voice.play(now, &mut self.jitter, &mut self.history, counters);
        }
        voice.shorten_if_late(now, &mut self.jitter, &mut self.history, counters);
        voice.cut_frame();
        if voice.sound.len() < FRAME_SAMPLES && self.jitter.is_next_there() {
            voice.play(now, &mut self.jitter, &mut self.history, counters);
        }
        if counters.undecodable > undecodable {
            self.shut_out = NOT_HEARD_AFTER_GARBAGE;
            return None;
        }
        voice.played()
    }
}

pub(super) fn remember(history: &mut VecDeque<Bytes>, payload: Bytes) {
    if history.len() == PRE_ROLL {
        history.pop_front();
    }
    history.push_back(payload);
}
