//! Packets that no honest encoder sends: bounded, counted, and nothing that the others hear.

use std::time::{Duration, Instant};

use bytes::Bytes;
use opus::{Application, Channels};
use talksy_mixer::audio::voice::Seeded;
use talksy_unit::ids::{PeerId, TrackKey};
use talksy_unit::mcu::audio::{
    AudioCounters, AudioMix, AudioMixConfig, AudioPacket, AudioRung, AudioTick,
};
use talksy_unit::mcu::codec::opus::{OpusDecoder, OpusEncoder, OpusSettings};

use crate::measure::si_sdr;
use crate::{figure, noise, voices};

const TICKS: usize = 1000;

/// What a bad sender sends in one tick: sequence number, timestamp, payload.
type Sends<'a> = &'a mut dyn FnMut(usize) -> Vec<(u64, u32, Bytes)>;

/// A talker and a bad sender in one room; what a third hears.
fn room(bad: Option<Sends<'_>>) -> (Vec<f32>, AudioCounters) {
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
    for (tick, frame) in voice
        .as_chunks::<{ talksy_mixer::audio::FRAME_SAMPLES }>()
        .0
        .iter()
        .enumerate()
    {
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
        mix.push(
            TrackKey(1),
            packet(tick as u64, tick as u32 * 960, payload.into()),
        );
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

/// The packets of one stream as those of a 5.1 multistream packet (RFC 7845, section 5.1.1; RFC 6716, appendix B).
fn surround(packet: &Bytes) -> Bytes {
    let mut all = Vec::new();
    for _ in 0..3 {
        let length = (packet.len() - 1).min(251);
        all.extend_from_slice(&[packet[0], length as u8]);
        all.extend_from_slice(&packet[1..=length]);
    }
    all.extend_from_slice(packet);
    all.truncate(1_500);
    all.into()
}

#[test]
fn whatever_a_sender_sends_the_others_hear_what_they_would_hear_without_it() {
    let (alone, _) = room(None);
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
        let (heard, counters) = room(Some(bad));
        let off = si_sdr(&alone[48_000..], &heard[48_000..]).min(99.0);
        figure(
            &format!("others_beside_{name}"),
            off,
            "dB SI-SDR against a room without it",
        );
        println!("{name}: {counters:?}");
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
        &|c| c.dropped.overflow + c.dropped.stale + c.dropped.late + c.decodes,
    );
}

/// Nobody is offered 5.1, and nothing tells its packets from those of one stream: what a decoder makes of them is noise,
/// and may be heard. The work that it makes is that of any other source, and peaks are limited as ever.
#[test]
fn packets_of_5_1_cost_no_more_than_others() {
    let quiet = open_microphone(960, Channels::Mono, Application::Voip);
    let mut bad = |tick: usize| {
        let packet = surround(&quiet[tick % quiet.len()]);
        vec![(tick as u64, tick as u32 * 960, packet)]
    };
    let (heard, counters) = room(Some(&mut bad));
    assert!(
        counters.decodes + counters.pre_roll <= 2 * TICKS as u64 + 20,
        "{counters:?}"
    );
    // Opus may overshoot what it was given a little.
    assert!(heard.iter().all(|x| x.abs() < 1.2));
}
