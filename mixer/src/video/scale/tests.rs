use super::*;
use crate::video::frame::I420;
use proptest::prelude::*;

fn size(width: usize, height: usize) -> Size {
    Size { width, height }
}

fn scaled(source: &[u8], from: Size, to: Size) -> Vec<u8> {
    let mut out = vec![0; to.width * to.height];
    PlaneScaler::new(from, to).run(
        Plane::new(source, from.width, from.width, from.height).unwrap(),
        PlaneMut::new(&mut out, to.width, to.width, to.height).unwrap(),
    );
    out
}

/// Bilinear interpolation in floating point, straight from its definition.
fn reference(source: &[u8], from: Size, to: Size) -> Vec<f64> {
    let at = |x: usize, y: usize| {
        f64::from(source[y.min(from.height - 1) * from.width + x.min(from.width - 1)])
    };
    let position = |i: usize, from: usize, to: usize| {
        ((i as f64 + 0.5) * from as f64 / to as f64 - 0.5).clamp(0.0, from as f64 - 1.0)
    };
    let mut out = Vec::new();
    for y in 0..to.height {
        for x in 0..to.width {
            let (px, py) = (
                position(x, from.width, to.width),
                position(y, from.height, to.height),
            );
            let (x0, y0, fx, fy) = (px as usize, py as usize, px.fract(), py.fract());
            let top = at(x0, y0) * (1.0 - fx) + at(x0 + 1, y0) * fx;
            let bottom = at(x0, y0 + 1) * (1.0 - fx) + at(x0 + 1, y0 + 1) * fx;
            out.push(top * (1.0 - fy) + bottom * fy);
        }
    }
    out
}

/// A picture without sharp edges.
fn waves(from: Size) -> Vec<u8> {
    (0..from.width * from.height)
        .map(|i| {
            let (x, y) = ((i % from.width) as f64, (i / from.width) as f64);
            (128.0 + 60.0 * (x / 9.0).sin() + 50.0 * (y / 7.0).cos()) as u8
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn interpolation_follows_its_definition(
        width in 1usize..70, height in 1usize..40, to_width in 1usize..90, to_height in 1usize..50,
    ) {
        let (from, to) = (size(width, height), size(to_width, to_height));
        prop_assume!(width <= 2 * to_width || height <= 2 * to_height);
        prop_assume!((width, height) != (2 * to_width, 2 * to_height));
        let source = waves(from);
        for (got, want) in scaled(&source, from, to).iter().zip(reference(&source, from, to)) {
            prop_assert!((f64::from(*got) - want).abs() < 2.5, "{got} for {want}");
        }
    }

    #[test]
    fn one_colour_stays_that_colour_at_any_ratio(
        width in 1usize..200, height in 1usize..100, to_width in 1usize..200, to_height in 1usize..100, value: u8,
    ) {
        let from = size(width, height);
        let out = scaled(&vec![value; width * height], from, size(to_width, to_height));
        prop_assert!(out.iter().all(|got| *got == value));
    }

    #[test]
    fn any_picture_goes_into_any_tile_without_leaving_it(
        width in 1usize..400, height in 1usize..400, to_width in 1usize..300, to_height in 1usize..300,
        fill: bool,
    ) {
        let (picture, tile) = (size(2 * width, 2 * height), size(2 * to_width, 2 * to_height));
        let fit = if fill { Fit::Fill } else { Fit::Whole };
        let Placement { source, target } = place(picture, tile, fit);
        for (rect, outer) in [(source, picture), (target, tile)] {
            prop_assert!(rect.width > 0 && rect.x + rect.width <= outer.width);
            prop_assert!(rect.height > 0 && rect.y + rect.height <= outer.height);
            prop_assert!([rect.x, rect.y, rect.width, rect.height].iter().all(|n| n % 2 == 0));
        }
        let area = source.width * source.height;
        prop_assert!(3 * area >= picture.width * picture.height, "more than evenness explains is cut");
        if !fill {
            prop_assert_eq!(area, picture.width * picture.height);
        }
    }
}

#[test]
fn a_picture_of_the_right_size_is_copied() {
    let from = size(64, 36);
    let source: Vec<u8> = (0..64 * 36).map(|i| (i * 7) as u8).collect();
    assert_eq!(scaled(&source, from, from), source);
}

#[test]
fn half_size_is_the_mean_of_four() {
    assert_eq!(scaled(&[10, 20, 30, 41], size(2, 2), size(1, 1)), [25]);
}

/// The mean of the covered area in floating point, straight from its definition.
fn area_reference(source: &[u8], from: Size, to: Size) -> Vec<f64> {
    let cover = |i: usize, at: usize, from: usize, to: usize| {
        let (begin, end) = (
            i as f64 * from as f64 / to as f64,
            (i + 1) as f64 * from as f64 / to as f64,
        );
        (end.min(at as f64 + 1.0) - begin.max(at as f64)).max(0.0) / (end - begin)
    };
    let mut out = Vec::new();
    for y in 0..to.height {
        for x in 0..to.width {
            let mut sum = 0.0;
            for sy in y * from.height / to.height..from.height {
                let weight = cover(y, sy, from.height, to.height);
                if weight == 0.0 {
                    break;
                }
                for sx in x * from.width / to.width..from.width {
                    let share = cover(x, sx, from.width, to.width);
                    if share == 0.0 {
                        break;
                    }
                    sum += weight * share * f64::from(source[sy * from.width + sx]);
                }
            }
            out.push(sum);
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn areas_follow_their_definition_on_noise(
        to_width in 1usize..60, to_height in 1usize..30, more in (1usize..=100, 1usize..=100), seed: u64,
    ) {
        let to = size(to_width, to_height);
        // More than twice, at most three times too large.
        let grown = |side: usize, more: usize| 2 * side + (side * more).div_ceil(100);
        let from = size(grown(to_width, more.0), grown(to_height, more.1));
        let mut state = seed | 1;
        let source: Vec<u8> = (0..from.width * from.height)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 56) as u8
            })
            .collect();
        for (got, want) in scaled(&source, from, to).iter().zip(area_reference(&source, from, to)) {
            prop_assert!((f64::from(*got) - want).abs() < 8.0, "{} for {}", got, want);
        }
    }
}

#[test]
fn a_quarter_is_the_mean_of_sixteen_rounded_once() {
    let source: Vec<u8> = (0..16).map(|i| i * 15 + u8::from(i > 3)).collect();
    let sum: u32 = source.iter().map(|v| u32::from(*v)).sum();
    let mean = ((sum + 8) / 16) as u8;
    assert_eq!(scaled(&source, size(4, 4), size(1, 1)), [mean]);
}

#[test]
fn a_large_shrink_takes_the_mean_of_what_it_covers_and_skips_nothing() {
    // A checkerboard of single pixels is grey from afar; picking single pixels would give black or white.
    let from = size(640, 360);
    let source: Vec<u8> = (0..640 * 360)
        .map(|i: usize| {
            if (i % 640 + i / 640).is_multiple_of(2) {
                0
            } else {
                255
            }
        })
        .collect();
    for to in [size(160, 90), size(128, 72), size(106, 60), size(64, 36)] {
        assert!(
            scaled(&source, from, to)
                .iter()
                .all(|v| v.abs_diff(128) <= 1)
        );
    }
}

#[test]
fn columns_that_the_fast_path_cannot_reach_are_interpolated_all_the_same() {
    // Five times too wide, but not too high: no halving, and a group of eight spans forty columns.
    let (from, to) = (size(500, 20), size(100, 20));
    let source = waves(from);
    let pairs = scaled(&source, from, to);
    for (got, want) in pairs.iter().zip(reference(&source, from, to)) {
        assert!((f64::from(*got) - want).abs() < 2.5);
    }
}

#[test]
fn cameras_fill_their_tile_when_at_most_a_third_is_cut() {
    let placed = place(size(640, 360), size(320, 270), Fit::Fill);
    assert_eq!(placed.target.size(), size(320, 270));
    assert_eq!(placed.source.size(), size(426, 360));
    let portrait = place(size(360, 640), size(320, 180), Fit::Fill);
    assert_eq!(portrait.source.size(), size(360, 640));
    assert!(portrait.target.size().width.abs_diff(100) <= 2);
}

#[test]
fn screens_are_always_shown_whole() {
    let placed = place(size(1280, 800), size(320, 180), Fit::Whole);
    assert_eq!(placed.source.size(), size(1280, 800));
    assert_eq!(placed.target.size(), size(288, 180));
    assert_eq!(placed.target.x, 16);
}

#[test]
fn a_tile_of_nearly_the_pictures_shape_takes_it_whole() {
    let placed = place(size(640, 360), size(212, 120), Fit::Fill);
    assert_eq!(placed.source.size(), size(640, 360));
}

#[test]
fn letterboxing_leaves_the_bars_untouched() {
    let (picture, tile) = (size(64, 64), size(128, 64));
    let mut source = I420::new(64, 64);
    source.fill(crate::video::frame::Yuv {
        y: 200,
        u: 60,
        v: 70,
    });
    let mut target = I420::new(128, 64);
    let mut scaler = TileScaler::new(picture, tile, Fit::Whole);
    assert!(scaler.leaves_bars() && scaler.is_for(picture, tile, Fit::Whole));
    scaler.draw(source.view(), target.planes_mut());
    let view = target.view();
    assert_eq!((view.y.row(30)[10], view.y.row(30)[64]), (16, 200));
    assert_eq!((view.u.row(15)[5], view.u.row(15)[32]), (128, 60));
}
