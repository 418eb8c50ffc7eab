//! The places of each kind of picture on a canvas.

use super::{CAMERA_ASPECT, Kind, NARROWEST, Rect, Size, even, grid, shaped};

/// A strip beside a large tile takes this part of a wide canvas' width: on 16:9 five tiles of 16:9 fill it.
const STRIP_SHARE: usize = 5;
/// Tiles in one row below the large tile of a tall canvas.
const STRIP_COLUMNS: usize = 3;
/// Rows below the large tile of a tall canvas.
const STRIP_ROWS: usize = 3;
/// Most tiles beside the large one.
const STRIP_TILES: usize = STRIP_COLUMNS * STRIP_ROWS;
/// The shape that a shared screen gets on a tall canvas: between 16:9 and 4:3, what monitors have.
const SCREEN_ASPECT: f32 = 16.0 / 10.0;

/// Writes the places of a picture into `places`: the large one first, unless the kind is a grid, then `small`
/// ones in reading order.
///
/// All lie inside the canvas, do not overlap, and have even coordinates. There are fewer small ones where the
/// kind or the canvas has no room for as many; a canvas of 16x16 has room for the large one and another.
pub fn places(kind: Kind, small: usize, canvas: Size, places: &mut Vec<Rect>) {
    let canvas = Size {
        width: even(canvas.width),
        height: even(canvas.height),
    };
    if kind == Kind::Grid {
        return grid(small, canvas, CAMERA_ASPECT, places);
    }
    places.clear();
    if canvas.width < 2 || canvas.height < 2 {
        return;
    }
    let has_room = canvas.width >= 4 && canvas.height >= 4;
    match (small, canvas.height > canvas.width) {
        (1.., false) if has_room => beside(kind, small, canvas, places),
        (1.., true) if has_room => below(kind, small, canvas, places),
        _ => places.push(centred(
            kind,
            Rect {
                x: 0,
                y: 0,
                width: canvas.width,
                height: canvas.height,
            },
        )),
    }
}

/// The large tile on the left, one column of small ones at the right edge.
fn beside(kind: Kind, small: usize, canvas: Size, places: &mut Vec<Rect>) {
    let Size { width, height } = canvas;
    let cell = even(width / STRIP_SHARE).max(2);
    let tile_height = even((cell as f32 / CAMERA_ASPECT) as usize).clamp(2, height);
    let tile_width = even((tile_height as f32 * CAMERA_ASPECT * super::WIDEST) as usize).min(cell);
    let tile = Size {
        width: tile_width.max(2),
        height: tile_height,
    };
    let small = small.min(height / tile.height).min(STRIP_TILES);
    places.push(centred(
        kind,
        Rect {
            x: 0,
            y: 0,
            width: width - tile.width,
            height,
        },
    ));
    let top = even((height - small * tile.height) / 2);
    places.extend((0..small).map(|i| Rect {
        x: width - tile.width,
        y: top + i * tile.height,
        width: tile.width,
        height: tile.height,
    }));
}

/// The large tile at the top, rows of small ones below it, all of them in the middle of the canvas.
fn below(kind: Kind, small: usize, canvas: Size, places: &mut Vec<Rect>) {
    let Size { width, height } = canvas;
    let tallest = |width: usize| {
        let tallest = width as f32 / (CAMERA_ASPECT * NARROWEST);
        even(tallest as usize).max(2)
    };
    let cell = even(width / STRIP_COLUMNS).max(2);
    let columns = (width / cell).min(STRIP_COLUMNS);
    let tile = Size {
        width: cell,
        height: tallest(cell).min(even(height / 2)),
    };
    let large = match kind {
        Kind::Screen => even((width as f32 / SCREEN_ASPECT) as usize).max(2),
        _ => tallest(width),
    };
    let large = large.min(height - tile.height);
    let rows = ((height - large) / tile.height).min(STRIP_ROWS);
    let small = small.min(rows * columns);
    let rows = small.div_ceil(columns);
    let top = even((height - large - rows * tile.height) / 2);
    let (x, y, height) = (0, top, large);
    places.push(Rect {
        x,
        y,
        width,
        height,
    });
    places.extend((0..small).map(|i| {
        let row = i / columns;
        let in_row = columns.min(small - row * columns);
        let left = even((width - in_row * tile.width) / 2);
        Rect {
            x: left + i % columns * tile.width,
            y: top + large + row * tile.height,
            width: tile.width,
            height: tile.height,
        }
    }));
}

/// The large tile in the middle of its area: a camera in a shape that it can fill, a screen with all there is.
fn centred(kind: Kind, area: Rect) -> Rect {
    if kind == Kind::Screen {
        return area;
    }
    let Size { width, height } = shaped(area.size(), CAMERA_ASPECT);
    let (width, height) = (width.max(2), height.max(2));
    Rect {
        x: area.x + even((area.width - width) / 2),
        y: area.y + even((area.height - height) / 2),
        width,
        height,
    }
}
