use proptest::prelude::*;

use super::*;

const PACKET: Duration = Duration::from_millis(20);

/// Scripted levels in virtual time: each voice says in which way it sounds at each packet.
struct Bench {
    speakers: Speakers,
    start: Instant,
    packet: u32,
    ids: Vec<VoiceId>,
    /// Dominant voice after each packet.
    history: Vec<Option<usize>>,
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Silent,
    /// Words and pauses at this level.
    Talks(u8),
    /// One level, with the voice flag.
    Constant(u8),
    /// Full scale for all but 120 ms of every second: an imitation of speech that never ends.
    Imitates,
}

impl Way {
    fn level(self, packet: u32, who: usize) -> AudioLevel {
        let (dbov, voice) = match self {
            Way::Silent => (90, false),
            Way::Constant(dbov) => (dbov, true),
            Way::Imitates if packet % 50 < 44 => (0, true),
            Way::Imitates => (90, false),
            Way::Talks(dbov) => {
                // Syllables of 180 ms, every fourth a pause between words; a breath every 3 s.
                let at = packet + 7 * who as u32;
                let rests = at / 9 % 4 == 3 || at % 150 >= 130;
                let wobble = (at.wrapping_mul(2_654_435_761) >> 29) as u8;
                if rests {
                    (70, false)
                } else {
                    (dbov + wobble, true)
                }
            }
        };
        AudioLevel { dbov, voice }
    }
}

impl Bench {
    fn new(voices: usize) -> Self {
        let (mut speakers, start) = (Speakers::default(), Instant::now());
        let ids = (0..voices).map(|_| speakers.insert(start)).collect();
        Bench {
            speakers,
            start,
            packet: 0,
            ids,
            history: Vec::new(),
        }
    }

    fn now(&self) -> Instant {
        self.start + self.packet * PACKET
    }

    fn run(&mut self, seconds: u32, ways: &[Way]) {
        for _ in 0..seconds * 50 {
            let now = self.now();
            for (who, way) in ways.iter().enumerate() {
                let level = Some(way.level(self.packet, who));
                self.speakers
                    .handle_packet(now, self.ids[who], Sound { level, slots: 1 });
            }
            self.speakers.handle_timeout(now);
            let dominant = self.speakers.dominant();
            let who = dominant.and_then(|id| self.ids.iter().position(|known| *known == id));
            self.history.push(who);
            self.packet += 1;
        }
    }

    /// Seconds of the last `seconds` in which `who` was dominant.
    fn dominated(&self, who: usize, seconds: usize) -> f32 {
        let last = &self.history[self.history.len() - seconds * 50..];
        last.iter().filter(|d| **d == Some(who)).count() as f32 / 50.0
    }

    fn changes(&self) -> usize {
        self.history.windows(2).filter(|w| w[0] != w[1]).count()
    }
}

use Way::*;

#[test]
fn the_floor_follows_those_who_take_turns_and_stays_with_the_last() {
    let mut bench = Bench::new(3);
    bench.run(2, &[Silent, Silent, Silent]);
    assert_eq!(bench.speakers.dominant(), None);
    for (who, ways) in [
        [Talks(25), Silent, Silent],
        [Silent, Talks(35), Silent],
        [Silent, Silent, Talks(30)],
    ]
    .iter()
    .enumerate()
    {
        bench.run(6, ways);
        assert!(bench.dominated(who, 5) > 4.5, "speaker {who} within 1.5 s");
    }
    bench.run(20, &[Silent, Silent, Silent]);
    assert_eq!(bench.dominated(2, 20), 20.0);
    assert_eq!(bench.changes(), 3);
}

#[test]
fn a_cough_and_a_short_yes_take_nothing() {
    let mut bench = Bench::new(2);
    bench.run(6, &[Talks(30), Silent]);
    for packet in 0..15 {
        let level = Some(Talks(20).level(packet, 1));
        let now = bench.now() + packet * PACKET;
        let sound = Sound { level, slots: 1 };
        bench.speakers.handle_packet(now, bench.ids[1], sound);
    }
    bench.run(6, &[Talks(30), Silent]);
    assert_eq!(bench.dominated(0, 11), 11.0);
}

#[test]
fn a_constant_maximum_wins_for_three_seconds_and_never_again() {
    let mut bench = Bench::new(3);
    bench.run(4, &[Constant(0), Talks(35), Silent]);
    for round in 0..10 {
        let mut ways = [Constant(0), Silent, Silent];
        ways[1 + round % 2] = Talks(35);
        bench.run(6, &ways);
        assert_eq!(bench.dominated(0, 6), 0.0, "round {round}");
        assert!(bench.dominated(1 + round % 2, 6) > 4.0, "round {round}");
    }
}

#[test]
fn an_imitation_that_never_ends_gets_less_and_less_of_the_floor() {
    let mut bench = Bench::new(3);
    let minute = |bench: &mut Bench| {
        for round in 0..10 {
            let mut ways = [Imitates, Silent, Silent];
            ways[1 + round % 2] = Talks(30);
            bench.run(6, &ways);
        }
        bench.dominated(0, 60)
    };
    let minutes = [(); 5].map(|()| minute(&mut bench));
    assert!(minutes[0] < 20.0, "{minutes:?}");
    assert!(minutes.iter().sum::<f32>() < 36.0, "{minutes:?}");
}

#[test]
fn what_the_decoder_does_not_hear_does_not_win() {
    let mut bench = Bench::new(2);
    bench.speakers.set_decoded(bench.ids[0], Some(false));
    bench.speakers.set_decoded(bench.ids[1], Some(true));
    bench.run(30, &[Imitates, Talks(35)]);
    assert!(!bench.speakers.is_believed(bench.ids[0]));
    assert!(bench.dominated(0, 30) < 2.0);
    bench.speakers.set_decoded(bench.ids[0], None);
    assert!(bench.speakers.is_believed(bench.ids[0]));
}

#[test]
fn the_sound_of_a_screen_is_no_speaker_and_who_leaves_is_none_either() {
    let mut bench = Bench::new(2);
    bench.speakers.set_screen(bench.ids[0], true);
    bench.run(5, &[Talks(20), Silent]);
    assert_eq!(bench.speakers.dominant(), None);
    bench.run(5, &[Talks(20), Talks(40)]);
    assert_eq!(bench.dominated(1, 3), 3.0);
    bench.speakers.remove(bench.ids[1]);
    assert_eq!(bench.speakers.dominant(), None);
}

/// Sends one packet of each voice; who passes.
fn pass(bench: &mut Bench, ways: &[Way]) -> Vec<bool> {
    let now = bench.now();
    let packet = bench.packet;
    bench.packet += 1;
    let sounds = ways.iter().enumerate();
    sounds
        .map(|(who, way)| {
            let level = Some(way.level(packet, who));
            let sound = Sound { level, slots: 1 };
            bench
                .speakers
                .handle_packet(now, bench.ids[who], sound)
                .passes
        })
        .collect()
}

#[test]
fn a_newcomers_first_loud_packet_passes_where_somebody_is_idle() {
    let mut bench = Bench::new(4);
    bench.speakers.set_limit(Some(2));
    let quiet = [Silent; 4];
    assert_eq!(pass(&mut bench, &quiet), [true, true, false, false]);
    for _ in 0..100 {
        pass(&mut bench, &quiet);
    }
    let speaks = [Silent, Silent, Silent, Constant(30)];
    assert_eq!(pass(&mut bench, &speaks), [true, true, false, true]);
    assert_eq!(pass(&mut bench, &speaks), [false, true, false, true]);
    // Between words, and for a while after the last: nobody takes the place of one who holds it.
    assert_eq!(pass(&mut bench, &quiet), [false, true, false, true]);
}

#[test]
fn while_all_speak_only_one_who_is_louder_for_a_while_gets_a_place() {
    let mut bench = Bench::new(3);
    bench.speakers.set_limit(Some(2));
    let both = [Constant(40), Constant(30), Silent];
    for _ in 0..20 {
        assert_eq!(pass(&mut bench, &both), [true, true, false]);
    }
    let as_loud = [Constant(40), Constant(30), Constant(37)];
    for _ in 0..30 {
        assert_eq!(pass(&mut bench, &as_loud), [true, true, false]);
    }
    let louder = [Constant(40), Constant(30), Constant(25)];
    let waited = (0..40).position(|_| pass(&mut bench, &louder)[2]);
    assert!(
        (5..25).contains(&waited.expect("gets a place")),
        "{waited:?}"
    );
    assert_eq!(pass(&mut bench, &louder), [false, true, true]);
}

#[test]
fn who_stops_sending_or_tells_no_level_blocks_nobody() {
    let mut bench = Bench::new(3);
    bench.speakers.set_limit(Some(1));
    let unknown = Sound {
        level: None,
        slots: 1,
    };
    let now = bench.now();
    assert!(
        bench
            .speakers
            .handle_packet(now, bench.ids[0], unknown)
            .passes
    );
    assert!(
        !bench
            .speakers
            .handle_packet(now, bench.ids[1], unknown)
            .passes
    );
    let loud = Sound {
        level: Some(Constant(30).level(0, 2)),
        slots: 1,
    };
    let passage = bench.speakers.handle_packet(now, bench.ids[2], loud);
    assert_eq!(
        (passage.passes, passage.displaced),
        (true, Some(bench.ids[0]))
    );
    let later = now + Duration::from_secs(2);
    assert!(
        bench
            .speakers
            .handle_packet(later, bench.ids[1], unknown)
            .passes
    );
}

proptest! {
    /// Whatever the levels: at most as many pass within one packet's time as there are places, counting those that were
    /// displaced in it, and a screen's sound always does.
    #[test]
    fn never_more_than_the_limit_hold_a_place(
        limit in 1usize..5,
        levels in proptest::collection::vec(proptest::collection::vec(0u8..128, 8), 50..200),
    ) {
        let mut bench = Bench::new(8);
        bench.speakers.set_limit(Some(limit));
        bench.speakers.set_screen(bench.ids[7], true);
        let mut holders = std::collections::BTreeSet::new();
        for dbovs in levels {
            let now = bench.now();
            bench.packet += 1;
            for (who, dbov) in dbovs.into_iter().enumerate() {
                let level = Some(AudioLevel { dbov, voice: dbov % 2 == 0 });
                let passage = bench.speakers.handle_packet(now, bench.ids[who], Sound { level, slots: 1 });
                if let Some(displaced) = passage.displaced {
                    prop_assert!(holders.remove(&displaced));
                }
                if passage.passes {
                    holders.insert(bench.ids[who]);
                }
                prop_assert!(holders.len() <= limit);
                prop_assert!(passage.passes || who != 7);
                prop_assert_eq!(passage.passes, holders.contains(&bench.ids[who]));
            }
        }
    }
}
