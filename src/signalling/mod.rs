//! The wire: JSON messages over one WebSocket per client.
//!
//! [`protocol`] holds the messages in both directions, [`query`] what a socket's address says, [`session`] the life
//! of one socket, [`outlet`] a client's stay, which may have several sockets one after another by [`resume`]. Rooms never see JSON, and nothing here knows what a room does.

mod avatar;
pub mod counters;
pub mod figures;
pub mod outlet;
pub mod protocol;
pub mod query;
pub mod resume;
pub mod session;
mod throttle;

pub use protocol::{ClientMessage, ServerMessage};
pub use query::JoinQuery;
