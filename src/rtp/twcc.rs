//! Transport-wide congestion control feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01).
//!
//! A publisher numbers all its packets; [`Recorder`] tells it which came and when, and its bandwidth estimate
//! lives on that. [`Feedback`] reads the same message from those that we send to.

use std::time::{Duration, Instant};

use super::params::Ssrc;
use super::ring::{Numbered, Ring};
use super::rtcp::write::{begin, finish};
use super::unwrap::SeqUnwrapper;

/// Feedback leaves this long after the first packet that it tells about,
pub const INTERVAL: Duration = Duration::from_millis(50);
/// where packets are rare after this,
pub const LONGEST_INTERVAL: Duration = Duration::from_millis(100);
/// and of voices alone after this: they have nothing that could follow their link, and 20 messages in a second would cost
/// a fifth of what a voice takes. (libwebrtc spends 5 % of the bit rate on them, one in 50 to 250 ms.)
pub const VOICES_INTERVAL: Duration = Duration::from_millis(250);
/// With so many packets behind the first one they are not rare.
const DENSE: u64 = 5;
/// Feedback leaves at once when so many packets wait.
pub const MAX_WAITING: u64 = 100;

/// Arrivals that are remembered. A packet that is older when it comes is not reported.
const CAPACITY: u64 = 1024;
/// Of slower streams it is these last ticks: two seconds.
const MEMORY: u64 = 8000;
/// Statuses in one message; the rest follows in the next.
const MAX_STATUSES: u64 = 400;
/// Delta and reference time are in 250 µs and 64 ms.
const TICK_MICROS: u64 = 250;
const REFERENCE_TICKS: u64 = 256;
const HEAD: usize = 20;

#[derive(Clone, Copy, Debug, Default)]
struct Arrival {
    seq: u64,
    tick: u64,
}

impl Numbered for Arrival {
    fn number(&self) -> u64 {
        self.seq
    }

    fn time(&self) -> u64 {
        self.tick
    }
}

/// Records arrivals and writes feedback about them.
#[derive(Debug)]
pub struct Recorder {
    epoch: Option<Instant>,
    seqs: SeqUnwrapper,
    arrivals: Ring<Arrival>,
    /// First sequence number to report next.
    base: u64,
    /// When the first packet came that waits.
    since: Option<Instant>,
    due: Option<Instant>,
    voices_alone: bool,
    feedback_count: u8,
}

impl Default for Recorder {
    fn default() -> Self {
        Recorder {
            epoch: None,
            seqs: SeqUnwrapper::default(),
            arrivals: Ring::new(CAPACITY as usize, MEMORY),
            base: 0,
            since: None,
            due: None,
            voices_alone: false,
            feedback_count: 0,
        }
    }
}

impl Recorder {
    /// Whether the publisher has no pictures, whose rates could follow its link.
    pub fn set_voices_alone(&mut self, voices_alone: bool) {
        self.voices_alone = voices_alone;
    }

    /// Loads the place of the next packet: see [`crate::prefetch`].
    pub fn prefetch(&self) {
        if let Some(highest) = self.seqs.highest() {
            self.arrivals.prefetch(highest + 1);
        }
    }

    /// A packet with this transport-wide number came.
    pub fn handle_packet(&mut self, now: Instant, seq: u16) {
        let epoch = *self.epoch.get_or_insert(now);
        let first = self.seqs.highest().is_none();
        let before = self.seqs.highest();
        let seq = self.seqs.unwrap(seq);
        let highest = self.seqs.highest().unwrap_or(seq);
        if highest - seq >= CAPACITY / 2 {
            return;
        }
        if first {
            self.base = seq;
        }
        // A jump so wide that the ring has forgotten the rest: report from here on.
        if before.is_some_and(|before| seq > before + CAPACITY / 2) {
            self.base = seq;
        }
        if self.arrivals.get(seq).is_some() {
            return;
        }
        let micros = now.saturating_duration_since(epoch).as_micros() as u64;
        // One reference unit of head room, so that no delta before the first packet is negative.
        let tick = micros / TICK_MICROS + REFERENCE_TICKS;
        self.arrivals.insert(Arrival { seq, tick });
        // A late packet is reported together with those after it that were reported already.
        self.base = self.base.min(seq);
        let since = *self.since.get_or_insert(now);
        let due = match highest - self.base {
            MAX_WAITING.. => now,
            _ if self.voices_alone => since + VOICES_INTERVAL,
            DENSE.. => since + INTERVAL,
            _ => since + LONGEST_INTERVAL,
        };
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }

    /// When feedback is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Appends one feedback packet of at most `budget` bytes when one is due. Call until false.
    pub fn poll(
        &mut self,
        now: Instant,
        sender: Ssrc,
        media: Ssrc,
        budget: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        if self.due.is_none_or(|due| due > now) || budget < HEAD + 16 {
            return false;
        }
        let Some(highest) = self.seqs.highest() else {
            return false;
        };
        self.base = self.base.max((highest + 1).saturating_sub(CAPACITY));
        // The first arrival sets the reference time; what is missing before it is told as missing.
        let Some(first) =
            (self.base..=highest).find_map(|seq| self.arrival(seq).map(|tick| (seq, tick)))
        else {
            (self.due, self.since) = (None, None);
            return false;
        };
        let start = begin(15, 205, out);
        out.extend_from_slice(&sender.0.to_be_bytes());
        out.extend_from_slice(&media.0.to_be_bytes());
        let next = self.write_body(first.1, highest, budget, start, out);
        finish(start, out);
        self.feedback_count = self.feedback_count.wrapping_add(1);
        self.base = next;
        self.due = (next <= highest).then_some(now);
        self.since = self.due;
        true
    }

    fn arrival(&self, seq: u64) -> Option<u64> {
        self.arrivals.get(seq).map(|arrival| arrival.tick)
    }

    /// Base sequence number, count, reference time, chunks, deltas. Returns the first number not told.
    fn write_body(
        &self,
        first_tick: u64,
        highest: u64,
        budget: usize,
        start: usize,
        out: &mut Vec<u8>,
    ) -> u64 {
        let reference = first_tick / REFERENCE_TICKS;
        let room = budget - HEAD;
        let mut statuses = Statuses::default();
        let mut last_tick = reference * REFERENCE_TICKS;
        let mut deltas_size = 0;
        let mut next = self.base;
        while next <= highest && next - self.base < MAX_STATUSES {
            let status = match self.arrival(next) {
                None => Status::Missing,
                Some(tick) => match delta(last_tick, tick) {
                    Some(delta) => {
                        last_tick = tick;
                        Status::of(delta)
                    }
                    // More than 8 s away: a new message with its own reference time.
                    None => break,
                },
            };
            // A status takes two bits at worst, two bytes of padding and chunk rounding.
            let chunks = (statuses.len + 1).div_ceil(7) * 2;
            if chunks + deltas_size + status.delta_size() + 3 > room {
                break;
            }
            deltas_size += status.delta_size();
            statuses.push(status);
            next += 1;
        }
        out.extend_from_slice(&(self.base as u16).to_be_bytes());
        out.extend_from_slice(&(statuses.len as u16).to_be_bytes());
        out.extend_from_slice(&(reference as u32).to_be_bytes()[1..]);
        out.push(self.feedback_count);
        statuses.write(out);
        let mut last_tick = reference * REFERENCE_TICKS;
        for tick in (self.base..next).filter_map(|seq| self.arrival(seq)) {
            match delta(last_tick, tick) {
                Some(small @ 0..=255) => out.push(small as u8),
                Some(large) => out.extend_from_slice(&large.to_be_bytes()),
                None => {}
            }
            last_tick = tick;
        }
        while !(out.len() - start).is_multiple_of(4) {
            out.push(0);
        }
        next
    }
}

/// Difference in ticks; `None` where 16 bits do not hold it.
fn delta(from: u64, to: u64) -> Option<i16> {
    i16::try_from(to as i64 - from as i64).ok()
}

/// Packet status symbols (section 3.1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Status {
    #[default]
    Missing = 0,
    Small = 1,
    Large = 2,
}

impl Status {
    fn of(delta: i16) -> Self {
        if (0..=255).contains(&delta) {
            Status::Small
        } else {
            Status::Large
        }
    }

    fn from_bits(bits: u16) -> Self {
        match bits & 3 {
            1 => Status::Small,
            2 => Status::Large,
            // 3 is reserved; its packets carry no delta.
            _ => Status::Missing,
        }
    }

    fn delta_size(self) -> usize {
        self as usize
    }
}

/// The statuses of one message.
struct Statuses {
    symbols: [Status; MAX_STATUSES as usize],
    len: usize,
}

impl Default for Statuses {
    fn default() -> Self {
        Statuses {
            symbols: [Status::Missing; MAX_STATUSES as usize],
            len: 0,
        }
    }
}

impl Statuses {
    fn push(&mut self, status: Status) {
        self.symbols[self.len] = status;
        self.len += 1;
    }

    /// Packet chunks (sections 3.1.3 and 3.1.4), each as long a stretch as its form can hold.
    fn write(&self, out: &mut Vec<u8>) {
        let mut rest = &self.symbols[..self.len];
        while let Some(&first) = rest.first() {
            let run = rest.iter().take_while(|status| **status == first).count();
            let one_bit = rest.iter().take(14).all(|status| *status != Status::Large);
            let (chunk, taken) = if run >= 14 || run == rest.len() || (run >= 7 && !one_bit) {
                ((first as u16) << 13 | run as u16, run)
            } else if one_bit {
                (0x8000 | vector(rest, 14, 1), 14)
            } else {
                (0xc000 | vector(rest, 7, 2), 7)
            };
            out.extend_from_slice(&chunk.to_be_bytes());
            rest = &rest[taken.min(rest.len())..];
        }
    }
}

/// The first `count` statuses, `bits` wide each, first one uppermost.
fn vector(statuses: &[Status], count: usize, bits: usize) -> u16 {
    (0..count).fold(0, |chunk, at| {
        chunk << bits | statuses.get(at).map_or(0, |status| *status as u16)
    })
}

/// A feedback message that came: a view.
#[derive(Clone, Copy, Debug)]
pub struct Feedback<'a> {
    base: u16,
    count: u16,
    /// In units of 64 ms, 24 bits.
    pub reference_time: u32,
    /// Its running number.
    pub feedback_count: u8,
    chunks: &'a [u8],
}

impl<'a> Feedback<'a> {
    /// Reads the packet after its common header. `None` if its head is cut off.
    pub fn parse(body: &'a [u8]) -> Option<Self> {
        let (head, chunks) = body.split_first_chunk::<16>()?;
        Some(Feedback {
            base: u16::from_be_bytes([head[8], head[9]]),
            count: u16::from_be_bytes([head[10], head[11]]),
            reference_time: u32::from_be_bytes([0, head[12], head[13], head[14]]),
            feedback_count: head[15],
            chunks,
        })
    }

    /// Sequence number of each packet told about, with its arrival in ticks of 250 µs after the reference time;
    /// `None`: it did not come. Ends early where the message is cut off.
    pub fn packets(&self) -> impl Iterator<Item = (u16, Option<i64>)> + 'a {
        let mut deltas = self.deltas();
        let mut tick = 0i64;
        let base = self.base;
        self.statuses().enumerate().map_while(move |(at, status)| {
            let seq = base.wrapping_add(at as u16);
            let delta = match status {
                Status::Missing => return Some((seq, None)),
                Status::Small => {
                    let (&byte, tail) = deltas.split_first()?;
                    deltas = tail;
                    i64::from(byte)
                }
                Status::Large => {
                    let (bytes, tail) = deltas.split_first_chunk()?;
                    deltas = tail;
                    i64::from(i16::from_be_bytes(*bytes))
                }
            };
            tick += delta;
            Some((seq, Some(tick)))
        })
    }

    fn statuses(&self) -> impl Iterator<Item = Status> + 'a {
        self.chunks
            .as_chunks::<2>()
            .0
            .iter()
            .flat_map(|bytes| {
                let chunk = u16::from_be_bytes(*bytes);
                (0..chunk_len(chunk)).map(move |at| chunk_status(chunk, at))
            })
            .take(usize::from(self.count))
    }

    /// What follows the last chunk.
    fn deltas(&self) -> &'a [u8] {
        let mut told = 0;
        let mut rest = self.chunks;
        while told < usize::from(self.count) {
            let Some((bytes, tail)) = rest.split_first_chunk() else {
                return &[];
            };
            told += chunk_len(u16::from_be_bytes(*bytes)).max(1);
            rest = tail;
        }
        rest
    }
}

fn chunk_len(chunk: u16) -> usize {
    match chunk >> 14 {
        2 => 14,
        3 => 7,
        _ => usize::from(chunk & 0x1fff),
    }
}

fn chunk_status(chunk: u16, at: usize) -> Status {
    match chunk >> 14 {
        2 => Status::from_bits(chunk >> (13 - at) & 1),
        3 => Status::from_bits(chunk >> (12 - 2 * at) & 3),
        _ => Status::from_bits(chunk >> 13),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::rtcp::{Rtcp, packets};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Polls until nothing is due; each packet's arrival in ticks since the recorder's epoch.
    fn drain(recorder: &mut Recorder, now: Instant, budget: usize) -> Vec<(u16, Option<i64>)> {
        let mut told = Vec::new();
        let mut out = Vec::new();
        while recorder.poll(now, Ssrc(1), Ssrc(2), budget, &mut out) {
            assert!(out.len() <= budget, "{} > {budget}", out.len());
            let Some(Ok(Rtcp::TransportWide(feedback))) = packets(&out).next() else {
                panic!("not a feedback packet");
            };
            let reference = i64::from(feedback.reference_time) * 256 - 256;
            told.extend(
                feedback
                    .packets()
                    .map(|(seq, tick)| (seq, tick.map(|tick| tick + reference))),
            );
            out.clear();
        }
        told
    }

    #[test]
    fn a_quiet_stream_is_reported_after_a_hundred_milliseconds() {
        let t0 = Instant::now();
        let mut recorder = Recorder::default();
        recorder.handle_packet(t0, 65_535);
        recorder.handle_packet(t0 + ms(3), 1);
        assert!(drain(&mut recorder, t0 + ms(99), 1200).is_empty());
        assert_eq!(recorder.poll_timeout(), Some(t0 + LONGEST_INTERVAL));
        assert_eq!(
            drain(&mut recorder, t0 + ms(100), 1200),
            [(65_535, Some(0)), (0, None), (1, Some(12))]
        );
        assert_eq!(recorder.poll_timeout(), None);
    }

    #[test]
    fn a_picture_is_reported_after_fifty_milliseconds() {
        let t0 = Instant::now();
        let mut recorder = Recorder::default();
        for n in 0..=DENSE {
            recorder.handle_packet(t0 + ms(n), n as u16);
        }
        assert_eq!(recorder.poll_timeout(), Some(t0 + INTERVAL));
        assert_eq!(drain(&mut recorder, t0 + ms(50), 1200).len(), 6);
        // The sixth of a slower stream comes later, and is told at once.
        for n in 0..=DENSE {
            recorder.handle_packet(t0 + ms(100 + 15 * n), 6 + n as u16);
        }
        assert!(recorder.poll_timeout() <= Some(t0 + ms(175)));
    }

    #[test]
    fn voices_alone_are_reported_four_times_in_a_second() {
        let start = Instant::now();
        let messages = |voices_alone: bool| {
            let mut recorder = Recorder::default();
            recorder.set_voices_alone(voices_alone);
            let mut told = 0;
            for at in 0..10_000 {
                let now = start + ms(at);
                if at % 20 == 0 {
                    recorder.handle_packet(now, (at / 20) as u16);
                }
                told += usize::from(!drain(&mut recorder, now, 1200).is_empty());
            }
            told
        };
        // The next message begins with the packet after this one's end.
        assert!((36..=40).contains(&messages(true)), "{}", messages(true));
        assert!((80..=100).contains(&messages(false)), "{}", messages(false));
    }

    #[test]
    fn a_hundred_packets_do_not_wait() {
        let t0 = Instant::now();
        let mut recorder = Recorder::default();
        for seq in 0..=100 {
            recorder.handle_packet(t0, seq);
        }
        assert_eq!(recorder.poll_timeout(), Some(t0));
        assert_eq!(drain(&mut recorder, t0, 1200).len(), 101);
    }

    #[test]
    fn a_late_packet_is_told_in_the_next_message() {
        let t0 = Instant::now();
        let mut recorder = Recorder::default();
        recorder.handle_packet(t0, 10);
        recorder.handle_packet(t0, 12);
        drain(&mut recorder, t0 + LONGEST_INTERVAL, 1200);
        recorder.handle_packet(t0 + ms(60), 11);
        recorder.handle_packet(t0 + ms(70), 13);
        assert_eq!(
            drain(&mut recorder, t0 + ms(160), 1200),
            [(11, Some(240)), (12, Some(0)), (13, Some(280))]
        );
    }

    #[test]
    fn a_pause_of_minutes_begins_with_a_new_reference_time() {
        let t0 = Instant::now();
        let mut recorder = Recorder::default();
        recorder.handle_packet(t0, 1);
        recorder.handle_packet(t0 + ms(120_000), 2);
        assert_eq!(
            drain(&mut recorder, t0 + ms(120_100), 1200),
            [(1, Some(0)), (2, Some(480_000))]
        );
    }

    #[test]
    fn a_jump_does_not_report_thousands_of_losses() {
        let t0 = Instant::now();
        let mut recorder = Recorder::default();
        recorder.handle_packet(t0, 1);
        recorder.handle_packet(t0, 30_000);
        assert_eq!(
            drain(&mut recorder, t0 + LONGEST_INTERVAL, 1200),
            [(30_000, Some(0))]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_was_recorded_is_what_is_read(
            start in any::<u16>(),
            budget in 60usize..1200,
            steps in proptest::collection::vec((1u16..5, 0u64..400_000), 1..300),
        ) {
            let t0 = Instant::now();
            let mut recorder = Recorder::default();
            let mut truth = BTreeMap::new();
            let (mut seq, mut at) = (u64::from(start), 0u64);
            let mut told = Vec::new();
            for (step, micros) in steps {
                told.extend(drain(&mut recorder, t0 + Duration::from_micros(at), budget));
                recorder.handle_packet(t0 + Duration::from_micros(at), seq as u16);
                truth.insert(seq, (at / TICK_MICROS) as i64);
                seq += u64::from(step);
                // Mostly close together, as packets are; some far apart.
                at += if micros > 390_000 { micros * 30 } else { micros / 100 };
            }
            told.extend(drain(&mut recorder, t0 + Duration::from_micros(at) + LONGEST_INTERVAL, budget));
            let last = *truth.last_key_value().expect("one step at least").0;
            let first = told[0].0;
            let skipped = u64::from(first.wrapping_sub(start));
            for (nth, (seq, tick)) in told.iter().enumerate() {
                let full = u64::from(start) + skipped + nth as u64;
                prop_assert_eq!(*seq, full as u16);
                prop_assert_eq!(*tick, truth.get(&full).copied());
            }
            prop_assert_eq!(u64::from(start) + skipped + told.len() as u64 - 1, last);
            prop_assert_eq!(skipped, 0);
        }

        #[test]
        fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(feedback) = Feedback::parse(&body) {
                prop_assert!(feedback.packets().count() <= 65_535);
            }
        }
    }
}
