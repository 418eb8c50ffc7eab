use std::collections::HashMap;
use std::time::Duration;

use talksy_mixer::audio::level::Dbfs;
use talksy_mixer::audio::voice::{Noise, Seeded, SyntheticVoice};

use super::*;
use crate::mcu::codec::opus::{OpusDecoder, OpusEncoder};

mod output;
mod stereo;
mod telephone;

/// What a sender puts into its packets.
#[derive(Clone)]
enum Says {
    Voice(SyntheticVoice),
    Noise(Noise),
    Nothing,
}

struct Sender {
    track: TrackKey,
    encoder: OpusEncoder,
    says: Says,
    levels: bool,
    /// Its clock against ours, parts per million.
    ppm: f64,
    seq: u64,
    /// What it said, sample by sample.
    said: Vec<f32>,
}

/// One who hears the mix, and the sound that came out of its decoder.
struct Ear {
    decoder: OpusDecoder,
    heard: Vec<f32>,
    packets: usize,
    silent_packets: usize,
}

/// A room in virtual time, with a network of its own.
struct Sim {
    mix: AudioMix,
    out: AudioTick,
    start: Instant,
    tick: u64,
    senders: Vec<Sender>,
    ears: HashMap<PeerId, Ear>,
    network: Vec<(Duration, TrackKey, AudioPacket)>,
    random: Seeded,
    loss: f32,
    jitter_ms: f32,
    speaking: HashMap<PeerId, bool>,
    most_encodes: u64,
}

impl Sim {
    fn new() -> Self {
        Self::with(AudioMixConfig::default())
    }

    fn with(config: AudioMixConfig) -> Self {
        Sim {
            mix: AudioMix::new(config),
            out: AudioTick::default(),
            start: Instant::now(),
            tick: 0,
            senders: Vec::new(),
            ears: HashMap::new(),
            network: Vec::new(),
            random: Seeded::new(77),
            loss: 0.0,
            jitter_ms: 0.0,
            speaking: HashMap::new(),
            most_encodes: 0,
        }
    }

    /// A participant `n` that sends; returns its index.
    fn sender(&mut self, n: u64, says: Says) -> usize {
        let track = TrackKey(1000 + self.senders.len() as u64);
        self.mix.add_source(track, PeerId(n), false);
        self.senders.push(Sender {
            track,
            encoder: OpusEncoder::new(OpusSettings::default()).unwrap(),
            says,
            levels: true,
            ppm: 0.0,
            seq: 0,
            said: Vec::new(),
        });
        self.senders.len() - 1
    }

    fn voice(&mut self, n: u64) -> usize {
        let voice = SyntheticVoice::new(n, 95.0 + 28.0 * (n % 6) as f32, -20.0);
        self.sender(n, Says::Voice(voice))
    }

    fn listener(&mut self, n: u64, rung: AudioRung) {
        self.mix.add_listener(PeerId(n), rung);
        self.ears.insert(
            PeerId(n),
            Ear {
                decoder: OpusDecoder::new().unwrap(),
                heard: Vec::new(),
                packets: 0,
                silent_packets: 0,
            },
        );
    }

    fn at(&self) -> Duration {
        Duration::from_millis(20 * self.tick)
    }

    fn run(&mut self, ticks: u64) {
        for _ in 0..ticks {
            let now = self.at();
            for sender in &mut self.senders {
                // A sender whose clock is fast makes its packets in less time.
                while Duration::from_secs_f64(sender.seq as f64 * 0.02 * (1.0 - sender.ppm * 1e-6))
                    <= now
                {
                    let Some(packet) = sender.next_packet(self.start + now) else {
                        continue;
                    };
                    let delay = self.random.unit() * self.jitter_ms;
                    let at = now + Duration::from_micros((delay * 1000.0) as u64);
                    if self.random.unit() >= self.loss {
                        self.network.push((at, sender.track, packet));
                    }
                }
            }
            self.deliver(now + Duration::from_millis(1));
            let before = self.mix.counters().encodes;
            self.mix
                .tick(self.start + now + Duration::from_millis(2), &mut self.out);
            self.most_encodes = self.most_encodes.max(self.mix.counters().encodes - before);
            for (peer, speaks) in &self.out.speaking_changes {
                assert_ne!(self.speaking.insert(*peer, *speaks), Some(*speaks));
            }
            self.listen();
            self.tick += 1;
        }
    }

    fn deliver(&mut self, until: Duration) {
        self.network.sort_by_key(|(at, ..)| *at);
        let due = self.network.partition_point(|(at, ..)| *at <= until);
        for (at, track, mut packet) in self.network.drain(..due) {
            packet.arrival = self.start + at;
            self.mix.push(track, packet);
        }
    }

    fn listen(&mut self) {
        for (peer, ear) in &mut self.ears {
            let route = self.out.routes.iter().find(|(to, _)| to == peer);
            let frame = route.map(|(_, mix)| {
                let mut frames = self.out.frames.iter().filter(|frame| frame.mix == *mix);
                let frame = frames.next().expect("a route leads to a frame");
                assert!(frames.next().is_none(), "one frame per mix");
                assert_eq!(frame.timestamp, (self.tick as u32).wrapping_mul(960));
                frame
            });
            let sound = match frame {
                Some(frame) => {
                    ear.packets += 1;
                    ear.silent_packets += usize::from(frame.silent);
                    ear.decoder.decode(self.out.payload(frame)).unwrap()
                }
                // No packet and no hole in the numbers: silence, as a receiver takes it.
                None => &SILENCE[..],
            };
            ear.heard.extend_from_slice(sound);
        }
    }

    fn heard(&self, n: u64) -> &[f32] {
        &self.ears[&PeerId(n)].heard
    }
}

impl Sender {
    fn next_packet(&mut self, now: Instant) -> Option<AudioPacket> {
        let mut frame = SILENCE;
        match &mut self.says {
            Says::Voice(voice) => voice.next_frame(&mut frame),
            Says::Noise(noise) => noise.next_frame(&mut frame),
            Says::Nothing => {
                self.seq += 1;
                self.said.extend_from_slice(&frame);
                return None;
            }
        }
        self.said.extend_from_slice(&frame);
        let mut payload = Vec::new();
        self.encoder.encode(&frame, false, &mut payload).unwrap();
        let dbov = -Dbfs::of(&frame).0.min(0.0) as u8;
        let packet = AudioPacket {
            seq: self.seq,
            timestamp: (self.seq as u32).wrapping_mul(960),
            arrival: now,
            level: self.levels.then_some(AudioLevel {
                dbov,
                voice: dbov < 50,
            }),
            payload: payload.into(),
        };
        self.seq += 1;
        Some(packet)
    }
}

/// When the delays have settled, and how long is looked at from there, in samples.
const SETTLED: std::ops::Range<usize> = 360_000..432_000;

/// How strongly `signal` is in `sound`: the largest normalised correlation over all delays that can be.
fn part_of(signal: &[f32], sound: &[f32]) -> f32 {
    let sound = &sound[SETTLED];
    let norm = |x: &[f32]| x.iter().step_by(7).map(|v| v * v).sum::<f32>().sqrt();
    let norms = (norm(&signal[SETTLED]) * norm(sound)).max(1e-6);
    let at_delay = |delay: usize| {
        let signal = &signal[SETTLED.start - delay..SETTLED.end - delay];
        let pairs = signal.iter().zip(sound).step_by(7);
        pairs.map(|(a, b)| a * b).sum::<f32>().abs() / norms
    };
    (500..5000).step_by(3).map(at_delay).fold(0.0, f32::max)
}

fn rms(sound: &[f32]) -> f32 {
    Dbfs::of(sound).0
}

#[test]
fn each_hears_the_others_and_itself_at_least_40_db_less() {
    let mut sim = Sim::new();
    for n in 0..3 {
        sim.voice(n);
        sim.listener(n, AudioRung::Normal);
    }
    sim.listener(9, AudioRung::Normal);
    sim.run(450);
    let said: Vec<Vec<f32>> = sim.senders.iter().map(|s| s.said.clone()).collect();
    for (n, own) in said.iter().enumerate() {
        let by_third = part_of(own, sim.heard(9));
        assert!(by_third > 0.3, "{n} is in the shared mix: {by_third:?}");
        // Two voices are like each other by chance only so much.
        let own = part_of(own, sim.heard(n as u64));
        assert!(own < 0.25, "{n} hears itself: {own}");
        for (m, other) in said.iter().enumerate().filter(|(m, _)| *m != n) {
            let part = part_of(other, sim.heard(n as u64));
            assert!(part > 0.4, "{n} hears {m}: {part:?}");
        }
    }
    // One speaks alone: whoever has nothing but its own voice in the room hears nothing.
    let mut sim = Sim::new();
    sim.voice(0);
    sim.listener(0, AudioRung::Normal);
    sim.listener(9, AudioRung::Normal);
    sim.run(150);
    let (own, third) = (rms(sim.heard(0)), rms(sim.heard(9)));
    assert!(
        third > -30.0 && own < third - 40.0,
        "own {own} dBFS, third {third} dBFS"
    );
    assert!(sim.speaking[&PeerId(0)]);
}

#[test]
fn a_hundred_listeners_cost_k_plus_1_encodes_and_100_senders_a_few_decodes() {
    let mut sim = Sim::new();
    for n in 0..5 {
        sim.voice(n);
        sim.listener(n, AudioRung::Normal);
    }
    for n in 5..100 {
        if n < 40 {
            sim.sender(n, Says::Noise(Noise::new(n, -60.0)));
        }
        sim.listener(n, AudioRung::Normal);
    }
    sim.run(100);
    assert_eq!(sim.most_encodes, 4);
    let counters = *sim.mix.counters();
    assert!(counters.encodes <= 4 * 100, "{counters:?}");
    // Fresh noise looks like a voice until its floor is known; five are decoded at most.
    assert!(counters.decodes <= 5 * 110, "{counters:?}");
    let reached = sim.ears.values().filter(|ear| ear.packets > 85).count();
    assert_eq!(reached, 100);
}

#[test]
fn two_rungs_are_two_encodings_at_their_bitrates() {
    let mut sim = Sim::new();
    sim.voice(0);
    sim.listener(8, AudioRung::Normal);
    sim.listener(9, AudioRung::Low);
    let (mut normal, mut low) = (0, 0);
    for _ in 0..200 {
        sim.run(1);
        for frame in &sim.out.frames {
            match frame.mix {
                MixId::Shared(format) if format == AudioRung::Normal.into() => {
                    normal += frame.payload.len()
                }
                MixId::Shared(_) => low += frame.payload.len(),
                MixId::Minus(..) => panic!("nobody who is heard listens"),
            }
        }
    }
    let (normal, low) = (normal as f32 * 2.0, low as f32 * 2.0);
    assert!((20_000.0..40_000.0).contains(&normal), "{normal} bit/s");
    assert!((12_000.0..25_000.0).contains(&low), "{low} bit/s");
    sim.mix.set_rung(PeerId(9), AudioRung::Normal);
    sim.run(2);
    assert_eq!(sim.out.frames.len(), 1);
}

#[test]
fn a_room_where_nobody_speaks_encodes_nothing_and_stays_alive() {
    let mut sim = Sim::new();
    let talker = sim.voice(0);
    sim.sender(1, Says::Noise(Noise::new(4, -60.0)));
    sim.listener(1, AudioRung::Normal);
    sim.run(100);
    sim.senders[talker].says = Says::Nothing;
    sim.run(150);
    let quiet = *sim.mix.counters();
    let ear = &sim.ears[&PeerId(1)];
    let (packets, silent) = (ear.packets, ear.silent_packets);
    sim.run(400);
    assert_eq!(sim.mix.counters().encodes, quiet.encodes);
    let ear = &sim.ears[&PeerId(1)];
    // Eight seconds: one sign of life every 400 ms, all of them silent.
    assert_eq!(ear.packets - packets, 20);
    assert_eq!(ear.silent_packets - silent, 20);
    assert!(rms(&ear.heard[ear.heard.len() - 48_000..]) < -70.0);
    assert!(!sim.speaking[&PeerId(0)]);
    // And back to sound, with its first packet marked.
    sim.senders[talker].says = Says::Voice(SyntheticVoice::new(5, 130.0, -20.0));
    let mut resumed = 0;
    for _ in 0..50 {
        sim.run(1);
        resumed += sim.out.frames.iter().filter(|frame| frame.resumes).count();
    }
    assert_eq!(resumed, 1);
    assert!(rms(&sim.heard(1)[sim.heard(1).len() - 24_000..]) > -35.0);
}

#[test]
fn loss_and_jitter_leave_a_voice_that_is_there_and_does_not_click() {
    let mut sim = Sim::new();
    sim.loss = 0.08;
    sim.jitter_ms = 35.0;
    sim.voice(0);
    sim.listener(9, AudioRung::Normal);
    sim.run(500);
    let counters = *sim.mix.counters();
    assert!(counters.fec > 15, "{counters:?}");
    assert!(counters.plc < 80, "{counters:?}");
    assert!(counters.dropped.late < 20, "{counters:?}");
    let mut clean = Sim::new();
    clean.voice(0);
    clean.listener(9, AudioRung::Normal);
    clean.run(500);
    let difference = (rms(sim.heard(9)) - rms(clean.heard(9))).abs();
    assert!(difference < 2.0, "{difference} dB");
    let steepest = |x: &[f32]| {
        x.windows(2)
            .map(|w| (w[1] - w[0]).abs())
            .fold(0.0, f32::max)
    };
    let (lossy, whole) = (steepest(sim.heard(9)), steepest(clean.heard(9)));
    assert!(lossy < whole * 1.6, "{lossy} against {whole}");
}

#[test]
fn senders_with_clocks_of_their_own_keep_their_delay_without_loss() {
    for ppm in [-300.0, 300.0] {
        let mut sim = Sim::new();
        let sender = sim.voice(0);
        sim.senders[sender].ppm = ppm;
        sim.listener(9, AudioRung::Normal);
        // 300 ppm of 40 seconds are 12 ms.
        sim.run(2000);
        let counters = *sim.mix.counters();
        let made_up =
            counters.plc + counters.dropped.late + counters.restarts + counters.dropped.stale;
        assert!(made_up < 12, "{ppm} ppm: {counters:?}");
        let track = sim.senders[sender].track;
        let found = sim
            .mix
            .delay(track, sim.start + sim.at())
            .expect("it plays");
        assert!(
            found.delay.abs_diff(found.target) < Duration::from_millis(20),
            "{found:?}"
        );
    }
}

#[test]
fn the_move_to_a_mix_of_ones_own_and_back_is_not_heard() {
    // Both rooms hear the same voice; in one of them the listener itself says something.
    let run = |speaks: bool| {
        let mut sim = Sim::new();
        let voice = SyntheticVoice::new(1, 110.0, -20.0);
        sim.sender(1, Says::Voice(voice));
        let own = sim.sender(2, Says::Nothing);
        sim.listener(2, AudioRung::Normal);
        sim.listener(3, AudioRung::Normal);
        sim.run(100);
        let mut mixes = Vec::new();
        for n in 0..200 {
            let talks = speaks && (20..60).contains(&n);
            sim.senders[own].says = match talks {
                true if n == 20 => Says::Voice(SyntheticVoice::new(6, 180.0, -20.0)),
                true => sim.senders[own].says.clone(),
                false => Says::Nothing,
            };
            sim.run(1);
            mixes.extend(
                sim.out
                    .routes
                    .iter()
                    .find(|r| r.0 == PeerId(2))
                    .map(|r| r.1),
            );
        }
        (sim.heard(2)[100 * 960..].to_vec(), mixes)
    };
    let (reference, shared_only) = run(false);
    let (switched, mixes) = run(true);
    let moves = mixes.windows(2).filter(|w| w[0] != w[1]).count();
    assert_eq!(
        (
            moves,
            shared_only.windows(2).filter(|w| w[0] != w[1]).count()
        ),
        (2, 0)
    );
    for (n, (a, b)) in reference.chunks(960).zip(switched.chunks(960)).enumerate() {
        let difference: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
        let (level, off) = (rms(a), rms(&difference));
        // Two encoders of one sound: their coding noises differ, the sound does not.
        assert!(
            off < (level - 3.0).max(-38.0),
            "frame {n}: {off} dB off at {level} dBFS"
        );
    }
    let steepest = |x: &[f32]| {
        x.windows(2)
            .map(|w| (w[1] - w[0]).abs())
            .fold(0.0, f32::max)
    };
    assert!(steepest(&switched) < steepest(&reference) * 1.3);
}

#[test]
fn garbage_of_any_kind_is_counted_and_harms_nobody() {
    let mut sim = Sim::new();
    sim.voice(0);
    sim.mix.add_source(TrackKey(1), PeerId(5), false);
    sim.listener(9, AudioRung::Normal);
    let mut random = Seeded::new(5);
    for n in 0..450u64 {
        for k in 0..20 {
            let len = (random.unit() * 60.0) as usize;
            let payload: Vec<u8> = (0..len).map(|_| (random.unit() * 256.0) as u8).collect();
            let arrival = sim.start + sim.at();
            let packet = AudioPacket {
                seq: if k % 2 == 0 {
                    n * 20 + k
                } else {
                    (random.unit() * 1e9) as u64
                },
                timestamp: if k % 3 == 0 {
                    n as u32 * 960
                } else {
                    (random.unit() * 4e9) as u32
                },
                arrival,
                level: (k % 5 == 0).then_some(AudioLevel {
                    dbov: 0,
                    voice: true,
                }),
                payload: payload.into(),
            };
            sim.mix.push(TrackKey(1 + k % 2), packet);
        }
        sim.run(1);
    }
    let counters = *sim.mix.counters();
    assert_eq!(counters.dropped.unknown_source, 450 * 10);
    assert!(counters.dropped.malformed > 100, "{counters:?}");
    assert!(
        counters.decodes + counters.pre_roll < 450 * 25,
        "{counters:?}"
    );
    let part = part_of(&sim.senders[0].said, sim.heard(9));
    assert!(part > 0.4, "the voice is still there: {part:?}");
}

#[test]
fn nothing_is_decoded_while_nobody_listens_and_a_muted_track_is_not_heard() {
    let mut sim = Sim::new();
    let talker = sim.voice(0);
    sim.run(50);
    assert_eq!(sim.mix.counters().decodes + sim.mix.counters().encodes, 0);
    assert_eq!(
        sim.mix.counters().dropped.unheard,
        51.min(sim.mix.counters().dropped.unheard)
    );
    sim.listener(9, AudioRung::Normal);
    sim.run(50);
    let decodes = sim.mix.counters().decodes;
    assert!(decodes > 30);
    sim.mix.set_muted(sim.senders[talker].track, true);
    sim.run(100);
    assert!(sim.mix.counters().decodes - decodes < 3);
    assert!(sim.mix.counters().dropped.muted > 90);
    assert!(rms(&sim.heard(9)[130 * 960..]) < -60.0);
    sim.mix.remove_listener(PeerId(9));
    sim.ears.clear();
    let before = *sim.mix.counters();
    sim.run(50);
    assert_eq!(sim.mix.counters().encodes, before.encodes);
    assert!(sim.out.frames.is_empty() && sim.out.routes.is_empty());
}

#[test]
fn a_sender_without_levels_is_heard_and_one_that_wakes_up_has_its_past_decoded() {
    let mut sim = Sim::new();
    let plain = sim.voice(0);
    sim.senders[plain].levels = false;
    sim.listener(9, AudioRung::Normal);
    sim.run(100);
    assert!(rms(sim.heard(9)) > -35.0);
    let mut sim = Sim::new();
    let quiet = sim.sender(1, Says::Noise(Noise::new(2, -65.0)));
    sim.listener(9, AudioRung::Normal);
    sim.run(100);
    let before = *sim.mix.counters();
    sim.senders[quiet].says = Says::Voice(SyntheticVoice::new(3, 140.0, -22.0));
    sim.run(50);
    assert_eq!(sim.mix.counters().pre_roll - before.pre_roll, 10);
    assert!(rms(&sim.heard(9)[110 * 960..]) > -35.0);
}

#[test]
fn packets_of_10_to_60_ms_in_mono_and_stereo_are_heard_alike() {
    for (samples, channels) in [(480, 1), (960, 2), (1920, 1), (2880, 2)] {
        let layout = if channels == 1 {
            opus::Channels::Mono
        } else {
            opus::Channels::Stereo
        };
        let mut encoder = opus::Encoder::new(48_000, layout, opus::Application::Voip).unwrap();
        let mut voice = SyntheticVoice::new(4, 120.0, -20.0);
        let mut said: Vec<f32> = Vec::new();
        let mut mix = AudioMix::new(AudioMixConfig::default());
        mix.add_source(TrackKey(1), PeerId(1), false);
        mix.add_listener(PeerId(2), AudioRung::Normal);
        let (mut out, start) = (AudioTick::default(), Instant::now());
        let (mut seq, mut ear) = (0u64, OpusDecoder::new().unwrap());
        let mut heard = Vec::new();
        for n in 0..200u64 {
            let mut frame = SILENCE;
            voice.next_frame(&mut frame);
            said.extend(frame.iter().flat_map(|x| std::iter::repeat_n(*x, channels)));
            while said.len() >= samples * channels {
                let payload = encoder
                    .encode_vec_float(&said[..samples * channels], 1500)
                    .unwrap();
                said.drain(..samples * channels);
                let packet = AudioPacket {
                    seq,
                    timestamp: seq as u32 * samples as u32,
                    arrival: start + Duration::from_millis(20 * n),
                    level: None,
                    payload: payload.into(),
                };
                mix.push(TrackKey(1), packet);
                seq += 1;
            }
            mix.tick(start + Duration::from_millis(20 * n + 1), &mut out);
            if let Some(frame) = out.frames.first() {
                heard.extend_from_slice(ear.decode(out.payload(frame)).unwrap());
            }
        }
        let counters = *mix.counters();
        assert!(counters.plc + counters.fec < 4, "{samples}: {counters:?}");
        assert!(
            (rms(&heard) - -21.5).abs() < 3.0,
            "{samples}: {} dBFS",
            rms(&heard)
        );
    }
}

#[test]
fn a_peer_that_leaves_while_it_speaks_no_longer_speaks() {
    let mut sim = Sim::new();
    let talker = sim.voice(0);
    sim.listener(9, AudioRung::Normal);
    sim.run(60);
    assert!(sim.speaking[&PeerId(0)]);
    sim.mix.remove_source(sim.senders[talker].track);
    sim.senders.clear();
    sim.run(2);
    assert!(!sim.speaking[&PeerId(0)]);
}

#[test]
fn any_order_of_joining_leaving_muting_and_sending_keeps_routes_and_encodes_in_order() {
    let mut random = Seeded::new(21);
    let mut voice = SyntheticVoice::new(1, 110.0, -20.0);
    let mut encoder = OpusEncoder::new(OpusSettings::default()).unwrap();
    let mut mix = AudioMix::new(AudioMixConfig::default());
    let mut out = AudioTick::default();
    let start = Instant::now();
    let mut listeners = std::collections::HashSet::new();
    let mut frame = SILENCE;
    for n in 0..800u64 {
        let pick = |random: &mut Seeded, of: f32| (random.unit() * of) as u64;
        let (peer, track) = (pick(&mut random, 6.0), pick(&mut random, 12.0));
        let rung = if random.unit() < 0.5 {
            AudioRung::Low
        } else {
            AudioRung::Normal
        };
        match pick(&mut random, 40.0) {
            0 => mix.remove_source(TrackKey(track)),
            1..=3 => mix.add_source(TrackKey(track), PeerId(track % 6), track > 9),
            4..=5 => {
                mix.add_listener(PeerId(peer), rung);
                listeners.insert(PeerId(peer));
            }
            6 => {
                mix.remove_listener(PeerId(peer));
                listeners.remove(&PeerId(peer));
            }
            7 => mix.set_muted(TrackKey(track), true),
            8 => mix.set_muted(TrackKey(track), false),
            9 => mix.set_rung(PeerId(peer), rung),
            _ => {}
        }
        voice.next_frame(&mut frame);
        let mut payload = Vec::new();
        encoder.encode(&frame, true, &mut payload).unwrap();
        let payload = Bytes::from(payload);
        for k in 0..6 {
            let packet = AudioPacket {
                seq: n,
                timestamp: n as u32 * 960,
                arrival: start + Duration::from_millis(20 * n),
                level: (k % 2 == 0).then_some(AudioLevel {
                    dbov: 20,
                    voice: true,
                }),
                payload: payload.clone(),
            };
            mix.push(TrackKey(k * 2 + n / 200 % 2), packet);
        }
        let encodes = mix.counters().encodes;
        mix.tick(start + Duration::from_millis(20 * n + 1), &mut out);
        // K + 1 for each of two rungs.
        assert!(mix.counters().encodes - encodes <= 8);
        for (at, (peer, id)) in out.routes.iter().enumerate() {
            assert!(listeners.contains(peer), "{peer} does not listen");
            assert!(out.frames.iter().any(|frame| frame.mix == *id));
            assert!(
                matches!(id, MixId::Shared(_)) || matches!(id, MixId::Minus(own, _) if own == peer)
            );
            assert!(!out.routes[at + 1..].iter().any(|(other, _)| other == peer));
        }
    }
    assert!(mix.counters().encodes > 500, "{:?}", mix.counters());
}
