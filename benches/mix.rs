//! What the mixed audio of a room costs: real Opus packets in, real Opus packets out, everything between included.
//!
//! The configuration is the default one, which the tests run with. The closing `figure` lines say how many
//! participants, each sending and listening, one core carries: n × 20 ms / CPU time of a tick.

#[path = "support/room.rs"]
mod room;

use std::time::Duration;

use bytes::Bytes;
use criterion::Criterion;
use room::{Recordings, Scene, cpu_time, measure};
use talksy_mixer::audio::detector::Detector;
use talksy_mixer::audio::voice::SyntheticVoice;
use talksy_mixer::audio::{Frame, Mixer, MixerConfig, OwnerId, SILENCE, SourceKind};
use talksy_unit::mcu::audio::AudioMixConfig;
use talksy_unit::mcu::codec::opus::{OpusDecoder, OpusEncoder, OpusSettings};

/// Participants in a room.
const SIZES: [usize; 4] = [3, 10, 50, 200];

/// What each stage costs by itself, in microseconds: the mix as a whole reads no clock while it works.
struct Stages {
    decode: f64,
    vad: f64,
    mix: f64,
    encode: f64,
}

impl Stages {
    fn measure(recordings: &Recordings) -> Self {
        const ROUNDS: usize = 4;
        let packets: Vec<&Bytes> = recordings
            .voices
            .iter()
            .flatten()
            .map(|(packet, _)| packet)
            .collect();
        let mut decoder = OpusDecoder::new().expect("libopus makes decoders");
        let mut sound: Vec<Frame> = Vec::with_capacity(packets.len());
        let mut decode = || {
            sound.clear();
            for packet in &packets {
                let decoded = decoder.decode(packet).expect("its own packet");
                sound.extend(decoded.as_chunks().0);
            }
        };
        let decode = micros_each(packets.len(), &mut decode);
        let mut detector = Detector::new();
        let vad = micros_each(sound.len(), &mut || {
            for frame in &sound {
                std::hint::black_box(detector.observe(frame, true, true));
            }
        });
        let mut encoder =
            OpusEncoder::new(OpusSettings::default()).expect("libopus makes encoders");
        let mut packet = Vec::new();
        let encode = micros_each(sound.len() / ROUNDS, &mut || {
            for frame in &sound[..sound.len() / ROUNDS] {
                packet.clear();
                encoder
                    .encode(frame, false, &mut packet)
                    .expect("libopus encodes any frame");
            }
        });
        // Selecting, ramping, summing and limiting three voices for one mix; detectors are paid for above.
        let mut mixer = Mixer::new(MixerConfig::default());
        let ids: Vec<_> = (0..3)
            .map(|n| mixer.add_source(OwnerId(n), SourceKind::Music))
            .collect();
        let mix = micros_each(1000, &mut || {
            for n in 0..1000 {
                for (voice, id) in ids.iter().enumerate() {
                    mixer.feed(*id, &sound[(n + voice * 700) % sound.len()]);
                }
                mixer.mix();
            }
        });
        Stages {
            decode,
            vad,
            mix,
            encode,
        }
    }
}

/// CPU time of `work`, divided by `count`; the second run counts, the first warms up.
fn micros_each(count: usize, work: &mut dyn FnMut()) -> f64 {
    work();
    let began = cpu_time();
    work();
    (cpu_time() - began).as_secs_f64() * 1e6 / count as f64
}

fn print_figures() {
    let config = AudioMixConfig::default();
    println!(
        "mix: K {}, at most {} decoded by level, complexity {}, {} bit/s, FEC {} for {} % loss, everybody sends and listens",
        config.mixer.top_k,
        config.mixer.max_decoded,
        config.opus.complexity,
        config.opus.bitrate,
        if config.opus.fec { "on" } else { "off" },
        config.opus.expected_loss,
    );
    let recordings = Recordings::new();
    let stages = Stages::measure(&recordings);
    println!(
        "one decode {:.1} µs, one frame of voice detection {:.1} µs, one mix {:.1} µs, one encode {:.1} µs",
        stages.decode, stages.vad, stages.mix, stages.encode,
    );
    for scene in [Scene::ThreeSpeak, Scene::AllSpeak, Scene::NoLevels] {
        for participants in SIZES {
            let measured = measure(&recordings, scene, participants);
            let micros = measured.cpu.as_secs_f64() * 1e6;
            println!(
                "n {participants}{}: {micros:.0} µs CPU per tick, {:.1} decodes, {:.1} encodes",
                scene.suffix(),
                measured.decodes,
                measured.encodes,
            );
            println!(
                "figure mix_participants_per_core_n{participants}{} {:.0} participants",
                scene.suffix(),
                participants as f64 * 20_000.0 / micros,
            );
            // Every frame that is decoded goes through the detector; what is left over is jitter buffers and ranking.
            let parts = [
                ("decode", measured.decodes * stages.decode),
                ("vad", measured.decodes * stages.vad),
                ("mix", measured.mixes * stages.mix),
                ("encode", measured.encodes * stages.encode),
            ];
            for (name, cost) in parts {
                println!(
                    "figure mix_n{participants}{}_{name} {cost:.0} µs a tick",
                    scene.suffix(),
                );
            }
            let rest = micros - parts.iter().map(|(_, cost)| cost).sum::<f64>();
            println!(
                "n {participants}{}: {rest:.0} µs a tick for everything else",
                scene.suffix()
            );
        }
    }
}

/// The mixer alone: three voices and their mixes, no codec.
fn mixer_tick(criterion: &mut Criterion) {
    let mut mixer = Mixer::new(MixerConfig::default());
    let mut voices: Vec<_> = (0..3u64)
        .map(|n| {
            mixer.add_listener(OwnerId(n));
            let id = mixer.add_source(OwnerId(n), SourceKind::Voice);
            (
                id,
                SyntheticVoice::new(n + 1, 100.0 + 30.0 * n as f32, -20.0),
            )
        })
        .collect();
    let frames: Vec<_> = voices
        .iter_mut()
        .map(|(id, voice)| {
            let sound: Vec<_> = (0..200)
                .map(|_| {
                    let mut frame = SILENCE;
                    voice.next_frame(&mut frame);
                    frame
                })
                .collect();
            (*id, sound)
        })
        .collect();
    let mut tick = 0;
    criterion.bench_function("mixer_tick_3_speakers", |bencher| {
        bencher.iter(|| {
            for (id, sound) in &frames {
                mixer.feed(*id, &sound[tick % sound.len()]);
            }
            mixer.mix();
            tick += 1;
        })
    });
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    mixer_tick(&mut criterion);
    criterion.final_summary();
    print_figures();
}
