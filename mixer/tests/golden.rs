//! What the pictures look like: every kind of layout for many sizes of rooms, compared with pictures in `golden/`.
//!
//! `UPDATE_GOLDEN=1 cargo test -p talksy-mixer --test golden` writes them anew: look at them before they are kept.

use std::path::PathBuf;
use std::sync::Arc;

use image::{ImageReader, Rgb, RgbImage};
use talksy_mixer::video::frame::Yuv;
use talksy_mixer::video::layout::{Kind, Scene};
use talksy_mixer::video::{Avatar, Compositor, I420, Picture, Theme, TileSpec};

/// Mean difference of a channel that another processor's rounding may make, of 255.
const MEAN_TOLERANCE: f64 = 1.0;
/// A pixel that differs by more than this is wrong, and one in a thousand may be.
const PIXEL_TOLERANCE: u8 = 24;

const COUNTS: [u64; 9] = [1, 2, 3, 4, 5, 9, 16, 25, 40];
const NAMES: [&str; 10] = [
    "Ada Lovelace",
    "Çem",
    "Grace Brewster Murray Hopper of Arlington",
    "Łukasz",
    "Ольга",
    "Jean-Luc",
    "Zoë",
    "Barbara Liskov",
    "Alan",
    "Κατερίνα",
];
const SCREEN: u64 = 1000;

#[test]
fn grids_look_as_they_should() {
    all_sizes(Kind::Grid);
}

#[test]
fn speaker_layouts_look_as_they_should() {
    all_sizes(Kind::Speaker);
}

#[test]
fn pinned_layouts_look_as_they_should() {
    all_sizes(Kind::Pinned);
}

#[test]
fn screen_layouts_look_as_they_should() {
    all_sizes(Kind::Screen);
}

fn all_sizes(kind: Kind) {
    let mut wrong = Vec::new();
    for (shape, width, height) in [("landscape", 640, 360), ("portrait", 360, 640)] {
        for count in COUNTS {
            let name = format!("{kind:?}-{shape}-{count}").to_lowercase();
            wrong.extend(compare(&name, &composed(kind, count, width, height)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A room of `count` people: every third shows a card, some with an avatar, some are muted, one speaks.
fn composed(kind: Kind, count: u64, width: usize, height: usize) -> RgbImage {
    let avatar = Arc::new(avatar());
    let mut specs: Vec<TileSpec> = (0..count)
        .map(|id| TileSpec {
            id,
            name: NAMES[id as usize % NAMES.len()].to_owned(),
            colour: id,
            speaking: id == 1,
            spoke: u64::from(id == 1),
            muted: id % 4 == 2,
            camera_off: has_card(id),
            screen: false,
            avatar: (id % 6 == 5).then(|| avatar.clone()),
        })
        .collect();
    if kind == Kind::Screen {
        specs.push(TileSpec {
            id: SCREEN,
            name: "Ada Lovelace (screen)".to_owned(),
            screen: true,
            ..TileSpec::default()
        });
    }
    let large = match kind {
        Kind::Grid => None,
        Kind::Speaker => Some(1.min(count - 1)),
        Kind::Pinned => Some(0),
        Kind::Screen => Some(SCREEN),
    };
    let pictures: Vec<I420> = specs.iter().map(|spec| picture(spec.id)).collect();
    let mut compositor = Compositor::new(width, height, Theme::default());
    compositor.set_tiles(Scene { kind, large }, &specs);
    compositor.compose(|at| match has_card(specs[at].id) {
        true => Picture::Card,
        false => Picture::Frame {
            view: pictures[at].view(),
            version: at as u64,
        },
    });
    to_rgb(compositor.canvas())
}

fn has_card(id: u64) -> bool {
    id != SCREEN && id % 3 == 2
}

/// A person before a wall, or a page of text.
fn picture(id: u64) -> I420 {
    let rgb = |i: u64| {
        let channel = |n: u64| 60 + (i.wrapping_mul(n) % 130) as u8;
        Yuv::from_rgb(channel(71), channel(43), channel(97))
    };
    let (wall, shirt, skin) = (rgb(id + 1), rgb(id + 7), Yuv::from_rgb(214, 172, 142));
    let (ink, paper) = (Yuv::from_rgb(40, 44, 60), Yuv::from_rgb(246, 246, 240));
    // The seventh has a phone, upright.
    let (width, height) = if id % 7 == 6 && id != SCREEN {
        (360, 640)
    } else {
        (640, 360)
    };
    let (middle, side) = (width as f32 / 2.0, width.min(height) as f32);
    let colour = |x: usize, y: usize| {
        if id == SCREEN {
            let in_line = y % 30 < 14 && y > 30 && x > 40 && x < 600 - (y * 37) % 200;
            return if in_line && !(x / 9 + y / 30).is_multiple_of(6) {
                ink
            } else {
                paper
            };
        }
        let (dx, y) = ((x as f32 - middle) / side, y as f32 / height as f32);
        let head = (dx / 0.17).powi(2) + ((y - 0.42) / 0.24).powi(2) < 1.0;
        let body = (dx / 0.42).powi(2) + ((y - 1.1) / 0.42).powi(2) < 1.0;
        match (head, body) {
            (true, _) => skin,
            (_, true) => shirt,
            _ => wall,
        }
    };
    drawn(width, height, colour)
}

fn drawn(width: usize, height: usize, colour: impl Fn(usize, usize) -> Yuv) -> I420 {
    let mut picture = I420::new(width, height);
    let parts: [fn(Yuv) -> u8; 3] = [|c| c.y, |c| c.u, |c| c.v];
    for ((mut plane, part), by) in picture.planes_mut().into_iter().zip(parts).zip([1, 2, 2]) {
        for y in 0..plane.height() {
            for (x, value) in plane.row(y).iter_mut().enumerate() {
                *value = part(colour(x * by, y * by));
            }
        }
    }
    picture
}

/// Two halves with a sun.
fn avatar() -> Avatar {
    let image = RgbImage::from_fn(120, 120, |x, y| {
        let sun = (f64::from(x) - 60.0).hypot(f64::from(y) - 62.0) < 26.0;
        match (sun, y < 70) {
            (true, true) => Rgb([250, 200, 60]),
            (_, true) => Rgb([70, 130, 220]),
            _ => Rgb([30, 60, 110]),
        }
    });
    let mut png = std::io::Cursor::new(Vec::new());
    image
        .write_to(&mut png, image::ImageFormat::Png)
        .expect("an encoded image");
    Avatar::decode(png.get_ref()).expect("an avatar")
}

/// Full-range RGB from BT.601 in limited range.
fn to_rgb(picture: &I420) -> RgbImage {
    let view = picture.view();
    RgbImage::from_fn(view.width() as u32, view.height() as u32, |x, y| {
        let (x, y) = (x as usize, y as usize);
        let luma = 1.164 * (f32::from(view.y.row(y)[x]) - 16.0);
        let u = f32::from(view.u.row(y / 2)[x / 2]) - 128.0;
        let v = f32::from(view.v.row(y / 2)[x / 2]) - 128.0;
        let channel = |value: f32| value.round().clamp(0.0, 255.0) as u8;
        Rgb([
            channel(luma + 1.596 * v),
            channel(luma - 0.392 * u - 0.813 * v),
            channel(luma + 2.017 * u),
        ])
    })
}

/// A sentence when the picture is not the one in the file.
fn compare(name: &str, picture: &RgbImage) -> Option<String> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let path = folder.join(format!("{name}.png"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        picture
            .save(&path)
            .expect("a golden picture that is written");
        return None;
    }
    let golden = match ImageReader::open(&path).map(ImageReader::decode) {
        Ok(Ok(golden)) => golden.to_rgb8(),
        _ => return Some(format!("{name}: there is no {}", path.display())),
    };
    if golden.dimensions() != picture.dimensions() {
        return Some(format!("{name} has another size"));
    }
    let (mut sum, mut wrong) = (0u64, 0usize);
    for (a, b) in picture.pixels().zip(golden.pixels()) {
        let differences = a.0.iter().zip(b.0).map(|(a, b)| a.abs_diff(b));
        sum += differences.clone().map(u64::from).sum::<u64>();
        wrong += usize::from(differences.max() > Some(PIXEL_TOLERANCE));
    }
    let pixels = picture.pixels().len();
    let mean = sum as f64 / (3 * pixels) as f64;
    let differs = mean > MEAN_TOLERANCE || 1000 * wrong > pixels;
    differs.then(|| {
        let seen = std::env::temp_dir().join(format!("{name}.png"));
        let kept = match picture.save(&seen) {
            Ok(()) => format!("it is in {}", seen.display()),
            Err(error) => format!("it could not be kept: {error}"),
        };
        format!("{name}: mean difference {mean:.2}, {wrong} pixels are wrong; {kept}")
    })
}
