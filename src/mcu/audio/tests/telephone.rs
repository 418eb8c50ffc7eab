//! Sources that send what telephones send.

use audio_codec::Encoder;
use audio_codec::g722::G722Encoder;
use audio_codec::pcma::PcmaEncoder;
use audio_codec::pcmu::PcmuEncoder;

use super::*;
use crate::mcu::codec::telephone::TelephoneCodec;

struct Telephone {
    track: TrackKey,
    codec: TelephoneCodec,
    encoder: Box<dyn Encoder>,
    voice: SyntheticVoice,
    sent: u64,
    said: Vec<f32>,
}

impl Telephone {
    fn new(mix: &mut AudioMix, n: u64, codec: TelephoneCodec) -> Self {
        let track = TrackKey(n);
        mix.add_source(track, PeerId(n), false);
        mix.set_codec(track, SourceCodec::Telephone(codec));
        Telephone {
            track,
            codec,
            encoder: match codec {
                TelephoneCodec::Pcmu => Box::new(PcmuEncoder::new()),
                TelephoneCodec::Pcma => Box::new(PcmaEncoder::new()),
                TelephoneCodec::G722 => Box::new(G722Encoder::new()),
            },
            voice: SyntheticVoice::new(3, 120.0, -20.0),
            sent: 0,
            said: Vec::new(),
        }
    }

    /// 20 ms of voice. The RTP clock of all of them is 8 kHz, here near its end.
    fn next(&mut self, arrival: Instant) -> AudioPacket {
        let mut frame = SILENCE;
        self.voice.next_frame(&mut frame);
        self.said.extend_from_slice(&frame);
        let steps = 48_000 / self.codec.rate() as usize;
        let pcm: Vec<i16> = frame
            .chunks(steps)
            .map(|x| (x.iter().sum::<f32>() / steps as f32 * 32_767.0) as i16)
            .collect();
        let packet = AudioPacket {
            seq: self.sent,
            timestamp: (u32::MAX - 5_000).wrapping_add(self.sent as u32 * 160),
            arrival,
            level: None,
            payload: self.encoder.encode(&pcm).into(),
        };
        self.sent += 1;
        packet
    }
}

const ALL: [TelephoneCodec; 3] = [
    TelephoneCodec::Pcmu,
    TelephoneCodec::Pcma,
    TelephoneCodec::G722,
];

/// Ten seconds of a voice over a telephone: what is heard, the telephone, and the mix.
fn call(codec: TelephoneCodec, loss: f32, jitter_ms: f32) -> (Vec<f32>, Telephone, AudioMix) {
    let mut mix = AudioMix::new(AudioMixConfig::default());
    let mut telephone = Telephone::new(&mut mix, 1, codec);
    mix.add_listener(PeerId(9), AudioRung::Normal);
    let (mut out, start) = (AudioTick::default(), Instant::now());
    let (mut ear, mut heard) = (OpusDecoder::new().unwrap(), Vec::new());
    let mut random = Seeded::new(17);
    let mut network: Vec<(Duration, AudioPacket)> = Vec::new();
    for n in 0..500 {
        let now = Duration::from_millis(20 * n);
        let at = now + Duration::from_secs_f32(random.unit() * jitter_ms / 1000.0);
        let packet = telephone.next(start + at);
        if random.unit() >= loss {
            network.push((at, packet));
        }
        let due = now + Duration::from_millis(1);
        network.sort_by_key(|(at, _)| *at);
        let count = network.partition_point(|(at, _)| *at <= due);
        for (_, packet) in network.drain(..count) {
            mix.push(telephone.track, packet);
        }
        mix.tick(start + now + Duration::from_millis(2), &mut out);
        match out.frames.first() {
            Some(frame) => heard.extend_from_slice(ear.decode(out.payload(frame)).unwrap()),
            None => heard.extend_from_slice(&SILENCE),
        }
    }
    (heard, telephone, mix)
}

#[test]
fn a_telephone_is_heard_at_the_least_delay_and_without_a_hole() {
    for codec in ALL {
        let (heard, telephone, mix) = call(codec, 0.0, 0.0);
        let counters = *mix.counters();
        assert!(
            counters.plc + counters.fec + counters.undecodable < 3,
            "{codec:?}: {counters:?}"
        );
        let part = part_of(&telephone.said, &heard);
        println!("figure telephone_{codec:?}_likeness {part:.2}");
        assert!(part > 0.6, "{codec:?}: {part}");
        let late = mix.delay(telephone.track, Instant::now());
        assert!(late.is_some(), "it plays");
        assert!(
            (rms(&heard[48_000..]) + 22.0).abs() < 3.5,
            "{codec:?}: {}",
            rms(&heard[48_000..])
        );
    }
}

#[test]
fn loss_and_jitter_are_met_as_for_opus_though_there_is_no_copy_to_recover_from() {
    for codec in ALL {
        let (whole, ..) = call(codec, 0.0, 0.0);
        let (heard, telephone, mix) = call(codec, 0.05, 30.0);
        let counters = *mix.counters();
        assert_eq!(counters.fec, 0, "{codec:?}: {counters:?}");
        assert!((15..70).contains(&counters.plc), "{codec:?}: {counters:?}");
        assert!(counters.dropped.late < 15, "{codec:?}: {counters:?}");
        let difference = (rms(&heard) - rms(&whole)).abs();
        assert!(difference < 2.0, "{codec:?}: {difference} dB");
        let steepest = |x: &[f32]| {
            let steps = x.windows(2).map(|w| (w[1] - w[0]).abs());
            steps.fold(0.0, f32::max)
        };
        let (lossy, clean) = (steepest(&heard), steepest(&whole));
        assert!(lossy < clean * 1.6, "{codec:?}: {lossy} against {clean}");
        let part = part_of(&telephone.said, &heard);
        assert!(part > 0.35, "{codec:?}: {part}");
    }
}

#[test]
fn opus_and_telephones_are_in_one_mix_and_pass_their_decoders_on_to_their_kind_only() {
    let mut sim = Sim::new();
    sim.voice(0);
    let mut telephone = Telephone::new(&mut sim.mix, 50, TelephoneCodec::Pcmu);
    sim.listener(0, AudioRung::Normal);
    sim.listener(9, AudioRung::Normal);
    for n in 0..450 {
        // Both sleep in turns: what they were decoded with is free for the other.
        let muted = |from: u64| (n / 30) % 2 == from && n < 240;
        sim.mix.set_muted(sim.senders[0].track, muted(0));
        sim.mix.set_muted(telephone.track, muted(1));
        let packet = telephone.next(sim.start + sim.at());
        sim.mix.push(telephone.track, packet);
        sim.run(1);
    }
    let counters = *sim.mix.counters();
    assert_eq!(counters.undecodable, 0, "{counters:?}");
    let by_zero = part_of(&telephone.said, sim.heard(0));
    assert!(by_zero > 0.4, "the telephone: {by_zero}");
    for part in [&telephone.said, &sim.senders[0].said.clone()] {
        let part = part_of(part, sim.heard(9));
        assert!(part > 0.3, "{part}");
    }
}
