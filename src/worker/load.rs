//! How busy a worker is, for whoever places rooms.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Packets a second that a peer is counted with while nothing of it was measured: a camera and a microphone.
const PACKETS_PER_PEER: u64 = 150;
/// How often the rate is measured.
const WINDOW: Duration = Duration::from_secs(1);

/// Written by the worker's thread, read by the room manager. Both only look at single numbers, which are right on their
/// own: nothing is ordered by them.
#[derive(Debug, Default)]
pub struct Load {
    packets_per_second: AtomicU64,
    peers: AtomicU64,
    counted: AtomicU64,
    /// Milliseconds of the measurement's begin since `epoch`.
    begun_ms: AtomicU64,
    epoch: std::sync::OnceLock<Instant>,
}

impl Load {
    /// Packets (in and out) a second that the worker carries, or will when its peers publish: the greater of what was
    /// measured and what its peers are expected to send.
    pub fn score(&self) -> u64 {
        let measured = self.packets_per_second.load(Ordering::Relaxed);
        measured.max(self.peers.load(Ordering::Relaxed) * PACKETS_PER_PEER)
    }

    /// The worker has carried `packets` since its start and has `peers` now. Called by one thread.
    pub fn note(&self, now: Instant, packets: u64, peers: usize) {
        self.peers.store(peers as u64, Ordering::Relaxed);
        let epoch = *self.epoch.get_or_init(|| now);
        let now_ms = now.saturating_duration_since(epoch).as_millis() as u64;
        let elapsed = now_ms - self.begun_ms.load(Ordering::Relaxed);
        if elapsed < WINDOW.as_millis() as u64 {
            return;
        }
        let before = self.counted.swap(packets, Ordering::Relaxed);
        let rate = packets.saturating_sub(before) * 1000 / elapsed;
        self.packets_per_second.store(rate, Ordering::Relaxed);
        self.begun_ms.store(now_ms, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_measured_over_a_second_and_silent_peers_count_too() {
        let (load, begin) = (Load::default(), Instant::now());
        let at = |ms| begin + Duration::from_millis(ms);
        load.note(at(0), 0, 0);
        assert_eq!(load.score(), 0);
        load.note(at(500), 10_000, 2);
        assert_eq!(load.score(), 2 * PACKETS_PER_PEER, "the window is not over");
        load.note(at(2000), 40_000, 2);
        assert_eq!(load.score(), 20_000);
        load.note(at(3000), 40_000, 1);
        assert_eq!(load.score(), PACKETS_PER_PEER);
    }
}
