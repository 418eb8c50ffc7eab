//! Who is where: pure functions from people, canvas and wishes to tiles.
//!
//! [`Director`] decides for a room what kind of picture it is and who is large in it ([`Scene`]); [`Arrangement`]
//! gives everybody who is seen a place on one canvas. Both remember what they decided before, so that nobody
//! moves without cause.

mod arrangement;
mod director;
mod grid;
mod places;
#[cfg(test)]
mod tests;

pub use arrangement::{Arrangement, Placed};
pub use director::{CROSSTALK, Director, TURN};
pub use grid::grid;
pub use places::places;

/// The most tiles that a picture has.
pub const MAX_TILES: usize = 25;

/// The shape most cameras have; tiles are made for it.
pub const CAMERA_ASPECT: f32 = 16.0 / 9.0;

/// A tile may be narrower than the camera's shape by this factor: a third of the picture is cut at its sides.
const NARROWEST: f32 = 2.0 / 3.0;
/// A tile may be wider by this factor: more would cut heads.
const WIDEST: f32 = 9.0 / 8.0;

/// Width and height in luma pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Size {
    /// Pixels per row.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

/// A rectangle of luma pixels; all four numbers are even.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rect {
    /// Left edge.
    pub x: usize,
    /// Top edge.
    pub y: usize,
    /// Pixels per row.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Rect {
    /// Its measures.
    pub fn size(&self) -> Size {
        Size {
            width: self.width,
            height: self.height,
        }
    }
}

/// How a picture is divided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Equal tiles for everybody.
    #[default]
    Grid,
    /// Who speaks is large, with a strip of others.
    Speaker,
    /// Somebody chosen is large, with a strip of others.
    Pinned,
    /// A shared screen is large and whole, people are small.
    Screen,
}

/// What a room asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The kind of picture.
    pub kind: Kind,
    /// Who is large where the kind is [`Kind::Pinned`].
    pub pinned: Option<u64>,
}

/// Somebody who may be seen, or a screen that somebody shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Person {
    /// Tells people and screens apart.
    pub id: u64,
    /// Larger for who began or stopped speaking (a screen: began to be shared) later; 0 for who never did.
    pub spoke: u64,
    /// Speaks now.
    pub speaking: bool,
    /// There is a picture to be seen.
    pub camera: bool,
    /// It is a shared screen.
    pub screen: bool,
}

/// What kind of picture it is now, and who is large in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scene {
    /// The kind.
    pub kind: Kind,
    /// The id of who is large; `None` in a grid only.
    pub large: Option<u64>,
}

fn even(value: usize) -> usize {
    value & !1
}

/// The largest tile inside `cell` whose shape a camera picture can fill.
fn shaped(cell: Size, aspect: f32) -> Size {
    let widest = (cell.height as f32 * aspect * WIDEST) as usize;
    let tallest = (cell.width as f32 / (aspect * NARROWEST)) as usize;
    Size {
        width: even(cell.width.min(widest)),
        height: even(cell.height.min(tallest)),
    }
}
