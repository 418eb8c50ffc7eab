//! A link that has become much slower at once: one look at the last few packets is enough.
//!
//! The trendline averages over twenty groups, which on a link that has just become slow is a second or two; meanwhile the
//! queue of the link fills up, and everything after that is lost. Here, packets that take at least twice as long to arrive
//! as they took to leave, each behind a longer queue, are taken for what they are.

use std::collections::VecDeque;

/// Arrivals that are remembered.
const LATEST: usize = 24;
/// They are looked at over at least this time of arrival, µs,
const SPAN: i64 = 60_000;
/// and over at least so many bytes: what shares the link without being numbered (signalling, data channels) is to be
/// small beside them.
const BYTES: u32 = 2_000;
/// Of which the queue has to have grown by this part.
const GROWTH: f64 = 0.5;
/// The queue of the newest packet is longer than usual by this, ms; and that of the two before it by this.
const LONG: f64 = 60.0;
const LONGER: f64 = 30.0;
/// These three did not come all at once, but over this time, µs: a receiver that had no processor for a while reads what
/// came meanwhile in one go.
const FRESHEST: usize = 3;
const APART: i64 = 15_000;

#[derive(Clone, Copy, Debug)]
struct Arrival {
    /// µs by the sender's clock, and by the receiver's.
    sent: i64,
    at: i64,
    size: u32,
    /// Delay above the lowest, ms.
    queue: f64,
}

/// The last arrivals, oldest first. Allocates once.
#[derive(Debug)]
pub struct Choke {
    latest: VecDeque<Arrival>,
}

impl Default for Choke {
    fn default() -> Self {
        Choke {
            latest: VecDeque::with_capacity(LATEST),
        }
    }
}

impl Choke {
    /// A packet of `size` bytes that left at `sent` arrived at `at`, µs of two clocks, after `queue` ms above the lowest
    /// delay.
    pub fn handle_packet(&mut self, sent: u64, at: i64, size: u32, queue: f64) {
        if self.latest.len() == LATEST {
            self.latest.pop_front();
        }
        self.latest.push_back(Arrival {
            sent: sent as i64,
            at,
            size,
            queue,
        });
    }

    /// What a link lets through that has just become slow, bit/s; `usual` is its usual queue, ms. `None`: it has not.
    pub fn rate(&self, usual: f64) -> Option<f64> {
        let newest = self.latest.back()?;
        let third = self.latest.iter().rev().nth(FRESHEST - 1)?;
        let mut freshest = self.latest.iter().rev().take(FRESHEST);
        if newest.at - third.at < APART
            || newest.queue < usual + LONG
            || freshest.any(|packet| packet.queue < usual + LONGER)
        {
            return None;
        }
        let mut bytes = 0;
        for packet in self.latest.iter().rev() {
            let took = newest.at - packet.at;
            if took >= SPAN && bytes >= BYTES {
                let grown = took - (newest.sent - packet.sent);
                let chokes = grown as f64 >= GROWTH * took as f64;
                return chokes.then(|| f64::from(bytes) * 8e6 / took as f64);
            }
            bytes += packet.size;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets of 1200 bytes, one each 6 ms; `arrives` tells when, in µs.
    fn run(count: u64, usual: f64, arrives: impl Fn(u64) -> i64) -> (Choke, Vec<(u64, f64)>) {
        let (mut choke, mut told) = (Choke::default(), Vec::new());
        for n in 0..count {
            let (sent, at) = (n * 6_000, arrives(n));
            choke.handle_packet(sent, at, 1200, (at - sent as i64) as f64 / 1e3);
            told.extend(choke.rate(usual).map(|rate| (n, rate)));
        }
        (choke, told)
    }

    #[test]
    fn a_link_of_a_fifth_of_the_rate_is_known_by_its_third_packet() {
        let slow = |n: u64| match n.checked_sub(50) {
            None => n as i64 * 6_000,
            Some(after) => 50 * 6_000 + (after as i64 + 1) * 32_000,
        };
        let (_, told) = run(60, 0.0, slow);
        let (first, rate) = told[0];
        assert!((52..=53).contains(&first), "{told:?}");
        assert!((280_000.0..330_000.0).contains(&rate), "{told:?}");
    }

    #[test]
    fn jitter_and_a_receiver_without_a_processor_choke_nothing() {
        use rand::{Rng, SeedableRng, rngs::StdRng};
        let mut random = StdRng::seed_from_u64(9);
        let late: Vec<i64> = (0..20_000)
            .map(|_| random.random_range(0..60_000))
            .collect();
        let (_, told) = run(20_000, 30.0, |n| n as i64 * 6_000 + late[n as usize]);
        assert_eq!(told, []);
        // 200 ms in each second everything waits, and is read at once.
        let stalled = |n: u64| {
            let at = n as i64 * 6_000;
            let into = at % 1_000_000;
            if into < 200_000 {
                at - into + 200_000 + into / 100
            } else {
                at
            }
        };
        let (_, told) = run(20_000, 0.0, stalled);
        assert_eq!(told, []);
    }

    #[test]
    fn a_queue_that_stands_is_not_news() {
        let (_, told) = run(200, 0.0, |n| n as i64 * 6_000 + 300_000);
        assert_eq!(told, []);
    }
}
