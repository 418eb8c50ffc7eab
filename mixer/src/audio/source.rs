//! What the mixer knows about one source.

use super::agc::Agc;
use super::detector::Detector;
use super::frame::{Frame, SILENCE};
use super::gain::{Gate, Ramp};
use super::level::Dbfs;
use super::loudness::KWeighting;
use super::mixer::{Hint, OwnerId, SourceKind};

/// Its place in the mix. There are K of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Not heard.
    Out,
    /// Heard.
    In,
    /// Lost its place in this tick: its gain runs to 0 within it.
    Fading,
    /// Gain 0, but the limiters still hold its last 5 ms.
    Lingering,
}

pub(super) struct Source {
    pub owner: OwnerId,
    pub kind: SourceKind,
    pub frame: Box<Frame>,
    /// Half the difference of its channels, once it had two.
    side: Option<Box<Frame>>,
    /// `side` belongs to `frame`.
    is_wide: bool,
    pub hint: Hint,
    pub place: Place,
    pub ramp: Ramp,
    /// Goes as soon as its place is [`Place::Out`].
    pub removed: bool,
    /// In decibels: how loud it has been lately while it spoke.
    pub score: f32,
    /// Decibels that its header levels are worth less, because they turned out to be no voice.
    pub distrust: f32,
    /// Ticks that it stays decoded after it was last worth it: waking up costs a pre-roll.
    pub awake: u8,
    pub decoded: bool,
    /// Ticks for which its header levels are not believed to be silence.
    pub understated: u16,
    /// The tick in which it was last decoded whatever its levels said, or came.
    pub looked_at: u64,
    fed: bool,
    /// The frame of the next tick has been looked at already.
    looked_ahead: bool,
    heard_at: u64,
    detector: Detector,
    weighting: KWeighting,
    gate: Gate,
    agc: Agc,
}

/// What a header level is worth less where the sender itself hears no voice.
const UNVOICED_DB: f32 = 10.0;

/// What it is worth more where the source is decoded already: waking another up costs a pre-roll.
const DECODED_DB: f32 = 6.0;

/// Less distrusted than this, a header is believed without its sound.
const TRUSTED_DB: f32 = 6.0;

/// A header this far below the sound is no measure of it.
const UNDERSTATED_DB: f32 = 30.0;

/// Shared sound below this is silence.
const MUSIC_GATE: Dbfs = Dbfs(-60.0);

/// Sound that somebody shares is meant to be heard: it outranks voices.
const MUSIC_PRIORITY_DB: f32 = 20.0;

impl Source {
    const LOWEST_SCORE: f32 = -99.0;
    /// Enough to put full scale below a whisper: who shouts in its headers only is out of the ranking within three seconds.
    const MAX_DISTRUST_DB: f32 = 60.0;
    /// 20 dB a second while it is heard to say nothing.
    const DISTRUST: f32 = 0.4;
    /// 100 dB a second while it is heard to speak.
    const TRUST: f32 = 2.0;
    /// 5 dB a second while nobody listens to it: it gets another chance.
    const FORGET: f32 = 0.1;
    /// Half a minute: who spoke under a header of silence is decoded for that long whatever its headers say.
    const UNDERSTATED_TICKS: u16 = 1500;

    pub fn new(owner: OwnerId, kind: SourceKind) -> Self {
        Source {
            owner,
            kind,
            frame: Box::new(SILENCE),
            side: None,
            is_wide: false,
            hint: Hint::Silent,
            place: Place::Out,
            ramp: Ramp::default(),
            removed: false,
            score: Self::LOWEST_SCORE,
            distrust: 0.0,
            awake: 0,
            decoded: false,
            understated: 0,
            looked_at: 0,
            fed: false,
            looked_ahead: false,
            heard_at: 0,
            detector: Detector::new(),
            weighting: KWeighting::new(),
            gate: Gate::default(),
            agc: Agc::new(),
        }
    }

    /// Decoded sound of the past: warms the voice detector up.
    pub fn prime(&mut self, frame: &Frame, tick: u64) {
        self.continue_at(tick);
        if self.kind == SourceKind::Voice {
            self.detector.prime(frame);
        }
    }

    /// This tick's sound and, if it is known already, the next one's: so the gate is open before a word begins.
    pub fn feed(&mut self, frame: &Frame, side: Option<&Frame>, ahead: Option<&Frame>, tick: u64) {
        self.frame.copy_from_slice(frame);
        self.take_side(side);
        self.fed = true;
        self.continue_at(tick);
        if Dbfs::of(frame) == Dbfs::SILENCE {
            // Covers samples that are not finite: they must not reach a sum.
            self.frame.fill(0.0);
        }
        if !std::mem::take(&mut self.looked_ahead) {
            self.observe(frame);
        }
        if let Some(ahead) = ahead {
            self.observe(ahead);
            self.looked_ahead = true;
        }
    }

    /// What tells the channels apart comes in over a frame where there was nothing of it before: a jump would click.
    fn take_side(&mut self, side: Option<&Frame>) {
        let side = side.filter(|side| Dbfs::of(&side[..]) != Dbfs::SILENCE);
        let was_wide = std::mem::replace(&mut self.is_wide, side.is_some());
        let Some(side) = side else { return };
        let own = self.side.get_or_insert_with(|| Box::new(SILENCE));
        own.fill(0.0);
        Ramp {
            from: if was_wide { 1.0 } else { 0.0 },
            to: 1.0,
        }
        .mix_into(side, own);
    }

    /// Half the difference of its channels in this tick; `None`: it sits in the middle.
    pub fn side(&self) -> Option<&Frame> {
        self.side.as_deref().filter(|_| self.is_wide)
    }

    /// The detector starts anew where its sound does not continue.
    fn continue_at(&mut self, tick: u64) {
        if tick > self.heard_at + 1 {
            self.detector.reset();
            self.weighting.reset();
            self.looked_ahead = false;
        }
        self.heard_at = tick;
    }

    pub fn is_speaking(&self) -> bool {
        self.kind == SourceKind::Voice && self.gate.is_open()
    }

    /// The order in which sources with levels are decoded; `None`: not worth it.
    pub fn decode_key(&self) -> Option<f32> {
        let Hint::Level(level) = self.hint else {
            return (self.awake > 0).then_some(Self::LOWEST_SCORE);
        };
        if !self.may_be_sound(level.dbfs()) && !self.gate.is_open() {
            return (self.awake > 0).then_some(Self::LOWEST_SCORE);
        }
        let loudness = level.dbfs().0.max(self.score - self.priority());
        let unvoiced = if level.voice { 0.0 } else { UNVOICED_DB };
        let decoded = if self.decoded { DECODED_DB } else { 0.0 };
        Some(loudness + self.priority() + decoded - unvoiced - self.distrust)
    }

    /// Its headers have turned out to be no measure of its voice.
    pub fn is_distrusted(&self) -> bool {
        self.distrust >= TRUSTED_DB
    }

    fn may_be_sound(&self, level: Dbfs) -> bool {
        match self.kind {
            SourceKind::Voice => self.detector.stands_out(level),
            SourceKind::Music => level > MUSIC_GATE,
        }
    }

    fn priority(&self) -> f32 {
        match self.kind {
            SourceKind::Voice => 0.0,
            SourceKind::Music => MUSIC_PRIORITY_DB,
        }
    }

    /// Takes in what the header said where there is no sound.
    pub fn analyse(&mut self) {
        self.understated = self.understated.saturating_sub(1);
        match (self.fed, self.hint) {
            (true, _) => {}
            (false, Hint::Level(level)) => {
                self.distrust = (self.distrust - Self::FORGET).max(0.0);
                let level = level.dbfs();
                let speech =
                    !self.is_distrusted() && self.hint_is_voice() && self.may_be_sound(level);
                self.detector.note_level(level, !self.gate.is_open());
                self.judge(level, speech, false);
            }
            (false, _) => self.judge(Dbfs::SILENCE, false, false),
        }
    }

    fn hint_is_voice(&self) -> bool {
        matches!(self.hint, Hint::Level(level) if level.voice)
    }

    /// Takes in one frame of sound, this tick's or the one after it.
    fn observe(&mut self, frame: &Frame) {
        if self.kind == SourceKind::Music {
            let level = Dbfs::of(frame);
            return self.judge(level, level > MUSIC_GATE, false);
        }
        let open = self.gate.is_open();
        let verdict = self.detector.observe(frame, open, self.gate.is_confirmed());
        let claims =
            matches!(self.hint, Hint::Level(level) if self.detector.stands_out(level.dbfs()));
        if verdict.speech {
            self.distrust = (self.distrust - Self::TRUST).max(0.0);
            let silence = matches!(self.hint, Hint::Level(level) if level.dbfs().0 < verdict.level.0 - UNDERSTATED_DB);
            if silence && self.gate.is_confirmed() {
                self.understated = Self::UNDERSTATED_TICKS;
            }
        } else if verdict.stands_out || claims {
            self.distrust = (self.distrust + Self::DISTRUST).min(Self::MAX_DISTRUST_DB);
        }
        if open || verdict.speech {
            let power = self.weighting.power(frame);
            if verdict.certain {
                self.agc.update(power);
            }
        }
        self.judge(verdict.level, verdict.speech, verdict.doubtful);
    }

    fn judge(&mut self, level: Dbfs, sound: bool, doubtful: bool) {
        self.gate.update(sound, doubtful);
        let level = level.0 + self.priority();
        let target = if self.gate.is_open() {
            level.max(self.score - 1.0)
        } else {
            self.score - 1.5
        };
        self.score = if target > self.score {
            self.score + (target - self.score) * 0.5
        } else {
            target.max(Self::LOWEST_SCORE)
        };
    }

    /// May have a place in the mix.
    pub fn is_eligible(&self) -> bool {
        self.fed && !self.removed && self.gate.weight() > 0.0
    }

    /// The gain at this tick's end, were it in the mix.
    pub fn wanted_gain(&self) -> f32 {
        match self.kind {
            SourceKind::Voice => self.gate.weight() * self.agc.gain(),
            SourceKind::Music => self.gate.weight(),
        }
    }

    /// Moves the gain to `target` over this tick.
    ///
    /// Sound that ends without a warning would click: its last frame is played backwards instead, which continues it
    /// without a jump, while the gain runs out.
    pub fn set_target(&mut self, target: f32) {
        if !self.fed && self.ramp.to > 0.0 {
            self.frame.reverse();
            if let Some(side) = self.side.as_mut().filter(|_| self.is_wide) {
                side.reverse();
            }
        }
        self.ramp = self.ramp.next(target);
    }

    /// What the tick before left over.
    pub fn begin_selection(&mut self) {
        self.place = match self.place {
            Place::Fading => Place::Lingering,
            Place::Lingering => Place::Out,
            place => place,
        };
    }

    pub fn hush(&mut self) {
        self.place = Place::Out;
        self.ramp = Ramp::default();
        self.gate = Gate::default();
        self.awake = 0;
        self.end_tick();
    }

    pub fn end_tick(&mut self) {
        self.fed = false;
        self.hint = Hint::Silent;
    }
}
