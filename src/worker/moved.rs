//! Media from an address that nobody has: a NAT gave a client another port, or its device another network. Whoever's keys
//! open it has moved there.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::worker::demux::Slot;
use crate::worker::thread::Worker;

/// Silence on the selected path after which a client may have moved: it sends sound fifty times a second, and reports
/// at least once a second.
const QUIET: Duration = Duration::from_millis(200);

/// Trials of a client's keys in a second. Beyond it media of unknown addresses is dropped unopened: it costs a
/// microsecond, and anybody can send it.
const TRIALS_PER_SECOND: u32 = 2000;

/// The trials of the present second.
#[derive(Debug)]
pub(super) struct Trials {
    since: Instant,
    left: u32,
}

impl Trials {
    pub(super) fn new(now: Instant) -> Self {
        Trials {
            since: now,
            left: TRIALS_PER_SECOND,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            *self = Trials::new(now);
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

impl Worker {
    /// Whose media this is, among those who may have moved. The packet itself is used up by the trial; what follows
    /// comes from a known address.
    pub(super) fn find_moved(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Option<Slot> {
        for (slot, peer) in &mut self.peers {
            if !peer.session.is_quiet(now, QUIET) {
                continue;
            }
            if !self.trials.take(now) {
                return None;
            }
            self.scratch.clear();
            self.scratch.extend_from_slice(datagram);
            if peer.session.is_own_media(now, from, &mut self.scratch) {
                self.demux.claim(from, slot, peer.session.selected());
                peer.touched = true;
                self.touched.push(slot);
                return Some(slot);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trials_are_bounded_in_every_second() {
        let start = Instant::now();
        let mut trials = Trials::new(start);
        let taken = |trials: &mut Trials, at| (0..5000).filter(|_| trials.take(at)).count();
        assert_eq!(taken(&mut trials, start), TRIALS_PER_SECOND as usize);
        let later = start + Duration::from_secs(1);
        assert_eq!(taken(&mut trials, later), TRIALS_PER_SECOND as usize);
    }
}
