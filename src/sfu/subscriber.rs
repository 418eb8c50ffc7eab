//! Everything that is sent to one peer.

mod paced;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

pub use paced::Sending;

use super::congestion::Congestion;
use super::forwarder::{Forwarder, Leg};
use super::{DropCounters, DropReason, Layer, Received, SenderClock, Target};
use crate::ids::TrackKey;
use crate::prefetch::prefetch;
use crate::rtp::ntp::Ntp;
use crate::rtp::params::{Codec, MediaKind, SendLine, Ssrc};
use crate::rtp::playout::RepairTime;
use crate::rtp::rtcp::{self, ReportBlock, Rtcp};
use crate::rtp::twcc::Feedback;

/// Packets that a peer has asked for again and that wait to be sent. What comes while it is full is dropped: the
/// peer asks again.
pub const MAX_WANTED: usize = 512;
/// Senders that have neither a track nor an m-line any more, but have sent: kept, so that one which comes back with
/// its SSRC goes on where it stopped. The oldest is forgotten for a newer one.
pub const MAX_IDLE: usize = 128;
/// Assumed until a report tells the round trip.
const DEFAULT_ROUND_TRIP: Duration = Duration::from_millis(100);
/// A path with a longer queue may lose because too much is sent: nothing is added there.
const CROWDED: Duration = Duration::from_millis(100);
/// Shorter than this, one answer would cross the next request.
const MIN_ROUND_TRIP: Duration = Duration::from_millis(20);

/// The figures of one sender. Counters since its m-line began.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SenderStats {
    /// Which sender.
    pub sender: u64,
    /// What it carries.
    pub track: TrackKey,
    /// The layer that flows.
    pub layer: Option<Layer>,
    /// The best layer of the track that its publisher sends now.
    pub best_layer: Layer,
    /// Audio or video.
    pub kind: MediaKind,
    /// Codec.
    pub codec: Codec,
    /// Packets sent, retransmissions not counted.
    pub packets_sent: u64,
    /// Payload bytes sent.
    pub bytes_sent: u64,
    /// Bit/s since the last reading.
    pub bitrate: u64,
    /// Retransmissions sent.
    pub retransmitted: u64,
    /// Cumulative loss that the receiver reported.
    pub packets_lost: u64,
    /// Fraction lost of its last report, 0 to 1.
    pub fraction_lost: f32,
}

/// What a peer's transport-wide feedback said. The bandwidth estimate reads the same messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeedbackCounters {
    /// Messages.
    pub messages: u64,
    /// Packets that came.
    pub received: u64,
    /// Packets that did not.
    pub missing: u64,
}

/// Forwards packets to one peer, and answers what it asks.
///
/// A sender is known by its id and joins a [`SendLine`] of the same id with the track that is attached to it;
/// either may come first. A new id has a new SSRC.
#[derive(Debug)]
pub struct Subscriber {
    own_ssrc: Ssrc,
    ids: Vec<u64>,
    senders: Vec<Forwarder>,
    leg: Leg,
    wanted: VecDeque<(u64, u16)>,
    round_trip: Option<Duration>,
    repair: RepairTime,
    congestion: Congestion,
    feedback: FeedbackCounters,
    drops: DropCounters,
}

impl Subscriber {
    /// A peer that receives nothing yet. `own_ssrc` sends what belongs to no media stream.
    pub fn new(own_ssrc: Ssrc) -> Self {
        Subscriber {
            own_ssrc,
            ids: Vec::new(),
            senders: Vec::new(),
            leg: Leg::default(),
            wanted: VecDeque::with_capacity(MAX_WANTED),
            round_trip: None,
            repair: RepairTime::default(),
            congestion: Congestion::default(),
            feedback: FeedbackCounters::default(),
            drops: DropCounters::default(),
        }
    }

    /// The m-lines that we may send on, after each negotiation. A sender whose line is missing stops.
    pub fn set_lines(&mut self, lines: &[SendLine]) {
        for line in lines {
            self.sender_mut(line.sender);
        }
        for (id, sender) in self.ids.iter().zip(&mut self.senders) {
            sender.set_line(lines.iter().find(|line| line.sender == *id));
        }
        self.remove_idle();
    }

    /// Carries `source` on `sender` from its next packet on; also in the middle of another source's stream. True:
    /// nothing flows before a keyframe of `source`, so ask for one.
    pub fn attach(&mut self, sender: u64, source: TrackKey, codec: Codec) -> bool {
        self.sender_mut(sender).attach(source, codec)
    }

    /// What `sender` carries is withheld for a while. It goes on where it stopped, video with a keyframe.
    pub fn pause(&mut self, sender: u64) {
        if let Some(at) = self.position(sender) {
            self.senders[at].pause();
        }
    }

    /// `sender` carries nothing any more.
    pub fn detach(&mut self, sender: u64) {
        if let Some(at) = self.position(sender) {
            self.senders[at].detach();
        }
        self.remove_idle();
    }

    /// Sets what `sender` is to carry of its track; at first everything. What flows goes on until a keyframe of the
    /// returned layer comes, so ask that layer for one. A pause takes effect at once.
    pub fn set_target(&mut self, sender: u64, target: Target) -> Option<Layer> {
        let at = self.position(sender)?;
        self.senders[at].set_target(target)
    }

    /// The layer that flows on `sender` now. `None`: it is paused, carries nothing, or waits for a keyframe.
    pub fn current(&self, sender: u64) -> Option<Layer> {
        self.senders[self.position(sender)?].current()
    }

    /// The tracks that flow, with the stream of each (see [`Received::generation`]).
    pub fn flows(&self) -> impl Iterator<Item = (TrackKey, u32)> + '_ {
        self.senders.iter().filter_map(Forwarder::flow)
    }

    /// Appends `packet` as it goes to this peer on `sender`: header (its length is returned), then payload, both
    /// plain. On an error nothing is appended; after [`DropReason::AwaitingKeyframe`] the publisher is to be asked
    /// for one.
    pub fn forward(
        &mut self,
        now: Instant,
        sender: u64,
        packet: &Received<'_>,
        out: &mut Vec<u8>,
    ) -> Result<usize, DropReason> {
        let result = match self.position(sender) {
            Some(at) => self.senders[at].forward(now, &mut self.leg, packet, out),
            None => Err(DropReason::NotAttached),
        };
        result.inspect_err(|reason| self.drops.count(*reason))
    }

    /// A decrypted RTCP compound of the peer, as far as it is about what we send. Returns the tracks and layers of
    /// which it wants a keyframe; afterwards [`Self::poll_retransmission`] may have something.
    pub fn handle_rtcp(
        &mut self,
        now: Instant,
        wall: Ntp,
        compound: &[u8],
    ) -> SmallVec<[(TrackKey, Layer); 4]> {
        let mut wishes = SmallVec::new();
        let mut reported = (0, 0);
        for packet in rtcp::packets(compound) {
            match packet {
                Ok(Rtcp::SenderReport { blocks, .. } | Rtcp::ReceiverReport { blocks }) => {
                    for block in blocks {
                        let (received, lost) = self.handle_block(wall, block);
                        reported.0 += received;
                        reported.1 += lost;
                    }
                }
                Ok(Rtcp::Nack { media, seqs }) => self.handle_nack(media, seqs),
                Ok(Rtcp::Pli { media }) => self.wish(media, &mut wishes),
                Ok(Rtcp::Fir { requests }) => {
                    requests.for_each(|(media, _)| self.wish(media, &mut wishes));
                }
                Ok(Rtcp::TransportWide(feedback)) => self.handle_feedback(now, feedback),
                Ok(Rtcp::Remb { bps }) => self.congestion.estimator.handle_remb(now, bps),
                Ok(Rtcp::Bye { .. } | Rtcp::Other { .. }) => {}
                Err(_) => self.drops.count(DropReason::MalformedRtcp),
            }
        }
        let (received, lost) = reported;
        if received + lost > 0 {
            self.congestion.estimator.handle_report(now, received, lost);
            let sent = u64::from(received) + u64::from(lost);
            // Holding pictures back helps against what a path loses, not against what did not fit.
            if !self.congestion.estimator.lost_by_choking() {
                self.repair.handle_packets(sent, lost.into());
            }
            let crowded = self.is_crowded();
            self.leg.set_losses(&self.repair, crowded);
        }
        wishes
    }

    /// Loads what the next packet will need: see [`crate::prefetch`].
    pub fn prefetch(&self) {
        prefetch(self.ids.as_slice());
        prefetch(self.senders.as_slice());
    }

    /// Share of the packets that the way to the peer loses, smoothed: 0 to 1.
    pub fn loss(&self) -> f64 {
        self.repair.loss()
    }

    /// Appends one packet that was asked for again, plain; returns its header's length. Call until `None`: the rest
    /// may wait for the pacer.
    pub fn poll_retransmission(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<usize> {
        if self.wanted.is_empty() || !self.congestion.pacer.has_room(now) {
            return None;
        }
        let start = out.len();
        let crowded = self.is_crowded();
        let round_trip = self
            .round_trip
            .unwrap_or(DEFAULT_ROUND_TRIP)
            .max(MIN_ROUND_TRIP);
        // Reports are rare: a queue that has grown since the last one delays the answer, which is not to be sent again.
        let round_trip = round_trip + self.congestion.estimator.excess_queue();
        while let Some((sender, seq)) = self.wanted.pop_front() {
            let result = match self.position(sender) {
                // What a full queue lost would fill it again, before the keyframe that makes it useless.
                Some(at) if crowded && self.senders[at].is_falling() => {
                    Err(DropReason::RetransmissionOfLeft)
                }
                Some(at) => self.senders[at].retransmit(now, &mut self.leg, seq, round_trip, out),
                None => Err(DropReason::RetransmissionGone),
            };
            match result {
                Ok(header_len) => {
                    self.note_sent(now, out.len() - start);
                    return Some(header_len);
                }
                Err(reason) => self.drops.count(reason),
            }
        }
        None
    }

    /// Appends one plain compound of sender report and description, if one is due: once a second for each sender,
    /// at first as soon as it has sent. `clock` is the publisher's [`super::Publisher::clock`]. Call until false.
    pub fn poll_report(
        &mut self,
        now: Instant,
        wall: Ntp,
        clock: &mut dyn FnMut(TrackKey) -> Option<SenderClock>,
        out: &mut Vec<u8>,
    ) -> bool {
        self.senders
            .iter_mut()
            .any(|sender| sender.poll_report(now, wall, clock, out))
    }

    /// When [`Self::poll_report`], [`Self::poll_retransmission`], [`Self::poll_paced`] or [`Self::poll_padding`] next
    /// has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let reports = self.senders.iter().filter_map(Forwarder::report_at);
        reports.chain(self.pace_timeout()).min()
    }

    /// Round trip by the last report.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// The figures of those senders that carry a track on an m-line.
    pub fn stats(&mut self, now: Instant) -> Vec<SenderStats> {
        self.ids
            .iter()
            .zip(&mut self.senders)
            .filter_map(|(id, sender)| sender.stats(now, *id))
            .collect()
    }

    /// What was not sent, and why.
    pub fn counters(&self) -> &DropCounters {
        &self.drops
    }

    /// What the peer's transport-wide feedback said.
    pub fn feedback(&self) -> FeedbackCounters {
        self.feedback
    }

    /// The sender of RTCP that belongs to no media stream.
    pub fn own_ssrc(&self) -> Ssrc {
        self.own_ssrc
    }

    /// Bytes held for retransmission.
    pub fn memory(&self) -> usize {
        self.senders.iter().map(Forwarder::memory).sum()
    }

    fn is_crowded(&self) -> bool {
        let estimator = &self.congestion.estimator;
        estimator.queue_delay().max(estimator.excess_queue()) > CROWDED
    }

    fn position(&self, sender: u64) -> Option<usize> {
        self.ids.iter().position(|id| *id == sender)
    }

    fn sender_mut(&mut self, sender: u64) -> &mut Forwarder {
        let at = self.position(sender).unwrap_or_else(|| {
            self.ids.push(sender);
            self.senders.push(Forwarder::default());
            self.ids.len() - 1
        });
        &mut self.senders[at]
    }

    /// Forgets senders that are of no more use; those that have sent are remembered up to [`MAX_IDLE`].
    fn remove_idle(&mut self) {
        let idle = self.senders.iter().filter(|sender| sender.is_idle());
        let mut surplus = idle
            .filter(|sender| !sender.is_fresh())
            .count()
            .saturating_sub(MAX_IDLE);
        let mut at = 0;
        while let Some(sender) = self.senders.get(at) {
            if sender.is_idle() && (sender.is_fresh() || surplus > 0) {
                surplus -= usize::from(!sender.is_fresh());
                self.senders.remove(at);
                self.ids.remove(at);
            } else {
                at += 1;
            }
        }
    }

    fn by_ssrc(&self, ssrc: Ssrc) -> Option<usize> {
        self.senders
            .iter()
            .position(|sender| sender.ssrc() == Some(ssrc))
    }

    fn handle_block(&mut self, wall: Ntp, block: ReportBlock) -> (u32, u32) {
        let Some(at) = self.by_ssrc(block.ssrc) else {
            return (0, 0);
        };
        let counts = self.senders[at].handle_report(block);
        if let Some(round_trip) = round_trip(wall, block) {
            self.round_trip = Some(round_trip);
            self.repair.set_round_trip(round_trip);
        }
        counts
    }

    fn handle_nack(&mut self, media: Ssrc, seqs: impl Iterator<Item = u16>) {
        let Some(at) = self.by_ssrc(media) else {
            return;
        };
        let sender = self.ids[at];
        for seq in seqs {
            if self.wanted.len() < MAX_WANTED {
                self.wanted.push_back((sender, seq));
            } else {
                self.drops.count(DropReason::RetransmissionQueueFull);
            }
        }
    }

    fn handle_feedback(&mut self, now: Instant, feedback: Feedback<'_>) {
        self.congestion.handle_feedback(now, &feedback);
        self.feedback.messages += 1;
        for (_, arrival) in feedback.packets() {
            match arrival {
                Some(_) => self.feedback.received += 1,
                None => self.feedback.missing += 1,
            }
        }
    }

    fn wish(&self, media: Ssrc, wishes: &mut SmallVec<[(TrackKey, Layer); 4]>) {
        let wish = self
            .by_ssrc(media)
            .and_then(|at| self.senders[at].video_source());
        if let Some(wish) = wish.filter(|wish| !wishes.contains(wish)) {
            wishes.push(wish);
        }
    }
}

/// RFC 3550, section 6.4.1: arrival of the block, less its delay, less our report's time. Nonsense is ignored.
fn round_trip(wall: Ntp, block: ReportBlock) -> Option<Duration> {
    if block.last_sr == 0 {
        return None;
    }
    let units = wall
        .middle()
        .wrapping_sub(block.last_sr)
        .wrapping_sub(block.delay_since_last_sr);
    // A clock that ticks slightly faster at the receiver makes short trips negative.
    let units = if units > u32::MAX / 2 { 0 } else { units };
    let round_trip = Duration::from_secs_f64(f64::from(units) / 65_536.0);
    (round_trip < Duration::from_secs(10)).then_some(round_trip)
}

#[cfg(test)]
mod tests;
