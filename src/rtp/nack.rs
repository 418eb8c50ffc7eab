//! Asking a publisher for packets that are missing (RFC 4585, section 6.2.1).

use std::time::{Duration, Instant};

use super::playout::RepairTime;

/// Missing packets that are asked for at once, per track. When more are missing, all are given up: a keyframe is
/// the better repair.
pub const MAX_MISSING: usize = 256;
/// How often one packet is asked for; then only a keyframe helps.
pub const MAX_TRIES: u8 = 10;
/// Reordered packets have this long before they count as lost,
const REORDERING: Duration = Duration::from_millis(10);
/// and this long where they have been seen to come that late.
const MAX_REORDERING: Duration = Duration::from_millis(40);
/// Beyond the latest that was seen.
const REORDERING_MARGIN: Duration = Duration::from_millis(5);
/// Shortest time between two requests for one packet, whatever the round trip.
const MIN_SPACING: Duration = Duration::from_millis(20);
/// Packets after which it is decided anew whether the path is lossy.
const LOSS_WINDOW: u64 = 256;
/// So many of a window had to be asked for on a lossy path (3 %).
const LOSSY: u64 = 8;
/// Assumed until a round trip is measured.
const DEFAULT_ROUND_TRIP: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug)]
struct Missing {
    seq: u64,
    tries: u8,
    /// When the gap was seen.
    since: Instant,
    ask_at: Instant,
}

/// Counts since the last decision about the path.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    packets: u64,
    missed: u64,
    /// The latest packet that came by itself after others.
    latest: Duration,
}

/// What a packet meant for the gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapChange {
    /// Nothing of note.
    None,
    /// It filled a gap.
    Filled,
    /// More is missing than can be asked for; the gaps are forgotten.
    Overflow,
}

/// Knows which packets of one stream are missing, and when to ask for which.
///
/// Feed it each new packet once, in any order (duplicates are harmless). Bounded by [`MAX_MISSING`]; allocates
/// nothing after construction.
#[derive(Debug)]
pub struct NackGenerator {
    highest: Option<u64>,
    missing: Vec<Missing>,
    spacing: Duration,
    window: Window,
    /// Requests are lost there, too, so they are sent twice in a round trip. Browsers answer the second one only if the
    /// first did not come.
    lossy: bool,
    /// How long a packet may be late before it is asked for.
    reordering: Duration,
    repair: RepairTime,
    /// Packets that were asked for since the highest number rose.
    missed: u64,
    /// The newest packet that will never come, unless a keyframe after it has come.
    broken: Option<u64>,
    gave_up: u64,
    asked: u64,
}

impl Default for NackGenerator {
    fn default() -> Self {
        NackGenerator {
            highest: None,
            missing: Vec::with_capacity(MAX_MISSING),
            spacing: DEFAULT_ROUND_TRIP,
            window: Window::default(),
            lossy: false,
            reordering: REORDERING,
            repair: RepairTime::default(),
            missed: 0,
            broken: None,
            gave_up: 0,
            asked: 0,
        }
    }
}

impl NackGenerator {
    /// The time after which an answer should have come.
    pub fn set_round_trip(&mut self, round_trip: Duration) {
        self.spacing = (round_trip + round_trip / 4).max(MIN_SPACING);
        self.repair.set_round_trip(round_trip);
    }

    /// A packet came, by itself or `recovered` by a retransmission.
    pub fn handle_packet(&mut self, now: Instant, seq: u64, recovered: bool) -> GapChange {
        let Some(highest) = self.highest else {
            self.highest = Some(seq);
            return GapChange::None;
        };
        if seq <= highest {
            return self.fill(now, seq, recovered);
        }
        self.note_progress(seq - highest);
        self.highest = Some(seq);
        let gap = (seq - highest - 1) as usize;
        if self.missing.len() + gap > MAX_MISSING {
            self.gave_up += (self.missing.len() + gap) as u64;
            self.missing.clear();
            self.broken = Some(seq - 1);
            return GapChange::Overflow;
        }
        self.missing.extend((highest + 1..seq).map(|seq| Missing {
            seq,
            tries: 0,
            since: now,
            ask_at: now + self.reordering,
        }));
        GapChange::None
    }

    /// A keyframe begins with this packet: what is missing before it does no harm any more.
    pub fn handle_keyframe(&mut self, seq: u64) {
        self.broken = self.broken.filter(|broken| *broken > seq);
    }

    /// Whether packets were given up without a keyframe after them: a decoder cannot go on, and would itself notice
    /// only much later.
    pub fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// The highest number rose by so many.
    fn note_progress(&mut self, packets: u64) {
        let missed = std::mem::take(&mut self.missed);
        self.repair.handle_packets(packets, missed);
        self.window.packets += packets;
        if self.window.packets >= LOSS_WINDOW {
            self.lossy = self.window.missed * LOSS_WINDOW >= LOSSY * self.window.packets;
            let seen = self.window.latest + REORDERING_MARGIN;
            self.reordering = self.reordering.min(seen).max(REORDERING);
            self.window = Window::default();
        }
    }

    fn fill(&mut self, now: Instant, seq: u64, recovered: bool) -> GapChange {
        match self
            .missing
            .binary_search_by_key(&seq, |missing| missing.seq)
        {
            Ok(at) => {
                let missing = self.missing.remove(at);
                self.note_filled(now, missing, recovered);
                GapChange::Filled
            }
            Err(_) => GapChange::None,
        }
    }

    fn note_filled(&mut self, now: Instant, missing: Missing, recovered: bool) {
        let took = now.saturating_duration_since(missing.since);
        if recovered {
            self.repair.handle_repair(took);
            return;
        }
        // It was only late.
        let patience = (took + REORDERING_MARGIN).min(MAX_REORDERING);
        self.reordering = self.reordering.max(patience);
        self.window.latest = self.window.latest.max(took);
        if missing.tries > 0 {
            self.missed = self.missed.saturating_sub(1);
            self.window.missed = self.window.missed.saturating_sub(1);
        }
    }

    /// Appends the packets to ask for now, ascending and at most `limit`; the others stay due. What was asked for in
    /// vain [`MAX_TRIES`] times is given up.
    pub fn poll(&mut self, now: Instant, limit: usize, out: &mut Vec<u16>) {
        let spacing = if self.lossy {
            (self.spacing / 2).max(MIN_SPACING)
        } else {
            self.spacing
        };
        let (mut asked, mut gave_up, mut missed) = (0, 0, 0);
        let mut broken = self.broken;
        self.missing.retain_mut(|missing| {
            if missing.ask_at > now || asked == limit as u64 {
                return true;
            }
            if missing.tries == MAX_TRIES {
                gave_up += 1;
                broken = broken.max(Some(missing.seq));
                return false;
            }
            missed += u64::from(missing.tries == 0);
            missing.tries += 1;
            missing.ask_at = now + spacing;
            asked += 1;
            out.push(missing.seq as u16);
            true
        });
        self.broken = broken;
        self.window.missed += missed;
        self.missed += missed;
        self.asked += asked;
        self.gave_up += gave_up;
    }

    /// The time after which lost packets are mostly there after all; zero where few are lost.
    pub fn repair_time(&self) -> Duration {
        self.repair.needed()
    }

    /// When [`Self::poll`] next has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.missing.iter().map(|missing| missing.ask_at).min()
    }

    /// Packets that were not asked for any more.
    pub fn gave_up(&self) -> u64 {
        self.gave_up
    }

    /// Requests so far, repeated ones included.
    pub fn asked(&self) -> u64 {
        self.asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn asked(generator: &mut NackGenerator, now: Instant) -> Vec<u16> {
        let mut out = Vec::new();
        generator.poll(now, usize::MAX, &mut out);
        out
    }

    #[test]
    fn a_gap_is_asked_for_after_the_time_for_reordering() {
        let t0 = Instant::now();
        let mut generator = NackGenerator::default();
        generator.handle_packet(t0, 100, false);
        generator.handle_packet(t0, 103, false);
        assert!(asked(&mut generator, t0).is_empty());
        assert_eq!(generator.poll_timeout(), Some(t0 + REORDERING));
        assert_eq!(asked(&mut generator, t0 + REORDERING), [101, 102]);
        assert!(asked(&mut generator, t0 + REORDERING).is_empty());
    }

    #[test]
    fn what_a_retransmission_brought_is_never_asked_for_again() {
        let t0 = Instant::now();
        let mut generator = NackGenerator::default();
        generator.handle_packet(t0, 100, false);
        generator.handle_packet(t0, 102, false);
        assert_eq!(asked(&mut generator, t0 + REORDERING), [101]);
        assert_eq!(generator.handle_packet(t0, 101, true), GapChange::Filled);
        assert!(asked(&mut generator, t0 + Duration::from_secs(9)).is_empty());
        assert_eq!(generator.poll_timeout(), None);
    }

    #[test]
    fn the_round_trip_spaces_the_requests_and_the_tries_end() {
        let t0 = Instant::now();
        let mut generator = NackGenerator::default();
        generator.set_round_trip(Duration::from_millis(200));
        generator.handle_packet(t0, 100, false);
        generator.handle_packet(t0, 102, false);
        let mut times = Vec::new();
        for ms in 0..3000 {
            let now = t0 + Duration::from_millis(ms);
            if !asked(&mut generator, now).is_empty() {
                times.push(ms);
            }
        }
        assert_eq!(times[..4], [10, 260, 510, 760]);
        assert_eq!(times.len(), usize::from(MAX_TRIES));
        assert_eq!((generator.gave_up(), generator.asked()), (1, 10));
    }

    #[test]
    fn a_lossy_path_is_asked_twice_in_a_round_trip_until_it_is_better() {
        let t0 = Instant::now();
        let mut generator = NackGenerator::default();
        generator.set_round_trip(Duration::from_millis(80));
        let mut now = t0;
        let mut intervals =
            |generator: &mut NackGenerator, range: std::ops::Range<u64>, lost_each: u64| {
                let mut asked_at = BTreeMap::<u16, Instant>::new();
                let mut shortest = Duration::MAX;
                for seq in range {
                    now += Duration::from_millis(5);
                    if seq % lost_each != 0 {
                        generator.handle_packet(now, seq, false);
                    }
                    for seq in asked(generator, now) {
                        if let Some(before) = asked_at.insert(seq, now) {
                            shortest = shortest.min(now - before);
                        }
                    }
                }
                shortest
            };
        intervals(&mut generator, 1..600, 20);
        let lossy = intervals(&mut generator, 600..1200, 20);
        assert_eq!(lossy, Duration::from_millis(50));
        intervals(&mut generator, 1200..2000, 100);
        let better = intervals(&mut generator, 2000..2800, 100);
        assert_eq!(better, Duration::from_millis(100));
    }

    #[test]
    fn a_stream_that_lost_a_packet_for_good_is_broken_until_a_later_keyframe() {
        let t0 = Instant::now();
        let mut generator = NackGenerator::default();
        generator.handle_packet(t0, 100, false);
        generator.handle_packet(t0, 102, false);
        for tries in 0..=MAX_TRIES {
            assert!(!generator.is_broken());
            let now = t0 + Duration::from_secs(1 + u64::from(tries));
            asked(&mut generator, now);
        }
        assert!(generator.is_broken());
        generator.handle_keyframe(99);
        assert!(generator.is_broken(), "that one was before the loss");
        generator.handle_keyframe(103);
        assert!(!generator.is_broken());
    }

    #[test]
    fn where_packets_come_late_they_are_given_the_time() {
        let t0 = Instant::now();
        let mut generator = NackGenerator::default();
        generator.handle_packet(t0, 100, false);
        let ms = Duration::from_millis;
        // Each tenth packet is 20 ms late; the first is asked for in vain, no later one is.
        let mut vain = 0;
        for n in 1..100u64 {
            let now = t0 + ms(n * 5);
            if n % 10 != 0 {
                generator.handle_packet(now, 100 + n, false);
            }
            if n % 10 == 5 && n > 10 {
                generator.handle_packet(now, 100 + n - 5, false);
            }
            vain += asked(&mut generator, now).len();
        }
        assert_eq!(vain, 1);
        assert_eq!(generator.repair_time(), Duration::ZERO, "nothing was lost");
        // Where none are late any more, losses are asked for as soon as before.
        let t1 = t0 + ms(1000);
        for n in 0..600 {
            generator.handle_packet(t1, 200 + n, false);
        }
        generator.handle_packet(t1, 801, false);
        generator.poll(t1 + ms(9), usize::MAX, &mut Vec::new());
        assert_eq!(generator.poll_timeout(), Some(t1 + REORDERING));
    }

    #[test]
    fn repairs_are_timed_where_packets_are_lost() {
        let t0 = Instant::now();
        let mut generator = NackGenerator::default();
        generator.set_round_trip(Duration::from_millis(50));
        let mut now = t0;
        for n in 0..3000u64 {
            now += Duration::from_millis(5);
            if n % 10 != 0 {
                generator.handle_packet(now, n, false);
            }
            if n % 10 == 9 {
                generator.handle_packet(now, n - 9, true);
            }
            asked(&mut generator, now);
        }
        let time = generator.repair_time();
        assert!(time > Duration::from_millis(250), "{time:?}");
    }

    #[test]
    fn too_large_a_gap_is_given_up_at_once() {
        let t0 = Instant::now();
        let mut generator = NackGenerator::default();
        generator.handle_packet(t0, 100, false);
        let far = 102 + MAX_MISSING as u64;
        assert_eq!(generator.handle_packet(t0, far, false), GapChange::Overflow);
        assert_eq!(generator.gave_up(), MAX_MISSING as u64 + 1);
        assert!(generator.is_broken());
        generator.handle_keyframe(far);
        assert!(!generator.is_broken());
        assert_eq!(generator.poll_timeout(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn only_missing_packets_are_asked_for_and_never_too_often(
            steps in proptest::collection::vec((-20i64..6, 0u64..30), 1..400)
        ) {
            let mut now = Instant::now();
            let mut generator = NackGenerator::default();
            let mut came = std::collections::BTreeSet::from([1000u64]);
            let mut tries: BTreeMap<u16, (u8, Instant)> = BTreeMap::new();
            generator.handle_packet(now, 1000, false);
            for (step, wait) in steps {
                now += Duration::from_millis(wait);
                let seq = came.last().expect("never empty").saturating_add_signed(step).max(1000);
                came.insert(seq);
                generator.handle_packet(now, seq, false);
                for seq in asked(&mut generator, now) {
                    prop_assert!(!came.contains(&u64::from(seq)));
                    let (count, last) = tries.entry(seq).or_insert((0, now - MIN_SPACING));
                    prop_assert!(now - *last >= MIN_SPACING);
                    (*count, *last) = (*count + 1, now);
                    prop_assert!(*count <= MAX_TRIES);
                }
                prop_assert!(generator.missing.len() <= MAX_MISSING);
            }
        }
    }
}
