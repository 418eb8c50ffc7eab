//! The canvas and what is on it.

use super::frame::{I420, PlaneMut, View, Yuv};
use super::label::{Label, draw_card};
use super::layout::{self, CAMERA_ASPECT, Rect, Size};
use super::scale::{Fit, TileScaler, cut_mut};

/// Behind and between the tiles: a dark grey.
pub const BACKGROUND: Yuv = Yuv {
    y: 30,
    u: 130,
    v: 127,
};
/// Beside a picture that does not fill its tile: a little lighter.
pub const BARS: Yuv = Yuv {
    y: 46,
    u: 130,
    v: 127,
};
/// Around those who speak: green.
pub const SPEAKING: Yuv = Yuv {
    y: 150,
    u: 90,
    v: 72,
};

/// What a tile shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TileSpec {
    /// Tells tiles apart; no two tiles have the same.
    pub id: u64,
    /// Written on it.
    pub name: String,
    /// Chooses the card's colour.
    pub colour: u64,
    /// Surrounded by a border.
    pub speaking: bool,
    /// Marked as silent, next to the name.
    pub muted: bool,
    /// A shared screen: never cut.
    pub screen: bool,
}

/// What is to be seen in a tile now.
#[derive(Clone, Copy, Debug)]
pub enum Picture<'a> {
    /// The name card: there is no picture.
    Card,
    /// A picture.
    Frame {
        /// The pixels, upright.
        view: View<'a>,
        /// Changes whenever the pixels do; no two different pictures of any tiles share one.
        version: u64,
    },
}

/// Draws the pictures of a room on one canvas, and only what has changed since the last time.
///
/// Allocates when tiles change or a picture's size does, and nothing else.
#[derive(Debug)]
pub struct Compositor {
    canvas: I420,
    tiles: Vec<Tile>,
    rects: Vec<Rect>,
    /// The canvas holds something else than background outside the current tiles.
    stale: bool,
}

impl Compositor {
    /// An empty canvas of this size; odd sides are rounded up.
    pub fn new(width: usize, height: usize) -> Self {
        Compositor {
            canvas: I420::new(width, height),
            tiles: Vec::new(),
            rects: Vec::new(),
            stale: true,
        }
    }

    /// The picture, as of the last [`compose`](Self::compose).
    pub fn canvas(&self) -> &I420 {
        &self.canvas
    }

    /// Who has a tile, in reading order; beyond [`layout::MAX_TILES`] nobody has. Tells whether a tile came, went
    /// or moved.
    pub fn set_tiles(&mut self, specs: &[TileSpec]) -> bool {
        let canvas = Size {
            width: self.canvas.width(),
            height: self.canvas.height(),
        };
        let before = std::mem::take(&mut self.rects);
        layout::grid(specs.len(), canvas, CAMERA_ASPECT, &mut self.rects);
        let placed = specs.iter().zip(&self.rects);
        let same = before == self.rects
            && placed
                .clone()
                .zip(&self.tiles)
                .all(|((spec, _), tile)| spec.id == tile.spec.id);
        if same {
            for ((spec, _), tile) in placed.zip(&mut self.tiles) {
                tile.update(spec);
            }
            return false;
        }
        let mut old = std::mem::take(&mut self.tiles);
        let alone = self.rects.len() == 1;
        self.tiles = placed
            .map(|(spec, rect)| {
                let kept = old
                    .iter()
                    .position(|tile| tile.spec.id == spec.id && tile.rect.size() == rect.size());
                let mut tile = match kept {
                    Some(at) => old.swap_remove(at),
                    None => Tile::new(spec.clone(), *rect),
                };
                tile.update(spec);
                tile.rect = *rect;
                tile.alone = alone;
                tile.drawn = Drawn::Nothing;
                tile
            })
            .collect();
        self.stale = true;
        true
    }

    /// The tiles' ids and places on the canvas, in reading order.
    pub fn tiles(&self) -> impl Iterator<Item = (u64, Rect)> + '_ {
        self.tiles.iter().map(|tile| (tile.spec.id, tile.rect))
    }

    /// Draws what is new. `picture_of` is asked for each tile by its place in the order. Tells whether the
    /// canvas has changed.
    pub fn compose<'a>(&mut self, mut picture_of: impl FnMut(usize) -> Picture<'a>) -> bool {
        let mut changed = self.stale;
        if self.stale {
            self.canvas.fill(BACKGROUND);
            self.stale = false;
        }
        for (i, tile) in self.tiles.iter_mut().enumerate() {
            changed |= tile.compose(&mut self.canvas, picture_of(i));
        }
        changed
    }
}

#[derive(Debug)]
struct Tile {
    spec: TileSpec,
    rect: Rect,
    /// The only tile of its canvas: needs no line towards neighbours.
    alone: bool,
    label: Option<Label>,
    card: Option<I420>,
    scaler: Option<TileScaler>,
    drawn: Drawn,
}

/// What the canvas shows at a tile's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drawn {
    Nothing,
    Card { speaking: bool },
    Frame { version: u64, speaking: bool },
}

impl Tile {
    fn new(spec: TileSpec, rect: Rect) -> Self {
        Tile {
            label: Label::new(&spec.name, spec.muted, rect.size()),
            spec,
            rect,
            alone: false,
            card: None,
            scaler: None,
            drawn: Drawn::Nothing,
        }
    }

    fn update(&mut self, spec: &TileSpec) {
        if self.spec == *spec {
            return;
        }
        let renamed = self.spec.name != spec.name;
        let relabelled = renamed || self.spec.muted != spec.muted;
        if relabelled {
            self.label = Label::new(&spec.name, spec.muted, self.rect.size());
        }
        let recoloured = self.spec.colour != spec.colour;
        if renamed || recoloured {
            self.card = None;
        }
        if relabelled || recoloured || self.spec.screen != spec.screen {
            self.drawn = Drawn::Nothing;
        }
        self.spec.clone_from(spec);
    }

    fn compose(&mut self, canvas: &mut I420, picture: Picture<'_>) -> bool {
        let speaking = self.spec.speaking;
        let wanted = match picture {
            Picture::Card => Drawn::Card { speaking },
            Picture::Frame { version, .. } => Drawn::Frame { version, speaking },
        };
        if wanted == self.drawn {
            return false;
        }
        match picture {
            Picture::Card => self.draw_card(canvas),
            Picture::Frame { view, .. } => self.draw_frame(canvas, view),
        }
        self.draw_border(canvas);
        if let Some(label) = &self.label {
            label.draw(tile_of(canvas, self.rect));
        }
        self.drawn = wanted;
        true
    }

    fn draw_card(&mut self, canvas: &mut I420) {
        let Size { width, height } = self.rect.size();
        let card = self.card.get_or_insert_with(|| {
            let mut card = I420::new(width, height);
            draw_card(&mut card, &self.spec.name, self.spec.colour);
            card
        });
        let card = card.view();
        let planes = [card.y, card.u, card.v];
        for (mut to, from) in tile_of(canvas, self.rect).into_iter().zip(planes) {
            for y in 0..to.height() {
                to.row(y).copy_from_slice(from.row(y));
            }
        }
    }

    fn draw_frame(&mut self, canvas: &mut I420, view: View<'_>) {
        let picture = Size {
            width: view.width(),
            height: view.height(),
        };
        let (tile, fit) = (
            self.rect.size(),
            if self.spec.screen {
                Fit::Whole
            } else {
                Fit::Fill
            },
        );
        let made = matches!(&self.scaler, Some(scaler) if scaler.is_for(picture, tile, fit));
        if !made {
            self.scaler = None;
        }
        let scaler = self
            .scaler
            .get_or_insert_with(|| TileScaler::new(picture, tile, fit));
        // Bars stay as they are from one frame to the next, but for the label and the border on them.
        if scaler.leaves_bars() {
            fill(tile_of(canvas, self.rect), BARS);
        }
        scaler.draw(view, tile_of(canvas, self.rect));
    }

    /// Green around those who speak, otherwise a line that sets neighbours apart.
    fn draw_border(&self, canvas: &mut I420) {
        let Rect { width, height, .. } = self.rect;
        let (colour, thick) = match (self.spec.speaking, self.alone) {
            (true, _) => (SPEAKING, if height >= 120 { 4 } else { 2 }),
            (false, false) => (BACKGROUND, 2),
            (false, true) => return,
        };
        if width <= 2 * thick || height <= 2 * thick {
            return;
        }
        let sides = [
            (0, 0, width, thick),
            (0, height - thick, width, thick),
            (0, 0, thick, height),
            (width - thick, 0, thick, height),
        ];
        for (x, y, width, height) in sides {
            let side = Rect {
                x: self.rect.x + x,
                y: self.rect.y + y,
                width,
                height,
            };
            fill(tile_of(canvas, side), colour);
        }
    }
}

fn tile_of(canvas: &mut I420, rect: Rect) -> [PlaneMut<'_>; 3] {
    let [y, u, v] = canvas.planes_mut();
    [
        cut_mut(y, rect, 1),
        cut_mut(u, rect, 2),
        cut_mut(v, rect, 2),
    ]
}

fn fill(planes: [PlaneMut<'_>; 3], colour: Yuv) {
    let values = [colour.y, colour.u, colour.v];
    for (mut plane, value) in planes.into_iter().zip(values) {
        plane.fill(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(id: u64, name: &str) -> TileSpec {
        TileSpec {
            id,
            name: name.into(),
            colour: id,
            speaking: false,
            muted: false,
            screen: false,
        }
    }

    fn people(count: u64) -> Vec<TileSpec> {
        (1..=count).map(|id| spec(id, "")).collect()
    }

    fn coloured(y: u8) -> I420 {
        let mut picture = I420::new(640, 360);
        picture.fill(Yuv { y, u: 70, v: 180 });
        picture
    }

    fn centres(compositor: &Compositor) -> Vec<u8> {
        let view = compositor.canvas().view();
        compositor
            .tiles()
            .map(|(_, rect)| view.y.row(rect.y + rect.height / 2)[rect.x + rect.width / 2])
            .collect()
    }

    #[test]
    fn each_tile_shows_its_own_picture() {
        let pictures: Vec<I420> = (0..9).map(|i| coloured(40 + 20 * i)).collect();
        let mut compositor = Compositor::new(640, 360);
        assert!(compositor.set_tiles(&people(9)));
        assert!(compositor.compose(|i| Picture::Frame {
            view: pictures[i].view(),
            version: i as u64
        }));
        assert_eq!(
            centres(&compositor),
            [40, 60, 80, 100, 120, 140, 160, 180, 200]
        );
    }

    #[test]
    fn nothing_is_drawn_when_nothing_is_new() {
        let picture = coloured(99);
        let mut compositor = Compositor::new(640, 360);
        compositor.set_tiles(&people(2));
        let mut compose = |version| {
            compositor.compose(|i| match i {
                0 => Picture::Card,
                _ => Picture::Frame {
                    view: picture.view(),
                    version,
                },
            })
        };
        assert!(compose(1));
        assert!(!compose(1));
        assert!(compose(2));
        assert!(
            !compositor.set_tiles(&people(2)),
            "the same people stay in place"
        );
    }

    #[test]
    fn speaking_changes_the_border_and_no_tile() {
        let mut compositor = Compositor::new(640, 360);
        let mut tiles = people(2);
        compositor.set_tiles(&tiles);
        compositor.compose(|_| Picture::Card);
        let quiet = compositor.canvas().clone();
        tiles[1].speaking = true;
        assert!(!compositor.set_tiles(&tiles));
        assert!(compositor.compose(|_| Picture::Card));
        let (_, rect) = compositor.tiles().nth(1).unwrap();
        assert_eq!(
            compositor.canvas().view().y.row(rect.y)[rect.x + 9],
            SPEAKING.y
        );
        tiles[1].speaking = false;
        compositor.set_tiles(&tiles);
        assert!(compositor.compose(|_| Picture::Card));
        assert_eq!(*compositor.canvas(), quiet, "the border leaves no trace");
    }

    #[test]
    fn who_leaves_leaves_no_trace() {
        let mut compositor = Compositor::new(640, 360);
        compositor.set_tiles(&people(3));
        compositor.compose(|_| Picture::Card);
        assert!(compositor.set_tiles(&[]));
        assert!(compositor.compose(|_| Picture::Card));
        let mut empty = I420::new(640, 360);
        empty.fill(BACKGROUND);
        assert_eq!(*compositor.canvas(), empty);
    }

    #[test]
    fn a_picture_that_becomes_smaller_is_letterboxed_over_a_clean_ground() {
        let (wide, tall) = (coloured(200), {
            let mut tall = I420::new(90, 160);
            tall.fill(Yuv {
                y: 90,
                u: 128,
                v: 128,
            });
            tall
        });
        let mut compositor = Compositor::new(640, 360);
        compositor.set_tiles(&people(1));
        let pictures = [&wide, &tall];
        for (version, picture) in pictures.into_iter().enumerate() {
            compositor.compose(|_| Picture::Frame {
                view: picture.view(),
                version: version as u64,
            });
        }
        let row = compositor.canvas().view().y.row(180).to_vec();
        assert_eq!((row[20], row[320], row[620]), (BARS.y, 90, BARS.y));
    }

    #[test]
    fn a_new_name_is_written_at_once() {
        let mut compositor = Compositor::new(640, 360);
        compositor.set_tiles(&[spec(1, "Ada")]);
        compositor.compose(|_| Picture::Card);
        let before = compositor.canvas().clone();
        assert!(!compositor.set_tiles(&[spec(1, "Bob")]));
        assert!(compositor.compose(|_| Picture::Card));
        assert_ne!(*compositor.canvas(), before);
    }

    #[test]
    fn any_number_of_people_on_any_canvas_is_composed() {
        let picture = coloured(150);
        for (width, height) in [(2, 2), (64, 64), (180, 320), (640, 360)] {
            for count in [0, 1, 2, 7, 25, 49, 60] {
                let mut compositor = Compositor::new(width, height);
                compositor.set_tiles(&people(count));
                compositor.compose(|i| match i % 2 {
                    0 => Picture::Card,
                    _ => Picture::Frame {
                        view: picture.view(),
                        version: 1,
                    },
                });
                assert!(compositor.tiles().count() <= 49);
            }
        }
    }
}
