//! The delay-based rate: additive or multiplicative increase, multiplicative decrease (draft-ietf-rmcat-gcc-02,
//! section 5.5; link capacity as in libwebrtc's `AimdRateControl`).

use super::trendline::Usage;

/// Of what arrives, after overuse.
const DECREASE: f64 = 0.85;
/// Growth per second while the capacity of the link is unknown.
const GROWTH: f64 = 1.08;
/// The rate does not rise beyond this much of what arrives: without evidence there is no increase.
const EVIDENCE: f64 = 1.5;
/// And this, bit/s.
const EVIDENCE_OFFSET: f64 = 10_000.0;
/// Between two decreases, ms: at least, and at most.
const REDUCE_AGAIN: (f64, f64) = (100.0, 300.0);
/// Of the average over what arrived when a queue grew.
const CAPACITY_WEIGHT: f64 = 0.05;

/// Rate of the link when its queue grew, with its deviation.
#[derive(Clone, Copy, Debug)]
struct LinkCapacity {
    estimate: f64,
    /// Relative variance, in kbit/s.
    variance: f64,
}

impl LinkCapacity {
    fn sample(now: Option<Self>, acked: f64) -> Self {
        let sample = acked / 1e3;
        let Some(LinkCapacity { estimate, variance }) = now else {
            return LinkCapacity {
                estimate: acked,
                variance: 0.4,
            };
        };
        let before = estimate / 1e3;
        let mean = (1.0 - CAPACITY_WEIGHT) * before + CAPACITY_WEIGHT * sample;
        let error = before - sample;
        let variance = ((1.0 - CAPACITY_WEIGHT) * variance
            + CAPACITY_WEIGHT * error * error / mean.max(1.0))
        .clamp(0.4, 2.5);
        LinkCapacity {
            estimate: mean * 1e3,
            variance,
        }
    }

    /// Three deviations.
    fn margin(self) -> f64 {
        3.0 * (self.variance * self.estimate / 1e3).sqrt() * 1e3
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Hold,
    Increase,
}

/// The controller. Times are ms of the estimator's epoch.
#[derive(Debug)]
pub struct Aimd {
    rate: f64,
    state: State,
    capacity: Option<LinkCapacity>,
    last_change: Option<f64>,
    last_decrease: Option<f64>,
}

impl Aimd {
    /// Begins at `rate` bit/s.
    pub fn new(rate: f64) -> Self {
        Aimd {
            rate,
            state: State::Hold,
            capacity: None,
            last_change: None,
            last_decrease: None,
        }
    }

    /// Bit/s.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// A probe has shown this rate.
    pub fn set_rate(&mut self, now: f64, rate: f64) {
        self.rate = rate;
        self.last_change = Some(now);
        if self
            .capacity
            .is_some_and(|capacity| rate > capacity.estimate + capacity.margin())
        {
            self.capacity = None;
        }
    }

    /// Takes in what the trendline says; `acked` is the rate that arrives, `busy`
    /// what the path let through last. True: the rate was
    /// decreased.
    pub fn update(
        &mut self,
        now: f64,
        usage: Usage,
        acked: Option<f64>,
        busy: Option<f64>,
        round_trip: f64,
    ) -> bool {
        match usage {
            Usage::Over => return self.decrease(now, busy, round_trip),
            Usage::Under => self.state = State::Hold,
            Usage::Normal if self.state == State::Hold => {
                self.state = State::Increase;
                self.last_change = Some(now);
            }
            Usage::Normal => self.increase(now, acked, round_trip),
        }
        false
    }

    fn increase(&mut self, now: f64, acked: Option<f64>, round_trip: f64) {
        let passed = (now - self.last_change.unwrap_or(now)).clamp(0.0, 1000.0);
        self.last_change = Some(now);
        let Some(acked) = acked else {
            return;
        };
        if let Some(capacity) = self.capacity
            && acked > capacity.estimate + capacity.margin()
        {
            self.capacity = None;
        }
        let risen = match self.capacity {
            // One packet per response time, at least 4 kbit/s per second.
            Some(_) => {
                let packet = (self.rate / 30.0).clamp(2_000.0, 9_600.0);
                let response = (2.0 * (round_trip + 100.0)).max(100.0);
                self.rate + (packet * passed / response).max(4.0 * passed)
            }
            None => self.rate * GROWTH.powf(passed / 1e3) + passed.min(1.0),
        };
        let limit = EVIDENCE * acked + EVIDENCE_OFFSET;
        self.rate = self.rate.max(risen.min(limit));
    }

    fn decrease(&mut self, now: f64, busy: Option<f64>, round_trip: f64) -> bool {
        self.state = State::Hold;
        self.last_change = Some(now);
        let wait = (round_trip + 50.0).clamp(REDUCE_AGAIN.0, REDUCE_AGAIN.1);
        if self.last_decrease.is_some_and(|last| now - last < wait) {
            return false;
        }
        self.last_decrease = Some(now);
        let Some(busy) = busy else {
            // Nothing is known of what arrives: the beginning was too bold.
            self.rate *= 0.7;
            return true;
        };
        if let Some(capacity) = self.capacity
            && busy < capacity.estimate - capacity.margin()
        {
            self.capacity = None;
        }
        let target = match self.capacity {
            Some(capacity) if DECREASE * busy > self.rate => DECREASE * capacity.estimate,
            _ => DECREASE * busy,
        };
        self.capacity = Some(LinkCapacity::sample(self.capacity, busy));
        let before = self.rate;
        self.rate = self.rate.min(target);
        self.rate < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overuse_falls_below_what_arrives_and_then_climbs_slowly() {
        let mut aimd = Aimd::new(2e6);
        assert!(aimd.update(0.0, Usage::Over, Some(1e6), Some(1e6), 50.0));
        assert_eq!(aimd.rate(), 850_000.0);
        let mut now = 0.0;
        for _ in 0..20 {
            now += 50.0;
            aimd.update(now, Usage::Normal, Some(850_000.0), Some(850_000.0), 50.0);
        }
        let risen = aimd.rate() - 850_000.0;
        assert!((4_000.0..60_000.0).contains(&risen), "{risen}");
    }

    #[test]
    fn without_evidence_there_is_no_rise_and_no_fall() {
        let mut aimd = Aimd::new(3e6);
        for n in 0..200 {
            aimd.update(
                f64::from(n) * 50.0,
                Usage::Normal,
                Some(2e5),
                Some(2e5),
                50.0,
            );
        }
        assert_eq!(aimd.rate(), 3e6);
    }

    #[test]
    fn one_queue_is_answered_once_per_round_trip() {
        let mut aimd = Aimd::new(2e6);
        assert!(aimd.update(0.0, Usage::Over, Some(1e6), Some(1e6), 50.0));
        assert!(!aimd.update(50.0, Usage::Over, Some(9e5), Some(9e5), 50.0));
        assert!(aimd.update(150.0, Usage::Over, Some(6e5), Some(6e5), 50.0));
        assert_eq!(aimd.rate(), 510_000.0);
    }
}
