//! The canvas and what is on it.

use std::sync::Arc;

use super::avatar::Avatar;
use super::card::draw_card;
use super::frame::{I420, PlaneMut, View, Yuv};
use super::label::{Label, Signs};
use super::layout::{Arrangement, Person, Placed, Rect, Scene, Size};
use super::scale::{Fit, TileScaler, cut_mut};
use super::theme::Theme;

/// Somebody, or a screen, that may have a tile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TileSpec {
    /// Tells tiles apart; no two tiles have the same.
    pub id: u64,
    /// Written on it.
    pub name: String,
    /// Chooses the card's colour.
    pub colour: u64,
    /// Surrounded by a border.
    pub speaking: bool,
    /// See [`Person::spoke`].
    pub spoke: u64,
    /// Marked as silent, next to the name.
    pub muted: bool,
    /// Marked as without a camera, next to the name.
    pub camera_off: bool,
    /// A shared screen: never cut.
    pub screen: bool,
    /// On the card, in place of initials.
    pub avatar: Option<Arc<Avatar>>,
}

impl TileSpec {
    /// What the layout has to know.
    pub fn person(&self) -> Person {
        Person {
            id: self.id,
            spoke: self.spoke,
            speaking: self.speaking,
            camera: !self.camera_off,
            screen: self.screen,
        }
    }

    /// Becomes like `other`, in the memory that it has: somebody who begins to speak costs no allocation.
    fn assign(&mut self, other: &TileSpec) {
        let mut name = std::mem::take(&mut self.name);
        name.clone_from(&other.name);
        *self = TileSpec {
            id: other.id,
            name,
            colour: other.colour,
            speaking: other.speaking,
            spoke: other.spoke,
            muted: other.muted,
            camera_off: other.camera_off,
            screen: other.screen,
            avatar: other.avatar.clone(),
        };
    }
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
    theme: Theme,
    arrangement: Arrangement,
    people: Vec<Person>,
    tiles: Vec<Tile>,
    /// The canvas holds something else than background outside the current tiles.
    stale: bool,
}

impl Compositor {
    /// An empty canvas of this size; odd sides are rounded up.
    pub fn new(width: usize, height: usize, theme: Theme) -> Self {
        let canvas = I420::new(width, height);
        let size = Size {
            width: canvas.width(),
            height: canvas.height(),
        };
        Compositor {
            canvas,
            theme,
            arrangement: Arrangement::new(size),
            people: Vec::new(),
            tiles: Vec::new(),
            stale: true,
        }
    }

    /// The picture, as of the last [`compose`](Self::compose).
    pub fn canvas(&self) -> &I420 {
        &self.canvas
    }

    /// Who is there, and how the picture is divided; not everybody need be seen. Tells whether a tile came, went or
    /// moved.
    pub fn set_tiles(&mut self, scene: Scene, specs: &[TileSpec]) -> bool {
        self.people.clear();
        self.people.extend(specs.iter().map(TileSpec::person));
        let placed = self.arrangement.arrange(scene, &self.people);
        let spec_of = |id: u64| specs.iter().position(|spec| spec.id == id);
        let stays = |(placed, tile): (&Placed, &Tile)| {
            (placed.id, placed.rect) == (tile.spec.id, tile.rect)
        };
        if placed.len() == self.tiles.len() && placed.iter().zip(&self.tiles).all(stays) {
            for tile in &mut self.tiles {
                if let Some(at) = spec_of(tile.spec.id) {
                    tile.index = at;
                    tile.update(&specs[at], &self.theme);
                }
            }
            return false;
        }
        let mut old = std::mem::take(&mut self.tiles);
        let alone = placed.len() == 1;
        let new = placed.iter().filter_map(|placed| {
            let (at, rect) = (spec_of(placed.id)?, placed.rect);
            let kept = old
                .iter()
                .position(|tile| tile.spec.id == placed.id && tile.rect.size() == rect.size());
            let mut tile = match kept {
                Some(kept) => old.swap_remove(kept),
                None => Tile::new(specs[at].clone(), rect, &self.theme),
            };
            tile.update(&specs[at], &self.theme);
            (tile.index, tile.rect, tile.alone) = (at, rect, alone);
            tile.drawn = Drawn::Nothing;
            Some(tile)
        });
        self.tiles = new.collect();
        self.stale = true;
        true
    }

    /// Everybody sits where they sit on another canvas of the same shape, as far as there is such a place here. Before
    /// the first [`set_tiles`](Self::set_tiles).
    pub fn seat_like(&mut self, other: &Compositor, scene: Scene) {
        self.arrangement.seat_like(&other.arrangement, scene);
    }

    /// The tiles' ids and places on the canvas: the large one first, then in reading order.
    pub fn tiles(&self) -> impl Iterator<Item = (u64, Rect)> + '_ {
        self.tiles.iter().map(|tile| (tile.spec.id, tile.rect))
    }

    /// Draws what is new. `picture_of` is asked for each tile by its place in the list that
    /// [`set_tiles`](Self::set_tiles) got. Tells whether the canvas has changed.
    pub fn compose<'a>(&mut self, mut picture_of: impl FnMut(usize) -> Picture<'a>) -> bool {
        let mut changed = self.stale;
        if self.stale {
            self.canvas.fill(self.theme.colours.background);
            self.stale = false;
        }
        for tile in &mut self.tiles {
            let picture = picture_of(tile.index);
            changed |= tile.compose(&mut self.canvas, &self.theme, picture);
        }
        changed
    }
}

#[derive(Debug)]
struct Tile {
    spec: TileSpec,
    /// Of the spec, in the list of all.
    index: usize,
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
    fn new(spec: TileSpec, rect: Rect, theme: &Theme) -> Self {
        Tile {
            label: label(&spec, rect, theme),
            spec,
            index: 0,
            rect,
            alone: false,
            card: None,
            scaler: None,
            drawn: Drawn::Nothing,
        }
    }

    fn update(&mut self, spec: &TileSpec, theme: &Theme) {
        if self.spec == *spec {
            return;
        }
        let old = &self.spec;
        let renamed = old.name != spec.name;
        let signs = |spec: &TileSpec| (spec.muted, spec.camera_off);
        let relabelled = renamed || signs(old) != signs(spec);
        let new_card = renamed || old.colour != spec.colour || old.avatar != spec.avatar;
        if relabelled || new_card || old.screen != spec.screen {
            self.drawn = Drawn::Nothing;
        }
        if relabelled {
            self.label = label(spec, self.rect, theme);
        }
        if new_card {
            self.card = None;
        }
        self.spec.assign(spec);
    }

    fn compose(&mut self, canvas: &mut I420, theme: &Theme, picture: Picture<'_>) -> bool {
        let speaking = self.spec.speaking;
        let wanted = match picture {
            Picture::Card => Drawn::Card { speaking },
            Picture::Frame { version, .. } => Drawn::Frame { version, speaking },
        };
        if wanted == self.drawn {
            return false;
        }
        match picture {
            Picture::Card => self.draw_card(canvas, theme),
            Picture::Frame { view, .. } => self.draw_frame(canvas, theme, view),
        }
        self.draw_border(canvas, theme);
        if let Some(label) = &self.label {
            label.draw(tile_of(canvas, self.rect));
        }
        self.drawn = wanted;
        true
    }

    fn draw_card(&mut self, canvas: &mut I420, theme: &Theme) {
        let Size { width, height } = self.rect.size();
        let spec = &self.spec;
        let card = self.card.get_or_insert_with(|| {
            let mut card = I420::new(width, height);
            let avatar = spec.avatar.as_deref();
            draw_card(&mut card, theme, &spec.name, spec.colour, avatar);
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

    fn draw_frame(&mut self, canvas: &mut I420, theme: &Theme, view: View<'_>) {
        let picture = Size {
            width: view.width(),
            height: view.height(),
        };
        let tile = self.rect.size();
        let (fit, beside) = if self.spec.screen {
            (Fit::Whole, theme.colours.background)
        } else {
            (Fit::Fill, theme.colours.bars)
        };
        let made = matches!(&self.scaler, Some(scaler) if scaler.is_for(picture, tile, fit));
        if !made {
            self.scaler = None;
        }
        let scaler = self
            .scaler
            .get_or_insert_with(|| TileScaler::new(picture, tile, fit));
        // Bars stay as they are from one frame to the next, but for the label and the border on them.
        if scaler.leaves_bars() {
            fill(tile_of(canvas, self.rect), beside);
        }
        scaler.draw(view, tile_of(canvas, self.rect));
    }

    /// Coloured around those who speak, otherwise a line that sets neighbours apart.
    fn draw_border(&self, canvas: &mut I420, theme: &Theme) {
        let Rect { width, height, .. } = self.rect;
        let (colour, thick) = match (self.spec.speaking, self.alone) {
            (true, _) => (theme.colours.speaking, if height >= 120 { 4 } else { 2 }),
            (false, false) => (theme.colours.background, 2),
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

fn label(spec: &TileSpec, rect: Rect, theme: &Theme) -> Option<Label> {
    let signs = Signs {
        muted: spec.muted,
        camera_off: spec.camera_off,
    };
    Label::new(&spec.name, signs, rect.size(), theme)
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
    use crate::video::layout::{Kind, MAX_TILES};
    use crate::video::theme::Colours;

    fn new(width: usize, height: usize) -> Compositor {
        Compositor::new(width, height, Theme::default())
    }

    fn spec(id: u64, name: &str) -> TileSpec {
        TileSpec {
            id,
            name: name.into(),
            colour: id,
            ..TileSpec::default()
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
        let mut compositor = new(640, 360);
        assert!(compositor.set_tiles(Scene::default(), &people(9)));
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
        let mut compositor = new(640, 360);
        compositor.set_tiles(Scene::default(), &people(2));
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
            !compositor.set_tiles(Scene::default(), &people(2)),
            "the same people stay in place"
        );
    }

    #[test]
    fn speaking_changes_the_border_and_no_tile() {
        let mut compositor = new(640, 360);
        let mut tiles = people(2);
        compositor.set_tiles(Scene::default(), &tiles);
        compositor.compose(|_| Picture::Card);
        let quiet = compositor.canvas().clone();
        tiles[1].speaking = true;
        assert!(!compositor.set_tiles(Scene::default(), &tiles));
        assert!(compositor.compose(|_| Picture::Card));
        let (_, rect) = compositor.tiles().nth(1).unwrap();
        assert_eq!(
            compositor.canvas().view().y.row(rect.y)[rect.x + 9],
            Colours::default().speaking.y
        );
        tiles[1].speaking = false;
        compositor.set_tiles(Scene::default(), &tiles);
        assert!(compositor.compose(|_| Picture::Card));
        assert_eq!(*compositor.canvas(), quiet, "the border leaves no trace");
    }

    #[test]
    fn who_leaves_leaves_no_trace() {
        let mut compositor = new(640, 360);
        compositor.set_tiles(Scene::default(), &people(3));
        compositor.compose(|_| Picture::Card);
        assert!(compositor.set_tiles(Scene::default(), &[]));
        assert!(compositor.compose(|_| Picture::Card));
        let mut empty = I420::new(640, 360);
        empty.fill(Colours::default().background);
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
        let mut compositor = new(640, 360);
        compositor.set_tiles(Scene::default(), &people(1));
        let pictures = [&wide, &tall];
        for (version, picture) in pictures.into_iter().enumerate() {
            compositor.compose(|_| Picture::Frame {
                view: picture.view(),
                version: version as u64,
            });
        }
        let row = compositor.canvas().view().y.row(180).to_vec();
        assert_eq!(
            (row[20], row[320], row[620]),
            (Colours::default().bars.y, 90, Colours::default().bars.y)
        );
    }

    #[test]
    fn a_new_name_is_written_at_once() {
        let mut compositor = new(640, 360);
        compositor.set_tiles(Scene::default(), &[spec(1, "Ada")]);
        compositor.compose(|_| Picture::Card);
        let before = compositor.canvas().clone();
        assert!(!compositor.set_tiles(Scene::default(), &[spec(1, "Bob")]));
        assert!(compositor.compose(|_| Picture::Card));
        assert_ne!(*compositor.canvas(), before);
    }

    #[test]
    fn any_number_of_people_on_any_canvas_is_composed() {
        let picture = coloured(150);
        for (width, height) in [(2, 2), (64, 64), (180, 320), (640, 360)] {
            for count in [0, 1, 2, 7, 25, 49, 60] {
                let mut compositor = new(width, height);
                compositor.set_tiles(Scene::default(), &people(count));
                compositor.compose(|i| match i % 2 {
                    0 => Picture::Card,
                    _ => Picture::Frame {
                        view: picture.view(),
                        version: 1,
                    },
                });
                assert!(compositor.tiles().count() <= MAX_TILES);
            }
        }
    }

    #[test]
    fn a_large_tile_shows_who_is_named_in_the_scene_and_a_screen_is_never_cut() {
        let mut tiles = people(4);
        tiles[3].screen = true;
        // Left and right thirds of a picture that is much wider than the tile.
        let mut wide = I420::new(900, 100);
        let [mut y, ..] = wide.planes_mut();
        (0..100).for_each(|row| y.row(row)[..60].fill(230));
        let mut compositor = new(640, 360);
        let scene = Scene {
            kind: Kind::Screen,
            large: Some(4),
        };
        assert!(compositor.set_tiles(scene, &tiles));
        compositor.compose(|i| match i {
            3 => Picture::Frame {
                view: wide.view(),
                version: 1,
            },
            _ => Picture::Card,
        });
        let (id, rect) = compositor.tiles().next().unwrap();
        assert_eq!(id, 4);
        let row = compositor.canvas().view().y.row(rect.height / 2).to_vec();
        assert_eq!((row[20], row[rect.width - 20]), (230, 16));
    }

    #[test]
    fn an_order_of_people_that_changes_moves_no_picture() {
        let pictures: Vec<I420> = (0..4).map(|i| coloured(40 + 20 * i)).collect();
        let mut compositor = new(640, 360);
        let mut tiles = people(4);
        compositor.set_tiles(Scene::default(), &tiles);
        tiles.swap(0, 3);
        assert!(!compositor.set_tiles(Scene::default(), &tiles));
        compositor.compose(|i| Picture::Frame {
            view: pictures[i].view(),
            version: i as u64,
        });
        assert_eq!(centres(&compositor), [100, 60, 80, 40]);
    }
}
