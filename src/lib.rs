//! Talksy Unit: a hybrid SFU/MCU conferencing server.
//!
//! See the README for what it is; `docs/design.md` for why it is so.

pub mod demo;
pub mod ids;
pub mod mcu;
pub mod rtp;
pub mod sfu;
pub mod stats;
pub mod transport;
pub mod worker;
