//! The DTLS association of one peer (RFC 6347, RFC 5764): always the server, with one SRTP profile that was chosen
//! from the ClientHello.
//!
//! The only file that names `rtc::dtls`. It makes up for these faults of that stack:
//! - Any handshake message clears its retransmission timer, so that a lost flight of ours and a repeated one of the
//!   client's stall for ever: the last flight is repeated here, byte for byte, and the stack's own timer is off.
//! - Any first datagram opens a connection, and garbage, plaintext alerts included, ends a handshake: only records
//!   that can be the client's next ones get through.
//! - It joins fragments recursively and keeps what it cannot use: handshake records are counted and limited.
//! - What it wants to send after an error (the alert) has to be fetched all the same.
//! - It tells connections apart by address: it sees one constant address, whatever path ICE selects.

use super::client_hello::{Fragment, HANDSHAKE, HelloReader, Record, Records};
use super::drops::{DropReason, Drops};
use super::identity::{Fingerprint, Identity, is_announced};
use super::srtp::{SrtpKeys, SrtpProfile};
use super::{CloseReason, TransportError};
use bytes::BytesMut;
use rtc::dtls::config::{
    ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig,
    VerifyPeerCertificateFn,
};
use rtc::dtls::endpoint::{Endpoint, EndpointEvent};
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::shared::TransportProtocol;
use rtc::shared::error::Error;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The peer, as the DTLS and SCTP stacks know it.
pub(super) const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), 9);

/// First repetition of our flight; each further one after twice the time, up to the longest.
const FIRST_REPETITION: Duration = Duration::from_millis(50);
const LONGEST_REPETITION: Duration = Duration::from_millis(400);
/// A client that repeats its flight has missed ours, and is told again after this time: the rest of what may yet be its
/// next flight comes first.
const ANSWER_TO_REPETITION: Duration = Duration::from_millis(20);
/// The stack's own timer: never within any handshake.
const NEVER: Duration = Duration::from_secs(86_400);
/// Handshake records in the clear that are taken in all: a client's flights have about ten, and are repeated.
const MAX_CLEAR_RECORDS: u32 = 256;
/// Encrypted records that are taken while the handshake runs, and encrypted handshake records ever: one Finished
/// per repetition.
const MAX_ENCRYPTED_RECORDS: u32 = 64;
/// Longest encrypted handshake record: a Finished in the widest cipher.
const MAX_FINISHED: usize = 128;
/// Longest handshake message: a certificate chain.
const MAX_MESSAGE: usize = 16_384;

const CHANGE_CIPHER_SPEC: u8 = 20;
const APPLICATION_DATA: u8 = 23;
const HELLO_VERIFY_REQUEST: u8 = 3;
/// A plaintext fatal alert: handshake_failure (RFC 5246, section 7.2).
const HANDSHAKE_FAILURE: [u8; 15] = [21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 40];

/// What the association reports.
pub(super) enum DtlsEvent {
    /// The handshake is complete and the peer's certificate is the announced one.
    Keyed(SrtpKeys),
    /// Decrypted application data: SCTP.
    Data(BytesMut),
    /// The end.
    Closed(CloseReason),
}

/// See the module's documentation.
pub(super) struct Dtls {
    identity: Arc<Identity>,
    fingerprints: Vec<Fingerprint>,
    state: State,
    give_up: Option<Instant>,
    out: VecDeque<BytesMut>,
    events: VecDeque<DtlsEvent>,
    clear_records: u32,
    encrypted_records: u32,
}

enum State {
    /// No whole ClientHello yet.
    Waiting(HelloReader),
    Handshaking {
        endpoint: Endpoint,
        profile: SrtpProfile,
        flight: Option<Flight>,
    },
    Open(Endpoint),
    Closed,
}

/// The last flight that was sent, to be repeated until the client answers with its next one.
struct Flight {
    datagrams: Vec<BytesMut>,
    interval: Duration,
    due: Instant,
}

impl Dtls {
    pub(super) fn new(identity: Arc<Identity>) -> Self {
        Dtls {
            identity,
            fingerprints: Vec::new(),
            state: State::Waiting(HelloReader::default()),
            give_up: None,
            out: VecDeque::new(),
            events: VecDeque::new(),
            clear_records: 0,
            encrypted_records: 0,
        }
    }

    /// Takes the fingerprints of the peer's description. Once the handshake runs they may only stay as they are.
    pub(super) fn set_fingerprints(&mut self, new: &[Fingerprint]) -> Result<(), TransportError> {
        if new.is_empty() {
            return Err(TransportError::NoFingerprint);
        }
        if self.fingerprints == new {
            return Ok(());
        }
        let State::Waiting(_) = self.state else {
            // A new association needs a new transport (RFC 8842, section 5).
            return Err(TransportError::OtherPeer);
        };
        self.fingerprints = new.to_vec();
        Ok(())
    }

    /// A handshake that is not complete at `deadline` has failed. Later calls change nothing.
    pub(super) fn set_deadline(&mut self, deadline: Instant) {
        self.give_up.get_or_insert(deadline);
    }

    /// A DTLS datagram from an address that ICE knows.
    pub(super) fn handle_read(&mut self, now: Instant, datagram: &[u8], drops: &mut Drops) {
        match &mut self.state {
            State::Waiting(_) if self.fingerprints.is_empty() => drops.add(DropReason::DtlsEarly),
            State::Waiting(reader) => match reader.push(datagram) {
                Some(hello) => {
                    self.begin(&hello.srtp_profiles);
                    for datagram in hello.datagrams {
                        self.feed(now, &datagram, drops);
                    }
                }
                None => drops.add(DropReason::DtlsEarly),
            },
            State::Handshaking { .. } | State::Open(_) => self.feed(now, datagram, drops),
            State::Closed => drops.add(DropReason::Closed),
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let unfinished = matches!(self.state, State::Waiting(_) | State::Handshaking { .. });
        if unfinished && self.give_up.is_some_and(|give_up| give_up <= now) {
            self.fail(CloseReason::HandshakeTimeout);
            return;
        }
        if let State::Handshaking {
            flight: Some(flight),
            ..
        } = &mut self.state
            && flight.due <= now
        {
            self.out.extend(flight.datagrams.iter().cloned());
            flight.interval = (flight.interval * 2).min(LONGEST_REPETITION);
            flight.due = now + flight.interval;
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting(_) => self.give_up,
            State::Handshaking { flight, .. } => {
                let due = flight.as_ref().map(|flight| flight.due);
                due.into_iter().chain(self.give_up).min()
            }
            State::Open(_) | State::Closed => None,
        }
    }

    pub(super) fn poll_transmit(&mut self) -> Option<BytesMut> {
        self.out.pop_front()
    }

    /// Forgets all but the last `count` datagrams, while there is nowhere to send them.
    pub(super) fn keep_last(&mut self, count: usize) {
        while self.out.len() > count {
            self.out.pop_front();
        }
    }

    pub(super) fn poll_event(&mut self) -> Option<DtlsEvent> {
        self.events.pop_front()
    }

    /// Sends application data; nothing before the handshake is complete.
    pub(super) fn write(&mut self, now: Instant, data: &[u8]) {
        if let State::Open(endpoint) = &mut self.state {
            let _ = endpoint.write(now, PEER, data);
            fetch(endpoint, &mut self.out);
        }
    }

    /// Says goodbye (close_notify) and ends.
    pub(super) fn close(&mut self, now: Instant) {
        if let State::Open(endpoint) | State::Handshaking { endpoint, .. } = &mut self.state {
            let _ = endpoint.close(now);
            fetch(endpoint, &mut self.out);
        }
        self.state = State::Closed;
    }

    /// Chooses the profile and makes the connection.
    fn begin(&mut self, offered: &[u16]) {
        let Some(profile) = SrtpProfile::choose(offered) else {
            self.out.push_back(BytesMut::from(&HANDSHAKE_FAILURE[..]));
            self.fail(CloseReason::NoSrtpProfile);
            return;
        };
        match configure(&self.identity, profile, self.fingerprints.clone()) {
            Ok(config) => {
                self.state = State::Handshaking {
                    endpoint: Endpoint::new(PEER, TransportProtocol::UDP, Some(Arc::new(config))),
                    profile,
                    flight: None,
                };
            }
            Err(error) => self.fail(CloseReason::HandshakeFailed(error.to_string())),
        }
    }

    /// Gives the plausible records of a datagram to the stack.
    fn feed(&mut self, now: Instant, datagram: &[u8], drops: &mut Drops) {
        let mut plausible = BytesMut::with_capacity(datagram.len());
        let mut taken = 0;
        for record in Records::new(datagram) {
            taken += record.whole.len();
            match self.admit(&record) {
                Ok(()) => plausible.extend_from_slice(record.whole),
                Err(reason) => drops.add(reason),
            }
        }
        if taken < datagram.len() {
            drops.add(DropReason::DtlsImplausible);
        }
        if plausible.is_empty() {
            return;
        }
        let is_open = matches!(self.state, State::Open(_));
        let (State::Handshaking { endpoint, .. } | State::Open(endpoint)) = &mut self.state else {
            return;
        };
        let result = endpoint.read(now, PEER, None, plausible);
        let before = self.out.len();
        fetch(endpoint, &mut self.out);
        match result {
            Ok(events) => {
                // What cannot be decrypted, or came before, is discarded without a word.
                if is_open && events.is_empty() && self.out.len() == before {
                    drops.add(DropReason::DtlsRejected);
                }
                if self.out.len() == before && !is_open {
                    self.hurry(now);
                }
                self.remember_flight(now, before);
                self.take(events);
            }
            Err(error) => self.take_error(&error, drops),
        }
    }

    /// Whether a record can be a client's next one.
    fn admit(&mut self, record: &Record) -> Result<(), DropReason> {
        let known = (CHANGE_CIPHER_SPEC..=APPLICATION_DATA).contains(&record.content_type);
        if !known || !matches!(record.version, 0xfefd | 0xfeff) || record.body.is_empty() {
            return Err(DropReason::DtlsImplausible);
        }
        let is_open = matches!(self.state, State::Open(_));
        let (counter, limit) = match (record.epoch, record.content_type) {
            // Anybody can forge one, and a malformed one ends the association. A client that missed our last flight
            // repeats the whole of its own, with the Finished of epoch 1, which is enough to have ours again.
            (0, _) if is_open => return Err(DropReason::DtlsImplausible),
            (0, HANDSHAKE) if is_client_flight(record.body) => {
                (&mut self.clear_records, MAX_CLEAR_RECORDS)
            }
            (0, CHANGE_CIPHER_SPEC) if record.body == [1] => {
                (&mut self.clear_records, MAX_CLEAR_RECORDS)
            }
            // The stack does not decrypt these, and ends the association when their body is not understood.
            (1, CHANGE_CIPHER_SPEC) => return Err(DropReason::DtlsImplausible),
            (1, HANDSHAKE) if record.body.len() <= MAX_FINISHED => {
                (&mut self.encrypted_records, MAX_ENCRYPTED_RECORDS)
            }
            (1, HANDSHAKE) => return Err(DropReason::DtlsImplausible),
            (1, _) if is_open => return Ok(()),
            (1, _) => (&mut self.encrypted_records, MAX_ENCRYPTED_RECORDS),
            // Among others plaintext alerts, which anybody can forge (RFC 6347, section 4.1.2.7).
            _ => return Err(DropReason::DtlsImplausible),
        };
        if *counter >= limit {
            return Err(DropReason::DtlsTooMany);
        }
        *counter += 1;
        Ok(())
    }

    /// Something of the client's handshake came, and there was nothing to say to it.
    fn hurry(&mut self, now: Instant) {
        if let State::Handshaking {
            flight: Some(flight),
            ..
        } = &mut self.state
        {
            flight.due = flight.due.min(now + ANSWER_TO_REPETITION);
        }
    }

    /// What was just sent is the flight to repeat. A HelloVerifyRequest is not: the client repeats its hello.
    fn remember_flight(&mut self, now: Instant, before: usize) {
        let State::Handshaking { flight, .. } = &mut self.state else {
            return;
        };
        let sent = self.out.iter().skip(before);
        let is_flight = sent.clone().next().is_some_and(|first| {
            first[0] == HANDSHAKE && first.get(13) != Some(&HELLO_VERIFY_REQUEST)
        });
        if is_flight {
            *flight = Some(Flight {
                datagrams: sent.cloned().collect(),
                interval: FIRST_REPETITION,
                due: now + FIRST_REPETITION,
            });
        }
    }

    fn take(&mut self, events: Vec<EndpointEvent>) {
        for event in events {
            match event {
                EndpointEvent::HandshakeComplete => self.complete(),
                EndpointEvent::ApplicationData(data) => {
                    self.events.push_back(DtlsEvent::Data(data));
                }
                EndpointEvent::PeerClosed => self.fail(CloseReason::PeerClosed),
                _ => {}
            }
        }
    }

    fn take_error(&mut self, error: &Error, drops: &mut Drops) {
        let open = matches!(self.state, State::Open(_));
        match error {
            Error::ErrNoMatchingCertificateFingerprint => {
                self.fail(CloseReason::FingerprintMismatch);
            }
            Error::ErrAlertFatalOrClose => self.fail(CloseReason::PeerClosed),
            _ if open => drops.add(DropReason::DtlsRejected),
            other => self.fail(CloseReason::HandshakeFailed(other.to_string())),
        }
    }

    /// Exports the SRTP keys (RFC 5764, section 4.2).
    fn complete(&mut self) {
        let State::Handshaking {
            endpoint, profile, ..
        } = std::mem::replace(&mut self.state, State::Closed)
        else {
            return;
        };
        let exported = endpoint.get_connection_state(PEER).and_then(|state| {
            let agreed = state.srtp_protection_profile() as u16 == profile.code();
            let material = state
                .export_keying_material("EXTRACTOR-dtls_srtp", &[], profile.material_len())
                .ok()?;
            SrtpKeys::new(profile, material).filter(|_| agreed)
        });
        match exported {
            Some(keys) => {
                self.state = State::Open(endpoint);
                self.events.push_back(DtlsEvent::Keyed(keys));
            }
            None => self.fail(CloseReason::HandshakeFailed(
                "the SRTP keys could not be exported".to_owned(),
            )),
        }
    }

    fn fail(&mut self, reason: CloseReason) {
        self.state = State::Closed;
        self.events.push_back(DtlsEvent::Closed(reason));
    }
}

fn configure(
    identity: &Identity,
    profile: SrtpProfile,
    fingerprints: Vec<Fingerprint>,
) -> Result<HandshakeConfig, Error> {
    let verify: VerifyPeerCertificateFn = Arc::new(move |certificates, _| {
        let announced = certificates
            .first()
            .is_some_and(|certificate| is_announced(&fingerprints, certificate));
        announced
            .then_some(())
            .ok_or(Error::ErrNoMatchingCertificateFingerprint)
    });
    ConfigBuilder::default()
        .with_crypto_provider(identity.provider.clone())
        .with_certificates(vec![identity.certificate.clone()])
        .with_srtp_protection_profiles(vec![SrtpProtectionProfile::from(profile.code())])
        .with_flight_interval(NEVER)
        // The fingerprint vouches for the certificate, not a chain (RFC 8827, section 6.5).
        .with_client_auth(ClientAuthType::RequireAnyClientCert)
        .with_insecure_skip_verify(true)
        .with_verify_peer_certificate(Some(verify))
        .with_extended_master_secret(ExtendedMasterSecretType::Require)
        .build(false, None)
}

fn fetch(endpoint: &mut Endpoint, out: &mut VecDeque<BytesMut>) {
    while let Some(transmit) = endpoint.poll_transmit() {
        out.push_back(transmit.message);
    }
}

/// Whether the body of a plaintext handshake record holds messages of a client, each at its place: ClientHello
/// twice (the second with a cookie), Certificate, ClientKeyExchange, CertificateVerify. A part of a message ends
/// the record.
fn is_client_flight(mut body: &[u8]) -> bool {
    while let Some(fragment) = Fragment::parse(body) {
        let in_place = matches!(
            (fragment.sequence, fragment.kind),
            (0 | 1, CLIENT_HELLO)
                | (2, CERTIFICATE)
                | (3, CLIENT_KEY_EXCHANGE)
                | (4, CERTIFICATE_VERIFY)
        );
        let whole = fragment.data.len() == fragment.length;
        let sized = (1..=MAX_MESSAGE).contains(&fragment.length) && !fragment.data.is_empty();
        if !in_place || !sized || (whole && !is_well_formed(fragment.kind, fragment.data)) {
            return false;
        }
        body = &body[super::client_hello::HANDSHAKE_HEADER + fragment.data.len()..];
        if body.is_empty() {
            return true;
        }
        if !whole {
            return false;
        }
    }
    false
}

const CLIENT_HELLO: u8 = 1;
const CERTIFICATE: u8 = 11;
const CERTIFICATE_VERIFY: u8 = 15;
const CLIENT_KEY_EXCHANGE: u8 = 16;

/// Whether the length inside of a message agrees with its size (RFC 5246, sections 7.4.6 to 7.4.8; RFC 8422, 5.7).
fn is_well_formed(kind: u8, message: &[u8]) -> bool {
    let inner = match (kind, message) {
        (CERTIFICATE, [a, b, c, rest @ ..]) => {
            return usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c) == rest.len();
        }
        (CERTIFICATE_VERIFY, [_, _, a, b, rest @ ..]) => (u16::from_be_bytes([*a, *b]), rest),
        (CLIENT_KEY_EXCHANGE, [a, rest @ ..]) => (u16::from(*a), rest),
        (CLIENT_HELLO, [0xfe, ..]) => return true,
        _ => return false,
    };
    usize::from(inner.0) == inner.1.len()
}
