//! What a source has while it is decoded: its decoder, what is to be played, and the resampler that follows its clock.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use talksy_mixer::audio::resample::DriftResampler;
use talksy_mixer::audio::splice::{SHORTEN_NEEDS, shorten, shorten_both};
use talksy_mixer::audio::{FRAME_SAMPLES, Frame, SILENCE};

use super::counters::AudioCounters;
use super::decoder::{DecoderKind, Sound, SourceDecoder, Undecodable};
use super::source::{Played, remember};
use crate::mcu::codec::opus::MAX_SAMPLES;
use crate::mcu::jitter::{JitterBuffer, Pull};

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

/// What a source needs while it is decoded. Costly to make, and so passed on from source to source.
pub(super) struct Voice {
    decoder: SourceDecoder,
    resampler: DriftResampler,
    /// Decoded and not yet played; of two channels, half their sum.
    pub sound: Vec<f32>,
    /// What two channels have beside that; of one channel, nothing.
    side: Option<Box<Side>>,
    frame: Box<Frame>,
    frame_is_silent: bool,
    /// Samples at the end of `sound` that are plain silence.
    silence: usize,
    /// Of made-up sound: where its fading stands. 1 for real sound.
    gain: f32,
    since_shortened: u32,
}

/// Half of left minus right. It takes the same steps as the half sum: their resamplers are set alike and fed alike.
struct Side {
    resampler: DriftResampler,
    /// As long as [`Voice::sound`].
    sound: Vec<f32>,
    frame: Frame,
}

impl Voice {
    pub fn new(kind: DecoderKind) -> Result<Self, Undecodable> {
        Ok(Voice {
            decoder: SourceDecoder::new(kind)?,
            resampler: DriftResampler::new(),
            sound: Vec::with_capacity(2 * MAX_SAMPLES),
            side: kind.is_wide().then(Side::new),
            frame: Box::new(SILENCE),
            frame_is_silent: true,
            silence: 0,
            gain: 0.0,
            since_shortened: 0,
        })
    }

    pub fn decodes(&self, kind: DecoderKind) -> bool {
        self.decoder.kind() == kind
    }

    /// Takes another decoder, which has decoded the same packets until now: what is to be played goes on.
    pub fn set_decoder(&mut self, decoder: SourceDecoder) {
        self.resampler.reset();
        self.side = decoder.kind().is_wide().then(|| {
            let mut side = Side::new();
            side.sound.resize(self.sound.len(), 0.0);
            side
        });
        self.decoder = decoder;
    }

    /// Decodes a packet of the past, if it is one; `heard` gets its sound.
    pub fn pre_roll(
        &mut self,
        payload: &[u8],
        mut heard: impl FnMut(&Frame),
    ) -> Result<(), Undecodable> {
        if !self.decoder.takes(payload) {
            return Ok(());
        }
        let mut gain = 1.0;
        let decoded = self.decoder.decode(payload);
        append(decoded, &mut self.sound, None, &mut gain, 1.0)?;
        self.sound.as_chunks().0.iter().for_each(&mut heard);
        self.sound.clear();
        Ok(())
    }

    /// What was cut last; `None`: it is silence.
    pub fn played(&self) -> Option<Played<'_>> {
        (!self.frame_is_silent).then_some(Played {
            mid: &self.frame,
            side: self.side.as_ref().map(|side| &side.frame),
            ahead: self.sound.first_chunk(),
        })
    }

    /// Whether there is a tick's sound.
    pub fn has_frame(&self) -> bool {
        self.sound.len() >= self.resampler.needed()
    }

    pub fn reset(&mut self) {
        self.decoder.reset();
        self.resampler.reset();
        self.sound.clear();
        if let Some(side) = &mut self.side {
            side.resampler.reset();
            side.sound.clear();
        }
        self.frame_is_silent = true;
        self.silence = 0;
        self.gain = 0.0;
        self.since_shortened = 0;
    }

    /// Sets the resampler's speed so that the delay moves to its target: 10 ms off is full speed.
    pub fn follow_clock(
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
        let speed = 1.0 + lag as f64 / 96_000.0;
        self.resampler.set_speed(speed);
        if let Some(side) = &mut self.side {
            side.resampler.set_speed(speed);
        }
    }

    /// Plays what comes next; a packet goes into `history` afterwards. False: nothing is to come now.
    pub fn play(
        &mut self,
        now: Instant,
        jitter: &mut JitterBuffer,
        history: &mut VecDeque<Bytes>,
        counters: &mut AudioCounters,
    ) -> bool {
        let pull = jitter.pull(now);
        let comes = pull != Pull::Silence;
        match pull {
            Pull::Packet { payload, samples } if !self.decoder.takes(&payload) => {
                counters.dropped.surround += 1;
                self.conceal(samples, 1.0);
            }
            Pull::Packet { payload, samples } => {
                counters.decodes += 1;
                let decoded = self.decoder.decode(&payload);
                let side = self.side.as_deref_mut().map(|side| &mut side.sound);
                if append(decoded, &mut self.sound, side, &mut self.gain, 1.0).is_err() {
                    counters.undecodable += 1;
                    self.conceal(samples, 1.0);
                }
                self.silence = 0;
                remember(history, payload);
            }
            Pull::Lost {
                samples,
                has_successor: true,
            } if self.decoder.has_fec() => {
                counters.fec += 1;
                let successor = jitter.next_payload().filter(|p| self.decoder.takes(p));
                let successor = successor.map_or(&[][..], |payload| payload);
                let recovered = self.decoder.recover(successor, samples);
                let side = self.side.as_deref_mut().map(|side| &mut side.sound);
                if append(recovered, &mut self.sound, side, &mut self.gain, 1.0).is_err() {
                    self.conceal(samples, 1.0);
                }
            }
            Pull::Lost { samples, .. } => {
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
        comes
    }

    /// Appends made-up sound whose gain ends at `gain`.
    fn conceal(&mut self, samples: usize, gain: f32) {
        let made = self.decoder.conceal(samples);
        let side = self.side.as_deref_mut().map(|side| &mut side.sound);
        if append(made, &mut self.sound, side, &mut self.gain, gain).is_err() {
            self.append_silence(samples);
        }
        self.silence = 0;
    }

    fn append_silence(&mut self, samples: usize) {
        self.sound.resize(self.sound.len() + samples, 0.0);
        if let Some(side) = &mut self.side {
            side.sound.resize(self.sound.len(), 0.0);
        }
        self.silence += samples;
        self.gain = 0.0;
    }

    /// Leaves a piece out where the delay is far over its target and enough sound is there to choose from.
    pub fn shorten_if_late(
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
            if !self.play(now, jitter, history, counters) {
                return;
            }
        }
        if self.sound.len() >= FRAME_SAMPLES + SHORTEN_NEEDS {
            let gone = match &mut self.side {
                Some(side) => shorten_both(&mut self.sound, &mut side.sound),
                None => shorten(&mut self.sound),
            };
            counters.shortened += gone as u64;
            self.since_shortened = 0;
        }
    }

    /// Plays the first 20 ms of what is there.
    pub fn cut_frame(&mut self) {
        let needed = self.resampler.needed().min(self.sound.len());
        self.frame_is_silent = self.silence >= self.sound.len();
        let resampled = self
            .resampler
            .process(&self.sound[..needed], &mut self.frame);
        debug_assert!(resampled.is_ok(), "the sound that is needed was there");
        if let Some(side) = &mut self.side {
            side.cut(needed);
        }
        let rest = self.sound.len() - needed;
        self.sound.copy_within(needed.., 0);
        self.sound.truncate(rest);
        self.silence = self.silence.min(rest);
    }
}

impl Side {
    fn new() -> Box<Self> {
        Box::new(Side {
            resampler: DriftResampler::new(),
            sound: Vec::with_capacity(2 * MAX_SAMPLES),
            frame: SILENCE,
        })
    }

    fn cut(&mut self, needed: usize) {
        let cut = self.sound.get(..needed);
        let cut = cut.map(|sound| self.resampler.process(sound, &mut self.frame));
        debug_assert_eq!(cut, Some(Ok(())), "it is as long as the half sum");
        let needed = needed.min(self.sound.len());
        self.sound.drain(..needed);
    }
}

/// Appends decoded sound. Its gain goes from `from`, where the last sound ended, to `to`: at once (5 ms) where it
/// rises, over the whole length where it falls. Of two channels, half the sum goes to `mid` and half the difference to
/// `side`, which stays as long.
fn append(
    decoded: Result<Sound<'_>, Undecodable>,
    mid: &mut Vec<f32>,
    side: Option<&mut Vec<f32>>,
    from: &mut f32,
    to: f32,
) -> Result<(), Undecodable> {
    let decoded = decoded?;
    let begin = mid.len();
    match decoded {
        Sound::Mono(sound) => mid.extend_from_slice(sound),
        Sound::Stereo(sound) => {
            let pairs = sound.as_chunks::<2>().0.iter();
            mid.extend(pairs.map(|[left, right]| 0.5 * (left + right)));
        }
    }
    ramp(&mut mid[begin..], *from, to);
    if let Some(side) = side {
        if let Sound::Stereo(sound) = decoded {
            let pairs = sound.as_chunks::<2>().0.iter();
            side.extend(pairs.map(|[left, right]| 0.5 * (left - right)));
            ramp(&mut side[begin..], *from, to);
        }
        side.resize(mid.len(), 0.0);
    }
    *from = to;
    Ok(())
}

fn ramp(sound: &mut [f32], from: f32, to: f32) {
    if from == to {
        if to != 1.0 {
            sound.iter_mut().for_each(|x| *x *= to);
        }
        return;
    }
    let length = if to > from { FADE_IN } else { sound.len() };
    let step = (to - from) / length.max(1) as f32;
    for (i, x) in sound.iter_mut().enumerate() {
        *x *= if i < length {
            from + step * i as f32
        } else {
            to
        };
    }
}
