//! A client for the tests: a scripted controlling ICE side, and the stack's own DTLS and SCTP in the client's roles.

use crate::transport::dtls::PEER;
use crate::transport::{Fingerprint, IceCredentials, Identity, RemoteParams};
use bytes::BytesMut;
use rtc::crypto::SecretVec;
use rtc::datachannel::data_channel::{DataChannel, DataChannelConfig, DataChannelMessage};
use rtc::dtls::config::ConfigBuilder;
use rtc::dtls::endpoint::{Endpoint as DtlsEndpoint, EndpointEvent};
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::ice::attributes::control::AttrControlling;
use rtc::ice::attributes::priority::PriorityAttr;
use rtc::ice::attributes::use_candidate::UseCandidateAttr;
use rtc::sansio::Protocol;
use rtc::sctp::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint as SctpEndpoint,
    EndpointConfig, Event, Payload, PayloadProtocolIdentifier as Ppid, StreamEvent,
};
use rtc::shared::TransportProtocol;
use rtc::stun::attributes::ATTR_USERNAME;
use rtc::stun::fingerprint::FINGERPRINT;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{
    BINDING_REQUEST, BINDING_SUCCESS, CLASS_REQUEST, CLASS_SUCCESS_RESPONSE, Getter, Message,
    Setter, TransactionId,
};
use rtc::stun::textattrs::Username;
use rtc::stun::xoraddr::XorMappedAddress;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Profile codes that the client offers unless a test says otherwise: Chromium's, slow one first.
pub(super) const CHROMIUM: &[u16] = &[1, 8, 7];

pub(super) struct Peer {
    pub(super) identity: Identity,
    pub(super) credentials: IceCredentials,
    pub(super) server: IceCredentials,
    /// Where its datagrams seem to come from.
    pub(super) address: SocketAddr,
    /// Repetition of an unanswered nomination.
    pub(super) patience: Duration,
    nomination: Option<(TransactionId, Instant)>,
    pub(super) nominations_sent: u32,
    pub(super) nominated_at: Option<Instant>,
    profiles: Vec<u16>,
    pub(super) dtls: DtlsEndpoint,
    started: bool,
    pub(super) keyed: bool,
    pub(super) dtls_failed: bool,
    pub(super) said_goodbye: bool,
    sctp: SctpEndpoint,
    association: Option<(AssociationHandle, Association)>,
    connected: bool,
    pub(super) channels: BTreeMap<u16, DataChannel>,
    pub(super) texts: Vec<String>,
    pub(super) closed_streams: Vec<u16>,
    /// The last SCTP packets, for tests that change them.
    pub(super) sent_sctp: Vec<Vec<u8>>,
    pub(super) out: VecDeque<BytesMut>,
}

impl Peer {
    pub(super) fn new(server: IceCredentials, profiles: &[u16]) -> Self {
        Peer {
            identity: Identity::new().expect("an identity"),
            credentials: credentials(1),
            server,
            address: "203.0.113.5:50000".parse().expect("an address"),
            patience: Duration::from_secs(1),
            nomination: None,
            nominations_sent: 0,
            nominated_at: None,
            profiles: profiles.to_vec(),
            dtls: DtlsEndpoint::new(PEER, TransportProtocol::UDP, None),
            started: false,
            keyed: false,
            dtls_failed: false,
            said_goodbye: false,
            sctp: SctpEndpoint::new(
                PEER,
                TransportProtocol::UDP,
                EndpointConfig::default().into(),
                None,
            ),
            association: None,
            connected: false,
            channels: BTreeMap::new(),
            texts: Vec::new(),
            closed_streams: Vec::new(),
            sent_sctp: Vec::new(),
            out: VecDeque::new(),
        }
    }

    pub(super) fn params(&self) -> RemoteParams {
        RemoteParams {
            ufrag: self.credentials.ufrag.clone(),
            pwd: self.credentials.pwd.clone(),
            fingerprints: vec![Fingerprint {
                algorithm: "sha-256".to_owned(),
                value: self.identity.fingerprint().to_owned(),
            }],
        }
    }

    /// Sends a check, with USE-CANDIDATE or without.
    pub(super) fn check(&mut self, now: Instant, nominate: bool) {
        let id = TransactionId::new();
        let user = format!("{}:{}", self.server.ufrag, self.credentials.ufrag);
        let mut parts: Vec<Box<dyn Setter>> = vec![
            Box::new(BINDING_REQUEST),
            Box::new(id),
            Box::new(Username::new(ATTR_USERNAME, user)),
            Box::new(AttrControlling(77)),
            Box::new(PriorityAttr(1_845_501_695)),
        ];
        if nominate {
            parts.push(Box::<UseCandidateAttr>::default());
            self.nomination = Some((id, now + self.patience));
            self.nominations_sent += 1;
        }
        self.seal(parts, &self.server.pwd.clone());
    }

    pub(super) fn handle_read(&mut self, now: Instant, datagram: &[u8]) {
        match datagram[0] {
            0..=3 => self.read_stun(now, datagram),
            20..=63 => self.read_dtls(now, datagram),
            other => panic!("the server sent something that begins with {other}"),
        }
        self.drive(now);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.nomination.is_some_and(|(_, due)| due <= now) {
            self.check(now, true);
        }
        if self.dtls.poll_timeout(&PEER).is_some_and(|due| due <= now)
            && self.dtls.handle_timeout(PEER, now).is_err()
        {
            self.dtls_failed = true;
        }
        if let Some((_, association)) = &mut self.association
            && association.poll_timeout().is_some_and(|due| due <= now)
        {
            association.handle_timeout(now);
        }
        self.drive(now);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let association = self.association.as_ref();
        [
            self.nomination.map(|(_, due)| due),
            self.dtls.poll_timeout(&PEER).filter(|_| !self.dtls_failed),
            association.and_then(|(_, association)| association.poll_timeout()),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Begins DTLS. Called once the path is there.
    pub(super) fn connect_dtls(&mut self, now: Instant) {
        self.started = true;
        let profiles: Vec<_> = self
            .profiles
            .iter()
            .map(|code| SrtpProtectionProfile::from(*code))
            .collect();
        let config = ConfigBuilder::default()
            .with_crypto_provider(self.identity.provider.clone())
            .with_certificates(vec![self.identity.certificate.clone()])
            .with_srtp_protection_profiles(profiles)
            .with_insecure_skip_verify(true)
            .build(true, None)
            .expect("a client configuration");
        self.dtls
            .connect(now, PEER, Arc::new(config), None)
            .expect("a ClientHello");
        self.drive(now);
    }

    /// Exports keying material of `len` bytes.
    pub(super) fn keys(&self, len: usize) -> SecretVec {
        let state = self.dtls.get_connection_state(PEER).expect("a connection");
        state
            .export_keying_material("EXTRACTOR-dtls_srtp", &[], len)
            .expect("keys")
    }

    /// Begins SCTP.
    pub(super) fn connect_sctp(&mut self, now: Instant) {
        self.association = Some(
            self.sctp
                .connect(now, ClientConfig::default(), PEER)
                .expect("an association"),
        );
        self.drive(now);
    }

    pub(super) fn has_sctp(&self) -> bool {
        self.association.is_some()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected
    }

    pub(super) fn open_channel(&mut self, now: Instant, stream: u16, label: &str) {
        let (handle, association) = self.association.as_mut().expect("an association");
        let config = DataChannelConfig {
            label: label.to_owned(),
            ..DataChannelConfig::default()
        };
        association
            .open_stream(stream, Ppid::Dcep)
            .expect("a stream");
        let channel = DataChannel::dial(config, handle.0, stream).expect("an opening");
        self.channels.insert(stream, channel);
        self.drive(now);
    }

    pub(super) fn send_text(&mut self, now: Instant, stream: u16, text: &str) {
        let message = DataChannel::get_data_channel_message(true, BytesMut::from(text));
        let channel = self.channels.get_mut(&stream).expect("a channel");
        channel.handle_write(message).expect("room");
        self.drive(now);
    }

    pub(super) fn send_raw(&mut self, now: Instant, stream: u16, ppid: Ppid, data: &[u8]) {
        let (_, association) = self.association.as_mut().expect("an association");
        let _ = association.open_stream(stream, ppid);
        let data = bytes::Bytes::copy_from_slice(data);
        // Refused if a test broke the association before.
        if let Ok(mut stream) = association.stream(stream) {
            let _ = stream.write_chunk_with_ppi(now, &data, ppid);
        }
        self.drive(now);
    }

    pub(super) fn close_stream(&mut self, now: Instant, stream: u16) {
        let (_, association) = self.association.as_mut().expect("an association");
        let mut stream = association.stream(stream).expect("a stream");
        stream.close(now).expect("a reset");
        self.drive(now);
    }

    pub(super) fn close_dtls(&mut self, now: Instant) {
        self.dtls.close(now).expect("a goodbye");
        self.drive(now);
    }

    /// Sends application data over DTLS as it is.
    pub(super) fn write_dtls(&mut self, now: Instant, data: &[u8]) {
        self.dtls
            .write(now, PEER, data)
            .expect("an open connection");
        self.drive(now);
    }

    fn read_stun(&mut self, now: Instant, datagram: &[u8]) {
        let mut message = Message {
            raw: datagram.to_vec(),
            ..Message::default()
        };
        message.decode().expect("the server sends valid STUN");
        if message.typ.class == CLASS_SUCCESS_RESPONSE {
            if self
                .nomination
                .is_some_and(|(id, _)| id == message.transaction_id)
            {
                self.nomination = None;
                self.nominated_at = Some(now);
                if !self.started {
                    self.connect_dtls(now);
                }
            }
        } else if message.typ.class == CLASS_REQUEST {
            let mut user = Username::new(ATTR_USERNAME, String::new());
            user.get_from(&message).expect("a user name");
            let expected = format!("{}:{}", self.credentials.ufrag, self.server.ufrag);
            if user.to_string() == expected {
                let parts: Vec<Box<dyn Setter>> = vec![
                    Box::new(message),
                    Box::new(BINDING_SUCCESS),
                    Box::new(XorMappedAddress {
                        ip: PEER.ip(),
                        port: PEER.port(),
                    }),
                ];
                self.seal(parts, &self.credentials.pwd.clone());
            }
        }
    }

    fn seal(&mut self, parts: Vec<Box<dyn Setter>>, pwd: &str) {
        let provider = self.identity.provider.clone();
        let mut parts: Vec<Box<dyn Setter + '_>> = parts;
        parts.push(Box::new(
            MessageIntegrity::new_short_term_integrity_with_provider(
                pwd.to_owned(),
                provider.crypto(),
            ),
        ));
        parts.push(Box::new(FINGERPRINT));
        let mut message = Message::new();
        message.build(&parts).expect("a message");
        self.out.push_back(BytesMut::from(&message.raw[..]));
    }

    fn read_dtls(&mut self, now: Instant, datagram: &[u8]) {
        if !self.started {
            return;
        }
        let Ok(events) = self.dtls.read(now, PEER, None, BytesMut::from(datagram)) else {
            self.dtls_failed = true;
            return;
        };
        for event in events {
            match event {
                EndpointEvent::HandshakeComplete => self.keyed = true,
                EndpointEvent::ApplicationData(data) => self.read_sctp(now, data),
                EndpointEvent::PeerClosed => self.said_goodbye = true,
                _ => {}
            }
        }
    }

    fn read_sctp(&mut self, now: Instant, data: BytesMut) {
        if let Some((_, DatagramEvent::AssociationEvent(event))) =
            self.sctp.handle(now, PEER, None, data.freeze())
            && let Some((_, association)) = &mut self.association
        {
            association.handle_event(event);
        }
    }

    fn drive(&mut self, now: Instant) {
        self.drive_streams(now);
        if let Some((_, association)) = &mut self.association {
            while let Some(transmit) = association.poll_transmit(now) {
                if let Payload::RawEncode(packets) = transmit.message {
                    for packet in packets {
                        if self.sent_sctp.len() < 8 {
                            self.sent_sctp.push(packet.to_vec());
                        }
                        let _ = self.dtls.write(now, PEER, &packet);
                    }
                }
            }
        }
        while let Some(transmit) = self.dtls.poll_transmit() {
            self.out.push_back(transmit.message);
        }
    }

    fn drive_streams(&mut self, now: Instant) {
        let Some((handle, association)) = &mut self.association else {
            return;
        };
        let mut readable = Vec::new();
        while let Some(event) = association.poll() {
            match event {
                Event::Connected => self.connected = true,
                Event::AssociationLost { id, .. } => self.closed_streams.push(id),
                Event::Stream(StreamEvent::Readable { id }) => readable.push(id),
                _ => {}
            }
        }
        for stream_id in readable {
            let mut stream = association.stream(stream_id).expect("a stream");
            while let Ok(Some(chunks)) = stream.read_sctp() {
                let message = DataChannelMessage {
                    association_handle: handle.0,
                    stream_id,
                    ppi: chunks.ppi,
                    payload: chunks.to_payload(1 << 20).expect("a payload"),
                    negotiated: false,
                };
                match self.channels.get_mut(&stream_id) {
                    Some(channel) => channel.handle_read(message).expect("a message"),
                    None => {
                        let config = DataChannelConfig::default();
                        let (ppi, data) = (message.ppi, &message.payload);
                        let channel = DataChannel::accept(config, handle.0, stream_id, ppi, data);
                        self.channels
                            .insert(stream_id, channel.expect("an opening"));
                    }
                }
            }
        }
        for (id, channel) in &mut self.channels {
            while let Some(message) = channel.poll_read() {
                self.texts
                    .push(String::from_utf8(message.payload.to_vec()).expect("text"));
            }
            if self.connected {
                while let Some(message) = channel.poll_write() {
                    if let Ok(mut stream) = association.stream(*id) {
                        let payload = message.payload.freeze();
                        stream
                            .write_chunk_with_ppi(now, &payload, message.ppi)
                            .expect("room");
                    }
                }
            }
        }
    }
}

pub(super) fn credentials(number: u32) -> IceCredentials {
    IceCredentials {
        ufrag: format!("peer{number}"),
        pwd: format!("a password of the peer {number:08}"),
    }
}
