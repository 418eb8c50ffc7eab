//! Automatic gain control: brings voices to one loudness, slowly, and only while they speak.

use super::level::{Dbfs, amplitude};

/// The gain of one source. Belongs to the source, never to a listener.
#[derive(Clone, Debug)]
pub struct Agc {
    gain_db: f32,
    /// Mean square of its speech, over about a second: single syllables do not pull the gain about.
    power: f32,
}

impl Agc {
    /// Where speech is brought to.
    pub const TARGET: Dbfs = Dbfs(-20.0);
    /// The most that a voice is raised.
    pub const MAX_DB: f32 = 15.0;
    /// The most that a voice is lowered.
    pub const MIN_DB: f32 = -12.0;
    /// 3 dB a second.
    const RISE_PER_FRAME: f32 = 3.0 / 50.0;
    /// 6 dB a second: being too loud is worse than being too quiet.
    const FALL_PER_FRAME: f32 = 6.0 / 50.0;
    /// Of the distance per frame.
    const APPROACH: f32 = 0.05;
    /// Of the mean power per frame.
    const AVERAGE: f32 = 0.02;
    /// Closer to the target than this is good enough: a gain that stands still is not heard.
    const DEAD_BAND_DB: f32 = 2.0;

    /// Unity gain.
    pub fn new() -> Self {
        Agc {
            gain_db: 0.0,
            power: 10f32.powf(Self::TARGET.0 / 10.0),
        }
    }

    /// Takes in a frame of certain speech at `level`. Not called outside of speech: the gain stands still then.
    pub fn update(&mut self, level: Dbfs) {
        self.power += (10f32.powf(level.0 / 10.0) - self.power) * Self::AVERAGE;
        let wanted = Self::TARGET.0 - 10.0 * self.power.log10();
        let missing = wanted.clamp(Self::MIN_DB, Self::MAX_DB) - self.gain_db;
        if missing.abs() > Self::DEAD_BAND_DB {
            let step = (missing - Self::DEAD_BAND_DB.copysign(missing)) * Self::APPROACH;
            self.gain_db += step.clamp(-Self::FALL_PER_FRAME, Self::RISE_PER_FRAME);
        }
    }

    /// The factor to apply.
    pub fn gain(&self) -> f32 {
        if self.gain_db == 0.0 {
            1.0
        } else {
            amplitude(self.gain_db)
        }
    }
}

impl Default for Agc {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_voice_is_raised_and_a_loud_one_lowered_no_faster_than_3_and_6_db_a_second() {
        for (level, expected) in [(-31.0, 9.0), (-8.0, -10.0), (-21.0, 0.0)] {
            let mut agc = Agc::new();
            let mut last = 0.0f32;
            for _ in 0..500 {
                agc.update(Dbfs(level));
                let step = agc.gain_db - last;
                assert!((-0.1201..=0.0601).contains(&step), "{step}");
                last = agc.gain_db;
            }
            assert!((last - expected).abs() < 0.2, "{level} dBFS: {last} dB");
        }
    }

    #[test]
    fn syllables_do_not_pull_the_gain_about() {
        let mut agc = Agc::new();
        for n in 0..1000 {
            agc.update(Dbfs(if n % 10 < 4 { -17.0 } else { -35.0 }));
        }
        assert!((agc.gain() - 1.0).abs() < 0.05, "{}", agc.gain());
    }

    #[test]
    fn the_gain_stays_within_its_range() {
        let (mut quiet, mut loud) = (Agc::new(), Agc::new());
        for _ in 0..5000 {
            quiet.update(Dbfs::SILENCE);
            loud.update(Dbfs(6.0));
        }
        assert!(quiet.gain() <= amplitude(Agc::MAX_DB));
        assert!(loud.gain() >= amplitude(Agc::MIN_DB));
    }
}
