//! Speech or not, frame by frame: a neural detector, the noise floor, and how a sound is spread in time.

use super::frame::{FRAME_SAMPLES, Frame, mean_square};
use super::level::{Dbfs, NoiseFloor};
use super::vad::Vad;

/// Pieces of 5 ms.
const PIECE: usize = 240;

/// Pieces that the spread is told from: this frame and the one before.
const PIECES: usize = 2 * FRAME_SAMPLES / PIECE;

/// What is thought of a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// Its level.
    pub level: Dbfs,
    /// Loud enough over the noise to be somebody.
    pub stands_out: bool,
    /// It holds speech.
    pub speech: bool,
    /// What it holds may as well be a click: worth less than other speech, until more follows.
    pub doubtful: bool,
    /// It holds speech without a doubt: fit to judge a talker's loudness by.
    pub certain: bool,
}

/// The speech detector of one source.
///
/// A frame opens where the neural detector finds voice, the level is over the noise floor by more than the noise
/// swings, and the energy is spread over the last 40 ms: a key that is struck has nearly all of it in 10 ms, and
/// the neural detector alone takes typing for speech for 80 % of the time.
pub struct Detector {
    vad: Vad,
    floor: NoiseFloor,
    pieces: [f32; PIECES],
    /// Frames in a row that were let in on half a suspicion.
    suspected: u8,
    /// Frames for which suspicions are worth nothing, because one was wrong.
    doubt: u8,
}

impl Detector {
    /// More of the energy than this in two pieces of eight is a click.
    const CLICK: f32 = 0.66;
    /// More than this may be one.
    const MAY_CLICK: f32 = 0.6;
    /// The same while somebody speaks for certain: plosives click too.
    const CLICK_IN_SPEECH: f32 = 0.85;
    /// Who begins has to stand out from the noise by this much more than who goes on.
    const BEGINNING: f32 = 1.12;
    /// The neural detector takes some 40 ms to be sure of a beginning: this far over the floor, and this evenly spread,
    /// half a suspicion is enough.
    const LOUD_DB: f32 = 10.0;
    const EVEN: f32 = 0.55;
    const SUSPICION: f32 = 0.3;
    /// A suspicion that is no certainty after 60 ms was wrong, ...
    const SUSPECT_FRAMES: u8 = 3;
    /// ... and for four seconds there is no other.
    const DOUBT_FRAMES: u8 = 200;
    /// Below this over the floor the neural detector need not look.
    const NOTHING_DB: f32 = 3.0;

    /// A detector that has heard nothing.
    pub fn new() -> Self {
        Detector {
            vad: Vad::new(),
            floor: NoiseFloor::new(),
            pieces: [0.0; PIECES],
            suspected: 0,
            doubt: 0,
        }
    }

    /// Looks at the next 20 ms. `open`: somebody was speaking until now; `confirmed`: and it was no click.
    pub fn observe(&mut self, frame: &Frame, open: bool, confirmed: bool) -> Verdict {
        self.pieces.copy_within(PIECES / 2.., 0);
        for (power, piece) in self.pieces[PIECES / 2..]
            .iter_mut()
            .zip(frame.chunks_exact(PIECE))
        {
            *power = mean_square(piece);
        }
        let level =
            Dbfs::of_power(self.pieces[PIECES / 2..].iter().sum::<f32>() / (PIECES / 2) as f32);
        self.floor.update(level, !open);
        let (above, margin) = (self.floor.above(level), self.floor.margin());
        let probability = if above > Self::NOTHING_DB || open {
            self.vad.update(frame)
        } else {
            self.vad.idle(frame);
            0.0
        };
        self.doubt = self.doubt.saturating_sub(1);
        let voiced = probability > Vad::VOICE;
        let click = self.concentration();
        let begins = probability > Self::SUSPICION && click < Self::EVEN && above > Self::LOUD_DB;
        let begins = begins && self.may_be_suspected(voiced);
        let opens = voiced && click < Self::CLICK && above > margin * Self::BEGINNING;
        let keeps = confirmed && voiced && click < Self::CLICK_IN_SPEECH && above > margin * 0.5;
        let speech = opens || begins || keeps;
        Verdict {
            level,
            stands_out: above > margin,
            speech,
            doubtful: click > Self::MAY_CLICK,
            certain: speech && probability > Vad::CERTAIN && above > margin,
        }
    }

    /// Sound of the past, to warm the neural detector up.
    pub fn prime(&mut self, frame: &Frame) {
        self.vad.update(frame);
    }

    /// A level that a header told in place of a frame.
    pub fn note_level(&mut self, level: Dbfs, quiet: bool) {
        self.floor.update(level, quiet);
    }

    /// Whether a level may be speech.
    pub fn stands_out(&self, level: Dbfs) -> bool {
        self.floor.above(level) > self.floor.margin()
    }

    /// The sound does not continue.
    pub fn reset(&mut self) {
        self.vad.reset();
        self.pieces = [0.0; PIECES];
    }

    /// Whether a suspicion is worth anything in this frame.
    fn may_be_suspected(&mut self, voiced: bool) -> bool {
        if voiced {
            self.suspected = 0;
            return true;
        }
        if self.doubt > 0 {
            return false;
        }
        self.suspected += 1;
        if self.suspected > Self::SUSPECT_FRAMES {
            self.suspected = 0;
            self.doubt = Self::DOUBT_FRAMES;
            return false;
        }
        true
    }

    /// The share of the energy of the last 40 ms that lies in the two loudest pieces of 5 ms.
    fn concentration(&self) -> f32 {
        let (mut first, mut second, mut all) = (0.0f32, 0.0f32, 1e-12f32);
        for &power in &self.pieces {
            all += power;
            if power > first {
                (first, second) = (power, first);
            } else {
                second = second.max(power);
            }
        }
        (first + second) / all
    }
}

impl Default for Detector {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::frame::SILENCE;

    #[test]
    fn a_click_is_concentrated_and_a_steady_sound_is_not() {
        let mut detector = Detector::new();
        let mut click = SILENCE;
        click[100..150].fill(0.5);
        detector.observe(&SILENCE, false, false);
        detector.observe(&click, false, false);
        assert!(detector.concentration() > 0.99);
        for _ in 0..2 {
            detector.observe(&[0.1; FRAME_SAMPLES], false, false);
        }
        assert!((detector.concentration() - 0.25).abs() < 1e-3);
    }

    #[test]
    fn samples_that_are_not_finite_are_silence() {
        let mut detector = Detector::new();
        let verdict = detector.observe(&[f32::NAN; FRAME_SAMPLES], false, false);
        assert_eq!((verdict.level, verdict.speech), (Dbfs::SILENCE, false));
        let verdict = detector.observe(&[0.1; FRAME_SAMPLES], false, false);
        assert!(verdict.level > Dbfs(-30.0));
    }
}
