//! I420 pictures: a full-size luma plane and two chroma planes of half its width and height.

/// Luma of black in limited range.
pub const BLACK: u8 = 16;
/// Luma of white in limited range.
pub const WHITE: u8 = 235;
/// Chroma of grey.
pub const NEUTRAL: u8 = 128;

/// A colour in limited-range BT.601.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Yuv {
    /// Luma, 16 to 235.
    pub y: u8,
    /// Blue difference, 16 to 240.
    pub u: u8,
    /// Red difference, 16 to 240.
    pub v: u8,
}

impl Yuv {
    /// From full-range RGB (ITU-R BT.601-7, section 3, 8 bit).
    pub fn from_rgb(r: u8, g: u8, b: u8) -> Self {
        let (r, g, b) = (i32::from(r), i32::from(g), i32::from(b));
        Yuv {
            y: (((66 * r + 129 * g + 25 * b + 128) >> 8) + 16) as u8,
            u: (((-38 * r - 74 * g + 112 * b + 128) >> 8) + 128) as u8,
            v: (((112 * r - 94 * g - 18 * b + 128) >> 8) + 128) as u8,
        }
    }
}

/// One plane of somebody's picture: `height` rows of `width` bytes, `stride` bytes apart.
#[derive(Clone, Copy, Debug)]
pub struct Plane<'a> {
    data: &'a [u8],
    stride: usize,
    width: usize,
    height: usize,
}

impl<'a> Plane<'a> {
    /// `None` when `data` is too short for these measures, or the stride is below the width.
    pub fn new(data: &'a [u8], stride: usize, width: usize, height: usize) -> Option<Self> {
        fits(data.len(), stride, width, height).then_some(Plane {
            data,
            stride,
            width,
            height,
        })
    }

    /// Bytes per row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Bytes from one row to the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// All rows, from the first byte of the first one; at least as long as the measures need.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// Row `y`, `width` bytes. Panics beyond the height.
    #[inline(always)]
    pub fn row(&self, y: usize) -> &'a [u8] {
        &self.data[y * self.stride..][..self.width]
    }

    /// The rectangle that begins at (`x`, `y`). Panics when it does not lie inside.
    pub fn crop(&self, x: usize, y: usize, width: usize, height: usize) -> Plane<'a> {
        assert!(x + width <= self.width && y + height <= self.height);
        Plane {
            data: &self.data[(y * self.stride + x).min(self.data.len())..],
            stride: self.stride,
            width,
            height,
        }
    }
}

/// One plane to draw on.
#[derive(Debug)]
pub struct PlaneMut<'a> {
    data: &'a mut [u8],
    stride: usize,
    width: usize,
    height: usize,
}

impl<'a> PlaneMut<'a> {
    /// `None` when `data` is too short for these measures, or the stride is below the width.
    pub fn new(data: &'a mut [u8], stride: usize, width: usize, height: usize) -> Option<Self> {
        fits(data.len(), stride, width, height).then_some(PlaneMut {
            data,
            stride,
            width,
            height,
        })
    }

    /// Bytes per row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Row `y`, `width` bytes. Panics beyond the height.
    #[inline(always)]
    pub fn row(&mut self, y: usize) -> &mut [u8] {
        &mut self.data[y * self.stride..][..self.width]
    }

    /// The rectangle that begins at (`x`, `y`). Panics when it does not lie inside.
    pub fn crop(self, x: usize, y: usize, width: usize, height: usize) -> PlaneMut<'a> {
        assert!(x + width <= self.width && y + height <= self.height);
        let start = (y * self.stride + x).min(self.data.len());
        PlaneMut {
            data: &mut self.data[start..],
            stride: self.stride,
            width,
            height,
        }
    }

    /// Every byte becomes `value`.
    pub fn fill(&mut self, value: u8) {
        for y in 0..self.height {
            self.row(y).fill(value);
        }
    }
}

fn fits(len: usize, stride: usize, width: usize, height: usize) -> bool {
    if width == 0 || height == 0 {
        return true;
    }
    let needed = (height - 1)
        .checked_mul(stride)
        .and_then(|rows| rows.checked_add(width));
    stride >= width && needed.is_some_and(|needed| needed <= len)
}

/// Somebody's picture: three planes of matching size.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Luma.
    pub y: Plane<'a>,
    /// Blue difference, half as wide and high.
    pub u: Plane<'a>,
    /// Red difference, like `u`.
    pub v: Plane<'a>,
}

impl<'a> View<'a> {
    /// `None` unless the luma's sides are even and positive and both chroma planes have half of them.
    pub fn new(y: Plane<'a>, u: Plane<'a>, v: Plane<'a>) -> Option<Self> {
        let even =
            y.width > 0 && y.height > 0 && y.width.is_multiple_of(2) && y.height.is_multiple_of(2);
        let halves = [u, v]
            .iter()
            .all(|chroma| chroma.width == y.width / 2 && chroma.height == y.height / 2);
        (even && halves).then_some(View { y, u, v })
    }

    /// Width in luma pixels.
    pub fn width(&self) -> usize {
        self.y.width
    }

    /// Height in luma pixels.
    pub fn height(&self) -> usize {
        self.y.height
    }
}

/// A picture of its own. Rows are contiguous; sides are even.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct I420 {
    width: usize,
    height: usize,
    y: Vec<u8>,
    u: Vec<u8>,
    v: Vec<u8>,
}

impl I420 {
    /// A black picture; odd sides are rounded up.
    pub fn new(width: usize, height: usize) -> Self {
        let mut picture = I420 {
            width: 0,
            height: 0,
            y: Vec::new(),
            u: Vec::new(),
            v: Vec::new(),
        };
        picture.resize(width, height);
        picture
    }

    /// Black, of this size (odd sides are rounded up). Allocates only beyond the largest size it ever had.
    pub fn resize(&mut self, width: usize, height: usize) {
        self.width = width.next_multiple_of(2);
        self.height = height.next_multiple_of(2);
        let luma = self.width * self.height;
        for (plane, len, value) in [
            (&mut self.y, luma, BLACK),
            (&mut self.u, luma / 4, NEUTRAL),
            (&mut self.v, luma / 4, NEUTRAL),
        ] {
            plane.clear();
            plane.resize(len, value);
        }
    }

    /// Width in luma pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in luma pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// To read it.
    pub fn view(&self) -> View<'_> {
        let plane = |data, width, height| Plane {
            data,
            stride: width,
            width,
            height,
        };
        View {
            y: plane(&self.y, self.width, self.height),
            u: plane(&self.u, self.width / 2, self.height / 2),
            v: plane(&self.v, self.width / 2, self.height / 2),
        }
    }

    /// To draw on it: luma, blue difference, red difference.
    pub fn planes_mut(&mut self) -> [PlaneMut<'_>; 3] {
        fn plane(data: &mut [u8], width: usize, height: usize) -> PlaneMut<'_> {
            PlaneMut {
                data,
                stride: width,
                width,
                height,
            }
        }
        let (width, height) = (self.width, self.height);
        [
            plane(&mut self.y, width, height),
            plane(&mut self.u, width / 2, height / 2),
            plane(&mut self.v, width / 2, height / 2),
        ]
    }

    /// The whole picture in one colour.
    pub fn fill(&mut self, colour: Yuv) {
        self.y.fill(colour.y);
        self.u.fill(colour.u);
        self.v.fill(colour.v);
    }

    /// Becomes `source`, turned clockwise by `quarters` times 90 degrees. Allocates only when it has to grow.
    pub fn copy_from(&mut self, source: View<'_>, quarters: u8) {
        let (width, height) = match quarters % 2 {
            0 => (source.width(), source.height()),
            _ => (source.height(), source.width()),
        };
        if (self.width, self.height) != (width, height) {
            self.resize(width, height);
        }
        let [y, u, v] = self.planes_mut();
        turn(source.y, y, quarters);
        turn(source.u, u, quarters);
        turn(source.v, v, quarters);
    }
}

fn turn(source: Plane<'_>, mut target: PlaneMut<'_>, quarters: u8) {
    let (width, height) = (source.width, source.height);
    match quarters % 4 {
        0 => (0..height).for_each(|y| target.row(y).copy_from_slice(source.row(y))),
        2 => (0..height).for_each(|y| {
            let row = target.row(y);
            row.copy_from_slice(source.row(height - 1 - y));
            row.reverse();
        }),
        clockwise => {
            for top in (0..width).step_by(BLOCK) {
                for left in (0..height).step_by(BLOCK) {
                    turn_block(source, &mut target, (left, top), clockwise == 1);
                }
            }
        }
    }
}

/// Side of the squares in which pictures are turned by a quarter, in pixels.
const BLOCK: usize = 8;

/// Fills the square of `target` that begins at `corner`, as much of it as there is.
fn turn_block(
    source: Plane<'_>,
    target: &mut PlaneMut<'_>,
    corner: (usize, usize),
    clockwise: bool,
) {
    let (left, top) = corner;
    let columns = BLOCK.min(target.width - left);
    let rows = BLOCK.min(target.height - top);
    let mut block = [[0; BLOCK]; BLOCK];
    let first = if clockwise {
        top
    } else {
        source.width - top - rows
    };
    for (column, pixels) in block.iter_mut().enumerate().take(columns) {
        let x = left + column;
        let from = if clockwise { source.height - 1 - x } else { x };
        let row = &source.data[from * source.stride + first..];
        match row.first_chunk() {
            Some(row) if rows == BLOCK => *pixels = *row,
            _ => pixels[..rows].copy_from_slice(&row[..rows]),
        }
    }
    for row in 0..rows {
        let from = if clockwise { row } else { rows - 1 - row };
        let turned = block.map(|pixels| pixels[from]);
        let to = (top + row) * target.stride + left;
        match target.data[to..].first_chunk_mut() {
            Some(to) if columns == BLOCK => *to = turned,
            _ => target.data[to..to + columns].copy_from_slice(&turned[..columns]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(width: usize, height: usize) -> I420 {
        let mut picture = I420::new(width, height);
        for mut plane in picture.planes_mut() {
            let width = plane.width();
            for y in 0..plane.height() {
                for (x, value) in plane.row(y).iter_mut().enumerate() {
                    *value = (y * width + x) as u8;
                }
            }
        }
        picture
    }

    #[test]
    fn four_quarter_turns_are_no_turn() {
        let original = numbered(12, 6);
        let mut turned = original.clone();
        for _ in 0..4 {
            let source = turned.clone();
            turned.copy_from(source.view(), 1);
        }
        assert_eq!(turned, original);
    }

    #[test]
    fn every_pixel_goes_where_a_turn_takes_it_in_any_size() {
        for (width, height) in [(2, 2), (64, 32), (66, 98), (130, 34), (32, 160)] {
            let original = numbered(width, height);
            let from = original.view();
            let mut turned = I420::new(2, 2);
            turned.copy_from(from, 1);
            for y in 0..width {
                for x in 0..height {
                    assert_eq!(turned.view().y.row(y)[x], from.y.row(height - 1 - x)[y]);
                }
            }
            turned.copy_from(from, 3);
            for y in 0..width / 2 {
                for x in 0..height / 2 {
                    assert_eq!(turned.view().u.row(y)[x], from.u.row(x)[width / 2 - 1 - y]);
                }
            }
        }
    }

    #[test]
    fn a_clockwise_turn_brings_the_left_column_to_the_top() {
        let original = numbered(4, 2);
        let mut turned = I420::new(2, 2);
        turned.copy_from(original.view(), 1);
        assert_eq!((turned.width(), turned.height()), (2, 4));
        assert_eq!(turned.view().y.row(0), [4, 0]);
        assert_eq!(turned.view().y.row(3), [7, 3]);
    }

    #[test]
    fn three_quarters_undo_one_and_halves_undo_halves() {
        let original = numbered(8, 6);
        for (there, back) in [(1, 3), (2, 2), (3, 1), (0, 0)] {
            let (mut turned, mut again) = (I420::new(2, 2), I420::new(2, 2));
            turned.copy_from(original.view(), there);
            again.copy_from(turned.view(), back);
            assert_eq!(again, original);
        }
    }

    #[test]
    fn planes_refuse_buffers_that_are_too_short() {
        let data = [0; 10];
        assert!(Plane::new(&data, 4, 4, 2).is_some());
        assert!(
            Plane::new(&data, 6, 4, 2).is_some(),
            "the last row needs no stride"
        );
        assert!(Plane::new(&data, 4, 4, 3).is_none());
        assert!(Plane::new(&data, 3, 4, 2).is_none());
        assert!(Plane::new(&data, usize::MAX, 4, 3).is_none());
    }

    #[test]
    fn views_refuse_odd_sides_and_unequal_planes() {
        let data = [0; 64];
        let plane = |width, height| Plane::new(&data, width, width, height).unwrap();
        assert!(View::new(plane(4, 4), plane(2, 2), plane(2, 2)).is_some());
        assert!(View::new(plane(5, 4), plane(2, 2), plane(2, 2)).is_none());
        assert!(View::new(plane(4, 4), plane(2, 2), plane(1, 2)).is_none());
        assert!(View::new(plane(0, 4), plane(0, 2), plane(0, 2)).is_none());
    }

    #[test]
    fn primary_colours_have_their_standard_values() {
        assert_eq!(
            Yuv::from_rgb(255, 255, 255),
            Yuv {
                y: 235,
                u: 128,
                v: 128
            }
        );
        assert_eq!(
            Yuv::from_rgb(0, 0, 0),
            Yuv {
                y: 16,
                u: 128,
                v: 128
            }
        );
        assert_eq!(
            Yuv::from_rgb(255, 0, 0),
            Yuv {
                y: 82,
                u: 90,
                v: 240
            }
        );
    }
}
