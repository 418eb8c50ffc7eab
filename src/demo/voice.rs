//! The sound of a synthetic participant: a voice-like signal or a tone, encoded once into Opus packets with their levels.

use bytes::Bytes;
use opus::{Application, Bitrate, Channels, Encoder};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::f32::consts::TAU;
use std::time::Duration;

use super::DemoError;

/// Sampling rate of everything here.
pub const SAMPLE_RATE: u32 = 48_000;
/// Samples per Opus packet: 20 ms.
pub const FRAME_SAMPLES: usize = 960;
/// Duration of one packet.
pub const FRAME_DURATION: Duration = Duration::from_millis(20);

/// Packets of one utterance, 4 s.
const PHRASE_FRAMES: usize = 200;
/// Silence after the utterance, so that its tail and the encoder's look-ahead fade inside the loop.
const TAIL_FRAMES: usize = 20;
/// From the start of one speaker's turn to that of the next: shorter than an utterance, so that two overlap a little.
const TURN_FRAMES: u64 = 170;

/// What a synthetic microphone picks up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sound {
    /// Harmonics of `pitch_hz` shaped by the formants of changing vowels, in syllables. Voice detectors take it for speech.
    Voice {
        /// Fundamental frequency; people have 85 to 255 Hz.
        pitch_hz: f32,
    },
    /// A steady sine at -20 dBFS. A voice detector may rightly gate it.
    Tone {
        /// Frequency.
        hz: f32,
    },
}

impl Sound {
    /// One of the voices that differ well from those of the neighbouring numbers.
    pub fn numbered(number: u32) -> Self {
        const PITCHES: [f32; 8] = [110.0, 205.0, 140.0, 235.0, 95.0, 175.0, 125.0, 220.0];
        Sound::Voice {
            pitch_hz: PITCHES[number as usize % PITCHES.len()],
        }
    }

    /// `seconds` of samples, mono, between -1 and 1. The same arguments give the same samples.
    pub fn samples(&self, seconds: f32) -> Vec<f32> {
        let count = (seconds * SAMPLE_RATE as f32) as usize;
        match *self {
            Sound::Voice { pitch_hz } => speech(pitch_hz, count),
            Sound::Tone { hz } => (0..count)
                .map(|i| 0.1414 * (TAU * hz * i as f32 / SAMPLE_RATE as f32).sin())
                .collect(),
        }
    }
}

/// When a sound is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turns {
    /// All the time.
    Always,
    /// As number `index` of `count` speakers who take turns.
    Shared {
        /// Own place in the round, from 0.
        index: u32,
        /// Speakers in the round.
        count: u32,
    },
}

/// One Opus packet of 20 ms and what the RFC 6464 header extension says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct VoicePacket {
    /// The Opus packet.
    pub payload: Bytes,
    /// Level of the samples in -dBov, 0 to 127 (RFC 6464, 3: 127 is digital silence).
    pub level: u8,
    /// Whether it holds speech.
    pub voice: bool,
}

/// Encoded packets that can be sent for ever.
#[derive(Clone, Debug)]
pub struct VoiceLoop {
    packets: Vec<VoicePacket>,
    turns: Turns,
}

impl VoiceLoop {
    /// Synthesises and encodes at 32 kbit/s. Takes some hundred milliseconds of CPU: call it off the async threads.
    ///
    /// # Errors
    /// [`DemoError::Voice`] when libopus refuses.
    pub fn encode(sound: Sound, turns: Turns) -> Result<Self, DemoError> {
        let mut samples = sound.samples(PHRASE_FRAMES as f32 / 50.0);
        if matches!(turns, Turns::Shared { .. }) {
            samples.resize((PHRASE_FRAMES + TAIL_FRAMES) * FRAME_SAMPLES, 0.0);
        }
        let mut encoder = Encoder::new(SAMPLE_RATE, Channels::Mono, Application::Voip)?;
        encoder.set_bitrate(Bitrate::Bits(32_000))?;
        encoder.set_complexity(5)?;
        let packets = samples
            .chunks_exact(FRAME_SAMPLES)
            .map(|frame| {
                let level = level_of(frame);
                Ok(VoicePacket {
                    payload: encoder.encode_vec_float(frame, 1275)?.into(),
                    level,
                    voice: level < 60,
                })
            })
            .collect::<Result<Vec<_>, opus::Error>>()?;
        Ok(VoiceLoop { packets, turns })
    }

    /// The same sound with a false word about it: every packet claims this level in -dBov, and voice.
    pub fn claiming(mut self, level: u8) -> Self {
        for packet in &mut self.packets {
            packet.level = level;
            packet.voice = true;
        }
        self
    }

    /// The packet for frame number `frame` since the demo's common start.
    pub fn packet(&self, frame: u64) -> &VoicePacket {
        let last = self.packets.len() as u64 - 1;
        let at = match self.turns {
            Turns::Always => frame % (last + 1),
            Turns::Shared { index, count } => {
                // Alone, a speaker pauses as long as it speaks.
                let round = TURN_FRAMES * u64::from(count.max(2));
                let start = TURN_FRAMES * u64::from(index);
                ((frame + round - start % round) % round).min(last)
            }
        };
        &self.packets[at as usize]
    }
}

/// Root mean square below the overload point, in whole decibels (RFC 6464, 3).
fn level_of(frame: &[f32]) -> u8 {
    let power = frame.iter().map(|s| s * s).sum::<f32>() / frame.len() as f32;
    if power <= 0.0 {
        return 127;
    }
    (-10.0 * power.log10()).round().clamp(0.0, 127.0) as u8
}

/// Centre frequencies of the first three formants of some vowels (Peterson and Barney 1952, men).
const VOWELS: [[f32; 3]; 6] = [
    [270.0, 2290.0, 3010.0],
    [530.0, 1840.0, 2480.0],
    [660.0, 1720.0, 2410.0],
    [730.0, 1090.0, 2440.0],
    [570.0, 840.0, 2410.0],
    [300.0, 870.0, 2240.0],
];
/// Bandwidth of the formants in Hz.
const FORMANT_WIDTHS: [f32; 3] = [80.0, 110.0, 160.0];
/// Harmonics above this carry nothing that matters to a listener of the demo.
const HIGHEST_HARMONIC_HZ: f32 = 3800.0;
/// Root mean square of a whole utterance: -20 dBFS.
const SPEECH_RMS: f32 = 0.1;

/// Syllables of random vowels and lengths, normalised to [`SPEECH_RMS`].
fn speech(pitch_hz: f32, count: usize) -> Vec<f32> {
    let mut random = StdRng::seed_from_u64(pitch_hz.to_bits().into());
    let mut out = Vec::with_capacity(count + SAMPLE_RATE as usize);
    while out.len() < count {
        let vowel = VOWELS[random.random_range(0..VOWELS.len())];
        let pitch = pitch_hz * random.random_range(0.92..1.1);
        syllable(&mut out, pitch, vowel, random.random_range(0.14..0.26));
        let pause = if random.random_range(0..5) == 0 {
            0.14
        } else {
            0.03
        };
        out.resize(out.len() + (pause * SAMPLE_RATE as f32) as usize, 0.0);
    }
    out.truncate(count);
    let rms = (out.iter().map(|s| s * s).sum::<f32>() / count.max(1) as f32).sqrt();
    let gain = SPEECH_RMS / rms.max(1e-6);
    out.iter_mut()
        .for_each(|s| *s = (*s * gain).clamp(-0.9, 0.9));
    out
}

/// Appends one vowel of `seconds` with a soft beginning and end and a pitch that falls a little, as it does in speech.
fn syllable(out: &mut Vec<f32>, pitch: f32, vowel: [f32; 3], seconds: f32) {
    let length = (seconds * SAMPLE_RATE as f32) as usize;
    let harmonics = (HIGHEST_HARMONIC_HZ / pitch) as usize;
    let weights: Vec<f32> = (1..=harmonics)
        .map(|k| vocal_tract(pitch * k as f32, vowel) / k as f32)
        .collect();
    let mut phase = 0.0f32;
    for i in 0..length {
        let progress = i as f32 / length as f32;
        phase = (phase + TAU * pitch * (1.05 - 0.1 * progress) / SAMPLE_RATE as f32) % TAU;
        let envelope = (std::f32::consts::PI * progress).sin().sqrt();
        // Harmonics by the recurrence sin((k+1)p) = 2 cos(p) sin(kp) - sin((k-1)p): one sine and one cosine a sample.
        let twice_cos = 2.0 * phase.cos();
        let (mut before, mut now) = (0.0, phase.sin());
        let mut sample = 0.0;
        for weight in &weights {
            sample += weight * now;
            (before, now) = (now, twice_cos * now - before);
        }
        out.push(envelope * sample);
    }
}

/// Gain at `hz` of three resonances.
fn vocal_tract(hz: f32, vowel: [f32; 3]) -> f32 {
    vowel
        .iter()
        .zip(FORMANT_WIDTHS)
        .map(|(centre, width)| 1.0 / (1.0 + ((hz - centre) / width).powi(2)).sqrt())
        .sum::<f32>()
        + 0.02
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(packets: impl Iterator<Item = VoicePacket>) -> Vec<f32> {
        let mut decoder = opus::Decoder::new(SAMPLE_RATE, Channels::Mono).unwrap();
        let mut out = Vec::new();
        let mut frame = [0.0; FRAME_SAMPLES];
        for packet in packets {
            let n = decoder
                .decode_float(&packet.payload, &mut frame, false)
                .unwrap();
            out.extend_from_slice(&frame[..n]);
        }
        out
    }

    #[test]
    fn levels_match_what_the_packets_hold() {
        let voice = VoiceLoop::encode(Sound::Voice { pitch_hz: 120.0 }, Turns::Always).unwrap();
        let packets: Vec<_> = (0..150).map(|i| voice.packet(i).clone()).collect();
        let stated = packets
            .iter()
            .map(|p| 10f32.powf(f32::from(p.level) / -10.0))
            .sum::<f32>()
            / 150.0;
        let heard = decode(packets.into_iter());
        let power = heard.iter().map(|s| s * s).sum::<f32>() / heard.len() as f32;
        let difference = 10.0 * (stated / power).log10();
        assert!(difference.abs() < 1.5, "{difference} dB");
    }

    #[test]
    fn silence_has_level_127_and_a_full_scale_square_has_0() {
        assert_eq!(level_of(&[0.0; 960]), 127);
        assert_eq!(level_of(&[1.0; 960]), 0);
    }

    #[test]
    fn in_a_round_of_six_one_or_two_speak_at_any_time() {
        let voices: Vec<_> = (0..6)
            .map(|index| {
                VoiceLoop::encode(Sound::numbered(index), Turns::Shared { index, count: 6 })
                    .unwrap()
            })
            .collect();
        // Syllables have gaps: a speaker counts as speaking when it is heard within half a second.
        for half_second in 40..80u64 {
            let speaking = voices
                .iter()
                .filter(|v| (0..25).any(|i| v.packet(half_second * 25 + i).voice))
                .count();
            assert!((1..=2).contains(&speaking), "{speaking} at {half_second}");
        }
    }

    #[test]
    fn voices_of_different_pitch_do_not_correlate() {
        let one = Sound::numbered(0).samples(2.0);
        let other = Sound::numbered(1).samples(2.0);
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
        let correlation = dot(&one, &other) / (dot(&one, &one) * dot(&other, &other)).sqrt();
        assert!(correlation.abs() < 0.1, "{correlation}");
    }

    #[test]
    fn a_tone_is_where_it_should_be_and_nowhere_else() {
        let samples = Sound::Tone { hz: 440.0 }.samples(1.0);
        let power_at = |hz: f32| {
            let (mut re, mut im) = (0.0f64, 0.0f64);
            for (i, s) in samples.iter().enumerate() {
                let angle =
                    f64::from(hz) * std::f64::consts::TAU * i as f64 / f64::from(SAMPLE_RATE);
                re += f64::from(*s) * angle.cos();
                im += f64::from(*s) * angle.sin();
            }
            10.0 * (re * re + im * im).log10()
        };
        assert!(power_at(440.0) - power_at(523.0) > 40.0);
    }
}
