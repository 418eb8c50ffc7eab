//! Makes sound shorter without a change of pitch: leaves out one period, where it matches best.

/// Length of the crossfade: 5 ms.
const OVERLAP: usize = 240;

/// The shortest and longest piece that is left out: 5 to 15 ms, a few periods of any voice.
const LAGS: std::ops::Range<usize> = 240..720;

/// Samples that [`shorten`] needs to look at.
pub const SHORTEN_NEEDS: usize = LAGS.end + OVERLAP;

/// Leaves out 5 to 15 ms near the beginning of `samples`, by overlapping with what resembles the beginning most.
/// Returns the number of samples that are gone: 0 where `samples` are fewer than [`SHORTEN_NEEDS`].
pub fn shorten(samples: &mut Vec<f32>) -> usize {
    if samples.len() < SHORTEN_NEEDS {
        return 0;
    }
    let lag = best_lag(samples);
    leave_out(samples, lag);
    lag
}

/// The same for stereo: what is left out of `mid` is left out of `side`, which is as long.
pub fn shorten_both(mid: &mut Vec<f32>, side: &mut Vec<f32>) -> usize {
    if mid.len() != side.len() {
        return 0;
    }
    let lag = shorten(mid);
    if lag > 0 {
        leave_out(side, lag);
    }
    lag
}

/// Crossfades the beginning of `samples` into what comes `lag` samples later.
fn leave_out(samples: &mut Vec<f32>, lag: usize) {
    for i in 0..OVERLAP {
        let weight = (i as f32 + 0.5) / OVERLAP as f32;
        samples[i] += (samples[i + lag] - samples[i]) * weight;
    }
    let rest = samples.len() - lag;
    samples.copy_within(OVERLAP + lag.., OVERLAP);
    samples.truncate(rest);
}

/// The lag whose sound correlates best with the beginning.
fn best_lag(samples: &[f32]) -> usize {
    let mut best = (f32::MIN, LAGS.start);
    for lag in LAGS.step_by(2) {
        let (mut dot, mut power) = (0.0f32, 1e-9f32);
        for i in (0..OVERLAP).step_by(2) {
            dot += samples[i] * samples[i + lag];
            power += samples[i + lag] * samples[i + lag];
        }
        let likeness = dot / power.sqrt();
        if likeness > best.0 {
            best = (likeness, lag);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_periodic_sound_is_shortened_by_whole_periods_without_a_click() {
        let sine = |i: usize| (i as f32 * std::f32::consts::TAU / 320.0).sin();
        let mut samples: Vec<f32> = (0..2000).map(sine).collect();
        let gone = shorten(&mut samples);
        assert_eq!(samples.len() + gone, 2000);
        assert!(gone.abs_diff(320) <= 4 || gone.abs_diff(640) <= 4, "{gone}");
        let steepest = samples
            .windows(2)
            .map(|w| (w[1] - w[0]).abs())
            .fold(0.0, f32::max);
        assert!(steepest < 1.2 * std::f32::consts::TAU / 320.0, "{steepest}");
        assert_eq!(samples[samples.len() - 1], sine(1999));
    }

    #[test]
    fn too_little_sound_is_left_alone() {
        let mut samples = vec![0.1; SHORTEN_NEEDS - 1];
        assert_eq!(shorten(&mut samples), 0);
        assert_eq!(samples.len(), SHORTEN_NEEDS - 1);
    }
}
