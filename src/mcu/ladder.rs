//! The qualities of the mixed picture: a ladder of sizes, each with its frame rate and bit rate.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::mcu::codec::h264::EncoderConfig;

/// Steps of a ladder at most: a selector tells so many layers apart.
pub const MAX_STEPS: usize = 8;
/// Sides of a step in pixels: what is smaller shows nobody, what is larger few phones decode.
pub const SIDES: (u32, u32) = (64, 1920);
/// Frames per second of a step.
pub const FRAME_RATES: (u32, u32) = (1, 60);
/// kbit/s of a step.
pub const KBITS: (u32, u32) = (20, 20_000);

/// How far a step's bit rate may fall for the sake of a slow listener, as a part of what the ladder says. Who cannot follow
/// that moves to the step below.
const LEAST: f64 = 0.7;
/// The same for the lowest step: below it there is no picture at all.
const LEAST_OF_LOWEST: f64 = 0.4;

/// How a canvas lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Shape {
    /// As wide as the ladder says.
    #[default]
    Landscape,
    /// Width and height exchanged, for phones.
    Portrait,
}

/// One quality of the mixed picture: a step of the ladder on a canvas of one shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VideoRung {
    /// Index into the ladder, 0 the smallest.
    pub step: u8,
    /// How its canvas lies.
    pub shape: Shape,
}

impl VideoRung {
    /// A step on a wide canvas.
    pub const fn landscape(step: u8) -> Self {
        VideoRung {
            step,
            shape: Shape::Landscape,
        }
    }
}

/// The steps, the smallest first. Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub struct Ladder(Arc<[EncoderConfig]>);

impl Ladder {
    /// Of steps that were checked by [`FromStr`], or are known to be good.
    ///
    /// # Panics
    /// Without a step, or with more than [`MAX_STEPS`].
    pub fn new(mut steps: Vec<EncoderConfig>) -> Self {
        assert!((1..=MAX_STEPS).contains(&steps.len()), "1 to 8 steps");
        steps.sort_by_key(|step| (step.bitrate, step.width * step.height));
        Ladder(steps.into())
    }

    /// All steps, the smallest first; landscape.
    pub fn steps(&self) -> &[EncoderConfig] {
        &self.0
    }

    /// The largest step.
    pub fn top(&self) -> u8 {
        (self.0.len() - 1) as u8
    }

    /// Where a client begins of whose link nothing is known: half way up.
    pub fn middle(&self) -> u8 {
        (self.0.len() / 2).min(self.0.len() - 1) as u8
    }

    fn low(&self) -> u8 {
        ((self.0.len() - 1) / 4) as u8
    }

    /// Which of three qualities a step is, 0 the lowest.
    pub fn quality_of(&self, step: u8) -> u8 {
        if step == self.top() {
            2
        } else {
            u8::from(step > self.low()) + u8::from(step > self.middle())
        }
    }

    /// The best step of a quality from 0, the lowest, to 2.
    pub fn best_of(&self, quality: u8) -> u8 {
        match quality {
            0 => self.low(),
            1 => self.middle(),
            _ => self.top(),
        }
    }

    /// Bit/s that the encoder of a step makes at least. A step that does not exist is taken for the largest.
    pub fn least(&self, step: u8) -> u32 {
        let step = step.min(self.top());
        let part = if step == 0 { LEAST_OF_LOWEST } else { LEAST };
        (f64::from(self.0[usize::from(step)].bitrate) * part) as u32
    }

    /// The measures of a rung. A step that does not exist is taken for the largest.
    pub fn of(&self, rung: VideoRung) -> EncoderConfig {
        let step = self.0[usize::from(rung.step.min(self.top()))];
        match rung.shape {
            Shape::Landscape => step,
            Shape::Portrait => EncoderConfig {
                width: step.height,
                height: step.width,
                ..step
            },
        }
    }
}

impl Default for Ladder {
    fn default() -> Self {
        let step = |width, height, fps, kbits: u32| EncoderConfig {
            width,
            height,
            fps,
            bitrate: kbits * 1000,
        };
        Ladder::new(vec![
            step(1280, 720, 30, 1500),
            step(960, 540, 25, 800),
            step(640, 360, 20, 400),
            step(426, 240, 15, 200),
            step(320, 180, 10, 100),
            step(160, 90, 5, 50),
        ])
    }
}

/// As the option has it, the largest first.
impl fmt::Display for Ladder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().rev().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let kbits = step.bitrate / 1000;
            write!(
                f,
                "{comma}{}x{}@{}:{kbits}",
                step.width, step.height, step.fps
            )?;
        }
        Ok(())
    }
}

/// Why a text is no ladder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LadderError {
    /// Nothing, or too much.
    #[error("{0} rungs: give 1 to {MAX_STEPS}")]
    Count(usize),
    /// Not of the form that is expected.
    #[error(
        "{0:?} is no rung: write width x height @ frames per second : kbit/s, as 640x360@20:400"
    )]
    Form(String),
    /// An encoder takes even sizes only.
    #[error("{0:?}: width and height have to be even")]
    Odd(String),
    /// Wider than high; phones get it turned.
    #[error("{0:?} is higher than wide: rungs are landscape, phones get them turned by themselves")]
    Tall(String),
    /// Out of bounds.
    #[error("{rung:?}: {what} has to be between {} and {}", bounds.0, bounds.1)]
    Bounds {
        /// As it was given.
        rung: String,
        /// Which number.
        what: &'static str,
        /// From, to.
        bounds: (u32, u32),
    },
    /// Not smaller than the one before.
    #[error(
        "{0:?} is no step down from {1:?}: list the rungs from the largest to the smallest, each with fewer kbit/s and no more pixels or frames than the one before"
    )]
    Order(String, String),
}

impl FromStr for Ladder {
    type Err = LadderError;

    fn from_str(text: &str) -> Result<Self, LadderError> {
        let texts: Vec<&str> = text.split(',').map(str::trim).collect();
        if text.trim().is_empty() {
            return Err(LadderError::Count(0));
        }
        if texts.len() > MAX_STEPS {
            return Err(LadderError::Count(texts.len()));
        }
        let mut steps: Vec<EncoderConfig> = Vec::with_capacity(texts.len());
        for (at, text) in texts.iter().enumerate() {
            let step = step(text)?;
            if let Some(before) = steps.last()
                && !is_below(&step, before)
            {
                let before = texts[at - 1].to_string();
                return Err(LadderError::Order(text.to_string(), before));
            }
            steps.push(step);
        }
        Ok(Ladder::new(steps))
    }
}

fn is_below(step: &EncoderConfig, before: &EncoderConfig) -> bool {
    step.bitrate < before.bitrate
        && step.width * step.height <= before.width * before.height
        && step.fps <= before.fps
}

fn step(text: &str) -> Result<EncoderConfig, LadderError> {
    let numbers = || {
        let (size, rest) = text.split_once('@')?;
        let (width, height) = size.split_once('x')?;
        let (fps, kbits) = rest.split_once(':')?;
        let number = |text: &str| text.trim().parse::<u32>().ok();
        Some([
            number(width)?,
            number(height)?,
            number(fps)?,
            number(kbits)?,
        ])
    };
    let given = || text.to_owned();
    let [width, height, fps, kbits] = numbers().ok_or_else(|| LadderError::Form(given()))?;
    for (what, value, bounds) in [
        ("the width", width, SIDES),
        ("the height", height, SIDES),
        ("the frame rate", fps, FRAME_RATES),
        ("the bit rate in kbit/s", kbits, KBITS),
    ] {
        if !(bounds.0..=bounds.1).contains(&value) {
            let rung = given();
            return Err(LadderError::Bounds { rung, what, bounds });
        }
    }
    if !width.is_multiple_of(2) || !height.is_multiple_of(2) {
        return Err(LadderError::Odd(given()));
    }
    if height > width {
        return Err(LadderError::Tall(given()));
    }
    Ok(EncoderConfig {
        width,
        height,
        fps,
        bitrate: kbits * 1000,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_written_as_the_option_is_read() {
        let ladder = Ladder::default();
        let text = ladder.to_string();
        assert_eq!(
            text,
            "1280x720@30:1500,960x540@25:800,640x360@20:400,426x240@15:200,320x180@10:100,160x90@5:50"
        );
        assert_eq!(text.parse(), Ok(ladder));
    }

    #[test]
    fn a_phone_gets_a_rung_turned() {
        let ladder = Ladder::default();
        let rung = VideoRung {
            step: ladder.middle(),
            shape: Shape::Portrait,
        };
        let step = ladder.of(rung);
        assert_eq!((step.width, step.height, step.fps), (360, 640, 20));
        assert_eq!(ladder.of(VideoRung::landscape(200)).width, 1280);
    }

    #[test]
    fn what_is_no_ladder_is_told_why() {
        let told = |text: &str| text.parse::<Ladder>().expect_err(text).to_string();
        for (text, words) in [
            ("", "0 rungs"),
            ("640x360@20", "640x360@20:400"),
            ("640x360@20:400,", "\"\" is no rung"),
            ("640x-2@20:400", "is no rung"),
            ("641x360@20:400", "even"),
            ("360x640@20:400", "higher than wide"),
            ("4000x360@20:400", "the width has to be between 64 and 1920"),
            ("640x20@20:400", "the height has to be between 64"),
            (
                "640x360@90:400",
                "the frame rate has to be between 1 and 60",
            ),
            (
                "640x360@20:4",
                "the bit rate in kbit/s has to be between 20",
            ),
            ("320x180@10:100,640x360@20:400", "from the largest"),
            ("640x360@20:400,640x360@20:400", "from the largest"),
            ("640x360@20:400,320x180@25:100", "from the largest"),
        ] {
            assert!(told(text).contains(words), "{text}: {}", told(text));
        }
        let nine = ["640x360@20:400"; 9].join(",");
        assert!(told(&nine).contains("9 rungs"));
    }

    #[test]
    fn a_ladder_of_any_length_has_a_middle_and_a_low_step() {
        for (count, low, middle) in [(1, 0, 0), (2, 0, 1), (3, 0, 1), (6, 1, 3), (8, 1, 4)] {
            let steps = (1..=count).map(|n| EncoderConfig {
                width: 160,
                height: 90,
                fps: 10,
                bitrate: n * 50_000,
            });
            let ladder = Ladder::new(steps.collect());
            assert_eq!((ladder.low(), ladder.middle()), (low, middle), "{count}");
        }
    }
}
