//! A mixed room in virtual time: what its participants say, encoded beforehand, and what its mix costs.

use std::time::{Duration, Instant};

use bytes::Bytes;
use talksy_mixer::audio::level::Dbfs;
use talksy_mixer::audio::voice::{Noise, SyntheticVoice};
use talksy_mixer::audio::{AudioLevel, FRAME_SAMPLES, SILENCE};
use talksy_unit::ids::{PeerId, TrackKey};
use talksy_unit::mcu::audio::{AudioMix, AudioMixConfig, AudioPacket, AudioRung, AudioTick};
use talksy_unit::mcu::codec::opus::{OpusEncoder, OpusSettings};

/// Ticks before the clock runs: jitter buffers fill, noise floors and delays settle.
pub const WARM_UP: u64 = 200;

/// Ticks that are measured: ten seconds.
pub const MEASURED: u64 = 500;

/// Talkers without a match in the room say the same things later.
const DISTINCT: usize = 8;

/// ... by so many frames.
const LATER: usize = 37;

/// Who speaks, and what their packets tell.
#[derive(Clone, Copy, PartialEq)]
pub enum Scene {
    /// Three speak, the others' microphones are open; all with RFC 6464 levels.
    ThreeSpeak,
    /// Everybody speaks at once.
    AllSpeak,
    /// Three speak; no packet tells its level.
    NoLevels,
}

impl Scene {
    /// Of the figures' names.
    pub fn suffix(self) -> &'static str {
        match self {
            Scene::ThreeSpeak => "",
            Scene::AllSpeak => "_all_speaking",
            Scene::NoLevels => "_no_levels",
        }
    }
}

/// A participant's packets.
pub type Track = Vec<(Bytes, AudioLevel)>;

fn record(mut next: impl FnMut(&mut [f32; FRAME_SAMPLES])) -> Track {
    let mut encoder = OpusEncoder::new(OpusSettings::default()).expect("libopus makes encoders");
    let mut frame = SILENCE;
    let mut packets = Vec::new();
    for _ in 0..WARM_UP + MEASURED {
        next(&mut frame);
        let mut packet = Vec::new();
        encoder
            .encode(&frame, false, &mut packet)
            .expect("libopus encodes any frame");
        let dbov = -Dbfs::of(&frame).0.min(0.0) as u8;
        let voice = dbov < 50;
        packets.push((packet.into(), AudioLevel { dbov, voice }));
    }
    packets
}

/// Voices over the noise of an open microphone, and microphones with nobody in front.
pub struct Recordings {
    pub voices: Vec<Track>,
    rooms: Vec<Track>,
}

impl Recordings {
    pub fn new() -> Self {
        let voice = |n: usize| {
            let mut voice = SyntheticVoice::new(n as u64 + 1, 95.0 + 17.0 * n as f32, -22.0);
            let mut noise = Noise::new(n as u64, -62.0);
            let mut background = SILENCE;
            record(move |frame| {
                voice.next_frame(frame);
                noise.next_frame(&mut background);
                frame.iter_mut().zip(&background).for_each(|(x, b)| *x += b);
            })
        };
        let room = |n: usize| {
            let mut noise = Noise::new(100 + n as u64, -60.0 + n as f32);
            record(move |frame| noise.next_frame(frame))
        };
        Recordings {
            voices: (0..DISTINCT).map(voice).collect(),
            rooms: (0..DISTINCT).map(room).collect(),
        }
    }

    /// What a participant sends in a tick. Shared recordings are read at different places, so that not all pause at once.
    pub fn packet(&self, scene: Scene, participant: usize, tick: u64) -> &(Bytes, AudioLevel) {
        let speaks = participant < 3 || scene == Scene::AllSpeak;
        let tracks = if speaks { &self.voices } else { &self.rooms };
        let track = &tracks[participant % DISTINCT];
        &track[(tick as usize + participant / DISTINCT * LATER) % track.len()]
    }
}

/// What a tick took, on the mean.
pub struct Measured {
    pub cpu: Duration,
    pub decodes: f64,
    pub encodes: f64,
    pub mixes: f64,
}

/// CPU time of this thread.
pub fn cpu_time() -> Duration {
    // Field 1 of schedstat: nanoseconds on a processor.
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat
        .split_whitespace()
        .next()
        .and_then(|field| field.parse().ok());
    Duration::from_nanos(nanos.expect("the kernel tells a thread's CPU time"))
}

/// Runs one room in which everybody sends and listens.
pub fn measure(recordings: &Recordings, scene: Scene, participants: usize) -> Measured {
    let mut mix = AudioMix::new(AudioMixConfig::default());
    for n in 0..participants as u64 {
        mix.add_source(TrackKey(n), PeerId(n), false);
        mix.add_listener(PeerId(n), AudioRung::Normal);
    }
    let mut out = AudioTick::default();
    let start = Instant::now();
    let mut mixes = 0;
    let packet = |n: usize, tick: u64| {
        let (payload, level) = recordings.packet(scene, n, tick);
        AudioPacket {
            seq: tick,
            timestamp: tick as u32 * FRAME_SAMPLES as u32,
            arrival: start + Duration::from_millis(20 * tick),
            level: (scene != Scene::NoLevels).then_some(*level),
            payload: payload.clone(),
        }
    };
    // Handing packets over is the media thread's work.
    let ticks = (0..WARM_UP + MEASURED).map(|tick| (0..participants).map(move |n| (n, tick)));
    let mut arriving: Vec<Vec<AudioPacket>> = ticks
        .map(|packets| packets.map(|(n, tick)| packet(n, tick)).collect())
        .collect();
    let (mut before, mut began) = (*mix.counters(), Duration::ZERO);
    for (tick, arriving) in (0..).zip(&mut arriving) {
        if tick == WARM_UP {
            before = *mix.counters();
            began = cpu_time();
        }
        let now = start + Duration::from_millis(20 * tick);
        for (n, packet) in (0..).zip(arriving.drain(..)) {
            mix.push(TrackKey(n), packet);
        }
        mix.tick(now + Duration::from_millis(1), &mut out);
        if tick >= WARM_UP {
            mixes += out.frames.len();
        }
        std::hint::black_box(&out);
    }
    let cpu = (cpu_time() - began) / MEASURED as u32;
    let after = mix.counters();
    let decoded = after.decodes + after.pre_roll - before.decodes - before.pre_roll;
    let encoded = after.encodes + after.primes - before.encodes - before.primes;
    Measured {
        cpu,
        decodes: decoded as f64 / MEASURED as f64,
        encodes: encoded as f64 / MEASURED as f64,
        mixes: mixes as f64 / MEASURED as f64,
    }
}
