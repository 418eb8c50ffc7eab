//! Equal tiles.

use super::{MAX_TILES, Rect, Size, even, shaped};

/// Writes the tiles of `count` participants on `canvas` into `tiles`, in reading order.
///
/// All tiles have one size, the largest that any number of columns allows, and stand side by side in the middle of the
/// canvas; the last row is centred. They lie
/// inside the canvas, do not overlap, and have even coordinates. There are `count` of them, but at most
/// [`MAX_TILES`]; none on a canvas that has no room for them at 2x2 pixels each.
pub fn grid(count: usize, canvas: Size, aspect: f32, tiles: &mut Vec<Rect>) {
    tiles.clear();
    let count = count.min(MAX_TILES);
    let Some((columns, tile)) = best_division(count, canvas, aspect) else {
        return;
    };
    let rows = count.div_ceil(columns);
    let top = even((canvas.height - tile.height * rows) / 2);
    for row in 0..rows {
        let in_row = columns.min(count - row * columns);
        let left = even((canvas.width - tile.width * in_row) / 2);
        tiles.extend((0..in_row).map(|column| Rect {
            x: left + column * tile.width,
            y: top + row * tile.height,
            width: tile.width,
            height: tile.height,
        }));
    }
}

/// Columns and tile size with the largest tile; of equals, the fewest empty cells.
fn best_division(count: usize, canvas: Size, aspect: f32) -> Option<(usize, Size)> {
    let mut best: Option<(usize, Size)> = None;
    let mut best_score = (0, usize::MAX);
    for columns in 1..=count {
        let rows = count.div_ceil(columns);
        let tile = shaped(cell(canvas, columns, rows), aspect);
        let score = (tile.width * tile.height, columns * rows);
        let better = score.0 > best_score.0 || (score.0 == best_score.0 && score.1 < best_score.1);
        if score.0 > 0 && better {
            best = Some((columns, tile));
            best_score = score;
        }
    }
    best
}

fn cell(canvas: Size, columns: usize, rows: usize) -> Size {
    Size {
        width: even(canvas.width / columns),
        height: even(canvas.height / rows),
    }
}

#[cfg(test)]
mod tests {
    use super::super::CAMERA_ASPECT;
    use super::*;
    use proptest::prelude::*;

    fn tiles(count: usize, width: usize, height: usize) -> Vec<Rect> {
        let mut tiles = Vec::new();
        grid(count, Size { width, height }, CAMERA_ASPECT, &mut tiles);
        tiles
    }

    fn covered(tiles: &[Rect], width: usize, height: usize) -> f64 {
        let area: usize = tiles.iter().map(|tile| tile.width * tile.height).sum();
        area as f64 / (width * height) as f64
    }

    fn assert_sound(tiles: &[Rect], width: usize, height: usize) {
        for (i, a) in tiles.iter().enumerate() {
            assert!(
                a.width > 0 && a.height > 0 && a.x + a.width <= width && a.y + a.height <= height
            );
            assert!([a.x, a.y, a.width, a.height].iter().all(|n| n % 2 == 0));
            for b in &tiles[i + 1..] {
                let apart = a.x + a.width <= b.x
                    || b.x + b.width <= a.x
                    || a.y + a.height <= b.y
                    || b.y + b.height <= a.y;
                assert!(apart, "{a:?} overlaps {b:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn tiles_are_even_disjoint_and_inside_for_any_canvas(
            count in 1usize..=49, width in 98usize..2200, height in 98usize..2200, aspect in 0.4f32..2.5,
        ) {
            let mut tiles = Vec::new();
            grid(count, Size { width, height }, aspect, &mut tiles);
            prop_assert_eq!(tiles.len(), count.min(MAX_TILES));
            assert_sound(&tiles, width, height);
        }

        #[test]
        fn a_canvas_without_room_has_no_tiles_and_any_other_has_sound_ones(
            count in 0usize..=60, width in 0usize..120, height in 0usize..120,
        ) {
            let tiles = tiles(count, width, height);
            prop_assert!(tiles.len() <= count.min(MAX_TILES));
            assert_sound(&tiles, width, height);
        }
    }

    #[test]
    fn one_person_fills_the_canvas() {
        assert_eq!(
            tiles(1, 640, 360),
            [Rect {
                x: 0,
                y: 0,
                width: 640,
                height: 360
            }]
        );
    }

    #[test]
    fn four_nine_sixteen_and_twenty_five_people_make_squares_without_rest() {
        for side in 2..=5 {
            let tiles = tiles(side * side, 640, 360);
            assert_eq!(tiles[0].width, even(640 / side));
            assert_eq!(tiles[0].height, even(360 / side));
        }
    }

    #[test]
    fn two_people_stand_side_by_side_on_a_wide_canvas_and_above_each_other_on_a_tall_one() {
        let wide = tiles(2, 640, 360);
        assert_eq!(wide[0].y, wide[1].y);
        let tall = tiles(2, 360, 640);
        assert_eq!(tall[0].x, tall[1].x);
        assert!(covered(&wide, 640, 360) > 0.7 && covered(&tall, 360, 640) > 0.9);
    }

    #[test]
    fn the_last_row_is_centred() {
        let tiles = tiles(5, 640, 360);
        let (left, right) = (tiles[3].x, 640 - tiles[4].x - tiles[4].width);
        assert_eq!(tiles[3].y, tiles[4].y);
        assert!(left > 0 && left.abs_diff(right) <= 2);
    }

    #[test]
    fn almost_half_of_the_canvas_is_used_whatever_the_number() {
        for (width, height) in [(640, 360), (320, 180), (1280, 720), (360, 640), (640, 480)] {
            for count in 1..=49 {
                let share = covered(&tiles(count, width, height), width, height);
                assert!(share > 0.45, "{count} on {width}x{height}: {share}");
            }
        }
    }

    #[test]
    fn a_camera_picture_never_loses_more_than_a_third_in_a_tile_of_its_shape() {
        for count in 1..=49 {
            let tile = tiles(count, 640, 360)[0];
            let ratio = tile.width as f32 / tile.height as f32 / CAMERA_ASPECT;
            assert!((0.64..1.2).contains(&ratio), "{count}: {ratio}");
        }
    }

    #[test]
    fn nobody_has_no_tile() {
        assert!(tiles(0, 640, 360).is_empty());
        assert!(tiles(3, 0, 0).is_empty());
    }
}
