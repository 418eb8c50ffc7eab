//! What goes out: settings by rung, silence, and the way back to sound.

use super::*;

/// The encodings of one rung, as a receiver gets them: packets with their numbers.
fn packets(config: AudioMixConfig, rung: AudioRung) -> Vec<Vec<u8>> {
    let mut sim = Sim::with(config);
    sim.voice(0);
    sim.mix.add_listener(PeerId(9), rung);
    let mut packets = Vec::new();
    for _ in 0..300 {
        sim.run(1);
        let frames = sim.out.frames.iter().filter(|frame| !frame.silent);
        packets.extend(frames.map(|frame| sim.out.payload(frame).to_vec()));
    }
    packets
}

/// How much nearer a lost packet comes to the truth from its successor than made up: below 1 where packets carry copies.
fn worth_of_copies(packets: &[Vec<u8>]) -> f32 {
    let mut reference = OpusDecoder::new().unwrap();
    let whole: Vec<Vec<f32>> = packets
        .iter()
        .map(|packet| reference.decode(packet).unwrap().to_vec())
        .collect();
    let error = |with_copies: bool| -> f32 {
        let (mut decoder, mut error) = (OpusDecoder::new().unwrap(), 0.0);
        for (n, packet) in packets.iter().enumerate() {
            let lost = n % 7 == 6 && n + 1 < packets.len();
            let sound = match (lost, with_copies) {
                (false, _) => decoder.decode(packet),
                (true, true) => decoder.recover(&packets[n + 1], 960),
                (true, false) => decoder.conceal(960),
            };
            let pairs = sound.unwrap().iter().zip(&whole[n]);
            let off: f32 = pairs.map(|(a, b)| (a - b).powi(2)).sum();
            error += if lost { off } else { 0.0 };
        }
        error
    };
    error(true) / error(false)
}

#[test]
fn each_rung_has_its_own_bitrate_redundancy_and_complexity() {
    let config = AudioMixConfig {
        opus: OpusSettings {
            bitrate: 40_000,
            expected_loss: 20,
            complexity: 10,
            ..OpusSettings::default()
        },
        low: OpusSettings {
            bitrate: 16_000,
            fec: false,
            complexity: 0,
            ..OpusSettings::default()
        },
        ..AudioMixConfig::default()
    };
    let rate = |packets: &[Vec<u8>]| {
        let bytes: usize = packets.iter().map(Vec::len).sum();
        bytes as f32 * 8.0 * 50.0 / packets.len() as f32
    };
    let normal = packets(config, AudioRung::Normal);
    let low = packets(config, AudioRung::Low);
    let (normal_rate, low_rate) = (rate(&normal), rate(&low));
    assert!((28_000.0..48_000.0).contains(&normal_rate), "{normal_rate}");
    assert!((10_000.0..20_000.0).contains(&low_rate), "{low_rate}");
    let (with, without) = (worth_of_copies(&normal), worth_of_copies(&low));
    assert!(with < 0.7, "copies are there: {with}");
    assert!(without > 0.9, "there are none: {without}");
    let simple = AudioMixConfig {
        opus: OpusSettings {
            complexity: 0,
            ..config.opus
        },
        ..config
    };
    assert!(
        packets(simple, AudioRung::Normal) != normal,
        "the complexity counts"
    );
}

#[test]
fn without_dtx_silence_is_a_packet_in_every_tick_and_still_no_encode() {
    let config = AudioMixConfig {
        low: OpusSettings {
            dtx: false,
            ..AudioMixConfig::default().low
        },
        ..AudioMixConfig::default()
    };
    let mut sim = Sim::with(config);
    let talker = sim.voice(0);
    sim.listener(8, AudioRung::Normal);
    sim.listener(9, AudioRung::Low);
    sim.run(100);
    sim.senders[talker].says = Says::Nothing;
    sim.run(150);
    let encodes = sim.mix.counters().encodes;
    let packets = |sim: &Sim, n: u64| sim.ears[&PeerId(n)].packets;
    let before = [8, 9].map(|n| packets(&sim, n));
    sim.run(200);
    assert_eq!(sim.mix.counters().encodes, encodes);
    assert_eq!(
        packets(&sim, 8) - before[0],
        10,
        "a sign of life every 400 ms"
    );
    assert_eq!(packets(&sim, 9) - before[1], 200);
    assert!(rms(&sim.heard(9)[sim.heard(9).len() - 48_000..]) < -60.0);
}

/// A receiver as browsers have them: where nothing comes, and nothing is lost, its decoder goes on by itself.
#[test]
fn a_pause_is_quiet_at_the_receiver_which_neither_runs_dry_nor_clicks() {
    let mut sim = Sim::new();
    let talker = sim.voice(0);
    sim.mix.add_listener(PeerId(9), AudioRung::Normal);
    let mut decoder = OpusDecoder::new().unwrap();
    let mut heard: Vec<f32> = Vec::new();
    let mut sent = Vec::new();
    for n in 0..500u64 {
        match n {
            150 => sim.senders[talker].says = Says::Noise(Noise::new(4, -55.0)),
            400 => sim.senders[talker].says = Says::Voice(SyntheticVoice::new(6, 120.0, -20.0)),
            _ => {}
        }
        sim.run(1);
        let sound = match sim.out.frames.first() {
            Some(frame) => decoder.decode(sim.out.payload(frame)).unwrap(),
            None => decoder.conceal(FRAME_SAMPLES).unwrap(),
        };
        sent.push(sim.out.frames.len());
        assert_eq!(sound.len(), FRAME_SAMPLES, "it never runs dry");
        heard.extend_from_slice(sound);
    }
    let pause = 260 * FRAME_SAMPLES..395 * FRAME_SAMPLES;
    let packets: usize = sent[260..395].iter().sum();
    assert!(
        (6..9).contains(&packets),
        "{packets} packets in 2.7 s of silence"
    );
    let levels: Vec<f32> = heard[pause.clone()].chunks(4800).map(rms).collect();
    let loudest = levels.iter().copied().fold(f32::MIN, f32::max);
    println!(
        "figure pause_level {:.1} dBFS, loudest 100 ms {loudest:.1} dBFS",
        rms(&heard[pause.clone()])
    );
    let faintest = levels.iter().copied().fold(f32::MAX, f32::min);
    assert!(
        (-85.0..-60.0).contains(&faintest) && (-80.0..-60.0).contains(&loudest),
        "a pause that does not sound like a dropped call: {levels:?}"
    );
    let steepest = |x: &[f32]| {
        let steps = x.windows(2).map(|w| (w[1] - w[0]).abs());
        steps.fold(0.0, f32::max)
    };
    let speech = steepest(&heard[50 * FRAME_SAMPLES..150 * FRAME_SAMPLES]);
    // From the last word into the pause and out of it again.
    let ends = steepest(&heard[150 * FRAME_SAMPLES..398 * FRAME_SAMPLES]);
    assert!(ends < speech, "{ends} against {speech}");
    let silent = steepest(&heard[pause]);
    // What is left are the steps of the comfort noise itself.
    assert!(silent < 0.03 * speech, "{silent} against {speech}");
    assert!(
        rms(&heard[430 * FRAME_SAMPLES..]) > -35.0,
        "and it is there again"
    );
}

/// The delay of a jittery source shrinks again when the jitter ends, by leaving pieces out, and nobody hears where.
#[test]
fn a_delay_that_is_not_needed_any_more_shrinks_without_a_click() {
    let mut sim = Sim::new();
    let sender = sim.voice(0);
    sim.listener(9, AudioRung::Normal);
    sim.jitter_ms = 120.0;
    sim.run(300);
    let track = sim.senders[sender].track;
    let delay = |sim: &Sim| {
        sim.mix
            .delay(track, sim.start + sim.at())
            .expect("it plays")
    };
    let before = delay(&sim);
    assert!(before.delay > Duration::from_millis(90), "{before:?}");
    sim.jitter_ms = 0.0;
    sim.run(350);
    let after = delay(&sim);
    assert!(
        after.delay < Duration::from_millis(60),
        "{before:?} to {after:?}"
    );
    let counters = *sim.mix.counters();
    assert!(counters.shortened > 960, "{counters:?}");
    assert_eq!(counters.restarts, 0, "{counters:?}");
    let mut clean = Sim::new();
    clean.voice(0);
    clean.listener(9, AudioRung::Normal);
    clean.run(650);
    let steepest = |x: &[f32]| {
        let steps = x.windows(2).map(|w| (w[1] - w[0]).abs());
        steps.fold(0.0, f32::max)
    };
    let (shrunk, whole) = (
        steepest(&sim.heard(9)[310 * 960..]),
        steepest(clean.heard(9)),
    );
    assert!(shrunk < whole * 1.3, "{shrunk} against {whole}");
}

#[test]
fn three_speakers_and_a_hundred_listeners_are_four_encodes_a_tick() {
    let mut sim = Sim::new();
    for n in 0..3 {
        sim.voice(n);
    }
    for n in 0..100 {
        sim.listener(n, AudioRung::Normal);
    }
    sim.run(50);
    let settled = *sim.mix.counters();
    let mut spoken = 0;
    for _ in 0..100 {
        let before = sim.mix.counters().encodes;
        sim.run(1);
        let encodes = sim.mix.counters().encodes - before;
        assert_eq!(encodes, sim.out.frames.len() as u64);
        assert!(encodes <= 4, "{encodes} encodes");
        assert_eq!(sim.out.routes.len(), 100);
        spoken += u32::from(encodes == 4);
    }
    assert!(spoken > 50, "{spoken} of 100 ticks with all three");
    let decodes = sim.mix.counters().decodes - settled.decodes;
    assert!((290..=310).contains(&decodes), "{decodes} decodes");
}

#[test]
fn who_talks_is_encoded_for_by_what_their_link_loses() {
    let mut sim = Sim::new();
    for n in 0..2 {
        sim.voice(n);
        sim.mix.add_listener(PeerId(n), AudioRung::Normal);
    }
    sim.mix.add_listener(PeerId(9), AudioRung::Normal);
    let packets_for = |sim: &mut Sim, mix: MixId| {
        let mut packets = Vec::new();
        for _ in 0..400 {
            sim.run(1);
            let talks = sim.speaking.get(&PeerId(0)) == Some(&true);
            let frames = sim.out.frames.iter();
            let frame = frames.filter(|frame| talks && frame.mix == mix && !frame.silent);
            packets.extend(frame.map(|frame| sim.out.payload(frame).to_vec()));
        }
        packets
    };
    // RFC 6716, section 3.1: configurations from 16 on are CELT's.
    let by_celt = |packets: &[Vec<u8>]| {
        let count = packets.iter().filter(|packet| packet[0] >> 3 >= 16).count();
        count as f32 / packets.len() as f32
    };
    let minus = MixId::Minus(PeerId(0), AudioRung::Normal.into());
    packets_for(&mut sim, minus);
    let clean = packets_for(&mut sim, minus);
    assert!(clean.len() > 100, "{}", clean.len());
    assert!(by_celt(&clean) > 0.9, "{}", by_celt(&clean));
    sim.mix.set_lossy(PeerId(0), true);
    let lossy = packets_for(&mut sim, minus);
    assert!(lossy.len() > 100, "{}", lossy.len());
    assert!(by_celt(&lossy) < 0.1, "{}", by_celt(&lossy));
    let shared = packets_for(&mut sim, MixId::Shared(AudioRung::Normal.into()));
    assert_eq!(by_celt(&shared), 0.0, "those who only listen");
}
