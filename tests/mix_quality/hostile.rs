//! Packets that no honest encoder sends: bounded, counted, and nothing that the others hear.

use std::time::{Duration, Instant};

use bytes::Bytes;
use opus::{Application, Channels};
use talksy_mixer::audio::level::Dbfs;
use talksy_mixer::audio::voice::Seeded;
use talksy_unit::ids::{PeerId, TrackKey};
use talksy_unit::mcu::audio::{
    AudioCounters, AudioMix, AudioMixConfig, AudioPacket, AudioRung, AudioTick,
};
use talksy_unit::mcu::codec::opus::{OpusDecoder, OpusEncoder, OpusSettings};
use talksy_unit::rtp::opus::{is_surround, payload_samples};

use crate::measure::si_sdr;
use crate::surround::SurroundEncoder;
use crate::{figure, noise, voices};

const TICKS: usize = 1000;
/// What nobody hears.
const INAUDIBLE_DBFS: f32 = -60.0;

/// What a bad sender sends in one tick: sequence number, timestamp, payload.
type Sends<'a> = &'a mut dyn FnMut(usize) -> Vec<(u64, u32, Bytes)>;

/// A talker, who may be silent, and a bad sender in one room; what a third hears.
fn room(talks: bool, bad: Option<Sends<'_>>) -> (Vec<f32>, AudioCounters) {
    let voice = voices::talker(2, TICKS as f32 / 50.0, -22.0);
    let mut encoder = OpusEncoder::new(OpusSettings::default()).expect("libopus makes encoders");
    let mut mix = AudioMix::new(AudioMixConfig::default());
    mix.add_source(TrackKey(1), PeerId(1), false);
    mix.add_source(TrackKey(2), PeerId(2), false);
    mix.add_listener(PeerId(3), AudioRung::Normal);
    let (start, mut out) = (Instant::now(), AudioTick::default());
    let mut ear = OpusDecoder::new().expect("libopus makes decoders");
    let mut heard = Vec::new();
    let mut bad = bad;
    let frames = voice
        .as_chunks::<{ talksy_mixer::audio::FRAME_SAMPLES }>()
        .0;
    for (tick, frame) in frames.iter().enumerate() {
        let now = start + Duration::from_millis(20 * tick as u64);
        let mut payload = Vec::new();
        encoder
            .encode(frame, false, &mut payload)
            .expect("libopus encodes any frame");
        let packet = |seq, timestamp, payload| AudioPacket {
            seq,
            timestamp,
            arrival: now,
            level: None,
            payload,
        };
        if talks {
            let packet = packet(tick as u64, tick as u32 * 960, payload.into());
            mix.push(TrackKey(1), packet);
        }
        if let Some(bad) = &mut bad {
            for (seq, timestamp, payload) in bad(tick) {
                mix.push(TrackKey(2), packet(seq, timestamp, payload));
            }
        }
        mix.tick(now + Duration::from_millis(1), &mut out);
        match out.frames.first() {
            Some(frame) => heard.extend_from_slice(ear.decode(out.payload(frame)).expect("ours")),
            None => heard.extend_from_slice(&[0.0; 960]),
        }
    }
    (heard, *mix.counters())
}

/// The level of the loudest 20 ms, dBFS.
fn loudest(sound: &[f32]) -> f32 {
    let levels = sound.chunks(960).map(|frame| Dbfs::of(frame).0);
    levels.fold(f32::MIN, f32::max)
}

/// Noise of an open microphone in packets of `samples`, by a libopus of any configuration.
fn open_microphone(samples: usize, channels: Channels, application: Application) -> Vec<Bytes> {
    let mut encoder =
        opus::Encoder::new(48_000, channels, application).expect("libopus makes encoders");
    let sound = noise::white(9, 4.0, -50.0);
    let width = samples * channels as usize;
    let encode = |sound: &[f32]| {
        encoder
            .encode_vec_float(sound, 1_500)
            .expect("libopus encodes any frame")
            .into()
    };
    sound.chunks_exact(width).map(encode).collect()
}

#[test]
fn whatever_a_sender_sends_the_others_hear_what_they_would_hear_without_it() {
    let (alone, _) = room(true, None);
    let quiet = open_microphone(960, Channels::Mono, Application::Voip);
    let long = open_microphone(5_760, Channels::Mono, Application::Voip);
    let kinds = [
        quiet.clone(),
        long.clone(),
        open_microphone(120, Channels::Mono, Application::LowDelay),
        open_microphone(2_880, Channels::Stereo, Application::Voip),
        open_microphone(960, Channels::Stereo, Application::Audio),
    ];
    let mut random = Seeded::new(31);
    let check = |name: &str, bad: Sends<'_>, counted: &dyn Fn(&AudioCounters) -> u64| {
        let (heard, counters) = room(true, Some(&mut *bad));
        let off = si_sdr(&alone[48_000..], &heard[48_000..]).min(99.0);
        figure(
            &format!("others_beside_{name}"),
            off,
            "dB SI-SDR against a room without it",
        );
        println!("{name}: {counters:?}");
        // Where nobody else makes a sound, nothing is.
        let (alone, _) = room(false, Some(bad));
        let loudest = loudest(&alone);
        figure(
            &format!("alone_{name}"),
            loudest.into(),
            "dBFS, the loudest 20 ms",
        );
        assert!(loudest < INAUDIBLE_DBFS, "{name} alone: {loudest:.1} dBFS");
        assert!(off >= 15.0, "{name}: {off:.1} dB");
        assert!(counted(&counters) > 0, "{name}: {counters:?}");
        let decoded = counters.decodes + counters.pre_roll + counters.plc + counters.fec;
        assert!(decoded <= 10 * TICKS as u64, "{name}: {counters:?}");
    };
    let at = |tick: usize| (tick as u64, tick as u32 * 960);
    check(
        "garbage",
        &mut |tick| {
            let length = 3 + (random.unit() * 100.0) as usize;
            let garbage: Vec<u8> = (0..length).map(|_| (random.unit() * 256.0) as u8).collect();
            vec![(at(tick).0, at(tick).1, garbage.into())]
        },
        &|c| c.dropped.malformed,
    );
    check(
        "nothing",
        &mut |tick| vec![(at(tick).0, at(tick).1, Bytes::new())],
        &|c| c.dropped.malformed,
    );
    check(
        "packets_of_120_ms",
        &mut |tick| match tick % 6 {
            0 => vec![(
                (tick / 6) as u64,
                tick as u32 * 960,
                long[tick / 6 % long.len()].clone(),
            )],
            _ => vec![],
        },
        &|c| c.decodes,
    );
    check(
        "changing_configuration",
        &mut |tick| {
            let kind = &kinds[tick / 3 % kinds.len()];
            vec![(at(tick).0, at(tick).1, kind[tick % kind.len()].clone())]
        },
        &|c| c.dropped.overlapping,
    );
    let (mut sent, mut end) = (0, 0);
    check(
        "changing_configuration_in_time",
        &mut |tick| {
            if tick == 0 {
                (sent, end) = (0, 0);
            }
            let mut due = Vec::new();
            while end < (tick as u32 + 1) * 960 {
                let kind = &kinds[sent / 3 % kinds.len()];
                let packet = kind[sent % kind.len()].clone();
                let samples = payload_samples(&packet).expect("Opus");
                due.push((sent as u64, end, packet));
                (sent, end) = (sent + 1, end + samples);
            }
            due
        },
        &|c| c.decodes,
    );
    let mut random = Seeded::new(32);
    check(
        "jumping_timestamps",
        &mut |tick| {
            let jump = if tick % 10 == 0 {
                (random.unit() * 4e9) as u32
            } else {
                0
            };
            vec![(
                at(tick).0,
                at(tick).1.wrapping_add(jump),
                quiet[tick % quiet.len()].clone(),
            )]
        },
        &|c| c.decodes,
    );
    check(
        "ten_times_real_time",
        &mut |tick| {
            (0..10)
                .map(|n| (tick * 10 + n, &quiet[(tick * 10 + n) % quiet.len()]))
                .map(|(n, packet)| (n as u64, n as u32 * 960, packet.clone()))
                .collect()
        },
        &|c| c.dropped.overflow + c.dropped.stale + c.dropped.late,
    );
    check(
        "ten_times_real_time_at_one_moment",
        &mut |tick| {
            (0..10)
                .map(|n| (tick * 10 + n, &quiet[(tick * 10 + n) % quiet.len()]))
                .map(|(n, packet)| (n as u64, tick as u32 * 960, packet.clone()))
                .collect()
        },
        &|c| c.dropped.overlapping,
    );
}

/// Packets of 5.1 as a browser makes them of what is played to it: speech in every channel but the low one.
fn surround(seconds: f32) -> Vec<Vec<u8>> {
    let channels: Vec<Vec<f32>> = (0..6)
        .map(|n| voices::monologue(n, seconds, -15.0))
        .collect();
    let length = channels.iter().map(Vec::len).min().unwrap_or(0);
    let sound: Vec<f32> = (0..length)
        .flat_map(|i| channels.iter().map(move |channel| channel[i]))
        .collect();
    SurroundEncoder::new(256_000).encode(&sound)
}

#[test]
fn sound_of_5_1_channels_is_not_heard_at_all() {
    let packets = surround(20.0);
    let mut bad = |tick: usize| {
        let packet = Bytes::copy_from_slice(&packets[tick % packets.len()]);
        vec![(tick as u64, tick as u32 * 960, packet)]
    };
    let (alone, counters) = room(false, Some(&mut bad));
    // The others wait while nobody listens to what is behind them.
    assert!(
        counters.dropped.surround > TICKS as u64 * 9 / 10,
        "{counters:?}"
    );
    assert_eq!((counters.decodes, counters.encodes), (0, 0), "{counters:?}");
    let loudest = loudest(&alone);
    assert!(loudest < INAUDIBLE_DBFS, "{loudest:.1} dBFS");
}

/// Nothing in a packet says how many streams it has. What tells them apart must not cost ordinary senders their sound.
#[test]
fn no_ordinary_sender_is_taken_for_one_of_5_1_channels() {
    let mut tone = 0.0f32;
    let music = (0..10 * 48_000).map(|i| {
        tone += 0.001;
        (0.02 * i as f32).sin() * 0.2 + (0.031 * i as f32 + tone.sin()).sin() * 0.1
    });
    let sounds = [
        voices::talker(1, 10.0, -22.0),
        voices::recorded(10.0, -20.0),
        noise::white(3, 10.0, -45.0),
        music.collect(),
        vec![0.0; 10 * 48_000],
    ];
    let applications = [Application::Voip, Application::Audio, Application::LowDelay];
    let (mut packets, mut taken, mut longest) = (0, 0, 0);
    for (sound, application) in sounds.iter().flat_map(|s| applications.map(|a| (s, a))) {
        for (samples, bitrate) in [
            (960, 16_000),
            (960, 32_000),
            (960, 96_000),
            (480, 64_000),
            (2_880, 32_000),
        ] {
            let mut encoder = opus::Encoder::new(48_000, Channels::Mono, application)
                .expect("libopus makes encoders");
            encoder
                .set_bitrate(opus::Bitrate::Bits(bitrate))
                .expect("a bitrate that it knows");
            let mut run = 0;
            for piece in sound.chunks_exact(samples) {
                let packet = encoder
                    .encode_vec_float(piece, 1_500)
                    .expect("libopus encodes any frame");
                run = if is_surround(&packet) { run + 1 } else { 0 };
                (packets, taken, longest) =
                    (packets + 1, taken + usize::from(run > 0), longest.max(run));
            }
        }
    }
    let share = taken as f64 / packets as f64;
    figure(
        "ordinary_packets_taken_for_5_1",
        share * 1e6,
        "in a million",
    );
    println!("{taken} of {packets}, {longest} in a row at most");
    assert!(
        share < 2e-4 && longest <= 2,
        "{taken} of {packets}, {longest} in a row"
    );
}
