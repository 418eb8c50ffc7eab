//! A light peer's transport: a scripted controlling ICE side and the stack's DTLS client, until the keys are there.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use ring::digest::{SHA256, digest};
use rtc::crypto::RTCCryptoProvider;
use rtc::dtls::config::ConfigBuilder;
use rtc::dtls::crypto::Certificate;
use rtc::dtls::endpoint::{Endpoint, EndpointEvent};
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::ice::attributes::control::AttrControlling;
use rtc::ice::attributes::priority::PriorityAttr;
use rtc::ice::attributes::use_candidate::UseCandidateAttr;
use rtc::shared::TransportProtocol;
use rtc::stun::attributes::ATTR_USERNAME;
use rtc::stun::fingerprint::FINGERPRINT;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{
    BINDING_REQUEST, BINDING_SUCCESS, CLASS_REQUEST, CLASS_SUCCESS_RESPONSE, Message, Setter,
    TransactionId,
};
use rtc::stun::textattrs::Username;
use rtc::stun::xoraddr::XorMappedAddress;
use talksy_unit::transport::srtp::{Direction, SrtpContext, SrtpKeys, SrtpProfile};

/// Loaded machines shake hands slowly.
const PATIENCE: Duration = Duration::from_secs(20);
/// An unanswered check is repeated.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// Consent (RFC 7675) as Chromium asks for it.
const CONSENT_INTERVAL: Duration = Duration::from_millis(2500);

/// The certificate of all light peers.
#[derive(Clone)]
pub struct Identity {
    provider: Arc<dyn RTCCryptoProvider>,
    certificate: Certificate,
    fingerprint: String,
}

impl Identity {
    pub fn new() -> Self {
        let provider = rtc::crypto::default_provider().expect("a crypto provider");
        let names = vec!["bench".to_owned()];
        let certificate =
            Certificate::generate_self_signed(names, provider.crypto()).expect("a certificate");
        let hash = digest(&SHA256, &certificate.certificate[0]);
        let pairs: Vec<String> = hash.as_ref().iter().map(|b| format!("{b:02X}")).collect();
        Identity {
            provider,
            certificate,
            fingerprint: pairs.join(":"),
        }
    }

    /// What one peer says about itself.
    pub fn local(&self, number: usize) -> Local {
        Local {
            ufrag: format!("peer{number}"),
            pwd: format!("a password of the peer {number:08}").replace(' ', "+"),
            fingerprint: self.fingerprint.clone(),
        }
    }
}

/// One peer's part of the transport's description.
#[derive(Clone)]
pub struct Local {
    pub ufrag: String,
    pub pwd: String,
    pub fingerprint: String,
}

/// The controlling side of ICE towards one server.
pub struct Ice {
    local: Local,
    server: (String, String),
    provider: Arc<dyn RTCCryptoProvider>,
    address: SocketAddr,
    next_check: Instant,
}

impl Ice {
    /// A check that nominates.
    pub fn check(&self) -> Vec<u8> {
        let user = format!("{}:{}", self.server.0, self.local.ufrag);
        let parts: Vec<Box<dyn Setter>> = vec![
            Box::new(BINDING_REQUEST),
            Box::new(TransactionId::new()),
            Box::new(Username::new(ATTR_USERNAME, user)),
            Box::new(AttrControlling(77)),
            Box::new(PriorityAttr(1_845_501_695)),
            Box::<UseCandidateAttr>::default(),
        ];
        self.seal(parts, &self.server.1)
    }

    /// The answer to a STUN request; `None` for anything else.
    pub fn answer(&self, datagram: &[u8]) -> Option<Vec<u8>> {
        let request = decode(datagram).filter(|message| message.typ.class == CLASS_REQUEST)?;
        let parts: Vec<Box<dyn Setter>> = vec![
            Box::new(request),
            Box::new(BINDING_SUCCESS),
            Box::new(XorMappedAddress {
                ip: self.address.ip(),
                port: self.address.port(),
            }),
        ];
        Some(self.seal(parts, &self.local.pwd))
    }

    /// A check to keep the server's consent, when it is due.
    pub fn poll_consent(&mut self, now: Instant) -> Option<Vec<u8>> {
        if now < self.next_check {
            return None;
        }
        self.next_check = now + CONSENT_INTERVAL;
        Some(self.check())
    }

    fn seal(&self, parts: Vec<Box<dyn Setter>>, pwd: &str) -> Vec<u8> {
        let mut parts: Vec<Box<dyn Setter + '_>> = parts;
        parts.push(Box::new(
            MessageIntegrity::new_short_term_integrity_with_provider(
                pwd.to_owned(),
                self.provider.crypto(),
            ),
        ));
        parts.push(Box::new(FINGERPRINT));
        let mut message = Message::new();
        message.build(&parts).expect("a message");
        message.raw.clone()
    }
}

fn decode(datagram: &[u8]) -> Option<Message> {
    let mut message = Message {
        raw: datagram.to_vec(),
        ..Message::default()
    };
    message.decode().ok()?;
    Some(message)
}

/// A connected peer.
pub struct Connection {
    pub socket: UdpSocket,
    pub ice: Ice,
    pub seal: SrtpContext,
    pub open: SrtpContext,
}

/// Connects to the server whose description is `sdp`; no other profile than `profile` is offered.
pub fn connect(
    identity: &Identity,
    local: Local,
    sdp: &str,
    server: SocketAddr,
    profile: SrtpProfile,
) -> io::Result<Connection> {
    // From the address that the server is at: it may be another one than loopback.
    let socket = UdpSocket::bind((server.ip(), 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_millis(5)))?;
    let credentials = super::sdp::credentials(sdp).ok_or_else(|| io::Error::other("no ufrag"))?;
    let ice = Ice {
        local,
        server: credentials,
        provider: identity.provider.clone(),
        address: socket.local_addr()?,
        next_check: Instant::now(),
    };
    let keys = Handshake::new(identity, ice, socket, server, profile);
    keys.run(profile)
}

struct Handshake {
    socket: UdpSocket,
    server: SocketAddr,
    ice: Ice,
    dtls: Endpoint,
    config: Option<Arc<rtc::dtls::config::HandshakeConfig>>,
    complete: bool,
}

impl Handshake {
    fn new(
        identity: &Identity,
        ice: Ice,
        socket: UdpSocket,
        server: SocketAddr,
        profile: SrtpProfile,
    ) -> Self {
        let config = ConfigBuilder::default()
            .with_crypto_provider(identity.provider.clone())
            .with_certificates(vec![identity.certificate.clone()])
            .with_srtp_protection_profiles(vec![SrtpProtectionProfile::from(profile.code())])
            .with_insecure_skip_verify(true)
            .build(true, None)
            .expect("a client's configuration");
        Handshake {
            dtls: Endpoint::new(server, TransportProtocol::UDP, None),
            socket,
            server,
            ice,
            config: Some(Arc::new(config)),
            complete: false,
        }
    }

    fn run(mut self, profile: SrtpProfile) -> io::Result<Connection> {
        let give_up = Instant::now() + PATIENCE;
        let mut next_check = Instant::now();
        let mut buffer = [0u8; 2048];
        while !self.complete {
            let now = Instant::now();
            if now >= give_up {
                return Err(io::Error::other("the handshake took too long"));
            }
            if self.config.is_some() && now >= next_check {
                self.socket.send(&self.ice.check())?;
                next_check = now + CHECK_INTERVAL;
            }
            if let Ok(length) = self.socket.recv(&mut buffer) {
                self.take(&buffer[..length])?;
            }
            let due = self.dtls.poll_timeout(&self.server);
            if due.is_some_and(|due| due <= Instant::now()) {
                let _ = self.dtls.handle_timeout(self.server, Instant::now());
            }
            while let Some(transmit) = self.dtls.poll_transmit() {
                self.socket.send(&transmit.message)?;
            }
        }
        let state = self.dtls.get_connection_state(self.server);
        let material = state
            .ok_or_else(|| io::Error::other("no connection"))?
            .export_keying_material("EXTRACTOR-dtls_srtp", &[], profile.material_len())
            .map_err(io::Error::other)?;
        let keys = SrtpKeys::new(profile, material).expect("as much material as was asked for");
        Ok(Connection {
            socket: self.socket,
            ice: self.ice,
            seal: SrtpContext::new(&keys, Direction::FromClient),
            open: SrtpContext::new(&keys, Direction::FromServer),
        })
    }

    fn take(&mut self, datagram: &[u8]) -> io::Result<()> {
        let now = Instant::now();
        match datagram.first() {
            Some(0..=3) => {
                if let Some(answer) = self.ice.answer(datagram) {
                    self.socket.send(&answer)?;
                } else if decode(datagram).is_some_and(|m| m.typ.class == CLASS_SUCCESS_RESPONSE)
                    && let Some(config) = self.config.take()
                {
                    self.dtls
                        .connect(now, self.server, config, None)
                        .map_err(io::Error::other)?;
                }
            }
            Some(20..=63) => {
                let data = BytesMut::from(datagram);
                let events = self.dtls.read(now, self.server, None, data);
                self.complete |= events
                    .map_err(io::Error::other)?
                    .iter()
                    .any(|event| matches!(event, EndpointEvent::HandshakeComplete));
            }
            _ => {}
        }
        Ok(())
    }
}
