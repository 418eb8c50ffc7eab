//! What is spoken: sentences by espeak-ng and words recorded by people.

use std::process::Command;
use std::sync::OnceLock;

use talksy_mixer::audio::level::{Dbfs, amplitude};
use talksy_mixer::audio::rate::RateConverter;
use talksy_mixer::audio::{FRAME_SAMPLES, SILENCE};

/// Sentences with plosives, fricatives and vowels at their beginnings (Harvard sentences, IEEE 297), read in order.
const SENTENCES: [&str; 12] = [
    "The birch canoe slid on the smooth planks.",
    "Glue the sheet to the dark blue background.",
    "It's easy to tell the depth of a well.",
    "These days a chicken leg is a rare dish.",
    "Rice is often served in round bowls.",
    "The juice of lemons makes fine punch.",
    "The box was thrown beside the parked truck.",
    "Four hours of steady work faced us.",
    "A large size in stockings is hard to sell.",
    "Help the woman get back to her feet.",
    "Paint the sockets in the wall dull green.",
    "Kick the ball straight and follow through.",
];

/// Who speaks: variant of espeak-ng, pitch (0 to 99), words a minute. The first ten are those that the detector's limits were
/// chosen with; the others, of other languages and speeds, it has not met.
pub const SPEAKERS: [(&str, u32, u32); FAMILIAR + 8] = [
    ("en-us+m1", 40, 165),
    ("en-us+f2", 55, 170),
    ("en-us+m3", 30, 150),
    ("en-us+f4", 65, 175),
    ("en-gb+m7", 45, 180),
    ("en-gb+f3", 50, 160),
    ("en-us+m4", 20, 155),
    ("en-us+f1", 70, 165),
    ("en-gb+m2", 55, 170),
    ("en-us+m5", 35, 160),
    ("de+m2", 40, 150),
    ("fr+f1", 55, 180),
    ("es+m4", 45, 200),
    ("it+f5", 60, 140),
    ("en-gb-scotland+m6", 35, 190),
    ("en-us+f5", 75, 210),
    ("pl+m1", 50, 165),
    ("pt+f4", 60, 175),
];

/// How many of [`SPEAKERS`] were used for choosing.
pub const FAMILIAR: usize = 10;

/// Files of alsa-utils, without the path: those that were used for choosing, and others.
const RECORDED: [&[&str]; 2] = [
    &[
        "Front_Center",
        "Front_Left",
        "Rear_Right",
        "Side_Left",
        "Rear_Center",
    ],
    &["Front_Right", "Rear_Left", "Side_Right"],
];

/// The pause between two sentences, longer than the gate holds and releases.
const PAUSE_SECONDS: f32 = 1.5;

/// About `seconds` of speaker `n`, sentences with pauses between; the level while it speaks is `dbfs`.
pub fn talker(n: usize, seconds: f32, dbfs: f32) -> Vec<f32> {
    let mut sound = Vec::new();
    let mut sentences = sentences(n).iter().cycle().skip(n);
    let wanted = (seconds * 48_000.0) as usize;
    while sound.len() < wanted {
        sound.extend(sentences.next().expect("a cycle does not end"));
        sound.resize(sound.len() + (PAUSE_SECONDS * 48_000.0) as usize, 0.0);
    }
    sound.truncate(wanted / FRAME_SAMPLES * FRAME_SAMPLES);
    at_level(sound, dbfs)
}

/// The same without the long pauses: the sentences run into each other.
pub fn monologue(n: usize, seconds: f32, dbfs: f32) -> Vec<f32> {
    let wanted = (seconds * 48_000.0) as usize;
    let sentences = sentences(n).iter().cycle().skip(n);
    let sound = sentences.flatten().copied().take(wanted);
    at_level(sound.collect(), dbfs)
}

/// The words that people recorded for alsa-utils ("front left" and so on), with pauses between.
pub fn recorded(seconds: f32, dbfs: f32) -> Vec<f32> {
    words(RECORDED[0], seconds, dbfs)
}

/// Other words of the same people.
pub fn other_recorded(seconds: f32, dbfs: f32) -> Vec<f32> {
    words(RECORDED[1], seconds, dbfs)
}

fn words(files: &[&str], seconds: f32, dbfs: f32) -> Vec<f32> {
    let path = |name: &&str| format!("/usr/share/sounds/alsa/{name}.wav");
    let words = files.iter().map(path).map(|path| trimmed(read(&path)));
    let words: Vec<Vec<f32>> = words.collect();
    let mut sound = Vec::new();
    let wanted = (seconds * 48_000.0) as usize;
    let mut words = words.iter().cycle();
    while sound.len() < wanted {
        sound.extend(words.next().expect("a cycle does not end"));
        sound.resize(sound.len() + (PAUSE_SECONDS * 48_000.0) as usize, 0.0);
    }
    sound.truncate(wanted / FRAME_SAMPLES * FRAME_SAMPLES);
    at_level(sound, dbfs)
}

/// The level while something is said: the mean power of the frames within 25 dB of the loudest (after ITU-T P.56).
pub fn active_level(sound: &[f32]) -> f32 {
    let levels: Vec<f32> = sound.chunks(FRAME_SAMPLES).map(|f| Dbfs::of(f).0).collect();
    let loudest = levels.iter().copied().fold(f32::MIN, f32::max);
    let active: Vec<f32> = levels
        .iter()
        .filter(|level| **level > loudest - 25.0)
        .map(|level| 10f32.powf(level / 10.0))
        .collect();
    10.0 * (active.iter().sum::<f32>() / active.len() as f32).log10()
}

/// `sound`, scaled so that its [`active_level`] is `dbfs`.
pub fn at_level(mut sound: Vec<f32>, dbfs: f32) -> Vec<f32> {
    let gain = amplitude(dbfs - active_level(&sound));
    sound.iter_mut().for_each(|x| *x *= gain);
    sound
}

/// The sentences of speaker `n` at 48 kHz, without silence at their ends.
fn sentences(n: usize) -> &'static [Vec<f32>] {
    static SPOKEN: [OnceLock<Vec<Vec<f32>>>; SPEAKERS.len()] =
        [const { OnceLock::new() }; SPEAKERS.len()];
    let n = n % SPEAKERS.len();
    SPOKEN[n].get_or_init(|| {
        let sentences = SENTENCES.iter();
        sentences
            .map(|text| trimmed(spoken(SPEAKERS[n], text)))
            .collect()
    })
}

fn spoken((voice, pitch, speed): (&str, u32, u32), text: &str) -> Vec<f32> {
    let mut command = Command::new("espeak-ng");
    command.args([
        "-v",
        voice,
        "-p",
        &pitch.to_string(),
        "-s",
        &speed.to_string(),
    ]);
    let output = command.args(["--stdout", text]).output();
    let output = output.expect("espeak-ng speaks; on Debian: apt-get install espeak-ng");
    assert!(output.status.success(), "espeak-ng: {output:?}");
    let (rate, samples) = wave(&output.stdout);
    converted(rate, &samples)
}

fn read(path: &str) -> Vec<f32> {
    let bytes = std::fs::read(path)
        .unwrap_or_else(|error| panic!("{path}: {error}; on Debian: apt-get install alsa-utils"));
    let (rate, samples) = wave(&bytes);
    converted(rate, &samples)
}

/// Rate and samples of a mono 16-bit WAVE file. A length that runs beyond the end means: to the end.
fn wave(bytes: &[u8]) -> (u32, Vec<f32>) {
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let (mut at, mut rate) = (12, 0);
    loop {
        let (name, length) = (&bytes[at..at + 4], number(at + 4) as usize);
        let (begin, end) = (at + 8, (at + 8).saturating_add(length).min(bytes.len()));
        match name {
            b"fmt " => {
                assert_eq!(bytes[begin + 2..begin + 4], [1, 0], "mono");
                assert_eq!(bytes[begin + 14..begin + 16], [16, 0], "16 bits");
                rate = number(begin + 4);
            }
            b"data" => {
                let samples = bytes[begin..end].chunks_exact(2);
                let sample = |b: &[u8]| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32_768.0;
                return (rate, samples.map(sample).collect());
            }
            _ => {}
        }
        at = end;
    }
}

/// `samples` at 48 kHz.
pub fn converted(rate: u32, samples: &[f32]) -> Vec<f32> {
    let mut converter = RateConverter::new(rate).expect("a rate that files have");
    let (mut out, mut frame, mut at) = (Vec::new(), SILENCE, 0);
    while at < samples.len() {
        let needed = converter.needed();
        let mut input = samples[at..(at + needed).min(samples.len())].to_vec();
        input.resize(needed, 0.0);
        converter
            .process(&input, &mut frame)
            .expect("as many samples as it needs");
        out.extend_from_slice(&frame);
        at += needed;
    }
    out
}

/// Without silence (50 dB below the loudest) at both ends.
fn trimmed(sound: Vec<f32>) -> Vec<f32> {
    let loudest = sound.iter().fold(0.0f32, |peak, x| peak.max(x.abs()));
    let loud = |x: &f32| x.abs() > loudest * 0.003;
    let begin = sound.iter().position(loud).unwrap_or(0);
    let end = sound.iter().rposition(loud).map_or(0, |at| at + 1);
    sound[begin..end].to_vec()
}
