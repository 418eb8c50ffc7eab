//! The built-in TURN server (RFC 8656) for clients that reach this machine on one port only: UDP and TCP on port 3478,
//! credentials that the server gives its own clients, and no way on but to this server's media.
//!
//! The protocol is `turn-server-proto`'s. Around it stands here what a server on the open internet needs: one protocol
//! instance per client (so that nobody pays for another's state, and it can be thrown away whole), quotas, a policy of
//! peers that refuses before it relays, and sockets.
//!
//! | file | |
//! |---|---|
//! | `credentials` | user names that carry their end and a password that follows from them |
//! | `peers` | to whom is relayed, and where such a datagram really goes |
//! | `client` | one client's protocol, without I/O |
//! | `quota` | how much of everything there is |
//! | `relay` | one client's task and its relay socket |
//! | `listen` | the ports |

mod client;
mod credentials;
mod listen;
mod peers;
mod quota;
mod relay;

pub use credentials::{Credentials, Secret};
pub use listen::{Turn, TurnConfig, TurnError};
pub use peers::{PeerPolicy, PeersError};
pub use quota::TurnCounters;

/// What clients sign with beside their password; it means nothing else.
pub const REALM: &str = "talksy";
/// The port that TURN has (RFC 8656, section 19).
pub const DEFAULT_PORT: u16 = 3478;
/// Longest message or datagram that is relayed. Media and DTLS keep below 1500 bytes.
const MAX_MESSAGE: usize = 4096;
