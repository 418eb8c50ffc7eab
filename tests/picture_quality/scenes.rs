//! What the cameras see: somebody before a wall, computed from a seed.
//!
//! A scene is made like a camera's picture: textures whose detail falls with its size as in nature, layers that move
//! by parts of a pixel, and sensor noise that is new in every frame. Each seed has a character of its own: sitting
//! still, gesturing, walking with the camera, light that changes.

use talksy_mixer::video::I420;
use talksy_mixer::video::frame::PlaneMut;

/// Standard deviation of the sensor's noise, in steps of luma: a webcam by day.
const NOISE: f32 = 1.5;
/// Positions are in these parts of a pixel.
const PART: i32 = 16;
/// Pixels that layers are larger than the picture on each side, at a height of 360.
const MARGIN: i32 = 40;

/// Frames after which everything is again where it was.
pub const LOOP: usize = 64;

/// A camera with somebody in front of it.
pub struct Scene {
    width: usize,
    height: usize,
    seed: u64,
    wall: [Layer; 3],
    person: [Layer; 3],
    /// Where the person is, in 256ths; one for luma, one for chroma.
    mask: [Layer; 2],
    noise: Vec<i8>,
}

impl Scene {
    /// The scene of this seed; sides are even.
    pub fn new(seed: u64, width: usize, height: usize) -> Self {
        let unit = height as f32 / 360.0;
        let mut random = Random::new(seed);
        let margin = (MARGIN as f32 * unit) as usize & !1;
        let (w, h) = (width + 2 * margin, height + 2 * margin);
        let mut plane = |by: usize, mean: f32, contrast: f32| {
            let unit = unit / by as f32;
            let noise = random.fractal(w / by, h / by, 90.0 * unit, contrast);
            Layer::new(w / by, h / by, |x, y| {
                mean + noise[y * (w / by) + x] + shelves(x, y, unit, seed) * contrast / 40.0
            })
        };
        let wall = [
            plane(1, 95.0 + 8.0 * (seed % 5) as f32, 46.0),
            plane(2, 118.0 + 4.0 * (seed % 4) as f32, 10.0),
            plane(2, 122.0 + 3.0 * (seed % 6) as f32, 10.0),
        ];
        let shape = |by: usize| {
            let at = move |x: usize, y: usize| {
                let unit = unit / by as f32;
                let (x, y) = (
                    x as f32 / unit - (w as f32 / by as f32) / unit / 2.0,
                    y as f32 / unit - MARGIN as f32,
                );
                body(x, y)
            };
            Layer::new(w / by, h / by, move |x, y| 255.0 * at(x, y).0)
        };
        let mask = [shape(1), shape(2)];
        let mut cloth = |by: usize, skin: f32, shirt: f32, features: f32, contrast: f32| {
            let unit = unit / by as f32;
            let noise = random.fractal(w / by, h / by, 24.0 * unit, contrast);
            let centre = w as f32 / by as f32 / unit / 2.0;
            Layer::new(w / by, h / by, |x, y| {
                let (px, py) = (x as f32 / unit - centre, y as f32 / unit - MARGIN as f32);
                let (_, head) = body(px, py);
                let base = skin * head + shirt * (1.0 - head);
                base - features * face(px, py) + noise[y * (w / by) + x]
            })
        };
        let person = [
            cloth(1, 165.0, 60.0 + 12.0 * (seed % 7) as f32, 90.0, 24.0),
            cloth(2, 108.0, 100.0 + 7.0 * (seed % 8) as f32, 0.0, 5.0),
            cloth(2, 150.0, 150.0 - 6.0 * (seed % 9) as f32, -12.0, 5.0),
        ];
        let noise = (0..1 << 16).map(|_| (random.normal() * NOISE).round() as i8);
        Scene {
            width,
            height,
            seed,
            wall,
            person,
            mask,
            noise: noise.collect(),
        }
    }

    /// The picture number `frame`, of 30 a second.
    pub fn draw(&self, frame: usize, picture: &mut I420) {
        picture.resize(self.width, self.height);
        let (wall, person, light) = self.movement(frame);
        for (at, plane) in picture.planes_mut().into_iter().enumerate() {
            let by = if at == 0 { 1 } else { 2 };
            let light = if at == 0 { light } else { 0 };
            let layers = Layers {
                back: &self.wall[at],
                front: &self.person[at],
                mask: &self.mask[usize::from(at > 0)],
            };
            let place = |(x, y): (i32, i32)| (x / by, y / by);
            layers.draw(plane, place(wall), place(person), light);
        }
        let [mut luma, ..] = picture.planes_mut();
        let mut random = Random::new(self.seed << 32 | frame as u64);
        for y in 0..luma.height() {
            let from = random.next() as usize % (self.noise.len() - self.width);
            for (pixel, noise) in luma.row(y).iter_mut().zip(&self.noise[from..]) {
                *pixel = pixel.saturating_add_signed(*noise);
            }
        }
    }

    /// Where wall and person are, in parts of a pixel from the layer's corner, and how much lighter it is.
    fn movement(&self, frame: usize) -> ((i32, i32), (i32, i32), i32) {
        let unit = self.height as f32 / 360.0 * PART as f32;
        let time = (frame % LOOP) as f32 / LOOP as f32 + self.seed as f32 * 0.17;
        let wave = |turns: f32, phase: f32| (std::f32::consts::TAU * (turns * time + phase)).sin();
        // How far in pixels of 360 rows: the camera, the person.
        let (camera, body) = match self.seed % 4 {
            0 => (0.0, 6.0),
            1 => (0.0, 14.0),
            2 => (20.0, 6.0),
            _ => (1.5, 9.0),
        };
        let light = match self.seed % 5 {
            4 => 6.0 * wave(1.0, 0.0),
            _ => 0.0,
        };
        let place = |x: f32, y: f32| {
            let part = |value: f32| ((MARGIN as f32 + value.clamp(-38.0, 38.0)) * unit) as i32;
            (part(x), part(y))
        };
        let (cx, cy) = (camera * wave(1.0, 0.0), camera / 4.0 * wave(1.0, 0.3));
        let (bx, by) = (
            body * (wave(1.0, 0.1) + 0.3 * wave(3.0, 0.4)),
            body / 2.0 * (wave(1.0, 0.35) + 0.4 * wave(4.0, 0.0)),
        );
        (place(cx, cy), place(cx + bx, cy + by), light as i32)
    }
}

/// How much of a point is person, and how much of that is head. Coordinates in pixels of 360 rows, from the middle of
/// the upper edge.
fn body(x: f32, y: f32) -> (f32, f32) {
    let soft = |distance: f32| (0.5 - distance / 3.0).clamp(0.0, 1.0);
    let ellipse = |cx: f32, cy: f32, rx: f32, ry: f32| {
        let (dx, dy) = ((x - cx) / rx, (y - cy) / ry);
        ((dx * dx + dy * dy).sqrt() - 1.0) * rx.min(ry)
    };
    let head = soft(ellipse(0.0, 150.0, 62.0, 82.0));
    let neck = soft((x.abs() - 26.0).max(200.0 - y).max(y - 262.0));
    let shoulders = soft(ellipse(0.0, 400.0, 170.0, 160.0));
    let skin = head.max(neck * (1.0 - soft(255.0 - y)));
    (skin.max(shoulders), skin)
}

/// Eyes, brows, mouth and hair: how dark, 0 to 1.
fn face(x: f32, y: f32) -> f32 {
    let blob = |cx: f32, cy: f32, rx: f32, ry: f32| {
        let (dx, dy) = ((x - cx) / rx, (y - cy) / ry);
        (1.2 - (dx * dx + dy * dy)).clamp(0.0, 1.0)
    };
    let hair = ((112.0 - y) / 8.0).clamp(0.0, 1.0) * f32::from(y > 60.0);
    [
        hair,
        blob(-24.0, 140.0, 10.0, 5.0),
        blob(24.0, 140.0, 10.0, 5.0),
        blob(-24.0, 126.0, 14.0, 3.0),
        blob(24.0, 126.0, 14.0, 3.0),
        blob(0.0, 188.0, 22.0, 5.0),
        0.4 * blob(4.0, 162.0, 6.0, 10.0),
    ]
    .into_iter()
    .fold(0.0, f32::max)
}

/// Straight edges on the wall: a shelf, books, a window frame.
fn shelves(x: usize, y: usize, unit: f32, seed: u64) -> f32 {
    let (x, y) = ((x as f32 / unit) as u64, (y as f32 / unit) as u64);
    let shelf = (y + 31 * seed) % 120 < 6;
    let books = (x + 17 * seed) % 260 < 150 && (y + 31 * seed) % 120 > 60;
    let spine = ((x / 13).wrapping_mul(0x9e37_79b9).wrapping_add(seed * 77) >> 5) % 64;
    match (shelf, books) {
        (true, _) => 44.0,
        (_, true) => spine as f32 - 32.0,
        _ => 0.0,
    }
}

/// A plane that is larger than what is seen of it.
struct Layer {
    width: usize,
    data: Vec<u8>,
}

impl Layer {
    fn new(width: usize, height: usize, value: impl Fn(usize, usize) -> f32) -> Self {
        let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        Layer {
            width,
            data: pixels
                .map(|(x, y)| value(x, y).clamp(16.0, 235.0) as u8)
                .collect(),
        }
    }

    /// Writes row `y` of what is seen from a corner at `at`, in parts of a pixel, between the pixels.
    fn row(&self, (x, y): (i32, i32), row: usize, out: &mut [u8]) {
        let whole = |v: i32| (v / PART) as usize;
        let (fx, fy) = ((x % PART) as u32, (y % PART) as u32);
        let from = (whole(y) + row) * self.width + whole(x);
        let upper = &self.data[from..][..=out.len()];
        let lower = &self.data[from + self.width..][..=out.len()];
        let one = PART as u32;
        let [a, b, c, d] = [
            (one - fx) * (one - fy),
            fx * (one - fy),
            (one - fx) * fy,
            fx * fy,
        ];
        // A plain loop: this has to be quick in unoptimised tests, too.
        let (mut left, mut below) = (u32::from(upper[0]), u32::from(lower[0]));
        for x in 0..out.len() {
            let (right, beside) = (u32::from(upper[x + 1]), u32::from(lower[x + 1]));
            out[x] = ((left * a + right * b + below * c + beside * d + 128) >> 8) as u8;
            (left, below) = (right, beside);
        }
    }
}

struct Layers<'a> {
    back: &'a Layer,
    front: &'a Layer,
    mask: &'a Layer,
}

impl Layers<'_> {
    fn draw(&self, mut plane: PlaneMut<'_>, wall: (i32, i32), person: (i32, i32), light: i32) {
        let width = plane.width();
        let (mut front, mut mask) = (vec![0; width], vec![0; width]);
        for y in 0..plane.height() {
            let row = plane.row(y);
            self.back.row(wall, y, row);
            self.mask.row(person, y, &mut mask);
            // The mask runs from 16 to 235, as all layers.
            if mask.iter().any(|share| *share > 16) {
                self.front.row(person, y, &mut front);
            }
            for x in 0..width {
                let share = (i32::from(mask[x]) - 16) * 256 / 219;
                let back = i32::from(row[x]);
                let mixed = back + (i32::from(front[x]) - back) * share / 256;
                row[x] = (mixed + light).clamp(16, 235) as u8;
            }
        }
    }
}

/// xorshift64*, the same everywhere.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        let mut random = Random((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        (0..4).for_each(|_| {
            random.next();
        });
        random
    }

    fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    /// From -1 to 1.
    fn even(&mut self) -> f32 {
        self.next() as f32 / (u32::MAX / 2) as f32 - 1.0
    }

    /// About normal, variance 1.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.even()).sum::<f32>() / 2.0
    }

    /// Noise in octaves: each half as large and half as strong as the one before, from `largest` pixels to one.
    fn fractal(&mut self, width: usize, height: usize, largest: f32, contrast: f32) -> Vec<f32> {
        let mut out = vec![0.0; width * height];
        let (mut size, mut strength) = (largest, contrast);
        while size >= 1.0 && strength > 0.3 {
            let (columns, rows) = (
                (width as f32 / size) as usize + 2,
                (height as f32 / size) as usize + 2,
            );
            let grid: Vec<f32> = (0..columns * rows)
                .map(|_| self.even() * strength)
                .collect();
            for (y, row) in out.chunks_exact_mut(width).enumerate() {
                let (gy, fy) = split(y as f32 / size);
                for (x, value) in row.iter_mut().enumerate() {
                    let (gx, fx) = split(x as f32 / size);
                    let at = |dx: usize, dy: usize| grid[(gy + dy) * columns + gx + dx];
                    let between = |a: f32, b: f32, f: f32| a + (b - a) * f;
                    let upper = between(at(0, 0), at(1, 0), fx);
                    *value += between(upper, between(at(0, 1), at(1, 1), fx), fy);
                }
            }
            (size, strength) = (size / 2.0, strength / 2.0);
        }
        out
    }
}

/// Whole cells, and the rest smoothed.
fn split(value: f32) -> (usize, f32) {
    let rest = value.fract();
    (value as usize, rest * rest * (3.0 - 2.0 * rest))
}
