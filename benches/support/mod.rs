//! What `forward` measures with: light WebRTC peers (ICE, DTLS and SRTP without the rest), a paced sender, receivers
//! that count, and a count of the worker's allocations.

pub mod allocations;
pub mod connection;
pub mod floor;
pub mod pacing;
pub mod publisher;
pub mod receivers;
pub mod sdp;
pub mod server;
