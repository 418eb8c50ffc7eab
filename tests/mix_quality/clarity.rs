//! Who speaks is heard, and what is no voice is not.

use talksy_mixer::audio::FRAME_SAMPLES;
use talksy_mixer::audio::level::Dbfs;

use crate::measure::{db, energy, gain, onsets, si_sdr};
use crate::{figure, noise, room, voices};

/// Noise floors and gains settle first.
const SETTLED: usize = 10 * 48_000;

/// A talker at −22 dBFS whose own microphone has −65 dBFS of noise, among nine others with `noise` dBFS each.
struct Scene {
    clean: Vec<f32>,
    plain: Vec<f32>,
    mixed: Vec<f32>,
}

fn one_among_nine(talker: Vec<f32>, noise: f32) -> Scene {
    let seconds = talker.len() as f32 / 48_000.0;
    let own = noise::white(1, seconds, -65.0);
    let mut sources = vec![room::sum(&[talker.clone(), own])];
    sources.extend((0..9).map(|n| noise::white(10 + n, seconds, noise)));
    Scene {
        plain: room::sum(&sources),
        mixed: room::mix(&sources).shared,
        clean: talker,
    }
}

/// By the second where something is said: a slow gain is not distortion.
fn si_sdr_by_second(clean: &[f32], sound: &[f32]) -> f64 {
    let seconds = clean[SETTLED..]
        .chunks_exact(48_000)
        .zip(sound[SETTLED..].chunks_exact(48_000));
    let ratios: Vec<f64> = seconds
        .filter(|(clean, _)| Dbfs::of(clean).0 > -35.0)
        .map(|(clean, sound)| si_sdr(clean, sound))
        .collect();
    ratios.iter().sum::<f64>() / ratios.len() as f64
}

/// The energy of the first 200 ms of everything said after a pause, against what would be there had the gain not moved.
fn onset_energy_kept(clean: &[f32], mixed: &[f32]) -> (f64, f64) {
    let (mut kept, mut whole, mut worst) = (0.0, 0.0, f64::MAX);
    for frame in onsets(&clean[SETTLED..], -50.0, 40) {
        let begin = SETTLED + frame * FRAME_SAMPLES;
        let (first, after) = (begin..begin + 9_600, begin + 9_600..begin + 48_000);
        if after.end > clean.len() {
            continue;
        }
        let settled = gain(&clean[after.clone()], &mixed[after]);
        let expected = energy(&clean[first.clone()]) * settled * settled;
        // Of the talker's own sound: what else is in the mix must not count.
        let heard: f64 = clean[first.clone()]
            .chunks(240)
            .zip(mixed[first].chunks(240))
            .map(|(c, m)| gain(c, m).powi(2) * energy(c))
            .sum();
        worst = worst.min(heard / expected);
        kept += heard;
        whole += expected;
    }
    (kept / whole, worst)
}

/// How much quieter the noise of pauses is in the mix than in the plain sum, at equal loudness of the voice.
fn pauses_quieter_by(scene: &Scene) -> f64 {
    let frames = scene.clean.len() / FRAME_SAMPLES;
    let said = |n: usize| Dbfs::of(&scene.clean[n * 960..(n + 1) * 960]).0 > -60.0;
    let (mut plain, mut mixed) = (1e-12, 1e-12);
    // A pause begins when the gate has let go: half a second after the last sound.
    for n in SETTLED / 960..frames {
        if !(n - 50..=n).any(said) {
            plain += energy(&scene.plain[n * 960..(n + 1) * 960]);
            mixed += energy(&scene.mixed[n * 960..(n + 1) * 960]);
        }
    }
    let voice = gain(&scene.clean[SETTLED..], &scene.mixed[SETTLED..]);
    db(plain * voice * voice / mixed)
}

#[test]
fn one_talker_among_nine_noisy_microphones_is_clear_from_its_first_syllable_and_pauses_are_quiet() {
    for (noise, least) in [(-60.0, 10.0), (-50.0, 11.0), (-40.0, 13.0)] {
        for (who, talker) in [
            ("espeak_m1", voices::talker(0, 40.0, -22.0)),
            ("espeak_f2", voices::talker(1, 40.0, -22.0)),
            ("recorded", voices::recorded(40.0, -22.0)),
        ] {
            let scene = one_among_nine(talker, noise);
            let gained = si_sdr_by_second(&scene.clean, &scene.mixed)
                - si_sdr_by_second(&scene.clean, &scene.plain);
            let (kept, worst) = onset_energy_kept(&scene.clean, &scene.mixed);
            let quieter = pauses_quieter_by(&scene);
            let name = format!("{who}_among_{}", -noise);
            figure(&format!("sisdr_gain_{name}"), gained, "dB");
            figure(&format!("onset_kept_{name}"), kept * 100.0, "%");
            figure(&format!("onset_kept_worst_{name}"), worst * 100.0, "%");
            figure(&format!("pauses_quieter_{name}"), quieter, "dB");
            assert!(gained >= least, "{name}: {gained:.1} dB over the plain sum");
            assert!(
                kept >= 0.95,
                "{name}: {:.1} % of the onsets' energy",
                kept * 100.0
            );
            assert!(quieter >= 15.0, "{name}: pauses {quieter:.1} dB quieter");
        }
    }
}

#[test]
fn hum_fans_white_noise_and_keyboards_do_not_open_a_microphone() {
    let seconds = 60.0;
    // The first row of seeds is the one that limits were chosen with.
    let cases = [-50.0, -40.0, -30.0].map(|loud| [0, 1000, 2000, 3000].map(|row| (loud, row)));
    for (loud, row) in cases.into_iter().flatten() {
        for (who, sound) in [
            ("hum", noise::hum(row + 3, seconds, loud)),
            ("fan", noise::fan(row + 4, seconds, loud)),
            ("white", noise::white(row + 5, seconds, loud)),
            ("keyboard", noise::keyboard(row + 6, seconds, loud + 25.0)),
            (
                "keyboard_over_fan",
                room::sum(&[
                    noise::keyboard(row + 7, seconds, loud + 25.0),
                    noise::fan(row + 8, seconds, -55.0),
                ]),
            ),
        ] {
            let heard = room::mix(&[sound]);
            let open = heard.speaking.iter().filter(|speaking| speaking[0]).count();
            let share = open as f64 / heard.speaking.len() as f64;
            figure(
                &format!("false_open_{who}_{}_{row}", -loud),
                share * 100.0,
                "%",
            );
            assert!(
                share < 0.01,
                "{who} at {loud} dBFS: open {:.1} %",
                share * 100.0
            );
        }
    }
}

/// Everybody who speaks, for 30 s at −25 dBFS, with a seed for their noise: those that limits were chosen with, or others.
fn speakers(familiar: bool) -> Vec<(u64, Vec<f32>)> {
    let known = voices::FAMILIAR;
    let (voices, recorded, seed) = match familiar {
        true => (0..known, voices::recorded(30.0, -25.0), 20),
        false => (
            known..voices::SPEAKERS.len(),
            voices::other_recorded(30.0, -25.0),
            1_020,
        ),
    };
    let spoken = voices.map(|n| voices::talker(n, 30.0, -25.0));
    let all = spoken.chain([recorded]).enumerate();
    all.map(|(n, sound)| (seed + n as u64, sound)).collect()
}

/// What is within 20 dB of the voice's level counts as speech: the rest lies under the noise. The first half second, in which
/// a microphone's noise becomes known, counts, too.
#[test]
fn at_20_db_over_the_noise_next_to_no_speech_is_missed() {
    let kinds = [
        ("white", noise::white as fn(u64, f32, f32) -> Vec<f32>),
        ("fan", noise::fan),
        ("hum", noise::hum),
    ];
    for (name, familiar) in [("", true), ("_unmet", false)] {
        let speakers = speakers(familiar);
        for (kind, noise) in kinds {
            let (mut missed, mut spoken) = (0, 0);
            for (seed, clean) in &speakers {
                let noise = noise(*seed, 30.0, -45.0);
                let heard = room::mix(&[room::sum(&[clean.clone(), noise])]);
                let frames = clean.chunks_exact(960).zip(&heard.speaking);
                let speech = frames.filter(|(frame, _)| Dbfs::of(frame).0 > -45.0);
                let (all, closed) = speech.fold((0, 0), |(all, closed), (_, speaking)| {
                    (all + 1, closed + usize::from(!speaking[0]))
                });
                println!("speaker {seed} over {kind}: {closed} of {all} frames missed");
                missed += closed;
                spoken += all;
            }
            let share = missed as f64 / spoken as f64;
            figure(&format!("missed_speech_{kind}{name}"), share * 100.0, "%");
            assert!(share < 0.02, "{kind}{name}: {:.2} %", share * 100.0);
        }
    }
}
