//! What is given up when the codec threads have more to do than time, and when it is taken back. Pure: told the time.

use std::time::{Duration, Instant};

/// How much of a room's picture is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Load {
    /// All of it.
    #[default]
    Normal,
    /// Every tile shows a new picture in every other tick only.
    OldTiles,
    /// Besides, half the frame rate.
    HalfRate,
    /// Besides, the lowest rung in use is the only one.
    LowestOnly,
}

impl Load {
    /// All of them, the lightest first.
    pub const ALL: [Load; 4] = [
        Load::Normal,
        Load::OldTiles,
        Load::HalfRate,
        Load::LowestOnly,
    ];

    /// In metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Load::Normal => "normal",
            Load::OldTiles => "old_tiles",
            Load::HalfRate => "half_rate",
            Load::LowestOnly => "lowest_only",
        }
    }

    fn heavier(self) -> Self {
        Load::ALL[(self as usize + 1).min(3)]
    }

    fn lighter(self) -> Self {
        Load::ALL[(self as usize).saturating_sub(1)]
    }
}

/// Over this time the share of late ticks is averaged.
const MEMORY: Duration = Duration::from_millis(700);
/// A larger share of late ticks than this: more is given up.
const TOO_MANY: f64 = 0.4;
/// A smaller share: something is taken back.
const FEW: f64 = 0.05;
/// After a step, what it brings is awaited for so long before the next one is given up.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// It has to go well for so long before something is taken back; twice as long each time that this was regretted.
pub const CALM: Duration = Duration::from_secs(3);
/// The longest that it is doubled to.
const LONGEST_CALM: Duration = Duration::from_secs(48);
/// What is given up again so soon after it was taken back is a regret.
const REGRET: Duration = Duration::from_secs(6);

/// Watches the deadlines of one room's ticks.
#[derive(Debug)]
pub struct Overload {
    load: Load,
    late_share: f64,
    last: Option<Instant>,
    /// The last step, and whether it took something back.
    step: Option<(Instant, bool)>,
    calm: Duration,
}

impl Default for Overload {
    fn default() -> Self {
        Overload {
            load: Load::Normal,
            late_share: 0.0,
            last: None,
            step: None,
            calm: CALM,
        }
    }
}

impl Overload {
    /// What holds.
    pub fn load(&self) -> Load {
        self.load
    }

    /// A tick has finished at `now`, before its deadline or not. Tells of a change.
    pub fn tick(&mut self, now: Instant, late: bool) -> Option<Load> {
        let passed = self
            .last
            .map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.last = Some(now);
        let weight = 1.0 - (-passed.as_secs_f64() / MEMORY.as_secs_f64()).exp();
        self.late_share += (f64::from(u8::from(late)) - self.late_share) * weight;
        let since = self.step.map(|(at, _)| now.saturating_duration_since(at));
        let waited = |time| since.is_none_or(|since| since >= time);
        if self.late_share > TOO_MANY && self.load < Load::LowestOnly && waited(PATIENCE) {
            let regretted = self.step.is_some_and(|(_, back)| back) && !waited(REGRET);
            self.calm = match regretted {
                true => (self.calm * 2).min(LONGEST_CALM),
                false => self.calm,
            };
            self.step = Some((now, false));
            self.load = self.load.heavier();
            return Some(self.load);
        }
        if self.late_share < FEW && self.load > Load::Normal && waited(self.calm) {
            self.step = Some((now, true));
            self.load = self.load.lighter();
            return Some(self.load);
        }
        if self.load == Load::Normal && waited(LONGEST_CALM) {
            self.calm = CALM;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ticks every 50 ms for so long; late where `late` says so. Returns the changes with their times in ms.
    fn run(
        overload: &mut Overload,
        now: &mut Instant,
        time: Duration,
        mut late: impl FnMut(Load) -> bool,
    ) -> Vec<(u128, Load)> {
        let start = *now;
        let mut changes = Vec::new();
        while *now < start + time {
            *now += Duration::from_millis(50);
            let late = late(overload.load());
            if let Some(load) = overload.tick(*now, late) {
                changes.push((now.duration_since(start).as_millis(), load));
            }
        }
        changes
    }

    #[test]
    fn steps_are_given_up_one_by_one_and_taken_back_one_by_one() {
        let (mut overload, mut now) = (Overload::default(), Instant::now());
        let seconds = Duration::from_secs;
        assert!(run(&mut overload, &mut now, seconds(60), |_| false).is_empty());
        let up = run(&mut overload, &mut now, seconds(10), |_| true);
        let loads: Vec<Load> = up.iter().map(|(_, load)| *load).collect();
        assert_eq!(loads, Load::ALL[1..]);
        assert!(up[0].0 < 500 && up[2].0 < 3_000, "{up:?}");
        let down = run(&mut overload, &mut now, seconds(20), |_| false);
        let loads: Vec<Load> = down.iter().map(|(_, load)| *load).collect();
        assert_eq!(loads, [Load::HalfRate, Load::OldTiles, Load::Normal]);
        assert!(down[0].0 >= 1_000 && down[2].0 <= 12_000, "{down:?}");
    }

    #[test]
    fn single_late_ticks_change_nothing() {
        let (mut overload, mut now) = (Overload::default(), Instant::now());
        let mut tick = 0;
        let changes = run(&mut overload, &mut now, Duration::from_secs(60), |_| {
            tick += 1;
            tick % 5 == 0
        });
        assert!(changes.is_empty(), "{changes:?}");
    }

    #[test]
    fn what_was_regretted_is_tried_ever_more_rarely() {
        let (mut overload, mut now) = (Overload::default(), Instant::now());
        // The whole picture is always too much, and half of the rate never.
        let heavy = |load: Load| load < Load::HalfRate;
        let changes = run(&mut overload, &mut now, Duration::from_secs(180), heavy);
        let tries: Vec<u128> = changes
            .windows(2)
            .filter(|pair| pair[1].1 < pair[0].1)
            .map(|pair| pair[1].0 - pair[0].0)
            .collect();
        assert!(tries.len() <= 7, "{changes:?}");
        assert!(tries.windows(2).all(|pair| pair[0] <= pair[1]), "{tries:?}");
        assert!(overload.load() >= Load::OldTiles);
    }

    #[test]
    fn a_tick_after_a_long_stall_counts_for_all_of_it() {
        let (mut overload, now) = (Overload::default(), Instant::now());
        assert_eq!(overload.tick(now, false), None);
        let stalled = now + Duration::from_secs(2);
        assert_eq!(overload.tick(stalled, true), Some(Load::OldTiles));
    }
}
