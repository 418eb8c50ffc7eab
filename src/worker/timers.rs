//! When each peer is to be looked after next, apart from the peers: a look at everybody's time touches a few cache lines,
//! not everybody's state.

use std::time::Instant;

use crate::worker::demux::Slot;

/// The loop wakes at `next`, and looks after those of `due` whose time has come.
#[derive(Debug)]
pub struct Timers {
    /// Never later than what is due first.
    next: Instant,
    /// By slot; `None`: nobody is there. Never later than when the peer is due.
    due: Vec<Option<Instant>>,
}

impl Timers {
    /// Nobody is there.
    pub fn new(now: Instant) -> Self {
        Timers {
            next: now,
            due: Vec::new(),
        }
    }

    /// When the loop has to look.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// A peer is due at `at`, or earlier. New slots begin with this.
    pub fn wake(&mut self, slot: Slot, at: Instant) {
        if slot >= self.due.len() {
            self.due.resize(slot + 1, None);
        }
        let due = &mut self.due[slot];
        *due = Some(due.map_or(at, |before| before.min(at)));
        self.next = self.next.min(at);
    }

    /// A peer has been looked after, and is due again at `at`.
    pub fn set(&mut self, slot: Slot, at: Instant) {
        self.remove(slot);
        self.wake(slot, at);
    }

    /// A peer is gone.
    pub fn remove(&mut self, slot: Slot) {
        if let Some(due) = self.due.get_mut(slot) {
            *due = None;
        }
    }

    /// Who is due at `now`.
    pub fn due(&self, now: Instant) -> impl Iterator<Item = Slot> + '_ {
        let slots = self.due.iter().enumerate();
        slots.filter_map(move |(slot, due)| due.filter(|at| *at <= now).map(|_| slot))
    }

    /// Everybody has been looked after: the loop looks again when the first is due, between `earliest` and `latest`.
    pub fn rest(&mut self, earliest: Instant, latest: Instant) {
        let first = self.due.iter().flatten().min();
        self.next = first.copied().unwrap_or(latest).clamp(earliest, latest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn whoever_is_due_is_found_once_and_the_first_decides_when_to_look() {
        let t0 = Instant::now();
        let at = |ms| t0 + Duration::from_millis(ms);
        let mut timers = Timers::new(at(50));
        timers.wake(3, at(20));
        timers.wake(3, at(30));
        timers.wake(0, at(10));
        assert_eq!(timers.next(), at(10));
        assert_eq!(timers.due(at(9)).count(), 0);
        assert_eq!(timers.due(at(10)).collect::<Vec<_>>(), [0]);
        timers.set(0, at(100));
        timers.rest(at(11), at(60));
        assert_eq!(timers.next(), at(20));
        assert_eq!(timers.due(at(20)).collect::<Vec<_>>(), [3]);
        timers.remove(3);
        assert_eq!(timers.due(at(99)).count(), 0);
        timers.rest(at(21), at(70));
        assert_eq!(timers.next(), at(70), "no later than that");
        timers.set(0, at(5));
        assert_eq!(timers.next(), at(5));
        timers.rest(at(22), at(70));
        assert_eq!(timers.next(), at(22), "no earlier than that");
    }

    #[test]
    fn a_slot_that_is_given_away_again_begins_anew() {
        let now = Instant::now();
        let mut timers = Timers::new(now);
        timers.wake(2, now);
        timers.remove(2);
        timers.remove(7);
        let later = now + Duration::from_secs(1);
        timers.wake(2, later);
        assert_eq!(timers.due(now).count(), 0);
        assert_eq!(timers.due(later).collect::<Vec<_>>(), [2]);
    }
}
