//! Bandwidth estimation of the sending side: how much may be sent to one peer.
//!
//! [`Estimator`] hears of every packet that leaves ([`Estimator::handle_sent`]) and of what the peer tells back, and
//! answers with [`Estimator::estimate`]. Where the peer sends transport-wide feedback it is Google Congestion
//! Control (draft-ietf-rmcat-gcc-02): the lower one of a delay-based rate and a loss-based bound, with probes to
//! rise. A server often has less to send than the path carries, so nothing falls without congestion and nothing
//! rises without evidence. Without such feedback, REMB (draft-alvestrand-rmcat-remb-03) and the loss of receiver
//! reports bound what is otherwise taken as unlimited.
//!
//! Sizes are bytes on the wire, with those of UDP and IP ([`OVERHEAD`]): that is what a link counts.

mod acked;
mod aimd;
mod choke;
mod history;
mod loss;
mod probe;
mod trendline;

use std::time::{Duration, Instant};

pub use probe::ProbeCounters;
pub use trendline::Usage;

use acked::AckedRate;
use aimd::Aimd;
use choke::Choke;
use history::History;
use loss::LossBound;
use probe::Prober;
use trendline::Trendline;

use super::twcc::Feedback;

/// Bytes around an RTP packet: UDP, IPv4, and the tag of SRTP.
pub const OVERHEAD: usize = 8 + 20 + 16;
/// Before anything is known, bit/s.
pub const INITIAL: u64 = 1_000_000;
/// The estimate never falls below this, bit/s: a voice needs it.
pub const MIN: u64 = 64_000;
/// Stands for no limit, bit/s.
pub const MAX: u64 = 100_000_000;

/// Without feedback for so long, although something was sent, the path is taken for clogged.
const SILENCE: Duration = Duration::from_secs(1);
/// And again after this, each time by this factor.
const SILENCE_STEP: Duration = Duration::from_millis(500);
const SILENCE_FACTOR: f64 = 0.8;
/// A peer that was to send transport-wide feedback and has sent none after this time will send none.
const NO_FEEDBACK: Duration = Duration::from_secs(2);
/// Nothing is paused for want of bandwidth for so long after the first packet: the first probe is on its way.
const START: Duration = Duration::from_millis(1500);
/// The lowest delay of the path is sought over this time, µs.
const BASE_WINDOW: u64 = 10_000_000;
/// A bound by REMB is lifted when none has been low for this long.
const REMB_HOLD: Duration = Duration::from_secs(4);
/// The queue has to be this much longer than it was over the last [`USUAL`] before a trend counts as overuse, ms:
/// jitter makes trends, too, but no queue.
const UNUSUAL: f64 = 15.0;
const USUAL: f64 = 5_000.0;
/// Packets of which one without delay shows that there is no queue, whatever those before it met: a receiver that had
/// no processor for a while reads what came meanwhile all at once.
const FRESHEST: usize = 4;
/// A probe's own queue explains a growing delay up to this, ms.
const PROBE_QUEUE: f64 = 200.0;
/// And for so long after its end, ms.
const PROBE_DRAIN: f64 = 300.0;
/// A queue that is longer than usual by this, ms, is drained; so much longer would stop everything, but no more than
/// this part of the rate is kept back.
const DRAIN_FROM: f64 = 100.0;
const DRAIN_SCALE: f64 = 600.0;
const MAX_DRAIN: f64 = 0.5;
/// When a link has just become slow its queue is longer than the packets that told so have met: for so long, ms, as much
/// is kept back as may be.
const CHOKED: f64 = 400.0;
/// A path that loses this part of everything anyway has gaps that look like a link which has become slow.
const LOSSY: f64 = 0.1;
/// Until the receiver's reports have told all that was lost meanwhile, ms.
const CHOKED_LOSSES: f64 = 1_500.0;
/// For what flows already a queue is drained more slowly, within two seconds or so: a layer that fits is not left for it.
const SLOW_DRAIN_SCALE: f64 = 2_500.0;
const MAX_SLOW_DRAIN: f64 = 0.2;
/// Ticks of arrival in a unit of the reference time (64 ms of 250 µs), and µs in a tick.
const REFERENCE_TICKS: i64 = 256;
const TICK_MICROS: i64 = 250;

/// Lowest delay over two halves of a window.
#[derive(Clone, Copy, Debug, Default)]
struct BaseDelay {
    since: u64,
    current: Option<i64>,
    before: Option<i64>,
}

impl BaseDelay {
    fn update(&mut self, now: u64, delay: i64) -> i64 {
        if now - self.since > BASE_WINDOW {
            (self.before, self.current, self.since) = (self.current, None, now);
        }
        let current = self.current.map_or(delay, |lowest| lowest.min(delay));
        self.current = Some(current);
        self.before.map_or(current, |before| before.min(current))
    }
}

/// What the allocator could use beyond what it has, bit/s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Its next step.
    pub next: u64,
    /// Everything.
    pub top: u64,
}

/// A bound that REMB set.
#[derive(Clone, Copy, Debug)]
struct Remb {
    bound: f64,
    low_at: Instant,
}

/// How much may be sent to one peer. Told the time; allocates with its first packet only.
#[derive(Debug)]
pub struct Estimator {
    epoch: Option<Instant>,
    history: History,
    trendline: Trendline,
    choke: Choke,
    acked: AckedRate,
    sent: AckedRate,
    aimd: Aimd,
    loss: LossBound,
    prober: Prober,
    base: BaseDelay,
    /// Smoothed delay above the lowest, ms.
    queue: f64,
    /// The same over [`USUAL`].
    usual_queue: f64,
    /// Delays above the lowest of the last packets, ms.
    freshest: [f64; FRESHEST],
    /// When it was last taken in, ms.
    usual_at: f64,
    /// Unwrapped reference time, in its units.
    reference: Option<i64>,
    first_sent: Option<Instant>,
    first_numbered: Option<Instant>,
    last_feedback: Option<Instant>,
    silence_at: Option<Instant>,
    /// Departure of the newest packet that arrived, µs.
    newest: u64,
    /// From a departure to its feedback, ms.
    response: f64,
    remb: Option<Remb>,
    limit: Option<u64>,
    wanted: Wanted,
    decreases: u64,
    /// ms.
    probed_until: f64,
    /// ms.
    choked_until: f64,
}

impl Default for Estimator {
    fn default() -> Self {
        Estimator {
            epoch: None,
            history: History::default(),
            trendline: Trendline::default(),
            choke: Choke::default(),
            acked: AckedRate::default(),
            sent: AckedRate::default(),
            aimd: Aimd::new(INITIAL as f64),
            loss: LossBound::default(),
            prober: Prober::default(),
            base: BaseDelay::default(),
            queue: 0.0,
            usual_queue: 0.0,
            freshest: [0.0; FRESHEST],
            usual_at: 0.0,
            reference: None,
            first_sent: None,
            first_numbered: None,
            last_feedback: None,
            silence_at: None,
            newest: 0,
            response: 100.0,
            remb: None,
            limit: None,
            wanted: Wanted::default(),
            decreases: 0,
            probed_until: 0.0,
            choked_until: f64::NEG_INFINITY,
        }
    }
}

impl Estimator {
    /// A packet of `size` bytes leaves, under transport-wide number `seq` where that was agreed.
    pub fn handle_sent(&mut self, now: Instant, seq: Option<u16>, size: usize) {
        let at = self.micros(now);
        let size = (size + OVERHEAD) as u32;
        self.first_sent.get_or_insert(now);
        self.sent.handle_packet(at as i64, size);
        if let Some(seq) = seq {
            self.first_numbered.get_or_insert(now);
            self.history.insert(seq, at, size, self.prober.cluster());
            self.prober.handle_sent(at, size);
        }
    }

    /// Transport-wide feedback of the peer.
    pub fn handle_feedback(&mut self, now: Instant, feedback: &Feedback<'_>) {
        let at = self.micros(now);
        let base = self.unwrap_reference(feedback.reference_time) * REFERENCE_TICKS * TICK_MICROS;
        let mut arrived = false;
        let mut unknown = 0;
        for (seq, tick) in feedback.packets() {
            unknown += self.history.cover(seq);
            let Some(tick) = tick else {
                self.history.miss(seq);
                continue;
            };
            let Some(packet) = self.history.arrive(seq) else {
                continue;
            };
            arrived = true;
            let arrival = base + tick * TICK_MICROS;
            self.newest = self.newest.max(packet.sent);
            // What a lost message was about has most likely arrived: without it, every lost message would look like a
            // path that carries half.
            let size = packet.size + std::mem::take(&mut unknown);
            self.acked.handle_packet(arrival, size);
            self.trendline.handle_packet(packet.sent, arrival);
            if packet.cluster != 0 {
                self.prober
                    .handle_arrival(packet.cluster, packet.sent, arrival, packet.size);
            }
            let delay = arrival - packet.sent as i64;
            let above = (delay - self.base.update(at, delay)) as f64 / 1e3;
            self.queue += 0.1 * (above - self.queue);
            self.freshest.rotate_left(1);
            self.freshest[FRESHEST - 1] = above;
            self.choke
                .handle_packet(packet.sent, arrival, packet.size, above);
        }
        self.last_feedback = Some(now);
        self.silence_at = None;
        if arrived {
            let response = (at - self.newest.min(at)) as f64 / 1e3;
            self.response += 0.1 * (response.min(2_000.0) - self.response);
            self.update(at);
        }
    }

    fn update(&mut self, at: u64) {
        let millis = at as f64 / 1e3;
        let probes = self.probes_at(millis) && self.queue < PROBE_QUEUE;
        let lossy = self.loss() > LOSSY && !self.lost_by_choking();
        let choked = self.choke.rate(self.usual_queue);
        let choked = choked.filter(|_| !probes && !lossy);
        if choked.is_some() {
            self.choked_until = millis + CHOKED;
        }
        let usage = match self.trendline.usage() {
            _ if choked.is_some() => Usage::Over,
            Usage::Over if probes => Usage::Under,
            Usage::Over if self.standing_queue() < self.usual_queue + UNUSUAL => Usage::Normal,
            usage => usage,
        };
        let passed = (millis - self.usual_at).clamp(0.0, USUAL);
        self.usual_queue += (self.queue - self.usual_queue) * passed / USUAL;
        self.usual_at = millis;
        let rate = self.acked.rate();
        let busy = choked.or(self.acked.busy());
        if self.aimd.update(millis, usage, rate, busy, self.response) {
            self.decreases += 1;
            self.prober.handle_overuse(millis);
        }
        let settled = self.history.settle(self.newest);
        if self
            .loss
            .update(millis, settled.received, settled.lost, rate)
        {
            self.decreases += 1;
            self.prober.handle_overuse(millis);
        }
        self.conclude(at);
    }

    /// What even the freshest packets met, ms.
    fn standing_queue(&self) -> f64 {
        self.freshest.iter().copied().fold(self.queue, f64::min)
    }

    /// A probe is out, or its queue has hardly drained.
    fn probes_at(&self, millis: f64) -> bool {
        self.prober.is_out() || millis < self.probed_until
    }

    fn conclude(&mut self, at: u64) {
        let estimate = self.measured();
        let was_out = self.prober.is_out();
        if let Some(shown) = self.prober.conclude(at, self.newest, estimate) {
            self.aimd.set_rate(at as f64 / 1e3, shown.min(MAX as f64));
        }
        if was_out && !self.prober.is_out() {
            self.probed_until = at as f64 / 1e3 + self.response + PROBE_DRAIN;
        }
    }

    /// A receiver report about some of what was sent: packets that arrived and that did not since the one before.
    /// Of use only where there is no transport-wide feedback.
    pub fn handle_report(&mut self, now: Instant, received: u32, lost: u32) {
        if self.last_feedback.is_none() {
            let at = self.micros(now);
            let delivered = self.sent.rate().map(|rate| {
                let total = f64::from(received + lost).max(1.0);
                rate * f64::from(received) / total
            });
            if self.loss.update(at as f64 / 1e3, received, lost, delivered) {
                self.decreases += 1;
            }
        }
    }

    /// The peer's own estimate of what it can take (REMB), bit/s. Taken for a bound where it is below what is sent:
    /// such estimates hardly exceed what they have seen, and would keep a small stream small.
    pub fn handle_remb(&mut self, now: Instant, bps: u64) {
        if self.last_feedback.is_some() {
            return;
        }
        let bps = (bps as f64).max(MIN as f64);
        let sent = self.sent.rate().unwrap_or(0.0);
        if bps < 0.95 * sent {
            self.decreases += u64::from(self.remb.is_none_or(|remb| bps < remb.bound));
            self.remb = Some(Remb {
                bound: bps,
                low_at: now,
            });
        } else if let Some(remb) = &mut self.remb {
            remb.bound = remb.bound.max(bps);
            if now.saturating_duration_since(remb.low_at) > REMB_HOLD {
                remb.bound *= 1.5;
                remb.low_at = now;
                if remb.bound > 4.0 * sent.max(INITIAL as f64) {
                    self.remb = None;
                }
            }
        }
    }

    /// What the allocator could use beyond what it has; nothing when both are 0.
    pub fn set_wanted(&mut self, wanted: Wanted) {
        self.wanted = wanted;
    }

    /// The receiver's own limit, bit/s.
    pub fn set_limit(&mut self, limit: Option<u64>) {
        self.limit = limit;
    }

    /// Bit/s that may be sent, packet headers included.
    pub fn estimate(&self, now: Instant) -> u64 {
        self.path_estimate(now)
            .min(self.limit.unwrap_or(MAX).max(MIN))
    }

    /// As [`Self::estimate`], without the receiver's own limit.
    pub fn path_estimate(&self, now: Instant) -> u64 {
        let estimate = if self.last_feedback.is_some() {
            self.measured()
        } else if self.awaits_feedback(now) {
            INITIAL as f64
        } else {
            let remb = self.remb.map_or(MAX as f64, |remb| remb.bound);
            self.loss.bound().unwrap_or(MAX as f64).min(remb)
        };
        (estimate as u64).clamp(MIN, MAX)
    }

    fn measured(&self) -> f64 {
        let bound = self.loss.bound().unwrap_or(MAX as f64);
        let rate = self.aimd.rate().min(bound) * self.drain();
        rate.clamp(MIN as f64, MAX as f64)
    }

    /// A queue that is much longer than usual has to drain, or everything behind it stays late: until it has, only a
    /// part of the rate is used.
    fn drain(&self) -> f64 {
        let back = if self.is_choked() {
            MAX_DRAIN
        } else {
            self.surplus() / DRAIN_SCALE
        };
        1.0 - back.clamp(0.0, MAX_DRAIN)
    }

    fn is_choked(&self) -> bool {
        self.usual_at < self.choked_until
    }

    fn surplus(&self) -> f64 {
        self.standing_queue() - self.usual_queue - DRAIN_FROM
    }

    /// As [`Self::estimate`], for what flows already: only so much is kept back that a long queue drains in the end.
    pub fn kept(&self, now: Instant) -> u64 {
        let back = (self.surplus() / SLOW_DRAIN_SCALE).clamp(0.0, MAX_SLOW_DRAIN);
        let kept = (self.undrained(now) as f64 * (1.0 - back)) as u64;
        kept.max(self.estimate(now))
    }

    /// As [`Self::estimate`], with what is kept back while a long queue drains: enough for what must not stop.
    pub fn undrained(&self, now: Instant) -> u64 {
        let drained = self.estimate(now);
        if self.last_feedback.is_none() {
            return drained;
        }
        // On a link that hardly carries a voice this is more than there is: nothing is paused for its queue.
        let whole = (drained as f64 / self.drain()) as u64;
        whole.min(self.limit.unwrap_or(MAX).max(MIN))
    }

    /// The first packets are out and the path has not answered yet.
    pub fn is_starting(&self, now: Instant) -> bool {
        self.decreases == 0
            && self
                .first_numbered
                .is_none_or(|first| now.saturating_duration_since(first) < START)
    }

    /// Whether the estimate comes from feedback, and not from want of it.
    pub fn is_measured(&self) -> bool {
        self.last_feedback.is_some()
    }

    /// How often the estimate fell.
    pub fn decreases(&self) -> u64 {
        self.decreases
    }

    /// Smoothed queueing delay of the path above the lowest delay of the last 10 to 20 s.
    pub fn queue_delay(&self) -> Duration {
        Duration::from_secs_f64(self.queue.max(0.0) / 1e3)
    }

    /// How much longer than usual the queue is that even the freshest packets met: an answer takes so much longer.
    pub fn excess_queue(&self) -> Duration {
        let known = self.surplus().max(0.0);
        let millis = if self.is_choked() {
            known.max(CHOKED)
        } else {
            known
        };
        Duration::from_secs_f64(millis / 1e3)
    }

    /// A link that has just become slow loses what does not fit into its queue. For so long after that losses tell nothing
    /// of the path itself.
    pub fn lost_by_choking(&self) -> bool {
        self.usual_at < self.choked_until + CHOKED_LOSSES
    }

    /// Fraction of the packets of the last second or so that were lost, 0 to 1.
    pub fn loss(&self) -> f64 {
        self.loss.fraction()
    }

    /// What has been probed.
    pub fn probes(&self) -> ProbeCounters {
        self.prober.counters()
    }

    /// Bit/s that left in the last half second.
    pub fn sent_rate(&self) -> u64 {
        self.sent.rate().unwrap_or(0.0) as u64
    }

    /// Bytes of padding that are to leave now for a probe, by [`Self::handle_sent`]; 0: none. Call again at
    /// [`Self::poll_timeout`].
    pub fn poll_padding(&mut self, now: Instant) -> usize {
        let at = self.micros(now);
        self.check_silence(now);
        let estimate = self.measured();
        if self.wants_probe() {
            let (next, top) = self.bounded_wish();
            self.prober.begin(at, estimate, next, top);
        }
        let due = self.prober.due(at);
        self.conclude(at);
        due
    }

    /// There is nothing that padding can be sent on.
    pub fn abandon_probe(&mut self, now: Instant) {
        let millis = self.micros(now) as f64 / 1e3;
        self.prober.handle_overuse(millis);
    }

    /// When [`Self::poll_padding`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let epoch = self.epoch?;
        if self.prober.cluster() != 0 {
            // As fine as the worker's timers are.
            let last = self.history.last_sent().unwrap_or_default();
            return Some(epoch + Duration::from_micros(last + 1_000));
        }
        let silence = self.silence_due();
        if self.wants_probe() && !self.prober.is_out() {
            let at = epoch + Duration::from_micros((self.prober.next_at() * 1e3) as u64);
            return Some(silence.map_or(at, |silence| silence.min(at)));
        }
        silence
    }

    fn wants_probe(&self) -> bool {
        let estimate = self.measured();
        let (next, _) = self.bounded_wish();
        self.last_feedback.is_some() && next > estimate && self.queue < PROBE_QUEUE
    }

    fn bounded_wish(&self) -> (f64, f64) {
        // Nobody probes for what the receiver does not want.
        let limit = self.limit.unwrap_or(MAX).min(MAX) as f64;
        let (next, top) = (self.wanted.next as f64, self.wanted.top as f64);
        (next.min(limit), top.max(next).min(limit))
    }

    /// When the peer's silence is to be taken for congestion: only while something is unanswered.
    fn silence_due(&self) -> Option<Instant> {
        let last = self.last_feedback?;
        let unanswered = self.history.last_sent()? > self.newest;
        unanswered.then(|| self.silence_at.unwrap_or(last + SILENCE))
    }

    fn check_silence(&mut self, now: Instant) {
        if self.silence_due().is_none_or(|due| due > now) {
            return;
        }
        self.silence_at = Some(now + SILENCE_STEP);
        let millis = self.micros(now) as f64 / 1e3;
        let rate = (self.aimd.rate() * SILENCE_FACTOR).max(MIN as f64);
        self.aimd.set_rate(millis, rate);
        self.prober.handle_overuse(millis);
        self.decreases += 1;
    }

    fn awaits_feedback(&self, now: Instant) -> bool {
        self.first_sent.is_none()
            || self
                .first_numbered
                .is_some_and(|first| now.saturating_duration_since(first) < NO_FEEDBACK)
    }

    /// The reference time has 24 bits: it wraps after 12 days, and may go back a little.
    fn unwrap_reference(&mut self, reference: u32) -> i64 {
        let wide = match self.reference {
            None => i64::from(reference) + (1 << 24),
            Some(last) => {
                let ahead = reference.wrapping_sub(last as u32) << 8;
                last + i64::from(ahead as i32 >> 8)
            }
        };
        self.reference = Some(wide);
        wide
    }

    fn micros(&mut self, now: Instant) -> u64 {
        // Away from zero, which stands for never.
        let epoch = *self.epoch.get_or_insert(now);
        now.saturating_duration_since(epoch).as_micros() as u64
    }
}

#[cfg(test)]
mod tests;
