//! Sources of other rates at the mixer's entrance.

use super::*;
use crate::audio::rate::RateConverter;

/// A tone of its own rate, converted to frames of the mixer's.
struct Tone {
    rate: u32,
    hz: f32,
    at: usize,
    converter: RateConverter,
    id: SourceId,
}

impl Tone {
    fn new(mixer: &mut Mixer, rate: u32, hz: f32) -> Self {
        Tone {
            rate,
            hz,
            at: 0,
            converter: RateConverter::new(rate).unwrap(),
            id: mixer.add_source(OwnerId(u64::from(rate)), SourceKind::Music),
        }
    }

    fn play(&mut self, mixer: &mut Mixer) {
        let samples = self.at..self.at + self.converter.needed();
        self.at = samples.end;
        let step = f64::from(self.hz) / f64::from(self.rate) * std::f64::consts::TAU;
        let sound: Vec<f32> = samples
            .map(|i| (i as f64 * step).sin() as f32 * 0.2)
            .collect();
        let mut frame = SILENCE;
        self.converter.process(&sound, &mut frame).unwrap();
        mixer.hint(self.id, Hint::NoLevel);
        mixer.feed(self.id, &frame);
    }
}

fn amplitude(sound: &[f32], hz: f32) -> f32 {
    let (mut sine, mut cosine) = (0.0f32, 0.0f32);
    for (i, x) in sound.iter().enumerate() {
        let angle = i as f32 * hz / 48_000.0 * std::f32::consts::TAU;
        sine += x * angle.sin();
        cosine += x * angle.cos();
    }
    2.0 * (sine * sine + cosine * cosine).sqrt() / sound.len() as f32
}

#[test]
fn tones_of_8_16_24_and_44_1_khz_are_in_one_mix_at_their_levels_and_pitches() {
    let mut mixer = Mixer::new(MixerConfig::hearing(4));
    let rates = [
        (8_000, 500.0),
        (16_000, 900.0),
        (24_000, 1300.0),
        (44_100, 1700.0),
    ];
    let mut tones = rates.map(|(rate, hz)| Tone::new(&mut mixer, rate, hz));
    let mut heard = Vec::new();
    for _ in 0..150 {
        tones.iter_mut().for_each(|tone| tone.play(&mut mixer));
        mixer.rank();
        mixer.mix();
        heard.extend_from_slice(shared(&mixer).samples());
    }
    let heard = &heard[heard.len() - 96_000..];
    for (rate, hz) in rates {
        let level = amplitude(heard, hz);
        assert!((level - 0.2).abs() < 0.004, "{rate} Hz: {level}");
    }
    let power = heard.iter().map(|x| x * x).sum::<f32>() / heard.len() as f32;
    assert!(
        (power - 4.0 * 0.02).abs() < 0.002,
        "and nothing else: {power}"
    );
}
