//! A look-ahead peak limiter: nothing passes −1 dBFS, and the gain that sees to it never steps.

use super::frame::{FRAME_SAMPLES, Frame, peak};

/// Look-ahead, and the limiter's delay, in samples: 5 ms.
pub const LOOK_AHEAD: usize = 240;

/// No output sample is beyond this: just under −1 dBFS, so that rounding stays below it too.
pub const CEILING: f32 = 0.891_25;

/// The limiter of one mix.
///
/// Works in blocks of [`LOOK_AHEAD`]. The gain runs linearly from one block border to the next, and at each border
/// it suits the block before and the block after: so it suits every sample between.
#[derive(Clone, Debug)]
pub struct Limiter {
    gain: f32,
    delayed: [f32; LOOK_AHEAD],
    delayed_peak: f32,
}

impl Limiter {
    /// Of the missing gain, per block: a time constant of about 80 ms.
    const RELEASE: f32 = 0.06;
    /// From here the gain is 1: the rest is inaudible (0.001 dB).
    const SETTLED: f32 = 0.9999;

    /// At rest: gain 1, silence in the delay line.
    pub fn new() -> Self {
        Limiter {
            gain: 1.0,
            delayed: [0.0; LOOK_AHEAD],
            delayed_peak: 0.0,
        }
    }

    /// Limits `frame` in place; what comes out is [`LOOK_AHEAD`] samples late.
    pub fn process(&mut self, frame: &mut Frame) {
        for block in frame.as_chunks_mut::<LOOK_AHEAD>().0 {
            let next_peak = peak(block);
            let end = self.gain_before(next_peak);
            std::mem::swap(block, &mut self.delayed);
            self.apply(block, end);
            self.gain = end;
            self.delayed_peak = next_peak;
        }
    }

    /// Whether the delay line holds nothing: with silence coming in, silence goes out.
    pub fn is_empty(&self) -> bool {
        self.delayed_peak == 0.0
    }

    /// The gain at the border between the delayed block and a block with `next_peak`.
    fn gain_before(&self, next_peak: f32) -> f32 {
        let allowed = CEILING / self.delayed_peak.max(next_peak).max(CEILING);
        let released = self.gain + (1.0 - self.gain) * Self::RELEASE;
        let released = if released > Self::SETTLED {
            1.0
        } else {
            released
        };
        released.min(allowed)
    }

    fn apply(&self, block: &mut [f32; LOOK_AHEAD], end: f32) {
        if self.gain == 1.0 && end == 1.0 {
            return;
        }
        let step = (end - self.gain) / LOOK_AHEAD as f32;
        for (i, x) in block.iter_mut().enumerate() {
            *x *= self.gain + step * i as f32;
        }
    }
}

impl Default for Limiter {
    fn default() -> Self {
        Self::new()
    }
}

const _: () = assert!(FRAME_SAMPLES.is_multiple_of(LOOK_AHEAD));

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 10^(−1/20).
    const MINUS_1_DBFS: f32 = 0.891_250_9;

    #[test]
    fn quiet_sound_passes_bit_for_bit_5_ms_late() {
        let mut limiter = Limiter::new();
        let input: Vec<f32> = (0..3 * FRAME_SAMPLES)
            .map(|i| (i as f32 * 0.01).sin() * 0.8)
            .collect();
        let mut output = Vec::new();
        for chunk in input.as_chunks::<FRAME_SAMPLES>().0 {
            let mut frame = *chunk;
            limiter.process(&mut frame);
            output.extend_from_slice(&frame);
        }
        assert_eq!(output[LOOK_AHEAD..], input[..input.len() - LOOK_AHEAD]);
        assert!(!limiter.is_empty());
        limiter.process(&mut [0.0; FRAME_SAMPLES]);
        assert!(limiter.is_empty());
    }

    #[test]
    fn a_sudden_overload_is_met_by_a_gain_without_a_step() {
        let mut limiter = Limiter::new();
        let (mut last, mut lowest) = (1.0f32, 1.0f32);
        for n in 0..200 {
            // A constant makes the gain visible: output / input.
            let level = if (20..40).contains(&n) { 3.0 } else { 0.5 };
            let mut frame = [level; FRAME_SAMPLES];
            let before = limiter.delayed;
            limiter.process(&mut frame);
            for (i, out) in frame.iter().enumerate() {
                let input = if i < LOOK_AHEAD { before[i] } else { level };
                if input != 0.0 {
                    let gain = out / input;
                    assert!(
                        (gain - last).abs() <= 1.01 / LOOK_AHEAD as f32,
                        "{last} -> {gain}"
                    );
                    last = gain;
                    lowest = lowest.min(gain);
                }
            }
        }
        assert!((lowest - CEILING / 3.0).abs() < 1e-4);
        assert!(last > 0.99, "the gain comes back: {last}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_sample_is_beyond_minus_1_dbfs(
            peaks in proptest::collection::vec((0usize..FRAME_SAMPLES, -40.0f32..40.0), 1..40)
        ) {
            let mut limiter = Limiter::new();
            for (at, value) in peaks {
                let mut frame = [0.3f32; FRAME_SAMPLES];
                frame[at] = value;
                limiter.process(&mut frame);
                for x in frame {
                    prop_assert!(x.abs() <= MINUS_1_DBFS, "{x}");
                }
            }
        }
    }
}
