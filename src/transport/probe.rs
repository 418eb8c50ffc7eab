//! A check of our own on an address from which the peer's media comes, although ICE knows nothing of it: a NAT gave the
//! peer another port, or its device another network, and its next consent check may be seconds away. Media shows who
//! sent it, not that the address can be reached there (it may be a copy): the answer to a signed check does.

use super::IceCredentials;
use super::stun::{Class, Stun};
use bytes::BytesMut;
use rtc::crypto::RTCCryptoProvider;
use rtc::ice::attributes::control::AttrControlled;
use rtc::ice::attributes::priority::PriorityAttr;
use rtc::stun::attributes::ATTR_USERNAME;
use rtc::stun::fingerprint::FINGERPRINT;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{BINDING_REQUEST, Message, TransactionId};
use rtc::stun::textattrs::Username;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An unanswered check is repeated with the first media after this time.
const REPETITION: Duration = Duration::from_millis(100);
/// Of a peer-reflexive candidate (RFC 8445, section 5.1.2.1).
const PRIORITY: u32 = (110 << 24) | (0xffff << 8) | 255;

/// A check that waits for its answer.
pub(super) struct Probe {
    to: SocketAddr,
    id: TransactionId,
    sent: Instant,
}

impl Probe {
    /// The check of `to`, to be sent there. `local` is whose ufrag we are, `remote` signs. `None`: it cannot be made.
    pub(super) fn new(
        now: Instant,
        to: SocketAddr,
        local: &str,
        remote: &IceCredentials,
        provider: &Arc<dyn RTCCryptoProvider>,
    ) -> Option<(Self, BytesMut)> {
        let id = TransactionId::new();
        let mut message = Message::new();
        let user = format!("{}:{local}", remote.ufrag);
        let built = message.build(&[
            Box::new(BINDING_REQUEST),
            Box::new(id),
            Box::new(Username::new(ATTR_USERNAME, user)),
            Box::new(AttrControlled(rand::random())),
            Box::new(PriorityAttr(PRIORITY)),
            Box::new(MessageIntegrity::new_short_term_integrity_with_provider(
                remote.pwd.clone(),
                provider.crypto(),
            )),
            Box::new(FINGERPRINT),
        ]);
        built.ok()?;
        let datagram = BytesMut::from(&message.raw[..]);
        Some((Probe { to, id, sent: now }, datagram))
    }

    /// Whether the check of `to` is on its way.
    pub(super) fn is_under_way(&self, now: Instant, to: SocketAddr) -> bool {
        self.to == to && now.saturating_duration_since(self.sent) < REPETITION
    }

    /// Whether this is its answer, from the right place, with the peer's signature.
    pub(super) fn is_answered_by(
        &self,
        from: SocketAddr,
        datagram: &[u8],
        remote: &IceCredentials,
        provider: &Arc<dyn RTCCryptoProvider>,
    ) -> bool {
        let is_success = Stun::parse(datagram).is_some_and(|stun| stun.class() == Class::Success);
        // RFC 8489, section 5: the transaction id ends the header.
        if !is_success || from != self.to || datagram[8..20] != self.id.0 {
            return false;
        }
        let mut message = Message {
            raw: datagram.to_vec(),
            ..Message::default()
        };
        message.decode().is_ok()
            && MessageIntegrity::check(&mut message, remote.pwd.as_bytes(), provider.crypto())
                .is_ok()
    }
}
