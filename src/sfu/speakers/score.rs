//! The scores of Volfin and Cohen, "Dominant speaker identification for multipoint videoconferencing" (Computer Speech
//! and Language 27, 2013), over 20 ms, 100 ms and 1 s. Windows and thresholds of advantage are those of Jitsi Videobridge
//! and mediasoup; a window of 100 ms counts from three loud slots on, as syllables are no longer than that.

use super::activity::{Activity, LONG, MEDIUM};

/// Loudness of one step of the immediate score.
const STEP: u8 = 10;
/// Steps of the immediate score.
const STEPS: usize = 13;
/// Slots of a medium window that have to be loud for it to count in the long score.
const MEDIUM_LOUD: usize = 3;
/// Scores below are as good as none.
const LEAST: f32 = 1e-10;

/// Logarithm of the ratio by which a challenger's immediate score has to be better.
const C1: f32 = 3.0;
/// Likewise the medium score.
const C2: f32 = 2.0;
/// Likewise the long score.
const C3: f32 = 0.0;

/// What one voice has done in the last second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    immediate: f32,
    medium: f32,
    long: f32,
    /// Medium windows of the last second that count.
    pub windows: usize,
}

impl Scores {
    /// Of nobody.
    pub fn silent() -> Self {
        Scores {
            immediate: LEAST,
            medium: LEAST,
            long: LEAST,
            windows: 0,
        }
    }

    /// Reads a voice that has been brought up to the present.
    pub fn of(activity: &Activity) -> Self {
        let loud = |window: usize| {
            let slots = window * MEDIUM..(window + 1) * MEDIUM;
            slots.filter(|back| activity.slot(*back) > 0).count()
        };
        let now = loud(0);
        let windows = (0..LONG).filter(|window| loud(*window) >= MEDIUM_LOUD);
        let windows = windows.count();
        let steps = usize::from(activity.slot(0) / STEP);
        Scores {
            immediate: score(steps, STEPS, 0.78),
            medium: score(now, MEDIUM, 24.0),
            long: score(windows, LONG, 47.0),
            windows,
        }
    }

    /// By how much it is better than the dominant voice's; `None`: not by enough in one of the three windows.
    pub fn advantage_over(&self, dominant: &Scores) -> Option<f32> {
        let better = |mine: f32, theirs: f32| (mine / theirs).ln();
        let medium = better(self.medium, dominant.medium);
        (better(self.immediate, dominant.immediate) > C1
            && medium > C2
            && better(self.long, dominant.long) > C3)
            .then_some(medium)
    }
}

/// Equation 10 of the paper: how much likelier `active` of `of` are with speech (p = 1/2) than by an exponential
/// distribution of noise.
fn score(active: usize, of: usize, lambda: f32) -> f32 {
    let active = active.min(of);
    let chosen: f32 = (0..active)
        .map(|k| ((of - k) as f32 / (k + 1) as f32).ln())
        .sum();
    let score = chosen + of as f32 * 0.5f32.ln() - lambda.ln() + lambda * active as f32;
    score.max(LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_activity_never_scores_less() {
        for (of, lambda) in [(MEDIUM, 24.0), (LONG, 47.0)] {
            let scores: Vec<f32> = (0..=of).map(|n| score(n, of, lambda)).collect();
            assert!(scores.is_sorted(), "{scores:?}");
        }
        assert_eq!(score(0, STEPS, 0.78), LEAST);
        assert!((score(8, STEPS, 0.78) - 4.64).abs() < 0.01);
    }
}
