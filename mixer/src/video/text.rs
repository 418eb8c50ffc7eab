//! One line of text, and the ink it is drawn in.

use ab_glyph::{Font as _, FontArc, PxScale, ScaleFont, point};
use image::GrayImage;

/// Characters of a name that are looked at; the rest would not fit on any tile.
const LONGEST_NAME: usize = 64;
/// Height of capitals in a font that has no H, of its pixel scale.
const CAPITALS: f32 = 0.63;

/// One line of text, cut with an ellipsis to the room there is.
///
/// Glyphs are placed one after the other with kerning: scripts that need shaping (Arabic, Devanagari) are shown in
/// their isolated forms.
pub(super) struct Line<'f> {
    font: &'f FontArc,
    glyphs: Vec<(ab_glyph::GlyphId, f32)>,
    scale: PxScale,
    /// In pixels.
    pub(super) width: f32,
}

impl<'f> Line<'f> {
    /// `None` when there is nothing to be seen, or no room for it.
    pub(super) fn new(font: &'f FontArc, text: &str, pixels: f32, room: f32) -> Option<Self> {
        let text: Vec<char> = text
            .trim()
            .chars()
            .filter(|c| !is_invisible(*c))
            .take(LONGEST_NAME)
            .collect();
        let line = Line::of(font, &text, pixels);
        if line.width <= room {
            return (!text.is_empty()).then_some(line);
        }
        (1..text.len())
            .rev()
            .map(|kept| {
                let shorter: Vec<char> = text[..kept].iter().copied().chain(['…']).collect();
                Line::of(font, &shorter, pixels)
            })
            .find(|line| line.width <= room)
    }

    fn of(font: &'f FontArc, text: &[char], pixels: f32) -> Self {
        let scaled = font.as_scaled(pixels);
        let mut line = Line {
            font,
            glyphs: Vec::with_capacity(text.len()),
            scale: scaled.scale,
            width: 0.0,
        };
        let mut previous = None;
        for c in text {
            let id = scaled.glyph_id(*c);
            if let Some(previous) = previous {
                line.width += scaled.kern(previous, id);
            }
            line.glyphs.push((id, line.width));
            line.width += scaled.h_advance(id);
            previous = Some(id);
        }
        line
    }

    /// Adds the text's coverage to `ink`, from `left`, its capitals centred on `middle`.
    pub(super) fn draw(&self, ink: &mut GrayImage, left: f32, middle: f32) {
        let baseline = middle + self.capitals() / 2.0;
        for (id, x) in &self.glyphs {
            let glyph = id.with_scale_and_position(self.scale, point(left + x, baseline));
            let Some(outline) = self.font.outline_glyph(glyph) else {
                continue;
            };
            let bounds = outline.px_bounds();
            outline.draw(|x, y, coverage| {
                let x = i64::from(x) + bounds.min.x as i64;
                let y = i64::from(y) + bounds.min.y as i64;
                let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else {
                    return;
                };
                if let Some(pixel) = ink.get_pixel_mut_checked(x, y) {
                    pixel.0[0] = pixel.0[0].saturating_add((coverage * 255.0).round() as u8);
                }
            });
        }
    }

    /// Height of capitals in pixels.
    fn capitals(&self) -> f32 {
        let capital = self.font.glyph_id('H');
        let outline = self
            .font
            .outline(capital)
            .filter(|_| capital.0 != 0)
            .map(|outline| outline.bounds.height().abs());
        let unscaled = self.font.height_unscaled();
        match outline {
            Some(height) if unscaled > 0.0 => height / unscaled * self.scale.y,
            _ => CAPITALS * self.scale.y,
        }
    }
}

/// The first letters of the first two words that have a letter in the font, as capitals.
pub(super) fn initials(font: &FontArc, name: &str) -> String {
    let drawable = |c: &char| c.is_alphanumeric() && font.glyph_id(*c).0 != 0;
    let words = name.split_whitespace();
    let letters = words.filter_map(|word| word.chars().find(drawable));
    letters.take(2).flat_map(char::to_uppercase).collect()
}

/// Controls, and what steers shaping and direction: not to be drawn, and not to be misused to hide a name.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
}
