//! When what goes to a peer leaves: estimate, pacer, probes.

use std::time::{Duration, Instant};

use super::Subscriber;
use crate::rtp::bwe::Estimator;
use crate::rtp::params::MediaKind;
use crate::sfu::{DropReason, Received};

/// What waits longer than this at the pace of the link is dropped when a keyframe makes it useless; and no frame begins to
/// wait behind it of a layer that is being left for a lower one.
const STALE: Duration = Duration::from_millis(100);

/// What became of a packet that is to go to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// It was appended and is to leave now; the length of its header.
    Now(usize),
    /// The pacer keeps it: [`Subscriber::poll_paced`] gives it out.
    Held,
}

impl Subscriber {
    /// As [`Self::forward`], at the pace of the peer's link: nothing is appended for a packet that has to wait.
    pub fn send(
        &mut self,
        now: Instant,
        sender: u64,
        packet: &Received<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Sending, DropReason> {
        let video = packet.codec.kind() == MediaKind::Video;
        if video {
            self.make_way(sender, packet);
            if self.is_full_for(sender) && self.interrupt(sender, packet) {
                self.drops.count(DropReason::PacerFull);
                return Err(DropReason::PacerFull);
            }
        }
        let start = out.len();
        self.leg.take_number();
        let header_len = self.forward(now, sender, packet, out)?;
        if !video || self.congestion.pacer.is_open(now) {
            self.note_sent(now, out.len() - start);
            return Ok(Sending::Now(header_len));
        }
        let numbered = self.leg.take_back();
        let pacer = &mut self.congestion.pacer;
        let held = pacer.hold(sender, header_len, numbered, &out[start..]);
        out.truncate(start);
        if held {
            return Ok(Sending::Held);
        }
        if let Some(at) = self.position(sender) {
            self.senders[at].interrupt();
        }
        self.drops.count(DropReason::PacerFull);
        Err(DropReason::PacerFull)
    }

    /// A keyframe that comes for a link which has become slower is not to wait for what it replaces, nor for repairs of
    /// that.
    fn make_way(&mut self, sender: u64, packet: &Received<'_>) {
        let crowded = self.is_crowded() || self.congestion.pacer.delay() > STALE;
        if !packet.keyframe || !crowded {
            return;
        }
        let Some(at) = self.position(sender) else {
            return;
        };
        if self.senders[at].would_begin(packet) {
            let dropped = self.congestion.pacer.discard(sender);
            self.drops.count_many(DropReason::Superseded, dropped);
            self.senders[at].forget_sent();
            self.wanted.retain(|(of, _)| *of != sender);
        }
    }

    fn is_full_for(&self, sender: u64) -> bool {
        let pacer = &self.congestion.pacer;
        let falling = || {
            self.position(sender)
                .is_some_and(|at| self.senders[at].is_falling())
        };
        pacer.is_full() || (pacer.delay() > STALE && falling())
    }

    /// Leaves frames out while the pacer is full: true for what belongs to a frame that has not begun to be sent.
    fn interrupt(&mut self, sender: u64, packet: &Received<'_>) -> bool {
        let Some(at) = self.position(sender) else {
            return false;
        };
        let sender = &mut self.senders[at];
        if sender.begins_frame(packet) {
            sender.interrupt();
        }
        sender.current().is_none()
    }

    /// Appends the next packet that had to wait, plain, if it may leave now; returns its header's length. Call until
    /// `None`.
    pub fn poll_paced(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<usize> {
        loop {
            let held = self.congestion.pacer.release(now)?;
            let ids = self
                .position(held.sender)
                .and_then(|at| self.senders[at].extensions());
            let Some(ids) = ids else {
                self.drops.count(DropReason::NotNegotiated);
                self.congestion.pacer.recycle(held);
                continue;
            };
            let start = out.len();
            out.extend_from_slice(&held.packet);
            self.leg.stamp(now, ids, held.numbered, &mut out[start..]);
            self.note_sent(now, out.len() - start);
            let header_len = held.header_len;
            self.congestion.pacer.recycle(held);
            return Some(header_len);
        }
    }

    /// Appends a packet of padding, plain, if a probe needs one now; returns its header's length. Call until `None`.
    pub fn poll_padding(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<usize> {
        if self.congestion.estimator.poll_padding(now) == 0 {
            return None;
        }
        let start = out.len();
        let (senders, leg) = (&mut self.senders, &mut self.leg);
        let header_len = senders
            .iter_mut()
            .find_map(|sender| sender.pad(now, leg, out));
        match header_len {
            Some(_) => {
                let number = self.leg.take_number();
                let size = out.len() - start;
                self.congestion.handle_padding(now, number, size);
            }
            None => self.congestion.estimator.abandon_probe(now),
        }
        header_len
    }

    /// What the link to the peer can take.
    pub fn estimator(&self) -> &Estimator {
        &self.congestion.estimator
    }

    /// For limits and wishes; [`Self::adjust_pace`] afterwards.
    pub fn estimator_mut(&mut self) -> &mut Estimator {
        &mut self.congestion.estimator
    }

    /// Brings the pacer in line with the estimate. From the first call on there is pacing.
    pub fn adjust_pace(&mut self, now: Instant) {
        self.congestion.adjust(now);
    }

    pub(super) fn note_sent(&mut self, now: Instant, size: usize) {
        let number = self.leg.take_number();
        self.congestion.handle_sent(now, number, size);
    }

    pub(super) fn pace_timeout(&self) -> impl Iterator<Item = Instant> {
        let pacer = &self.congestion.pacer;
        let waiting = pacer.room_at().filter(|_| !self.wanted.is_empty());
        let estimator = self.congestion.estimator.poll_timeout();
        pacer
            .poll_timeout()
            .into_iter()
            .chain(waiting)
            .chain(estimator)
    }
}

#[cfg(test)]
mod tests;
