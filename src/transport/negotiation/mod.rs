//! Offer and answer with one client: exactly the JSEP (RFC 8829, RFC 9143) that a forwarding server needs.
//!
//! A pure state machine: descriptions, senders and the time go in, [`Output`]s come out. The server is always
//! passive in DTLS, always bundles, and mirrors the numbers of the client. Media goes out only on m-lines of the
//! server's own offers, or on those that the client made for receiving.
//!
//! # When offers cross
//! The server takes its own offer back and answers the client's. A client that does the same answers the offer that
//! the server has taken back: that answer, told by the mids that are never used twice, makes the server's offer
//! stand, and the client's is forgotten. So after a crossing the server keeps quiet for [`CROSSED_QUIET`]: an offer
//! that builds on one outcome is no use to a client that took the other. Where two offers have the same m-lines their
//! answers cannot be told apart: the newest is meant, and after it another quiet time lets a straggler arrive.
//!
//! # Files
//! `description` reads and checks what came; `codecs` and `extensions` choose from it; `session` makes the
//! next agreement out of the last one; `write` prints it. Here is what holds them together over time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::rtp::params::{Codec, MediaKind, Mid, ReceiveLine, SendLine, Ssrc};

mod codecs;
mod description;
mod extensions;
mod session;
#[cfg(test)]
mod tests;
mod write;

use description::{Description, Role};
use session::{Names, RefusedSender, Senders, Session};

/// How long an offer of ours waits for its answer.
pub const OFFER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client that was allowed to offer keeps us from offering.
pub const HOLD: Duration = Duration::from_secs(10);
/// How long we make no offer after offers have crossed; a client that answers ours does so sooner.
pub const CROSSED_QUIET: Duration = Duration::from_secs(1);

/// How a peer negotiates.
#[derive(Clone, Debug)]
pub struct NegotiationConfig {
    /// No offer of ours before [`Negotiator::allow_offers`].
    pub client_offers_first: bool,
    /// M-lines of a session, at most; stopped ones count until they are recycled.
    pub max_lines: usize,
    /// kbit/s at which publishers start to encode video (`x-google-start-bitrate`).
    pub start_kbps: u32,
    /// For the session id and the ids of tracks that their client does not name. Random in production.
    pub seed: u64,
}

impl Default for NegotiationConfig {
    fn default() -> Self {
        NegotiationConfig {
            client_offers_first: true,
            max_lines: 256,
            start_kbps: 1500,
            seed: rand::random(),
        }
    }
}

/// Somebody who sends to the client. Never used twice on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SenderId(pub u64);

/// What a sender sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SenderSpec {
    /// Its identity.
    pub id: SenderId,
    /// Audio or video.
    pub kind: MediaKind,
    /// The only codec that its m-line gets.
    pub codec: Codec,
    /// The publisher's stream id: what does not fit a token is left out, and 64 bytes are kept.
    pub stream_id: String,
    /// The publisher's track id; likewise.
    pub track_id: String,
    /// The media stream.
    pub ssrc: Ssrc,
    /// Its retransmissions.
    pub rtx_ssrc: Ssrc,
    /// Canonical name: the same for what is played in sync.
    pub cname: String,
    /// One of the mixed pair: its m-line is kept for ever, silent while there is no such sender.
    pub dedicated: bool,
}

/// Our side of the transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalTransport {
    /// ICE user name fragment.
    pub ufrag: String,
    /// ICE password.
    pub pwd: String,
    /// SHA-256 of the DTLS certificate: colon-separated hexadecimal bytes.
    pub fingerprint: String,
    /// The values of all `a=candidate` lines, with or without `candidate:`. There are no others.
    pub candidates: Vec<String>,
}

/// The client's side of the transport, as its description has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteTransport {
    /// ICE user name fragment. Another one than before: the client restarts ICE (RFC 8839, section 4.4.1.1.1).
    pub ufrag: String,
    /// ICE password.
    pub pwd: String,
    /// Algorithm in lower case and digest in upper case; never empty (RFC 8122).
    pub fingerprints: Vec<(String, String)>,
    /// The values of the `a=candidate` lines, without `candidate:`. May be empty: they come by trickle.
    pub candidates: Vec<String>,
}

/// The seam to the ICE and DTLS transport.
pub trait TransportPort {
    /// Takes the client's side over. A description that restarts ICE changes [`TransportPort::local`].
    fn apply_remote(&mut self, now: Instant, remote: &RemoteTransport) -> Result<(), String>;

    /// Our side, for an answer.
    fn local(&self) -> LocalTransport;

    /// Our side, for an offer: with other credentials than [`TransportPort::local`] while we restart ICE.
    fn local_for_offer(&self) -> LocalTransport {
        self.local()
    }
}

/// The data channel transport of a side (RFC 8841).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelParams {
    /// SCTP port.
    pub sctp_port: u16,
    /// The longest message that it takes, in bytes.
    pub max_message_size: u64,
}

impl Default for ChannelParams {
    /// Ours.
    fn default() -> Self {
        ChannelParams {
            sctp_port: 5000,
            max_message_size: 64 * 1024,
        }
    }
}

/// Why a description was not taken. The state is as before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NegotiationError {
    /// Not even read.
    #[error("a session description of {0} bytes is too long")]
    TooLong(usize),
    /// The parser's complaint.
    #[error("this is not a session description: {0}")]
    NotADescription(String),
    /// No m-lines at all.
    #[error("the session description has no m-lines")]
    NoLines,
    /// More m-lines than [`NegotiationConfig::max_lines`].
    #[error("{lines} m-lines are too many: {limit} are allowed")]
    TooManyLines {
        /// How many came.
        lines: usize,
        /// How many may come.
        limit: usize,
    },
    /// No usable BUNDLE group.
    #[error("the session description does not bundle its m-lines (a=group:BUNDLE)")]
    NotBundled,
    /// Missing, longer than 16 bytes, no token, or used twice. Counted from 0.
    #[error("m-line {0} has no usable a=mid")]
    BadMid(usize),
    /// Missing, too short or too long.
    #[error("the session description has no ICE credentials (a=ice-ufrag, a=ice-pwd)")]
    NoIceCredentials,
    /// There is nothing to check the DTLS certificate against.
    #[error("the session description has no certificate fingerprint (a=fingerprint)")]
    NoFingerprint,
    /// Both sides would wait for the other's checks.
    #[error("a client may not be ICE-lite: the server waits for its checks")]
    IceLite,
    /// Both sides would wait for the other's ClientHello.
    #[error("the client has to take the active DTLS role (a=setup:active, in an offer actpass)")]
    Setup,
    /// No offer of ours is out, and none was.
    #[error("an answer came without an offer")]
    AnswerWithoutOffer,
    /// The m-lines differ.
    #[error("the answer's m-lines are not those of the offer")]
    AnswerMismatch,
    /// What [`TransportPort::apply_remote`] said.
    #[error("the transport refused the session description: {0}")]
    Transport(String),
}

/// What the machine wants done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send the reply to the client's offer.
    Answer(String),
    /// Send an offer of ours.
    Offer(String),
    /// What is received and what is sent has changed: all m-lines on which media flows from now on.
    LinesChanged {
        /// From the client.
        receive: Vec<ReceiveLine>,
        /// To the client.
        send: Vec<SendLine>,
    },
    /// Tell a client that was not allowed to offer that now it may.
    RenegotiationSettled,
    /// This sender has no m-line and gets none; it is removed.
    SenderRefused {
        /// Which.
        sender: SenderId,
        /// Part of a sentence: `the client cannot decode AV1`.
        reason: String,
    },
}

/// RFC 8829, section 3.2, without its `have-remote-offer`: offers of the client are answered at once.
#[derive(Debug)]
enum Phase {
    Stable,
    OfferOut {
        /// What is the session when the answer comes.
        proposal: Session,
        deadline: Instant,
    },
}

/// The time after offers have crossed.
#[derive(Clone, Copy, Debug)]
struct Quiet {
    until: Instant,
    /// An answer has come, though perhaps another's: what was taken back is forgotten when nothing follows.
    answered: bool,
}

/// Offers of ours that were taken back and are remembered; the oldest are forgotten.
const TAKEN_BACK: usize = 4;

/// Offer and answer with one client. See the module.
#[derive(Debug)]
pub struct Negotiator {
    config: NegotiationConfig,
    senders: Senders,
    channel_wanted: bool,
    session: Session,
    phase: Phase,
    /// Offers of ours that were taken back, oldest first; their answers may still come.
    taken_back: VecDeque<Session>,
    offers_allowed: bool,
    /// Until then the client is expected to offer.
    held_until: Option<Instant>,
    /// Until then the answer to an offer that was taken back is expected.
    quiet: Option<Quiet>,
    /// The client asked while our offer was out.
    settled_owed: bool,
    /// Something changed since we last looked whether an offer is needed.
    dirty: bool,
    /// The client may have taken an old answer for a newer one, or the transport restarts: the next offer says everything
    /// once more.
    restate: bool,
    /// The offer that is out is told once more.
    repeat: bool,
    session_id: u64,
    version: u64,
    names: Names,
    outputs: VecDeque<Output>,
    told: (Vec<ReceiveLine>, Vec<SendLine>),
}

impl Negotiator {
    /// Nothing is negotiated yet.
    pub fn new(config: NegotiationConfig) -> Self {
        let mut names = Names::new(config.seed);
        Negotiator {
            offers_allowed: !config.client_offers_first,
            senders: Senders::new(),
            channel_wanted: false,
            session: Session::default(),
            phase: Phase::Stable,
            taken_back: VecDeque::new(),
            held_until: None,
            quiet: None,
            settled_owed: false,
            dirty: false,
            restate: false,
            repeat: false,
            // RFC 8829, section 5.2.1 wants 62 random bits and a value that a signed 64-bit number holds.
            session_id: names.number() >> 2,
            version: 0,
            names,
            outputs: VecDeque::new(),
            told: Default::default(),
            config,
        }
    }

    /// The client's offer. Queues [`Output::Answer`]; an offer of ours that is out is taken back.
    pub fn handle_offer(
        &mut self,
        now: Instant,
        sdp: &str,
        port: &mut impl TransportPort,
    ) -> Result<(), NegotiationError> {
        let offer = Description::parse(sdp, Role::Offer, self.config.max_lines)?;
        apply_transport(now, &offer, port)?;
        if self.take_back() {
            self.keep_quiet(now, false);
            // What was taken back restarted ICE, and nothing of that is in the answer.
            self.restate |= port.local() != port.local_for_offer();
        }
        self.held_until = None;
        let (session, refused) = self.session.answer(&offer, &self.senders, &mut self.names);
        self.session = session;
        self.forget(refused);
        let answer = self.describe(&self.session, Role::Answer, &port.local());
        self.version += 1;
        self.outputs.push_back(Output::Answer(answer));
        self.settled();
        Ok(())
    }

    /// The client's answer, to the offer of ours that is out or to one that was taken back.
    pub fn handle_answer(
        &mut self,
        now: Instant,
        sdp: &str,
        port: &mut impl TransportPort,
    ) -> Result<(), NegotiationError> {
        let answer = Description::parse(sdp, Role::Answer, self.config.max_lines)?;
        let out = matches!(self.phase, Phase::OfferOut { .. });
        if !out && self.taken_back.is_empty() {
            return Err(NegotiationError::AnswerWithoutOffer);
        }
        let matches: Vec<usize> = self
            .offers()
            .enumerate()
            .filter(|(_, offer)| offer.is_answered_by(&answer))
            .map(|(index, _)| index)
            .collect();
        let &newer = matches.first().ok_or(NegotiationError::AnswerMismatch)?;
        // With equal m-lines nobody can tell which of them is meant: it may be the one before.
        let certain = matches.len() == 1;
        let offer = self.offers().nth(newer).cloned().unwrap_or_default();
        let (session, refused) = offer.complete(&answer, &self.senders, &mut self.names)?;
        apply_transport(now, &answer, port)?;
        self.session = session;
        self.take_back();
        // Offers that are newer than this answer's may yet be answered, older ones not any more.
        let keep = newer + usize::from(!certain);
        let outdated = self.taken_back.len().saturating_sub(keep);
        self.taken_back.drain(..outdated);
        self.quiet = None;
        if !certain || newer > 0 || !out {
            self.restate = true;
            self.keep_quiet(now, true);
        }
        self.forget(refused);
        self.settled();
        Ok(())
    }

    /// Whether the client may offer now. `true` keeps us from offering until its offer came, [`HOLD`] at most;
    /// after `false` comes [`Output::RenegotiationSettled`].
    pub fn ask_renegotiation(&mut self, now: Instant) -> bool {
        if matches!(self.phase, Phase::OfferOut { .. }) {
            self.settled_owed = true;
            return false;
        }
        self.held_until = Some(now + HOLD);
        true
    }

    /// Somebody wants to send; it gets an m-line with the next offer or answer.
    pub fn add_sender(&mut self, spec: SenderSpec) {
        self.senders.insert(spec.id, spec);
        self.dirty = true;
    }

    /// Nothing is sent for it from now on; its m-line is recycled.
    pub fn remove_sender(&mut self, id: SenderId) {
        if self.senders.remove(&id).is_some() {
            self.dirty = true;
            self.tell_lines();
        }
    }

    /// The next offer of ours brings m=application, unless the client has brought it.
    pub fn want_channel(&mut self) {
        self.dirty |= !self.channel_wanted;
        self.channel_wanted = true;
    }

    /// Our side of the transport is another one for offers: one is made, even if nothing else is new.
    pub fn restate(&mut self) {
        self.restate = true;
        self.dirty = true;
    }

    /// The offer that is out, if one is, is told once more: the client may have missed it. Whoever has answered it
    /// already answers it again, which changes nothing.
    pub fn repeat_offer(&mut self) {
        self.repeat = true;
    }

    /// The client is connected for the first time: it takes our offers from now on.
    pub fn allow_offers(&mut self) {
        self.offers_allowed = true;
    }

    /// The data channel transport of the client, once it is agreed.
    pub fn channel(&self) -> Option<ChannelParams> {
        self.session.channel()
    }

    /// Index and mid of the m-line that carries the transport: trickled candidates name it.
    pub fn transport_line(&self) -> Option<(u16, Mid)> {
        let proposed = match &self.phase {
            Phase::OfferOut { proposal, .. } if self.session.lines.is_empty() => proposal,
            _ => &self.session,
        };
        let index = proposed.tagged()?;
        Some((
            u16::try_from(index).ok()?,
            proposed.lines[index].mid.clone(),
        ))
    }

    /// What is to be done next. Makes an offer when one is needed and allowed.
    pub fn poll_output(&mut self, now: Instant, port: &mut impl TransportPort) -> Option<Output> {
        if self.outputs.is_empty() && std::mem::take(&mut self.repeat) {
            self.tell_again(now, &port.local_for_offer());
        }
        if self.outputs.is_empty() && self.may_offer() {
            self.offer(now, &port.local_for_offer());
        }
        self.outputs.pop_front()
    }

    /// Takes an offer back that nobody answers, and lets go of what has expired.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.held_until = self.held_until.filter(|until| now < *until);
        if let Some(quiet) = self.quiet.filter(|quiet| quiet.until <= now) {
            self.quiet = None;
            if quiet.answered {
                self.taken_back.clear();
            }
        }
        if matches!(self.phase, Phase::OfferOut { deadline, .. } if deadline <= now) {
            self.take_back();
            self.push_settled();
        }
    }

    /// When [`Negotiator::handle_timeout`] wants to be called; [`Negotiator::poll_output`] afterwards, for timers hold
    /// offers back.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let deadline = match self.phase {
            Phase::OfferOut { deadline, .. } => Some(deadline),
            Phase::Stable => None,
        };
        let timers = [
            deadline,
            self.held_until,
            self.quiet.map(|quiet| quiet.until),
        ];
        timers.into_iter().flatten().min()
    }

    /// Our offers without an answer, newest first.
    fn offers(&self) -> impl Iterator<Item = &Session> {
        let out = match &self.phase {
            Phase::OfferOut { proposal, .. } => Some(proposal),
            Phase::Stable => None,
        };
        out.into_iter().chain(self.taken_back.iter().rev())
    }

    /// The offer that is out, if one is, counts as taken back.
    fn take_back(&mut self) -> bool {
        let phase = std::mem::replace(&mut self.phase, Phase::Stable);
        let Phase::OfferOut { proposal, .. } = phase else {
            return false;
        };
        if self.taken_back.len() == TAKEN_BACK {
            self.taken_back.pop_front();
        }
        self.taken_back.push_back(proposal);
        true
    }

    fn keep_quiet(&mut self, now: Instant, answered: bool) {
        let until = now + CROSSED_QUIET;
        self.quiet = Some(Quiet { until, answered });
    }

    fn may_offer(&self) -> bool {
        self.dirty
            && self.offers_allowed
            && self.held_until.is_none()
            && self.quiet.is_none()
            && matches!(self.phase, Phase::Stable)
    }

    fn offer(&mut self, now: Instant, local: &LocalTransport) {
        self.dirty = false;
        let (proposal, refused) = self.session.propose(
            &self.senders,
            self.channel_wanted,
            self.config.max_lines,
            &mut self.names,
        );
        self.forget(refused);
        let restated = std::mem::take(&mut self.restate).then(|| self.session.clone());
        let Some(proposal) = proposal.or(restated) else {
            return;
        };
        let offer = self.describe(&proposal, Role::Offer, local);
        self.version += 1;
        self.outputs.push_back(Output::Offer(offer));
        self.phase = Phase::OfferOut {
            proposal,
            deadline: now + OFFER_TIMEOUT,
        };
    }

    fn tell_again(&mut self, now: Instant, local: &LocalTransport) {
        let Phase::OfferOut { proposal, .. } = &self.phase else {
            return;
        };
        let offer = self.describe(proposal, Role::Offer, local);
        self.version += 1;
        self.outputs.push_back(Output::Offer(offer));
        if let Phase::OfferOut { deadline, .. } = &mut self.phase {
            *deadline = now + OFFER_TIMEOUT;
        }
    }

    fn describe(&self, session: &Session, role: Role, local: &LocalTransport) -> String {
        let frame = write::Frame {
            role,
            session_id: self.session_id,
            version: self.version,
            local,
            start_kbps: self.config.start_kbps,
        };
        write::description(session, &self.senders, &frame)
    }

    /// An exchange is over: the lines may be others, and there may be more to offer.
    fn settled(&mut self) {
        self.dirty = true;
        self.tell_lines();
        self.push_settled();
    }

    fn push_settled(&mut self) {
        if std::mem::take(&mut self.settled_owed) {
            self.outputs.push_back(Output::RenegotiationSettled);
        }
    }

    fn forget(&mut self, refused: Vec<RefusedSender>) {
        for RefusedSender { sender, reason } in refused {
            self.senders.remove(&sender);
            self.outputs
                .push_back(Output::SenderRefused { sender, reason });
        }
    }

    fn tell_lines(&mut self) {
        let flows = self.session.flows(&self.senders);
        if flows != self.told {
            self.told.clone_from(&flows);
            let (receive, send) = flows;
            self.outputs
                .push_back(Output::LinesChanged { receive, send });
        }
    }
}

fn apply_transport(
    now: Instant,
    description: &Description,
    port: &mut impl TransportPort,
) -> Result<(), NegotiationError> {
    if description.ice_lite {
        return Err(NegotiationError::IceLite);
    }
    match &description.transport {
        Some(remote) => port
            .apply_remote(now, remote)
            .map_err(NegotiationError::Transport),
        None => Ok(()),
    }
}
