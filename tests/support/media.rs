//! Files that stand for camera and microphone: a colour and a sound by which a participant is recognised.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use talksy_unit::demo::{SAMPLE_RATE, Sound};

/// Length of the files; Chromium starts over at their end.
const SECONDS: u32 = 3;

/// Noise in a camera's picture, in steps of its luma.
const NOISE: i8 = 24;
/// Rows of it: about 500 kbit/s at 640x360 and 20 frames/s, as an office behind a speaker needs.
const NOISE_ROWS: usize = 16;

/// A plain colour with a bar that moves along the bottom: the centre stays pure, the picture visibly lives.
#[derive(Clone, Copy, Debug)]
pub struct Camera {
    /// Width in pixels, even.
    pub width: usize,
    /// Height in pixels, even.
    pub height: usize,
    /// Frames per second.
    pub fps: u32,
    /// R, G, B.
    pub colour: [u8; 3],
    /// Whether a part of the picture is fresh noise in every frame: a plain colour fits into one packet, this needs as
    /// many as the encoder's rate allows.
    pub noise: bool,
    /// Width and height of the noise's grains in pixels, and how many times as many rows it has. Fine noise is gone in
    /// the small sizes of a simulcast, coarse noise costs bits in all of them.
    pub grain: usize,
}

/// Colours that stay apart after 4:2:0 and a low bit rate.
pub const RED: [u8; 3] = [200, 40, 40];
/// See [`RED`].
pub const GREEN: [u8; 3] = [40, 170, 60];
/// See [`RED`].
pub const BLUE: [u8; 3] = [50, 70, 210];
/// See [`RED`].
pub const YELLOW: [u8; 3] = [220, 200, 50];

impl Camera {
    /// 640x360 at 20 frames/s.
    pub fn small(colour: [u8; 3]) -> Self {
        Camera {
            width: 640,
            height: 360,
            fps: 20,
            colour,
            noise: false,
            grain: 1,
        }
    }

    /// 1280x720 at 30 frames/s.
    pub fn hd(colour: [u8; 3]) -> Self {
        Camera {
            width: 1280,
            height: 720,
            fps: 30,
            colour,
            noise: false,
            grain: 1,
        }
    }

    /// With a picture that costs bits.
    pub fn noisy(self) -> Self {
        Camera {
            noise: true,
            ..self
        }
    }

    /// With noise in grains of `size` pixels.
    pub fn grainy(self, size: usize) -> Self {
        Camera {
            noise: true,
            grain: size,
            ..self
        }
    }

    /// Writes the camera as YUV4MPEG2, I420.
    pub fn write_y4m(&self, path: &Path) {
        let mut file = BufWriter::new(File::create(path).unwrap());
        let (w, h) = (self.width, self.height);
        writeln!(file, "YUV4MPEG2 W{w} H{h} F{}:1 Ip A1:1 C420jpeg", self.fps).unwrap();
        let [luma, cb, cr] = yuv_of(self.colour);
        let frames = self.fps * SECONDS;
        let chroma = w * h / 4;
        let mut planes = vec![luma; w * h + 2 * chroma];
        planes[w * h..w * h + chroma].fill(cb);
        planes[w * h + chroma..].fill(cr);
        let bar_rows = h - h / 10..h - h / 20;
        let noise_rows = if self.noise {
            h / 8..h / 8 + NOISE_ROWS * self.grain
        } else {
            0..0
        };
        let mut random = StdRng::seed_from_u64(1);
        for frame in 0..frames {
            let at = w * frame as usize / frames as usize;
            for row in bar_rows.clone() {
                let row = &mut planes[row * w..(row + 1) * w];
                row.fill(luma);
                row[at..(at + w / 10).min(w)].fill(235);
            }
            for row in noise_rows.clone() {
                let (above, rest) = planes.split_at_mut(w * row);
                let row_in_grain = (row - noise_rows.start) % self.grain;
                if row_in_grain > 0 {
                    rest[..w].copy_from_slice(&above[w * (row - 1)..]);
                    continue;
                }
                for grain in rest[..w].chunks_mut(self.grain) {
                    grain.fill(luma.saturating_add_signed(random.random_range(-NOISE..=NOISE)));
                }
            }
            file.write_all(b"FRAME\n").unwrap();
            file.write_all(&planes).unwrap();
        }
        file.flush().unwrap();
    }
}

/// Writes `sound` as a mono WAV file of 16 bit samples.
pub fn write_wav(sound: Sound, path: &Path) {
    let samples = sound.samples(SECONDS as f32);
    let bytes = samples.len() as u32 * 2;
    let mut file = BufWriter::new(File::create(path).unwrap());
    let mut put = |part: &[u8]| file.write_all(part).unwrap();
    put(b"RIFF");
    put(&(36 + bytes).to_le_bytes());
    put(b"WAVEfmt ");
    put(&16u32.to_le_bytes());
    put(&1u16.to_le_bytes()); // PCM
    put(&1u16.to_le_bytes()); // one channel
    put(&SAMPLE_RATE.to_le_bytes());
    put(&(SAMPLE_RATE * 2).to_le_bytes());
    put(&2u16.to_le_bytes());
    put(&16u16.to_le_bytes());
    put(b"data");
    put(&bytes.to_le_bytes());
    for sample in samples {
        put(&((sample * 32_767.0) as i16).to_le_bytes());
    }
    file.flush().unwrap();
}

/// BT.601, limited range, as Chromium reads y4m files.
fn yuv_of([r, g, b]: [u8; 3]) -> [u8; 3] {
    let (r, g, b) = (f32::from(r), f32::from(g), f32::from(b));
    [
        16.0 + 0.257 * r + 0.504 * g + 0.098 * b,
        128.0 - 0.148 * r - 0.291 * g + 0.439 * b,
        128.0 + 0.439 * r - 0.368 * g - 0.071 * b,
    ]
    .map(|v| v.round().clamp(0.0, 255.0) as u8)
}
