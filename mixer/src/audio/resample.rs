//! Meets two clocks that differ by a few parts in a million: `rubato`'s slip resampler behind a small face.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Adjustable, FixedAsync, Resampler, Slip};

use super::frame::{FRAME_SAMPLES, Frame};

/// The sound to resample is not [`DriftResampler::needed`] samples long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("resampling takes {needed} samples, not {given}")]
pub struct WrongLength {
    /// What [`DriftResampler::needed`] said.
    pub needed: usize,
    /// What came.
    pub given: usize,
}

/// Makes frames of 960 samples from a stream whose clock is a little off.
///
/// Most frames are copies; where an error of a whole sample has added up, one sample is slipped within a crossfade of
/// 128. No delay, no history, no filter.
pub struct DriftResampler {
    slip: Slip<f32>,
}

impl DriftResampler {
    /// Speeds are kept within 1 ± this: inaudible as pitch, and 8 ms of delay gained or lost per second.
    pub const MAX_DEVIATION: f64 = 0.005;

    /// The most samples that a frame can need.
    pub const MAX_NEEDED: usize = FRAME_SAMPLES + 8;

    /// At speed 1.
    pub fn new() -> Self {
        DriftResampler {
            slip: Slip::new(FRAME_SAMPLES, 1, FixedAsync::Output)
                .expect("960 samples are enough for a crossfade"),
        }
    }

    /// Samples consumed per sample made; above 1, delay shrinks. Clamped to 1 ± [`Self::MAX_DEVIATION`].
    pub fn set_speed(&mut self, speed: f64) {
        let speed = speed.clamp(1.0 - Self::MAX_DEVIATION, 1.0 + Self::MAX_DEVIATION);
        self.slip
            .set_resample_ratio(1.0 / speed, false)
            .expect("the clamped speed is within the range of the resampler");
    }

    /// Samples that the next frame takes.
    pub fn needed(&self) -> usize {
        self.slip.input_frames_next()
    }

    /// Makes the next frame from exactly [`Self::needed`] samples.
    pub fn process(&mut self, input: &[f32], frame: &mut Frame) -> Result<(), WrongLength> {
        process_exactly(&mut self.slip, input, frame)
    }

    /// Back to speed 1, with no error pending.
    pub fn reset(&mut self) {
        self.slip.reset();
        self.set_speed(1.0);
    }
}

/// Fills `frame`, which is as long as what the resampler makes, from exactly as many samples as the resampler asks for; of any other number nothing is taken.
pub(super) fn process_exactly(
    resampler: &mut impl Resampler<f32>,
    input: &[f32],
    frame: &mut [f32],
) -> Result<(), WrongLength> {
    let wrong = WrongLength {
        needed: resampler.input_frames_next(),
        given: input.len(),
    };
    if wrong.needed != wrong.given {
        return Err(wrong);
    }
    let source = InterleavedSlice::new(input, 1, input.len()).map_err(|_| wrong)?;
    let made = frame.len();
    let mut sink = InterleavedSlice::new_mut(frame, 1, made).map_err(|_| wrong)?;
    resampler
        .process_into_buffer(&source, &mut sink, None)
        .map_err(|_| wrong)?;
    Ok(())
}

impl Default for DriftResampler {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resamples a 440 Hz sine for ten seconds: samples consumed, and the steepest step between output samples.
    fn run(speed: f64) -> (usize, f32) {
        let mut resampler = DriftResampler::new();
        resampler.set_speed(speed);
        let (mut consumed, mut last, mut steepest) = (0usize, 0.0f32, 0.0f32);
        let mut frame = [0.0; FRAME_SAMPLES];
        for _ in 0..500 {
            let needed = resampler.needed();
            assert!(needed <= DriftResampler::MAX_NEEDED);
            let input: Vec<f32> = (consumed..consumed + needed)
                .map(|i| (i as f32 % 48_000.0 * 440.0 * std::f32::consts::TAU / 48_000.0).sin())
                .collect();
            resampler.process(&input, &mut frame).unwrap();
            consumed += needed;
            for x in frame {
                steepest = steepest.max((x - last).abs());
                last = x;
            }
        }
        (consumed, steepest)
    }

    #[test]
    fn it_consumes_what_the_speed_says_and_never_clicks() {
        let slope = 440.0 * std::f32::consts::TAU / 48_000.0;
        for speed in [1.0, 1.0003, 0.9997, 1.005, 0.995] {
            let (consumed, steepest) = run(speed);
            let expected = 480_000.0 * speed;
            assert!(
                (consumed as f64 - expected).abs() < 10.0,
                "{speed}: {consumed}"
            );
            assert!(
                steepest < slope * 1.2,
                "{speed}: {steepest} against {slope}"
            );
        }
    }

    #[test]
    fn a_wrong_length_is_refused() {
        let mut resampler = DriftResampler::new();
        let error = resampler
            .process(&[0.0; 3], &mut [0.0; FRAME_SAMPLES])
            .unwrap_err();
        assert_eq!(error.given, 3);
    }
}
