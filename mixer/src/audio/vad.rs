//! Voice or not: a small neural detector on 16 kHz sound.

use earshot::Detector;

use super::frame::{FRAME_SAMPLES, Frame};

/// 16 ms at 16 kHz: what the detector takes at a time.
const CHUNK: usize = 256;

/// 48 kHz to 16 kHz.
const DECIMATION: usize = 3;

/// 64 ms: what is kept of frames that were not looked at.
const CONTEXT: usize = 4 * CHUNK;

/// Samples that wait at most, plus those that a frame brings.
const PENDING: usize = CONTEXT + FRAME_SAMPLES / DECIMATION;

/// The voice detector of one source.
pub struct Vad {
    detector: Box<Detector>,
    pending: [f32; PENDING],
    len: usize,
    probability: f32,
}

impl Vad {
    /// From here on it is voice.
    pub const VOICE: f32 = 0.5;
    /// From here on it is voice without a doubt.
    pub const CERTAIN: f32 = 0.8;
    /// Per frame, towards a lower verdict.
    const RELEASE: f32 = 0.4;

    /// A detector that has heard nothing.
    pub fn new() -> Self {
        Vad {
            detector: Detector::default_boxed(),
            pending: [0.0; PENDING],
            len: 0,
            probability: 0.0,
        }
    }

    /// Takes in 20 ms and returns the probability that they hold voice, 0 to 1: up at once, down over some 50 ms.
    pub fn update(&mut self, frame: &Frame) -> f32 {
        self.take(frame);
        let mut verdict: Option<f32> = None;
        while self.len >= CHUNK {
            let probability = self.detector.predict_f32(&self.pending[..CHUNK]);
            self.pending.copy_within(CHUNK..self.len, 0);
            self.len -= CHUNK;
            verdict = Some(verdict.map_or(probability, |v| v.max(probability)));
        }
        if let Some(verdict) = verdict {
            self.probability = if verdict > self.probability {
                verdict
            } else {
                self.probability + (verdict - self.probability) * Self::RELEASE
            };
        }
        self.probability
    }

    /// Takes in 20 ms that are no voice for another reason. Costs next to nothing; the last of them are looked at
    /// when the next [`Self::update`] comes, so that a beginning is heard in its context.
    pub fn idle(&mut self, frame: &Frame) {
        self.take(frame);
        let surplus = self.len.saturating_sub(CONTEXT);
        self.pending.copy_within(surplus..self.len, 0);
        self.len -= surplus;
        self.probability = 0.0;
    }

    /// Appends a frame at 16 kHz.
    fn take(&mut self, frame: &Frame) {
        for three in frame.as_chunks::<DECIMATION>().0 {
            // A mean of three is a coarse filter; the detector's features do not need a better one.
            let mean = three.iter().sum::<f32>() / DECIMATION as f32;
            let finite = if mean.is_finite() {
                mean.clamp(-1.0, 1.0)
            } else {
                0.0
            };
            self.pending[self.len] = finite;
            self.len += 1;
        }
    }

    /// Forgets what it heard: the source's sound does not continue.
    pub fn reset(&mut self) {
        self.detector.reset();
        self.len = 0;
        self.probability = 0.0;
    }
}

impl Default for Vad {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::frame::SILENCE;
    use crate::audio::voice::{Noise, SyntheticVoice};

    fn share_of_voiced(mut next: impl FnMut(&mut Frame)) -> f32 {
        let mut vad = Vad::new();
        let mut frame = SILENCE;
        let voiced = (0..250)
            .filter(|_| {
                next(&mut frame);
                vad.update(&frame) > Vad::VOICE
            })
            .count();
        voiced as f32 / 250.0
    }

    #[test]
    fn voices_are_voice() {
        for (seed, pitch) in [(1, 95.0), (2, 130.0), (3, 170.0), (4, 220.0)] {
            let mut voice = SyntheticVoice::new(seed, pitch, -22.0);
            let share = share_of_voiced(|frame| voice.next_frame(frame));
            assert!(share > 0.7, "pitch {pitch}: {share}");
        }
    }

    #[test]
    fn noise_and_silence_are_not_voice() {
        let mut noise = Noise::new(5, -45.0);
        let share = share_of_voiced(|frame| noise.next_frame(frame));
        assert!(share < 0.05, "{share}");
        assert_eq!(share_of_voiced(|frame| *frame = SILENCE), 0.0);
    }

    #[test]
    fn samples_that_are_not_finite_do_not_stay_in_the_detector() {
        let mut vad = Vad::new();
        vad.update(&[f32::NAN; FRAME_SAMPLES]);
        vad.update(&[f32::INFINITY; FRAME_SAMPLES]);
        let mut voice = SyntheticVoice::new(1, 120.0, -22.0);
        let mut frame = SILENCE;
        let best = (0..100).fold(0.0f32, |best, _| {
            voice.next_frame(&mut frame);
            best.max(vad.update(&frame))
        });
        assert!(best > Vad::VOICE, "{best}");
    }
}
