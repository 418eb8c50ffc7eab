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
        let power = mean_square(samples);
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

/// Follows the level that a microphone never falls below for long: fast down, 1.5 dB a second up.
#[derive(Clone, Debug)]
pub struct NoiseFloor {
    floor: f32,
}

impl NoiseFloor {
    /// Below this a source counts as digital silence, which says nothing about the room behind it.
    const QUIETEST: f32 = -80.0;
    const START: f32 = -50.0;
    const FALL: f32 = 0.3;
    const RISE: f32 = 0.02;
    const MAX_RISE_DB: f32 = 0.03;

    /// A floor at −50 dBFS, until something quieter is heard.
    pub fn new() -> Self {
        NoiseFloor { floor: Self::START }
    }

    /// Takes in the level of one frame.
    pub fn update(&mut self, level: Dbfs) {
        let level = level.0.max(Self::QUIETEST);
        if level < self.floor {
            self.floor += (level - self.floor) * Self::FALL;
        } else {
            self.floor += ((level - self.floor) * Self::RISE).min(Self::MAX_RISE_DB);
        }
    }

    /// Decibels of `level` over the floor.
    pub fn above(&self, level: Dbfs) -> f32 {
        level.0 - self.floor
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
    fn the_floor_falls_at_once_and_rises_slowly() {
        let mut floor = NoiseFloor::new();
        for _ in 0..15 {
            floor.update(Dbfs(-70.0));
        }
        assert!(floor.above(Dbfs(-70.0)) < 1.0);
        // Three seconds of speech at −25 dBFS must not pass for noise.
        for _ in 0..150 {
            floor.update(Dbfs(-25.0));
        }
        assert!(floor.above(Dbfs(-25.0)) > 38.0);
    }
}
