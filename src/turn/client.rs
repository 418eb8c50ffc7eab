//! One client's side of the protocol, without I/O: its messages in, answers and datagrams for peers out.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use turn_server_proto::api::{SocketAllocateError, Transmit, TurnServerApi, TurnServerPollRet};
use turn_server_proto::server::TurnServer;
use turn_server_proto::types::attribute::XorPeerAddress;
use turn_server_proto::types::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, SEND};
use turn_server_proto::types::prelude::DelayedTransmitBuild;
use turn_server_proto::types::stun::attribute::{ErrorCode, Username, XorMappedAddress};
use turn_server_proto::types::stun::message::{
    BINDING, IntegrityAlgorithm, LongTermCredentials, Message, MessageClass, MessageWriteVec,
};
use turn_server_proto::types::stun::prelude::{Attribute, AttributeFromRaw, AttributeStaticType};
use turn_server_proto::types::stun::prelude::{MessageWrite, MessageWriteExt};
use turn_server_proto::types::{AddressFamily, Instant as ProtocolTime, TransportType};

use super::REALM;
use super::credentials::Secret;
use super::peers::PeerPolicy;

/// Different peers of one client. Its permissions live for five minutes; a browser has as many as we have addresses.
const MAX_PEERS: usize = 64;

/// What is to be done after a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this to the client.
    Reply(Vec<u8>),
    /// Send this from the relay socket: it goes there.
    Relay(SocketAddr, Vec<u8>),
    /// A relay socket is wanted: answer with [`Client::allocated`].
    Allocate(AddressFamily),
    /// The relay socket has no use any more.
    Release,
}

/// Why a message went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Neither a STUN message nor channel data, or nothing that a client sends.
    Malformed,
    /// For a peer that this server does not relay to.
    Forbidden,
}

/// See the module's text.
pub struct Client {
    server: TurnServer,
    remote: SocketAddr,
    listen: SocketAddr,
    policy: Arc<PeerPolicy>,
    secret: Secret,
    /// Who it is, as soon as it has named itself: its password is known from then on.
    user: Option<(String, String)>,
    peers: HashSet<IpAddr>,
    relayed: Option<SocketAddr>,
    begun: Instant,
}

impl Client {
    /// A client that is at `remote` and reached us at `listen`.
    pub fn new(
        now: Instant,
        remote: SocketAddr,
        listen: SocketAddr,
        policy: Arc<PeerPolicy>,
        secret: Secret,
    ) -> Self {
        Client {
            server: TurnServer::new(TransportType::Udp, listen, REALM.to_owned()),
            remote,
            listen,
            policy,
            secret,
            user: None,
            peers: HashSet::new(),
            relayed: None,
            begun: now,
        }
    }

    /// The user name that it gave, if it holds. Authenticated as soon as [`Action::Allocate`] came.
    pub fn user(&self) -> Option<&str> {
        self.user.as_ref().map(|(name, _)| name.as_str())
    }

    /// A message or channel data of the client; what has to be done comes from [`Client::poll`] and from here.
    ///
    /// # Errors
    /// It is dropped; a reply may be due nevertheless.
    pub fn handle(
        &mut self,
        now: Instant,
        wall: SystemTime,
        bytes: &[u8],
    ) -> Result<Option<Action>, (Refusal, Option<Action>)> {
        // RFC 7983, section 7: channel data begins with 64 to 79.
        if !bytes.first().is_some_and(|first| (64..80).contains(first)) {
            let message = Message::from_bytes(bytes).map_err(|_| (Refusal::Malformed, None))?;
            self.learn_user(&message, wall);
            if let Err(code) = self.check_peers(&message) {
                return Err((Refusal::Forbidden, self.refuse(&message, code)));
            }
        }
        let transmit = Transmit::new(bytes, TransportType::Udp, self.remote, self.listen);
        let sent = self.server.recv(transmit, self.time(now));
        let Some(sent) = sent else {
            return Ok(None);
        };
        if sent.to == self.remote {
            return Ok(Some(Action::Reply(sent.data.build())));
        }
        match self.policy.way_to(sent.to) {
            Some(way) => Ok(Some(Action::Relay(way, sent.data.build()))),
            None => Err((Refusal::Forbidden, None)),
        }
    }

    /// A datagram that the relay socket received; what goes to the client for it.
    pub fn handle_relayed(
        &mut self,
        now: Instant,
        from: SocketAddr,
        data: &[u8],
    ) -> Option<Vec<u8>> {
        let peer = self.policy.face_of(from)?;
        let transmit = Transmit::new(data, TransportType::Udp, peer, self.relayed?);
        let sent = self.server.recv(transmit, self.time(now))?;
        (sent.to == self.remote).then(|| sent.data.build())
    }

    /// What there is to do next; `Err`: nothing before then.
    ///
    /// # Errors
    /// Not one: the time to call again.
    pub fn poll(&mut self, now: Instant) -> Result<Action, Instant> {
        let time = self.time(now);
        if let Some(reply) = self.server.poll_transmit(time) {
            return Ok(Action::Reply(reply.data));
        }
        loop {
            match self.server.poll(time) {
                TurnServerPollRet::AllocateSocket { family, .. } => {
                    return Ok(Action::Allocate(family));
                }
                TurnServerPollRet::SocketClose { .. } => {
                    self.relayed = None;
                    return Ok(Action::Release);
                }
                // RFC 6062 is for clients over TCP, and this one is over UDP for the protocol.
                TurnServerPollRet::TcpConnect { .. } | TurnServerPollRet::TcpClose { .. } => {}
                TurnServerPollRet::WaitUntil(until) => {
                    let wait = until.saturating_duration_since(time);
                    return Err(now + wait);
                }
            }
        }
    }

    /// The relay socket is there, under this address for the client; or there is none.
    pub fn allocated(
        &mut self,
        now: Instant,
        family: AddressFamily,
        relayed: Result<SocketAddr, SocketAllocateError>,
    ) {
        self.relayed = relayed.ok().or(self.relayed);
        let time = self.time(now);
        self.server.allocated_socket(
            TransportType::Udp,
            self.listen,
            self.remote,
            TransportType::Udp,
            family,
            relayed,
            time,
        );
    }

    fn time(&self, now: Instant) -> ProtocolTime {
        /// Away from zero, which the protocol's sums of time go below.
        const OFFSET: Duration = Duration::from_secs(86_400);
        let since = now.saturating_duration_since(self.begun) + OFFSET;
        ProtocolTime::from_nanos(since.as_nanos() as i64)
    }

    fn learn_user(&mut self, message: &Message<'_>, wall: SystemTime) {
        if self.user.is_some() {
            return;
        }
        let Ok(name) = message.attribute::<Username>() else {
            return;
        };
        let name = name.username().to_owned();
        if let Some(password) = self.secret.password(&name, wall) {
            self.server.add_user(name.clone(), password.clone());
            self.user = Some((name, password));
        }
    }

    /// Refuses permissions and channels before the protocol gives them (RFC 8656, sections 9.2 and 12.2).
    fn check_peers(&mut self, message: &Message<'_>) -> Result<(), u16> {
        let method = message.method();
        if method == SEND || (method != CREATE_PERMISSION && method != CHANNEL_BIND) {
            return Ok(());
        }
        for (_, attribute) in message.iter_attributes() {
            if attribute.get_type() != XorPeerAddress::TYPE {
                continue;
            }
            // What cannot be read the protocol refuses.
            let Ok(peer) = XorPeerAddress::from_raw(attribute) else {
                continue;
            };
            let peer = peer.addr(message.transaction_id());
            let allowed = match method {
                CHANNEL_BIND => self.policy.way_to(peer).is_some(),
                _ => self.policy.allows_ip(peer.ip()),
            };
            if !allowed {
                return Err(ErrorCode::FORBIDDEN);
            }
            if self.peers.len() >= MAX_PEERS && !self.peers.contains(&peer.ip()) {
                return Err(ErrorCode::INSUFFICIENT_CAPACITY);
            }
            self.peers.insert(peer.ip());
        }
        Ok(())
    }

    /// An error response with the client's integrity, so that it is believed.
    fn refuse(&self, message: &Message<'_>, code: u16) -> Option<Action> {
        let (name, password) = self.user.clone()?;
        let error = ErrorCode::builder(code).build().ok()?;
        let mut response = Message::builder_error(message, MessageWriteVec::with_capacity(96));
        response.add_attribute(&error).ok()?;
        let credentials = LongTermCredentials::new(name, password).to_key(REALM.to_owned());
        response
            .add_message_integrity(&credentials.into(), IntegrityAlgorithm::Sha1)
            .ok()?;
        Some(Action::Reply(response.finish()))
    }
}

/// What a message of an unknown address is worth.
#[derive(Debug, PartialEq, Eq)]
pub enum First {
    /// A binding request: this is the answer (RFC 8489, section 3), and nothing is kept of it.
    Binding(Vec<u8>),
    /// The begin of an allocation.
    Allocate,
    /// Nothing.
    Stray,
}

/// Looks at the first message of `remote`.
pub fn first_message(remote: SocketAddr, bytes: &[u8]) -> First {
    let Ok(message) = Message::from_bytes(bytes) else {
        return First::Stray;
    };
    if !message.has_class(MessageClass::Request) {
        return First::Stray;
    }
    match message.method() {
        ALLOCATE => First::Allocate,
        BINDING => {
            let mut reply = Message::builder_success(&message, MessageWriteVec::with_capacity(64));
            let mapped = XorMappedAddress::new(remote, message.transaction_id());
            match reply.add_attribute(&mapped) {
                Ok(()) => First::Binding(reply.finish()),
                Err(_) => First::Stray,
            }
        }
        _ => First::Stray,
    }
}

#[cfg(test)]
mod tests;
