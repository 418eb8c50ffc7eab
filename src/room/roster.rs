//! When `room_peers` is due: on every change, but never more often than [`SPACING`].

use std::time::{Duration, Instant};

/// Changes within this time are told in one message, so that a room where many begin and stop to speak
/// costs each member at most ten messages a second.
pub const SPACING: Duration = Duration::from_millis(100);

/// The state of one room's announcements.
#[derive(Debug, Default)]
pub struct Roster {
    dirty: bool,
    last: Option<Instant>,
}

impl Roster {
    /// Something that `room_peers` tells has changed.
    pub fn touch(&mut self) {
        self.dirty = true;
    }

    /// When a change that [`Roster::take`] held back is due; `None`: nothing is held back.
    pub fn due(&self) -> Option<Instant> {
        self.last.filter(|_| self.dirty).map(|last| last + SPACING)
    }

    /// Whether to send it now; if so, it counts as sent.
    pub fn take(&mut self, now: Instant) -> bool {
        let due = self.dirty && self.last.is_none_or(|last| last + SPACING <= now);
        if due {
            self.dirty = false;
            self.last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_spaced_and_the_last_one_is_never_lost() {
        let start = Instant::now();
        let mut roster = Roster::default();
        assert!(!roster.take(start));
        roster.touch();
        assert!(roster.take(start));
        roster.touch();
        assert!(!roster.take(start + SPACING / 2));
        assert_eq!(roster.due(), Some(start + SPACING));
        assert!(roster.take(start + SPACING));
        assert_eq!(roster.due(), None);
    }
}
