//! What the media worker spends on a forwarded packet: one publisher of 1.5 Mbit/s or 150 kbit/s, up to 200 subscribers,
//! on loopback.
//!
//! The whole path is measured from outside, as the CPU time of the worker's thread: receive, decrypt, rewrite,
//! encrypt, send, with reports, transport-wide feedback and timers. The publisher paces as Chromium does (bursts
//! every 5 ms), the subscribers are light peers that send what real receivers send. In-kernel delivery on loopback is
//! charged to the worker, too. A figure is `void` if a single packet was lost, repeated or damaged.

mod support;

use std::process::ExitCode;
use std::time::Duration;

use support::allocations;
use support::connection::Identity;
use support::publisher::{Publisher, Window};
use support::receivers::{Group, Receivers};
use support::server::Server;
use talksy_unit::transport::srtp::SrtpProfile;

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

/// Until caches, windows and the retransmission memory have their size.
const WARM_UP: Duration = Duration::from_secs(3);
const WINDOW: Duration = Duration::from_secs(2);
/// The figure is the median of these.
const WINDOWS: usize = 5;

/// A 720p camera, and what is left of one on a weak link: its packets are one per frame, and not grouped.
const RATES: [(&str, usize); 2] = [("", 1_500_000), ("_150k", 150_000)];
const SUBSCRIBERS: [usize; 4] = [1, 10, 50, 200];
/// Where the whole path is compared with the floor, and how many times the floor it may cost.
const COMPARED: usize = 50;
const OVER_FLOOR: f64 = 3.0;

fn main() -> ExitCode {
    // `cargo bench` passes `--bench`. A number of subscribers runs those scenarios alone, `1500k` or `150k` those of one rate:
    // for a profiler, or a machine that is free for a short time only.
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let wants = |subscribers: usize, bitrate: usize| {
        let mut numbers = wanted.iter().filter_map(|arg| arg.parse().ok()).peekable();
        let mut rates = wanted.iter().filter(|arg| arg.ends_with('k')).peekable();
        let rate = format!("{}k", bitrate / 1000);
        (numbers.peek().is_none() || numbers.any(|n: usize| n == subscribers))
            && (rates.peek().is_none() || rates.any(|arg| *arg == rate))
    };
    let identity = Identity::new();
    let mut kept = true;
    for (suffix, bitrate) in RATES {
        for subscribers in SUBSCRIBERS {
            if !wants(subscribers, bitrate) {
                continue;
            }
            let outcome = run(&identity, SrtpProfile::AeadAes128Gcm, subscribers, bitrate);
            kept &= print(&format!("n{subscribers}{suffix}"), &outcome);
            if subscribers == COMPARED {
                kept &= compare(suffix, &outcome);
            }
        }
    }
    if wants(COMPARED, RATES[0].1) {
        let profile = SrtpProfile::Aes128CmSha1_80;
        let outcome = run(&identity, profile, COMPARED, RATES[0].1);
        kept &= print("n50_cm80", &outcome);
    }
    ended(kept)
}

fn ended(kept: bool) -> ExitCode {
    if !kept {
        eprintln!(
            "a promise of the lines above was not kept: packets were lost, allocations made, or the floor is too far"
        );
    }
    ExitCode::from(u8::from(!kept))
}

/// Holds the whole path to the floor of its own run, and to no allocation.
fn compare(suffix: &str, outcome: &Outcome) -> bool {
    let floor = support::floor::measure(COMPARED, &outcome.groups);
    let times = median(&outcome.costs) / floor;
    println!("figure forward_floor_us{suffix} {floor:.2} us");
    println!("figure forward_over_floor{suffix} {times:.2}");
    println!(
        "allocations with reports, figures and timers: {:.3} per forwarded packet",
        outcome.mean_allocations
    );
    println!(
        "figure forward_allocations_per_packet{suffix} {} allocations",
        outcome.allocations
    );
    times <= OVER_FLOOR && outcome.allocations == 0.0
}

/// What came of one scenario.
struct Outcome {
    profile: SrtpProfile,
    subscribers: usize,
    /// µs per forwarded packet, of each window.
    costs: Vec<f64>,
    /// Of one core.
    load: f64,
    /// Nothing was lost.
    whole: bool,
    groups: Vec<Vec<Group>>,
    /// Of the median burst.
    allocations: f64,
    mean_allocations: f64,
}

fn run(identity: &Identity, profile: SrtpProfile, subscribers: usize, bitrate: usize) -> Outcome {
    let mut server = Server::start(identity, profile);
    let receivers = Receivers::start();
    // All shake hands before anything flows: on a loaded machine media to the first would hold up the last.
    let mut joined = Vec::new();
    for _ in 0..subscribers {
        let (peer, connection) = server.join();
        receivers.add(connection, Vec::new());
        joined.push(peer);
    }
    let publisher = Publisher::start(server.publisher(), bitrate);
    let tracks = server.tracks();
    for (number, peer) in joined.iter().enumerate() {
        server.subscribe(peer, &tracks, |lines| receivers.set_lines(number, lines));
    }
    pause(&mut server, WARM_UP);
    allocations::watch(server.thread());
    publisher.take_windows();
    receivers.take_groups();
    let begin = (server.cpu_us(), forwarded(&publisher, subscribers));
    let mut costs = Vec::new();
    let mut last = begin;
    for _ in 0..WINDOWS {
        pause(&mut server, WINDOW);
        let now = (server.cpu_us(), forwarded(&publisher, subscribers));
        costs.push((now.0 - last.0) / (now.1 - last.1));
        last = now;
    }
    let groups = receivers.take_groups();
    let windows = publisher.take_windows();
    allocations::watch(0);
    let sent = publisher.stop();
    let tallies = receivers.stop();
    server.drain();
    server.stop();
    let counted: u64 = windows.iter().map(|window| window.allocations).sum();
    Outcome {
        profile,
        subscribers,
        load: (last.0 - begin.0) / (WINDOW * WINDOWS as u32).as_micros() as f64,
        whole: tallies.iter().all(|tally| tally.is_whole(sent)),
        groups,
        allocations: typical_allocations(&windows, subscribers),
        mean_allocations: counted as f64 / (last.1 - begin.1),
        costs,
    }
}

fn forwarded(publisher: &Publisher, subscribers: usize) -> f64 {
    let (video, audio) = publisher.sent();
    (video + audio) as f64 * subscribers as f64
}

fn pause(server: &mut Server, time: Duration) {
    std::thread::sleep(time);
    server.drain();
}

/// The allocations that packets bring about, without those of reports and timers, which come between: of the
/// median burst, per forwarded packet.
fn typical_allocations(windows: &[Window], subscribers: usize) -> f64 {
    let bursts = windows.iter().filter(|window| window.packets > 0);
    let each =
        |window: &Window| window.allocations as f64 / (window.packets as f64 * subscribers as f64);
    let mut bursts: Vec<f64> = bursts.map(each).collect();
    bursts.sort_by(f64::total_cmp);
    bursts[bursts.len() / 2]
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Whether nothing was lost.
fn print(name: &str, outcome: &Outcome) -> bool {
    let groups = outcome.groups.iter().flatten();
    let (sends, datagrams) = groups.fold((0, 0), |(sends, datagrams), group| {
        (sends + 1, datagrams + group.datagrams())
    });
    let windows: Vec<String> = outcome.costs.iter().map(|c| format!("{c:.2}")).collect();
    println!(
        "{} subscribers, {:?}: {} us in windows of {WINDOW:?}, {:.0} % of a core, {:.2} packets per send, {}",
        outcome.subscribers,
        outcome.profile,
        windows.join(" "),
        100.0 * outcome.load,
        datagrams as f64 / f64::from(sends),
        if outcome.whole {
            "nothing lost"
        } else {
            "LOSS"
        },
    );
    if outcome.whole {
        println!("figure forward_us_{name} {:.2} us", median(&outcome.costs));
    } else {
        println!("figure forward_us_{name} void us");
    }
    outcome.whole
}
