//! Scaling a picture into its tile.
//!
//! Where a picture goes is [`place`]'s decision; [`TileScaler`] carries it out with tables that are made once per
//! pair of sizes. A picture of the tile's size is copied; half or a quarter of it is the exact mean of 2x2 or 4x4 pixels.
//! Up to twice too large, or too small, it is interpolated between its neighbours (bilinear); up to three times too
//! large, each pixel is the mean of the area that it covers; beyond, it is halved first.

use super::frame::{Plane, PlaneMut, View};
use super::layout::{Rect, Size};
use super::simd::{self, GROUP, Group, ONE, REACH};

/// Whether a picture may lose its edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Fills the tile if that cuts at most a third of the picture; else it is shown whole. For cameras.
    Fill,
    /// Always shown whole, with bars where it leaves the tile empty. For screens.
    Whole,
}

/// The share of a picture that has to stay visible for [`Fit::Fill`] to cut it: two thirds, less what
/// evenness costs.
const LEAST_VISIBLE: f64 = 0.65;
/// A picture whose shape differs by less is stretched to the tile: cutting two rows would cost exact ratios.
const SAME_SHAPE: f64 = 0.015;

/// Which part of a picture goes where inside its tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Of the picture.
    pub source: Rect,
    /// Of the tile, whose own corner is (0, 0).
    pub target: Rect,
}

/// Centres a picture in a tile. Both have even, positive sides.
pub fn place(picture: Size, tile: Size, fit: Fit) -> Placement {
    let shape = |size: Size| size.width as f64 / size.height as f64;
    let ratio = shape(picture) / shape(tile);
    let visible = ratio.min(1.0 / ratio);
    if 1.0 - visible < SAME_SHAPE {
        return Placement {
            source: whole(picture),
            target: whole(tile),
        };
    }
    match fit {
        Fit::Fill if visible >= LEAST_VISIBLE => Placement {
            source: inside(picture, shape(tile)),
            target: whole(tile),
        },
        _ => Placement {
            source: whole(picture),
            target: inside(tile, shape(picture)),
        },
    }
}

fn whole(size: Size) -> Rect {
    Rect {
        x: 0,
        y: 0,
        width: size.width,
        height: size.height,
    }
}

/// The largest even rectangle of this shape in the middle of `outer`.
fn inside(outer: Size, shape: f64) -> Rect {
    let side = |length: f64, limit: usize| (length as usize & !1).clamp(2, limit);
    let width = side(outer.height as f64 * shape + 1.0, outer.width);
    let height = side(outer.width as f64 / shape + 1.0, outer.height);
    Rect {
        x: ((outer.width - width) / 2) & !1,
        y: ((outer.height - height) / 2) & !1,
        width,
        height,
    }
}

/// Scales pictures of one size into tiles of one size.
#[derive(Debug)]
pub struct TileScaler {
    picture: Size,
    tile: Size,
    fit: Fit,
    placement: Placement,
    luma: PlaneScaler,
    chroma: PlaneScaler,
}

impl TileScaler {
    /// Makes the tables. Sides are even and positive.
    pub fn new(picture: Size, tile: Size, fit: Fit) -> Self {
        let placement = place(picture, tile, fit);
        let (source, target) = (placement.source.size(), placement.target.size());
        TileScaler {
            picture,
            tile,
            fit,
            placement,
            luma: PlaneScaler::new(source, target),
            chroma: PlaneScaler::new(halved(source), halved(target)),
        }
    }

    /// Whether it was made for these sizes.
    pub fn is_for(&self, picture: Size, tile: Size, fit: Fit) -> bool {
        (self.picture, self.tile, self.fit) == (picture, tile, fit)
    }

    /// Whether bars stay visible beside the picture.
    pub fn leaves_bars(&self) -> bool {
        self.placement.target.size() != self.tile
    }

    /// Draws `picture` into the tile's planes. Panics when a size is not the one it was made for.
    pub fn draw(&mut self, picture: View<'_>, tile: [PlaneMut<'_>; 3]) {
        let Placement { source, target } = self.placement;
        let [y, u, v] = tile;
        self.luma
            .run(cut(picture.y, source, 1), cut_mut(y, target, 1));
        self.chroma
            .run(cut(picture.u, source, 2), cut_mut(u, target, 2));
        self.chroma
            .run(cut(picture.v, source, 2), cut_mut(v, target, 2));
    }
}

fn halved(size: Size) -> Size {
    Size {
        width: size.width / 2,
        height: size.height / 2,
    }
}

fn cut(plane: Plane<'_>, rect: Rect, by: usize) -> Plane<'_> {
    plane.crop(rect.x / by, rect.y / by, rect.width / by, rect.height / by)
}

/// `rect` of a plane that is `by` times smaller than luma.
pub(super) fn cut_mut(plane: PlaneMut<'_>, rect: Rect, by: usize) -> PlaneMut<'_> {
    plane.crop(rect.x / by, rect.y / by, rect.width / by, rect.height / by)
}

/// Scales planes of one size to another.
#[derive(Debug)]
pub struct PlaneScaler {
    /// What each halving but a last, exact one writes to.
    halves: Vec<Half>,
    last: Last,
}

#[derive(Debug)]
struct Half {
    size: Size,
    data: Vec<u8>,
}

#[derive(Debug)]
enum Last {
    Copy,
    Halve,
    Quarter,
    Interpolate(Interpolation),
    Average(Area),
}

impl PlaneScaler {
    /// From `source` to `target`, both positive.
    pub fn new(source: Size, target: Size) -> Self {
        let mut size = source;
        let mut halves = Vec::new();
        let is_exact = |size: Size, times: usize| {
            (size.width, size.height) == (times * target.width, times * target.height)
        };
        let beyond = |size: Size, times: usize| {
            size.width > times * target.width && size.height > times * target.height
        };
        while beyond(size, 3) && !is_exact(size, 4) {
            size = halved(size);
            halves.push(Half {
                size,
                data: vec![0; size.width * size.height],
            });
        }
        let last = if size == target {
            Last::Copy
        } else if is_exact(size, 2) {
            Last::Halve
        } else if is_exact(size, 4) {
            Last::Quarter
        } else if let Some(area) = Area::new(size, target).filter(|_| beyond(size, 2)) {
            Last::Average(area)
        } else {
            Last::Interpolate(Interpolation::new(size, target))
        };
        PlaneScaler { halves, last }
    }

    /// Panics when a size is not the one it was made for.
    pub fn run(&mut self, source: Plane<'_>, mut target: PlaneMut<'_>) {
        let mut current = source;
        for half in &mut self.halves {
            let Size { width, height } = half.size;
            for (y, row) in half.data.chunks_exact_mut(width).enumerate() {
                simd::halve(current.row(2 * y), current.row(2 * y + 1), row);
            }
            current = Plane::new(&half.data, width, width, height).expect("sized for the plane");
        }
        match &mut self.last {
            Last::Copy => {
                for y in 0..target.height() {
                    target.row(y).copy_from_slice(current.row(y));
                }
            }
            Last::Halve => {
                for y in 0..target.height() {
                    simd::halve(current.row(2 * y), current.row(2 * y + 1), target.row(y));
                }
            }
            Last::Quarter => {
                for y in 0..target.height() {
                    let rows = [0, 1, 2, 3].map(|i| current.row(4 * y + i));
                    simd::quarter(rows, target.row(y));
                }
            }
            Last::Interpolate(interpolation) => interpolation.run(current, target),
            Last::Average(area) => area.run(current, target),
        }
    }
}

/// Bilinear interpolation, first between rows, then between columns; weights in 64ths.
#[derive(Debug)]
struct Interpolation {
    rows: Vec<Tap>,
    columns: Vec<Tap>,
    /// `columns` in eights, as many whole eights as there are; empty where a group would reach too far.
    groups: Vec<Group>,
    /// One blended source row, and room for a group to read beyond it.
    row: Vec<u8>,
}

/// One output between two neighbours: `index` and the one after, `weight` of [`ONE`] for the latter.
#[derive(Clone, Copy, Debug)]
struct Tap {
    index: usize,
    weight: u16,
}

impl Interpolation {
    fn new(source: Size, target: Size) -> Self {
        let columns = taps(source.width, target.width);
        Interpolation {
            rows: taps(source.height, target.height),
            groups: groups(&columns),
            columns,
            row: vec![0; source.width + REACH],
        }
    }

    fn run(&mut self, source: Plane<'_>, mut target: PlaneMut<'_>) {
        let width = source.width();
        for (y, tap) in self.rows.iter().enumerate() {
            let below = (tap.index + 1).min(source.height() - 1);
            let row = &mut self.row[..width];
            simd::blend(source.row(tap.index), source.row(below), tap.weight, row);
            let out = target.row(y);
            let grouped = self.groups.len() * GROUP;
            simd::stretch(&self.row, &self.groups, &mut out[..grouped]);
            for (out, tap) in out[grouped..].iter_mut().zip(&self.columns[grouped..]) {
                *out = tap.of(&self.row);
            }
        }
    }
}

impl Tap {
    fn of(self, row: &[u8]) -> u8 {
        let (left, right) = (u16::from(row[self.index]), u16::from(row[self.index + 1]));
        ((left * (ONE - self.weight) + right * self.weight + ONE / 2) / ONE) as u8
    }
}

/// Pixel centres of the target in the source, in 64ths of a pixel.
fn taps(source: usize, target: usize) -> Vec<Tap> {
    let one = usize::from(ONE);
    let last = (source - 1) * one;
    (0..target)
        .map(|i| {
            let centre = ((2 * i + 1) * source * one) / (2 * target);
            let position = centre.saturating_sub(one / 2).min(last);
            Tap {
                index: position / one,
                weight: (position % one) as u16,
            }
        })
        .collect()
}

fn groups(columns: &[Tap]) -> Vec<Group> {
    let made: Option<Vec<Group>> = columns.chunks_exact(GROUP).map(group).collect();
    made.unwrap_or_default()
}

fn group(taps: &[Tap]) -> Option<Group> {
    let base = taps.first()?.index;
    let mut group = Group {
        base,
        shuffle: [0; REACH],
        weights: [0; REACH],
    };
    for (i, tap) in taps.iter().enumerate() {
        let offset = tap.index - base;
        if offset + 1 >= REACH {
            return None;
        }
        group.shuffle[2 * i] = offset as u8;
        group.shuffle[2 * i + 1] = offset as u8 + 1;
        group.weights[2 * i] = (ONE - tap.weight) as i8;
        group.weights[2 * i + 1] = tap.weight as i8;
    }
    Some(group)
}

/// The mean of the area that an output covers, up to four pixels of each side; weights in 64ths.
#[derive(Debug)]
struct Area {
    rows: Vec<Span>,
    columns: Vec<Span>,
    /// `columns` in fours, as many whole fours as there are.
    groups: Vec<Group>,
    /// One mixed source row, and room for a group to read beyond it.
    row: Vec<u8>,
}

/// The pixels from `index` on that one output covers, each with its share of [`ONE`].
#[derive(Clone, Copy, Debug)]
struct Span {
    index: usize,
    weights: [u8; 4],
}

impl Area {
    /// `None` when an output would cover more than four pixels.
    fn new(source: Size, target: Size) -> Option<Self> {
        let columns = spans(source.width, target.width)?;
        Some(Area {
            rows: spans(source.height, target.height)?,
            groups: columns.chunks_exact(GROUP / 2).map(area_group).collect(),
            columns,
            row: vec![0; source.width + REACH],
        })
    }

    fn run(&mut self, source: Plane<'_>, mut target: PlaneMut<'_>) {
        let (width, last) = (source.width(), source.height() - 1);
        for (y, span) in self.rows.iter().enumerate() {
            // Beyond the last row the weight is 0.
            let rows = [0, 1, 2, 3].map(|i| source.row((span.index + i).min(last)));
            simd::mix(rows, span.weights.map(u16::from), &mut self.row[..width]);
            let out = target.row(y);
            let grouped = self.groups.len() * (GROUP / 2);
            simd::gather(&self.row, &self.groups, &mut out[..grouped]);
            for (out, span) in out[grouped..].iter_mut().zip(&self.columns[grouped..]) {
                *out = span.of(&self.row);
            }
        }
    }
}

impl Span {
    fn of(self, row: &[u8]) -> u8 {
        let pixels = row[self.index..].iter().zip(self.weights);
        let sum: u16 = pixels.map(|(p, w)| u16::from(*p) * u16::from(w)).sum();
        ((sum + ONE / 2) / ONE) as u8
    }
}

/// What each pixel of the target covers in the source.
fn spans(source: usize, target: usize) -> Option<Vec<Span>> {
    let one = usize::from(ONE);
    (0..target)
        .map(|i| {
            // In units of which `target` make a source pixel.
            let (from, to) = (i * source, (i + 1) * source);
            let index = from / target;
            // Cumulative shares are rounded, so that they add up.
            let share = |until: usize| {
                let covered = until.clamp(from, to) - from;
                (covered * one + source / 2) / source
            };
            let mut weights = [0; 4];
            for (k, weight) in weights.iter_mut().enumerate() {
                let begin = (index + k) * target;
                *weight = (share(begin + target) - share(begin)) as u8;
            }
            (to <= (index + 4) * target).then_some(Span { index, weights })
        })
        .collect()
}

fn area_group(spans: &[Span]) -> Group {
    let base = spans.first().map_or(0, |span| span.index);
    let mut group = Group {
        base,
        shuffle: [0; REACH],
        weights: [0; REACH],
    };
    for (i, span) in spans.iter().enumerate() {
        for (k, weight) in span.weights.into_iter().enumerate() {
            // Four outputs reach over 3 * 3 + 4 pixels at most; what is beyond has no weight.
            group.shuffle[4 * i + k] = (span.index - base + k).min(REACH - 1) as u8;
            group.weights[4 * i + k] = weight as i8;
        }
    }
    group
}

#[cfg(test)]
mod tests;
