//! A look-ahead peak limiter: nothing passes −1 dBFS, and the gain that sees to it never steps.

use std::sync::LazyLock;

use super::frame::{FRAME_SAMPLES, Frame, peak};

/// Look-ahead, and the limiter's delay, in samples: 5 ms.
pub const LOOK_AHEAD: usize = 240;

/// No sample, nor the curve between two samples, is beyond this: −1.1 dBFS, so that what rounding and the moving gain
/// add stays below −1 dBFS.
pub const CEILING: f32 = 0.881;

/// Points between two samples at which the curve is looked at: four times oversampled (ITU-R BS.1770, annex 2).
const BETWEEN: usize = 3;

/// Samples that each of those points is computed from.
const TAPS: usize = 12;

/// Below this sample peak the curve between samples cannot reach [`CEILING`], whatever the sound: the taps of a point
/// sum up to less than 1.9 in magnitude.
const HARMLESS: f32 = CEILING / 1.9;

/// The limiter of one mix.
///
/// Works in blocks of [`LOOK_AHEAD`]. The gain runs along half a cosine from one block border to the next, and at each
/// border it suits the block before and the block after: so it suits every sample between. A gain with corners would
/// be heard as a rustle above the voices.
#[derive(Clone, Debug)]
pub struct Limiter {
    gain: f32,
    delayed: [f32; LOOK_AHEAD],
    delayed_peak: f32,
}

impl Limiter {
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
            let next_peak = true_peak(&self.delayed, block);
            let end = gain_between(self.gain, self.delayed_peak, next_peak);
            std::mem::swap(block, &mut self.delayed);
            apply(block, self.gain, end);
            self.gain = end;
            self.delayed_peak = next_peak;
        }
    }

    /// Whether the delay line holds nothing: with silence coming in, silence goes out.
    pub fn is_empty(&self) -> bool {
        self.delayed_peak == 0.0
    }
}

/// The limiter of two channels: one gain for both, so that what is limited stays where it is heard.
#[derive(Clone, Debug)]
pub struct StereoLimiter {
    gain: f32,
    delayed: [[f32; LOOK_AHEAD]; 2],
    delayed_peak: f32,
}

impl StereoLimiter {
    /// One that goes on where `mono` stands, with the same sound in both delay lines.
    pub fn after(mono: &Limiter) -> Self {
        StereoLimiter {
            gain: mono.gain,
            delayed: [mono.delayed; 2],
            delayed_peak: mono.delayed_peak,
        }
    }

    /// Limits both channels in place; what comes out is [`LOOK_AHEAD`] samples late.
    pub fn process(&mut self, left: &mut Frame, right: &mut Frame) {
        let blocks = left.as_chunks_mut::<LOOK_AHEAD>().0.iter_mut();
        for (left, right) in blocks.zip(right.as_chunks_mut::<LOOK_AHEAD>().0) {
            let next_peak =
                true_peak(&self.delayed[0], left).max(true_peak(&self.delayed[1], right));
            let end = gain_between(self.gain, self.delayed_peak, next_peak);
            for (block, delayed) in [left, right].into_iter().zip(&mut self.delayed) {
                std::mem::swap(block, delayed);
                apply(block, self.gain, end);
            }
            self.gain = end;
            self.delayed_peak = next_peak;
        }
    }

    /// Whether the delay lines hold nothing.
    pub fn is_empty(&self) -> bool {
        self.delayed_peak == 0.0
    }
}

/// Of the missing gain, per block: a time constant of about 200 ms.
const RELEASE: f32 = 0.025;

/// From here the gain is 1: the rest is inaudible (0.001 dB).
const SETTLED: f32 = 0.9999;

/// The gain at the border between two blocks of these peaks, coming from `gain`.
fn gain_between(gain: f32, peak: f32, next_peak: f32) -> f32 {
    let allowed = CEILING / peak.max(next_peak).max(CEILING);
    let released = gain + (1.0 - gain) * RELEASE;
    let released = if released > SETTLED { 1.0 } else { released };
    released.min(allowed)
}

fn apply(block: &mut [f32; LOOK_AHEAD], begin: f32, end: f32) {
    if begin == 1.0 && end == 1.0 {
        return;
    }
    let change = end - begin;
    for (x, way) in block.iter_mut().zip(&*CURVE) {
        *x *= begin + change * way;
    }
}

impl Default for Limiter {
    fn default() -> Self {
        Self::new()
    }
}

/// Half a cosine from 0 to 1.
static CURVE: LazyLock<[f32; LOOK_AHEAD]> = LazyLock::new(|| {
    let angle = |i: usize| std::f32::consts::PI * i as f32 / LOOK_AHEAD as f32;
    std::array::from_fn(|i| 0.5 - 0.5 * angle(i).cos())
});

/// Interpolation by a quarter, a half and three quarters of a sample: windowed sinc (Hann).
static KERNELS: LazyLock<[[f32; TAPS]; BETWEEN]> = LazyLock::new(|| {
    use std::f64::consts::PI;
    std::array::from_fn(|n| {
        let offset = (n + 1) as f64 / (BETWEEN + 1) as f64;
        let tap = |i: usize| {
            let t = i as f64 - (TAPS / 2 - 1) as f64 - offset;
            let window = 0.5 + 0.5 * (PI * t / (TAPS / 2) as f64).cos();
            (PI * t).sin() / (PI * t) * window
        };
        let sum: f64 = (0..TAPS).map(tap).sum();
        std::array::from_fn(|i| (tap(i) / sum) as f32)
    })
});

/// The largest magnitude of `block` and of the curve through its samples; `before` is what came before it. The curve's
/// last 125 µs belong to the next block, which knows what follows.
fn true_peak(before: &[f32; LOOK_AHEAD], block: &[f32; LOOK_AHEAD]) -> f32 {
    let mut highest = peak(block);
    if highest.max(peak(&before[LOOK_AHEAD - TAPS..])) < HARMLESS {
        return highest;
    }
    let mut sound = [0.0f32; LOOK_AHEAD + TAPS];
    sound[..TAPS].copy_from_slice(&before[LOOK_AHEAD - TAPS..]);
    sound[TAPS..].copy_from_slice(block);
    let mut between = [0.0f32; LOOK_AHEAD];
    for kernel in KERNELS.iter() {
        between.fill(0.0);
        for (tap, &weight) in kernel.iter().enumerate() {
            for (y, x) in between.iter_mut().zip(&sound[tap + 1..]) {
                *y += weight * x;
            }
        }
        highest = highest.max(peak(&between));
    }
    highest
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
                        (gain - last).abs() <= 1.6 / LOOK_AHEAD as f32,
                        "{last} -> {gain}"
                    );
                    last = gain;
                    lowest = lowest.min(gain);
                }
            }
        }
        // The curve through the step overshoots it a little, and is limited too.
        assert!(
            (CEILING / 3.4..CEILING / 2.999).contains(&lowest),
            "{lowest}"
        );
        assert!(last > 0.99, "the gain comes back: {last}");
    }

    #[test]
    fn a_tone_whose_samples_miss_its_peaks_is_limited_by_the_curve_between_them() {
        // A quarter of the sample rate, an eighth of a turn off: the samples are at 0.707 of the amplitude.
        let mut limiter = Limiter::new();
        let mut highest = 0.0f32;
        for n in 0..20 {
            let mut frame: Frame = std::array::from_fn(|i| {
                1.2 * (std::f32::consts::FRAC_PI_2 * i as f32 + std::f32::consts::FRAC_PI_4).sin()
            });
            limiter.process(&mut frame);
            highest = if n > 2 {
                highest.max(peak(&frame))
            } else {
                0.0
            };
        }
        assert!((0.6..0.63).contains(&highest), "{highest}");
    }

    #[test]
    fn no_kernel_can_make_more_of_a_harmless_peak_than_the_ceiling() {
        for kernel in KERNELS.iter() {
            let gain: f32 = kernel.iter().map(|tap| tap.abs()).sum();
            assert!(gain * HARMLESS <= CEILING, "{gain}");
            assert!((kernel.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        }
    }

    #[test]
    fn two_channels_are_limited_by_one_gain_and_equal_ones_as_a_single_one() {
        let (mut mono, mut linked) = (Limiter::new(), StereoLimiter::after(&Limiter::new()));
        let mut one_sided = StereoLimiter::after(&mono);
        for n in 0..60 {
            let level = if (20..30).contains(&n) { 2.5 } else { 0.4 };
            let sound: Frame = std::array::from_fn(|i| level * (i as f32 * 0.05).sin());
            let mut single = sound;
            mono.process(&mut single);
            let (mut left, mut right) = (sound, sound);
            linked.process(&mut left, &mut right);
            assert_eq!((left, right), (single, single));
            // The quiet channel is turned down with the loud one.
            let (mut left, mut right) = (sound, sound.map(|x| x * 0.1));
            one_sided.process(&mut left, &mut right);
            for (l, r) in left.iter().zip(right) {
                assert!((l * 0.1 - r).abs() < 1e-6, "{l} and {r}");
                assert!(l.abs() <= MINUS_1_DBFS);
            }
        }
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
