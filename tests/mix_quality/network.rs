//! What a bad network and foreign clocks do to a mix: minutes in virtual time, with real packets and real decoders.

use std::time::{Duration, Instant};

use bytes::Bytes;
use talksy_mixer::audio::FRAME_SAMPLES;
use talksy_mixer::audio::voice::Seeded;
use talksy_unit::ids::{PeerId, TrackKey};
use talksy_unit::mcu::audio::{AudioMix, AudioMixConfig, AudioPacket, AudioRung, AudioTick};
use talksy_unit::mcu::codec::opus::{OpusDecoder, OpusEncoder, OpusSettings};

use crate::measure::{energy, snr};
use crate::{figure, noise, room, voices};

const PEOPLE: u64 = 10;
const LOSS: f32 = 0.10;
const JITTER_MS: f32 = 50.0;
/// The chance of each packet that its sender says nothing for up to two seconds from here on, without a word (no DTX).
const SILENCE: f32 = 0.001;

/// What was said, as packets that repeat every twenty seconds.
fn packets(n: usize) -> Vec<Bytes> {
    let voice = voices::talker(n, 20.0, -22.0);
    let sound = room::sum(&[voice, noise::white(n as u64, 20.0, -65.0)]);
    let settings = OpusSettings {
        expected_loss: 10,
        ..OpusSettings::default()
    };
    encoded(&sound, settings)
}

fn encoded(sound: &[f32], settings: OpusSettings) -> Vec<Bytes> {
    let mut encoder = OpusEncoder::new(settings).expect("libopus makes encoders");
    let encode = |frame: &[f32; FRAME_SAMPLES]| {
        let mut packet = Vec::new();
        encoder
            .encode(frame, false, &mut packet)
            .expect("libopus encodes any frame");
        packet.into()
    };
    sound.as_chunks().0.iter().map(encode).collect()
}

struct Person {
    packets: Vec<Bytes>,
    /// Its clock against ours, parts per million.
    ppm: f64,
    frame: u64,
    seq: u64,
    silent_until: u64,
    /// On their way: arrival and packet.
    network: Vec<(Duration, AudioPacket)>,
    lost_before: bool,
}

#[derive(Default)]
struct Result {
    sent: u64,
    /// Lost, and so was the packet after it.
    beyond_repair: u64,
    delays: u64,
    near: u64,
    longest: Duration,
}

/// Ten people for as long as `length`.
fn ten_people(length: Duration) {
    let mut random = Seeded::new(2024);
    let start = Instant::now();
    let mut mix = AudioMix::new(AudioMixConfig::default());
    mix.add_listener(PeerId(100), AudioRung::Normal);
    let mut people: Vec<Person> = (0..PEOPLE)
        .map(|n| {
            mix.add_source(TrackKey(n), PeerId(n), false);
            Person {
                packets: packets(n as usize),
                ppm: -200.0 + 400.0 * n as f64 / (PEOPLE - 1) as f64,
                frame: 0,
                seq: 0,
                silent_until: 0,
                network: Vec::new(),
                lost_before: false,
            }
        })
        .collect();
    let mut result = Result::default();
    let mut out = AudioTick::default();
    let ticks = (length.as_millis() / 20) as u64;
    for tick in 0..ticks {
        let now = Duration::from_millis(20 * tick);
        for (n, person) in people.iter_mut().enumerate() {
            person.send(start, now, &mut random, &mut result);
            person.network.sort_by_key(|(at, _)| *at);
            let due = person.network.partition_point(|(at, _)| *at <= now);
            for (_, packet) in person.network.drain(..due) {
                mix.push(TrackKey(n as u64), packet);
            }
        }
        mix.tick(start + now, &mut out);
        for frame in &out.frames {
            assert_eq!(
                frame.timestamp,
                (tick as u32).wrapping_mul(960),
                "the output clock drifts"
            );
        }
        // The first ten seconds are the time to learn.
        if tick < 500 {
            continue;
        }
        for n in 0..PEOPLE {
            if let Some(found) = mix.delay(TrackKey(n), start + now) {
                result.delays += 1;
                result.near +=
                    u64::from(found.delay.abs_diff(found.target) <= Duration::from_millis(40));
                result.longest = result.longest.max(found.delay);
            }
        }
    }
    let counters = *mix.counters();
    println!("{counters:?}");
    let share = |part: u64, whole: u64| part as f64 / whole as f64 * 100.0;
    let near = share(result.near, result.delays);
    let concealed = share(counters.plc, result.sent);
    let beyond_repair = share(result.beyond_repair, result.sent);
    figure(
        "network_longest_delay",
        result.longest.as_secs_f64() * 1e3,
        "ms",
    );
    figure("network_near_target", near, "% of the time within 40 ms");
    figure("network_concealed", concealed, "% of packets");
    figure("network_lost_beyond_repair", beyond_repair, "% of packets");
    assert!(
        result.delays > ticks * PEOPLE / 2,
        "{} delays were told",
        result.delays
    );
    assert!(
        result.longest <= Duration::from_millis(200),
        "{:?}",
        result.longest
    );
    assert!(near >= 95.0, "{near:.1} % near the target");
    assert!(
        concealed <= beyond_repair + 1.0,
        "{concealed:.2} % made up, {beyond_repair:.2} % beyond repair"
    );
    assert_eq!(counters.restarts, 0);
}

impl Person {
    fn send(&mut self, start: Instant, now: Duration, random: &mut Seeded, result: &mut Result) {
        while Duration::from_secs_f64(self.frame as f64 * 0.02 * (1.0 - self.ppm * 1e-6)) <= now {
            let frame = self.frame;
            self.frame += 1;
            if random.unit() < SILENCE {
                self.silent_until = frame + (random.unit() * 100.0) as u64;
            }
            if frame < self.silent_until {
                continue;
            }
            result.sent += 1;
            self.seq += 1;
            let lost = random.unit() < LOSS;
            result.beyond_repair += u64::from(lost && self.lost_before);
            self.lost_before = lost;
            if lost {
                continue;
            }
            let sent = Duration::from_secs_f64(frame as f64 * 0.02 * (1.0 - self.ppm * 1e-6));
            let arrival = sent + Duration::from_secs_f32(random.unit() * JITTER_MS / 1000.0);
            let packet = AudioPacket {
                seq: self.seq,
                timestamp: (frame as u32).wrapping_mul(960),
                arrival: start + arrival,
                // Nobody tells a level, so that everybody is decoded all the time.
                level: None,
                payload: self.packets[frame as usize % self.packets.len()].clone(),
            };
            self.network.push((arrival, packet));
        }
    }
}

#[test]
fn ten_people_with_loss_jitter_silence_and_drift_for_ten_minutes() {
    ten_people(Duration::from_secs(600));
}

#[test]
#[ignore = "an hour of ten people; `make soak` runs it"]
fn ten_people_with_loss_jitter_silence_and_drift_for_an_hour() {
    ten_people(Duration::from_secs(3600));
}

/// A decoder that wakes up hears the last ten packets first; its first frame is as if it had never slept.
#[test]
fn the_first_frame_after_a_pre_roll_is_that_of_a_decoder_that_never_slept() {
    const PRE_ROLL: usize = 10;
    let (mut wanted, mut woken) = (Vec::new(), Vec::new());
    let mut ratios = Vec::new();
    for sound in [
        voices::monologue(0, 12.0, -22.0),
        voices::monologue(3, 12.0, -22.0),
        voices::recorded(12.0, -22.0),
    ] {
        let packets = encoded(&sound, OpusSettings::default());
        let mut continuous = OpusDecoder::new().expect("libopus makes decoders");
        for (n, packet) in packets.iter().enumerate() {
            let whole = continuous.decode(packet).expect("its own packet").to_vec();
            if n < 50 || n % 7 != 0 || energy(&whole) < 0.05 {
                continue;
            }
            let mut decoder = OpusDecoder::new().expect("libopus makes decoders");
            for packet in &packets[n - PRE_ROLL..n] {
                decoder.decode(packet).expect("its own packet");
            }
            let first = decoder.decode(packet).expect("its own packet").to_vec();
            ratios.push(snr(&whole, &first));
            wanted.extend(whole);
            woken.extend(first);
        }
    }
    ratios.sort_by(f64::total_cmp);
    let all = snr(&wanted, &woken);
    figure("pre_roll_snr", all, "dB");
    figure("pre_roll_snr_median", ratios[ratios.len() / 2], "dB");
    figure("pre_roll_snr_worst", ratios[0], "dB");
    assert!(all >= 35.0, "{all:.1} dB");
}
