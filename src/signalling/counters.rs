//! What the sockets refused, by reason.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why something of a client was not carried out, or its socket closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No JSON, an unknown type, or data that do not fit.
    Malformed,
    /// Longer than the limit on messages.
    TooLarge,
    /// A binary message.
    Binary,
    /// Well formed, but it could not be carried out: the client was told why.
    NotCarriedOut,
    /// The client did not get into its room.
    JoinRefused,
    /// More sockets than the server takes.
    TooManySockets,
    /// More connections than the server takes.
    TooManyConnections,
    /// Nothing came for too long: the socket is dead.
    Dead,
    /// The client does not read what it is sent.
    Slow,
}

/// Every refusal, in the order of the counters.
pub const REFUSALS: [(Refusal, &str); 9] = [
    (Refusal::Malformed, "malformed"),
    (Refusal::TooLarge, "too_large"),
    (Refusal::Binary, "binary"),
    (Refusal::NotCarriedOut, "not_carried_out"),
    (Refusal::JoinRefused, "join_refused"),
    (Refusal::TooManySockets, "too_many_sockets"),
    (Refusal::TooManyConnections, "too_many_connections"),
    (Refusal::Dead, "dead"),
    (Refusal::Slow, "slow"),
];

/// One counter for each [`Refusal`].
#[derive(Debug, Default)]
pub struct Counters([AtomicU64; REFUSALS.len()]);

impl Counters {
    /// Counts one.
    pub fn count(&self, refusal: Refusal) {
        self.0[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often so far.
    pub fn get(&self, refusal: Refusal) -> u64 {
        self.0[refusal as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_the_counter_of_its_own_place() {
        for (place, (refusal, _)) in REFUSALS.iter().enumerate() {
            assert_eq!(*refusal as usize, place);
        }
    }
}
