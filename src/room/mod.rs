//! Rooms: who is in them, what they publish, who gets it.
//!
//! [`Room`] is the pure state machine: joins, requests of clients and [`Event`](crate::worker::Event)s of the media
//! worker go in, [`Output`]s come out, and the time is an argument. One tokio task per room ([`task`]) drives it;
//! [`RoomManager`] is the only shared map and the way in for the sockets.

pub mod channel;
#[cfg(test)]
pub mod fake_worker;
pub mod manager;
mod notice;
mod request;
#[expect(
    clippy::module_inception,
    reason = "the folder is the control plane of rooms, the file is one room's state machine"
)]
mod room;
mod roster;
pub mod snapshot;
pub mod task;

pub use manager::{Membership, RoomManager};
pub use notice::{AvailableTrack, DeliveredTrack, ModeReason, Notice, PeerSummary};
pub use request::{
    AudioMode, JoinRequest, LayoutError, LayoutRequest, Mode, Quality, Request, TrackRef,
};
pub use room::{JoinError, Limits, Output, Room};
