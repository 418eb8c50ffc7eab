//! The ICE agent of one peer (RFC 8445): always controlled, with one constant local address per family, because
//! datagrams come with the peer's address only and the worker's socket is bound to a wildcard.
//!
//! The only file that names `rtc::ice`. It makes up for these faults of that agent:
//! - The first check with USE-CANDIDATE is neither answered nor remembered, which costs a repetition (up to
//!   600 ms): it is held, and fed again when the pair has become valid.
//! - A selected pair never changes: when the peer nominates another address, the checklist begins anew with the
//!   same credentials.
//! - Peers that nominate once and never again (Firefox) cannot move it at all, although RFC 8445 wants no restart for
//!   a NAT that forgot them: when the selected address is silent, the next valid one takes its place.
//! - Checks of new candidates run at the next timeout only: the deadline is in the past then.
//! - ICE-CONTROLLED switches the role before anything is authenticated: such messages are dropped.
//! - Indications, and anything from port 5353, count as heard without authentication: dropped too.

use super::drops::DropReason;
use super::identity::Identity;
use super::probe::Probe;
use super::stun::{Class, Stun};
use super::{IceCredentials, RemoteChange, TransportError};
use bytes::BytesMut;
use rand::Rng;
use rand::distr::Alphanumeric;
use rtc::crypto::RTCCryptoProvider;
use rtc::ice::candidate::candidate_host::CandidateHostConfig;
use rtc::ice::candidate::candidate_pair::CandidatePairState;
use rtc::ice::candidate::{Candidate, CandidateConfig, unmarshal_candidate};
use rtc::ice::mdns::MulticastDnsMode;
use rtc::ice::{Agent, AgentConfig, Event};
use rtc::sansio::Protocol;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::Message;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where the agent believes to be, one address per family (RFC 5737, RFC 3849). Never on the wire: the candidates
/// in SDP are those of [`super::candidates::Advertised`].
const LOCAL_V4: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 9);
const LOCAL_V6: SocketAddr = SocketAddr::new(
    IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    9,
);

/// Remote candidates that signalling may add. Further ones are refused: whatever address the peer really uses is
/// learned from its checks.
const MAX_SIGNALLED: usize = 64;
/// Remote addresses, signalled and learned. Checks from further ones are dropped; a nomination from a further one
/// empties the list.
const MAX_REMOTE: usize = 100;
/// Nominations that wait for their pair to become valid, one per address. The oldest gives way.
const MAX_HELD: usize = 8;
/// Old username fragments that still lead to this peer. The oldest gives way.
const MAX_OLD_UFRAGS: usize = 4;
/// How often unanswered checks are repeated, and how often at most: one second in all.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
const MAX_CHECKS: u16 = 20;
/// Consent checks (RFC 7675, section 5.1, wants about 5 s; shorter keeps NAT bindings of idle peers).
const KEEPALIVE: Duration = Duration::from_secs(3);
/// The agent asks for five timeouts a second for ever; a selected pair needs one per keepalive or so.
const SELECTED_TICK: Duration = Duration::from_millis(500);
/// Silence of the selected address after which another one that answers our check takes its place: two of the
/// checks that peers send on a path in use.
const SILENT_PATH: Duration = Duration::from_secs(5);
/// Own username fragments and passwords of a restart: 47 and 142 random bits; RFC 8445, section 5.3, wants 24 and 128.
const UFRAG_LEN: usize = 8;
const PWD_LEN: usize = 24;
/// Silence of the selected address after which media from another one is a sign that the peer has moved there.
const QUIET_PATH: Duration = Duration::from_millis(200);
/// Longest username fragment and password (RFC 8839, section 5.4).
const MAX_CREDENTIAL: usize = 256;
/// The agent takes anything from this port for mDNS, and does not authenticate it.
const MDNS_PORT: u16 = 5353;

/// See the module's documentation.
pub(super) struct Ice {
    agent: Agent,
    provider: Arc<dyn RTCCryptoProvider>,
    remote: Option<IceCredentials>,
    /// Local ones that an offer of ours has or will have, until the peer's new ones come.
    pending: Option<IceCredentials>,
    /// Where media goes. Stays while the agent begins anew.
    selected: Option<SocketAddr>,
    selections: VecDeque<SocketAddr>,
    /// When the selected address was heard last.
    path_heard: Instant,
    held: VecDeque<(SocketAddr, BytesMut)>,
    /// Of the address that media comes from.
    probe: Option<Probe>,
    signalled: usize,
    old_ufrags: VecDeque<String>,
    ticked: Instant,
    deadline: Option<Instant>,
}

impl Ice {
    pub(super) fn new(now: Instant, identity: &Identity) -> Result<Self, TransportError> {
        let config = AgentConfig {
            multicast_dns_mode: MulticastDnsMode::Disabled,
            check_interval: CHECK_INTERVAL,
            max_binding_requests: Some(MAX_CHECKS),
            keepalive_interval: Some(KEEPALIVE),
            // Never: the agent throws its candidates away when it gives up. Liveness is the transport's business.
            disconnected_timeout: Some(Duration::ZERO),
            failed_timeout: Some(Duration::ZERO),
            ..AgentConfig::default()
        };
        let setup = |error: rtc::shared::error::Error| TransportError::Setup(error.to_string());
        let mut agent =
            Agent::new(now, Arc::new(config), identity.provider.clone()).map_err(setup)?;
        agent.set_role(false);
        for local in [LOCAL_V4, LOCAL_V6] {
            let host = CandidateHostConfig {
                base_config: CandidateConfig {
                    network: "udp".to_owned(),
                    address: local.ip().to_string(),
                    port: local.port(),
                    component: 1,
                    ..CandidateConfig::default()
                },
                ..CandidateHostConfig::default()
            };
            let candidate = host.new_candidate_host().map_err(setup)?;
            agent.add_local_candidate(candidate).map_err(setup)?;
        }
        Ok(Ice {
            agent,
            provider: identity.provider.clone(),
            remote: None,
            pending: None,
            selected: None,
            selections: VecDeque::new(),
            path_heard: now,
            held: VecDeque::new(),
            probe: None,
            signalled: 0,
            old_ufrags: VecDeque::new(),
            ticked: now,
            deadline: None,
        })
    }

    pub(super) fn local_credentials(&self) -> IceCredentials {
        let credentials = self.agent.get_local_credentials();
        IceCredentials {
            ufrag: credentials.ufrag.clone(),
            pwd: credentials.pwd.clone(),
        }
    }

    /// What an offer of ours has to say: other credentials than the current ones from [`Ice::begin_restart`] until the
    /// peer has followed.
    pub(super) fn offered_credentials(&self) -> IceCredentials {
        let pending = self.pending.clone();
        pending.unwrap_or_else(|| self.local_credentials())
    }

    /// The own side of a restart (RFC 8445, section 9): the next offer has new credentials. Nothing else changes until
    /// the peer answers with new ones of its own; false where there is nothing to restart yet.
    pub(super) fn begin_restart(&mut self) -> bool {
        if self.remote.is_none() {
            return false;
        }
        self.pending.get_or_insert_with(|| IceCredentials {
            ufrag: random_ice_chars(UFRAG_LEN),
            pwd: random_ice_chars(PWD_LEN),
        });
        true
    }

    /// The current username fragment first, then the one of a restart that is under way, then those of before a
    /// restart until its pair is selected.
    pub(super) fn ufrags(&self) -> impl Iterator<Item = &str> {
        let current = self.agent.get_local_credentials().ufrag.as_str();
        let pending = self.pending.iter().map(|pending| pending.ufrag.as_str());
        std::iter::once(current)
            .chain(pending)
            .chain(self.old_ufrags.iter().map(String::as_str))
    }

    pub(super) fn selected(&self) -> Option<SocketAddr> {
        self.selected
    }

    /// Whether checks of this address were authenticated, or it was signalled.
    pub(super) fn knows(&self, address: SocketAddr) -> bool {
        self.selected == Some(address)
            || self
                .agent
                .get_remote_candidates()
                .iter()
                .any(|candidate| candidate.addr() == address)
    }

    /// Takes the peer's credentials. Other ones than before are an ICE restart (RFC 8839, section 4.4.3): the
    /// local ones change too, and the old path serves until a new one is selected.
    pub(super) fn set_remote(
        &mut self,
        now: Instant,
        remote: IceCredentials,
    ) -> Result<RemoteChange, TransportError> {
        let sized = |text: &str, least| (least..=MAX_CREDENTIAL).contains(&text.len());
        if !sized(&remote.ufrag, 4) || !sized(&remote.pwd, 22) {
            return Err(TransportError::BadCredentials);
        }
        if self.remote.as_ref() == Some(&remote) {
            return Ok(RemoteChange::Same);
        }
        let internal = |error: rtc::shared::error::Error| TransportError::Ice(error.to_string());
        let IceCredentials { ufrag, pwd } = remote.clone();
        let change = if self.remote.is_none() {
            self.agent
                .start_connectivity_checks(now, false, ufrag, pwd)
                .map_err(internal)?;
            RemoteChange::New
        } else {
            self.remember_ufrag();
            self.held.clear();
            self.signalled = 0;
            // Without pending ones the agent makes them up: the peer restarts of its own accord.
            let local = self.pending.take().unwrap_or_default();
            self.agent
                .restart(now, local.ufrag, local.pwd, true)
                .map_err(internal)?;
            self.agent
                .set_remote_credentials(ufrag, pwd)
                .map_err(internal)?;
            RemoteChange::Restarted
        };
        self.remote = Some(remote);
        self.drain();
        Ok(change)
    }

    /// Adds a signalled candidate, with or without `candidate:` before it. What cannot be used (TCP, mDNS names,
    /// a second component) is left out silently: the peer's own checks show its address.
    pub(super) fn add_candidate(&mut self, line: &str) -> Result<(), TransportError> {
        let Some(candidate) = parse_candidate(line)? else {
            return Ok(());
        };
        if self.signalled >= MAX_SIGNALLED {
            return Err(TransportError::TooManyCandidates(MAX_SIGNALLED));
        }
        self.signalled += 1;
        self.agent
            .add_remote_candidate(candidate)
            .map_err(|_| TransportError::BadCandidate)?;
        self.drain();
        Ok(())
    }

    /// A STUN datagram. `Ok` only if it was authenticated.
    pub(super) fn handle_read(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let stun = Stun::parse(datagram).ok_or(DropReason::StunMalformed)?;
        let class = stun.class();
        if class == Class::Other || stun.claims_controlled() || from.port() == MDNS_PORT {
            return Err(DropReason::StunUnexpected);
        }
        if self.take_probe(from, datagram) {
            self.path_heard = now;
            self.select(from);
            return Ok(());
        }
        if self.agent.get_remote_candidates().len() >= MAX_REMOTE && !self.knows(from) {
            if !stun.nominates() || !self.is_signed(datagram) {
                return Err(DropReason::TooManyAddresses);
            }
            self.begin_anew(now);
        }
        let result = match self.feed(now, from, datagram) {
            Ok(()) => self.follow_up(now, from, datagram, class, stun.nominates()),
            Err(reason) => Err(reason),
        };
        self.drain();
        if self.selected == Some(from) && result.is_ok() {
            self.path_heard = now;
        }
        result
    }

    /// Something of the selected address was authenticated.
    pub(super) fn note_traffic(&mut self, now: Instant) {
        self.path_heard = now;
    }

    /// For how long nothing authentic came from the selected address.
    pub(super) fn path_silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.path_heard)
    }

    /// Authentic media came from an address that is not selected: a check to be sent there, unless one is under way or
    /// the selected address still sends.
    pub(super) fn probe(&mut self, now: Instant, to: SocketAddr) -> Option<(SocketAddr, BytesMut)> {
        let under_way = self.probe.as_ref().is_some_and(|p| p.is_under_way(now, to));
        let moved = self.selected.is_some() && self.path_silence(now) >= QUIET_PATH;
        if under_way || !moved {
            return None;
        }
        let remote = self.remote.as_ref()?;
        let local = &self.agent.get_local_credentials().ufrag;
        let (probe, datagram) = Probe::new(now, to, local, remote, &self.provider)?;
        self.probe = Some(probe);
        Some((to, datagram))
    }

    fn take_probe(&mut self, from: SocketAddr, datagram: &[u8]) -> bool {
        let (Some(probe), Some(remote)) = (&self.probe, &self.remote) else {
            return false;
        };
        let answered = probe.is_answered_by(from, datagram, remote, &self.provider);
        if answered {
            self.probe = None;
        }
        answered
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.tick(now);
            self.drain();
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    pub(super) fn poll_transmit(&mut self) -> Option<(SocketAddr, BytesMut)> {
        let sent = self.agent.poll_write()?;
        Some((sent.transport.peer_addr, sent.message))
    }

    /// A newly selected address, in order.
    pub(super) fn poll_selected(&mut self) -> Option<SocketAddr> {
        self.selections.pop_front()
    }

    pub(super) fn close(&mut self) {
        let _ = self.agent.close();
        self.held.clear();
        self.deadline = None;
    }

    /// Gives the agent a datagram. `Ok` only if it was authenticated.
    fn feed(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Result<(), DropReason> {
        let local_addr = if from.is_ipv4() { LOCAL_V4 } else { LOCAL_V6 };
        let transport = TransportContext {
            local_addr,
            peer_addr: from,
            ecn: None,
            transport_protocol: TransportProtocol::UDP,
        };
        self.agent
            .handle_read(TaggedBytesMut {
                now,
                transport,
                message: BytesMut::from(datagram),
            })
            .map_err(|_| DropReason::StunRejected)
    }

    /// Sees to nominations: holds what the agent did not answer, and feeds it again when its pair is valid.
    fn follow_up(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
        class: Class,
        nominates: bool,
    ) -> Result<(), DropReason> {
        match class {
            Class::Request if nominates && self.agent_selected() != Some(from) => {
                self.hold(from, datagram);
                if self.agent_selected().is_some() {
                    self.begin_anew(now);
                    self.feed(now, from, datagram)?;
                }
            }
            Class::Success => {
                let held = self.held.iter().find(|(address, _)| *address == from);
                if let Some((_, request)) = held.cloned() {
                    self.feed(now, from, &request)?;
                    if self.agent_selected() == Some(from) {
                        self.held.clear();
                    }
                } else if self.is_silent(now) && self.is_valid(now, from) {
                    self.select(from);
                }
            }
            Class::Request | Class::Other => {}
        }
        Ok(())
    }

    fn is_silent(&self, now: Instant) -> bool {
        self.selected.is_some() && self.path_silence(now) >= SILENT_PATH
    }

    /// Whether a check of ours was answered from this address.
    fn is_valid(&self, now: Instant, address: SocketAddr) -> bool {
        let candidates = self.agent.get_remote_candidates();
        let ids = candidates
            .iter()
            .filter(|candidate| candidate.addr() == address)
            .map(|candidate| candidate.id());
        let pairs = self.agent.get_candidate_pairs_stats(now);
        ids.into_iter().any(|id| {
            pairs.iter().any(|pair| {
                pair.state == CandidatePairState::Succeeded && pair.remote_candidate_id == id
            })
        })
    }

    fn select(&mut self, address: SocketAddr) {
        if self.selected != Some(address) {
            self.selected = Some(address);
            self.selections.push_back(address);
        }
    }

    fn hold(&mut self, from: SocketAddr, datagram: &[u8]) {
        self.held.retain(|(address, _)| *address != from);
        if self.held.len() >= MAX_HELD {
            self.held.pop_front();
        }
        self.held.push_back((from, BytesMut::from(datagram)));
    }

    /// Whether a request has the integrity of the own password, without telling the agent.
    pub(super) fn is_signed(&self, datagram: &[u8]) -> bool {
        let mut message = Message {
            raw: datagram.to_vec(),
            ..Message::default()
        };
        let pwd = self.agent.get_local_credentials().pwd.as_bytes();
        message.decode().is_ok()
            && MessageIntegrity::check(&mut message, pwd, self.provider.crypto()).is_ok()
    }

    /// Empties the checklist and the selected pair, with the credentials as they are.
    fn begin_anew(&mut self, now: Instant) {
        let Some(IceCredentials { ufrag, pwd }) = self.remote.clone() else {
            return;
        };
        if self.agent.apply_restart(now, true).is_ok() {
            let _ = self.agent.set_remote_credentials(ufrag, pwd);
        }
    }

    fn remember_ufrag(&mut self) {
        if self.old_ufrags.len() >= MAX_OLD_UFRAGS {
            self.old_ufrags.pop_front();
        }
        let old = self.agent.get_local_credentials().ufrag.clone();
        self.old_ufrags.push_back(old);
    }

    fn agent_selected(&self) -> Option<SocketAddr> {
        let (_, remote) = self.agent.get_selected_candidate_pair()?;
        Some(remote.addr())
    }

    fn tick(&mut self, now: Instant) {
        self.ticked = now;
        let _ = self.agent.handle_timeout(now);
    }

    /// Takes the agent's events and its next deadline.
    fn drain(&mut self) {
        while let Some(tagged) = self.agent.poll_event() {
            if let Event::SelectedCandidatePairChange(_, remote) = tagged.event {
                self.old_ufrags.clear();
                self.select(remote.addr());
            }
        }
        let selected = self.agent.get_selected_candidate_pair().is_some();
        self.deadline = self.agent.poll_timeout();
        if selected {
            let earliest = self.ticked + SELECTED_TICK;
            self.deadline = self.deadline.map(|deadline| deadline.max(earliest));
        }
    }
}

/// Letters and digits, which are all among the ice-chars (RFC 8839, section 5.4).
fn random_ice_chars(count: usize) -> String {
    let letters = rand::rng().sample_iter(Alphanumeric).take(count);
    letters.map(char::from).collect()
}

/// Reads a candidate line, with or without its prefix. `None`: well-formed, and of no use to this server: the end of
/// the candidates, an mDNS name, TCP, RTCP's own component, an address that is none.
pub(super) fn parse_candidate(line: &str) -> Result<Option<Candidate>, TransportError> {
    let line = line.trim();
    let line = line.strip_prefix("a=").unwrap_or(line);
    let line = line.strip_prefix("candidate:").unwrap_or(line).trim();
    if line.is_empty() {
        return Ok(None);
    }
    let fields: Vec<&str> = line.split_ascii_whitespace().take(8).collect();
    let [_, component, network, _, address, port, "typ", _] = fields[..] else {
        return Err(TransportError::BadCandidate);
    };
    if address.ends_with(".local") || !network.eq_ignore_ascii_case("udp") || component != "1" {
        return Ok(None);
    }
    let address: IpAddr = address.parse().map_err(|_| TransportError::BadCandidate)?;
    let port: u16 = port.parse().map_err(|_| TransportError::BadCandidate)?;
    if port == 0 || address.is_unspecified() || address.is_multicast() {
        return Ok(None);
    }
    let candidate = unmarshal_candidate(line).map_err(|_| TransportError::BadCandidate)?;
    Ok(Some(candidate))
}
