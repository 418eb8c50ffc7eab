//! What a picture can be had for: its layers, cheapest first.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::Demand;
use crate::sfu::{Layer, LayerFigures, Target};

/// Packet headers around the payload of video.
pub const VIDEO_OVERHEAD: f64 = 1.08;
/// A layer is large enough for a tile from this part of its pixels on.
const ENOUGH: f64 = 0.56;
/// Measured rates are averaged over about this time: a keyframe is no rate.
const AVERAGE: Duration = Duration::from_secs(2);
/// A layer whose rate is not known is taken for this one for so long.
const NOMINAL: [u64; 3] = [150_000, 500_000, 1_500_000];
const NOMINAL_SINGLE: u64 = 500_000;
const UNKNOWN: Duration = Duration::from_secs(3);
/// Layers that are told apart.
const LAYERS: usize = 8;

/// Averages of the layers' rates, bit/s of payload.
#[derive(Clone, Debug)]
pub struct Smoothed {
    since: Instant,
    at: Instant,
    rates: [f64; LAYERS],
}

impl Smoothed {
    /// Nothing is known yet.
    pub fn new(now: Instant) -> Self {
        Smoothed {
            since: now,
            at: now,
            rates: [0.0; LAYERS],
        }
    }

    /// Takes the latest figures in.
    pub fn update(&mut self, now: Instant, layers: &[LayerFigures]) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        let weight = (passed / AVERAGE.as_secs_f64()).min(1.0);
        self.at = now;
        for figures in layers {
            let Some(rate) = self.rates.get_mut(usize::from(figures.layer.0)) else {
                continue;
            };
            let latest = figures.bitrate as f64;
            if *rate == 0.0 {
                *rate = latest;
            } else {
                *rate += weight * (latest - *rate);
            }
        }
    }

    fn rate(&self, now: Instant, layer: Layer, count: usize) -> u64 {
        let at = usize::from(layer.0);
        let rate = self.rates.get(at).copied().unwrap_or(0.0) as u64;
        let young = now.saturating_duration_since(self.since) < UNKNOWN;
        match NOMINAL.get(at) {
            _ if rate > 0 || !young => rate,
            _ if count == 1 => NOMINAL_SINGLE,
            nominal => nominal.copied().unwrap_or(NOMINAL[2]),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Rung {
    layer: Layer,
    temporal: u8,
    payload: u64,
    least: u64,
}

/// Rung 0 is nothing; each one above costs no less than the one below.
#[derive(Clone, Debug)]
pub struct Ladder {
    rungs: SmallVec<[Rung; 6]>,
}

impl Ladder {
    /// What the demand allows: nothing that is off screen, larger than its tile needs, or beyond the chosen quality.
    pub fn new(now: Instant, demand: &Demand, smoothed: &Smoothed) -> Self {
        let mut ladder = Ladder {
            rungs: SmallVec::new(),
        };
        let temporal_limit = match demand.quality {
            Target::Paused => return ladder,
            Target::UpTo { temporal, .. } => temporal,
        };
        if demand
            .tile
            .is_some_and(|(width, height)| width == 0 || height == 0)
        {
            return ladder;
        }
        let highest = highest(demand);
        let count = demand.layers.len();
        let active = demand.layers.iter().filter(|figures| figures.active);
        for figures in active {
            // The lowest one that flows is there for everybody who wants a picture at all.
            if figures.layer > highest && !ladder.rungs.is_empty() {
                break;
            }
            let rate = smoothed.rate(now, figures.layer, count);
            ladder.push_temporal(figures, rate, temporal_limit);
            ladder.push(Rung {
                layer: figures.layer,
                temporal: temporal_limit,
                payload: scaled(figures, rate, temporal_limit),
                least: figures.least.unwrap_or(u64::MAX),
            });
        }
        ladder
    }

    /// The lowest layer at fewer frames: better than no picture.
    fn push_temporal(&mut self, figures: &LayerFigures, rate: u64, limit: u8) {
        if !self.rungs.is_empty() {
            return;
        }
        let below = figures.temporal_bitrates.len().saturating_sub(1) as u8;
        for temporal in 0..below.min(limit) {
            self.push(Rung {
                layer: figures.layer,
                temporal,
                payload: scaled(figures, rate, temporal),
                least: u64::MAX,
            });
        }
    }

    fn push(&mut self, rung: Rung) {
        // Cheaper than what is below it: a layer that its encoder starves. It is no step up in cost.
        let floor = self.rungs.last().map_or(0, |below| below.payload);
        let payload = rung.payload.max(floor);
        self.rungs.push(Rung {
            payload,
            least: rung.least.clamp(floor.min(payload), payload),
            ..rung
        });
    }

    /// The highest rung.
    pub fn top(&self) -> usize {
        self.rungs.len()
    }

    /// Bit/s on the wire.
    pub fn cost(&self, rung: usize) -> f64 {
        self.payload(rung) as f64 * VIDEO_OVERHEAD
    }

    /// Bit/s on the wire with which a rung that flows can make do.
    pub fn least(&self, rung: usize) -> f64 {
        rung.checked_sub(1)
            .and_then(|at| self.rungs.get(at))
            .map_or(0.0, |rung| rung.least as f64 * VIDEO_OVERHEAD)
    }

    /// Bit/s of payload.
    pub fn payload(&self, rung: usize) -> u64 {
        rung.checked_sub(1)
            .and_then(|at| self.rungs.get(at))
            .map_or(0, |rung| rung.payload)
    }

    /// Layer and highest temporal id; `None` for rung 0.
    pub fn rung(&self, rung: usize) -> Option<(Layer, u8)> {
        let rung = self.rungs.get(rung.checked_sub(1)?)?;
        Some((rung.layer, rung.temporal))
    }

    /// The highest rung that is not better than what was chosen.
    pub fn position(&self, chosen: Option<(Layer, u8)>) -> usize {
        let Some(chosen) = chosen else {
            return 0;
        };
        let below = self
            .rungs
            .iter()
            .take_while(|rung| (rung.layer, rung.temporal) <= chosen);
        below.count().max(1).min(self.top())
    }
}

/// The highest layer that quality and tile allow.
fn highest(demand: &Demand) -> Layer {
    let by_quality = match demand.quality {
        Target::UpTo { layer, .. } => layer,
        Target::Paused => Layer(0),
    };
    let Some((width, height)) = demand.tile else {
        return by_quality;
    };
    let needed = ENOUGH * f64::from(width) * f64::from(height);
    let enough = demand
        .layers
        .iter()
        .filter(|figures| figures.active)
        .find(|figures| {
            figures
                .size
                .is_some_and(|(width, height)| f64::from(width) * f64::from(height) >= needed)
        });
    enough.map_or(by_quality, |figures| figures.layer.min(by_quality))
}

/// The rate of a layer up to a temporal id.
fn scaled(figures: &LayerFigures, rate: u64, temporal: u8) -> u64 {
    let rates = &figures.temporal_bitrates;
    let (Some(part), Some(all)) = (rates.get(usize::from(temporal)), rates.last()) else {
        return rate;
    };
    (rate as f64 * (*part as f64 / (*all).max(1) as f64).min(1.0)) as u64
}
