//! What was heard and seen, measured: levels at a frequency, likeness to a known sound, distance of colours.

use rustfft::FftPlanner;
use rustfft::num_complex::Complex;
use talksy_unit::demo::SAMPLE_RATE;

/// Samples of one comparison with a reference: long enough to tell voices apart, short enough for a jitter buffer's stretching.
const COMPARED: usize = 16_384;

/// Mono samples at 48 kHz, between -1 and 1.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The samples.
    pub samples: Vec<f32>,
}

impl Recording {
    /// Root mean square in dBFS (a full-scale sine has -3); -120 for silence.
    pub fn level_db(&self) -> f32 {
        let power =
            self.samples.iter().map(|s| s * s).sum::<f32>() / self.samples.len().max(1) as f32;
        to_db(power)
    }

    /// Level in dBFS of the sine at `hz`, through a Hann window over the whole recording.
    pub fn level_at(&self, hz: f32) -> f32 {
        let n = self.samples.len();
        let step = f64::from(hz) / f64::from(SAMPLE_RATE) * std::f64::consts::TAU;
        let (mut re, mut im) = (0.0f64, 0.0f64);
        for (i, sample) in self.samples.iter().enumerate() {
            let window = 0.5 - 0.5 * (std::f64::consts::TAU * i as f64 / n as f64).cos();
            re += f64::from(*sample) * window * (step * i as f64).cos();
            im += f64::from(*sample) * window * (step * i as f64).sin();
        }
        // The window halves the sum, a sine of amplitude a has power a²/2.
        let amplitude = 4.0 * (re * re + im * im).sqrt() / n.max(1) as f64;
        to_db((amplitude * amplitude / 2.0) as f32)
    }

    /// How much of this is `reference` (which repeats), 0 to 1: the middle one of the normalised correlations of successive pieces
    /// that hold sound. Delay, gain and slow drift do not matter.
    pub fn likeness(&self, reference: &[f32]) -> f32 {
        let template = Template::new(reference);
        let mut scores: Vec<f32> = self
            .samples
            .chunks_exact(COMPARED)
            .filter(|piece| piece.iter().map(|s| s * s).sum::<f32>() > 1e-6 * COMPARED as f32)
            .map(|piece| template.best_correlation(piece))
            .collect();
        scores.sort_by(f32::total_cmp);
        scores.get(scores.len() / 2).copied().unwrap_or(0.0)
    }
}

/// A reference sound as its spectrum and its running energy.
struct Template {
    spectrum: Vec<Complex<f32>>,
    /// Energy of the `COMPARED` samples from each offset on.
    energy: Vec<f32>,
}

impl Template {
    fn new(reference: &[f32]) -> Self {
        let length = reference.len();
        let mut spectrum: Vec<_> = reference.iter().map(|s| Complex::new(*s, 0.0)).collect();
        FftPlanner::new()
            .plan_fft_forward(length)
            .process(&mut spectrum);
        let mut sum: f64 = (0..COMPARED)
            .map(|i| f64::from(reference[i % length]).powi(2))
            .sum();
        let energy = (0..length)
            .map(|i| {
                let now = sum as f32;
                sum += f64::from(reference[(i + COMPARED) % length]).powi(2)
                    - f64::from(reference[i]).powi(2);
                now
            })
            .collect();
        Template { spectrum, energy }
    }

    /// The highest correlation of `piece` with the reference at any offset (circular).
    fn best_correlation(&self, piece: &[f32]) -> f32 {
        let length = self.spectrum.len();
        let mut planner = FftPlanner::new();
        let mut work: Vec<_> = piece.iter().map(|s| Complex::new(*s, 0.0)).collect();
        work.resize(length, Complex::default());
        planner.plan_fft_forward(length).process(&mut work);
        for (w, s) in work.iter_mut().zip(&self.spectrum) {
            *w = w.conj() * s;
        }
        planner.plan_fft_inverse(length).process(&mut work);
        let own = piece.iter().map(|s| s * s).sum::<f32>();
        work.iter()
            .zip(&self.energy)
            .map(|(w, energy)| w.re.abs() / length as f32 / (own * energy).sqrt().max(1e-9))
            .fold(0.0, f32::max)
    }
}

fn to_db(power: f32) -> f32 {
    (10.0 * power.max(1e-12).log10()).max(-120.0)
}

/// Largest difference of two colours in one channel.
pub fn colour_distance(a: [u8; 3], b: [u8; 3]) -> u8 {
    (0..3).map(|i| a[i].abs_diff(b[i])).max().unwrap_or(0)
}
