//! Sound of other rates: `rubato`'s synchronous resampler behind a small face.

use rubato::{Fft, FixedSync, Resampler};

use super::frame::{FRAME_SAMPLES, Frame, SAMPLE_RATE};
use super::resample::{WrongLength, process_exactly};

/// A rate that cannot be converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a rate of {0} Hz cannot be converted: 8000 to 192000 Hz can")]
pub struct WrongRate(pub u32);

/// Makes frames of 48 kHz from a stream of 8 to 192 kHz (8, 16, 24, 44.1 kHz and whatever a file has).
///
/// A steady filter without a history of its own beyond [`RateConverter::delay`]; content near half of the lower rate is cut, so
/// that nothing folds back.
///
/// Rates with whole samples in 10 ms take the same number for every frame, and are converted in halves of one: so they are 5 ms
/// late, not 10.
pub struct RateConverter {
    fft: Fft<f32>,
    /// Pieces of one frame.
    pieces: usize,
}

impl RateConverter {
    /// A converter that has heard silence until now.
    ///
    /// # Errors
    /// [`WrongRate`] outside of 8 to 192 kHz.
    pub fn new(rate: u32) -> Result<Self, WrongRate> {
        if !(8_000..=192_000).contains(&rate) {
            return Err(WrongRate(rate));
        }
        let (chunk, pieces, sync) = match rate as usize {
            rate if rate.is_multiple_of(100) => (rate / 100, 2, FixedSync::Both),
            _ => (FRAME_SAMPLES, 1, FixedSync::Output),
        };
        let fft = Fft::new(rate as usize, SAMPLE_RATE as usize, chunk, 1, sync)
            .map_err(|_| WrongRate(rate))?;
        Ok(RateConverter { fft, pieces })
    }

    /// Samples that the next frame takes. Not the same for every frame where 20 ms are no whole number of samples.
    pub fn needed(&self) -> usize {
        self.fft.input_frames_next() * self.pieces
    }

    /// The most samples that a frame can take.
    pub fn max_needed(&self) -> usize {
        self.fft.input_frames_max() * self.pieces
    }

    /// By how many samples of 48 kHz what comes out is late.
    pub fn delay(&self) -> usize {
        self.fft.output_delay()
    }

    /// Makes the next frame from exactly [`Self::needed`] samples.
    ///
    /// # Errors
    /// [`WrongLength`] for any other number; nothing has been taken then.
    pub fn process(&mut self, input: &[f32], frame: &mut Frame) -> Result<(), WrongLength> {
        let needed = self.needed();
        if input.len() != needed {
            let given = input.len();
            return Err(WrongLength { needed, given });
        }
        let inputs = input.chunks_exact(needed / self.pieces);
        for (input, made) in inputs.zip(frame.chunks_exact_mut(FRAME_SAMPLES / self.pieces)) {
            process_exactly(&mut self.fft, input, made)?;
        }
        Ok(())
    }

    /// Forgets what it heard.
    pub fn reset(&mut self) {
        self.fft.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAU: f64 = std::f64::consts::TAU;

    /// A sine of `hz` at `rate`, converted: what came out, without the converter's delay.
    fn converted(rate: u32, hz: f64, frames: usize) -> Vec<f32> {
        let mut converter = RateConverter::new(rate).unwrap();
        let (mut at, mut out) = (0u32, Vec::new());
        let mut frame = [0.0; FRAME_SAMPLES];
        for _ in 0..frames {
            let needed = converter.needed();
            assert!(needed <= converter.max_needed());
            let input: Vec<f32> = (0..needed as u32)
                .map(|i| ((f64::from(at + i) * hz / f64::from(rate) * TAU).sin() * 0.5) as f32)
                .collect();
            at += needed as u32;
            converter.process(&input, &mut frame).unwrap();
            out.extend_from_slice(&frame);
        }
        out.drain(..converter.delay());
        out
    }

    /// Decibels of the sine of `hz` over everything else in `sound`, whatever its phase: the delay may be a fraction.
    fn sine_to_rest(sound: &[f32], hz: f64) -> f64 {
        let angle = |i: usize| i as f64 * hz / 48_000.0 * TAU;
        let whole = 48 * 1000 * (sound.len() / 48_000);
        let sound = &sound[..whole.max(1)];
        let part = |f: fn(f64) -> f64| {
            let dot: f64 = (0..sound.len())
                .map(|i| f(angle(i)) * f64::from(sound[i]))
                .sum();
            2.0 * dot / sound.len() as f64
        };
        let (sine, cosine) = (part(f64::sin), part(f64::cos));
        let error: f64 = (0..sound.len())
            .map(|i| sine * angle(i).sin() + cosine * angle(i).cos() - f64::from(sound[i]))
            .map(|e| e * e)
            .sum();
        let signal = (sine * sine + cosine * cosine) / 2.0 * sound.len() as f64;
        10.0 * (signal / error).log10()
    }

    #[test]
    fn a_sine_of_any_rate_comes_out_at_48_khz_within_70_db() {
        for rate in [
            8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000,
        ] {
            let out = converted(rate, 997.0, 60);
            let snr = sine_to_rest(&out[4_800..], 997.0);
            println!("figure mix_rate_{rate}_snr_db {snr:.1}");
            assert!(snr > 70.0, "{rate} Hz: {snr:.1} dB");
        }
    }

    #[test]
    fn a_rate_or_a_length_that_is_no_good_is_refused_by_name() {
        assert_eq!(RateConverter::new(0).err(), Some(WrongRate(0)));
        assert_eq!(RateConverter::new(7_999).err(), Some(WrongRate(7_999)));
        let mut converter = RateConverter::new(16_000).unwrap();
        let error = converter
            .process(&[0.0; 7], &mut [0.0; FRAME_SAMPLES])
            .unwrap_err();
        assert_eq!(error.given, 7);
        assert_eq!(error.needed, converter.needed());
    }
}
