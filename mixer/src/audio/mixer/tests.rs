use super::*;
use crate::audio::frame::{FRAME_SAMPLES, peak};
use crate::audio::gain::Ramp;
use crate::audio::level::Dbfs;
use crate::audio::limiter::LOOK_AHEAD;
use crate::audio::voice::{Noise, SyntheticVoice};

/// A talker that says when it speaks.
struct Talker {
    voice: SyntheticVoice,
    id: SourceId,
    frame: Frame,
}

impl Talker {
    fn new(mixer: &mut Mixer, owner: u64, pitch: f32, dbfs: f32) -> Self {
        Talker {
            voice: SyntheticVoice::new(owner, pitch, dbfs),
            id: mixer.add_source(OwnerId(owner), SourceKind::Voice),
            frame: SILENCE,
        }
    }

    fn speak(&mut self, mixer: &mut Mixer) {
        self.voice.next_frame(&mut self.frame);
        mixer.feed(self.id, &self.frame);
    }
}

fn shared(mixer: &Mixer) -> &Mix {
    mixer.mixes().next().expect("there is always a shared mix")
}

fn heard_by(mixer: &Mixer, owner: u64) -> &Mix {
    let whose = mixer.mix_of(OwnerId(owner));
    mixer.mixes().find(|mix| mix.whose() == whose).unwrap()
}

fn wanted(mixer: &Mixer, ids: &[SourceId]) -> Vec<SourceId> {
    ids.iter()
        .copied()
        .filter(|id| mixer.is_wanted(*id))
        .collect()
}

/// Scale-invariant signal-to-distortion ratio in dB.
fn si_sdr(reference: &[f32], estimate: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(x, y)| f64::from(*x) * f64::from(*y))
            .sum()
    };
    let scale = dot(reference, estimate) / dot(reference, reference);
    let signal = scale * scale * dot(reference, reference);
    let distortion = dot(estimate, estimate) - signal;
    10.0 * (signal / distortion.max(1e-12)).log10()
}

/// The mean over the seconds: a slow gain is not distortion.
fn si_sdr_by_second(reference: &[f32], estimate: &[f32]) -> f64 {
    let seconds = reference
        .chunks_exact(48_000)
        .zip(estimate.chunks_exact(48_000));
    let ratios: Vec<f64> = seconds.map(|(r, e)| si_sdr(r, e)).collect();
    ratios.iter().sum::<f64>() / ratios.len() as f64
}

#[test]
fn the_mix_for_one_is_bit_for_bit_that_of_a_room_without_it() {
    let mut full = Mixer::new(MixerConfig::default());
    let mut without = Mixer::new(MixerConfig::default());
    let mut talkers: Vec<Talker> = (0..3)
        .map(|i| Talker::new(&mut full, i, 100.0 + 40.0 * i as f32, -40.0))
        .collect();
    let others: Vec<SourceId> = [0, 2]
        .map(|i| without.add_source(OwnerId(i), SourceKind::Voice))
        .into();
    full.add_listener(OwnerId(1));
    let (mut own_mix, mut spoken) = (0, 0.0f32);
    for _ in 0..400 {
        for talker in &mut talkers {
            talker.speak(&mut full);
        }
        without.feed(others[0], &talkers[0].frame);
        without.feed(others[1], &talkers[2].frame);
        full.mix();
        without.mix();
        own_mix += usize::from(full.mix_of(OwnerId(1)) == MixFor::Minus(OwnerId(1)));
        // Quiet enough that no limiter works: what is compared is the sum.
        let mine = heard_by(&full, 1).samples();
        assert_eq!(mine, shared(&without).samples());
        spoken = spoken.max(peak(mine));
    }
    assert!(own_mix > 300, "{own_mix}");
    assert!(
        spoken > 0.1 && spoken < crate::audio::limiter::CEILING,
        "{spoken}"
    );
}

#[test]
fn nobody_hears_a_source_of_its_own_be_there_one_or_two() {
    let mut mixer = Mixer::new(MixerConfig::default());
    let mut talker = Talker::new(&mut mixer, 7, 120.0, -20.0);
    let screen = mixer.add_source(OwnerId(7), SourceKind::Music);
    mixer.add_listener(OwnerId(7));
    mixer.add_listener(OwnerId(8));
    let (mut own, mut other) = (0.0f32, 0.0f32);
    for n in 0..300 {
        talker.speak(&mut mixer);
        let tone = std::array::from_fn(|i| ((n * 960 + i) as f32 * 0.05).sin() * 0.2);
        mixer.feed(screen, &tone);
        mixer.mix();
        own = own.max(peak(heard_by(&mixer, 7).samples()));
        other = other.max(peak(heard_by(&mixer, 8).samples()));
    }
    assert_eq!(own, 0.0);
    assert!(other > 0.2, "{other}");
}

#[test]
fn a_room_where_nobody_speaks_has_a_silent_mix_of_zeros() {
    let mut mixer = Mixer::new(MixerConfig::default());
    let mut mics: Vec<(SourceId, Noise)> = (0..5)
        .map(|i| {
            let id = mixer.add_source(OwnerId(i), SourceKind::Voice);
            (id, Noise::new(i, -50.0))
        })
        .collect();
    let mut frame = SILENCE;
    for _ in 0..200 {
        for (id, noise) in &mut mics {
            noise.next_frame(&mut frame);
            mixer.feed(*id, &frame);
        }
        mixer.mix();
        assert!(shared(&mixer).is_silent());
        assert_eq!(shared(&mixer).samples(), &SILENCE);
    }
}

#[test]
fn a_bare_tone_is_shut_out_of_a_microphone_and_heard_as_shared_sound() {
    let level_of = |kind| {
        let mut mixer = Mixer::new(MixerConfig::default());
        let id = mixer.add_source(OwnerId(1), kind);
        for n in 0..500 {
            let tone =
                std::array::from_fn(|i| ((n * 960 + i) as f32 * 440.0 * 0.000_130_9).sin() * 0.3);
            mixer.feed(id, &tone);
            mixer.mix();
        }
        Dbfs::of(shared(&mixer).samples()).0
    };
    assert_eq!(level_of(SourceKind::Voice), Dbfs::SILENCE.0);
    assert!(level_of(SourceKind::Music) > -15.0);
}

#[test]
fn four_speak_and_three_are_heard_without_taking_turns() {
    let mut mixer = Mixer::new(MixerConfig::default());
    // The fourth is a little louder than the others, within the hysteresis.
    let mut talkers: Vec<Talker> = [-20.0, -20.0, -20.0, -17.0]
        .iter()
        .enumerate()
        .map(|(i, &dbfs)| Talker::new(&mut mixer, i as u64, 100.0 + 35.0 * i as f32, dbfs))
        .collect();
    for _ in 0..50 {
        talkers[..3].iter_mut().for_each(|t| t.speak(&mut mixer));
        mixer.mix();
    }
    let mut changes = 0;
    let mut last: Vec<bool> = talkers.iter().map(|t| mixer.is_heard(t.id)).collect();
    for _ in 0..500 {
        talkers.iter_mut().for_each(|t| t.speak(&mut mixer));
        mixer.mix();
        let heard: Vec<bool> = talkers.iter().map(|t| mixer.is_heard(t.id)).collect();
        assert!(heard.iter().filter(|h| **h).count() <= 3);
        changes += heard.iter().zip(&last).filter(|(a, b)| a != b).count();
        last = heard;
    }
    // Ten seconds with some twenty pauses of phrases per talker: places change at pauses at most, not per syllable.
    assert!(changes < 60, "{changes}");
}

#[test]
fn a_far_louder_voice_takes_a_place_and_no_more_than_three_owners_ever_hold_one() {
    let mut mixer = Mixer::new(MixerConfig::default());
    (0..4).for_each(|i| mixer.add_listener(OwnerId(i)));
    let mut talkers: Vec<Talker> = [-30.0, -30.0, -30.0, -10.0]
        .iter()
        .enumerate()
        .map(|(i, &dbfs)| Talker::new(&mut mixer, i as u64, 100.0 + 35.0 * i as f32, dbfs))
        .collect();
    for n in 0..150 {
        let speaking = if n < 75 { 3 } else { 4 };
        talkers[..speaking]
            .iter_mut()
            .for_each(|t| t.speak(&mut mixer));
        mixer.mix();
        assert!(mixer.mixes().count() <= 4);
    }
    assert!(mixer.is_heard(talkers[3].id));
}

#[test]
fn three_who_shout_at_once_stay_below_full_scale() {
    let mut mixer = Mixer::new(MixerConfig::default());
    mixer.add_listener(OwnerId(0));
    let mut talkers: Vec<Talker> = (0..3)
        .map(|i| Talker::new(&mut mixer, i, 100.0 + 40.0 * i as f32, -6.0))
        .collect();
    let mut highest = 0.0f32;
    for _ in 0..300 {
        talkers.iter_mut().for_each(|t| t.speak(&mut mixer));
        mixer.mix();
        for mix in mixer.mixes() {
            highest = highest.max(peak(mix.samples()));
        }
    }
    // The limiter had work, and did it.
    let minus_1_dbfs = crate::audio::level::amplitude(-1.0);
    assert!((0.85..minus_1_dbfs).contains(&highest), "{highest}");
}

#[test]
fn gains_move_by_one_ramp_per_frame_whatever_happens() {
    let mut mixer = Mixer::new(MixerConfig::default());
    let mut talkers: Vec<Talker> = (0..5)
        .map(|i| {
            Talker::new(
                &mut mixer,
                i,
                90.0 + 30.0 * i as f32,
                -32.0 + 5.0 * i as f32,
            )
        })
        .collect();
    let mut last = vec![0.0f32; talkers.len()];
    let mut moved = 0;
    for n in 0..500 {
        for (i, talker) in talkers.iter_mut().enumerate() {
            // Each is silent, or missing, at times of its own.
            if (n / 40 + i) % 3 != 0 {
                talker.speak(&mut mixer);
            }
        }
        mixer.mix();
        for (talker, last) in talkers.iter().zip(&mut last) {
            let Ramp { from, to } = mixer.source(talker.id).unwrap().ramp;
            assert_eq!(from, *last, "a gain begins where it ended");
            assert!((0.0..=5.7).contains(&to));
            moved += usize::from(from != to);
            *last = to;
        }
    }
    assert!(moved > 50, "{moved}");
}

#[test]
fn sound_that_stops_without_a_warning_does_not_click() {
    let mut mixer = Mixer::new(MixerConfig::default());
    let id = mixer.add_source(OwnerId(1), SourceKind::Music);
    let mut out = Vec::new();
    for n in 0..20 {
        if n == 10 {
            mixer.remove_source(id);
        }
        // 50 Hz at its peak when the frame ends: the worst place to stop.
        let tone = std::array::from_fn(|i| {
            ((n * 960 + i) as f32 / 960.0 * std::f32::consts::TAU).cos() * 0.5
        });
        mixer.feed(id, &tone);
        mixer.mix();
        out.extend_from_slice(shared(&mixer).samples());
    }
    // The first frame fades in; after it no two samples are further apart than the tone and its ramps make them.
    let steepest = out
        .windows(2)
        .map(|w| (w[1] - w[0]).abs())
        .fold(0.0, f32::max);
    assert!(
        steepest < 0.5 * std::f32::consts::TAU / 960.0 + 0.6 / 960.0,
        "{steepest}"
    );
    assert_eq!(peak(&out[12 * FRAME_SAMPLES..]), 0.0);
    assert!(shared(&mixer).is_silent());
}

#[test]
fn one_talker_among_nine_noisy_microphones_is_far_clearer_than_in_a_plain_sum() {
    let mut mixer = Mixer::new(MixerConfig {
        top_k: 3,
        max_decoded: 5,
    });
    let mut voice = SyntheticVoice::new(11, 120.0, -22.0);
    let mut noises: Vec<Noise> = (0..10).map(|i| Noise::new(50 + i, -50.0)).collect();
    noises[0] = Noise::new(50, -60.0);
    let ids: Vec<SourceId> = (0..10)
        .map(|i| mixer.add_source(OwnerId(i), SourceKind::Voice))
        .collect();
    let (mut clean, mut plain, mut ours) = (Vec::new(), Vec::new(), Vec::new());
    let mut frame = SILENCE;
    for n in 0..900 {
        let mut sum = SILENCE;
        let mut spoken = SILENCE;
        voice.next_frame(&mut spoken);
        for (i, (id, noise)) in ids.iter().zip(&mut noises).enumerate() {
            noise.next_frame(&mut frame);
            if i == 0 {
                frame.iter_mut().zip(&spoken).for_each(|(x, s)| *x += s);
            }
            sum.iter_mut().zip(&frame).for_each(|(s, x)| *s += x);
            mixer.feed(*id, &frame);
        }
        mixer.mix();
        // The automatic gain and the noise floors settle first.
        if n >= 200 {
            clean.extend_from_slice(&spoken);
            plain.extend_from_slice(&sum);
            ours.extend_from_slice(shared(&mixer).samples());
        }
    }
    let plain = si_sdr_by_second(&clean, &plain);
    let ours = si_sdr_by_second(&clean[..clean.len() - LOOK_AHEAD], &ours[LOOK_AHEAD..]);
    println!("SI-SDR: plain sum {plain:.1} dB, weighted {ours:.1} dB");
    assert!(
        ours > plain + 8.0,
        "plain sum {plain:.1} dB, weighted {ours:.1} dB"
    );
}

#[test]
fn only_the_loudest_are_decoded_and_those_without_levels() {
    let mut mixer = Mixer::new(MixerConfig::default());
    let ids: Vec<SourceId> = (0..100)
        .map(|i| mixer.add_source(OwnerId(i), SourceKind::Voice))
        .collect();
    let mut decoded = 0;
    let quiet = AudioLevel {
        dbov: 70,
        voice: false,
    };
    for n in 0..200 {
        for (i, id) in ids.iter().enumerate() {
            let level = AudioLevel {
                dbov: 20 + i as u8 / 2,
                voice: true,
            };
            let speaks = n >= 100 && i < 20;
            mixer.hint(*id, Hint::Level(if speaks { level } else { quiet }));
        }
        mixer.hint(ids[99], Hint::NoLevel);
        mixer.rank();
        let decode: Vec<SourceId> = wanted(&mixer, &ids);
        mixer.mix();
        decoded = decode.len();
        // One more is looked at now and then: its levels may be wrong.
        if n == 99 {
            assert!(decode.len() <= 2 && decode.contains(&ids[99]), "{decode:?}");
        }
        assert!(decode.len() <= 6);
    }
    assert!((4..=5).contains(&decoded), "{decoded}");
    assert!([0, 1, 2, 99].iter().all(|i| mixer.is_wanted(ids[*i])));
    assert!(mixer.is_speaking(ids[10]), "by its header");
    assert!(!mixer.is_speaking(ids[50]));
}

#[test]
fn a_noisy_microphone_does_not_keep_a_voice_from_being_decoded() {
    let mut mixer = Mixer::new(MixerConfig {
        top_k: 1,
        max_decoded: 1,
    });
    let noisy = mixer.add_source(OwnerId(1), SourceKind::Voice);
    let mut talker = Talker::new(&mut mixer, 2, 120.0, -30.0);
    let mut random = crate::audio::voice::Seeded::new(4);
    let mut heard = 0;
    for n in 0..500 {
        // Bursts of noise, louder than the talker and never still for long.
        let loud = if n / 7 % 2 == 0 { -15.0 } else { -60.0 };
        let mut noise = SILENCE;
        Noise::new((random.unit() * 1e6) as u64, loud).next_frame(&mut noise);
        mixer.hint(
            noisy,
            Hint::Level(AudioLevel {
                dbov: -loud as u8,
                voice: true,
            }),
        );
        talker.voice.next_frame(&mut talker.frame);
        let dbov = -Dbfs::of(&talker.frame).0 as u8;
        mixer.hint(talker.id, Hint::Level(AudioLevel { dbov, voice: true }));
        mixer.rank();
        for id in &wanted(&mixer, &[noisy, talker.id]) {
            let frame = if *id == noisy { &noise } else { &talker.frame };
            mixer.feed(*id, frame);
        }
        mixer.mix();
        heard += usize::from(mixer.is_heard(talker.id));
    }
    assert!(heard > 200, "{heard} of 500 frames");
}

#[test]
fn samples_that_are_not_finite_reach_no_mix() {
    let mut mixer = Mixer::new(MixerConfig::default());
    let id = mixer.add_source(OwnerId(1), SourceKind::Music);
    for n in 0..100 {
        let bad = if n % 2 == 0 { f32::NAN } else { f32::INFINITY };
        mixer.feed(
            id,
            &if n < 50 {
                [bad; FRAME_SAMPLES]
            } else {
                [0.2; FRAME_SAMPLES]
            },
        );
        mixer.mix();
        assert!(shared(&mixer).samples().iter().all(|x| x.is_finite()));
    }
    assert!(peak(shared(&mixer).samples()) > 0.1);
}

#[test]
fn a_stale_source_does_nothing_even_when_its_place_is_taken() {
    let mut mixer = Mixer::new(MixerConfig::default());
    let old = mixer.add_source(OwnerId(1), SourceKind::Music);
    mixer.remove_source(old);
    let new = mixer.add_source(OwnerId(2), SourceKind::Music);
    assert_ne!(old, new);
    for _ in 0..10 {
        mixer.feed(old, &[0.5; FRAME_SAMPLES]);
        mixer.mix();
    }
    assert!(!mixer.is_heard(new) && !mixer.is_heard(old));
    assert!(shared(&mixer).is_silent());
}

/// Runs a room whose sources say something else in their headers than in their sound; counts the ticks from `from` on
/// in which the first one is heard.
fn heard_among_liars(
    seconds: usize,
    from: usize,
    mut levels: impl FnMut(usize, u8) -> AudioLevel,
    others: u64,
) -> (usize, usize) {
    let mut mixer = Mixer::new(MixerConfig::default());
    let mut talker = Talker::new(&mut mixer, 1, 120.0, -30.0);
    let mut liars: Vec<(SourceId, Noise)> = (0..others)
        .map(|n| {
            let id = mixer.add_source(OwnerId(10 + n), SourceKind::Voice);
            (id, Noise::new(n, -62.0))
        })
        .collect();
    let (mut heard, mut liars_heard) = (0, 0);
    for n in 0..seconds * 50 {
        talker.voice.next_frame(&mut talker.frame);
        let dbov = -Dbfs::of(&talker.frame).0 as u8;
        mixer.hint(talker.id, Hint::Level(levels(0, dbov)));
        for (at, (id, _)) in liars.iter().enumerate() {
            mixer.hint(*id, Hint::Level(levels(at + 1, 62)));
        }
        mixer.rank();
        let mut frame = SILENCE;
        for (id, noise) in &mut liars {
            noise.next_frame(&mut frame);
            if mixer.is_wanted(*id) {
                mixer.feed(*id, &frame);
            }
        }
        if mixer.is_wanted(talker.id) {
            mixer.feed(talker.id, &talker.frame);
        }
        mixer.mix();
        heard += usize::from(n >= from && mixer.is_heard(talker.id));
        liars_heard += liars.iter().filter(|(id, _)| mixer.is_heard(*id)).count();
    }
    (heard, liars_heard)
}

#[test]
fn twenty_who_shout_in_their_headers_only_are_not_heard_and_keep_no_voice_out_for_long() {
    let honest = |n: usize, dbov: u8| AudioLevel {
        dbov: if n == 0 { dbov } else { 0 },
        voice: true,
    };
    let (heard, liars_heard) = heard_among_liars(60, 15 * 50, honest, 20);
    println!(
        "figure mix_heard_among_shouting_headers {:.1} %",
        heard as f32 / 22.5
    );
    assert!(heard > 45 * 50 * 3 / 4, "{heard} of 2250 ticks");
    // A header opens the gate of a source that sleeps, once, for as long as the gate holds; what is heard then is its noise.
    assert!(liars_heard <= 20 * 18, "{liars_heard}");
}

#[test]
fn a_voice_under_a_header_of_silence_is_found_by_the_looks_that_go_round() {
    let silent = |_: usize, _: u8| AudioLevel {
        dbov: 127,
        voice: false,
    };
    // 20 sources: each is looked at within ten seconds, and a look may fall into a pause.
    let (heard, _) = heard_among_liars(60, 30 * 50, silent, 20);
    println!(
        "figure mix_heard_under_silent_header {:.1} %",
        heard as f32 / 15.0
    );
    assert!(heard > 30 * 50 * 3 / 4, "{heard} of 1500 ticks");
}

mod rates;
mod stereo;
