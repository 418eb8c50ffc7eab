//! Nobody is too loud or too quiet, nothing clips, and no gain is heard to move.

use talksy_mixer::audio::level::Dbfs;
use talksy_mixer::audio::limiter::CEILING;
use talksy_mixer::audio::{FRAME_SAMPLES, MixerConfig, SourceKind};

use crate::measure::{db, gain, lufs, share_above, true_peak};
use crate::{figure, noise, room, voices};

/// What a microphone adds to a voice: without it there would be nothing at all above a synthesiser's 11 kHz.
const MICROPHONE_DBFS: f32 = -65.0;

fn through_a_microphone(voice: Vec<f32>, seed: u64) -> Vec<f32> {
    let seconds = voice.len() as f32 / 48_000.0;
    let noise = noise::white(seed, seconds, MICROPHONE_DBFS);
    room::sum(&[voice, noise])
}

#[test]
fn talkers_24_db_apart_come_out_within_3_lu_from_ten_seconds_on() {
    for (one, other) in [(0, 1), (2, 3), (6, 7), (10, 5)] {
        let loudness = |n: usize, dbfs: f32| {
            let voice = match n {
                10 => voices::recorded(40.0, dbfs),
                n => voices::talker(n, 40.0, dbfs),
            };
            lufs(&room::mix(&[voice]).shared[10 * 48_000..])
        };
        for (quiet, loud) in [(-38.0, -14.0), (-42.0, -18.0)] {
            let apart = (loudness(one, quiet) - loudness(other, loud)).abs();
            figure(&format!("apart_{one}_{other}_{}", -quiet), apart, "LU");
            assert!(apart <= 3.0, "speakers {one} and {other}: {apart:.1} LU");
        }
    }
}

#[test]
fn three_loud_talkers_at_once_neither_clip_nor_rustle() {
    for (name, sources) in [
        (
            "espeak",
            vec![
                through_a_microphone(voices::monologue(0, 20.0, -8.0), 1),
                through_a_microphone(voices::monologue(1, 20.0, -8.0), 2),
                through_a_microphone(voices::monologue(4, 20.0, -8.0), 3),
            ],
        ),
        (
            "recorded",
            vec![
                voices::recorded(20.0, -8.0),
                through_a_microphone(voices::monologue(2, 20.0, -8.0), 4),
                through_a_microphone(voices::monologue(3, 20.0, -8.0), 5),
            ],
        ),
    ] {
        let mixed = room::mix(&sources).shared;
        // The same as shared sound, at a level that needs no limiter: the ideal sum.
        let quiet: Vec<Vec<f32>> = sources
            .iter()
            .map(|s| s.iter().map(|x| x * 0.05).collect())
            .collect();
        let ideal = room::mix_with(MixerConfig::default(), SourceKind::Music, &quiet).shared;
        let highest = true_peak(&mixed);
        let above = db(share_above(&mixed, 12_500.0) / share_above(&ideal, 12_500.0));
        figure(&format!("three_loud_true_peak_{name}"), highest, "dBFS");
        figure(
            &format!("three_loud_above_12k5_{name}"),
            above,
            "dB over the ideal sum",
        );
        assert!(highest < -1.0, "{name}: {highest:.2} dBFS true peak");
        assert!(mixed.iter().all(|x| x.abs() <= CEILING * 1.01), "{name}");
        assert!(above <= 3.0, "{name}: {above:.1} dB more above 12.5 kHz");
    }
}

/// Three who shout as shared sound: nothing but the limiter stands between them and full scale.
#[test]
fn shared_sound_far_over_full_scale_stays_below_it() {
    let sources: Vec<Vec<f32>> = (0..3).map(|n| voices::monologue(n, 10.0, -3.0)).collect();
    let mixed = room::mix_with(MixerConfig::default(), SourceKind::Music, &sources).shared;
    let highest = true_peak(&mixed);
    figure("shared_sound_true_peak", highest, "dBFS");
    assert!(highest < -1.0, "{highest:.2} dBFS");
}

#[test]
fn the_gain_of_a_steady_talker_stays_within_a_decibel_and_a_half_and_never_steps() {
    for n in [0, 1, 2, 3, 8] {
        for dbfs in [-30.0, -20.0, -12.0] {
            let voice = voices::monologue(n, 60.0, dbfs);
            let mixed = room::mix(std::slice::from_ref(&voice)).shared;
            // By 100 ms: what a listener would hear as pumping.
            let gains: Vec<f64> = voice
                .chunks(5 * FRAME_SAMPLES)
                .zip(mixed.chunks(5 * FRAME_SAMPLES))
                .skip(10 * 10)
                .filter(|(voice, _)| Dbfs::of(voice).0 > dbfs - 10.0)
                .map(|(voice, mixed)| 2.0 * db(gain(voice, mixed)))
                .collect();
            let mean = gains.iter().sum::<f64>() / gains.len() as f64;
            let worst = gains.iter().map(|g| (g - mean).abs()).fold(0.0, f64::max);
            figure(&format!("steadiness_{n}_{}", -dbfs), worst, "dB");
            assert!(
                worst <= 1.5,
                "speaker {n} at {dbfs} dBFS: {worst:.2} dB off"
            );
        }
    }
}
