//! What a publisher may send, told to it as REMB: senders take it for an upper bound of their own estimate, with
//! transport-wide feedback or without.

use std::time::{Duration, Instant};

use crate::rtp::bwe;
use crate::rtp::params::Ssrc;
use crate::rtp::rtcp::write;

/// Reports are lost, and a sender may forget an old one.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often the end of a limit is told.
const FAREWELLS: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Limited { bps: u64, due: Instant },
    Ending { left: u8, due: Instant },
}

/// The limit of one publisher.
#[derive(Clone, Copy, Debug)]
pub struct PublishLimit(State);

impl Default for PublishLimit {
    fn default() -> Self {
        PublishLimit(State::Free)
    }
}

impl PublishLimit {
    /// Bit/s from now on; `None` takes the limit away.
    pub fn set(&mut self, now: Instant, bps: Option<u64>) {
        self.0 = match (bps, self.0) {
            (Some(bps), _) => State::Limited { bps, due: now },
            (None, State::Limited { .. }) => State::Ending {
                left: FAREWELLS,
                due: now,
            },
            (None, state) => state,
        };
    }

    /// When [`Self::poll`] has something to say.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.0 {
            State::Free => None,
            State::Limited { due, .. } | State::Ending { due, .. } => Some(due),
        }
    }

    /// Appends one plain compound from `own` about the peer's `streams`, if it is due.
    pub fn poll(&mut self, now: Instant, own: Ssrc, streams: &[Ssrc], out: &mut Vec<u8>) -> bool {
        if self.poll_timeout().is_none_or(|due| due > now) {
            return false;
        }
        let due = now + INTERVAL;
        let bps = match self.0 {
            State::Free => return false,
            State::Limited { bps, .. } => {
                self.0 = State::Limited { bps, due };
                bps
            }
            State::Ending { left, .. } => {
                self.0 = match left.checked_sub(1) {
                    None | Some(0) => State::Free,
                    Some(left) => State::Ending { left, due },
                };
                bwe::MAX
            }
        };
        write::remb(own, bps, streams, out);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::rtcp::{self, Rtcp};

    fn told(limit: &mut PublishLimit, now: Instant) -> Option<u64> {
        let mut out = Vec::new();
        limit
            .poll(now, Ssrc(1), &[Ssrc(2)], &mut out)
            .then(|| match rtcp::packets(&out).next() {
                Some(Ok(Rtcp::Remb { bps })) => bps,
                other => panic!("{other:?}"),
            })
    }

    #[test]
    fn a_limit_is_repeated_and_its_end_is_told() {
        let t0 = Instant::now();
        let mut limit = PublishLimit::default();
        assert_eq!(told(&mut limit, t0), None);
        limit.set(t0, Some(300_000));
        assert_eq!(told(&mut limit, t0), Some(300_000));
        assert_eq!(told(&mut limit, t0), None);
        assert_eq!(limit.poll_timeout(), Some(t0 + INTERVAL));
        assert_eq!(told(&mut limit, t0 + INTERVAL), Some(300_000));
        limit.set(t0 + INTERVAL, None);
        for n in 1..=3 {
            let end = told(&mut limit, t0 + n * INTERVAL).expect("told three times");
            assert!(end > 90_000_000, "{end}");
        }
        assert_eq!(limit.poll_timeout(), None);
    }
}
