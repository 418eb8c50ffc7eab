use std::time::Duration;

use super::*;
use talksy_mixer::audio::voice::Seeded;

/// 20 ms, hybrid, full band, one frame; the rest says which packet it is.
fn payload(seq: u64) -> Bytes {
    Bytes::from(vec![0x78, seq as u8, (seq >> 8) as u8])
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Twenty-millisecond ticks against arrivals that a test chooses.
struct Bench {
    start: Instant,
    buffer: JitterBuffer,
    tick: u64,
    pulls: Vec<Pull>,
}

impl Bench {
    fn new() -> Self {
        Bench {
            start: Instant::now(),
            buffer: JitterBuffer::default(),
            tick: 0,
            pulls: Vec::new(),
        }
    }

    /// The packet `seq` of a 20 ms stream arrives at `at` after the start.
    fn push(&mut self, seq: u64, at: Duration) -> Result<(), Refused> {
        let timestamp = (seq as u32).wrapping_mul(960).wrapping_add(u32::MAX - 5000);
        self.buffer
            .push(seq, timestamp, self.start + at, payload(seq))
    }

    fn now(&self) -> Instant {
        self.start + ms(20 * self.tick + 1)
    }

    fn pull(&mut self) -> Pull {
        let pull = self.buffer.pull(self.now());
        self.tick += 1;
        self.pulls.push(pull.clone());
        pull
    }

    fn count(&self, is: impl Fn(&Pull) -> bool) -> usize {
        self.pulls.iter().filter(|pull| is(pull)).count()
    }

    fn played(&self) -> Vec<u64> {
        let number = |pull: &Pull| match pull {
            Pull::Packet { payload, .. } => {
                Some(u64::from(payload[1]) | u64::from(payload[2]) << 8)
            }
            _ => None,
        };
        self.pulls.iter().filter_map(number).collect()
    }
}

fn is_lost(pull: &Pull) -> bool {
    matches!(pull, Pull::Lost { .. })
}

fn is_dry(pull: &Pull) -> bool {
    matches!(pull, Pull::Dry { .. })
}

#[test]
fn a_steady_stream_comes_out_whole_across_the_wrap_of_its_timestamps_at_the_least_delay() {
    let mut bench = Bench::new();
    for seq in 0..500 {
        bench.push(seq, ms(20 * seq)).unwrap();
        bench.pull();
    }
    let played = bench.played();
    assert!(played.windows(2).all(|w| w[1] == w[0] + 1));
    assert!(played.len() >= 496, "{}", played.len());
    assert_eq!(bench.count(|p| is_lost(p) || is_dry(p)), 0);
    assert_eq!(bench.buffer.target(), MIN_TARGET as usize);
}

#[test]
fn packets_out_of_order_are_played_in_order() {
    let mut bench = Bench::new();
    for pair in 0..200 {
        let (first, second) = (2 * pair, 2 * pair + 1);
        bench.push(second, ms(20 * second)).unwrap();
        // Overtaken: its turn comes up to 25 ms late.
        bench.push(first, ms(20 * second + 5)).unwrap();
        bench.pull();
        bench.pull();
    }
    let played = bench.played();
    assert!(played.windows(2).all(|w| w[1] > w[0]));
    assert!(played.len() > 390, "{}", played.len());
}

#[test]
fn a_lost_packet_is_reported_once_with_its_successor() {
    let mut bench = Bench::new();
    for seq in 0..200 {
        if seq % 10 != 7 {
            bench.push(seq, ms(20 * seq)).unwrap();
        }
        bench.pull();
    }
    assert_eq!(bench.count(is_lost) + bench.count(is_dry), 20);
    let with_copy = |pull: &Pull| {
        matches!(
            pull,
            Pull::Lost {
                has_successor: true,
                samples: 960
            }
        )
    };
    assert!(bench.count(with_copy) >= 18);
    assert!(bench.played().len() >= 176);
}

#[test]
fn duplicates_and_late_packets_are_refused_by_name() {
    let mut bench = Bench::new();
    for seq in 0..50 {
        if seq != 20 {
            bench.push(seq, ms(20 * seq)).unwrap();
        }
        bench.pull();
    }
    assert_eq!(bench.push(49, ms(1000)), Err(Refused::Duplicate));
    assert_eq!(bench.push(10, ms(1000)), Err(Refused::Duplicate));
    assert_eq!(bench.push(20, ms(1000)), Err(Refused::Late));
    let garbage = bench
        .buffer
        .push(51, 0, bench.start, Bytes::from_static(&[0xff, 0xff]));
    assert_eq!(garbage, Err(Refused::Malformed));
}

#[test]
fn the_delay_follows_the_jitter_up_and_back_down() {
    let mut bench = Bench::new();
    let mut random = Seeded::new(3);
    let mut arrivals: Vec<(u64, Duration)> = (0..1500)
        .map(|seq| {
            let jitter = if (300..700).contains(&seq) { 90.0 } else { 4.0 };
            (
                seq,
                ms(20 * seq) + Duration::from_secs_f32(random.unit() * jitter / 1000.0),
            )
        })
        .collect();
    arrivals.sort_by_key(|(_, at)| *at);
    let mut arrivals = arrivals.into_iter().peekable();
    let mut highest = 0;
    for _ in 0..1500 {
        while let Some((seq, at)) = arrivals.next_if(|(_, at)| bench.start + *at <= bench.now()) {
            // A little that exceeds the percentile may be late.
            let _ = bench.push(seq, at);
        }
        // The player keeps its lag small, as the resampler would.
        if bench.buffer.lag(bench.now(), 0).abs() > 40 * MS {
            bench.buffer.restart();
        }
        bench.pull();
        highest = highest.max(bench.buffer.target());
    }
    assert!(
        (90 * 48..=125 * 48).contains(&highest),
        "{} ms",
        highest / 48
    );
    assert!(
        bench.buffer.target() < 30 * 48,
        "{} ms",
        bench.buffer.target() / 48
    );
    assert!(bench.played().len() > 1400, "{}", bench.played().len());
}

#[test]
fn a_pause_of_the_sender_is_silence_and_not_loss() {
    let mut bench = Bench::new();
    let mut seq = 0;
    for n in 0..400u64 {
        // Talks for a second, pauses for a second; its clock runs on, its numbers do not.
        let talks = n / 50 % 2 == 0;
        if talks {
            let last = n % 50 == 49;
            let payload = if last {
                Bytes::from_static(&[0x78])
            } else {
                payload(seq)
            };
            let arrival = bench.start + ms(20 * n);
            bench
                .buffer
                .push(seq, n as u32 * 960, arrival, payload)
                .unwrap();
            seq += 1;
        }
        bench.pull();
    }
    assert_eq!(bench.count(|p| is_lost(p) || is_dry(p)), 0);
    let packets = bench.count(|p| matches!(p, Pull::Packet { .. }));
    assert!((196..=200).contains(&packets), "{packets}");
}

#[test]
fn a_sender_that_falls_silent_without_a_word_is_faded_out() {
    let mut bench = Bench::new();
    for seq in 0..50 {
        bench.push(seq, ms(20 * seq)).unwrap();
        bench.pull();
    }
    for _ in 0..50 {
        bench.pull();
    }
    let steps: Vec<u32> = bench
        .pulls
        .iter()
        .filter_map(|pull| match pull {
            Pull::Dry { step } => Some(*step),
            _ => None,
        })
        .collect();
    assert_eq!(steps, [0, 1, 2, 3, 4]);
    assert_eq!(bench.pull(), Pull::Silence);
}

#[test]
fn after_a_stall_the_backlog_does_not_stay() {
    let mut bench = Bench::new();
    for seq in 0..400 {
        if (100..150).contains(&seq) {
            // The network holds everything back for a second.
            bench.pull();
            continue;
        }
        if seq == 150 {
            for held in 100..150 {
                let _ = bench.push(held, ms(20 * 150));
            }
        }
        let _ = bench.push(seq, ms(20 * seq));
        bench.pull();
        assert!(bench.buffer.packets.len() <= 50);
    }
    let (_, stale) = bench.buffer.take_dropped();
    assert!(stale > 30, "{stale}");
    assert!(bench.buffer.lag(bench.now(), 0) < 240 * MS);
}

#[test]
fn packets_of_10_to_60_ms_are_told_by_their_duration() {
    for (toc, samples, every) in [
        (0x70u8, 480, 10),
        (0x78, 960, 20),
        (0x10, 1920, 40),
        (0x18, 2880, 60),
    ] {
        let mut buffer = JitterBuffer::default();
        let start = Instant::now();
        let (mut pulled, mut seq) = (0, 0u64);
        for at in 0..1000u64 {
            if at % every == 0 {
                let packet = Bytes::from(vec![toc, 1, 2, 3]);
                buffer
                    .push(seq, seq as u32 * samples as u32, start + ms(at), packet)
                    .unwrap();
                seq += 1;
            }
            if at % 20 == 0 {
                // As a player does: until a tick's samples are there.
                while pulled < (at as usize + 20) * 48 {
                    match buffer.pull(start + ms(at)) {
                        Pull::Packet { samples: got, .. } => {
                            assert_eq!(got, samples);
                            pulled += got;
                        }
                        Pull::Silence => pulled += 960,
                        other => panic!("{every} ms packets: {other:?} at {at}"),
                    }
                }
            }
        }
    }
}

#[test]
fn a_flood_is_bounded_and_a_sender_that_begins_anew_is_taken_up() {
    let mut bench = Bench::new();
    for seq in 0..10_000 {
        let _ = bench.push(seq, ms(0));
    }
    assert!(bench.buffer.packets.len() <= MAX_PACKETS);
    assert!(bench.buffer.take_dropped().0 > 9000);
    // The same numbers again from the start.
    let mut bench = Bench::new();
    for seq in 5000..5100 {
        bench.push(seq, ms(20 * (seq - 5000))).unwrap();
        bench.pull();
    }
    for n in 0..200 {
        let _ = bench
            .buffer
            .push(n, n as u32 * 960, bench.now(), payload(n));
        bench.pull();
    }
    assert_eq!(bench.played().last().map(|last| last > &150), Some(true));
}

#[test]
fn a_source_that_is_not_played_keeps_up_with_time() {
    let mut bench = Bench::new();
    let mut skipped = Vec::new();
    for seq in 0..100 {
        bench.push(seq, ms(20 * seq)).unwrap();
        let now = bench.now();
        bench.buffer.skip(now, |payload| skipped.push(payload[1]));
        bench.tick += 1;
    }
    assert!(skipped.len() >= 96);
    // Woken up, it continues with the very next packet.
    let next = u64::from(skipped[skipped.len() - 1]) + 1;
    for seq in 100..105 {
        bench.push(seq, ms(20 * seq)).unwrap();
        bench.pull();
    }
    assert_eq!(bench.played()[0], next);
    assert_eq!(bench.count(|p| !matches!(p, Pull::Packet { .. })), 0);
}

#[test]
fn any_order_of_any_numbers_is_survived() {
    let mut random = Seeded::new(11);
    let start = Instant::now();
    let mut buffer = JitterBuffer::default();
    for n in 0..20_000u64 {
        let wild = |random: &mut Seeded| (random.unit() * u32::MAX as f32) as u32;
        let seq = match (random.unit() * 4.0) as u32 {
            0 => u64::from(wild(&mut random)),
            1 => u64::MAX - u64::from(wild(&mut random) % 3),
            _ => n,
        };
        let timestamp = if random.unit() < 0.3 {
            wild(&mut random)
        } else {
            n as u32 * 960
        };
        let arrival = start + ms((random.unit() * 40_000.0) as u64);
        let _ = buffer.push(seq, timestamp, arrival, payload(n));
        let pulled = buffer.pull(start + ms(2 * n));
        if let Pull::Packet { samples, .. } | Pull::Lost { samples, .. } = pulled {
            assert!((1..=5760).contains(&samples));
        }
        assert!(buffer.packets.len() <= MAX_PACKETS);
        if n % 7 == 0 {
            buffer.skip(start + ms(2 * n), drop);
        }
    }
}
