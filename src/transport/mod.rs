//! ICE, DTLS, SRTP and data channels of one peer. The only folder that names webrtc-rs.
//!
//! [`Transport`] brings a connected, encrypted path with data channels: it is told the time and given datagrams,
//! and is polled for datagrams, events and its next deadline. Media packets never come here: [`TransportEvent::Keyed`]
//! hands their keys out, and [`srtp`] opens and seals them.
//!
//! A datagram's way: worker → [`Transport::handle_read`] → `ice` (STUN) or `dtls` → `channel` (SCTP) → events.
//! The faults of the stack below are met where they belong; each of those files begins with its list.

pub mod candidates;
mod channel;
mod client_hello;
mod drops;
mod dtls;
mod ice;
mod identity;
pub mod negotiation;
mod probe;
pub mod srtp;
mod stun;
mod types;

pub use channel::MAX_MESSAGE_SIZE;
pub use drops::{DropReason, Drops};
pub use identity::{Fingerprint, Identity};
pub use stun::requested_ufrag;
pub use types::{
    CloseReason, IceCredentials, RemoteChange, RemoteParams, TransportConfig, TransportError,
    TransportEvent,
};

use bytes::BytesMut;
use channel::{ChannelEvent, Channels};
use dtls::{Dtls, DtlsEvent};
use ice::Ice;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// DTLS datagrams that are kept while no pair is selected. The oldest gives way; the handshake repeats itself.
const MAX_UNSENT: usize = 16;

/// Where a transport is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No description of the peer yet.
    Idle,
    /// No pair is selected.
    Connecting {
        give_up: Instant,
    },
    /// A pair is selected; `silent` after [`TransportEvent::IceDisconnected`].
    Up {
        silent: bool,
    },
    Closed,
}

/// The transport of one peer. See the module's documentation.
pub struct Transport {
    identity: Arc<Identity>,
    config: TransportConfig,
    phase: Phase,
    heard: Instant,
    ice: Ice,
    dtls: Dtls,
    channels: Channels,
    drops: Drops,
    out: VecDeque<(SocketAddr, BytesMut)>,
    events: VecDeque<TransportEvent>,
}

impl Transport {
    /// A transport that waits for its peer's description.
    pub fn new(
        now: Instant,
        identity: Arc<Identity>,
        config: TransportConfig,
    ) -> Result<Self, TransportError> {
        Ok(Transport {
            config,
            phase: Phase::Idle,
            heard: now,
            ice: Ice::new(now, &identity)?,
            dtls: Dtls::new(identity.clone()),
            channels: Channels::new(),
            drops: Drops::default(),
            out: VecDeque::new(),
            events: VecDeque::new(),
            identity,
        })
    }

    /// What the own description has to say.
    pub fn local_credentials(&self) -> IceCredentials {
        self.ice.local_credentials()
    }

    /// What an offer has to say: after [`Transport::restart_ice`] other ones than an answer's, until the peer followed.
    pub fn offered_credentials(&self) -> IceCredentials {
        self.ice.offered_credentials()
    }

    /// The next offer is to restart ICE (RFC 8839, section 4.4.1.1.1): it has new credentials, and the peer's answer
    /// too. The association, its keys and the path stay until a new pair is selected. False where there is nothing to
    /// restart.
    pub fn restart_ice(&mut self) -> bool {
        matches!(self.phase, Phase::Up { .. }) && self.ice.begin_restart()
    }

    /// SHA-256 of the own certificate, for `a=fingerprint:sha-256`.
    pub fn fingerprint(&self) -> &str {
        self.identity.fingerprint()
    }

    /// Username fragments that lead to this transport: the current one, and those of before a restart until its
    /// pair is selected. May change with every call that takes a time.
    pub fn ufrags(&self) -> impl Iterator<Item = &str> {
        self.ice.ufrags()
    }

    /// Whether a STUN request has the integrity of the own password. Changes nothing.
    pub fn is_signed(&self, datagram: &[u8]) -> bool {
        self.ice.is_signed(datagram)
    }

    /// Whether this is an address of the peer: signalled, or learned from its checks.
    pub fn knows(&self, address: SocketAddr) -> bool {
        self.ice.knows(address)
    }

    /// Where media goes.
    pub fn selected(&self) -> Option<SocketAddr> {
        self.ice.selected()
    }

    /// What was dropped so far.
    pub fn drops(&self) -> &Drops {
        &self.drops
    }

    /// Takes the peer's description: the first, a repeated one, or an ICE restart.
    pub fn set_remote(
        &mut self,
        now: Instant,
        remote: &RemoteParams,
    ) -> Result<RemoteChange, TransportError> {
        if self.phase == Phase::Closed {
            return Err(TransportError::Closed);
        }
        self.dtls.set_fingerprints(&remote.fingerprints)?;
        let credentials = IceCredentials {
            ufrag: remote.ufrag.clone(),
            pwd: remote.pwd.clone(),
        };
        let change = self.ice.set_remote(now, credentials)?;
        if self.phase == Phase::Idle {
            let give_up = now + self.config.connect_timeout;
            self.phase = Phase::Connecting { give_up };
        }
        self.drive(now);
        Ok(change)
    }

    /// Adds a trickled candidate (`candidate:…`, with or without that prefix). An empty one ends the candidates;
    /// mDNS names and TCP are left out without error.
    pub fn add_remote_candidate(&mut self, candidate: &str) -> Result<(), TransportError> {
        if self.phase == Phase::Closed {
            return Err(TransportError::Closed);
        }
        self.ice.add_candidate(candidate)
    }

    /// Whether [`Transport::add_remote_candidate`] would refuse a line for its form.
    pub fn check_candidate(candidate: &str) -> Result<(), TransportError> {
        ice::parse_candidate(candidate).map(|_| ())
    }

    /// Takes a STUN or DTLS datagram. An error is never the end, unless [`TransportEvent::Closed`] follows.
    pub fn handle_read(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), TransportError> {
        if self.phase == Phase::Closed {
            self.drops.add(DropReason::Closed);
            return Err(TransportError::Dropped(DropReason::Closed));
        }
        let result = self.contain(|transport| {
            let result = transport.read(now, from, datagram);
            transport.drive(now);
            result
        });
        let result = result.ok_or(TransportError::Closed)?;
        if let Err(reason) = result {
            self.drops.add(reason);
        }
        result.map_err(TransportError::Dropped)
    }

    /// Media from the selected address was authenticated: the peer is alive. Cheap enough for every packet.
    pub fn note_traffic(&mut self, now: Instant) {
        self.heard = now;
        self.ice.note_traffic(now);
    }

    /// Media from another address than the selected one was authenticated: the peer is alive, and has perhaps moved
    /// there. That is checked, and where the answer comes from there and nothing from the selected address any more,
    /// media goes there.
    pub fn note_media_from(&mut self, now: Instant, from: SocketAddr) {
        if self.phase == Phase::Closed {
            return;
        }
        self.heard = now;
        if let Some(sent) = self.ice.probe(now, from) {
            self.out.push_back(sent);
        }
    }

    /// For how long nothing authentic came from the selected address.
    pub fn path_silence(&self, now: Instant) -> Duration {
        self.ice.path_silence(now)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.phase == Phase::Closed {
            return;
        }
        self.contain(|transport| {
            transport.ice.handle_timeout(now);
            transport.dtls.handle_timeout(now);
            transport.channels.handle_timeout(now, &mut transport.drops);
            transport.drive(now);
            transport.watch(now);
        });
    }

    /// When [`Transport::handle_timeout`] is due. Changes with every other call.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let patience = match self.phase {
            Phase::Closed => return None,
            Phase::Idle => None,
            Phase::Connecting { give_up } => Some(give_up),
            Phase::Up { silent: false } => Some(self.heard + self.config.disconnected_after),
            Phase::Up { silent: true } => Some(self.heard + self.config.closed_after),
        };
        let parts = [
            self.ice.poll_timeout(),
            self.dtls.poll_timeout(),
            self.channels.poll_timeout(),
        ];
        parts.into_iter().flatten().chain(patience).min()
    }

    /// The next datagram to send, and where to.
    pub fn poll_transmit(&mut self) -> Option<(SocketAddr, BytesMut)> {
        self.out.pop_front()
    }

    /// What happened next.
    pub fn poll_event(&mut self) -> Option<TransportEvent> {
        self.events.pop_front()
    }

    /// Opens a data channel as soon as there is an association. At any time.
    pub fn open_channel(&mut self, now: Instant, label: &str) {
        if self.phase == Phase::Closed {
            return;
        }
        self.contain(|transport| {
            transport.channels.open(now, label, &mut transport.drops);
            transport.drive(now);
        });
    }

    /// Sends text on an open data channel.
    pub fn send_text(
        &mut self,
        now: Instant,
        label: &str,
        text: &str,
    ) -> Result<(), TransportError> {
        if self.phase == Phase::Closed {
            return Err(TransportError::Closed);
        }
        let result = self.contain(|transport| {
            let drops = &mut transport.drops;
            let result = transport.channels.send_text(now, label, text, drops);
            transport.drive(now);
            result
        });
        result.unwrap_or(Err(TransportError::Closed))
    }

    /// Says goodbye to the peer and ends; no [`TransportEvent::Closed`] follows. What is left in
    /// [`Transport::poll_transmit`] should be sent.
    pub fn close(&mut self, now: Instant) {
        if self.phase == Phase::Closed {
            return;
        }
        self.contain(|transport| {
            transport.channels.close(now, &mut transport.drops);
            transport.drive(now);
            transport.dtls.close(now);
            transport.flush();
            transport.ice.close();
        });
        self.phase = Phase::Closed;
    }

    /// Runs a step of the stack below. If it panics, this transport ends, and nobody else notices: there are SCTP
    /// packets of an authenticated client on which it does. What it left behind is not touched again.
    fn contain<R>(&mut self, step: impl FnOnce(&mut Self) -> R) -> Option<R> {
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| step(self)));
        if result.is_err() {
            self.phase = Phase::Closed;
            self.drops.add(DropReason::StackPanicked);
            let reason = CloseReason::Panicked;
            self.events.push_back(TransportEvent::Closed(reason));
        }
        result.ok()
    }

    fn read(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Result<(), DropReason> {
        // RFC 7983, section 7.
        match datagram.first() {
            Some(0..=3) => {
                self.ice.handle_read(now, from, datagram)?;
                self.heard = now;
            }
            Some(20..=63) if self.ice.knows(from) => {
                self.dtls.handle_read(now, datagram, &mut self.drops);
            }
            Some(20..=63) => return Err(DropReason::DtlsFromStranger),
            _ => return Err(DropReason::NotForTransport),
        }
        Ok(())
    }

    /// Carries what one part produced to the next.
    fn drive(&mut self, now: Instant) {
        while let Some(address) = self.ice.poll_selected() {
            self.dtls.set_deadline(now + self.config.handshake_timeout);
            if let Phase::Connecting { .. } = self.phase {
                self.phase = Phase::Up { silent: false };
            }
            self.events.push_back(TransportEvent::Selected(address));
        }
        while let Some(event) = self.dtls.poll_event() {
            match event {
                DtlsEvent::Keyed(keys) => self.events.push_back(TransportEvent::Keyed(keys)),
                DtlsEvent::Data(packet) => {
                    self.heard = now;
                    self.channels.handle_read(now, packet, &mut self.drops);
                }
                DtlsEvent::Closed(reason) => self.end(reason),
            }
        }
        while let Some(packet) = self.channels.poll_transmit() {
            self.dtls.write(now, &packet);
        }
        while let Some(event) = self.channels.poll_event() {
            self.events.push_back(event.into());
        }
        self.flush();
    }

    fn flush(&mut self) {
        while let Some(sent) = self.ice.poll_transmit() {
            self.out.push_back(sent);
        }
        match self.ice.selected() {
            Some(address) => {
                while let Some(datagram) = self.dtls.poll_transmit() {
                    self.out.push_back((address, datagram));
                }
            }
            None => self.dtls.keep_last(MAX_UNSENT),
        }
    }

    /// Notices that the peer is gone, or back.
    fn watch(&mut self, now: Instant) {
        let silence = now.saturating_duration_since(self.heard);
        match self.phase {
            Phase::Connecting { give_up } if give_up <= now => {
                self.end(CloseReason::ConnectTimeout);
            }
            Phase::Up { .. } if silence >= self.config.closed_after => {
                self.end(CloseReason::Silence);
            }
            Phase::Up { silent: false } if silence >= self.config.disconnected_after => {
                self.phase = Phase::Up { silent: true };
                self.events.push_back(TransportEvent::IceDisconnected);
            }
            Phase::Up { silent: true } if silence < self.config.disconnected_after => {
                self.phase = Phase::Up { silent: false };
                self.events.push_back(TransportEvent::IceReconnected);
            }
            _ => {}
        }
    }

    /// Ends for `reason`. Alerts that are under way still leave.
    fn end(&mut self, reason: CloseReason) {
        if self.phase == Phase::Closed {
            return;
        }
        self.flush();
        self.ice.close();
        self.phase = Phase::Closed;
        self.events.push_back(TransportEvent::Closed(reason));
    }
}

impl From<ChannelEvent> for TransportEvent {
    fn from(event: ChannelEvent) -> Self {
        match event {
            ChannelEvent::Open { label } => TransportEvent::ChannelOpen { label },
            ChannelEvent::Text { label, text } => TransportEvent::ChannelText { label, text },
            ChannelEvent::Binary { label, data } => TransportEvent::ChannelBinary { label, data },
            ChannelEvent::Closed { label } => TransportEvent::ChannelClosed { label },
        }
    }
}

#[cfg(test)]
mod tests;
