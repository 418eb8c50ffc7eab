//! How good an output is.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use talksy_mixer::video::frame::Plane;
use talksy_mixer::video::{I420, Rect};

use crate::measure::{ideal, psnr};
use crate::scenes::{LOOP, Scene};
use crate::{CANVAS, FRAMES, SCENES, SENDER, ours};

/// Every how many frames are compared.
const EVERY: usize = 10;
/// The first second is left out: all encoders begin with a poor keyframe.
const FIRST: usize = 30;
/// Frames that a program's output may be shifted by: the one that fits is taken.
const SHIFTS: std::ops::RangeInclusive<isize> = -2..=2;

/// What the tiles should show.
pub struct Ideal {
    tiles: Vec<Rect>,
    /// By person, then by frame of the loop.
    frames: Vec<Vec<Vec<u8>>>,
}

impl Ideal {
    pub fn new(people: usize) -> Self {
        let tiles = ours::tiles(people);
        let mut picture = I420::new(0, 0);
        let mut film = |(person, tile): (usize, &Rect)| {
            let (width, height) = (SENDER.width as usize, SENDER.height as usize);
            let scene = Scene::new((person % SCENES) as u64, width, height);
            let mut frame = |frame: usize| {
                scene.draw(frame, &mut picture);
                ideal(picture.view().y, tile.width, tile.height)
            };
            (0..LOOP).map(&mut frame).collect()
        };
        Ideal {
            frames: tiles.iter().enumerate().map(&mut film).collect(),
            tiles,
        }
    }

    /// The mean over all tiles and frames of an H.264 file, in dB.
    pub fn psnr(&self, file: &Path) -> f64 {
        let (width, height) = (CANVAS.width as usize, CANVAS.height as usize);
        let mut decoder = Command::new("ffmpeg")
            .args(["-v", "error", "-nostdin", "-i"])
            .arg(file)
            .args(["-f", "rawvideo", "-pix_fmt", "yuv420p", "pipe:1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("ffmpeg starts");
        let mut output = decoder.stdout.take().expect("it is piped");
        let mut picture = vec![0; width * height * 3 / 2];
        let (mut sums, mut compared, mut read) = (vec![0.0; SHIFTS.count()], 0, 0);
        while output.read_exact(&mut picture).is_ok() {
            if read >= FIRST && read % EVERY == 0 {
                let canvas =
                    Plane::new(&picture, width, width, height).expect("it is large enough");
                for (sum, shift) in sums.iter_mut().zip(SHIFTS) {
                    *sum += self.compare(canvas, read.saturating_add_signed(shift) % LOOP);
                }
                compared += 1;
            }
            read += 1;
        }
        decoder.wait().expect("it ends");
        assert!(
            read.abs_diff(FRAMES) <= 2,
            "{read} frames of {FRAMES} in {file:?}"
        );
        let best = sums.into_iter().fold(f64::NEG_INFINITY, f64::max);
        best / f64::from(compared)
    }

    fn compare(&self, canvas: Plane<'_>, frame: usize) -> f64 {
        let tiles = self.tiles.iter().zip(&self.frames);
        let sum: f64 = tiles
            .map(|(tile, frames)| psnr(canvas, *tile, &frames[frame]))
            .sum();
        sum / self.tiles.len() as f64
    }
}
