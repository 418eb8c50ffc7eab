//! This server and Janus, side by side: the same light peers, the same packets, in turns, in one run.
//!
//! `forward` compares CPU per forwarded packet with Janus's VideoRoom, `mix` CPU per participant with its AudioBridge; the
//! CPU time is that of the whole process: signalling, transports, media, codecs. `amix` compares the mixing alone with ffmpeg's.
//! See `benches/peers/README.md`.

#[path = "../support/mod.rs"]
#[allow(dead_code)]
mod support;

#[path = "../support/room.rs"]
#[allow(dead_code)]
mod room;

mod ffmpeg;
mod janus;
mod process;
mod socket;
mod talksy;
mod voices;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use janus::Janus;
use room::Recordings;
use support::connection::{Connection, Identity};
use support::publisher::Publisher;
use support::receivers::Receivers;
use talksy::Talksy;
use talksy_unit::rtp::params::ReceiveLine;
use talksy_unit::transport::srtp::SrtpProfile;
use voices::Voices;

/// Janus leaves loopback out; the namespace has this address (`tests/in-namespace`).
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
/// Both offer it; every light peer offers nothing else.
const PROFILE: SrtpProfile = SrtpProfile::AeadAes128Gcm;
const ROUNDS: usize = 5;
const WARM_UP: Duration = Duration::from_secs(2);
const WINDOW: Duration = Duration::from_secs(4);
const SUBSCRIBERS: [usize; 4] = [1, 5, 20, 50];
const SPEAKERS: [usize; 3] = [3, 10, 50];
const MIXED: [usize; 4] = [3, 10, 50, 200];
/// Of the mixed sound: what this server's default is.
const AUDIO_BITRATE: u32 = 32_000;
const AUDIO_COMPLEXITY: u8 = 6;
/// In-band FEC is made for so many percent of loss.
const AUDIO_LOSS: u8 = 5;

/// A connected light peer that receives.
pub struct Peer {
    connection: Connection,
    lines: Vec<ReceiveLine>,
}

/// A server under measurement.
trait System {
    const NAME: &'static str;

    /// CPU time so far, in µs.
    fn cpu_us(&self) -> f64;

    /// Connects a peer that sends a camera and a microphone.
    fn publisher(&mut self) -> Connection;

    /// Connects a peer that receives both; the publisher sends already.
    fn subscriber(&mut self) -> Peer;

    /// Connects a peer that speaks and hears the mix of all others.
    fn speaker(&mut self) -> Peer;
}

fn main() {
    // Names choose comparisons, numbers choose sizes; `cargo bench` passes `--bench`.
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let (sizes, names): (Vec<&String>, Vec<&String>) = wanted
        .iter()
        .filter(|arg| !arg.starts_with('-'))
        .partition(|arg| arg.parse::<usize>().is_ok());
    let wants = |name: &str| names.is_empty() || names.iter().any(|arg| *arg == name);
    let chosen = |all: &[usize]| -> Vec<usize> {
        let fits = |n: &&usize| sizes.is_empty() || sizes.iter().any(|arg| **arg == n.to_string());
        all.iter().filter(fits).copied().collect()
    };
    let identity = Identity::new();
    if wants("forward") {
        println!(
            "CPU per forwarded packet in us, {PROFILE:?}, medians (and ranges) of {ROUNDS} rounds in turns"
        );
        println!("| subscribers | this server | Janus VideoRoom | ratio |\n|---|---|---|---|");
        for subscribers in chosen(&SUBSCRIBERS) {
            let ours = || forward(&mut Talksy::start(&identity, PROFILE), subscribers);
            let theirs = || forward(&mut Janus::start(&identity, PROFILE), subscribers);
            compare("janus_forward", subscribers, ours, theirs);
        }
    }
    if wants("mix") {
        println!(
            "CPU per participant and 20 ms in us, everybody speaks, Opus at {AUDIO_BITRATE} bit/s, complexity {AUDIO_COMPLEXITY}, FEC for {AUDIO_LOSS} % loss"
        );
        println!("| participants | this server | Janus AudioBridge | ratio |\n|---|---|---|---|");
        for speakers in chosen(&SPEAKERS) {
            let ours = || mix(&mut Talksy::start(&identity, PROFILE), speakers);
            let theirs = || mix(&mut Janus::start(&identity, PROFILE), speakers);
            compare("janus_audiobridge", speakers, ours, theirs);
        }
    }
    if wants("amix") {
        println!(
            "CPU per participant and 20 ms in us without any network: this server's mixes for everybody, ffmpeg's one mix"
        );
        println!(
            "| participants | who speaks | this server | ffmpeg | ratio |\n|---|---|---|---|---|"
        );
        let recordings = Recordings::new();
        for participants in chosen(&MIXED) {
            ffmpeg::compare(participants, &recordings);
        }
    }
}

/// Rounds of both in turns, the medians, and the ratio of the medians.
fn compare(name: &str, n: usize, ours: impl Fn() -> f64, theirs: impl Fn() -> f64) {
    let (mut us, mut them) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        us.push(ours());
        them.push(theirs());
    }
    let (our_range, their_range) = (range(&us), range(&them));
    let (us, them) = (median(us), median(them));
    println!(
        "| {n} | {us:.2} ({our_range}) | {them:.2} ({their_range}) | {:.1} |",
        them / us
    );
    println!("figure {name}_ratio_n{n} {:.2} times", them / us);
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn range(values: &[f64]) -> String {
    let lowest = values.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = values.iter().copied().fold(0.0, f64::max);
    format!("{lowest:.2} to {highest:.2}")
}

/// µs per forwarded packet. Panics if a packet was lost.
fn forward<S: System>(server: &mut S, subscribers: usize) -> f64 {
    let publisher = Publisher::start(server.publisher(), 1_500_000);
    let receivers = Receivers::start();
    for _ in 0..subscribers {
        let peer = server.subscriber();
        receivers.add(peer.connection, peer.lines);
    }
    std::thread::sleep(WARM_UP);
    let before = (server.cpu_us(), receivers.packets());
    std::thread::sleep(WINDOW);
    let after = (server.cpu_us(), receivers.packets());
    let sent = publisher.stop();
    let tallies = receivers.stop();
    let whole = tallies.iter().filter(|tally| tally.is_whole(sent)).count();
    assert_eq!(
        whole,
        subscribers,
        "{} lost packets of {sent:?}: {tallies:?}",
        S::NAME
    );
    (after.0 - before.0) / (after.1 - before.1) as f64
}

/// µs per participant and 20 ms.
fn mix<S: System>(server: &mut S, speakers: usize) -> f64 {
    let peers = (0..speakers).map(|_| server.speaker()).collect();
    let voices = Voices::start(peers);
    std::thread::sleep(WARM_UP);
    let before = (server.cpu_us(), voices.heard());
    std::thread::sleep(WINDOW);
    let after = (server.cpu_us(), voices.heard());
    voices.stop();
    let frames = (after.1.0 - before.1.0) as f64;
    let expected = speakers as f64 * WINDOW.as_secs_f64() * 50.0;
    let bad = after.1.1 - before.1.1;
    assert!(
        frames > 0.98 * expected && bad as f64 <= 0.005 * expected,
        "{}: {frames} packets of the mix came, {expected} were expected; {bad} were out of place",
        S::NAME
    );
    (after.0 - before.0) / (speakers as f64 * WINDOW.as_secs_f64() * 50.0)
}
