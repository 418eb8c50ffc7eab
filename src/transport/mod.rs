//! One peer's transport.

pub mod srtp;
