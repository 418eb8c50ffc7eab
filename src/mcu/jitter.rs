//! The jitter buffer of one source of sound: puts packets in order, and says every 20 ms what is to be played.
//!
//! Pure: packets come with their arrival times, pulls with the time of the tick. Times are counted in samples at
//! 48 kHz. The delay follows the observed jitter (a high percentile of the last packets' delays over the fastest of
//! them), between 20 and 200 ms. The fastest packet is that of the last 2.5 s, so a sender whose clock drifts is
//! followed: [`JitterBuffer::lag`] tells the player by how much, and the player's resampler makes up for it.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use super::codec::SourceCodec;

/// Samples per millisecond.
const MS: i64 = 48;

/// Packets that wait to be played: 400 ms of 10 ms packets and some. When it is full the oldest goes.
const MAX_PACKETS: usize = 64;

/// Packets whose delays are remembered: 2.5 s of 20 ms packets.
const DELAYS: usize = 128;

/// The largest few of [`DELAYS`] that the target leaves out: about 97 % come in time.
const LEFT_OUT: usize = 4;

/// What each loss counts, against each packet that came counting 1: from about 1 % of loss on, it adds up.
const LOSS_COUNTS: u32 = 100;

/// From here on losses are frequent: the delay leaves time for the packet after a lost one, which may carry its copy.
const LOSSY: u32 = 150;

/// Losses count up to this: eight seconds after the last of many, the delay shrinks again.
const MOST_LOSS: u32 = 400;

/// How often the target is computed anew, in packets.
const TARGET_EVERY: u32 = 8;

/// Least delay: one tick.
const MIN_TARGET: i64 = 20 * MS;

/// Most delay: what comes later than that is lost.
const MAX_TARGET: i64 = 200 * MS;

/// Until the jitter is known.
const FIRST_TARGET: i64 = 40 * MS;

/// Ticks for which sound is made up while nothing comes; then it is silence.
const MAX_DRY: u32 = 5;

/// A longer hole than this in one piece is not concealed but begun anew.
const MAX_CONCEALED: i64 = 120 * MS;

/// A packet whose timestamp is off by this much from its arrival began a new time line.
const NEW_TIME_LINE: i64 = 2000 * MS;

/// Packets in a row that are too late: the sender's numbers began anew.
const LATE_IN_A_ROW: u32 = 50;

/// Why a packet was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Its time to be played is over.
    #[error("came too late")]
    Late,
    /// It was there before.
    #[error("came twice")]
    Duplicate,
    /// Not a packet of the source's codec.
    #[error("is not a packet of its codec")]
    Malformed,
    /// Its time is that of its predecessor, more than half of it.
    #[error("holds sound of a time that has its sound")]
    Overlapping,
}

/// What is to be played next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pull {
    /// This packet.
    Packet {
        /// Its payload.
        payload: Bytes,
        /// Its duration.
        samples: usize,
    },
    /// A packet that is lost.
    Lost {
        /// Its duration, as far as that can be told.
        samples: usize,
        /// Whether the packet after it is there, which may carry a copy: [`JitterBuffer::next_payload`].
        has_successor: bool,
    },
    /// Nothing has come, and it is not known why: make something up, fading from `step` fifths of silence to
    /// `step + 1`. The delay grows by it.
    Dry {
        /// 0 to 4.
        step: u32,
    },
    /// The sender says nothing (DTX), is muted or gone: silence for a tick.
    Silence,
}

struct Packet {
    seq: u64,
    timestamp: i64,
    samples: i64,
    payload: Bytes,
}

/// Which samples a packet holds.
#[derive(Clone, Copy)]
struct Span {
    seq: u64,
    timestamp: i64,
    samples: i64,
}

impl Span {
    /// Whether the next packet of a sender begins before this one's middle. No encoder does that; a payloader that takes its
    /// timestamps from a clock may be a few samples early.
    fn overlaps(self, next: Span) -> bool {
        let step = next.timestamp - self.timestamp;
        self.seq.checked_add(1) == Some(next.seq) && (0..self.samples / 2).contains(&step)
    }
}

enum State {
    /// Silent until the time of the first packet has come.
    Waiting,
    Playing {
        next_seq: u64,
        /// Timestamp of the next sample to be pulled.
        position: i64,
        /// Duration of the last packet.
        samples: i64,
        /// The last packet was the last of a talkspurt.
        dtx: bool,
        /// Ticks for which nothing has come.
        dry: u32,
        /// Samples made up meanwhile that count for packets which turn out to be lost.
        owed: i64,
    },
}

/// See the module.
pub struct JitterBuffer {
    codec: SourceCodec,
    packets: VecDeque<Packet>,
    state: State,
    /// Packets before this one are late, even while waiting.
    played_seq: u64,
    /// The sequence numbers up to `newest` that have come, newest in bit 0.
    received: u64,
    newest: Option<u64>,
    /// The packet that came last.
    last: Option<Span>,
    /// The last timestamp on the unwrapped time line, in the codec's clock.
    unwrapped: Option<i64>,
    origin: Option<Instant>,
    delays: [i64; DELAYS],
    delays_len: usize,
    delays_next: usize,
    /// Arrival minus timestamp of the fastest packet in `delays`.
    fastest: i64,
    target: i64,
    until_target: u32,
    late_in_a_row: u32,
    losses: u32,
    overflows: u64,
    stale: u64,
}

impl JitterBuffer {
    /// Empty, for packets of this codec.
    pub fn new(codec: SourceCodec) -> Self {
        JitterBuffer {
            codec,
            packets: VecDeque::with_capacity(MAX_PACKETS + 1),
            state: State::Waiting,
            played_seq: 0,
            received: 0,
            newest: None,
            last: None,
            unwrapped: None,
            origin: None,
            delays: [0; DELAYS],
            delays_len: 0,
            delays_next: 0,
            fastest: 0,
            target: FIRST_TARGET,
            until_target: 0,
            late_in_a_row: 0,
            losses: 0,
            overflows: 0,
            stale: 0,
        }
    }

    /// Takes a packet: `seq` is extended, `timestamp` is that of the RTP header, in the codec's clock.
    pub fn push(
        &mut self,
        seq: u64,
        timestamp: u32,
        arrival: Instant,
        payload: Bytes,
    ) -> Result<(), Refused> {
        let samples = self.codec.samples(&payload).ok_or(Refused::Malformed)? as i64;
        if !self.note_received(seq) {
            return Err(Refused::Duplicate);
        }
        self.losses = self.losses.saturating_sub(1);
        let timestamp = self.observe(timestamp, arrival);
        let span = Span {
            seq,
            timestamp,
            samples,
        };
        let last = self.last.replace(span);
        if self.codec == SourceCodec::Opus && last.is_some_and(|last| last.overlaps(span)) {
            return Err(Refused::Overlapping);
        }
        if seq < self.played_seq {
            self.late_in_a_row += 1;
            if self.late_in_a_row >= LATE_IN_A_ROW {
                self.clear();
            }
            return Err(Refused::Late);
        }
        self.late_in_a_row = 0;
        let at = self.packets.partition_point(|packet| packet.seq < seq);
        let packet = Packet {
            seq,
            timestamp,
            samples,
            payload,
        };
        self.packets.insert(at, packet);
        if self.packets.len() > MAX_PACKETS {
            self.overflow();
        }
        Ok(())
    }

    /// What comes next. To be called until a tick's samples are there.
    pub fn pull(&mut self, now: Instant) -> Pull {
        let ideal = self.ideal(now);
        match &mut self.state {
            State::Waiting => {
                self.drop_stale(ideal);
                let Some(first) = self
                    .packets
                    .front()
                    .filter(|first| first.timestamp <= ideal)
                else {
                    return Pull::Silence;
                };
                self.state = State::Playing {
                    next_seq: first.seq,
                    position: first.timestamp,
                    samples: first.samples,
                    dtx: false,
                    dry: 0,
                    owed: 0,
                };
                self.play_first()
            }
            State::Playing {
                next_seq,
                position,
                samples,
                dtx,
                dry,
                owed,
            } => {
                let Some(first) = self.packets.front() else {
                    return self.pull_from_nothing();
                };
                let missing = first.seq.saturating_sub(*next_seq);
                let hole = first.timestamp - *position;
                if missing == 0 || hole <= 0 {
                    if hole >= *samples {
                        // Time passed without a packet: the sender had nothing to say (RFC 7587, section 3.1.3).
                        // Its next packet begins a talkspurt, at the right delay.
                        self.state = State::Waiting;
                        return Pull::Silence;
                    }
                    return self.play_first();
                }
                if hole > MAX_CONCEALED || *dtx {
                    self.state = State::Waiting;
                    return Pull::Silence;
                }
                let lost = (*samples).min(hole).max(2 * MS);
                self.losses = (self.losses + LOSS_COUNTS).min(MOST_LOSS);
                *next_seq += 1;
                *position += lost;
                *dry = 0;
                if *owed >= lost {
                    *owed -= lost;
                    return self.pull(now);
                }
                Pull::Lost {
                    samples: lost as usize,
                    has_successor: missing == 1,
                }
            }
        }
    }

    /// Lets time pass for a source that is not played: hands out what would have been played by the tick's end.
    pub fn skip(&mut self, now: Instant, mut skipped: impl FnMut(Bytes)) {
        let end = self.ideal(now) + MIN_TARGET;
        if matches!(self.state, State::Playing { position, .. } if end - position > MAX_CONCEALED) {
            // Nothing came for long: what comes next begins a talkspurt.
            self.state = State::Waiting;
        }
        while let Some(first) = self.packets.front() {
            if first.timestamp + first.samples > end {
                break;
            }
            let (seq, position) = (first.seq, first.timestamp);
            let (samples, dtx) = (first.samples, self.codec.is_dtx(&first.payload));
            self.state = State::Playing {
                next_seq: seq.saturating_add(1),
                position: position + samples,
                samples,
                dtx,
                dry: MAX_DRY,
                owed: 0,
            };
            self.played_seq = seq.saturating_add(1);
            if let Some(packet) = self.packets.pop_front() {
                skipped(packet.payload);
            }
        }
    }

    /// By how many samples the player, with `buffered` samples pulled and not yet played, is behind where the target
    /// delay wants it. Negative: it is ahead. 0 while nothing plays.
    pub fn lag(&self, now: Instant, buffered: usize) -> i64 {
        match self.state {
            State::Waiting => 0,
            State::Playing { position, .. } => self.ideal(now) - position + buffered as i64,
        }
    }

    /// Whether a packet waits.
    pub fn has_packets(&self) -> bool {
        !self.packets.is_empty()
    }

    /// The packet that waits first.
    pub fn next_payload(&self) -> Option<&Bytes> {
        self.packets.front().map(|packet| &packet.payload)
    }

    /// Whether [`Self::pull`] would give the next packet, without a hole before it.
    pub fn is_next_there(&self) -> bool {
        let State::Playing {
            next_seq, position, ..
        } = self.state
        else {
            return false;
        };
        let first = self.packets.front();
        first.is_some_and(|first| first.seq == next_seq && first.timestamp == position)
    }

    /// Whether it hands out packets, and does not wait for the first one of a talkspurt.
    pub fn is_playing(&self) -> bool {
        matches!(self.state, State::Playing { .. })
    }

    /// The delay aimed at, in samples.
    pub fn target(&self) -> usize {
        self.target as usize
    }

    /// Packets since the last call that went because the buffer was full, and that were left out to come back to
    /// the target delay after a pause.
    pub fn take_dropped(&mut self) -> (u64, u64) {
        (
            std::mem::take(&mut self.overflows),
            std::mem::take(&mut self.stale),
        )
    }

    /// Plays on at the target delay, whatever that leaves out.
    pub fn restart(&mut self) {
        self.state = State::Waiting;
    }

    /// Begins anew, with an empty buffer.
    pub fn clear(&mut self) {
        *self = JitterBuffer {
            overflows: self.overflows,
            stale: self.stale,
            ..Self::new(self.codec)
        };
    }

    fn play_first(&mut self) -> Pull {
        let Some(packet) = self.packets.pop_front() else {
            return Pull::Silence;
        };
        self.played_seq = packet.seq.saturating_add(1);
        self.state = State::Playing {
            next_seq: packet.seq.saturating_add(1),
            position: packet.timestamp + packet.samples,
            samples: packet.samples,
            dtx: self.codec.is_dtx(&packet.payload),
            dry: 0,
            owed: 0,
        };
        Pull::Packet {
            samples: packet.samples as usize,
            payload: packet.payload,
        }
    }

    /// After a pause the oldest packets may be older than the target delay: they would only keep it long.
    fn drop_stale(&mut self, ideal: i64) {
        while let Some(first) = self.packets.front() {
            if first.timestamp + first.samples + MIN_TARGET > ideal {
                break;
            }
            self.stale += 1;
            self.played_seq = first.seq.saturating_add(1);
            self.packets.pop_front();
        }
    }

    fn pull_from_nothing(&mut self) -> Pull {
        let State::Playing { dtx, dry, owed, .. } = &mut self.state else {
            return Pull::Silence;
        };
        if *dtx || *dry >= MAX_DRY {
            self.state = State::Waiting;
            return Pull::Silence;
        }
        *dry += 1;
        *owed += MIN_TARGET;
        Pull::Dry { step: *dry - 1 }
    }

    /// Drops the oldest packet; what follows it is played at its time.
    fn overflow(&mut self) {
        self.overflows += 1;
        if let Some(oldest) = self.packets.pop_front() {
            self.played_seq = oldest.seq.saturating_add(1);
            self.state = State::Waiting;
        }
    }

    /// False where the packet has come before. Older than 64 packets: unknown, and late anyway.
    fn note_received(&mut self, seq: u64) -> bool {
        let newest = self.newest.unwrap_or(seq);
        if seq >= newest {
            let shift = seq - newest;
            let kept = if shift < 64 {
                self.received << shift
            } else {
                0
            };
            let known = shift == 0 && self.received & 1 == 1;
            self.received = kept | 1;
            self.newest = Some(seq);
            return !known;
        }
        let age = newest - seq;
        if age >= 64 {
            return true;
        }
        let known = self.received >> age & 1 == 1;
        self.received |= 1 << age;
        !known
    }

    /// Unwraps the timestamp and takes the packet's delay into account. Begins anew where the two time lines part.
    fn observe(&mut self, timestamp: u32, arrival: Instant) -> i64 {
        self.origin.get_or_insert(arrival);
        let arrived = self.clock(arrival);
        let unwrapped = match self.unwrapped {
            // The nearest time with these 32 bits (RFC 3550, section 5.1).
            Some(last) => last + i64::from(timestamp.wrapping_sub(last as u32) as i32),
            None => i64::from(timestamp),
        };
        let timestamp = unwrapped * self.codec.samples_per_tick();
        let delay = arrived - timestamp;
        if self.delays_len > 0 && (delay - self.fastest).abs() > NEW_TIME_LINE {
            self.packets.clear();
            self.state = State::Waiting;
            self.delays_len = 0;
            self.delays_next = 0;
            self.until_target = 0;
        }
        self.unwrapped = Some(unwrapped);
        self.delays[self.delays_next] = delay;
        self.delays_next = (self.delays_next + 1) % DELAYS;
        self.delays_len = (self.delays_len + 1).min(DELAYS);
        if self.delays_len == 1 || delay < self.fastest {
            self.fastest = delay;
        }
        if self.until_target == 0 || self.delays_len < TARGET_EVERY as usize {
            self.until_target = TARGET_EVERY;
            self.retarget();
        }
        self.until_target -= 1;
        timestamp
    }

    fn retarget(&mut self) {
        let delays = &self.delays[..self.delays_len];
        self.fastest = delays.iter().copied().min().unwrap_or(0);
        let mut largest = [i64::MIN; LEFT_OUT];
        for &delay in delays {
            if delay > largest[0] {
                largest[0] = delay;
                largest.sort_unstable();
            }
        }
        // With few packets known, the worst of them counts.
        let worst = if delays.len() >= DELAYS / 2 {
            largest[0]
        } else {
            largest[LEFT_OUT - 1]
        };
        let least = if delays.len() >= DELAYS / 2 {
            MIN_TARGET
        } else {
            FIRST_TARGET
        };
        let copy = if self.losses >= LOSSY { MIN_TARGET } else { 0 };
        self.target = (worst - self.fastest + MIN_TARGET + copy).clamp(least, MAX_TARGET);
    }

    /// The timestamp that is to be played at `now`.
    fn ideal(&self, now: Instant) -> i64 {
        self.clock(now) - self.fastest - self.target
    }

    /// Samples since the first packet arrived.
    fn clock(&self, at: Instant) -> i64 {
        let origin = self.origin.unwrap_or(at);
        let nanos = |d: std::time::Duration| (d.as_nanos() * 48 / 1_000_000) as i64;
        match at.checked_duration_since(origin) {
            Some(since) => nanos(since),
            None => -nanos(origin.duration_since(at)),
        }
    }
}

impl Default for JitterBuffer {
    fn default() -> Self {
        Self::new(SourceCodec::Opus)
    }
}

#[cfg(test)]
mod tests;
