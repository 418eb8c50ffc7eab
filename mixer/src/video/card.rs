//! Cards for those without a picture: their avatar or their initials on a disc.

use image::GrayImage;

use super::avatar::Avatar;
use super::frame::{I420, Yuv};
use super::layout::Size;
use super::scale::{Fit, TileScaler};
use super::text::{Line, initials};
use super::theme::Theme;

/// Draws a card that fills `card`. `seed` chooses its colour, so that people differ.
pub fn draw_card(card: &mut I420, theme: &Theme, name: &str, seed: u64, avatar: Option<&Avatar>) {
    let (ground, disc) = colours(seed);
    card.fill(ground);
    let (width, height) = (card.width(), card.height());
    let diameter = width.min(height) as f32 * 0.5;
    let centre = (
        width as f32 / 2.0,
        height as f32 / 2.0 - height as f32 * 0.03,
    );
    if let Some(avatar) = avatar {
        return draw_avatar(card, avatar, centre, diameter);
    }
    paint(card, disc, centre, diameter / 2.0, round(centre, diameter));
    let font = &theme.font.0;
    let initials = initials(font, name);
    let Some(line) = Line::new(font, &initials, diameter * 0.46, width as f32) else {
        return;
    };
    let mut ink = GrayImage::new(width as u32, height as u32);
    line.draw(&mut ink, centre.0 - line.width / 2.0, centre.1);
    let half = line.width.max(diameter) / 2.0;
    paint(card, theme.colours.text, centre, half, |x, y| {
        f32::from(ink.get_pixel(x, y).0[0]) / 255.0
    });
}

/// The avatar in a disc.
fn draw_avatar(card: &mut I420, avatar: &Avatar, centre: (f32, f32), diameter: f32) {
    let side = ((diameter as usize).next_multiple_of(2)).max(2);
    let corner = |middle: f32| ((middle - side as f32 / 2.0).max(0.0) as usize) & !1;
    let (left, top) = (corner(centre.0), corner(centre.1));
    let picture = avatar.picture.view();
    let size = |width, height| Size { width, height };
    let mut scaled = I420::new(side, side);
    let from = size(picture.width(), picture.height());
    TileScaler::new(from, size(side, side), Fit::Whole).draw(picture, scaled.planes_mut());
    let middle = (
        left as f32 + side as f32 / 2.0,
        top as f32 + side as f32 / 2.0,
    );
    let coverage = round(middle, side as f32);
    let scaled = scaled.view();
    let planes = card.planes_mut().into_iter();
    for ((mut to, from), by) in planes.zip([scaled.y, scaled.u, scaled.v]).zip([1, 2, 2]) {
        let (left, top) = (left / by, top / by);
        for y in 0..from.height().min(to.height().saturating_sub(top)) {
            let row = to.row(top + y).iter_mut().skip(left);
            for (x, (to, from)) in row.zip(from.row(y)).enumerate() {
                let share = coverage(((left + x) * by) as u32, ((top + y) * by) as u32);
                *to = blend(*to, *from, share);
            }
        }
    }
}

fn blend(below: u8, above: u8, share: f32) -> u8 {
    (f32::from(below) * (1.0 - share) + f32::from(above) * share).round() as u8
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

/// The coverage of a disc at a luma pixel.
fn round(centre: (f32, f32), diameter: f32) -> impl Fn(u32, u32) -> f32 {
    move |x, y| {
        let (dx, dy) = (x as f32 + 0.5 - centre.0, y as f32 + 0.5 - centre.1);
        (diameter / 2.0 - dx.hypot(dy) + 0.5).clamp(0.0, 1.0)
    }
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
                *to = blend(*to, value, coverage(x as u32 * scale, y as u32 * scale));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::video::avatar::AVATAR_SIDE;

    fn card(name: &str, seed: u64, avatar: Option<&Avatar>) -> I420 {
        let mut card = I420::new(160, 90);
        draw_card(&mut card, &Theme::default(), name, seed, avatar);
        card
    }

    #[test]
    fn cards_differ_by_seed_and_carry_initials() {
        assert_ne!(card("", 1, None), card("", 2, None));
        assert_ne!(card("Ada Lovelace", 1, None), card("", 1, None));
        let bright = |picture: &I420| {
            let view = picture.view();
            (0..90).any(|y| view.y.row(y).iter().any(|v| *v > 220))
        };
        assert!(bright(&card("Ada Lovelace", 1, None)) && !bright(&card("", 1, None)));
        let initials = |name| initials(&Theme::default().font.0, name);
        assert_eq!(initials("  ada byron lovelace"), "AB");
        assert_eq!(initials("日本 émile"), "É", "no empty boxes");
    }

    #[test]
    fn an_avatar_stands_in_a_disc_in_the_place_of_initials() {
        let mut picture = I420::new(AVATAR_SIDE, AVATAR_SIDE);
        picture.fill(Yuv {
            y: 200,
            u: 20,
            v: 30,
        });
        let avatar = Avatar { picture };
        let card = card("Ada", 1, Some(&avatar));
        let view = card.view();
        assert_eq!((view.y.row(42)[80], view.u.row(21)[40]), (200, 20));
        assert_ne!(view.y.row(42)[80 - 24], 200, "outside of the disc");
        for (width, height) in [(2, 2), (16, 90), (90, 16), (1280, 720)] {
            let mut card = I420::new(width, height);
            draw_card(&mut card, &Theme::default(), "Ada", 1, Some(&avatar));
        }
    }

    #[test]
    fn names_of_any_kind_are_drawn_on_cards_of_any_size() {
        for name in [
            "",
            " ",
            "\n\u{0}",
            "é",
            "日本語",
            "👩‍👩‍👧",
            "مرحبا",
            "\u{202e}abc",
        ] {
            for (width, height) in [(2, 2), (16, 48), (64, 36), (640, 360)] {
                let mut card = I420::new(width, height);
                draw_card(&mut card, &Theme::default(), name, 7, None);
            }
        }
    }
}
