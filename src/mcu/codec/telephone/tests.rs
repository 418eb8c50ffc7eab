use audio_codec::Encoder;
use audio_codec::g722::G722Encoder;
use audio_codec::pcma::PcmaEncoder;
use audio_codec::pcmu::PcmuEncoder;
use talksy_mixer::audio::level::Dbfs;
use talksy_mixer::audio::voice::{Seeded, SyntheticVoice};

use super::*;

/// 200 ms of a tone of 1 kHz, by the encoder of FFmpeg.
const FOREIGN: &[u8; 1600] = include_bytes!("tone_1khz.g722");

const ALL: [TelephoneCodec; 3] = [
    TelephoneCodec::Pcmu,
    TelephoneCodec::Pcma,
    TelephoneCodec::G722,
];

/// `seconds` of a sine at the codec's rate.
fn sine(codec: TelephoneCodec, hz: f32, seconds: f32) -> Vec<i16> {
    let rate = codec.rate() as f32;
    let angle = |i: usize| i as f32 * hz / rate * std::f32::consts::TAU;
    (0..(rate * seconds) as usize)
        .map(|i| (angle(i).sin() * 10_000.0) as i16)
        .collect()
}

/// In packets of 20 ms.
fn encoded(codec: TelephoneCodec, sound: &[i16]) -> Vec<Vec<u8>> {
    let mut encoder: Box<dyn Encoder> = match codec {
        TelephoneCodec::Pcmu => Box::new(PcmuEncoder::new()),
        TelephoneCodec::Pcma => Box::new(PcmaEncoder::new()),
        TelephoneCodec::G722 => Box::new(G722Encoder::new()),
    };
    sound
        .chunks_exact(codec.rate() as usize / 50)
        .map(|frame| encoder.encode(frame))
        .collect()
}

/// Decibels of the sine of `hz` over everything else.
fn sine_to_rest(sound: &[f32], hz: f32) -> f64 {
    let angle = |i: usize| i as f64 * f64::from(hz) / 48_000.0 * std::f64::consts::TAU;
    let part = |f: fn(f64) -> f64| {
        let dot: f64 = sound
            .iter()
            .enumerate()
            .map(|(i, x)| f(angle(i)) * f64::from(*x))
            .sum();
        2.0 * dot / sound.len() as f64
    };
    let (sine, cosine) = (part(f64::sin), part(f64::cos));
    let rest: f64 = (0..sound.len())
        .map(|i| sine * angle(i).sin() + cosine * angle(i).cos() - f64::from(sound[i]))
        .map(|e| e * e)
        .sum();
    10.0 * ((sine * sine + cosine * cosine) / 2.0 * sound.len() as f64 / rest).log10()
}

#[test]
fn a_tone_of_each_codec_comes_out_at_48_khz_and_at_its_level() {
    for codec in ALL {
        let packets = encoded(codec, &sine(codec, 440.0, 2.0));
        let mut decoder = TelephoneDecoder::new(codec).unwrap();
        let mut heard = Vec::new();
        for packet in &packets {
            assert_eq!(packet_samples(packet), Some(FRAME_SAMPLES), "{codec:?}");
            heard.extend_from_slice(decoder.decode(packet).unwrap());
        }
        assert_eq!(heard.len(), packets.len() * FRAME_SAMPLES);
        let heard = &heard[48_000..96_000];
        let snr = sine_to_rest(heard, 440.0);
        println!("figure telephone_{codec:?}_snr {snr:.1} dB");
        assert!(snr > 30.0, "{codec:?}: {snr:.1} dB");
        // 10 000 of 32 768, as a sine.
        assert!((Dbfs::of(heard).0 + 13.3).abs() < 0.3, "{codec:?}");
    }
}

#[test]
fn g722_understands_another_encoder() {
    let mut decoder = TelephoneDecoder::new(TelephoneCodec::G722).unwrap();
    let mut heard = Vec::new();
    for packet in FOREIGN.chunks_exact(160) {
        heard.extend_from_slice(decoder.decode(packet).unwrap());
    }
    let snr = sine_to_rest(&heard[4_800..9_600], 1000.0);
    assert!(snr > 25.0, "{snr:.1} dB");
}

#[test]
fn packets_of_any_length_come_out_whole() {
    for codec in ALL {
        let bytes: Vec<u8> = encoded(codec, &sine(codec, 300.0, 1.0)).concat();
        let (mut decoder, mut heard) = (TelephoneDecoder::new(codec).unwrap(), 0);
        for (n, packet) in [80, 160, 240, 480, 960, 7, 1]
            .iter()
            .cycle()
            .take(40)
            .enumerate()
        {
            let begin = n * 97 % 1000;
            heard += decoder.decode(&bytes[begin..begin + packet]).unwrap().len();
        }
        let given: usize = [80, 160, 240, 480, 960, 7, 1].iter().cycle().take(40).sum();
        let due = given * SAMPLES_PER_TICK as usize;
        assert!(
            due - heard < FRAME_SAMPLES && heard % FRAME_SAMPLES == 0,
            "{heard} of {due}"
        );
    }
    let mut decoder = TelephoneDecoder::new(TelephoneCodec::Pcmu).unwrap();
    assert_eq!(decoder.decode(&[]).err(), Some(WrongPacket));
    assert_eq!(decoder.decode(&[0; MAX_BYTES + 1]).err(), Some(WrongPacket));
}

#[test]
fn garbage_gives_finite_samples_within_full_scale() {
    let mut random = Seeded::new(3);
    for codec in ALL {
        let mut decoder = TelephoneDecoder::new(codec).unwrap();
        for _ in 0..500 {
            let len = 1 + (random.unit() * 959.0) as usize;
            let packet: Vec<u8> = (0..len).map(|_| (random.unit() * 256.0) as u8).collect();
            let heard = decoder.decode(&packet).unwrap();
            assert!(heard.iter().all(|x| x.abs() < 2.5), "{codec:?}");
        }
    }
}

/// A voice at the codec's rate.
fn voice(codec: TelephoneCodec) -> Vec<i16> {
    let (mut voice, mut sound) = (SyntheticVoice::new(5, 120.0, -18.0), Vec::new());
    let mut frame = SILENCE;
    for _ in 0..100 {
        voice.next_frame(&mut frame);
        let steps = 48_000 / codec.rate() as usize;
        sound.extend(frame.chunks(steps).map(|x| {
            let mean = x.iter().sum::<f32>() / steps as f32;
            (mean * 32_000.0).clamp(-32_000.0, 32_000.0) as i16
        }));
    }
    sound
}

#[test]
fn lost_packets_are_filled_with_the_voice_that_was_there_and_without_clicks() {
    for codec in ALL {
        let packets = encoded(codec, &voice(codec));
        let play = |lost: &dyn Fn(usize) -> bool| {
            let mut decoder = TelephoneDecoder::new(codec).unwrap();
            let mut heard = Vec::new();
            for (n, packet) in packets.iter().enumerate() {
                if lost(n) {
                    heard.extend_from_slice(decoder.conceal(FRAME_SAMPLES));
                } else {
                    heard.extend_from_slice(decoder.decode(packet).unwrap());
                }
            }
            heard
        };
        let steepest = |x: &[f32]| {
            let steps = x.windows(2).map(|w| (w[1] - w[0]).abs());
            steps.fold(0.0, f32::max)
        };
        let (whole, holed) = (play(&|_| false), play(&|n| n > 10 && n % 10 == 3));
        assert_eq!(whole.len(), holed.len());
        assert!(
            steepest(&holed) < steepest(&whole) * 1.3,
            "{codec:?}: {} against {}",
            steepest(&holed),
            steepest(&whole)
        );
        let (mut filled, mut there) = (0.0f32, 0.0f32);
        for n in (20..100).filter(|n| n % 10 == 3) {
            let hole = n * FRAME_SAMPLES..(n + 1) * FRAME_SAMPLES;
            filled += holed[hole.clone()].iter().map(|x| x * x).sum::<f32>();
            there += whole[hole].iter().map(|x| x * x).sum::<f32>();
        }
        let level = 10.0 * (filled / there).log10();
        println!("figure telephone_{codec:?}_filled {level:.1} dB of the lost sound's level");
        assert!((-6.0..3.0).contains(&level), "{codec:?}: {level}");
        // A long hole ends in silence.
        let ended = play(&|n| n >= 50);
        assert!(
            Dbfs::of(&ended[60 * FRAME_SAMPLES..]).0 < -70.0,
            "{codec:?}"
        );
    }
}

#[test]
fn a_decoder_that_is_reset_is_as_new() {
    for codec in ALL {
        let packets = encoded(codec, &voice(codec));
        let mut used = TelephoneDecoder::new(codec).unwrap();
        for packet in &packets[..30] {
            used.decode(&packet[..packet.len() - 5]).unwrap();
        }
        used.conceal(FRAME_SAMPLES);
        used.reset();
        let mut new = TelephoneDecoder::new(codec).unwrap();
        for packet in &packets {
            assert_eq!(used.decode(packet).unwrap(), new.decode(packet).unwrap());
        }
    }
}
