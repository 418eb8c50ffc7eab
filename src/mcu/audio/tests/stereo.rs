//! Two channels, from a source's packets to a listener's.

use super::*;
use crate::mcu::codec::opus::Channels;

/// Left and right of a source, in packets of 20 ms that anybody's decoder can begin with.
struct Player {
    track: TrackKey,
    encoder: OpusEncoder,
    sent: u64,
}

impl Player {
    fn new(mix: &mut AudioMix, n: u64) -> Self {
        let settings = OpusSettings {
            stereo_bitrate: 128_000,
            ..OpusSettings::default()
        };
        mix.add_source(TrackKey(n), PeerId(n), true);
        Player {
            track: TrackKey(n),
            encoder: OpusEncoder::with_channels(settings, Channels::Stereo).unwrap(),
            sent: 0,
        }
    }

    /// Sends tones of these frequencies, left and right.
    fn play(&mut self, mix: &mut AudioMix, now: Instant, left: f32, right: f32) {
        let tone = |i: usize, hz: f32| {
            let at = (self.sent as usize * FRAME_SAMPLES + i) as f32;
            0.2 * (at * hz / 48_000.0 * std::f32::consts::TAU).sin()
        };
        let sound: Vec<f32> = (0..FRAME_SAMPLES)
            .flat_map(|i| [tone(i, left), tone(i, right)])
            .collect();
        let mut payload = Vec::new();
        self.encoder.encode(&sound, false, &mut payload).unwrap();
        let packet = AudioPacket {
            seq: self.sent,
            timestamp: self.sent as u32 * 960,
            arrival: now,
            level: None,
            payload: payload.into(),
        };
        mix.push(self.track, packet);
        self.sent += 1;
    }
}

/// One who hears its mix in two channels.
struct Ears {
    peer: PeerId,
    decoder: OpusDecoder,
    left: Vec<f32>,
    right: Vec<f32>,
}

impl Ears {
    fn new(peer: u64) -> Self {
        Ears {
            peer: PeerId(peer),
            decoder: OpusDecoder::with_channels(Channels::Stereo).unwrap(),
            left: Vec::new(),
            right: Vec::new(),
        }
    }

    fn listen(&mut self, out: &AudioTick) {
        let Some((_, mix)) = out.routes.iter().find(|(to, _)| *to == self.peer) else {
            return;
        };
        let frame = out.frames.iter().find(|frame| frame.mix == *mix).unwrap();
        let sound = self.decoder.decode(out.payload(frame)).unwrap();
        for [left, right] in sound.as_chunks::<2>().0 {
            self.left.push(*left);
            self.right.push(*right);
        }
    }
}

/// Amplitude of a sine of `hz` in half a second of sound.
fn amplitude(sound: &[f32], hz: f32) -> f32 {
    let sound = &sound[sound.len() - 24_000..];
    let (mut sine, mut cosine) = (0.0f32, 0.0f32);
    for (i, x) in sound.iter().enumerate() {
        let angle = i as f32 * hz / 48_000.0 * std::f32::consts::TAU;
        sine += x * angle.sin();
        cosine += x * angle.cos();
    }
    2.0 * (sine * sine + cosine * cosine).sqrt() / sound.len() as f32
}

#[test]
fn a_stereo_source_keeps_its_channels_for_those_who_take_two_and_is_mono_for_the_others() {
    let mut mix = AudioMix::new(AudioMixConfig::default());
    let mut player = Player::new(&mut mix, 1);
    mix.add_listener(PeerId(8), AudioRung::Normal);
    mix.add_listener(PeerId(9), AudioRung::Normal);
    mix.set_stereo(PeerId(9), true);
    let (mut mono, mut stereo) = (Ears::new(8), Ears::new(9));
    let (mut out, start) = (AudioTick::default(), Instant::now());
    // Until the delay has settled: while it shrinks, tones are a little higher.
    for n in 0..700 {
        let now = start + Duration::from_millis(20 * n);
        player.play(&mut mix, now, 440.0, 660.0);
        mix.tick(now + Duration::from_millis(1), &mut out);
        mono.listen(&out);
        stereo.listen(&out);
        assert!(
            out.frames.len() <= 2,
            "one encoding for each number of channels"
        );
    }
    let counters = *mix.counters();
    assert!(counters.decodes < 710, "one decode for both: {counters:?}");
    let [ll, lr] = [440.0, 660.0].map(|hz| amplitude(&stereo.left, hz));
    let [rl, rr] = [440.0, 660.0].map(|hz| amplitude(&stereo.right, hz));
    println!(
        "figure stereo_separation {:.1} dB",
        20.0 * (ll / rl).log10()
    );
    assert!(
        (0.17..0.23).contains(&ll) && (0.17..0.23).contains(&rr),
        "{ll} {rr}"
    );
    assert!(ll > 10.0 * rl && rr > 10.0 * lr, "{ll} {lr} {rl} {rr}");
    for hz in [440.0, 660.0] {
        let (left, right) = (amplitude(&mono.left, hz), amplitude(&mono.right, hz));
        assert!(
            (0.08..0.12).contains(&left) && (left - right).abs() < 1e-3,
            "{left} {right}"
        );
    }
}

#[test]
fn a_voice_of_one_channel_is_in_the_middle_of_a_stereo_mix() {
    let mut sim = Sim::new();
    sim.voice(0);
    sim.mix.add_listener(PeerId(9), AudioRung::Normal);
    sim.mix.set_stereo(PeerId(9), true);
    let mut ears = Ears::new(9);
    for _ in 0..200 {
        sim.run(1);
        ears.listen(&sim.out);
    }
    let difference: Vec<f32> = ears
        .left
        .iter()
        .zip(&ears.right)
        .map(|(l, r)| l - r)
        .collect();
    assert!(rms(&ears.left[48_000..]) > -30.0);
    assert!(
        rms(&difference) < rms(&ears.left) - 30.0,
        "{}",
        rms(&difference)
    );
}

#[test]
fn encodes_are_k_plus_1_for_each_rung_and_number_of_channels() {
    let mut sim = Sim::new();
    for n in 0..5 {
        sim.voice(n);
        sim.listener(n, AudioRung::Normal);
    }
    for n in 5..60 {
        let rung = [AudioRung::Normal, AudioRung::Low][n as usize % 2];
        sim.mix.add_listener(PeerId(n), rung);
        sim.mix.set_stereo(PeerId(n), n % 3 == 0);
    }
    sim.run(150);
    // Three who are heard, each once; and the shared mix for two rungs of one channel and of two.
    assert_eq!(sim.most_encodes, 3 + 4);
    let counters = *sim.mix.counters();
    assert!(counters.decodes <= 5 * 160, "{counters:?}");
    // Without anybody who takes them there are no second channels.
    for n in 5..60 {
        sim.mix.set_stereo(PeerId(n), false);
    }
    sim.most_encodes = 0;
    sim.run(50);
    assert_eq!(sim.most_encodes, 3 + 2);
}

#[test]
fn a_server_that_mixes_mono_gives_everybody_mono() {
    let mut mix = AudioMix::new(AudioMixConfig {
        stereo: false,
        ..AudioMixConfig::default()
    });
    let mut player = Player::new(&mut mix, 1);
    mix.add_listener(PeerId(9), AudioRung::Normal);
    mix.set_stereo(PeerId(9), true);
    let (mut out, start) = (AudioTick::default(), Instant::now());
    for n in 0..50 {
        let now = start + Duration::from_millis(20 * n);
        player.play(&mut mix, now, 440.0, 660.0);
        mix.tick(now + Duration::from_millis(1), &mut out);
        assert!(out.frames.iter().all(|frame| !frame.mix.format().stereo));
    }
    assert!(!out.frames.is_empty());
}

#[test]
fn the_second_channel_comes_and_goes_in_the_middle_of_the_sound_without_a_click() {
    let mut mix = AudioMix::new(AudioMixConfig::default());
    let mut player = Player::new(&mut mix, 1);
    mix.add_listener(PeerId(9), AudioRung::Normal);
    let mut ears = Ears::new(9);
    let (mut out, start) = (AudioTick::default(), Instant::now());
    for n in 0..200 {
        let now = start + Duration::from_millis(20 * n);
        // Another sound on one side only in the part that counts: the source's decoder changes under it.
        mix.set_stereo(PeerId(9), (70..130).contains(&n));
        player.play(&mut mix, now, 440.0, 440.0);
        mix.tick(now + Duration::from_millis(1), &mut out);
        ears.listen(&out);
    }
    let counters = *mix.counters();
    assert!(
        counters.pre_roll > 0 && counters.undecodable == 0,
        "{counters:?}"
    );
    assert_eq!(counters.plc, 0, "{counters:?}");
    let settled = &ears.left[60 * FRAME_SAMPLES..];
    let steepest = settled
        .windows(2)
        .map(|w| (w[1] - w[0]).abs())
        .fold(0.0, f32::max);
    let slope = 0.2 * 440.0 * std::f32::consts::TAU / 48_000.0;
    assert!(steepest < 3.0 * slope, "{steepest} of {slope}");
}
