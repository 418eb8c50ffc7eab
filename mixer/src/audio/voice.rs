//! Synthetic voices and noise: what tests, benchmarks and demonstration participants speak.
//!
//! A pulse train through three formant resonators that move from vowel to vowel at the rate of syllables, with pauses
//! between phrases. Deterministic: a seed and a pitch make one voice. Not meant to be understood, but a voice
//! detector takes it for speech, and two of them can be told apart.

use super::frame::{Frame, SAMPLE_RATE};
use super::level::amplitude;

const RATE: f32 = SAMPLE_RATE as f32;

/// First three formants of five vowels, Hz.
const VOWELS: [[f32; 3]; 5] = [
    [730.0, 1090.0, 2440.0],
    [530.0, 1840.0, 2480.0],
    [300.0, 2250.0, 3000.0],
    [570.0, 840.0, 2410.0],
    [350.0, 870.0, 2240.0],
];

/// Bandwidths of the formants, Hz.
const BANDWIDTHS: [f32; 3] = [80.0, 100.0, 140.0];

/// A small, fast, seeded generator (xorshift64*).
#[derive(Clone, Debug)]
pub struct Seeded(u64);

impl Seeded {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Seeded(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Uniform in 0 to 1, 1 excluded.
    pub fn unit(&mut self) -> f32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40) as f32 / (1u64 << 24) as f32
    }

    /// About normal, mean 0, variance 1.
    pub fn gauss(&mut self) -> f32 {
        let sum: f32 = (0..6).map(|_| self.unit()).sum();
        (sum - 3.0) * std::f32::consts::SQRT_2
    }
}

/// White noise of one level.
#[derive(Clone, Debug)]
pub struct Noise {
    random: Seeded,
    gain: f32,
}

impl Noise {
    /// Noise with an RMS of `dbfs`.
    pub fn new(seed: u64, dbfs: f32) -> Self {
        Noise {
            random: Seeded::new(seed),
            gain: amplitude(dbfs),
        }
    }

    /// The next 20 ms.
    pub fn next_frame(&mut self, frame: &mut Frame) {
        for x in frame {
            *x = self.random.gauss() * self.gain;
        }
    }
}

/// A resonance of second order.
#[derive(Clone, Copy, Debug, Default)]
struct Resonator {
    a1: f32,
    a2: f32,
    y1: f32,
    y2: f32,
}

impl Resonator {
    fn tune(&mut self, hz: f32, bandwidth: f32) {
        let r = (-std::f32::consts::PI * bandwidth / RATE).exp();
        self.a1 = 2.0 * r * (std::f32::consts::TAU * hz / RATE).cos();
        self.a2 = -r * r;
    }

    fn next(&mut self, x: f32) -> f32 {
        // Unity gain at 0 Hz, as in a cascade synthesiser.
        let y = (1.0 - self.a1 - self.a2) * x + self.a1 * self.y1 + self.a2 * self.y2;
        self.y2 = self.y1;
        self.y1 = y;
        y
    }
}

/// One talker.
#[derive(Clone, Debug)]
pub struct SyntheticVoice {
    random: Seeded,
    pitch: f32,
    gain: f32,
    phase: f32,
    glottis: [f32; 2],
    formants: [f32; 3],
    target: [f32; 3],
    resonators: [Resonator; 3],
    syllable_left: usize,
    syllable_length: usize,
    syllables_to_pause: u32,
    pausing: bool,
    melody: f32,
}

impl SyntheticVoice {
    /// Brings the synthesiser's RMS while speaking to about 0 dBFS before `dbfs` is applied.
    const NORMALISE: f32 = 9.0;

    /// A voice with a pitch of about `pitch` Hz and, while it speaks, an RMS of about `dbfs`.
    pub fn new(seed: u64, pitch: f32, dbfs: f32) -> Self {
        SyntheticVoice {
            random: Seeded::new(seed),
            pitch,
            gain: amplitude(dbfs) * Self::NORMALISE,
            phase: 0.0,
            glottis: [0.0; 2],
            formants: VOWELS[0],
            target: VOWELS[0],
            resonators: [Resonator::default(); 3],
            syllable_left: 0,
            syllable_length: 1,
            syllables_to_pause: 6,
            pausing: false,
            melody: 1.0,
        }
    }

    /// The next 20 ms.
    pub fn next_frame(&mut self, frame: &mut Frame) {
        // Formants glide: about 30 ms from vowel to vowel.
        let glide = self.formants.iter_mut().zip(self.target).zip(BANDWIDTHS);
        for (((formant, target), bandwidth), resonator) in glide.zip(&mut self.resonators) {
            *formant += (target - *formant) * 0.5;
            resonator.tune(*formant, bandwidth);
        }
        for x in frame {
            *x = self.next_sample();
        }
    }

    fn next_sample(&mut self) -> f32 {
        if self.syllable_left == 0 {
            self.next_syllable();
        }
        self.syllable_left -= 1;
        let at = 1.0 - self.syllable_left as f32 / self.syllable_length as f32;
        let envelope = if self.pausing {
            0.0
        } else {
            (std::f32::consts::PI * at).sin().max(0.0).powf(0.6)
        };
        self.phase += self.pitch * self.melody * (1.0 + 0.1 * (1.0 - at)) / RATE;
        let pulse = if self.phase >= 1.0 {
            self.phase -= 1.0;
            RATE / self.pitch / 10.0
        } else {
            0.0
        };
        // The glottis: two poles of low pass on the pulses, and some breath.
        let breath = self.random.gauss() * 0.03;
        self.glottis[0] += (pulse + breath - self.glottis[0]) * 0.12;
        self.glottis[1] += (self.glottis[0] - self.glottis[1]) * 0.25;
        let mut x = self.glottis[1] - 0.1;
        for resonator in &mut self.resonators {
            x = resonator.next(x);
        }
        x * envelope * self.gain * 0.1
    }

    fn next_syllable(&mut self) {
        self.pausing = self.syllables_to_pause == 0;
        let seconds = if self.pausing {
            self.syllables_to_pause = 5 + (self.random.unit() * 6.0) as u32;
            0.25 + 0.25 * self.random.unit()
        } else {
            self.syllables_to_pause -= 1;
            0.16 + 0.12 * self.random.unit()
        };
        self.syllable_length = (seconds * RATE) as usize;
        self.syllable_left = self.syllable_length;
        self.target = VOWELS[(self.random.unit() * VOWELS.len() as f32) as usize % VOWELS.len()];
        self.melody = 0.92 + 0.16 * self.random.unit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::frame::{SILENCE, peak};
    use crate::audio::level::Dbfs;

    #[test]
    fn a_voice_has_its_level_its_pauses_and_no_overload() {
        for pitch in [90.0, 120.0, 160.0, 230.0] {
            let mut voice = SyntheticVoice::new(9, pitch, -20.0);
            let mut frame = SILENCE;
            let (mut spoken, mut quiet, mut highest) = (Vec::new(), 0, 0.0f32);
            for _ in 0..500 {
                voice.next_frame(&mut frame);
                highest = highest.max(peak(&frame));
                match Dbfs::of(&frame) {
                    level if level > Dbfs(-35.0) => spoken.extend_from_slice(&frame),
                    _ => quiet += 1,
                }
            }
            let level = Dbfs::of(&spoken).0;
            assert!(
                (-24.0..-16.0).contains(&level),
                "pitch {pitch}: {level} dBFS"
            );
            assert!(
                (40..300).contains(&quiet),
                "pitch {pitch}: {quiet} quiet frames"
            );
            assert!(highest < 0.9, "pitch {pitch}: peak {highest}");
        }
    }

    #[test]
    fn one_seed_makes_one_voice() {
        let frames = |seed| {
            let mut voice = SyntheticVoice::new(seed, 120.0, -20.0);
            let mut frame = SILENCE;
            (0..20).for_each(|_| voice.next_frame(&mut frame));
            frame
        };
        assert_eq!(frames(3), frames(3));
        assert_ne!(frames(3), frames(4));
    }
}
