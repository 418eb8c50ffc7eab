//! Looking after peers: when their timers are due, when something happened to them, and once a second for their figures.

use std::time::{Duration, Instant, SystemTime};

use crate::ids::TrackKey;
use crate::rtp::ntp::Ntp;
use crate::sfu::SenderClock;
use crate::worker::demux::Slot;
use crate::worker::state::MediaRoom;
use crate::worker::thread::{LONGEST_SLEEP, TIMER_GRAIN, Worker};
use crate::worker::{Event, STATS_INTERVAL};

/// Figures are told at so many times in [`STATS_INTERVAL`], so that a worker of thousands does not stand for all at once.
const REPORT_PHASES: usize = 4;
const REPORT_PHASE: Duration = Duration::from_millis(250);

/// What a peer is sent, with its clock.
type Clocks = smallvec::SmallVec<[(TrackKey, SenderClock); 16]>;

impl Worker {
    pub(super) fn run_timers(&mut self, now: Instant) {
        self.service_touched(now);
        if self.timers.next() > now {
            return;
        }
        for room in self.rooms.values_mut() {
            room.flush_backlog();
        }
        self.elect(now);
        self.socket.streams.sweep(now);
        let packets = self.socket.packets();
        self.load.note(now, packets, self.peers.len());
        let slots: smallvec::SmallVec<[Slot; 64]> = self.timers.due(now).collect();
        for slot in slots {
            let Some(peer) = self.peers.get_mut(slot) else {
                continue;
            };
            if peer.stats_due <= now {
                self.report(now, slot);
            }
            let Some(peer) = self.peers.get_mut(slot) else {
                continue;
            };
            if peer.deadline <= now {
                peer.session.handle_timeout(now);
                if let Some(speaking) = peer.speaking.handle_timeout(now) {
                    self.on_voice(now, slot, None, speaking);
                }
                self.service(now, slot);
            }
            if self
                .peers
                .get(slot)
                .is_some_and(|peer| peer.bandwidth.due <= now)
            {
                self.allocate(now, slot);
            }
            if let Some(peer) = self.peers.get(slot) {
                self.timers.set(slot, peer.due());
            }
        }
        self.service_touched(now);
        self.timers.rest(now + TIMER_GRAIN, now + LONGEST_SLEEP);
    }

    /// Looks after every peer that something happened to, until nothing more happens.
    pub(super) fn service_touched(&mut self, now: Instant) {
        loop {
            while let Some(slot) = self.touched.pop() {
                self.service(now, slot);
            }
            // Looking at every peer for its flag is for what is rare: commands, and what comes of them.
            if !std::mem::take(&mut self.flagged) {
                return;
            }
            let flagged = self.peers.iter().filter(|(_, peer)| peer.touched);
            self.touched.extend(flagged.map(|(slot, _)| slot));
        }
    }

    /// Hears what a session has to say, sends what is due, and notes when it is due again.
    fn service(&mut self, now: Instant, slot: Slot) {
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        peer.touched = false;
        loop {
            let Some(peer) = self.peers.get_mut(slot) else {
                return;
            };
            let Some(event) = peer.session.poll_event(now, &mut self.socket) else {
                break;
            };
            self.on_session(now, slot, event);
            self.flagged = true;
        }
        if let Some(ufrags) = self.peers[slot].session.poll_ufrags() {
            self.demux.set_ufrags(slot, ufrags);
        }
        let wall = Ntp::from_system(SystemTime::now());
        let mut clocks: Clocks = Default::default();
        let reports = self.peers[slot].session.subscriber.poll_timeout();
        if reports.is_some_and(|at| at <= now) {
            let flows = self.peers[slot].session.subscriber.flows();
            clocks.extend(
                flows.filter_map(|(key, stream)| Some((key, self.clock(slot, key, stream)?))),
            );
        }
        let peer = &mut self.peers[slot];
        peer.session.poll_media(now, wall, &mut |key| {
            clocks
                .iter()
                .find(|(known, _)| *known == key)
                .map(|(_, clock)| *clock)
        });
        if !peer.session.outbox.is_empty() && !peer.dirty {
            peer.dirty = true;
            self.dirty.push(slot);
        }
        peer.deadline = peer.session.poll_timeout().unwrap_or(now + LONGEST_SLEEP);
        self.timers.wake(slot, peer.deadline);
    }

    /// RTP time against the wall, for sender reports of what `slot` is sent.
    fn clock(&self, slot: Slot, key: TrackKey, stream: u32) -> Option<SenderClock> {
        match self.tracks.get(&key) {
            Some(track) => self
                .peers
                .get(track.publisher)?
                .session
                .publisher
                .clock(key, stream),
            None => self
                .rooms
                .get(&self.peers[slot].room)?
                .mixed_clock(key, stream),
        }
    }

    /// When a peer's figures are due next. Those of a quarter of all peers come together: whom they are told to is woken
    /// once, not for each of them.
    pub(super) fn next_report(&self, now: Instant, slot: Slot) -> Instant {
        let phase = REPORT_PHASE * (slot % REPORT_PHASES) as u32;
        let since = now.saturating_duration_since(self.started + phase);
        let next = since.as_nanos() / STATS_INTERVAL.as_nanos() + 1;
        self.started + phase + STATS_INTERVAL * next as u32
    }

    fn report(&mut self, now: Instant, slot: Slot) {
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        let room = peer.room;
        if self.rooms.get(&room).is_some_and(MediaRoom::is_mix_broken) {
            self.update_bus(room);
        }
        self.note_loss(slot);
        let due = self.next_report(now, slot);
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        peer.stats_due = due;
        if let Some(round_trip) = peer.session.subscriber.round_trip() {
            peer.session.publisher.set_round_trip(round_trip);
        }
        if !peer.session.is_connected() {
            return;
        }
        let stats = super::figures::peer_stats(now, peer, &self.tracks, &self.codecs.ladder);
        self.emit(slot, |peer| Event::Stats {
            peer,
            stats: Box::new(stats),
        });
    }
}
