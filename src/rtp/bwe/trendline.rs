//! Is a queue growing on the path? The delay gradient between groups of packets, its slope over a window, and an
//! adaptive threshold (draft-ietf-rmcat-gcc-02, section 5; the slope is libwebrtc's `TrendlineEstimator`, which
//! took the place of the draft's Kalman filter).

use std::collections::VecDeque;

/// Packets sent within this time are one group (section 5.2). Microseconds.
const BURST: u64 = 5_000;
/// Groups in the window of the slope.
const WINDOW: usize = 20;
/// Of the exponential average that the slope is taken of.
const SMOOTHING: f64 = 0.9;
/// The slope is multiplied by this, and by the number of groups up to [`MAX_DELTAS`].
const GAIN: f64 = 4.0;
const MAX_DELTAS: u32 = 60;
/// The threshold at first, and its bounds, ms.
const THRESHOLD: f64 = 12.5;
const THRESHOLD_RANGE: (f64, f64) = (6.0, 600.0);
/// How fast the threshold follows the trend up and down (section 5.4).
const RISE: f64 = 0.0087;
const FALL: f64 = 0.039;
/// A trend this far above the threshold does not move it, ms.
const MAX_OFFSET: f64 = 15.0;
/// The trend has to stay above the threshold for this long, ms.
const OVERUSE_TIME: f64 = 10.0;
/// A pause after which the past says nothing about the path, µs.
const RESET_AFTER: i64 = 3_000_000;

/// What the delay says about the path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Usage {
    /// Neither of the others.
    #[default]
    Normal,
    /// A queue grows.
    Over,
    /// A queue drains.
    Under,
}

#[derive(Clone, Copy, Debug)]
struct Group {
    first_sent: u64,
    last_sent: u64,
    first_arrival: i64,
    last_arrival: i64,
}

/// Groups, slope and detector of one path.
#[derive(Debug)]
pub struct Trendline {
    current: Option<Group>,
    previous: Option<Group>,
    /// Arrival since the first group in ms, smoothed delay in ms.
    points: VecDeque<(f64, f64)>,
    first_arrival: i64,
    deltas: u32,
    accumulated: f64,
    smoothed: f64,
    threshold: f64,
    last_update: Option<f64>,
    over_for: f64,
    over_count: u32,
    last_trend: f64,
    usage: Usage,
}

impl Default for Trendline {
    fn default() -> Self {
        Trendline {
            current: None,
            previous: None,
            points: VecDeque::with_capacity(WINDOW + 1),
            first_arrival: 0,
            deltas: 0,
            accumulated: 0.0,
            smoothed: 0.0,
            threshold: THRESHOLD,
            last_update: None,
            over_for: 0.0,
            over_count: 0,
            last_trend: 0.0,
            usage: Usage::Normal,
        }
    }
}

impl Trendline {
    /// A packet that was sent at `sent` arrived at `arrival`, both in µs of their own clocks. Packets come in the
    /// order of their departure.
    pub fn handle_packet(&mut self, sent: u64, arrival: i64) {
        let Some(group) = &mut self.current else {
            self.begin(sent, arrival);
            return;
        };
        if sent < group.first_sent {
            return;
        }
        if (arrival - group.last_arrival).abs() > RESET_AFTER {
            *self = Trendline::default();
            self.begin(sent, arrival);
            return;
        }
        let in_burst = {
            // Packets that a busy path let go together tell nothing apart (libwebrtc's burst rule).
            let gap = arrival - group.last_arrival;
            let propagation = gap - (sent as i64 - group.last_sent as i64);
            propagation < 0 && gap <= BURST as i64 && arrival - group.first_arrival < 100_000
        };
        if sent - group.first_sent <= BURST || in_burst {
            group.last_sent = group.last_sent.max(sent);
            group.last_arrival = group.last_arrival.max(arrival);
            return;
        }
        let done = *group;
        if let Some(before) = self.previous.replace(done) {
            self.update(before, done);
        }
        self.current = Some(Group {
            first_sent: sent,
            last_sent: sent,
            first_arrival: arrival,
            last_arrival: arrival,
        });
    }

    /// What the path does now.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    fn begin(&mut self, sent: u64, arrival: i64) {
        self.first_arrival = arrival;
        self.current = Some(Group {
            first_sent: sent,
            last_sent: sent,
            first_arrival: arrival,
            last_arrival: arrival,
        });
    }

    fn update(&mut self, before: Group, group: Group) {
        let sent_delta = (group.last_sent as f64 - before.last_sent as f64) / 1e3;
        let arrival_delta = (group.last_arrival - before.last_arrival) as f64 / 1e3;
        self.deltas = (self.deltas + 1).min(1000);
        self.accumulated += arrival_delta - sent_delta;
        self.smoothed = SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * self.accumulated;
        let at = (group.last_arrival - self.first_arrival) as f64 / 1e3;
        self.points.push_back((at, self.smoothed));
        if self.points.len() > WINDOW {
            self.points.pop_front();
        }
        let slope = if self.points.len() == WINDOW {
            slope(&self.points)
        } else {
            0.0
        };
        self.detect(slope, sent_delta, at);
    }

    /// Section 5.5, with the number of groups that libwebrtc scales by.
    fn detect(&mut self, slope: f64, sent_delta: f64, at: f64) {
        let trend = f64::from(self.deltas.min(MAX_DELTAS)) * slope * GAIN;
        if trend > self.threshold {
            // The first time counts half, since it began somewhere in between.
            self.over_for += if self.over_count == 0 {
                sent_delta / 2.0
            } else {
                sent_delta
            };
            self.over_count += 1;
            if self.over_for > OVERUSE_TIME && self.over_count > 1 && slope >= self.last_trend {
                self.over_for = 0.0;
                self.over_count = 0;
                self.usage = Usage::Over;
            }
        } else {
            self.over_for = 0.0;
            self.over_count = 0;
            self.usage = if trend < -self.threshold {
                Usage::Under
            } else {
                Usage::Normal
            };
        }
        self.last_trend = slope;
        self.adapt(trend.abs(), at);
    }

    fn adapt(&mut self, trend: f64, at: f64) {
        let passed = (at - self.last_update.unwrap_or(at)).clamp(0.0, 100.0);
        self.last_update = Some(at);
        // A sudden large trend is a change of capacity and not the path's usual noise.
        if trend > self.threshold + MAX_OFFSET {
            return;
        }
        let gain = if trend < self.threshold { FALL } else { RISE };
        self.threshold = (self.threshold + gain * (trend - self.threshold) * passed)
            .clamp(THRESHOLD_RANGE.0, THRESHOLD_RANGE.1);
    }
}

/// Least squares.
fn slope(points: &VecDeque<(f64, f64)>) -> f64 {
    let count = points.len() as f64;
    let (sum_x, sum_y) = points
        .iter()
        .fold((0.0, 0.0), |(sx, sy), (x, y)| (sx + x, sy + y));
    let (mean_x, mean_y) = (sum_x / count, sum_y / count);
    let (over, under) = points.iter().fold((0.0, 0.0), |(over, under), (x, y)| {
        (
            over + (x - mean_x) * (y - mean_y),
            under + (x - mean_x) * (x - mean_x),
        )
    });
    if under == 0.0 { 0.0 } else { over / under }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One packet every 20 ms, `extra(n)` µs late.
    fn run(count: u64, extra: impl Fn(u64) -> i64) -> (Trendline, u32) {
        let mut trendline = Trendline::default();
        let mut over = 0;
        for n in 0..count {
            let sent = 1_000_000 + n * 20_000;
            trendline.handle_packet(sent, sent as i64 + extra(n));
            over += u32::from(trendline.usage() == Usage::Over);
        }
        (trendline, over)
    }

    #[test]
    fn a_constant_delay_is_normal() {
        let (trendline, over) = run(500, |_| 80_000);
        assert_eq!((trendline.usage(), over), (Usage::Normal, 0));
    }

    #[test]
    fn a_growing_queue_is_overuse_and_a_draining_one_underuse() {
        let (trendline, _) = run(60, |n| n as i64 * 4_000);
        assert_eq!(trendline.usage(), Usage::Over);
        let (trendline, _) = run(60, |n| 1_000_000 - n as i64 * 4_000);
        assert_eq!(trendline.usage(), Usage::Under);
    }

    #[test]
    fn overuse_is_noticed_within_half_a_second() {
        let mut trendline = Trendline::default();
        for n in 0..200u64 {
            let sent = n * 20_000;
            let late = n.saturating_sub(100) as i64 * 6_000;
            trendline.handle_packet(sent, sent as i64 + late);
            if trendline.usage() == Usage::Over {
                assert!(n < 125, "{n}");
                return;
            }
        }
        panic!("never");
    }

    #[test]
    fn jitter_of_thirty_milliseconds_is_seldom_overuse() {
        use rand::{Rng, SeedableRng, rngs::StdRng};
        let mut random = StdRng::seed_from_u64(7);
        let late: Vec<i64> = (0..6000).map(|_| random.random_range(0..60_000)).collect();
        let (_, over) = run(6000, |n| late[n as usize]);
        assert!(over < 90, "{over} of 6000");
    }

    #[test]
    fn a_long_pause_begins_anew() {
        let mut trendline = Trendline::default();
        trendline.handle_packet(0, 0);
        trendline.handle_packet(60_000_000, 90_000_000);
        trendline.handle_packet(60_020_000, 90_020_000);
        assert_eq!(trendline.usage(), Usage::Normal);
    }
}
