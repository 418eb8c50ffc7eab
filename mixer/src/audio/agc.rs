//! Automatic gain control: brings voices to one loudness, slowly, and only while they speak.

use super::level::amplitude;
use super::loudness::lufs;

/// The gain of one source. Belongs to the source, never to a listener.
#[derive(Clone, Debug)]
pub struct Agc {
    gain_db: f32,
    /// K-weighted mean square of its speech: single syllables and words do not pull the gain about.
    power: f32,
    /// Frames of speech that went into it, up to [`Self::KNOWN`].
    heard: u16,
}

impl Agc {
    /// Where speech is brought to, in LUFS: EBU R 128's.
    pub const TARGET_LUFS: f32 = -23.0;
    /// The most that a voice is raised.
    pub const MAX_DB: f32 = 20.0;
    /// The most that a voice is lowered.
    pub const MIN_DB: f32 = -20.0;
    /// Three seconds of speech: from here a voice is known.
    const KNOWN: u16 = 150;
    /// 200 ms: before, nothing is changed.
    const FIRST: u16 = 10;
    /// 12 dB a second while a voice is new: its first words shall not be too loud or lost for long.
    const NEW_PER_FRAME: f32 = 12.0 / 50.0;
    /// 2 dB a second.
    const RISE_PER_FRAME: f32 = 2.0 / 50.0;
    /// 4 dB a second: being too loud is worse than being too quiet.
    const FALL_PER_FRAME: f32 = 4.0 / 50.0;
    /// Of the distance per frame.
    const APPROACH: f32 = 0.03;
    /// Closer to the target than this is good enough: a gain that stands still is not heard.
    const DEAD_BAND_DB: f32 = 0.8;

    /// Unity gain.
    pub fn new() -> Self {
        Agc {
            gain_db: 0.0,
            power: 0.0,
            heard: 0,
        }
    }

    /// Takes in the K-weighted mean square of a frame of certain speech. Not called outside of speech: the gain stands
    /// still then.
    pub fn update(&mut self, power: f32) {
        if !power.is_finite() {
            return;
        }
        self.heard = (self.heard + 1).min(Self::KNOWN);
        // The plain mean at first, then over some three seconds.
        self.power += (power - self.power) / f32::from(self.heard);
        if self.heard < Self::FIRST {
            return;
        }
        let wanted = (Self::TARGET_LUFS - lufs(self.power)).clamp(Self::MIN_DB, Self::MAX_DB);
        let missing = wanted - self.gain_db;
        if missing.abs() <= Self::DEAD_BAND_DB {
            return;
        }
        let missing = missing - Self::DEAD_BAND_DB.copysign(missing);
        let step = if self.heard < Self::KNOWN {
            (missing * 5.0 * Self::APPROACH).clamp(-Self::NEW_PER_FRAME, Self::NEW_PER_FRAME)
        } else {
            (missing * Self::APPROACH).clamp(-Self::FALL_PER_FRAME, Self::RISE_PER_FRAME)
        };
        self.gain_db += step;
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

    fn power(lufs: f32) -> f32 {
        10f32.powf((lufs + 0.691) / 10.0)
    }

    #[test]
    fn a_quiet_voice_is_raised_and_a_loud_one_lowered_within_three_seconds_and_never_by_a_step() {
        for (level, expected) in [(-38.0, 15.0), (-9.0, -14.0), (-23.5, 0.0)] {
            let mut agc = Agc::new();
            let mut last = 0.0f32;
            for n in 0..500 {
                agc.update(power(level));
                let step = agc.gain_db - last;
                assert!(step.abs() <= 0.2401, "{step}");
                last = agc.gain_db;
                assert!(
                    n < 150 || (last - expected).abs() < 1.1,
                    "{level} LUFS: {last} dB after {n}"
                );
            }
        }
    }

    #[test]
    fn a_known_voice_is_followed_by_2_and_4_db_a_second() {
        let mut agc = Agc::new();
        (0..500).for_each(|_| agc.update(power(-23.0)));
        let mut last = agc.gain_db;
        for n in 0..1000 {
            agc.update(power(if n < 500 { -33.0 } else { -13.0 }));
            let step = agc.gain_db - last;
            assert!((-0.0801..=0.0401).contains(&step), "{step}");
            last = agc.gain_db;
        }
        assert!(last < -8.0, "{last}");
    }

    #[test]
    fn syllables_do_not_pull_the_gain_about() {
        let mut agc = Agc::new();
        for n in 0..1000 {
            agc.update(power(if n % 10 < 4 { -19.0 } else { -37.0 }));
        }
        assert!((agc.gain() - 1.0).abs() < 0.1, "{}", agc.gain());
    }

    #[test]
    fn the_gain_stays_within_its_range() {
        let (mut quiet, mut loud) = (Agc::new(), Agc::new());
        for _ in 0..5000 {
            quiet.update(0.0);
            loud.update(4.0);
            quiet.update(f32::NAN);
        }
        assert!(quiet.gain() <= amplitude(Agc::MAX_DB));
        assert!(loud.gain() >= amplitude(Agc::MIN_DB));
    }
}
