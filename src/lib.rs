//! Talksy Unit: a hybrid SFU/MCU conferencing server.
//!
//! See the README for what it is; `docs/design.md` for why it is so.

pub mod config;
pub mod demo;
pub mod http;
pub mod ids;
pub mod mcu;
pub mod prefetch;
pub mod reach;
pub mod room;
pub mod rtp;
pub mod server;
pub mod sfu;
pub mod signalling;
pub mod stats;
pub mod transport;
pub mod turn;
pub mod worker;
