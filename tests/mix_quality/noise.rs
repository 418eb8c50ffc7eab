//! What is no voice: computed, with a seed each.

use std::f32::consts::TAU;

use talksy_mixer::audio::level::{Dbfs, amplitude};
use talksy_mixer::audio::voice::Seeded;

const RATE: f32 = 48_000.0;

fn scaled(mut sound: Vec<f32>, dbfs: f32) -> Vec<f32> {
    let gain = amplitude(dbfs - Dbfs::of(&sound).0);
    sound.iter_mut().for_each(|x| *x *= gain);
    sound
}

fn samples(seconds: f32) -> usize {
    (seconds * 50.0) as usize * 960
}

/// White noise of an RMS of `dbfs`.
pub fn white(seed: u64, seconds: f32, dbfs: f32) -> Vec<f32> {
    let mut random = Seeded::new(seed);
    scaled(
        (0..samples(seconds)).map(|_| random.gauss()).collect(),
        dbfs,
    )
}

/// Mains hum: 50 Hz and its harmonics, as a bad cable brings them.
pub fn hum(seed: u64, seconds: f32, dbfs: f32) -> Vec<f32> {
    let mut random = Seeded::new(seed);
    let parts: Vec<(f32, f32, f32)> = (1..=12)
        .map(|n| {
            let odd = if n % 2 == 1 { 1.0 } else { 0.4 };
            (50.0 * n as f32, odd / n as f32, random.unit() * TAU)
        })
        .collect();
    let sample = |i: usize| {
        let t = i as f32 / RATE % 1.0;
        parts
            .iter()
            .map(|(hz, gain, phase)| gain * (TAU * hz * t + phase).sin())
            .sum()
    };
    scaled((0..samples(seconds)).map(sample).collect(), dbfs)
}

/// A fan: low-passed rushing that swells with the blades, and their tone.
pub fn fan(seed: u64, seconds: f32, dbfs: f32) -> Vec<f32> {
    let mut random = Seeded::new(seed);
    let (mut slow, mut slower) = (0.0f32, 0.0f32);
    let sample = |i: usize| {
        let t = i as f32 / RATE;
        slow += (random.gauss() - slow) * 0.08;
        slower += (slow - slower) * 0.3;
        let blades = 1.0 + 0.25 * (TAU * 23.0 * t).sin() + 0.2 * (TAU * 0.4 * t).sin();
        slower * blades + 0.02 * (TAU * 161.0 * t).sin()
    };
    scaled((0..samples(seconds)).map(sample).collect(), dbfs)
}

/// Somebody types: some seven keys a second in bursts, each with a click as it goes down and a softer one as it comes up.
/// The loudest samples are at `peak_dbfs`.
pub fn keyboard(seed: u64, seconds: f32, peak_dbfs: f32) -> Vec<f32> {
    let mut random = Seeded::new(seed);
    let mut sound = vec![0.0f32; samples(seconds)];
    let mut at = 0.1;
    while at < seconds - 0.3 {
        let hold = 0.06 + 0.06 * random.unit();
        let loud = 0.5 + 0.5 * random.unit();
        for (when, gain) in [(at, loud), (at + hold, loud * 0.4)] {
            click(&mut random, &mut sound[(when * RATE) as usize..], gain);
        }
        let thinks = random.unit() < 0.06;
        at += if thinks {
            0.6 + random.unit()
        } else {
            0.08 + 0.12 * random.unit()
        };
    }
    let loudest = sound.iter().fold(0.0f32, |peak, x| peak.max(x.abs()));
    let gain = amplitude(peak_dbfs) / loudest;
    sound.iter_mut().for_each(|x| *x *= gain);
    sound
}

/// The case of a keyboard resonates at a few frequencies for some milliseconds, after a burst of noise.
fn click(random: &mut Seeded, sound: &mut [f32], gain: f32) {
    let hz = [
        450.0,
        1_900.0 + 900.0 * random.unit(),
        3_800.0 + 1_500.0 * random.unit(),
    ];
    for (i, x) in sound.iter_mut().take(1_440).enumerate() {
        let t = i as f32 / RATE;
        let burst = random.gauss() * 0.5 * (-t / 0.0015).exp();
        let body = 0.5 * (TAU * hz[0] * t).sin() * (-t / 0.008).exp();
        let cap: f32 = hz[1..]
            .iter()
            .map(|hz| (TAU * hz * t).sin() * (-t / 0.003).exp())
            .sum();
        *x += gain * (burst + body + 0.5 * cap);
    }
}
