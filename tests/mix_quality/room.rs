//! A room of the mixer, fed with whole recordings.

use talksy_mixer::audio::limiter::LOOK_AHEAD;
use talksy_mixer::audio::{
    FRAME_SAMPLES, Hint, MixFor, Mixer, MixerConfig, OwnerId, SourceId, SourceKind,
};

/// What came of it.
pub struct Heard {
    /// The shared mix, without the limiter's delay.
    pub shared: Vec<f32>,
    /// Per tick and source: whether it counts as speaking.
    pub speaking: Vec<Vec<bool>>,
    /// Per tick and source: whether it is in the mix.
    pub heard: Vec<Vec<bool>>,
}

/// Everybody's sound is decoded (no levels in headers): the mix of `sources` for one who says nothing.
pub fn mix(sources: &[Vec<f32>]) -> Heard {
    mix_with(MixerConfig::default(), SourceKind::Voice, sources)
}

/// The same with a configuration and a kind of source.
pub fn mix_with(config: MixerConfig, kind: SourceKind, sources: &[Vec<f32>]) -> Heard {
    let mut mixer = Mixer::new(config);
    let ids: Vec<SourceId> = (0..sources.len())
        .map(|n| mixer.add_source(OwnerId(n as u64), kind))
        .collect();
    let ticks = sources
        .iter()
        .map(|sound| sound.len() / FRAME_SAMPLES)
        .max()
        .unwrap_or(0);
    let mut result = Heard {
        shared: Vec::new(),
        speaking: Vec::new(),
        heard: Vec::new(),
    };
    for tick in 0..ticks {
        for (id, sound) in ids.iter().zip(sources) {
            let frames = sound.as_chunks::<FRAME_SAMPLES>().0;
            if let Some(frame) = frames.get(tick) {
                mixer.hint(*id, Hint::NoLevel);
                // As a jitter buffer has it: the next packet is there when the one before it is played.
                mixer.feed_ahead(*id, frame, frames.get(tick + 1));
            }
        }
        mixer.rank();
        mixer.mix();
        let shared = mixer.mixes().find(|mix| mix.whose() == MixFor::Shared);
        result
            .shared
            .extend_from_slice(shared.expect("there is always one").samples());
        result
            .speaking
            .push(ids.iter().map(|id| mixer.is_speaking(*id)).collect());
        result
            .heard
            .push(ids.iter().map(|id| mixer.is_heard(*id)).collect());
    }
    result.shared.drain(..LOOK_AHEAD);
    result.shared.resize(ticks * FRAME_SAMPLES, 0.0);
    result
}

/// The sum of several sounds of one length.
pub fn sum(sounds: &[Vec<f32>]) -> Vec<f32> {
    let mut sum = vec![0.0; sounds.iter().map(Vec::len).max().unwrap_or(0)];
    for sound in sounds {
        sum.iter_mut().zip(sound).for_each(|(s, x)| *s += x);
    }
    sum
}
