//! Shares what a link can carry between the tracks of one peer.
//!
//! Sound comes first, always. Then every visible picture gets its lowest layer, in the order screens, dominant
//! speaker, tiles by size; then, in the same order, better ones. What does not fit is paused. Falls happen at once,
//! rises only with headroom and not soon after a fall.

mod ladder;

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::{Layer, LayerFigures, Target};
use crate::rtp::bwe::Wanted;
use crate::rtp::params::SourceType;
pub use ladder::VIDEO_OVERHEAD;
use ladder::{Ladder, Smoothed};

/// What flows goes on while the estimate is no lower than this part of it: an estimate swings a little.
const KEEP: f64 = 0.92;
/// And the lowest layer, which has nothing below it, while it is no lower than this part: a pause is worse than a
/// queue.
const KEEP_LOWEST: f64 = 0.75;
/// A rise needs so much more than what it adds.
const HEADROOM: f64 = 1.05;
/// No rise so soon after a fall; doubled, up to the most, for each fall that comes soon after a rise.
const HOLD: Duration = Duration::from_millis(1500);
const MAX_HOLD: Duration = Duration::from_secs(12);
/// A fall within this time after a rise shows that the rise was wrong.
const REGRET: Duration = Duration::from_secs(8);
/// An estimate so far above all that is wanted overrules a hold.
const PLENTY: f64 = 1.3;
/// Even when everything flows, an estimate that is lower than this much of it is worth a probe: pictures grow.
const RESERVE: f64 = 1.15;
/// Bit/s on the wire around the payload of a voice: fifty packets with 80 bytes of headers.
const VOICE_OVERHEAD: u64 = 32_000;

/// A picture that a peer could be sent.
#[derive(Clone, Debug)]
pub struct Demand {
    /// On which of its senders.
    pub sender: u64,
    /// A screen goes before cameras.
    pub source: SourceType,
    /// Of the dominant speaker.
    pub dominant: bool,
    /// Width and height of its element in pixels; 0: off screen; `None`: not told, taken for full size.
    pub tile: Option<(u32, u32)>,
    /// The subscriber's own bound (`switch_quality`).
    pub quality: Target,
    /// What there is.
    pub layers: SmallVec<[LayerFigures; 3]>,
}

/// What there is to share.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Bit/s, packet headers included.
    pub estimate: u64,
    /// As before, for what flows already: a layer is not left for a queue that drains anyway.
    pub kept: u64,
    /// As before, with all that is kept back until a queue has drained: nothing is paused for that.
    pub undrained: u64,
    /// The estimate is no more than a first guess: nothing is paused for it.
    pub starting: bool,
    /// Bit/s of payload that the voices take, and their number.
    pub voices: (u64, u32),
}

impl Budget {
    /// What the voices take, bit/s on the wire.
    pub fn voice_cost(&self) -> u64 {
        let (bitrate, count) = self.voices;
        bitrate + u64::from(count) * VOICE_OVERHEAD
    }
}

/// What one sender gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Which sender.
    pub sender: u64,
    /// What it is to carry.
    pub target: Target,
    /// Bit/s of payload that this will have; 0: paused.
    pub bitrate: u64,
    /// Other than at the last time; the first choice counts as change only if it is less than it could be.
    pub changed: bool,
    /// It would be better with more bandwidth.
    pub limited: bool,
}

/// The outcome of one allocation.
#[derive(Clone, Debug, Default)]
pub struct Allocation {
    /// One for each demand.
    pub choices: SmallVec<[Choice; 8]>,
    /// What more bandwidth would be used for.
    pub wanted: Wanted,
}

#[derive(Clone, Debug)]
struct Known {
    sender: u64,
    smoothed: Smoothed,
    /// Rung of the ladder as (layer, temporal); `None`: paused.
    chosen: Option<(Layer, u8)>,
    decided: bool,
    rose_at: Option<Instant>,
    hold: Duration,
    hold_until: Option<Instant>,
}

/// Remembers what each sender has, for hysteresis.
#[derive(Debug, Default)]
pub struct Allocator {
    known: Vec<Known>,
}

impl Allocator {
    /// Decides anew. Senders that are not among the demands are forgotten.
    pub fn allocate(&mut self, now: Instant, budget: Budget, demands: &[Demand]) -> Allocation {
        self.known
            .retain(|known| demands.iter().any(|demand| demand.sender == known.sender));
        let mut order: SmallVec<[usize; 16]> = (0..demands.len()).collect();
        order.sort_by_key(|at| priority(&demands[*at]));
        let ladders: SmallVec<[Ladder; 8]> = demands
            .iter()
            .map(|demand| {
                let known = self.known_mut(now, demand.sender);
                known.smoothed.update(now, &demand.layers);
                Ladder::new(now, demand, &known.smoothed)
            })
            .collect();
        let voices = budget.voice_cost() as f64;
        let estimate = budget.estimate as f64;
        let current: SmallVec<[usize; 16]> = demands
            .iter()
            .zip(&ladders)
            .map(|(demand, ladder)| ladder.position(self.known_mut(now, demand.sender).chosen))
            .collect();
        let fit = Fit {
            ladders: &ladders,
            order: &order,
            demands,
            starting: budget.starting,
            undrained: budget.undrained as f64 - voices,
        };
        let kept = budget.kept as f64;
        let keep = fit.fill(kept / KEEP - voices, |at, rung| {
            let part = if rung == 1 && current[at] > 0 {
                KEEP_LOWEST / KEEP
            } else {
                1.0
            };
            // An encoder is slowed down for those who have its layer, and for who would have nothing; who leaves for a
            // lower layer is to find room there.
            let (ladder, flows) = (&ladders[at], current[at]);
            part * match rung {
                _ if rung >= flows || rung == 1 => ladder.least(rung),
                _ => ladder.cost(rung).min(ladder.least(flows)),
            }
        });
        let rise = fit.fill(estimate - voices, |at, rung| {
            // A lowest layer that can be made smaller is better than none.
            let cost = match rung {
                1 => ladders[at].least(rung),
                _ => ladders[at].cost(rung),
            };
            let flows = ladders[at].cost(current[at]);
            flows.min(cost) + HEADROOM * (cost - flows).max(0.0)
        });
        let plenty = {
            let all: f64 = ladders.iter().map(|ladder| ladder.cost(ladder.top())).sum();
            estimate > PLENTY * (all + voices)
        };
        let mut chosen: SmallVec<[usize; 16]> = SmallVec::new();
        for (at, demand) in demands.iter().enumerate() {
            let known = self.known_mut(now, demand.sender);
            let held = known.hold_until.is_some_and(|until| until > now) && !plenty;
            let next = if rise[at] > current[at] && (!held || !known.decided) {
                rise[at]
            } else {
                current[at].min(keep[at])
            };
            chosen.push(next);
        }
        // Rises beside what is merely kept may be too much together: then nothing rises.
        let total = |chosen: &[usize]| -> f64 {
            let costs = chosen.iter().zip(&ladders);
            costs.map(|(rung, ladder)| ladder.cost(*rung)).sum()
        };
        let most = budget.undrained.max(budget.estimate) as f64 / KEEP_LOWEST - voices;
        if !budget.starting && total(&chosen) > most {
            for (at, rung) in chosen.iter_mut().enumerate() {
                *rung = current[at].min(keep[at]);
            }
        }
        let sum = total(&chosen) + voices;
        let mut allocation = Allocation {
            wanted: wanted(&ladders, &chosen, sum, estimate),
            ..Allocation::default()
        };
        for (at, demand) in demands.iter().enumerate() {
            let choice = self.decide(now, demand.sender, &ladders[at], chosen[at]);
            allocation.choices.push(choice);
        }
        allocation
    }

    /// What a sender is taken to have had before its first allocation.
    pub fn begin_with(&mut self, now: Instant, sender: u64, layer: Layer) {
        let known = self.known_mut(now, sender);
        (known.chosen, known.decided) = (Some((layer, u8::MAX)), true);
    }

    fn known_mut(&mut self, now: Instant, sender: u64) -> &mut Known {
        let at = self
            .known
            .iter()
            .position(|known| known.sender == sender)
            .unwrap_or_else(|| {
                self.known.push(Known {
                    sender,
                    smoothed: Smoothed::new(now),
                    chosen: None,
                    decided: false,
                    rose_at: None,
                    hold: HOLD,
                    hold_until: None,
                });
                self.known.len() - 1
            });
        &mut self.known[at]
    }

    fn decide(&mut self, now: Instant, sender: u64, ladder: &Ladder, rung: usize) -> Choice {
        let known = self.known_mut(now, sender);
        let before = ladder.position(known.chosen);
        let changed = if known.decided {
            rung != before
        } else {
            rung < ladder.top()
        };
        // What falls because the viewer or the publisher wants less is no fault of the link.
        if known.decided && rung < before && rung < ladder.top() {
            // One rise is regretted once, however many steps the fall takes.
            let regretted = known
                .rose_at
                .take()
                .is_some_and(|rose| now.saturating_duration_since(rose) < REGRET);
            let held = known.hold_until.is_some_and(|until| until > now);
            known.hold = match (regretted, held) {
                (true, _) => (2 * known.hold).min(MAX_HOLD),
                (false, true) => known.hold,
                (false, false) => HOLD,
            };
            known.hold_until = Some(now + known.hold);
        } else if known.decided && rung > before {
            known.rose_at = Some(now);
        }
        (known.chosen, known.decided) = (ladder.rung(rung), true);
        Choice {
            sender,
            target: known
                .chosen
                .map_or(Target::Paused, |(layer, temporal)| Target::UpTo {
                    layer,
                    temporal,
                }),
            bitrate: ladder.payload(rung),
            changed,
            limited: rung < ladder.top(),
        }
    }
}

/// What more would be used for: the cheapest next rung, and all of it.
fn wanted(ladders: &[Ladder], chosen: &[usize], sum: f64, estimate: f64) -> Wanted {
    let steps = ladders.iter().zip(chosen);
    let cheapest = steps
        .filter(|(ladder, rung)| **rung < ladder.top())
        .map(|(ladder, rung)| HEADROOM * (ladder.cost(rung + 1) - ladder.cost(*rung)))
        .min_by(f64::total_cmp);
    let all: f64 = ladders
        .iter()
        .zip(chosen)
        .map(|(ladder, rung)| ladder.cost(ladder.top()) - ladder.cost(*rung))
        .sum();
    match cheapest {
        Some(step) => Wanted {
            next: (sum + step) as u64,
            top: (sum + HEADROOM * all) as u64,
        },
        None if sum * RESERVE > estimate => Wanted {
            next: (sum * RESERVE) as u64,
            top: (sum * RESERVE) as u64,
        },
        None => Wanted::default(),
    }
}

/// Smaller goes first.
fn priority(demand: &Demand) -> (u8, std::cmp::Reverse<u64>, u64) {
    let class = match (demand.source, demand.dominant) {
        (SourceType::Screen, _) => 0,
        (SourceType::Media | SourceType::Music, true) => 1,
        (SourceType::Media | SourceType::Music, false) => 2,
    };
    let area = demand.tile.map_or(u64::MAX, |(width, height)| {
        u64::from(width) * u64::from(height)
    });
    (class, std::cmp::Reverse(area), demand.sender)
}

struct Fit<'a> {
    ladders: &'a [Ladder],
    /// Indices by priority.
    order: &'a [usize],
    demands: &'a [Demand],
    starting: bool,
    /// May be spent on the lowest layers, even where the budget is less, bit/s.
    undrained: f64,
}

impl Fit<'_> {
    /// The rungs that fit into `budget`, where `weigh` tells what a rung is to be counted as.
    fn fill(&self, budget: f64, weigh: impl Fn(usize, usize) -> f64) -> SmallVec<[usize; 16]> {
        let mut rungs: SmallVec<[usize; 16]> = SmallVec::from_elem(0, self.ladders.len());
        let mut left = budget;
        let mut raise = |rungs: &mut SmallVec<[usize; 16]>, at: usize, beyond: f64| -> bool {
            let (rung, ladder) = (rungs[at], &self.ladders[at]);
            if rung >= ladder.top() {
                return false;
            }
            let step = weigh(at, rung + 1) - weigh(at, rung);
            if step > left + beyond {
                return false;
            }
            left -= step;
            rungs[at] += 1;
            true
        };
        let beyond = if self.starting {
            f64::INFINITY
        } else {
            (self.undrained - budget).max(0.0)
        };
        for &at in self.order {
            raise(&mut rungs, at, beyond);
        }
        let (first, tiles): (SmallVec<[usize; 16]>, SmallVec<[usize; 16]>) = self
            .order
            .iter()
            .copied()
            .partition(|at| priority(&self.demands[*at]).0 < 2);
        for at in first {
            while rungs[at] > 0 && raise(&mut rungs, at, 0.0) {}
        }
        // One step each, largest tile first, until nothing more fits.
        let mut risen = true;
        while risen {
            risen = false;
            for &at in &tiles {
                risen |= rungs[at] > 0 && raise(&mut rungs, at, 0.0);
            }
        }
        rungs
    }
}

#[cfg(test)]
mod tests;
