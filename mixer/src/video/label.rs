//! Names and signs on pictures.
//!
//! Text is drawn once, when a name or a tile's size is new; per frame only the finished [`Label`] is laid over
//! the picture.

use image::GrayImage;

use super::frame::PlaneMut;
use super::layout::Size;
use super::simd;
use super::text::Line;
use super::theme::Theme;

/// Tiles lower than this have no room for a name that can be read.
const LOWEST_TILE: usize = 48;
/// How much of the picture shines through a label's ground, of 256.
const GROUND: u8 = 110;

/// What stands in front of a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signs {
    /// A crossed-out microphone.
    pub muted: bool,
    /// A crossed-out camera.
    pub camera_off: bool,
}

/// A name and its signs on a translucent ground, ready to be laid over a tile's lower left corner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    planes: [Overlay; 3],
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
    /// `None` when there is nothing to write, and for a tile that is too small to read on.
    pub fn new(name: &str, signs: Signs, tile: Size, theme: &Theme) -> Option<Label> {
        if tile.height < LOWEST_TILE {
            return None;
        }
        let height = (tile.height / 9).clamp(14, 34) & !1;
        let padding = height / 3;
        let wanted = [
            (signs.muted, microphone as fn(f32, f32) -> f32),
            (signs.camera_off, camera),
        ];
        let drawn: Vec<_> = wanted
            .iter()
            .filter(|(on, _)| *on)
            .map(|(_, s)| *s)
            .collect();
        let before_text = drawn.len() * height;
        let room = tile
            .width
            .checked_sub(2 * padding + before_text + 2 * margin(tile))?;
        let line = Line::new(&theme.font.0, name, height as f32 * 0.72, room as f32);
        if line.is_none() && drawn.is_empty() {
            return None;
        }
        let text_width = line.as_ref().map_or(0.0, |line| line.width);
        let width = (text_width.ceil() as usize + before_text + 2 * padding) & !1;
        let mut ink = GrayImage::new(width as u32, height as u32);
        for (i, sign) in drawn.into_iter().enumerate() {
            draw_sign(&mut ink, (padding + i * height) as f32, height as f32, sign);
        }
        if let Some(line) = line {
            let left = (padding + before_text) as f32;
            line.draw(&mut ink, left, height as f32 / 2.0);
        }
        let (text, ground) = (theme.colours.text, theme.colours.label);
        Some(Label {
            planes: [
                overlay(&ink, 1, text.y, ground.y),
                overlay(&ink, 2, text.u, ground.u),
                overlay(&ink, 2, text.v, ground.v),
            ],
        })
    }

    /// Lays the label over the lower left corner of a tile: its luma and two chroma planes.
    pub fn draw(&self, tile: [PlaneMut<'_>; 3]) {
        let overlays = self.planes.iter().zip([1, 2, 2]);
        for (mut plane, (overlay, shrunk)) in tile.into_iter().zip(overlays) {
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

/// Draws `sign` with a stroke through it, in a square of side `height` that begins at `left`.
fn draw_sign(ink: &mut GrayImage, left: f32, height: f32, sign: fn(f32, f32) -> f32) {
    for y in 0..ink.height() {
        for x in 0..(height as u32).min(ink.width() - left as u32) {
            // From the square's middle, in halves of the label's height, y downwards.
            let px = (x as f32 + 0.5) / height * 2.0 - 0.9;
            let py = (y as f32 + 0.5) / height * 2.0 - 1.0;
            let along = ((px + py) / 2.0).clamp(-0.55, 0.55);
            let stroke = (px - along).hypot(py - along);
            // The stroke stands out by a gap around it.
            let distance = sign(px, py).max(0.2 - stroke).min(stroke - 0.08);
            let coverage = (0.5 - distance * height / 2.0).clamp(0.0, 1.0);
            let pixel = ink.get_pixel_mut(left as u32 + x, y);
            pixel.0[0] = (coverage * 255.0).round() as u8;
        }
    }
}

/// Signed distance to a microphone.
fn microphone(px: f32, py: f32) -> f32 {
    let segment = |from: f32, to: f32| px.hypot(py - py.clamp(from, to));
    let capsule = segment(-0.4, -0.05) - 0.2;
    let bow = if py > -0.05 {
        (px.hypot(py + 0.05) - 0.38).abs() - 0.06
    } else {
        1.0
    };
    let stand = segment(0.33, 0.55) - 0.07;
    capsule.min(bow).min(stand)
}

/// Signed distance to a camera: a box with a lens on its right.
fn camera(px: f32, py: f32) -> f32 {
    let (dx, dy) = ((px + 0.16).abs() - 0.34, py.abs() - 0.24);
    let body = dx.max(0.0).hypot(dy.max(0.0)) + dx.max(dy).min(0.0) - 0.08;
    let opening = py.abs() - 0.08 - (px - 0.32).max(0.0) * 0.7;
    let lens = opening.max(0.32 - px).max(px - 0.62);
    body.min(lens)
}

/// Distance of a label from its tile's edges.
fn margin(tile: Size) -> usize {
    (tile.height / 30).clamp(4, 10) & !1
}

/// From coverage (0: ground, 255: text) to keep and add, at `1 / shrink` of the size. Text has the value `text`;
/// the ground lets the picture shine through.
fn overlay(ink: &GrayImage, shrink: u32, text: u8, ground: u8) -> Overlay {
    let (width, height) = (ink.width() / shrink, ink.height() / shrink);
    let mut overlay = Overlay {
        width: width as usize,
        height: height as usize,
        keep: Vec::new(),
        add: Vec::new(),
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
            let add =
                f32::from(text) * covered + f32::from(ground) * (1.0 - shine) * (1.0 - covered);
            overlay.keep.push((keep * 256.0) as u8);
            overlay.add.push(add.round() as u8);
        }
    }
    overlay
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::video::frame::{I420, Yuv};

    const TILE: Size = Size {
        width: 320,
        height: 180,
    };

    fn labelled(name: &str, tile: Size) -> Option<I420> {
        let signs = Signs {
            muted: name.len().is_multiple_of(2),
            camera_off: name.len().is_multiple_of(3),
        };
        let label = Label::new(name, signs, tile, &Theme::default())?;
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
    fn who_is_muted_or_has_no_camera_is_marked() {
        let label = |name, muted, camera_off| {
            let signs = Signs { muted, camera_off };
            Label::new(name, signs, TILE, &Theme::default())
        };
        let width = |muted, camera_off| label("Ada", muted, camera_off).unwrap().planes[0].width;
        assert!(width(true, false) > width(false, false));
        assert!(width(true, true) > width(false, true));
        assert_ne!(label("", true, false), label("", false, true));
        assert!(label("", true, false).is_some(), "also without a name");
    }

    #[test]
    fn text_and_ground_have_the_colours_of_the_theme() {
        let mut theme = Theme::default();
        theme.colours.text = Yuv::from_rgb(255, 0, 0);
        theme.colours.label = Yuv::from_rgb(0, 0, 255);
        let label = Label::new("HHHH", Signs::default(), TILE, &theme).unwrap();
        let mut picture = I420::new(TILE.width, TILE.height);
        label.draw(picture.planes_mut());
        let view = picture.view();
        let v = (80..90).flat_map(|y| view.v.row(y)[..40].to_vec());
        assert!(v.clone().any(|v| v > 190) && v.clone().any(|v| v < 128));
    }

    #[test]
    fn different_names_look_different() {
        assert_ne!(labelled("Ada", TILE), labelled("Bob", TILE));
    }

    #[test]
    fn a_long_name_is_cut_to_its_tile() {
        let name = "a name that is much too long for any tile ".repeat(20);
        for width in [64, 90, 128, 320] {
            let signs = Signs {
                muted: true,
                camera_off: width > 64,
            };
            let size = Size { width, height: 72 };
            let label = Label::new(&name, signs, size, &Theme::default()).unwrap();
            assert!(label.planes[0].width <= width);
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
            }
        }
        for name in [" ", "\u{200d}\u{202e}"] {
            assert!(Label::new(name, Signs::default(), TILE, &Theme::default()).is_none());
        }
    }

    #[test]
    fn a_tile_without_room_has_no_label() {
        assert!(
            labelled(
                "Ada",
                Size {
                    width: 64,
                    height: 36
                }
            )
            .is_none()
        );
    }
}
