//! One peer's connection: its transport, its offer/answer, its SRTP, what it publishes and what it is sent.
//!
//! A session ends when its transport does; the peer then begins a new one with its next offer.

mod counters;
mod paths;
mod port;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use counters::SessionCounters;
use port::Port;

use crate::ids::TrackKey;
use crate::prefetch::prefetch;
use crate::rtp::demux::{DatagramKind, classify};
use crate::rtp::ntp::Ntp;
use crate::rtp::params::{ReceiveLine, SendLine, Ssrc};
use crate::sfu::{DropReason, PublishLimit, Publisher, Received, SenderClock, Sending, Subscriber};
use crate::transport::negotiation::{NegotiationConfig, NegotiationError, Negotiator, Output};
use crate::transport::srtp::{Direction, SrtpContext};
use crate::transport::{
    Drops as TransportDrops, Identity, Transport, TransportConfig, TransportError, TransportEvent,
};
use crate::worker::allowance::Allowance;
use crate::worker::network::Socket;
use crate::worker::socket::{Outbox, Path};
use crate::worker::tcp::StreamId;

/// Candidates that a client may trickle before its first description names its credentials.
const EARLY_CANDIDATES: usize = 64;
/// Addresses of the peer whose way to us is remembered; the oldest gives way.
const MAX_SEEN: usize = 16;
/// TCP connections that one session keeps; a further one displaces the oldest that carries no media. A browser opens one
/// for each of its interfaces and each of our addresses.
const MAX_STREAMS: usize = 16;
/// A data-channel message from a client; longer ones are dropped and counted.
const MAX_CHANNEL_TEXT: usize = 64 << 10;
/// The data channel of the old clients.
pub const CHANNEL: &str = "internal";

/// What the worker has to act on after it has touched a session.
#[derive(Debug)]
pub enum SessionEvent {
    /// For the client.
    Answer(String),
    /// For the client.
    Offer(String),
    /// The agreed m-lines changed.
    LinesChanged {
        /// Published tracks that ended with it.
        ended: Vec<TrackKey>,
        /// All lines on which the peer takes something.
        send: Vec<SendLine>,
    },
    /// The client may offer now.
    RenegotiationSettled,
    /// The client cannot take what this sender carries.
    SenderRefused {
        /// Which sender.
        sender: u64,
        /// Part of a sentence.
        reason: String,
    },
    /// Encrypted media can flow.
    Connected,
    /// Nothing was heard of the peer for [`MEDIA_SILENCE`](crate::worker::MEDIA_SILENCE).
    Silent,
    /// It was heard again.
    Heard,
    /// A message on [`CHANNEL`].
    Text(String),
    /// The end of this session.
    Closed(String),
}

/// What became of a packet that was to be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// It is in the outbox.
    Queued,
    /// The pacer keeps it for a moment: the session's timer has changed.
    Held,
    /// Nothing flows on this sender before a keyframe.
    WantsKeyframe,
    /// It is not for this sender, or nothing can be sent yet.
    Dropped,
}

/// Why a description was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It belongs to another connection of the same client: a new session can take it.
    OtherConnection,
    /// A sentence for the client; the session is as before.
    Sentence(String),
}

/// See the module's text.
pub struct Session {
    transport: Transport,
    negotiator: Negotiator,
    advertised: Arc<[String]>,
    early_candidates: Vec<String>,
    ufrags: Vec<String>,
    /// The user fragment whose candidates were trickled.
    trickled: Option<String>,
    described: bool,
    srtp: Option<(SrtpContext, SrtpContext)>,
    connected: bool,
    /// What the peer publishes.
    pub publisher: Publisher,
    /// What the peer is sent.
    pub subscriber: Subscriber,
    /// What the peer may send.
    pub publish_limit: PublishLimit,
    /// What is left of what the peer may send now.
    pub allowance: Allowance,
    /// Sealed packets of this pass.
    pub outbox: Outbox,
    path: Option<Path>,
    /// Addresses of the peer that are connections, with those that have ended: what is meant for them is not for UDP.
    streams: Vec<(SocketAddr, StreamId)>,
    /// How STUN and DTLS came from addresses that are not selected: answers go back from where they were sent to.
    seen: Vec<Path>,
    counters: SessionCounters,
}

impl Session {
    /// A session that waits for its first description.
    ///
    /// # Errors
    /// The transport's own.
    pub fn new(
        now: Instant,
        identity: &Arc<Identity>,
        advertised: &Arc<[String]>,
        client_offers_first: bool,
    ) -> Result<Self, TransportError> {
        let config = TransportConfig {
            disconnected_after: crate::worker::MEDIA_SILENCE,
            ..TransportConfig::default()
        };
        let mut transport = Transport::new(now, identity.clone(), config)?;
        transport.open_channel(now, CHANNEL);
        let own_ssrc = Ssrc(rand::random());
        let mut negotiator = Negotiator::new(NegotiationConfig {
            client_offers_first,
            ..NegotiationConfig::default()
        });
        negotiator.want_channel();
        Ok(Session {
            transport,
            negotiator,
            advertised: advertised.clone(),
            early_candidates: Vec::new(),
            ufrags: Vec::new(),
            trickled: None,
            described: false,
            srtp: None,
            connected: false,
            publisher: Publisher::new(own_ssrc),
            subscriber: Subscriber::new(own_ssrc),
            publish_limit: PublishLimit::default(),
            allowance: Allowance::new(now),
            outbox: Outbox::default(),
            path: None,
            streams: Vec::new(),
            seen: Vec::new(),
            counters: SessionCounters::default(),
        })
    }

    /// Counters since the session began.
    pub fn counters(&self) -> SessionCounters {
        self.counters
    }

    /// What its transport threw away.
    pub fn transport_drops(&self) -> &TransportDrops {
        self.transport.drops()
    }

    /// Keys are there.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Where media goes.
    pub fn selected(&self) -> Option<SocketAddr> {
        self.transport.selected()
    }

    /// Whether a STUN request was made with this session's password.
    pub fn is_signed(&self, datagram: &[u8]) -> bool {
        self.transport.is_signed(datagram)
    }

    /// The user fragments that STUN requests for this session carry, if they changed since the last call.
    pub fn poll_ufrags(&mut self) -> Option<&[String]> {
        if self
            .transport
            .ufrags()
            .eq(self.ufrags.iter().map(String::as_str))
        {
            return None;
        }
        self.ufrags = self.transport.ufrags().map(str::to_string).collect();
        Some(&self.ufrags)
    }

    /// The candidates that a description with new credentials is followed by, with the index and the mid of their
    /// m-line. They stand in the description too: this is for pages that wait for them.
    pub fn poll_trickle(&mut self) -> Option<(u16, String, Arc<[String]>)> {
        let ufrag = self.transport.local_credentials().ufrag;
        let (index, mid) = self.negotiator.transport_line()?;
        if self.trickled.as_ref() == Some(&ufrag) {
            return None;
        }
        self.trickled = Some(ufrag);
        Some((index, mid.to_string(), self.advertised.clone()))
    }

    /// Offer/answer, for senders and for questions.
    pub fn negotiator(&mut self) -> &mut Negotiator {
        &mut self.negotiator
    }

    /// The client's offer.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn handle_offer(&mut self, now: Instant, sdp: &str) -> Result<(), Refusal> {
        self.describe(|negotiator, port| negotiator.handle_offer(now, sdp, port))
    }

    /// The client's answer.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn handle_answer(&mut self, now: Instant, sdp: &str) -> Result<(), Refusal> {
        self.describe(|negotiator, port| negotiator.handle_answer(now, sdp, port))
    }

    fn describe(
        &mut self,
        apply: impl FnOnce(&mut Negotiator, &mut Port<'_>) -> Result<(), NegotiationError>,
    ) -> Result<(), Refusal> {
        let mut port = Port {
            transport: &mut self.transport,
            advertised: &self.advertised,
            other_connection: false,
        };
        match apply(&mut self.negotiator, &mut port) {
            Ok(()) => {
                self.note_described();
                Ok(())
            }
            Err(_) if port.other_connection => Err(Refusal::OtherConnection),
            Err(error) => Err(Refusal::Sentence(error.to_string())),
        }
    }

    fn note_described(&mut self) {
        self.described = true;
        for candidate in std::mem::take(&mut self.early_candidates) {
            let _ = self.transport.add_remote_candidate(&candidate);
        }
    }

    /// Makes an offer that restarts ICE, as soon as one may be made.
    pub fn restart_ice(&mut self) {
        if self.transport.restart_ice() {
            self.negotiator.restate();
        }
    }

    /// The offer that is out is told once more, to a client that may have missed it.
    pub fn repeat_offer(&mut self) {
        self.negotiator.repeat_offer();
    }

    /// A trickled candidate; before the first description it waits for it.
    ///
    /// # Errors
    /// A sentence for the client.
    pub fn handle_candidate(&mut self, candidate: String) -> Result<(), Refusal> {
        if self.described {
            let added = self.transport.add_remote_candidate(&candidate);
            return added.map_err(|error| Refusal::Sentence(error.to_string()));
        }
        Transport::check_candidate(&candidate)
            .map_err(|error| Refusal::Sentence(error.to_string()))?;
        if self.early_candidates.len() >= EARLY_CANDIDATES {
            return Err(Refusal::Sentence(
                "too many candidates came before any offer or answer: send the offer first".into(),
            ));
        }
        self.early_candidates.push(candidate);
        Ok(())
    }

    /// STUN or DTLS.
    pub fn handle_transport(&mut self, now: Instant, path: Path, datagram: &[u8]) {
        self.counters.bytes_in += datagram.len() as u64;
        // The same address and port over UDP is somebody else's, or a forgery.
        if path.stream.is_none() && self.stream_of(path.remote).is_some() {
            self.counters.transport += 1;
            return;
        }
        let stun = classify(datagram) == DatagramKind::Stun;
        if self.is_flood(now, stun, datagram) {
            self.counters.flood.transport += 1;
            return;
        }
        self.remember(path);
        match self.transport.handle_read(now, path.remote, datagram) {
            Ok(()) if stun => {
                self.allowance.checks.take(now);
            }
            Ok(()) => {}
            Err(_) => self.counters.transport += 1,
        }
        if self.transport.selected() == Some(path.remote) {
            self.path = Some(path);
        }
    }

    /// STUN or DTLS beyond what the peer may send. STUN of others in its name is refused for what it is.
    fn is_flood(&mut self, now: Instant, stun: bool, datagram: &[u8]) -> bool {
        match stun {
            true => self.allowance.checks.is_empty(now) && self.transport.is_signed(datagram),
            false => !self.allowance.records.take(now),
        }
    }

    /// Authentic media shows that the peer is alive, and where it is.
    fn note_traffic(&mut self, now: Instant, from: SocketAddr) {
        if self.transport.selected() == Some(from) {
            self.transport.note_traffic(now);
        } else {
            self.transport.note_media_from(now, from);
        }
    }

    /// Whether nothing came over the selected path for this long.
    pub fn is_quiet(&self, now: Instant, time: Duration) -> bool {
        self.srtp.is_some() && self.transport.path_silence(now) >= time
    }

    /// Whether media from an address that nobody has is this peer's: if so, its place is looked for there. Spoils the
    /// datagram, and uses it up.
    pub fn is_own_media(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8]) -> bool {
        let Some((receive, _)) = &mut self.srtp else {
            return false;
        };
        let opened = match classify(datagram) {
            DatagramKind::Rtp => receive.open_rtp(datagram).is_ok(),
            DatagramKind::Rtcp => receive.open_rtcp(datagram).is_ok(),
            _ => false,
        };
        if opened {
            self.note_traffic(now, from);
        }
        opened
    }

    /// Loads what [`Self::open_rtp`] needs of the session itself: see [`crate::prefetch`].
    pub fn prefetch_receiving(&self) {
        if let Some((receive, _)) = &self.srtp {
            prefetch(receive);
        }
        prefetch(&self.publisher);
        prefetch(&self.allowance);
        prefetch(&self.counters);
    }

    /// Loads what [`Self::forward`] needs of the session itself.
    pub fn prefetch_sending(&self) {
        if let Some((_, send)) = &self.srtp {
            prefetch(send);
        }
        prefetch(&self.subscriber);
        prefetch(&self.outbox);
    }

    /// SRTP: decrypted in place. `None`: it went no further, and is counted.
    pub fn open_rtp<'p>(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &'p mut [u8],
    ) -> Option<Received<'p>> {
        self.counters.bytes_in += datagram.len() as u64;
        let Some((receive, _)) = &mut self.srtp else {
            self.counters.early += 1;
            return None;
        };
        let Ok(opened) = receive.open_rtp(datagram) else {
            self.counters.unauthentic += 1;
            return None;
        };
        self.note_traffic(now, from);
        if !self.allowance.media.take(now) {
            self.counters.flood.media += 1;
            return None;
        }
        match self.publisher.handle_rtp(now, &datagram[..opened.len]) {
            Ok(received) => Some(received),
            Err(_) => {
                self.counters.refused += 1;
                None
            }
        }
    }

    /// SRTCP: decrypted in place; the plain compound packet.
    pub fn open_rtcp<'p>(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &'p mut [u8],
    ) -> Option<&'p [u8]> {
        self.counters.bytes_in += datagram.len() as u64;
        let Some((receive, _)) = &mut self.srtp else {
            self.counters.early += 1;
            return None;
        };
        let Ok(len) = receive.open_rtcp(datagram) else {
            self.counters.unauthentic += 1;
            return None;
        };
        self.note_traffic(now, from);
        if !self.allowance.reports.take(now) {
            self.counters.flood.reports += 1;
            return None;
        }
        Some(&datagram[..len])
    }

    /// Forwards a packet on one of this session's senders, into the outbox.
    pub fn forward(&mut self, now: Instant, sender: u64, packet: &Received<'_>) -> Forwarding {
        let Some((_, send)) = &mut self.srtp else {
            return Forwarding::Dropped;
        };
        let outbox = &mut self.outbox;
        let start = outbox.bytes.len();
        let sending = self.subscriber.send(now, sender, packet, &mut outbox.bytes);
        match sending {
            Ok(Sending::Held) => Forwarding::Held,
            Ok(Sending::Now(header)) => {
                let sealed = send.seal_rtp(&mut outbox.bytes, start, header).is_ok();
                if outbox.commit(start, sealed) {
                    Forwarding::Queued
                } else {
                    Forwarding::Dropped
                }
            }
            Err(DropReason::AwaitingKeyframe) => Forwarding::WantsKeyframe,
            // Counted by the subscriber.
            Err(_) => Forwarding::Dropped,
        }
    }

    /// Text for the page; dropped while the channel is not open.
    pub fn send_text(&mut self, now: Instant, text: &str) {
        if self.transport.send_text(now, CHANNEL, text).is_err() {
            self.counters.channel += 1;
        }
    }

    /// Timers.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.transport.poll_timeout().is_some_and(|at| at <= now) {
            self.transport.handle_timeout(now);
        }
        if self.negotiator.poll_timeout().is_some_and(|at| at <= now) {
            self.negotiator.handle_timeout(now);
        }
    }

    /// When [`Session::handle_timeout`] and [`Session::poll_media`] are due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let control = self
            .transport
            .poll_timeout()
            .into_iter()
            .chain(self.negotiator.poll_timeout());
        if !self.connected {
            return control.min();
        }
        control
            .chain(self.publisher.poll_timeout())
            .chain(self.subscriber.poll_timeout())
            .chain(self.publish_limit.poll_timeout())
            .min()
    }

    /// Reports, feedback, retransmissions, video that had to wait, and padding that are due, sealed into the outbox.
    pub fn poll_media(
        &mut self,
        now: Instant,
        wall: Ntp,
        clock: &mut dyn FnMut(TrackKey) -> Option<SenderClock>,
    ) {
        let Some((_, send)) = &mut self.srtp else {
            return;
        };
        let outbox = &mut self.outbox;
        loop {
            let start = outbox.bytes.len();
            if !self.publisher.poll_feedback(now, &mut outbox.bytes)
                && !self
                    .subscriber
                    .poll_report(now, wall, clock, &mut outbox.bytes)
            {
                break;
            }
            let sealed = send.seal_rtcp(&mut outbox.bytes, start).is_ok();
            outbox.commit(start, sealed);
        }
        let start = outbox.bytes.len();
        let own = self.subscriber.own_ssrc();
        if self
            .publish_limit
            .poll_timeout()
            .is_some_and(|at| at <= now)
        {
            let streams = self.publisher.ssrcs();
            if self
                .publish_limit
                .poll(now, own, &streams, &mut outbox.bytes)
            {
                let sealed = send.seal_rtcp(&mut outbox.bytes, start).is_ok();
                outbox.commit(start, sealed);
            }
        }
        loop {
            let start = outbox.bytes.len();
            let bytes = &mut outbox.bytes;
            let Some(header) = self
                .subscriber
                .poll_retransmission(now, bytes)
                .or_else(|| self.subscriber.poll_paced(now, bytes))
                .or_else(|| self.subscriber.poll_padding(now, bytes))
            else {
                break;
            };
            let sealed = send.seal_rtp(&mut outbox.bytes, start, header).is_ok();
            outbox.commit(start, sealed);
        }
    }

    /// Sends what the transport has to say, and tells what happened.
    pub fn poll_event(&mut self, now: Instant, socket: &mut Socket) -> Option<SessionEvent> {
        loop {
            self.transmit(socket);
            if let Some(event) = self.transport.poll_event() {
                match self.on_transport(now, event) {
                    Some(event) => {
                        self.transmit(socket);
                        return Some(event);
                    }
                    None => continue,
                }
            }
            let mut port = Port {
                transport: &mut self.transport,
                advertised: &self.advertised,
                other_connection: false,
            };
            return match self.negotiator.poll_output(now, &mut port)? {
                Output::Answer(sdp) => Some(SessionEvent::Answer(sdp)),
                Output::Offer(sdp) => Some(SessionEvent::Offer(sdp)),
                Output::LinesChanged { receive, send } => Some(self.on_lines(&receive, send)),
                Output::RenegotiationSettled => Some(SessionEvent::RenegotiationSettled),
                Output::SenderRefused { sender, reason } => Some(SessionEvent::SenderRefused {
                    sender: sender.0,
                    reason,
                }),
            };
        }
    }

    fn on_lines(&mut self, receive: &[ReceiveLine], send: Vec<SendLine>) -> SessionEvent {
        let ended = self.publisher.set_lines(receive);
        self.subscriber.set_lines(&send);
        SessionEvent::LinesChanged { ended, send }
    }

    fn on_transport(&mut self, now: Instant, event: TransportEvent) -> Option<SessionEvent> {
        match event {
            TransportEvent::Selected(remote) => {
                if self.path.is_none_or(|path| path.remote != remote) {
                    self.path = Some(self.path_to(remote));
                }
                None
            }
            TransportEvent::Keyed(keys) => {
                self.srtp = Some((
                    SrtpContext::new(&keys, Direction::FromClient),
                    SrtpContext::new(&keys, Direction::FromServer),
                ));
                self.connected = true;
                self.negotiator.allow_offers();
                Some(SessionEvent::Connected)
            }
            TransportEvent::ChannelText { label, text }
                if label == CHANNEL && text.len() <= MAX_CHANNEL_TEXT =>
            {
                if self.allowance.texts.take(now) {
                    return Some(SessionEvent::Text(text));
                }
                self.counters.flood.texts += 1;
                None
            }
            TransportEvent::ChannelText { .. } | TransportEvent::ChannelBinary { .. } => {
                self.counters.channel += 1;
                None
            }
            TransportEvent::ChannelOpen { .. } | TransportEvent::ChannelClosed { .. } => None,
            TransportEvent::IceDisconnected => Some(SessionEvent::Silent),
            TransportEvent::IceReconnected => Some(SessionEvent::Heard),
            TransportEvent::Closed(reason) => Some(SessionEvent::Closed(reason.to_string())),
        }
    }

    fn transmit(&mut self, socket: &mut Socket) {
        while let Some((remote, datagram)) = self.transport.poll_transmit() {
            self.counters.bytes_out += datagram.len() as u64;
            let path = match self.path {
                Some(path) if path.remote == remote => path,
                _ => self.path_to(remote),
            };
            socket.send(path, &datagram);
        }
    }

    /// Sends the outbox.
    pub fn flush(&mut self, socket: &mut Socket) {
        match self.path {
            Some(path) => {
                self.counters.bytes_out += self.outbox.bytes.len() as u64;
                socket.send_all(path, &mut self.outbox);
            }
            None => self.outbox.clear(),
        }
    }

    /// Says goodbye.
    pub fn close(&mut self, now: Instant, socket: &mut Socket) {
        self.transport.close(now);
        self.transmit(socket);
        for (_, stream) in self.streams.drain(..) {
            socket.streams.close(stream);
        }
    }
}
