//! The loss-based bound.
//!
//! A path may lose packets at random, whatever is sent: sending less would cure nothing, and forward error
//! correction and retransmission are for that. A path that is full loses what is too much: there, what arrives is
//! what fits. The two are told apart by trial: the rate falls once to what arrives, and if the loss stays as it
//! was, it is the path's own, and is borne from then on. This is the purpose of libwebrtc's `LossBasedBweV2` with
//! its "inherent loss", by simpler means; the fixed 10 % of draft-ietf-rmcat-gcc-02, section 6, would let 10 % of
//! random loss end every picture.

/// Packets and time that make one judgement.
const MIN_PACKETS: u32 = 60;
const WINDOW: f64 = 1_000.0;
/// Loss above the inherent one that is borne anyway.
const TOLERANCE: f64 = 0.10;
/// How long after a reduction the loss is compared, ms.
const TRIAL: f64 = 2_000.0;
/// It counts as unchanged above this part of what it was.
const UNCHANGED: f64 = 0.6;
/// Without much loss the bound rises by this per second.
const GROWTH: f64 = 1.2;

#[derive(Clone, Copy, Debug)]
struct Trial {
    began: f64,
    loss: f64,
    /// What the bound was before.
    before: Option<f64>,
}

/// The bound. Times are ms of the estimator's epoch.
#[derive(Debug, Default)]
pub struct LossBound {
    bound: Option<f64>,
    inherent: f64,
    trial: Option<Trial>,
    window: (u32, u32),
    since: Option<f64>,
    fraction: f64,
}

impl LossBound {
    /// Bit/s at most; `None`: loss says nothing against more.
    pub fn bound(&self) -> Option<f64> {
        self.bound
    }

    /// Fraction lost in the last window, 0 to 1.
    pub fn fraction(&self) -> f64 {
        self.fraction
    }

    /// The fate of some packets; `delivered` is what arrives, bit/s. True: the bound fell.
    pub fn update(&mut self, now: f64, received: u32, lost: u32, delivered: Option<f64>) -> bool {
        let since = *self.since.get_or_insert(now);
        self.window.0 += received;
        self.window.1 += lost;
        let packets = self.window.0 + self.window.1;
        if now - since < WINDOW || packets < MIN_PACKETS {
            return false;
        }
        let fraction = f64::from(self.window.1) / f64::from(packets);
        let passed = (now - since).min(3_000.0);
        (self.window, self.since, self.fraction) = ((0, 0), Some(now), fraction);
        // Three deviations of a binomial distribution: few packets prove little.
        let expected = self.inherent + TOLERANCE;
        let doubt = 3.0 * (expected * (1.0 - expected).max(0.0) / f64::from(packets)).sqrt();
        if self.judge_trial(now, fraction) {
            return false;
        }
        if fraction > expected + doubt {
            return self.reduce(now, fraction, delivered);
        }
        self.inherent = self.inherent.min(fraction.max(self.inherent - 0.02));
        self.relax(passed, delivered);
        false
    }

    /// True: the trial showed that the loss is the path's own, or goes on.
    fn judge_trial(&mut self, now: f64, fraction: f64) -> bool {
        let Some(trial) = self.trial else {
            return false;
        };
        if now - trial.began < TRIAL {
            return true;
        }
        self.trial = None;
        if fraction > UNCHANGED * trial.loss {
            self.inherent = fraction.max(trial.loss);
            self.bound = trial.before;
            return true;
        }
        false
    }

    fn reduce(&mut self, now: f64, fraction: f64, delivered: Option<f64>) -> bool {
        let Some(delivered) = delivered else {
            return false;
        };
        self.trial = Some(Trial {
            began: now,
            loss: fraction,
            before: self.bound,
        });
        let lower = self.bound.is_none_or(|bound| delivered < bound);
        if lower {
            self.bound = Some(delivered);
        }
        lower
    }

    /// Rises while what arrives comes near the bound, and ends where it does not bind any more.
    fn relax(&mut self, passed: f64, delivered: Option<f64>) {
        if let Some(bound) = self.bound {
            let risen = bound * GROWTH.powf(passed / 1e3);
            self.bound = delivered
                .is_none_or(|delivered| risen < 3.0 * delivered)
                .then_some(risen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_percent_at_random_bind_nothing() {
        use rand::{Rng, SeedableRng, rngs::StdRng};
        let mut random = StdRng::seed_from_u64(3);
        let mut bound = LossBound::default();
        for n in 0..6000 {
            let lost = (0..7).filter(|_| random.random_bool(0.1)).count() as u32;
            bound.update(f64::from(n) * 50.0, 7 - lost, lost, Some(1e6));
        }
        assert!(bound.bound().is_none_or(|bound| bound > 9e5), "{bound:?}");
    }

    #[test]
    fn loss_that_goes_with_the_rate_binds_it() {
        let mut bound = LossBound::default();
        let mut rate = 1_500_000.0f64;
        for n in 0..400 {
            // A policer that lets 600 kbit/s through.
            let sent = 20.0 * rate / 1e6;
            let lost = (sent * (1.0 - (600_000.0 / rate)).max(0.0)).round();
            let now = f64::from(n) * 100.0;
            bound.update(
                now,
                (sent - lost) as u32,
                lost as u32,
                Some(rate.min(600_000.0)),
            );
            rate = bound.bound().unwrap_or(1_500_000.0).min(1_500_000.0);
            if n == 60 {
                assert!(rate < 800_000.0, "{rate}");
            }
        }
        assert!(rate < 1_000_000.0, "{rate}");
    }

    #[test]
    fn loss_that_stays_is_borne() {
        let mut bound = LossBound::default();
        for n in 0..100 {
            bound.update(f64::from(n) * 100.0, 14, 6, Some(700_000.0));
        }
        assert_eq!(bound.bound(), None);
        assert!((bound.fraction() - 0.3).abs() < 0.01);
    }
}
