//! Random interleavings against the model of a browser, with messages under way in both directions.

use std::collections::VecDeque;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::browser::Browser;
use super::*;

/// How a page behaves when offers cross, and when it has something to offer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manners {
    /// Perfect negotiation, the polite side: offers at once, rolls back.
    Polite,
    /// Perfect negotiation, the impolite side: ignores an offer that crosses its own.
    Impolite,
    /// The old page: asks first; rolls back without knowing, and offers again only when asked to.
    Old,
}

#[derive(Clone, Debug)]
enum ToServer {
    Offer(String),
    Answer(String),
    Ask,
}

#[derive(Clone, Debug)]
enum ToClient {
    Offer(String),
    Answer(String),
    Allowed(bool),
    Settled,
}

struct World {
    bench: Bench,
    browser: Browser,
    manners: Manners,
    /// The old page waits for a reply, or for `ok`.
    asked: bool,
    to_server: VecDeque<ToServer>,
    to_client: VecDeque<ToClient>,
    senders: Vec<SenderId>,
    next_sender: u64,
    /// Answers under way to offers that the page has dropped.
    unwanted: usize,
    /// Not yet answered.
    offered: Option<String>,
    random: StdRng,
}

impl World {
    fn new(manners: Manners, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut bench = Bench::new(random.random_bool(0.5));
        if random.random_bool(0.8) {
            bench.machine.want_channel();
        }
        World {
            bench,
            browser: Browser::default(),
            manners,
            asked: false,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            senders: Vec::new(),
            next_sender: 0,
            offered: None,
            unwanted: 0,
            random,
        }
    }

    fn kind(&mut self) -> MediaKind {
        match self.random.random_bool(0.5) {
            true => MediaKind::Audio,
            false => MediaKind::Video,
        }
    }

    fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..6 => self.add_sender(),
            6..11 if !self.senders.is_empty() => {
                let index = self.random.random_range(0..self.senders.len());
                self.bench
                    .machine
                    .remove_sender(self.senders.swap_remove(index));
            }
            11..16 if self.browser.transceivers.len() < 60 => {
                let kind = self.kind();
                self.browser.add_track(kind);
            }
            16..18 if self.browser.transceivers.len() < 60 => {
                let kind = self.kind();
                self.browser.add_transceiver(kind, false, true);
            }
            18..21 => self.on_a_transceiver(|transceiver| transceiver.wants.send = false),
            21..23 => self.on_a_transceiver(|transceiver| transceiver.stopping = true),
            23..25 => self.browser.restarts += 1,
            25..27 => {
                // Whoever drops an offer that is under way has to drop its answer too.
                self.unwanted += usize::from(self.browser.pending.is_some());
                self.browser.rollback();
            }
            27..30 => self.bench.machine.allow_offers(),
            30..50 => self.page_negotiates(),
            50..70 => self.deliver_to_server(),
            70..90 => self.deliver_to_client(),
            90..99 => {
                let time = Duration::from_millis(self.random.random_range(1..800));
                self.bench.pass(time);
            }
            _ => self.bench.pass(Duration::from_secs(12)),
        }
        self.pump();
    }

    fn add_sender(&mut self) {
        if self.senders.len() >= 20 {
            return;
        }
        let kind = self.kind();
        let id = self.next_sender;
        self.next_sender += 1;
        self.senders.push(SenderId(id));
        self.bench.machine.add_sender(match kind {
            MediaKind::Audio => audio(id),
            MediaKind::Video => video(id),
        });
    }

    fn on_a_transceiver(&mut self, change: impl FnOnce(&mut super::browser::Transceiver)) {
        let count = self.browser.transceivers.len();
        if count > 0 {
            let index = self.random.random_range(0..count);
            change(&mut self.browser.transceivers[index]);
        }
    }

    /// What the page does on `negotiationneeded`, or when its user wants something.
    fn page_negotiates(&mut self) {
        if self.browser.pending.is_some() || !self.browser.needs_negotiation() {
            return;
        }
        if self.manners == Manners::Old {
            if !self.asked {
                self.asked = true;
                self.to_server.push_back(ToServer::Ask);
            }
            return;
        }
        let offer = self.browser.make_offer();
        self.to_server.push_back(ToServer::Offer(offer));
    }

    fn deliver_to_server(&mut self) {
        match self.to_server.pop_front() {
            Some(ToServer::Offer(sdp)) => {
                self.bench
                    .offer(&sdp)
                    .unwrap_or_else(|error| panic!("{error}\n{sdp}"));
                self.offered = Some(sdp);
                self.pump();
            }
            // An answer to an offer whose place another has taken is refused: that is an `error` message.
            Some(ToServer::Answer(sdp)) => match self.bench.answer(&sdp) {
                Ok(())
                | Err(NegotiationError::AnswerWithoutOffer | NegotiationError::AnswerMismatch) => {}
                Err(error) => panic!("{error}\n{sdp}"),
            },
            Some(ToServer::Ask) => {
                let allowed = self.bench.machine.ask_renegotiation(self.bench.now);
                self.to_client.push_back(ToClient::Allowed(allowed));
            }
            None => {}
        }
    }

    fn deliver_to_client(&mut self) {
        match self.to_client.pop_front() {
            Some(ToClient::Offer(sdp)) => {
                let crossing = self.browser.pending.is_some();
                if crossing && self.manners == Manners::Impolite {
                    return;
                }
                if let Ok(answer) = self.browser.take_offer(&sdp) {
                    self.to_server.push_back(ToServer::Answer(answer));
                }
            }
            Some(ToClient::Answer(_)) if self.unwanted > 0 => self.unwanted -= 1,
            Some(ToClient::Answer(sdp)) => {
                // In the state stable, or to another offer: the page logs the exception.
                let _ = self.browser.take_answer(&sdp);
            }
            Some(ToClient::Allowed(true)) => self.old_page_offers(),
            Some(ToClient::Settled) => {
                // The page asks again.
                self.to_server.push_back(ToServer::Ask);
            }
            Some(ToClient::Allowed(false)) | None => {}
        }
    }

    fn old_page_offers(&mut self) {
        self.asked = false;
        if self.browser.pending.is_none() && self.browser.needs_negotiation() {
            let offer = self.browser.make_offer();
            self.to_server.push_back(ToServer::Offer(offer));
        }
    }

    fn pump(&mut self) {
        while let Some(output) = self.bench.poll() {
            match output {
                Output::Answer(sdp) => {
                    narrows(&self.offered.take().expect("nobody asked"), &sdp);
                    self.to_client.push_back(ToClient::Answer(sdp));
                }
                Output::Offer(sdp) => self.to_client.push_back(ToClient::Offer(sdp)),
                Output::RenegotiationSettled => self.to_client.push_back(ToClient::Settled),
                Output::SenderRefused { sender, .. } => self.senders.retain(|id| *id != sender),
                Output::LinesChanged { .. } => {}
            }
        }
    }

    /// Nobody wants anything new: all messages arrive, and time passes.
    fn come_to_rest(&mut self) {
        self.bench.machine.allow_offers();
        self.pump();
        for _ in 0..400 {
            let mut messages = 0;
            while !self.to_server.is_empty() || !self.to_client.is_empty() {
                messages += 1;
                assert!(messages < 1000, "no end of messages");
                self.deliver_to_server();
                self.pump();
                self.deliver_to_client();
                self.pump();
            }
            self.page_negotiates();
            self.bench.pass(Duration::from_millis(500));
            self.pump();
            let quiet = self.to_server.is_empty() && self.to_client.is_empty();
            if quiet
                && self.bench.machine.poll_timeout().is_none()
                && self.browser.pending.is_none()
            {
                return;
            }
        }
        panic!("no rest: {:?} {:?}", self.bench.machine.phase, self.browser);
    }

    /// Both sides believe the same.
    fn check(&self) {
        let machine = &self.bench.machine;
        let ours = &machine.session.lines;
        assert_eq!(ours.len(), self.browser.slots.len());
        for (line, slot) in ours.iter().zip(&self.browser.slots) {
            assert_eq!(line.mid.as_str(), slot.mid);
            assert_eq!(line.media, slot.media);
            assert_eq!(line.is_stopped(), slot.rejected, "{}", line.mid);
            let transceiver = slot.transceiver.map(|t| &self.browser.transceivers[t]);
            let (Some(media), Some(transceiver)) = (line.media_line(), transceiver) else {
                continue;
            };
            assert_eq!(
                media.direction.reversed(),
                transceiver.current,
                "{}",
                line.mid
            );
            if media.direction.send {
                let id = media.sender.expect("nobody sends");
                assert_eq!(transceiver.remote_msid, Some(format!("stream{}", id.0)));
            }
        }
        let (receive, send) = machine.session.flows(&machine.senders);
        let mut sending: Vec<_> = send.iter().map(|line| SenderId(line.sender)).collect();
        let mut wanted = self.senders.clone();
        sending.sort();
        wanted.sort();
        assert_eq!(sending, wanted, "all senders flow");
        let published = self.browser.transceivers.iter();
        let published = published
            .filter(|t| !t.stopped && !t.stopping && t.wants.send)
            .count();
        assert_eq!(receive.len(), published, "all tracks of the client flow");
    }
}

/// RFC 3264, section 6: an answer repeats the m-lines, and never widens a direction or the payload types.
fn narrows(offer: &str, answer: &str) {
    let offer = Description::parse(offer, Role::Offer, 256).unwrap();
    let answer = answer.replace("a=setup:passive", "a=setup:active");
    let answer = Description::parse(&answer, Role::Answer, 256).unwrap();
    assert_eq!(offer.sections.len(), answer.sections.len());
    for (offered, answered) in offer.sections.iter().zip(&answer.sections) {
        assert_eq!(
            (&offered.mid, &offered.media),
            (&answered.mid, &answered.media)
        );
        assert!(offered.live || !answered.live);
        let allowed = offered.direction.reversed();
        assert!(!answered.live || answered.direction.and(allowed) == answered.direction);
        assert!(!answered.live || answered.formats.iter().all(|f| offered.formats.contains(f)));
    }
}

fn interleave(manners: Manners) {
    for seed in 0..60 {
        let mut world = World::new(manners, seed);
        for round in 0..4 {
            for _ in 0..150 {
                world.step();
            }
            world.come_to_rest();
            let state = std::panic::AssertUnwindSafe(|| world.check());
            if std::panic::catch_unwind(state).is_err() {
                panic!("{manners:?}, seed {seed}, round {round}");
            }
        }
    }
}

#[test]
fn a_polite_page_and_the_server_always_come_to_agree() {
    interleave(Manners::Polite);
}

#[test]
fn an_impolite_page_and_the_server_always_come_to_agree() {
    interleave(Manners::Impolite);
}

#[test]
fn the_old_page_and_the_server_always_come_to_agree() {
    interleave(Manners::Old);
}
