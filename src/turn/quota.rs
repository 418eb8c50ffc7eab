//! How much there is of everything, and what was refused for want of it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Allocations at one time.
pub const MAX_ALLOCATIONS: usize = 1000;
/// Allocations of one user at one time. A browser makes one for each of its interfaces and each URL, and the old ones
/// live on for ten minutes after it has vanished.
pub const MAX_ALLOCATIONS_PER_USER: usize = 16;
/// Clients that have no allocation (yet).
pub const MAX_CANDIDATES: usize = 512;
/// Those of one address.
pub const MAX_CANDIDATES_PER_ADDRESS: usize = 32;
/// Bytes a second that one user may have relayed, both directions together: 20 Mbit/s.
pub const USER_BYTES_PER_SECOND: f64 = 2_500_000.0;
/// Bytes that a user may have relayed at once: a keyframe for each of a few tracks.
pub const USER_BURST: f64 = 1_000_000.0;

/// What the TURN server did and refused, for an operator.
#[derive(Debug, Default)]
pub struct TurnCounters {
    /// Allocations that were made.
    pub allocations: AtomicU64,
    /// Bytes that were relayed, both directions together.
    pub relayed_bytes: AtomicU64,
    /// Messages that were no TURN.
    pub malformed: AtomicU64,
    /// Messages from addresses without allocation that did not ask for one.
    pub stray: AtomicU64,
    /// Permissions, channels and datagrams for peers that are not relayed to.
    pub forbidden: AtomicU64,
    /// Clients, connections and allocations beyond the limits.
    pub over_quota: AtomicU64,
    /// Datagrams beyond the bandwidth.
    pub over_bandwidth: AtomicU64,
    /// Datagrams that a full queue or socket did not take.
    pub congested: AtomicU64,
}

impl TurnCounters {
    /// Drops and refusals, by name.
    pub fn drops(&self) -> [(&'static str, u64); 6] {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("malformed", count(&self.malformed)),
            ("stray", count(&self.stray)),
            ("forbidden", count(&self.forbidden)),
            ("over_quota", count(&self.over_quota)),
            ("over_bandwidth", count(&self.over_bandwidth)),
            ("congested", count(&self.congested)),
        ]
    }
}

/// Adds one.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The limits of one TURN server. Cheap to clone.
#[derive(Clone, Default)]
pub struct Quota {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    candidates: HashMap<IpAddr, usize>,
    waiting: usize,
    users: HashMap<String, User>,
    allocations: usize,
}

struct User {
    allocations: usize,
    bucket: Arc<Mutex<Bucket>>,
}

impl Quota {
    /// A client without allocation; `None`: there are too many.
    pub fn candidate(&self, address: IpAddr) -> Option<Candidate> {
        let mut state = self.lock();
        let of_address = state.candidates.get(&address).copied().unwrap_or(0);
        if state.waiting >= MAX_CANDIDATES || of_address >= MAX_CANDIDATES_PER_ADDRESS {
            return None;
        }
        state.waiting += 1;
        state.candidates.insert(address, of_address + 1);
        Some(Candidate {
            quota: self.clone(),
            address,
        })
    }

    /// An allocation of `user`; `None`: there are too many.
    pub fn allocation(&self, user: &str, now: Instant) -> Option<Allocation> {
        let mut state = self.lock();
        if state.allocations >= MAX_ALLOCATIONS {
            return None;
        }
        let entry = state.users.entry(user.to_owned()).or_insert_with(|| User {
            allocations: 0,
            bucket: Arc::new(Mutex::new(Bucket::new(now))),
        });
        if entry.allocations >= MAX_ALLOCATIONS_PER_USER {
            return None;
        }
        entry.allocations += 1;
        let bucket = entry.bucket.clone();
        state.allocations += 1;
        Some(Allocation {
            quota: self.clone(),
            user: user.to_owned(),
            bucket,
        })
    }

    /// Every statement under the lock leaves the counts right.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among those that have no allocation; given back by dropping it.
pub struct Candidate {
    quota: Quota,
    address: IpAddr,
}

impl Drop for Candidate {
    fn drop(&mut self) {
        let mut state = self.quota.lock();
        state.waiting -= 1;
        if let Some(count) = state.candidates.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                state.candidates.remove(&self.address);
            }
        }
    }
}

/// A user's allocation; given back by dropping it.
pub struct Allocation {
    quota: Quota,
    user: String,
    bucket: Arc<Mutex<Bucket>>,
}

impl Allocation {
    /// Whether the user may have so many bytes relayed now.
    pub fn takes(&self, now: Instant, bytes: usize) -> bool {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.takes(now, bytes)
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        let mut state = self.quota.lock();
        state.allocations -= 1;
        if let Some(user) = state.users.get_mut(&self.user) {
            user.allocations -= 1;
            if user.allocations == 0 {
                state.users.remove(&self.user);
            }
        }
    }
}

/// A token bucket of [`USER_BURST`] bytes that fills with [`USER_BYTES_PER_SECOND`].
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn new(now: Instant) -> Self {
        Bucket {
            tokens: USER_BURST,
            filled: now,
        }
    }

    fn takes(&mut self, now: Instant, bytes: usize) -> bool {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + since * USER_BYTES_PER_SECOND).min(USER_BURST);
        self.filled = now;
        let enough = self.tokens >= bytes as f64;
        if enough {
            self.tokens -= bytes as f64;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_user_gets_so_many_allocations_and_gets_them_back() {
        let (quota, now) = (Quota::default(), Instant::now());
        let mut held: Vec<_> = (0..MAX_ALLOCATIONS_PER_USER)
            .map(|_| quota.allocation("a", now).unwrap())
            .collect();
        assert!(quota.allocation("a", now).is_none());
        let other = quota.allocation("b", now);
        assert!(other.is_some());
        held.pop();
        assert!(quota.allocation("a", now).is_some());
        drop((held, other));
        assert!(quota.lock().users.is_empty());
        assert_eq!(quota.lock().allocations, 0);
    }

    #[test]
    fn all_together_get_so_many_allocations() {
        let (quota, now) = (Quota::default(), Instant::now());
        let held: Vec<_> = (0..MAX_ALLOCATIONS)
            .map(|user| quota.allocation(&user.to_string(), now).unwrap())
            .collect();
        assert!(quota.allocation("one more", now).is_none());
        drop(held);
    }

    #[test]
    fn an_address_cannot_take_all_places_of_newcomers() {
        let quota = Quota::default();
        let crowd: IpAddr = "192.0.2.1".parse().unwrap();
        let held: Vec<_> = std::iter::from_fn(|| quota.candidate(crowd)).collect();
        assert_eq!(held.len(), MAX_CANDIDATES_PER_ADDRESS);
        assert!(quota.candidate("192.0.2.2".parse().unwrap()).is_some());
        let all: Vec<_> = (0..u32::MAX)
            .map_while(|ip| quota.candidate(std::net::Ipv4Addr::from(ip).into()))
            .collect();
        assert_eq!(all.len() + held.len(), MAX_CANDIDATES);
        drop((held, all));
        assert!(quota.lock().candidates.is_empty());
    }

    #[test]
    fn bandwidth_is_shared_by_all_allocations_of_a_user() {
        let (quota, now) = (Quota::default(), Instant::now());
        let (one, two) = (
            quota.allocation("a", now).unwrap(),
            quota.allocation("a", now).unwrap(),
        );
        let sent = (0..10_000)
            .filter(|at| [&one, &two][at % 2].takes(now, 1000))
            .count();
        assert_eq!(sent, (USER_BURST / 1000.0) as usize);
        let later = now + Duration::from_millis(100);
        let sent = (0..10_000).filter(|_| one.takes(later, 1000)).count();
        assert_eq!(sent, (USER_BYTES_PER_SECOND / 1000.0 / 10.0) as usize);
    }
}
