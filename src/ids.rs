//! Identities that cross module borders.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

/// A participant, for the lifetime of its membership. On the wire: 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u64);

impl PeerId {
    /// A fresh random id. Random, not counted: it is visible to other participants.
    pub fn random() -> Self {
        PeerId(rand::random())
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer {self}")
    }
}

/// A string that is not 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a client id has 16 hexadecimal digits")]
pub struct ParsePeerIdError;

impl FromStr for PeerId {
    type Err = ParsePeerIdError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if s.len() != 16 {
            return Err(ParsePeerIdError);
        }
        u64::from_str_radix(s, 16)
            .map(PeerId)
            .map_err(|_| ParsePeerIdError)
    }
}

macro_rules! counted_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u64);

        impl $name {
            /// The next id that this process has not used.
            pub fn next() -> Self {
                static NEXT: AtomicU64 = AtomicU64::new(1);
                $name(NEXT.fetch_add(1, Ordering::Relaxed))
            }
        }
    };
}

counted_id! {
    /// A room of this process, for the lifetime of its actor. Two rooms of one name in succession differ.
    RoomKey
}
counted_id! {
    /// A track that is published in a room: by a participant, or by the mixer for its listeners.
    TrackKey
}
