//! Loudness: decibels, the level that a sender puts into its RTP header, the floor of a microphone's noise.

use super::frame::mean_square;

/// Decibels relative to full scale; a full-scale square wave has 0.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Dbfs(pub f32);

impl Dbfs {
    /// Quieter than any level that RFC 6464 can tell.
    pub const SILENCE: Dbfs = Dbfs(-127.0);

    /// The RMS level of `samples`; [`Dbfs::SILENCE`] where they are silent or not finite.
    pub fn of(samples: &[f32]) -> Self {
        Self::of_power(mean_square(samples))
    }

    /// The level of a mean square; [`Dbfs::SILENCE`] where that is 0 or not finite.
    pub fn of_power(power: f32) -> Self {
        if power.is_finite() && power > 0.0 {
            Dbfs((10.0 * power.log10()).max(Self::SILENCE.0))
        } else {
            Self::SILENCE
        }
    }
}

/// `db` decibels as a factor of amplitude.
pub fn amplitude(db: f32) -> f32 {
    10f32.powf(db / 20.0)
}

/// What the client-to-mixer audio level extension says of one packet (RFC 6464, section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioLevel {
    /// −dBov: 0 is the loudest, 127 is silence.
    pub dbov: u8,
    /// The sender's opinion on whether the packet holds voice. Not every sender has one: a hint, not a gate.
    pub voice: bool,
}

impl AudioLevel {
    /// As decibels: dBov and [`Dbfs`] share their reference (RFC 6464, section 3; RFC 6465 defines the same scale).
    pub fn dbfs(self) -> Dbfs {
        Dbfs(-f32::from(self.dbov.min(127)))
    }
}

/// Follows the level that a microphone never falls below for long, and how far its noise swings above that: the
/// minimum of the last three seconds (after R. Martin's minimum statistics). Speech has its gaps within that time, so
/// its level does not pass for noise; noise that grows is known as such three seconds later.
#[derive(Clone, Debug)]
pub struct NoiseFloor {
    /// The minimum of each block.
    minima: [f32; Self::BLOCKS],
    block: usize,
    frames: usize,
    floor: f32,
    swing: f32,
    /// Frames that are still judged by [`Self::START`].
    unknown: u8,
}

impl NoiseFloor {
    /// Below this a source counts as digital silence, which says nothing about the room behind it.
    const QUIETEST: f32 = -80.0;
    /// What a microphone is taken for before it is known: whoever speaks at once is heard at once.
    const START: f32 = -50.0;
    const START_FRAMES: u8 = 2;
    const BLOCKS: usize = 4;
    /// 760 ms.
    const BLOCK_FRAMES: usize = 38;
    /// Further above the floor than this nothing counts as its swing.
    const MOST_SWING: f32 = 15.0;
    const FOLLOW_SWING: f32 = 0.05;

    /// A floor at −50 dBFS for 40 ms, or until something quieter is heard.
    pub fn new() -> Self {
        NoiseFloor {
            minima: [f32::MAX; Self::BLOCKS],
            block: 0,
            frames: 0,
            floor: Self::START,
            swing: 2.0,
            unknown: Self::START_FRAMES,
        }
    }

    /// Takes in the level of one frame; `quiet`: nobody speaks in it, as far as that is known.
    pub fn update(&mut self, level: Dbfs, quiet: bool) {
        let level = level.0.max(Self::QUIETEST);
        if self.frames == Self::BLOCK_FRAMES {
            self.frames = 0;
            self.block = (self.block + 1) % Self::BLOCKS;
            self.minima[self.block] = f32::MAX;
        }
        self.frames += 1;
        self.minima[self.block] = self.minima[self.block].min(level);
        self.floor = self.minima.iter().copied().fold(f32::MAX, f32::min);
        if self.unknown > 0 {
            self.unknown -= 1;
            self.floor = self.floor.min(Self::START);
        }
        let above = level - self.floor;
        if quiet && above < Self::MOST_SWING {
            self.swing += (above - self.swing) * Self::FOLLOW_SWING;
        }
    }

    /// Decibels of `level` over the floor.
    pub fn above(&self, level: Dbfs) -> f32 {
        level.0 - self.floor
    }

    /// From so many decibels over the floor on, a sound is not the noise's own swing: 5 to 9.
    pub fn margin(&self) -> f32 {
        (3.5 + 1.5 * self.swing).clamp(5.0, 9.0)
    }
}

impl Default for NoiseFloor {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_scale_square_wave_has_0_dbfs_and_silence_or_nonsense_the_lowest() {
        let square: Vec<f32> = (0..960)
            .map(|i| if i % 2 == 0 { 1.0 } else { -1.0 })
            .collect();
        assert!(Dbfs::of(&square).0.abs() < 1e-4);
        assert_eq!(Dbfs::of(&[0.0; 960]), Dbfs::SILENCE);
        assert_eq!(Dbfs::of(&[f32::NAN; 960]), Dbfs::SILENCE);
        assert_eq!(
            AudioLevel {
                dbov: 200,
                voice: true
            }
            .dbfs(),
            Dbfs(-127.0)
        );
    }

    #[test]
    fn the_floor_falls_at_once_and_speech_with_gaps_does_not_raise_it() {
        let mut floor = NoiseFloor::new();
        floor.update(Dbfs(-70.0), true);
        assert!(floor.above(Dbfs(-70.0)) < 0.1);
        // Ten seconds of speech at −25 dBFS, with a gap in every second.
        for n in 0..500 {
            floor.update(Dbfs(if n % 50 == 7 { -66.0 } else { -25.0 }), false);
        }
        assert!((floor.above(Dbfs(-25.0)) - 41.0).abs() < 0.1);
    }

    #[test]
    fn noise_that_grows_is_known_after_three_seconds_and_its_swing_sets_the_margin() {
        let (mut steady, mut swinging) = (NoiseFloor::new(), NoiseFloor::new());
        for n in 0..400 {
            steady.update(Dbfs(-40.0), true);
            swinging.update(Dbfs(-40.0 + 8.0 * (n % 2) as f32), true);
        }
        assert!((steady.margin(), swinging.margin()) == (5.0, 9.0));
        for _ in 0..160 {
            steady.update(Dbfs(-30.0), true);
        }
        assert!(steady.above(Dbfs(-30.0)).abs() < 0.1);
    }
}
