//! The room's mixer: who is heard, how loud, and by whom.

use std::collections::HashSet;

use super::frame::{Frame, SILENCE, StereoFrame};
use super::level::AudioLevel;
use super::limiter::Limiter;
use super::source::{Place, Source};
use super::wide::Wide;

/// A source of one [`Mixer`]. Goes stale when the source is removed; calls with a stale id do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SourceId {
    index: usize,
    generation: u64,
}

/// Whose source it is, and who listens: nobody hears a source of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnerId(pub u64);

/// What a source sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// A microphone: heard while a voice speaks. (A bare steady tone is no voice, and is shut out with the noise.)
    Voice,
    /// Shared sound: heard as it is, without voice gate and gain control, and before voices.
    Music,
}

/// What is known of a source in this tick before anything is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// It sent, and said how loud.
    Level(AudioLevel),
    /// It sent, and did not say how loud: only decoding tells.
    NoLevel,
    /// It sent nothing.
    Silent,
}

/// How many are heard, and how many are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MixerConfig {
    /// The most sources that are heard at once: K.
    pub top_k: usize,
    /// The most sources with level headers that are decoded at once; at least `top_k`. One more while one of them turned
    /// out not to say what its header says.
    pub max_decoded: usize,
}

impl MixerConfig {
    /// The configuration in which `top_k` are heard at once.
    pub fn hearing(top_k: usize) -> Self {
        MixerConfig {
            top_k,
            max_decoded: top_k + 1,
        }
    }
}

impl Default for MixerConfig {
    fn default() -> Self {
        Self::hearing(3)
    }
}

/// Who hears a mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MixFor {
    /// Everybody who has no source in the mix.
    Shared,
    /// One who has: everything but its own.
    Minus(OwnerId),
}

/// One mix of this tick.
pub struct Mix {
    whose: MixFor,
    limiter: Limiter,
    samples: Box<Frame>,
    silent: bool,
    in_use: bool,
    /// The same with two channels, once somebody wanted that.
    wide: Option<Box<Wide>>,
}

impl Mix {
    fn new() -> Self {
        Mix {
            whose: MixFor::Shared,
            limiter: Limiter::new(),
            samples: Box::new(SILENCE),
            silent: true,
            in_use: false,
            wide: None,
        }
    }

    /// Who hears it.
    pub fn whose(&self) -> MixFor {
        self.whose
    }

    /// The sound, [`super::limiter::LOOK_AHEAD`] samples behind what was fed.
    pub fn samples(&self) -> &Frame {
        &self.samples
    }

    /// Nothing but zeros.
    pub fn is_silent(&self) -> bool {
        self.silent
    }

    /// The same sound with two channels, left and right in turns, and whether it is nothing but zeros; `None` while
    /// nobody who hears it wants that.
    pub fn stereo(&self) -> Option<(&StereoFrame, bool)> {
        self.wide.as_ref().and_then(|wide| wide.sound())
    }
}

/// In the mix a source counts this much louder: two of about one loudness do not take turns.
const HYSTERESIS_DB: f32 = 6.0;

/// A source with levels is decoded for so many ticks now and then, whatever its levels say.
const LOOK_TICKS: u8 = 10;

/// A look begins so often, at one source after the other...
const LOOK_EVERY: u64 = 25;

/// ... and at none of them more often than every five seconds: each of N comes to its turn every N / 2 seconds, or 5.
const LOOK_AGAIN: u64 = 250;

/// Half a second: ticks that a source stays decoded after it was last worth it.
const AWAKE_TICKS: u8 = 25;

/// Mixes the sources of one room for its listeners.
///
/// Per tick of 20 ms: [`Mixer::hint`] for every source that sent, [`Mixer::rank`], then [`Mixer::feed`] for those it
/// wants, [`Mixer::mix`]; then [`Mixer::mixes`]. Selection and gains are the room's, not a listener's. The mix for
/// one who is heard is the direct sum of the others, in the order of the sources: bit for bit the sum of a room
/// without its own. At most K + 1 mixes at any time.
pub struct Mixer {
    config: MixerConfig,
    sources: Vec<Option<Source>>,
    generations: Vec<u64>,
    listeners: HashSet<OwnerId>,
    /// Those of them who want two channels.
    stereo: HashSet<OwnerId>,
    /// The shared mix, then K places for those who are heard.
    mixes: Vec<Mix>,
    ranking: Vec<(f32, usize)>,
    /// At whom is looked although its levels say silence, and for how many ticks more.
    look: (usize, u8),
    tick: u64,
}

impl Mixer {
    /// An empty room.
    pub fn new(config: MixerConfig) -> Self {
        let mut mixes: Vec<Mix> = (0..=config.top_k).map(|_| Mix::new()).collect();
        mixes[0].in_use = true;
        Mixer {
            config,
            sources: Vec::new(),
            generations: Vec::new(),
            listeners: HashSet::new(),
            stereo: HashSet::new(),
            mixes,
            ranking: Vec::new(),
            look: (0, 0),
            tick: 1,
        }
    }

    /// A new source, silent at first.
    pub fn add_source(&mut self, owner: OwnerId, kind: SourceKind) -> SourceId {
        let free = self.sources.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.sources.push(None);
            self.generations.push(0);
            self.ranking.reserve(self.sources.len());
            self.sources.len() - 1
        });
        self.generations[index] += 1;
        let mut source = Source::new(owner, kind);
        source.looked_at = self.tick;
        self.sources[index] = Some(source);
        SourceId {
            index,
            generation: self.generations[index],
        }
    }

    /// The source sends no more. If it is heard just now, its sound fades out with the next tick.
    pub fn remove_source(&mut self, id: SourceId) {
        let Some(source) = self.source_mut(id) else {
            return;
        };
        source.removed = true;
        self.generations[id.index] += 1;
        self.drop_removed();
    }

    /// One who hears the room without its own sources.
    pub fn add_listener(&mut self, owner: OwnerId) {
        self.listeners.insert(owner);
    }

    /// The listener is gone. Its sources stay.
    pub fn remove_listener(&mut self, owner: OwnerId) {
        self.listeners.remove(&owner);
        self.stereo.remove(&owner);
    }

    /// Whether a listener wants two channels. While nobody does, none are made.
    pub fn set_stereo(&mut self, owner: OwnerId, stereo: bool) {
        if stereo && self.listeners.contains(&owner) {
            self.stereo.insert(owner);
        } else {
            self.stereo.remove(&owner);
        }
    }

    /// Whether anybody wants two channels: else the second one of a source need not be decoded.
    pub fn wants_stereo(&self) -> bool {
        !self.stereo.is_empty()
    }

    /// Ends all sound at once, for a room that nobody hears: what was heard last does not sound when it is taken up
    /// again. What was learnt about the sources stays.
    pub fn hush(&mut self) {
        for source in self.sources.iter_mut().flatten() {
            source.hush();
        }
        for mix in &mut self.mixes {
            mix.in_use = mix.whose == MixFor::Shared;
            mix.limiter = Limiter::new();
            mix.silent = true;
            mix.wide = None;
        }
        self.drop_removed();
    }

    /// Says what is known of a source in this tick. A source without a hint sent nothing.
    pub fn hint(&mut self, id: SourceId, hint: Hint) {
        if let Some(source) = self.source_mut(id) {
            source.hint = hint;
        }
    }

    /// Decides which sources are to be fed in this tick ([`Mixer::is_wanted`]): those in the mix, those that send
    /// without levels, and the first of those with levels.
    pub fn rank(&mut self) {
        self.look_at_one();
        self.ranking.clear();
        for (index, source) in self.sources.iter().enumerate() {
            let Some(source) = source.as_ref().filter(|source| !source.removed) else {
                continue;
            };
            let key = match source.hint {
                _ if source.place != Place::Out => Some(f32::INFINITY),
                Hint::NoLevel => Some(f32::INFINITY),
                Hint::Level(_) if source.understated > 0 => Some(f32::INFINITY),
                _ if self.look.1 > 0 && self.look.0 == index => Some(f32::INFINITY),
                _ => source.decode_key(),
            };
            if let Some(key) = key {
                self.ranking.push((key, index));
            }
        }
        self.ranking
            .sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut most = self.config.max_decoded;
        for source in self.sources.iter_mut().flatten() {
            let decoded = std::mem::take(&mut source.decoded);
            if decoded && source.is_distrusted() {
                most = self.config.max_decoded + 1;
            }
        }
        for (n, &(key, index)) in self.ranking.iter().enumerate() {
            if key < f32::INFINITY && n >= most {
                break;
            }
            let Some(source) = &mut self.sources[index] else {
                continue;
            };
            source.decoded = true;
            source.awake = match source.decode_key() {
                Some(key) if key > -90.0 => AWAKE_TICKS,
                _ => source.awake.saturating_sub(1),
            };
        }
    }

    /// Whether the source is to be decoded and fed in this tick.
    pub fn is_wanted(&self, id: SourceId) -> bool {
        self.source(id).is_some_and(|source| source.decoded)
    }

    /// Sound of a source that was not decoded until now, from before this tick: warms its voice detector up.
    pub fn prime(&mut self, id: SourceId, frame: &Frame) {
        let tick = self.tick;
        if let Some(source) = self.source_mut(id) {
            source.prime(frame, tick);
        }
    }

    /// A source's sound in this tick.
    pub fn feed(&mut self, id: SourceId, frame: &Frame) {
        self.feed_ahead(id, frame, None);
    }

    /// The same, with the sound of the next tick where that is known already. It is only listened to: a voice is let
    /// in before its first syllable, which costs no delay.
    pub fn feed_ahead(&mut self, id: SourceId, frame: &Frame, ahead: Option<&Frame>) {
        self.feed_stereo(id, frame, None, ahead);
    }

    /// The same for a source with two channels: `mid` is half their sum, by which it is judged, and `side` half of left
    /// minus right. It sounds as wide as it is in the mixes that have two channels, and as `mid` in all others.
    pub fn feed_stereo(
        &mut self,
        id: SourceId,
        mid: &Frame,
        side: Option<&Frame>,
        ahead: Option<&Frame>,
    ) {
        let tick = self.tick;
        if let Some(source) = self.source_mut(id) {
            source.feed(mid, side, ahead, tick);
        }
    }

    /// Selects, ramps, sums and limits. Ends the tick.
    pub fn mix(&mut self) {
        for source in self.sources.iter_mut().flatten() {
            source.analyse();
            source.begin_selection();
        }
        self.select();
        self.assign_mixes();
        let (mixes, sources) = (&mut self.mixes, &self.sources);
        for mix in mixes.iter_mut().filter(|mix| mix.in_use) {
            sum(mix, sources);
        }
        for source in self.sources.iter_mut().flatten() {
            source.end_tick();
        }
        self.drop_removed();
        self.tick += 1;
    }

    /// The mixes of the last tick; the shared one comes first.
    pub fn mixes(&self) -> impl Iterator<Item = &Mix> {
        self.mixes.iter().filter(|mix| mix.in_use)
    }

    /// Which mix this listener hears.
    pub fn mix_of(&self, owner: OwnerId) -> MixFor {
        let own = MixFor::Minus(owner);
        if self.mixes().any(|mix| mix.whose == own) {
            own
        } else {
            MixFor::Shared
        }
    }

    /// Whether a voice speaks: by its sound where it is decoded, by its header level elsewhere. Never for music.
    pub fn is_speaking(&self, id: SourceId) -> bool {
        self.source(id).is_some_and(Source::is_speaking)
    }

    /// Whether a source is in the mix.
    pub fn is_heard(&self, id: SourceId) -> bool {
        self.source(id)
            .is_some_and(|source| source.place != Place::Out)
    }

    fn source(&self, id: SourceId) -> Option<&Source> {
        let current = self.generations.get(id.index) == Some(&id.generation);
        self.sources.get(id.index)?.as_ref().filter(|_| current)
    }

    fn source_mut(&mut self, id: SourceId) -> Option<&mut Source> {
        let current = self.generations.get(id.index) == Some(&id.generation);
        self.sources.get_mut(id.index)?.as_mut().filter(|_| current)
    }

    /// Gives the K places to the loudest. A place that was lost is free again when the limiters hold nothing of its
    /// sound any more: 40 ms later. So no more than K owners ever need a mix of their own.
    fn select(&mut self) {
        self.ranking.clear();
        let mut taken = 0;
        for (index, source) in self.sources.iter().enumerate() {
            let Some(source) = source else { continue };
            taken += usize::from(source.place != Place::Out);
            if source.is_eligible() {
                let held = if source.place == Place::In {
                    HYSTERESIS_DB
                } else {
                    0.0
                };
                self.ranking.push((source.score + held, index));
            }
        }
        self.ranking
            .sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        self.ranking.truncate(self.config.top_k);
        for (index, source) in self.sources.iter_mut().enumerate() {
            let Some(source) = source else { continue };
            let chosen = self.ranking.iter().any(|&(_, chosen)| chosen == index);
            match source.place {
                Place::In if !chosen => source.place = Place::Fading,
                Place::Lingering if chosen => source.place = Place::In,
                Place::Out if chosen && taken < self.config.top_k => {
                    taken += 1;
                    source.place = Place::In;
                }
                _ => {}
            }
            let target = match source.place {
                Place::In => source.wanted_gain(),
                _ => 0.0,
            };
            source.set_target(target);
        }
    }

    /// Begins and ends the mixes of those who are heard and listen.
    fn assign_mixes(&mut self) {
        let [shared, own @ ..] = self.mixes.as_mut_slice() else {
            return;
        };
        let in_mix = |owner: OwnerId| {
            let sources = self.sources.iter().flatten();
            sources
                .filter(|source| source.place != Place::Out)
                .any(|source| source.owner == owner)
        };
        for mix in own.iter_mut().filter(|mix| mix.in_use) {
            let MixFor::Minus(owner) = mix.whose else {
                continue;
            };
            mix.in_use = self.listeners.contains(&owner) && in_mix(owner);
        }
        for source in self.sources.iter().flatten() {
            let whose = MixFor::Minus(source.owner);
            if source.place == Place::Out
                || !self.listeners.contains(&source.owner)
                || own.iter().any(|mix| mix.in_use && mix.whose == whose)
            {
                continue;
            }
            if let Some(mix) = own.iter_mut().find(|mix| !mix.in_use) {
                mix.in_use = true;
                mix.whose = whose;
                // What its listener heard until now is in the shared delay line, and nothing of its own is.
                mix.limiter.clone_from(&shared.limiter);
                Wide::follow(&mut mix.wide, shared.wide.as_deref());
            }
        }
        for mix in self.mixes.iter_mut().filter(|mix| mix.in_use) {
            let wanted = match mix.whose {
                MixFor::Shared => !self.stereo.is_empty(),
                MixFor::Minus(owner) => self.stereo.contains(&owner),
            };
            Wide::set_wanted(&mut mix.wide, wanted, &mix.limiter);
        }
    }

    /// Moves on to the next source whose levels keep it from being decoded: it may speak under a header of silence.
    fn look_at_one(&mut self) {
        self.look.1 = self.look.1.saturating_sub(1);
        if !self.tick.is_multiple_of(LOOK_EVERY) {
            return;
        }
        let count = self.sources.len();
        let next = (1..=count)
            .map(|n| (self.look.0 + n) % count)
            .find(|&index| {
                let source = self.sources[index].as_ref();
                let due = |s: &Source| self.tick >= s.looked_at + LOOK_AGAIN;
                source.is_some_and(|s| !s.decoded && matches!(s.hint, Hint::Level(_)) && due(s))
            });
        if let Some(index) = next {
            self.look = (index, LOOK_TICKS);
            if let Some(source) = &mut self.sources[index] {
                source.looked_at = self.tick;
            }
        }
    }

    fn drop_removed(&mut self) {
        for source in &mut self.sources {
            if source
                .as_ref()
                .is_some_and(|s| s.removed && s.place == Place::Out)
            {
                *source = None;
            }
        }
    }
}

/// The limited sum of all that `mix` holds.
fn sum(mix: &mut Mix, sources: &[Option<Source>]) {
    mix.samples.fill(0.0);
    let mut silent = true;
    let whose = mix.whose;
    let heard = || {
        let others = sources.iter().flatten();
        others
            .filter(move |source| whose != MixFor::Minus(source.owner) && !source.ramp.is_silent())
    };
    for source in heard() {
        silent = false;
        source.ramp.mix_into(&source.frame, &mut mix.samples);
    }
    if let Some(wide) = &mut mix.wide {
        let sides = heard().filter_map(|source| Some((source.ramp, source.side()?)));
        wide.mix(&mix.samples, sides, silent);
    }
    mix.silent = silent && mix.limiter.is_empty();
    if !mix.silent {
        mix.limiter.process(&mut mix.samples);
    }
}

#[cfg(test)]
mod tests;
