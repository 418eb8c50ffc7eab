//! The second channel of a mix: what there is of it is made only while somebody wants it.

use super::frame::{Frame, SILENCE, StereoFrame};
use super::gain::Ramp;
use super::limiter::{Limiter, StereoLimiter};

/// A mix with two channels, made of the one-channel mix and of what tells the channels of its sources apart.
pub(super) struct Wide {
    wanted: bool,
    limiter: StereoLimiter,
    left: Frame,
    right: Frame,
    samples: StereoFrame,
    silent: bool,
}

impl Wide {
    fn after(limiter: StereoLimiter) -> Box<Self> {
        Box::new(Wide {
            wanted: true,
            limiter,
            left: SILENCE,
            right: SILENCE,
            samples: [0.0; 2 * SILENCE.len()],
            silent: true,
        })
    }

    /// Begins or stops to make the second channel. It begins with what `mono` has heard, in the middle.
    pub fn set_wanted(wide: &mut Option<Box<Self>>, wanted: bool, mono: &Limiter) {
        match wide {
            Some(wide) if wide.wanted || !wanted => wide.wanted = wanted,
            Some(wide) => {
                wide.wanted = true;
                wide.limiter = StereoLimiter::after(mono);
            }
            None if wanted => *wide = Some(Self::after(StereoLimiter::after(mono))),
            None => {}
        }
    }

    /// Goes on where another mix stands, if that has two channels.
    pub fn follow(wide: &mut Option<Box<Self>>, other: Option<&Self>) {
        match (wide, other.filter(|other| other.wanted)) {
            (Some(wide), Some(other)) => {
                wide.wanted = true;
                wide.limiter.clone_from(&other.limiter);
            }
            (wide @ None, Some(other)) => *wide = Some(Self::after(other.limiter.clone())),
            (Some(wide), None) => wide.wanted = false,
            (None, None) => {}
        }
    }

    /// Left is `mid` plus `sides`, right is `mid` less `sides`. `silent`: nothing goes in.
    pub fn mix<'a>(
        &mut self,
        mid: &Frame,
        sides: impl Iterator<Item = (Ramp, &'a Frame)>,
        silent: bool,
    ) {
        if !self.wanted {
            return;
        }
        self.silent = silent && self.limiter.is_empty();
        if self.silent {
            self.samples.fill(0.0);
            return;
        }
        self.right.fill(0.0);
        for (ramp, side) in sides {
            ramp.mix_into(side, &mut self.right);
        }
        for ((left, right), mid) in self.left.iter_mut().zip(&mut self.right).zip(mid) {
            (*left, *right) = (mid + *right, mid - *right);
        }
        self.limiter.process(&mut self.left, &mut self.right);
        let pairs = self.samples.as_chunks_mut::<2>().0;
        for ((pair, left), right) in pairs.iter_mut().zip(&self.left).zip(&self.right) {
            *pair = [*left, *right];
        }
    }

    /// What was made in the last tick, and whether it is silence.
    pub fn sound(&self) -> Option<(&StereoFrame, bool)> {
        self.wanted.then_some((&self.samples, self.silent))
    }
}
