//! A fair turn for each room of a worker that cannot carry everything: what is too much is taken from the rooms that need
//! most, and the small ones do not notice.
//!
//! Work is counted in packets, in and out. While the thread still sleeps now and then, nobody is limited.

use std::time::{Duration, Instant};

/// Work is added up for so long.
const WINDOW: Duration = Duration::from_millis(100);
/// Windows without a rest after which the worker counts as overloaded: a burst of keyframes is none. One is enough while
/// somebody is limited already.
const PATIENCE: u32 = 3;
/// Less rest than one part in this many is none.
const REST: u32 = 10;
/// Of the work that filled a whole window, what the next one may have.
const AIM: f64 = 0.8;
/// How fast limits rise again.
const RISE: f64 = 1.05;
/// No limit is below this: a few voices.
const LEAST: f64 = 100.0;
/// What is limited may be used as time goes by, and this part of a window's at once (more, where one packet goes to so many):
/// all of it at once would stand before the other rooms for half a window.
const AT_ONCE: f64 = 0.05;

/// What a room may use: so much in a window, as time goes by.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Limit {
    work: f64,
    /// Of it, what may be used at once.
    left: f64,
    at: Instant,
}

impl Limit {
    fn take(&mut self, now: Instant, work: u32) -> bool {
        let passed = now.saturating_duration_since(self.at);
        let more = self.work * passed.div_duration_f64(WINDOW);
        self.left = (self.left + more).min((self.work * AT_ONCE).max(work.into()));
        self.at = now;
        let may = self.left >= f64::from(work);
        if may {
            self.left -= f64::from(work);
        }
        may
    }
}

/// What one room has used and may use in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Share {
    used: u32,
    refused: u32,
    limit: Option<Limit>,
}

impl Share {
    /// Whether the room may have this much more work done; if so, it is counted.
    pub fn take(&mut self, now: Instant, work: u32) -> bool {
        let limit = self.limit.as_mut();
        let may = limit.is_none_or(|limit| limit.take(now, work));
        let sum = if may {
            &mut self.used
        } else {
            &mut self.refused
        };
        *sum = sum.saturating_add(work);
        may
    }

    fn wanted(&self) -> u64 {
        u64::from(self.used) + u64::from(self.refused)
    }

    fn begin(&mut self, now: Instant, limit: Option<f64>) {
        let before = self.limit;
        let limit = limit.map(|work| Limit {
            work: work.max(LEAST),
            left: before.map_or(0.0, |before| before.left),
            at: before.map_or(now, |before| before.at),
        });
        *self = Share {
            limit,
            ..Share::default()
        };
    }
}

/// The worker's windows.
#[derive(Debug)]
pub struct Shares {
    begun: Instant,
    rested: Duration,
    restless: u32,
}

impl Shares {
    /// Nothing was done yet.
    pub fn new(now: Instant) -> Self {
        Shares {
            begun: now,
            rested: Duration::ZERO,
            restless: 0,
        }
    }

    /// The thread had nothing to do for so long.
    pub fn rest(&mut self, time: Duration) {
        self.rested += time;
    }

    /// Whether [`Shares::close`] is due.
    pub fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.begun) >= WINDOW
    }

    /// Ends a window and says what each room may have in the next.
    pub fn close<'r>(&mut self, now: Instant, rooms: impl Iterator<Item = &'r mut Share>) {
        let length = now.saturating_duration_since(self.begun);
        let rested = std::mem::take(&mut self.rested);
        self.begun = now;
        if rested * REST < length {
            self.restless += 1;
        } else {
            self.restless = 0;
        }
        let mut rooms: Vec<&mut Share> = rooms.filter(|room| room.wanted() > 0).collect();
        // A window may have been longer: passes of the loop are not interrupted.
        let scale = WINDOW.as_secs_f64() / length.as_secs_f64().max(WINDOW.as_secs_f64());
        let limited = rooms.iter().any(|room| room.limit.is_some());
        let patience = if limited { 1 } else { PATIENCE };
        if self.restless < patience || rooms.len() < 2 {
            for room in rooms {
                let limit = room.limit.filter(|_| room.refused > 0);
                room.begin(now, limit.map(|limit| limit.work * RISE));
            }
            return;
        }
        let done: u64 = rooms.iter().map(|room| u64::from(room.used)).sum();
        let level = level(&mut rooms, done as f64 * AIM);
        for room in rooms {
            let above = room.wanted() as f64 > level;
            room.begin(now, above.then_some(level * scale));
        }
    }
}

/// How much each may have at most so that all together have `total`: who wants less gets that, and the others share the rest.
fn level(rooms: &mut [&mut Share], total: f64) -> f64 {
    rooms.sort_unstable_by_key(|room| room.wanted());
    let (mut left, mut sharing) = (total, rooms.len() as f64);
    for room in rooms {
        let wanted = room.wanted() as f64;
        if wanted * sharing >= left {
            return left / sharing;
        }
        left -= wanted;
        sharing -= 1.0;
    }
    f64::INFINITY
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rooms that want so much in each window, on a thread that can do `CAPACITY`.
    struct Bench {
        shares: Shares,
        rooms: Vec<(u32, Share)>,
        now: Instant,
    }

    const CAPACITY: u32 = 10_000;

    impl Bench {
        fn new(wanted: &[u32]) -> Self {
            let now = Instant::now();
            Bench {
                shares: Shares::new(now),
                rooms: wanted.iter().map(|w| (*w, Share::default())).collect(),
                now,
            }
        }

        /// What each room got, on the mean of so many windows.
        fn run(&mut self, windows: u32) -> Vec<u32> {
            let mut got = vec![0; self.rooms.len()];
            for _ in 0..windows {
                for (sum, (wanted, share)) in got.iter_mut().zip(&mut self.rooms) {
                    let at = |n: u32| self.now + WINDOW.mul_f64(f64::from(n) / f64::from(*wanted));
                    *sum += (0..*wanted).filter(|n| share.take(at(*n), 1)).count() as u32;
                }
                let done: u32 = self.rooms.iter().map(|(_, share)| share.used).sum();
                // What is too much takes longer.
                let busy = WINDOW * done / CAPACITY;
                self.shares.rest(WINDOW.saturating_sub(busy));
                self.now += busy.max(WINDOW);
                let rooms = self.rooms.iter_mut().map(|(_, share)| share);
                self.shares.close(self.now, rooms);
            }
            got.iter().map(|sum| sum / windows).collect()
        }
    }

    #[test]
    fn nobody_is_limited_while_the_thread_rests_or_for_a_burst() {
        let mut calm = Bench::new(&[300, 8000]);
        assert_eq!(calm.run(50), [300, 8000]);
        calm.rooms[1].0 = 40_000;
        assert_eq!(calm.run(2), [300, 40_000], "two windows are a burst");
        calm.rooms[1].0 = 8000;
        assert_eq!(calm.run(50), [300, 8000]);
    }

    #[test]
    fn a_room_alone_has_the_whole_thread() {
        let mut alone = Bench::new(&[50_000, 0]);
        assert_eq!(alone.run(50), [50_000, 0]);
    }

    #[test]
    fn too_much_is_taken_from_the_largest_and_the_thread_gets_its_rest() {
        let mut flooded = Bench::new(&[300, 2000, 100_000]);
        flooded.run(10);
        let got = flooded.run(50);
        assert_eq!(got[..2], [300, 2000]);
        assert!((4000..9000).contains(&got[2]), "{got:?}");
        flooded.rooms[2].0 = 3000;
        flooded.run(10);
        assert_eq!(flooded.run(10), [300, 2000, 3000], "the limit is gone");
    }

    #[test]
    fn what_is_limited_is_spread_over_the_window() {
        let mut flooded = Bench::new(&[300, 100_000]);
        flooded.run(10);
        let (now, share) = (flooded.now, &mut flooded.rooms[1].1);
        let mut take = |at: Duration| (0..100_000).filter(|_| share.take(now + at, 1)).count();
        let parts = [0, 50, 100].map(|millis| take(Duration::from_millis(millis)));
        let whole: usize = parts.iter().sum();
        assert!(20 * parts[0] <= whole + 20, "{parts:?}");
        assert!(parts[1].abs_diff(parts[2]) <= 1, "{parts:?}");
    }

    #[test]
    fn two_large_rooms_share_alike() {
        let mut two = Bench::new(&[500, 50_000, 90_000]);
        two.run(10);
        let got = two.run(50);
        assert_eq!(got[0], 500);
        assert!(got[1].abs_diff(got[2]) < got[1] / 10, "{got:?}");
        assert!(got[1] > 3000, "{got:?}");
    }
}
