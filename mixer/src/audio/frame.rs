//! The unit of work: 20 ms of sound.

/// Samples per second of everything in this module.
pub const SAMPLE_RATE: u32 = 48_000;

/// Samples of one frame: 20 ms.
pub const FRAME_SAMPLES: usize = 960;

/// 20 ms, mono, full scale is 1.0.
pub type Frame = [f32; FRAME_SAMPLES];

/// 20 ms of two channels: left and right in turns.
pub type StereoFrame = [f32; 2 * FRAME_SAMPLES];

/// A frame without sound.
pub const SILENCE: Frame = [0.0; FRAME_SAMPLES];

/// The mean square of `samples`; 0 for none. Not finite where a sample is not.
pub fn mean_square(samples: &[f32]) -> f32 {
    // Eight partial sums: a single one is a chain of dependent additions that no compiler may vectorise.
    let mut sums = [0.0f32; 8];
    let chunks = samples.chunks_exact(8);
    let rest: f32 = chunks.remainder().iter().map(|x| x * x).sum();
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += x * x;
        }
    }
    (sums.iter().sum::<f32>() + rest) / samples.len().max(1) as f32
}

/// The largest magnitude of `samples`.
pub fn peak(samples: &[f32]) -> f32 {
    let mut peaks = [0.0f32; 8];
    let chunks = samples.chunks_exact(8);
    let rest = chunks
        .remainder()
        .iter()
        .fold(0.0f32, |peak, x| peak.max(x.abs()));
    for chunk in chunks {
        for (peak, x) in peaks.iter_mut().zip(chunk) {
            *peak = peak.max(x.abs());
        }
    }
    peaks.iter().fold(rest, |peak, x| peak.max(*x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_square_and_peak_agree_with_their_slow_forms() {
        let samples: Vec<f32> = (0..1003)
            .map(|i| ((i * 37 % 101) as f32 - 50.0) / 60.0)
            .collect();
        let slow = samples.iter().map(|x| f64::from(x * x)).sum::<f64>() / samples.len() as f64;
        assert!((f64::from(mean_square(&samples)) - slow).abs() < 1e-6);
        assert_eq!(
            peak(&samples),
            samples.iter().fold(0.0f32, |p, x| p.max(x.abs()))
        );
        assert_eq!(mean_square(&[]), 0.0);
    }
}
