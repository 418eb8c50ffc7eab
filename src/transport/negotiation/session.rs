//! The m-lines as both sides know them, and the three ways to the next agreement: the answer to an offer of the
//! client, an offer of our own, and the client's answer to it. Each makes a new [`Session`] and leaves the old one
//! alone, so that a rollback is to forget the new one.

use std::collections::BTreeMap;

use super::codecs::{Payload, PayloadNumbers, best, best_of};
use super::description::{Description, Direction, Section, TrackNames};
use super::extensions::{ExtensionList, ExtensionNumbers};
use super::{ChannelParams, NegotiationError, SenderId, SenderSpec};
use crate::rtp::params::{AnnouncedSsrc, Codec, Encodings, MediaKind, Mid, ReceiveLine, SendLine};

/// Those who want to send, in the order in which they get m-lines.
pub(super) type Senders = BTreeMap<SenderId, SenderSpec>;

/// A sender that cannot have an m-line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RefusedSender {
    pub sender: SenderId,
    /// Part of a sentence for the client.
    pub reason: String,
}

/// Who made an m-line decides what becomes of it when nobody sends on it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MadeBy {
    /// The client's offer. Ours to send on only while the client has never sent on it.
    Client { has_sent: bool },
    /// Our offer. `dedicated`: it is kept without a sender too.
    Server { dedicated: bool },
}

/// An m-line of audio or video that is in use.
#[derive(Clone, Debug)]
pub(super) struct MediaLine {
    pub kind: MediaKind,
    pub made_by: MadeBy,
    /// A sender that has been removed meanwhile counts as none.
    pub sender: Option<SenderId>,
    /// What we said last. As agreed it may be less.
    pub wish: Direction,
    /// What flows, as we see it.
    pub direction: Direction,
    /// What the client said last, as the client sees it.
    pub remote: Direction,
    /// What our description lists, most preferred first.
    pub payloads: Vec<Payload>,
    /// All that the client's last offer listed and we accept.
    pub capable: Vec<Payload>,
    pub extensions: ExtensionList,
    /// Of the track that the client sends; both ids are filled in.
    pub stream_id: String,
    pub track_id: String,
    pub ssrcs: Vec<AnnouncedSsrc>,
    pub encodings: Encodings,
}

/// What an m-line is for.
#[derive(Clone, Debug)]
pub(super) enum LineState {
    /// Port 0: free for another use under another mid (RFC 8829, section 5.2.2).
    Stopped,
    Channel(ChannelParams),
    Media(Box<MediaLine>),
}

/// One m-line.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub mid: Mid,
    pub media: String,
    pub protocol: String,
    /// Of a stopped line, which has to repeat them.
    pub formats: Vec<String>,
    pub state: LineState,
}

impl Line {
    pub(super) fn media_line(&self) -> Option<&MediaLine> {
        match &self.state {
            LineState::Media(line) => Some(line),
            _ => None,
        }
    }

    /// Its formats are payload types.
    pub(super) fn is_rtp(&self) -> bool {
        matches!(self.media.as_str(), "audio" | "video")
    }

    pub(super) fn is_stopped(&self) -> bool {
        matches!(self.state, LineState::Stopped)
    }

    fn media_mut(&mut self) -> Option<&mut MediaLine> {
        match &mut self.state {
            LineState::Media(line) => Some(line),
            _ => None,
        }
    }
}

/// What makes up the names that a client did not give, and the mids of our m-lines. Never rolled back: a mid that
/// was offered once stands for that offer for ever, which is how a late answer is told from another's.
#[derive(Debug)]
pub(super) struct Names {
    next_mid: u64,
    seed: u64,
}

impl Names {
    pub(super) fn new(seed: u64) -> Self {
        Names { next_mid: 0, seed }
    }

    fn mid(&mut self, lines: &[Line]) -> Mid {
        loop {
            let mid = Mid::from(format!("s{}", self.next_mid).as_str());
            self.next_mid += 1;
            if lines.iter().all(|line| line.mid != mid) {
                return mid;
            }
        }
    }

    /// A number that does not come again (SplitMix64). It names things; it keeps no secret.
    pub(super) fn number(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn track_id(&mut self) -> String {
        format!("{:016x}{:016x}", self.number(), self.number())
    }
}

/// A new session, and the senders that found no place in it.
pub(super) type Step = (Session, Vec<RefusedSender>);

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Session {
    pub lines: Vec<Line>,
    payload_numbers: PayloadNumbers,
    extension_numbers: ExtensionNumbers,
    /// The client has rejected the data channel: it is not offered again.
    channel_rejected: bool,
}

impl Session {
    /// The session that follows from an offer of the client. Its m-lines are what the client believes to be there:
    /// where they differ from ours, the client is right, and senders that lose their m-line get another one.
    pub(super) fn answer(&self, offer: &Description, senders: &Senders, names: &mut Names) -> Step {
        let mut next = self.clone();
        let mut refused = Vec::new();
        next.lines.clear();
        for section in &offer.sections {
            if section.kind().is_some() {
                let types = section.payload_types();
                next.payload_numbers.learn(&types, &section.payloads);
                next.extension_numbers.learn(&section.extensions);
            }
        }
        for (index, section) in offer.sections.iter().enumerate() {
            let before = self.lines.get(index).filter(|line| {
                line.mid == section.mid && line.media == section.media && !line.is_stopped()
            });
            let state = match section.kind() {
                Some(kind) => {
                    let before = before.and_then(Line::media_line);
                    answer_media(kind, section, before, senders, names, &mut refused)
                }
                None => match section.channel {
                    Some(channel) if section.live && !next.has_channel() => {
                        LineState::Channel(channel)
                    }
                    _ => LineState::Stopped,
                },
            };
            next.lines.push(Line {
                mid: section.mid.clone(),
                media: section.media.clone(),
                protocol: section.protocol.clone(),
                formats: section.formats.clone(),
                state,
            });
        }
        next.fill_vacant_lines(self, senders, &refused);
        for line in next.lines.iter_mut().filter_map(Line::media_mut) {
            line.settle(senders);
        }
        (next, refused)
    }

    /// The session that we want, if it is another than this one.
    pub(super) fn propose(
        &self,
        senders: &Senders,
        channel: bool,
        limit: usize,
        names: &mut Names,
    ) -> (Option<Session>, Vec<RefusedSender>) {
        let mut next = self.clone();
        let mut refused = Vec::new();
        if channel && !next.has_channel() && !next.channel_rejected {
            next.add_channel(self, limit, names);
        }
        for line in &mut next.lines {
            line.release(senders);
        }
        next.fill_vacant_lines(self, senders, &refused);
        for (id, spec) in senders {
            if !next.has_sender(*id)
                && !next.awaits_silence(spec)
                && let Err(reason) = next.add_line(self, *id, spec, limit, names)
            {
                refused.push(RefusedSender {
                    sender: *id,
                    reason,
                });
            }
        }
        for line in next.lines.iter_mut().filter_map(Line::media_mut) {
            line.settle(senders);
        }
        let changed = next.differs_from(self);
        (changed.then_some(next), refused)
    }

    /// Whether `answer` can be the answer to this session as it was offered.
    pub(super) fn is_answered_by(&self, answer: &Description) -> bool {
        self.lines.len() == answer.sections.len()
            && self
                .lines
                .iter()
                .zip(&answer.sections)
                .all(|(line, section)| {
                    // RFC 9143, section 7.3: the answer repeats the mids; rejected m-lines may lose theirs.
                    let same_mid = line.mid == section.mid
                        || (section.mid.as_str().is_empty() && !section.live);
                    same_mid && line.media == section.media
                })
    }

    /// The session that follows when the client answers this one, which was our offer.
    pub(super) fn complete(
        &self,
        answer: &Description,
        senders: &Senders,
        names: &mut Names,
    ) -> Result<Step, NegotiationError> {
        if !self.is_answered_by(answer) {
            return Err(NegotiationError::AnswerMismatch);
        }
        let mut next = self.clone();
        let mut refused = Vec::new();
        for (line, section) in next.lines.iter_mut().zip(&answer.sections) {
            match &mut line.state {
                LineState::Stopped => {}
                LineState::Channel(params) => match section.channel {
                    Some(theirs) if section.live => *params = theirs,
                    _ => {
                        next.channel_rejected = true;
                        line.stop();
                    }
                },
                LineState::Media(media) => {
                    let lost = media.complete(section, senders, names);
                    refused.extend(lost);
                    if !section.live {
                        line.stop();
                    }
                }
            }
        }
        Ok((next, refused))
    }

    pub(super) fn channel(&self) -> Option<ChannelParams> {
        self.lines.iter().find_map(|line| match line.state {
            LineState::Channel(params) => Some(params),
            _ => None,
        })
    }

    /// The m-line that carries the transport of all (RFC 9143, section 7.1).
    pub(super) fn tagged(&self) -> Option<usize> {
        self.lines.iter().position(|line| !line.is_stopped())
    }

    /// What we receive and what we send now.
    pub(super) fn flows(&self, senders: &Senders) -> (Vec<ReceiveLine>, Vec<SendLine>) {
        let media = || {
            let lines = self.lines.iter();
            lines.filter_map(|line| Some((&line.mid, line.media_line()?)))
        };
        let receive = media().filter_map(|(mid, line)| line.receive_line(mid));
        let send = media().filter_map(|(mid, line)| line.send_line(mid, senders));
        (receive.collect(), send.collect())
    }

    fn has_channel(&self) -> bool {
        self.channel().is_some()
    }

    fn has_sender(&self, id: SenderId) -> bool {
        let mut media = self.lines.iter().filter_map(Line::media_line);
        media.any(|line| line.sender == Some(id))
    }

    fn differs_from(&self, before: &Session) -> bool {
        self.lines.len() != before.lines.len()
            || self.lines.iter().zip(&before.lines).any(|(new, old)| {
                let states = (&new.state, &old.state);
                let same = match states {
                    (LineState::Stopped, LineState::Stopped) => true,
                    (LineState::Channel(_), LineState::Channel(_)) => true,
                    (LineState::Media(new), LineState::Media(old)) => {
                        new.wish == old.wish && (new.sender == old.sender || !new.wish.send)
                    }
                    _ => false,
                };
                new.mid != old.mid || !same
            })
    }

    /// Puts senders without an m-line on those that the client made for receiving, and on the dedicated ones.
    /// Nothing may flow on them in the `agreed` session: only a change of direction makes `ontrack` fire.
    fn fill_vacant_lines(
        &mut self,
        agreed: &Session,
        senders: &Senders,
        refused: &[RefusedSender],
    ) {
        for (id, spec) in senders {
            if self.has_sender(*id) || refused.iter().any(|r| r.sender == *id) {
                continue;
            }
            let vacant = self.lines.iter_mut().position(|line| {
                let silent = agreed
                    .lines
                    .iter()
                    .filter(|old| old.mid == line.mid)
                    .all(|old| old.media_line().is_none_or(|media| !media.direction.send));
                silent && line.media_mut().is_some_and(|media| media.takes(spec))
            });
            if let Some(media) = vacant.and_then(|index| self.lines[index].media_mut()) {
                media.sender = Some(*id);
                if let Some(payload) = best_of(&media.capable, spec.codec) {
                    media.payloads = vec![payload.clone()];
                }
            }
        }
    }

    /// Whether the dedicated m-line that this sender shall have still carries the one before: it falls silent
    /// first, and the next offer puts the sender there.
    fn awaits_silence(&self, spec: &SenderSpec) -> bool {
        let mut media = self.lines.iter().filter_map(Line::media_line);
        media.any(|line| line.takes(spec) && line.made_by == MadeBy::Server { dedicated: true })
    }

    fn add_channel(&mut self, agreed: &Session, limit: usize, names: &mut Names) {
        let line = Line {
            mid: names.mid(&self.lines),
            media: "application".to_owned(),
            protocol: "UDP/DTLS/SCTP".to_owned(),
            formats: vec!["webrtc-datachannel".to_owned()],
            state: LineState::Channel(ChannelParams::default()),
        };
        // Without a place there is no data channel; the session works all the same.
        let _ = self.place(agreed, line, limit);
    }

    fn add_line(
        &mut self,
        agreed: &Session,
        id: SenderId,
        spec: &SenderSpec,
        limit: usize,
        names: &mut Names,
    ) -> Result<(), String> {
        let Some(payload) = self.payload_numbers.for_offer(spec.codec) else {
            return Err("the client uses all payload types for something else".to_owned());
        };
        let line = Line {
            mid: names.mid(&self.lines),
            media: spec.kind.as_str().to_owned(),
            protocol: "UDP/TLS/RTP/SAVPF".to_owned(),
            formats: Vec::new(),
            state: LineState::Media(Box::new(MediaLine {
                kind: spec.kind,
                made_by: MadeBy::Server {
                    dedicated: spec.dedicated,
                },
                sender: Some(id),
                wish: Direction::default(),
                direction: Direction::default(),
                remote: Direction {
                    send: false,
                    receive: true,
                },
                capable: vec![payload.clone()],
                payloads: vec![payload],
                extensions: self.extension_numbers.for_offer(spec.kind),
                stream_id: String::new(),
                track_id: String::new(),
                ssrcs: Vec::new(),
                encodings: Encodings::Single,
            })),
        };
        self.place(agreed, line, limit)
    }

    /// Recycles an m-line that both sides know as stopped (RFC 8829, section 5.2.2), or appends one.
    fn place(&mut self, agreed: &Session, line: Line, limit: usize) -> Result<(), String> {
        let free = self
            .lines
            .iter()
            .zip(&agreed.lines)
            .position(|(now, before)| {
                now.is_stopped() && before.is_stopped() && before.media == line.media
            });
        match free {
            Some(index) => self.lines[index] = line,
            None if self.lines.len() < limit => self.lines.push(line),
            None => {
                return Err(format!(
                    "the session has {limit} m-lines, which is the most"
                ));
            }
        }
        Ok(())
    }
}

impl Line {
    fn stop(&mut self) {
        if let LineState::Media(media) = &self.state {
            let numbers = media.payloads.iter().map(|p| p.payload_type.to_string());
            self.formats = numbers.collect();
        }
        self.state = LineState::Stopped;
    }

    /// Before an offer of ours: senders that are gone leave their m-line, and m-lines of ours that nobody uses
    /// are stopped.
    fn release(&mut self, senders: &Senders) {
        let Some(media) = self.media_mut() else {
            return;
        };
        media.sender = media.sender.filter(|id| senders.contains_key(id));
        let ours = media.made_by == MadeBy::Server { dedicated: false };
        if ours && media.sender.is_none() && !media.remote.send {
            self.stop();
        }
    }
}

fn answer_media(
    kind: MediaKind,
    section: &Section,
    before: Option<&MediaLine>,
    senders: &Senders,
    names: &mut Names,
    refused: &mut Vec<RefusedSender>,
) -> LineState {
    let sender = before.and_then(|line| line.sender);
    let sender = sender.and_then(|id| senders.get_key_value(&id));
    let mut refuse = |reason: &str| {
        refused.extend(sender.map(|(id, _)| RefusedSender {
            sender: *id,
            reason: reason.to_owned(),
        }));
    };
    if !section.live {
        refuse("the client has stopped its m-line");
        return LineState::Stopped;
    }
    let accepted = &section.payloads;
    let sent = sender.map(|(_, spec)| (spec.codec, best_of(accepted, spec.codec)));
    if let Some((codec, None)) = sent {
        refuse(&cannot_decode(codec));
    }
    let sent = sent.and_then(|(_, payload)| payload);
    let received = best(accepted).filter(|_| section.direction.send);
    let mut payloads: Vec<Payload> = received.into_iter().cloned().collect();
    payloads.extend(sent.filter(|p| Some(*p) != received).cloned());
    if payloads.is_empty() {
        payloads = accepted.clone();
    }
    if payloads.is_empty() {
        return LineState::Stopped;
    }
    let sender = sender.filter(|_| sent.is_some()).map(|(id, _)| *id);
    let made_by = match before.map(|line| line.made_by) {
        Some(MadeBy::Server { dedicated }) => MadeBy::Server { dedicated },
        Some(MadeBy::Client { has_sent }) => MadeBy::Client {
            has_sent: has_sent || (section.direction.send && sender.is_none()),
        },
        None => MadeBy::Client {
            has_sent: section.direction != RECEIVE_ONLY,
        },
    };
    let mut line = MediaLine {
        kind,
        made_by,
        sender,
        wish: Direction::default(),
        direction: Direction::default(),
        remote: section.direction,
        payloads,
        capable: accepted.clone(),
        extensions: ExtensionList::accepted(
            kind,
            &section.extensions,
            matches!(section.encodings, Encodings::Rids(_)),
        ),
        stream_id: before.map(|b| b.stream_id.clone()).unwrap_or_default(),
        track_id: before.map(|b| b.track_id.clone()).unwrap_or_default(),
        ssrcs: Vec::new(),
        encodings: section.encodings.clone(),
    };
    line.learn_track(section, names);
    LineState::Media(Box::new(line))
}

const RECEIVE_ONLY: Direction = Direction {
    send: false,
    receive: true,
};

fn cannot_decode(codec: Codec) -> String {
    format!("the client cannot decode {}", codec.encoding_name())
}

impl MediaLine {
    /// Whether a sender without an m-line may sit here.
    fn takes(&self, spec: &SenderSpec) -> bool {
        if self.kind != spec.kind || self.sender.is_some() {
            return false;
        }
        let decodes = best_of(&self.capable, spec.codec).is_some();
        match self.made_by {
            MadeBy::Client { has_sent } => !has_sent && self.remote == RECEIVE_ONLY && decodes,
            MadeBy::Server { dedicated } => dedicated && spec.dedicated && decodes,
        }
    }

    /// Says what we want, and agrees as far as the client's last word allows.
    fn settle(&mut self, senders: &Senders) {
        let sends = self.sender.is_some_and(|id| senders.contains_key(&id));
        self.wish = Direction {
            send: sends,
            receive: self.remote.send,
        };
        self.direction = self.wish.and(self.remote.reversed());
    }

    /// The client's answer to our offer of this m-line. Gives the sender back that cannot stay.
    fn complete(
        &mut self,
        section: &Section,
        senders: &Senders,
        names: &mut Names,
    ) -> Option<RefusedSender> {
        let offered = self.payloads.iter();
        let payloads: Vec<Payload> = offered
            .filter_map(|payload| payload.confirmed(&section.payloads))
            .collect();
        let sender = self.sender.and_then(|id| senders.get_key_value(&id));
        let lost =
            sender.filter(|(_, spec)| !section.live || best_of(&payloads, spec.codec).is_none());
        let refused = lost.map(|(id, spec)| RefusedSender {
            sender: *id,
            reason: cannot_decode(spec.codec),
        });
        if refused.is_some() {
            self.sender = None;
        }
        self.remote = section.direction;
        self.direction = self.wish.and(self.remote.reversed());
        self.direction.send &= self.sender.is_some();
        self.extensions = self.extensions.confirmed(self.kind, &section.extensions);
        if !payloads.is_empty() {
            self.payloads = payloads;
        }
        self.learn_track(section, names);
        refused
    }

    fn learn_track(&mut self, section: &Section, names: &mut Names) {
        if !section.direction.send {
            return;
        }
        let TrackNames { stream, track } = section.track.clone();
        if let Some(track) = track {
            self.stream_id = stream.unwrap_or_else(|| track.clone());
            self.track_id = track;
        } else if self.track_id.is_empty() {
            self.track_id = names.track_id();
            self.stream_id = stream.unwrap_or_else(|| self.track_id.clone());
        }
        self.ssrcs.clone_from(&section.ssrcs);
    }

    fn receive_line(&self, mid: &Mid) -> Option<ReceiveLine> {
        self.direction.receive.then(|| ReceiveLine {
            mid: mid.clone(),
            kind: self.kind,
            payloads: self.payloads.iter().map(Payload::params).collect(),
            extensions: self.extensions.ids(),
            ssrcs: self.ssrcs.clone(),
            encodings: self.encodings.clone(),
            stream_id: self.stream_id.clone(),
            track_id: self.track_id.clone(),
        })
    }

    fn send_line(&self, mid: &Mid, senders: &Senders) -> Option<SendLine> {
        let id = self.sender.filter(|_| self.direction.send)?;
        let spec = senders.get(&id)?;
        Some(SendLine {
            sender: id.0,
            mid: mid.clone(),
            kind: self.kind,
            payloads: self.payloads.iter().map(Payload::params).collect(),
            extensions: self.extensions.ids(),
            ssrc: spec.ssrc,
            rtx_ssrc: spec.rtx_ssrc,
            cname: spec.cname.clone(),
        })
    }
}
