//! The messages of the signalling socket, exactly as they stand on the wire.
//!
//! Client to server: `{"type": string, "data": any}`. Server to client: `{"status": bool, "type": string, "data": any}`;
//! `status` is false only on `error`. What old clients do differently is accepted by [`ClientMessage::parse`].

pub mod avatar;
mod client;
pub mod layout;
mod server;

pub use client::{ClientMessage, MAX_CHAT, ProtocolError};
pub use server::{Resumption, ServerMessage, VoiceDetected, VoicePacket, Welcome};

use crate::rtp::params::MediaKind;
use crate::worker::{Delivery, SourceType};

/// The wire's word for what a track shows.
pub fn source_name(source: SourceType) -> &'static str {
    match source {
        SourceType::Media | SourceType::Music => "media",
        SourceType::Screen => "screen",
    }
}

/// The wire's word for how a client receives.
pub fn mode_name(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::Forward | Delivery::MixedAudio => "sfu",
        Delivery::Mixed => "mcu",
    }
}

/// The wire's word for how a client hears the others.
pub fn audio_name(delivery: Delivery) -> &'static str {
    if delivery.forwards(MediaKind::Audio) {
        "forwarded"
    } else {
        "mixed"
    }
}

#[cfg(test)]
mod tests;
