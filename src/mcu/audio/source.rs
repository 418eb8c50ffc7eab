//! One source of the mix: its jitter buffer, and, while somebody may hear it, its decoder.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use talksy_mixer::audio::resample::DriftResampler;
use talksy_mixer::audio::splice::{SHORTEN_NEEDS, shorten};
use talksy_mixer::audio::{AudioLevel, FRAME_SAMPLES, Frame, Hint, SILENCE, SourceId};

use super::counters::AudioCounters;
use crate::ids::PeerId;
use crate::mcu::codec::opus::{MAX_SAMPLES, OpusDecoder, OpusError};
use crate::mcu::jitter::{JitterBuffer, Pull};

/// Packets that a source keeps for the time it wakes up: a decoder without a past needs 5 to 10 of them until it
/// sounds as if it had been awake. The oldest goes.
const PRE_ROLL: usize = 10;

/// Ticks without a packet after which a source counts as silent.
const SILENT_AFTER: u32 = 6;

/// Behind by this, sound is left out (40 ms): the resampler alone would take 8 s.
const SHORTEN_AT: i64 = 1920;

/// Behind by this, the buffer starts anew (300 ms).
const RESTART_AT: i64 = 14_400;

/// Ticks between two pieces that are left out: 10 % faster speech at most.
const SHORTEN_EVERY: u32 = 5;

/// Over this many samples sound comes back after it had faded.
const FADE_IN: usize = 240;

/// Steps in which made-up sound fades, as [`Pull::Dry`] counts them.
const DRY_STEPS: f32 = 5.0;

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

/// See the module.
pub(super) struct AudioSource {
    pub peer: PeerId,
    pub id: SourceId,
    pub muted: bool,
    pub speaking: bool,
    pub jitter: JitterBuffer,
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
            jitter: JitterBuffer::new(),
            history: VecDeque::with_capacity(PRE_ROLL + 1),
            level: None,
            since_packet: SILENT_AFTER,
            shut_out: 0,
            awake: None,
        }
    }

    /// A packet was taken into the jitter buffer.
    pub fn note_packet(&mut self, level: Option<AudioLevel>) {
        self.since_packet = 0;
        self.level = level;
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
            match voice.decoder.decode(payload) {
                Ok(sound) => sound.as_chunks().0.iter().for_each(&mut heard),
                Err(_) => counters.undecodable += 1,
            }
        }
        self.awake = Some(voice);
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
    pub fn next_frame(
        &mut self,
        now: Instant,
        counters: &mut AudioCounters,
    ) -> Option<(&Frame, Option<&Frame>)> {
        if self.shut_out > 0 {
            self.skip(now);
            return None;
        }
        let undecodable = counters.undecodable;
        let voice = self.awake.as_mut()?;
        voice.follow_clock(now, &mut self.jitter, counters);
        while voice.sound.len() < voice.resampler.needed() {
            let pull = self.jitter.pull(now);
            if let Pull::Packet { payload, .. } = &pull {
                remember(&mut self.history, payload.clone());
            }
            voice.play(pull, counters);
        }
        voice.shorten_if_late(now, &mut self.jitter, &mut self.history, counters);
        voice.cut_frame();
        if voice.sound.len() < FRAME_SAMPLES && self.jitter.is_next_there() {
            let pull = self.jitter.pull(now);
            if let Pull::Packet { payload, .. } = &pull {
                remember(&mut self.history, payload.clone());
            }
            voice.play(pull, counters);
        }
        if counters.undecodable > undecodable {
            self.shut_out = NOT_HEARD_AFTER_GARBAGE;
            return None;
        }
        (!voice.frame_is_silent).then_some((&*voice.frame, voice.sound.first_chunk()))
    }
}

fn remember(history: &mut VecDeque<Bytes>, payload: Bytes) {
    if history.len() == PRE_ROLL {
        history.pop_front();
    }
    history.push_back(payload);
}

/// What a source needs while it is decoded. Costly to make, and so passed on from source to source.
pub(super) struct Voice {
    decoder: OpusDecoder,
    resampler: DriftResampler,
    /// Decoded and not yet played.
    sound: Vec<f32>,
    frame: Box<Frame>,
    frame_is_silent: bool,
    /// Samples at the end of `sound` that are plain silence.
    silence: usize,
    /// Of made-up sound: where its fading stands. 1 for real sound.
    gain: f32,
    since_shortened: u32,
}

impl Voice {
    pub fn new() -> Result<Self, OpusError> {
        Ok(Voice {
            decoder: OpusDecoder::new()?,
            resampler: DriftResampler::new(),
            sound: Vec::with_capacity(2 * MAX_SAMPLES),
            frame: Box::new(SILENCE),
            frame_is_silent: true,
            silence: 0,
            gain: 0.0,
            since_shortened: 0,
        })
    }

    fn reset(&mut self) {
        // A decoder that refuses to be reset still decodes: its next packets sound rough, no more.
        let _ = self.decoder.reset();
        self.resampler.reset();
        self.sound.clear();
        self.frame_is_silent = true;
        self.silence = 0;
        self.gain = 0.0;
        self.since_shortened = 0;
    }

    /// Sets the resampler's speed so that the delay moves to its target: 10 ms off is full speed.
    fn follow_clock(
        &mut self,
        now: Instant,
        jitter: &mut JitterBuffer,
        counters: &mut AudioCounters,
    ) {
        let lag = jitter.lag(now, self.sound.len());
        if lag > RESTART_AT {
            counters.restarts += 1;
            jitter.restart();
            return;
        }
        self.resampler.set_speed(1.0 + lag as f64 / 96_000.0);
    }

    fn play(&mut self, pull: Pull, counters: &mut AudioCounters) {
        match pull {
            Pull::Packet { payload, samples } => {
                counters.decodes += 1;
                if append(
                    self.decoder.decode(&payload),
                    &mut self.sound,
                    &mut self.gain,
                    1.0,
                )
                .is_err()
                {
                    counters.undecodable += 1;
                    self.conceal(samples, 1.0);
                }
                self.silence = 0;
            }
            Pull::Lost {
                samples,
                successor: Some(successor),
            } => {
                counters.fec += 1;
                let recovered = self.decoder.recover(&successor, samples);
                if append(recovered, &mut self.sound, &mut self.gain, 1.0).is_err() {
                    self.conceal(samples, 1.0);
                }
            }
            Pull::Lost {
                samples,
                successor: None,
            } => {
                counters.plc += 1;
                self.conceal(samples, 1.0);
            }
            Pull::Dry { step } => {
                counters.plc += 1;
                self.conceal(FRAME_SAMPLES, 1.0 - (step + 1) as f32 / DRY_STEPS);
            }
            // The first silence after sound is made up and fades within a tick.
            Pull::Silence if self.gain > 0.0 => {
                counters.plc += 1;
                self.conceal(FRAME_SAMPLES, 0.0);
            }
            Pull::Silence => self.append_silence(FRAME_SAMPLES),
        }
    }

    /// Appends made-up sound whose gain ends at `gain`.
    fn conceal(&mut self, samples: usize, gain: f32) {
        let made = self.decoder.conceal(samples);
        if append(made, &mut self.sound, &mut self.gain, gain).is_err() {
            self.append_silence(samples);
        }
        self.silence = 0;
    }

    fn append_silence(&mut self, samples: usize) {
        self.sound.resize(self.sound.len() + samples, 0.0);
        self.silence += samples;
        self.gain = 0.0;
    }

    /// Leaves a piece out where the delay is far over its target and enough sound is there to choose from.
    fn shorten_if_late(
        &mut self,
        now: Instant,
        jitter: &mut JitterBuffer,
        history: &mut VecDeque<Bytes>,
        counters: &mut AudioCounters,
    ) {
        self.since_shortened = self.since_shortened.saturating_add(1);
        if self.since_shortened < SHORTEN_EVERY || jitter.lag(now, self.sound.len()) < SHORTEN_AT {
            return;
        }
        while self.sound.len() < FRAME_SAMPLES + SHORTEN_NEEDS && jitter.has_packets() {
            let pull = jitter.pull(now);
            if let Pull::Packet { payload, .. } = &pull {
                remember(history, payload.clone());
            }
            let silent = pull == Pull::Silence;
            self.play(pull, counters);
            if silent {
                return;
            }
        }
        if self.sound.len() >= FRAME_SAMPLES + SHORTEN_NEEDS {
            counters.shortened += shorten(&mut self.sound) as u64;
            self.since_shortened = 0;
        }
    }

    /// Plays the first 20 ms of what is there.
    fn cut_frame(&mut self) {
        let needed = self.resampler.needed().min(self.sound.len());
        self.frame_is_silent = self.silence >= self.sound.len();
        let resampled = self
            .resampler
            .process(&self.sound[..needed], &mut self.frame);
        debug_assert!(resampled.is_ok(), "the sound that is needed was there");
        let rest = self.sound.len() - needed;
        self.sound.copy_within(needed.., 0);
        self.sound.truncate(rest);
        self.silence = self.silence.min(rest);
    }
}

/// Appends decoded sound. Its gain goes from `from`, where the last sound ended, to `to`: at once (5 ms) where it
/// rises, over the whole length where it falls.
fn append(
    decoded: Result<&[f32], OpusError>,
    sound: &mut Vec<f32>,
    from: &mut f32,
    to: f32,
) -> Result<(), OpusError> {
    let decoded = decoded?;
    let length = if to > *from { FADE_IN } else { decoded.len() };
    if *from == to {
        sound.extend(decoded.iter().map(|x| x * to));
    } else {
        let step = (to - *from) / length as f32;
        let gain = |i: usize| {
            if i < length {
                *from + step * i as f32
            } else {
                to
            }
        };
        sound.extend(decoded.iter().enumerate().map(|(i, x)| x * gain(i)));
    }
    *from = to;
    Ok(())
}
