//! Gains that never step: one linear ramp per frame.

use super::frame::{FRAME_SAMPLES, Frame};

/// A gain over one frame: `from` at its first sample, approaching `to`, where the next frame begins.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ramp {
    /// At the first sample.
    pub from: f32,
    /// At the first sample of the next frame.
    pub to: f32,
}

impl Ramp {
    /// The next frame's ramp, towards `target`.
    pub fn next(self, target: f32) -> Self {
        Ramp {
            from: self.to,
            to: target,
        }
    }

    /// Whether nothing passes.
    pub fn is_silent(self) -> bool {
        self.from == 0.0 && self.to == 0.0
    }

    /// Adds `source`, ramped, to `sum`.
    pub fn mix_into(self, source: &Frame, sum: &mut Frame) {
        if self.from == self.to {
            for (sum, x) in sum.iter_mut().zip(source) {
                *sum += x * self.from;
            }
            return;
        }
        let step = (self.to - self.from) / FRAME_SAMPLES as f32;
        for (i, (sum, x)) in sum.iter_mut().zip(source).enumerate() {
            *sum += x * (self.from + step * i as f32);
        }
    }
}

/// How loud an open or closing voice is let through: opens at once, holds, then fades by 60 dB a second.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    hold: u8,
    /// Frames of speech since it opened.
    spoken: u8,
    weight: f32,
}

impl Gate {
    /// 360 ms: shorter pauses inside a sentence stay open.
    const HOLD_FRAMES: u8 = 18;
    /// 60 ms: what may have been a cough is gone soon.
    const FIRST_HOLD_FRAMES: u8 = 3;
    /// 40 ms: what was probably a click is gone sooner.
    const DOUBTFUL_HOLD_FRAMES: u8 = 2;
    /// From so many frames of speech on it is no click.
    const CONFIRMED_AFTER: u8 = 3;
    /// −1.2 dB per frame.
    const RELEASE: f32 = 0.87;
    /// −40 dB: from here one ramp leads to 0.
    const SHUT: f32 = 0.01;

    /// Takes in whether this frame holds speech, and whether that may as well be a click; returns the weight at the frame's
    /// end.
    pub fn update(&mut self, speech: bool, doubtful: bool) -> f32 {
        if speech {
            self.spoken = self.spoken.saturating_add(1);
            let hold = if self.is_confirmed() {
                Self::HOLD_FRAMES
            } else if doubtful {
                Self::DOUBTFUL_HOLD_FRAMES
            } else {
                Self::FIRST_HOLD_FRAMES
            };
            self.hold = self.hold.max(hold);
        } else {
            self.hold = self.hold.saturating_sub(1);
        }
        if self.hold > 0 {
            self.weight = 1.0;
        } else {
            self.spoken = 0;
            let released = self.weight * Self::RELEASE;
            self.weight = if released < Self::SHUT { 0.0 } else { released };
        }
        self.weight
    }

    /// Speaking, short pauses included.
    pub fn is_open(&self) -> bool {
        self.hold > 0
    }

    /// Open, and not for a click only.
    pub fn is_confirmed(&self) -> bool {
        self.spoken >= Self::CONFIRMED_AFTER
    }

    /// The weight after the last frame, 0 to 1.
    pub fn weight(&self) -> f32 {
        self.weight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_ramps_meet_without_a_step() {
        let mut ramp = Ramp::default();
        let ones = [1.0; FRAME_SAMPLES];
        let mut last = 0.0f32;
        for target in [1.0, 1.0, 0.3, 5.6, 0.0, 0.0] {
            ramp = ramp.next(target);
            let mut out = [0.0; FRAME_SAMPLES];
            ramp.mix_into(&ones, &mut out);
            for gain in out {
                assert!(
                    (gain - last).abs() <= 5.7 / FRAME_SAMPLES as f32,
                    "{last} -> {gain}"
                );
                last = gain;
            }
        }
        assert!(ramp.is_silent());
    }

    #[test]
    fn the_gate_holds_speech_for_360_ms_a_cough_for_60_a_click_for_40_and_is_shut_within_a_second()
    {
        let open_for = |spoken: usize, doubtful: bool| {
            let mut gate = Gate::default();
            for _ in 0..spoken {
                assert_eq!(gate.update(true, doubtful), 1.0);
            }
            let held = (0..)
                .take_while(|_| gate.update(false, false) == 1.0)
                .count();
            let frames = (0..)
                .take_while(|_| gate.update(false, false) > 0.0)
                .count();
            assert!((20..50).contains(&frames), "{frames}");
            held
        };
        assert_eq!(open_for(1, true), 1);
        assert_eq!(open_for(1, false), 2);
        assert_eq!(open_for(3, true), 17);
    }
}
