//! Names on pictures, and cards for those without a picture.
//!
//! Text is drawn once, when a name or a tile's size is new; per frame only the finished [`Label`] is laid over
//! the picture. Glyphs come from DejaVu Sans, placed one after the other with kerning: scripts that need
//! shaping (Arabic, Devanagari) are shown in their isolated forms.

use std::sync::LazyLock;

use ab_glyph::{Font, FontRef, PxScale, ScaleFont, point};
use image::GrayImage;

use super::frame::{I420, NEUTRAL, PlaneMut, WHITE, Yuv};
use super::layout::Size;
use super::simd;

static FONT: LazyLock<FontRef<'static>> = LazyLock::new(|| {
    FontRef::try_from_slice(include_bytes!("../../assets/DejaVuSans.ttf"))
        .expect("the font that is shipped parses")
});

/// Characters of a name that are looked at; the rest would not fit on any tile.
const LONGEST_NAME: usize = 64;
/// Tiles lower than this have no room for a name that can be read.
const LOWEST_TILE: usize = 48;
/// How much of the picture shines through a label's ground, of 256.
const GROUND: u8 = 110;

/// A name in white on a translucent dark ground, ready to be laid over a tile's lower left corner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    luma: Overlay,
    chroma: Overlay,
}

/// Per pixel: how much of the picture stays, and what comes on top (see [`simd::overlay`]).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Overlay {
    width: usize,
    height: usize,
    keep: Vec<u8>,
    add: Vec<u8>,
}

impl Label {
    /// With a crossed-out microphone in front of the name of who is `muted`. `None` when there is nothing to
    /// write, and for a tile that is too small to read on.
    pub fn new(name: &str, muted: bool, tile: Size) -> Option<Label> {
        if tile.height < LOWEST_TILE {
            return None;
        }
        let height = (tile.height / 9).clamp(14, 34) & !1;
        let padding = height / 3;
        let sign = if muted { height } else { 0 };
        let room = tile.width.checked_sub(2 * padding + sign + margin(tile))?;
        let line = Line::new(name, height as f32 * 0.72, room as f32);
        if line.is_none() && !muted {
            return None;
        }
        let text_width = line.as_ref().map_or(0.0, |line| line.width);
        let width = (text_width.ceil() as usize + sign + 2 * padding) & !1;
        let mut ink = GrayImage::new(width as u32, height as u32);
        if muted {
            draw_muted_sign(&mut ink, padding as f32, height as f32);
        }
        if let Some(line) = line {
            line.draw(&mut ink, (padding + sign) as f32, height as f32 / 2.0);
        }
        Some(Label {
            luma: overlay(&ink, 1, WHITE),
            chroma: overlay(&ink, 2, NEUTRAL),
        })
    }

    /// Lays the label over the lower left corner of a tile: its luma and two chroma planes.
    pub fn draw(&self, tile: [PlaneMut<'_>; 3]) {
        for (i, mut plane) in tile.into_iter().enumerate() {
            let (overlay, shrunk) = if i == 0 {
                (&self.luma, 1)
            } else {
                (&self.chroma, 2)
            };
            let size = Size {
                width: plane.width() * shrunk,
                height: plane.height() * shrunk,
            };
            let margin = margin(size) / shrunk;
            let (left, bottom) = (margin, plane.height().saturating_sub(margin));
            let top = bottom.saturating_sub(overlay.height);
            let width = overlay.width.min(plane.width() - left);
            for (i, y) in (top..bottom).enumerate() {
                let row = &mut plane.row(y)[left..left + width];
                let ink = i * overlay.width..i * overlay.width + width;
                simd::overlay(row, &overlay.keep[ink.clone()], &overlay.add[ink]);
            }
        }
    }
}

/// A microphone with a stroke through it, in a square of side `height` that begins at `left`.
fn draw_muted_sign(ink: &mut GrayImage, left: f32, height: f32) {
    for (x, y, pixel) in ink.enumerate_pixels_mut() {
        // From the square's middle, in halves of the label's height, y downwards.
        let px = (x as f32 + 0.5 - left) / height * 2.0 - 0.9;
        let py = (y as f32 + 0.5) / height * 2.0 - 1.0;
        let segment = |from: f32, to: f32| px.hypot(py - py.clamp(from, to));
        let capsule = segment(-0.4, -0.05) - 0.2;
        let bow = if py > -0.05 {
            (px.hypot(py + 0.05) - 0.38).abs() - 0.06
        } else {
            1.0
        };
        let stand = segment(0.33, 0.55) - 0.07;
        let along = ((px + py) / 2.0).clamp(-0.55, 0.55);
        let stroke = (px - along).hypot(py - along);
        let microphone = capsule.min(bow).min(stand);
        // The stroke stands out by a gap around it.
        let distance = microphone.max(0.2 - stroke).min(stroke - 0.08);
        let coverage = (0.5 - distance * height / 2.0).clamp(0.0, 1.0);
        pixel.0[0] = (coverage * 255.0).round() as u8;
    }
}

/// Distance of a label from its tile's edges.
fn margin(tile: Size) -> usize {
    (tile.height / 30).clamp(4, 10) & !1
}

/// From coverage (0: ground, 255: text) to keep and add, at `1 / shrink` of the size. Text has the value `text`;
/// the ground is black, so it darkens luma and pulls chroma to neutral.
fn overlay(ink: &GrayImage, shrink: u32, text: u8) -> Overlay {
    let (width, height) = (ink.width() / shrink, ink.height() / shrink);
    let mut overlay = Overlay {
        width: width as usize,
        height: height as usize,
        keep: Vec::new(),
        add: Vec::new(),
    };
    let ground = if shrink == 1 {
        16.0
    } else {
        f32::from(NEUTRAL)
    };
    let shine = f32::from(GROUND) / 256.0;
    for y in 0..height {
        for x in 0..width {
            let block = (0..shrink * shrink).map(|i| {
                let pixel = ink.get_pixel(x * shrink + i % shrink, y * shrink + i / shrink);
                f32::from(pixel.0[0]) / 255.0
            });
            let covered = block.sum::<f32>() / (shrink * shrink) as f32;
            let keep = shine * (1.0 - covered);
            let add = f32::from(text) * covered + ground * (1.0 - shine) * (1.0 - covered);
            overlay.keep.push((keep * 256.0) as u8);
            overlay.add.push(add.round() as u8);
        }
    }
    overlay
}

/// Draws the card of somebody without a picture: their initials on a disc. `seed` chooses the colour, so that
/// people differ.
pub fn draw_card(card: &mut I420, name: &str, seed: u64) {
    let (ground, disc) = colours(seed);
    card.fill(ground);
    let (width, height) = (card.width(), card.height());
    let diameter = width.min(height) as f32 * 0.5;
    let centre = (
        width as f32 / 2.0,
        height as f32 / 2.0 - height as f32 * 0.03,
    );
    draw_disc(card, centre, diameter / 2.0, disc);
    let Some(line) = Line::new(&initials(name), diameter * 0.46, width as f32) else {
        return;
    };
    let mut ink = GrayImage::new(width as u32, height as u32);
    line.draw(&mut ink, centre.0 - line.width / 2.0, centre.1);
    let white = Yuv::from_rgb(255, 255, 255);
    let half = line.width.max(diameter) / 2.0;
    paint(card, white, centre, half, |x, y| {
        f32::from(ink.get_pixel(x, y).0[0]) / 255.0
    });
}

/// The first letters of the first two words that have a letter in the font, as capitals.
fn initials(name: &str) -> String {
    let drawable = |c: &char| c.is_alphanumeric() && FONT.glyph_id(*c).0 != 0;
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

fn colours(seed: u64) -> (Yuv, Yuv) {
    // A multiplicative hash (Knuth): neighbouring seeds get hues far apart.
    let hue = (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / (1u32 << 24) as f32;
    (colour(hue, 0.38, 0.22), colour(hue, 0.48, 0.42))
}

/// From hue, saturation and lightness, each 0 to 1.
fn colour(hue: f32, saturation: f32, lightness: f32) -> Yuv {
    let channel = |offset: f32| {
        let k = (offset + hue * 12.0) % 12.0;
        let a = saturation * lightness.min(1.0 - lightness);
        let value = lightness - a * (k - 3.0).min(9.0 - k).clamp(-1.0, 1.0);
        (value * 255.0).round() as u8
    };
    Yuv::from_rgb(channel(0.0), channel(8.0), channel(4.0))
}

fn draw_disc(card: &mut I420, centre: (f32, f32), radius: f32, colour: Yuv) {
    paint(card, colour, centre, radius, |x, y| {
        let (dx, dy) = (x as f32 + 0.5 - centre.0, y as f32 + 0.5 - centre.1);
        (radius - dx.hypot(dy) + 0.5).clamp(0.0, 1.0)
    });
}

/// Blends `colour` in where `coverage` (0 to 1, by luma pixel) says so, in a square around `centre` that has
/// `reach` to each side.
fn paint(
    card: &mut I420,
    colour: Yuv,
    centre: (f32, f32),
    reach: f32,
    coverage: impl Fn(u32, u32) -> f32,
) {
    let range = |middle: f32, shrink: f32, limit: usize| {
        let from = ((middle - reach) / shrink - 1.0).max(0.0) as usize;
        let to = ((middle + reach) / shrink + 1.0).max(0.0) as usize;
        from.min(limit)..to.min(limit)
    };
    let values = [colour.y, colour.u, colour.v];
    for ((mut plane, value), shrink) in card.planes_mut().into_iter().zip(values).zip([1u8, 2, 2]) {
        let columns = range(centre.0, f32::from(shrink), plane.width());
        let scale = u32::from(shrink);
        for y in range(centre.1, f32::from(shrink), plane.height()) {
            let row = &mut plane.row(y)[columns.clone()];
            for (x, to) in columns.clone().zip(row) {
                let share = coverage(x as u32 * scale, y as u32 * scale);
                *to = (f32::from(*to) * (1.0 - share) + f32::from(value) * share).round() as u8;
            }
        }
    }
}

/// One line of text, cut with an ellipsis to the room there is.
struct Line {
    glyphs: Vec<(ab_glyph::GlyphId, f32)>,
    scale: PxScale,
    width: f32,
}

impl Line {
    fn new(text: &str, pixels: f32, room: f32) -> Option<Line> {
        let text: Vec<char> = text
            .trim()
            .chars()
            .filter(|c| !is_invisible(*c))
            .take(LONGEST_NAME)
            .collect();
        let line = Line::of(&text, pixels);
        if line.width <= room {
            return (!text.is_empty()).then_some(line);
        }
        (1..text.len())
            .rev()
            .map(|kept| {
                let shorter: Vec<char> = text[..kept].iter().copied().chain(['…']).collect();
                Line::of(&shorter, pixels)
            })
            .find(|line| line.width <= room)
    }

    fn of(text: &[char], pixels: f32) -> Line {
        let font = FONT.as_scaled(pixels);
        let mut line = Line {
            glyphs: Vec::with_capacity(text.len()),
            scale: font.scale,
            width: 0.0,
        };
        let mut previous = None;
        for c in text {
            let id = font.glyph_id(*c);
            if let Some(previous) = previous {
                line.width += font.kern(previous, id);
            }
            line.glyphs.push((id, line.width));
            line.width += font.h_advance(id);
            previous = Some(id);
        }
        line
    }

    /// Adds the text's coverage to `ink`, from `left`, its capitals centred on `middle`.
    fn draw(&self, ink: &mut GrayImage, left: f32, middle: f32) {
        // DejaVu's capitals are 0.73 em high, and its em is 0.86 of the pixel scale (ascent to descent).
        let baseline = middle + self.scale.y * 0.86 * 0.73 / 2.0;
        for (id, x) in &self.glyphs {
            let glyph = id.with_scale_and_position(self.scale, point(left + x, baseline));
            let Some(outline) = FONT.outline_glyph(glyph) else {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    const TILE: Size = Size {
        width: 320,
        height: 180,
    };

    fn labelled(name: &str, tile: Size) -> Option<I420> {
        let label = Label::new(name, name.len().is_multiple_of(2), tile)?;
        let mut picture = I420::new(tile.width, tile.height);
        picture.fill(Yuv {
            y: 120,
            u: 60,
            v: 200,
        });
        label.draw(picture.planes_mut());
        Some(picture)
    }

    fn corner(picture: &I420) -> Vec<u8> {
        let bottom = picture.height() - margin(TILE);
        (bottom - 20..bottom)
            .flat_map(|y| picture.view().y.row(y)[margin(TILE)..100].to_vec())
            .collect()
    }

    #[test]
    fn a_label_has_white_letters_on_a_darkened_ground() {
        let picture = labelled("Ada Lovelace", TILE).unwrap();
        let pixels = corner(&picture);
        assert!(pixels.iter().any(|y| *y > 200), "no letters");
        assert!(pixels.iter().any(|y| *y < 70), "no ground");
        assert_eq!(
            picture.view().y.row(50)[160],
            120,
            "only the corner is touched"
        );
    }

    #[test]
    fn who_is_muted_is_marked() {
        let label = |muted| Label::new("Ada", muted, TILE).unwrap();
        assert!(label(true).luma.width > label(false).luma.width);
        assert!(Label::new("", true, TILE).is_some(), "also without a name");
    }

    #[test]
    fn different_names_look_different() {
        assert_ne!(labelled("Ada", TILE), labelled("Bob", TILE));
    }

    #[test]
    fn a_long_name_is_cut_to_its_tile() {
        let name = "a name that is much too long for any tile ".repeat(20);
        for width in [64, 90, 128, 320] {
            let label = Label::new(&name, true, Size { width, height: 72 }).unwrap();
            assert!(label.luma.width <= width);
        }
    }

    #[test]
    fn names_of_any_kind_are_drawn_without_panicking() {
        for name in [
            "",
            " ",
            "\n\u{0}",
            "é",
            "日本語",
            "👩‍👩‍👧",
            "مرحبا",
            "\u{202e}abc",
            "W\u{301}",
        ] {
            for (width, height) in [(2, 2), (16, 48), (64, 36), (128, 72), (640, 360)] {
                labelled(name, Size { width, height });
                draw_card(&mut I420::new(width, height), name, 7);
            }
        }
        assert!(Label::new(" ", false, TILE).is_none());
        assert!(Label::new("\u{200d}\u{202e}", false, TILE).is_none());
    }

    #[test]
    fn a_tile_without_room_has_no_label() {
        assert!(
            Label::new(
                "Ada",
                false,
                Size {
                    width: 64,
                    height: 36
                }
            )
            .is_none()
        );
    }

    #[test]
    fn cards_differ_by_seed_and_carry_initials() {
        let card = |name, seed| {
            let mut card = I420::new(160, 90);
            draw_card(&mut card, name, seed);
            card
        };
        assert_ne!(card("", 1), card("", 2));
        assert_ne!(card("Ada Lovelace", 1), card("", 1));
        let bright = |picture: &I420| {
            let view = picture.view();
            (0..90).any(|y| view.y.row(y).iter().any(|v| *v > 220))
        };
        assert!(bright(&card("Ada Lovelace", 1)) && !bright(&card("", 1)));
        assert_eq!(initials("  ada byron lovelace"), "AB");
        assert_eq!(initials("日本 émile"), "É", "no empty boxes");
    }
}
