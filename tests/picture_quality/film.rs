//! What a camera films, with the number of each frame written into it, and what its tile should show.

use talksy_mixer::video::frame::Plane;
use talksy_mixer::video::{I420, Rect};

use crate::measure::ideal;
use crate::scenes::{LOOP, Scene};

/// Bits of the number: as many as frames in a loop have.
const BITS: usize = LOOP.trailing_zeros() as usize;
/// Side of a bit's block, in pixels of the camera's picture.
const BLOCK: usize = 16;
/// The first block's upper left corner.
const CORNER: (usize, usize) = (24, 312);
const DARK: u8 = 40;
const LIGHT: u8 = 200;

/// A loop of frames.
pub struct Film {
    /// Of the camera.
    pub frames: Vec<I420>,
    /// Their luma at the tile's size.
    pub ideals: Vec<Vec<u8>>,
}

impl Film {
    /// The scene of this seed, for a tile of this size.
    pub fn new(seed: u64, width: usize, height: usize, tile: Rect) -> Self {
        let scene = Scene::new(seed, width, height);
        let mut picture = I420::new(0, 0);
        let film = |frame: usize| {
            scene.draw(frame, &mut picture);
            number(&mut picture, frame);
            picture.clone()
        };
        let frames: Vec<I420> = (0..LOOP).map(film).collect();
        let ideals = frames
            .iter()
            .map(|frame| ideal(frame.view().y, tile.width, tile.height));
        Film {
            ideals: ideals.collect(),
            frames,
        }
    }
}

fn number(picture: &mut I420, frame: usize) {
    let [mut luma, ..] = picture.planes_mut();
    for bit in 0..BITS {
        let value = if frame >> bit & 1 == 1 { LIGHT } else { DARK };
        for y in 0..BLOCK {
            luma.row(CORNER.1 + y)[CORNER.0 + bit * BLOCK..][..BLOCK].fill(value);
        }
    }
}

/// The number of the frame that a tile shows, if it is right at all.
pub fn number_in(canvas: Plane<'_>, tile: Rect, camera: (usize, usize)) -> usize {
    let bit = |bit: usize| {
        let (x, y) = (CORNER.0 + bit * BLOCK + BLOCK / 2, CORNER.1 + BLOCK / 2);
        let row = canvas.row(tile.y + y * tile.height / camera.1);
        let value = row[tile.x + x * tile.width / camera.0];
        usize::from(value > (DARK + LIGHT) / 2) << bit
    };
    (0..BITS).map(bit).sum()
}
