//! How the picture looks: its colours and its font.

use std::str::FromStr;
use std::sync::LazyLock;

use ab_glyph::FontArc;

use super::frame::Yuv;

/// The shape of letters.
#[derive(Clone, Debug)]
pub struct Font(pub(super) FontArc);

/// A font that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the font is no TrueType or OpenType font with outlines")]
pub struct FontError;

impl Font {
    /// From the bytes of a `.ttf` or `.otf` file.
    ///
    /// # Errors
    /// The bytes are no such font.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, FontError> {
        FontArc::try_from_vec(bytes)
            .map(Font)
            .map_err(|_| FontError)
    }
}

impl Default for Font {
    /// DejaVu Sans, which comes with this crate.
    fn default() -> Self {
        static DEJAVU: LazyLock<FontArc> = LazyLock::new(|| {
            let bytes = include_bytes!("../../assets/DejaVuSans.ttf");
            FontArc::try_from_slice(bytes).expect("the font that is shipped parses")
        });
        Font(DEJAVU.clone())
    }
}

/// The colours of everything that is no picture of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colours {
    /// Behind and between the tiles, and beside a shared screen.
    pub background: Yuv,
    /// Beside a camera's picture that does not fill its tile.
    pub bars: Yuv,
    /// Around those who speak.
    pub speaking: Yuv,
    /// Names, initials and signs.
    pub text: Yuv,
    /// Behind a name, translucent.
    pub label: Yuv,
}

impl Default for Colours {
    /// White on dark greys, green around those who speak.
    fn default() -> Self {
        let grey = |y| Yuv { y, u: 130, v: 127 };
        Colours {
            background: grey(30),
            bars: grey(46),
            speaking: Yuv {
                y: 150,
                u: 90,
                v: 72,
            },
            text: Yuv {
                y: 235,
                u: 128,
                v: 128,
            },
            label: Yuv {
                y: 16,
                u: 128,
                v: 128,
            },
        }
    }
}

/// A list of colours that is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no colour: write background, bars, speaking, text or label, then = and six hexadecimal digits, with commas between"
)]
pub struct ColoursError(String);

impl FromStr for Colours {
    type Err = ColoursError;

    /// Reads `background=1e1e1e,speaking=2ecc71`; what is not named keeps its default. RGB, full range.
    fn from_str(text: &str) -> Result<Self, ColoursError> {
        let mut colours = Colours::default();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let error = || ColoursError(part.to_owned());
            let (name, value) = part.split_once('=').ok_or_else(error)?;
            let target = match name.trim() {
                "background" => &mut colours.background,
                "bars" => &mut colours.bars,
                "speaking" => &mut colours.speaking,
                "text" => &mut colours.text,
                "label" => &mut colours.label,
                _ => return Err(error()),
            };
            let value = value.trim();
            let digits = value.strip_prefix('#').unwrap_or(value);
            let is_hex = digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_hexdigit());
            let rgb = u32::from_str_radix(digits, 16).ok().filter(|_| is_hex);
            let [_, r, g, b] = rgb.ok_or_else(error)?.to_be_bytes();
            *target = Yuv::from_rgb(r, g, b);
        }
        Ok(colours)
    }
}

/// Colours and font. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Theme {
    /// The colours.
    pub colours: Colours,
    /// The font of names and initials.
    pub font: Font,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_read_by_name_and_the_others_keep_their_defaults() {
        let colours: Colours = "speaking=#ff0000, background=000000".parse().unwrap();
        assert_eq!(colours.speaking, Yuv::from_rgb(255, 0, 0));
        assert_eq!(colours.background, Yuv::from_rgb(0, 0, 0));
        assert_eq!(colours.text, Colours::default().text);
        assert_eq!("".parse(), Ok(Colours::default()));
    }

    #[test]
    fn what_is_no_colour_is_named() {
        for text in [
            "border=ffffff",
            "text",
            "text=red",
            "text=+fffff",
            "text=#fff",
        ] {
            let error = text.parse::<Colours>().unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_no_font_is_refused() {
        assert!(Font::from_bytes(b"MZ".to_vec()).is_err());
        let dejavu = include_bytes!("../../assets/DejaVuSans.ttf").to_vec();
        assert!(Font::from_bytes(dejavu).is_ok());
    }
}
