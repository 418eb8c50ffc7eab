use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const RATE: u32 = 90_000;

/// What happens to a source's stream on its way: packets are lost, swapped and doubled, then another source comes.
#[derive(Clone, Debug)]
struct Stretch {
    first_seq: u64,
    first_timestamp: u64,
    packets: Vec<Fate>,
    pause_ms: u64,
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Sent,
    Lost,
    Twice,
    SwappedWithNext,
}

fn stretch() -> impl Strategy<Value = Stretch> {
    let fate = prop_oneof![
        6 => Just(Fate::Sent),
        1 => Just(Fate::Lost),
        1 => Just(Fate::Twice),
        1 => Just(Fate::SwappedWithNext),
    ];
    let near_wrap = prop_oneof![
        0u64..10_000,
        (1u64 << 16) - 30..(1 << 16) + 30,
        0u64..1 << 40
    ];
    (
        near_wrap,
        0u64..1 << 40,
        proptest::collection::vec(fate, 1..60),
        0u64..2000,
    )
        .prop_map(|(first_seq, first_timestamp, packets, pause_ms)| Stretch {
            first_seq,
            first_timestamp,
            packets,
            pause_ms,
        })
}

/// The numbers in order of arrival: offset from the stretch's first. The first packet always arrives first.
fn arrivals(stretch: &Stretch) -> Vec<u64> {
    let mut order: Vec<u64> = vec![0];
    let mut held = None;
    for (nth, fate) in stretch.packets.iter().enumerate() {
        let seq = nth as u64 + 1;
        match fate {
            Fate::Lost => {}
            Fate::Sent => order.push(seq),
            Fate::Twice => order.extend([seq, seq]),
            Fate::SwappedWithNext => {
                order.extend(held.replace(seq));
                continue;
            }
        }
        order.extend(held.take());
    }
    order.extend(held);
    order
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn the_stream_is_whole_and_its_time_goes_forward(
        initial in 0u16..0x8000, stretches in proptest::collection::vec(stretch(), 1..6)
    ) {
        let mut now = Instant::now();
        let mut rewriter = Rewriter::new(initial);
        let mut given = BTreeSet::new();
        let mut newest: Option<(u64, u64, Instant)> = None;
        for stretch in &stretches {
            rewriter.begin(now, stretch.first_seq, stretch.first_timestamp, None, RATE);
            let mut offsets = None;
            let mut came = BTreeSet::new();
            for ahead in arrivals(stretch) {
                now += Duration::from_millis(10);
                let (seq, timestamp) = (stretch.first_seq + ahead, stretch.first_timestamp + ahead * 900);
                let result = rewriter.rewrite(now, seq, timestamp);
                if !came.insert(ahead) {
                    prop_assert_eq!(result, Err(DropReason::Duplicate));
                    continue;
                }
                let got = result.expect("new");
                prop_assert!(given.insert(got.seq), "number {} twice", got.seq);
                let distance = (got.seq.wrapping_sub(seq), got.timestamp.wrapping_sub(timestamp));
                prop_assert_eq!(*offsets.get_or_insert(distance), distance, "distances are kept");
                if ahead == 0 {
                    match newest {
                        None => prop_assert_eq!(got.seq, (1 << 16) + u64::from(initial)),
                        Some((seq, timestamp, at)) => {
                            prop_assert_eq!(got.seq, seq + 1, "no gap at the joint");
                            prop_assert!(got.timestamp > timestamp, "time goes forward");
                            let passed = ticks(now - at, RATE);
                            prop_assert!((got.timestamp - timestamp).abs_diff(passed) <= ticks(SAME_CLOCK, RATE) + 900);
                        }
                    }
                }
                let highest = newest.map_or(got.seq, |newest| newest.0.max(got.seq));
                newest = match newest {
                    Some((_, timestamp, at)) if timestamp >= got.timestamp => Some((highest, timestamp, at)),
                    _ => Some((highest, got.timestamp, now)),
                };
            }
            now += Duration::from_millis(stretch.pause_ms);
        }
    }
}

#[test]
fn what_is_from_before_the_switch_is_refused() {
    let now = Instant::now();
    let mut rewriter = Rewriter::new(0);
    rewriter.begin(now, 500, 0, None, RATE);
    assert!(rewriter.rewrite(now, 500, 0).is_ok());
    assert_eq!(rewriter.rewrite(now, 499, 0), Err(DropReason::TooOld));
}

#[test]
fn sources_of_one_clock_keep_their_common_timestamps() {
    let t0 = Instant::now();
    let mut rewriter = Rewriter::new(0);
    rewriter.begin(t0, 10, 48_000, None, 48_000);
    let first = rewriter.rewrite(t0, 10, 48_000).expect("first");
    let t1 = t0 + Duration::from_millis(23);
    rewriter.begin(t1, 7000, 48_960, None, 48_000);
    let second = rewriter.rewrite(t1, 7000, 48_960).expect("second");
    assert_eq!(second.seq, first.seq + 1);
    assert_eq!(
        second.timestamp,
        first.timestamp + 960,
        "the clock's 20 ms, not the 23 that passed"
    );
    assert_eq!(rewriter.map_timestamp(48_960), Some(second.timestamp));
}

#[test]
fn a_rewriter_without_source_gives_nothing() {
    let mut rewriter = Rewriter::new(0);
    assert_eq!(
        rewriter.rewrite(Instant::now(), 1, 1),
        Err(DropReason::NotAttached)
    );
    assert_eq!(rewriter.map_timestamp(1), None);
}
