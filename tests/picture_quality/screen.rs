//! What the encoder's screen mode brings: a page of text that scrolls and is written on, encoded both ways at the same bit
//! rate.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Instant;
use talksy_mixer::video::{I420, Rect};
use talksy_unit::mcu::codec::h264::{Decoder, Encoder, EncoderConfig, Usage};

use crate::figure;
use crate::measure::psnr;

const CONFIG: EncoderConfig = EncoderConfig {
    width: 1280,
    height: 720,
    fps: 30,
    bitrate: 800_000,
};
/// Cells of the page: a letter with the space around it.
const CELL: (usize, usize) = (8, 16);
const COLUMNS: usize = CONFIG.width as usize / CELL.0;
const ROWS: usize = CONFIG.height as usize / CELL.1;
/// Rows of text that the document has.
const LINES: usize = 120;
const LETTERS: usize = 60;
const SECONDS: usize = 8;
const PAPER: u8 = 235;

/// A document and its letters, each 6x11 pixels of ink or none.
struct Document {
    letters: Vec<[[bool; 6]; 11]>,
    text: Vec<[Option<u8>; COLUMNS]>,
}

impl Document {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let letters = (0..LETTERS)
            .map(|_| std::array::from_fn(|_| std::array::from_fn(|_| random.random_bool(0.35))))
            .collect();
        let text = (0..LINES)
            .map(|_| {
                std::array::from_fn(|_| {
                    let letter = random.random_range(0..LETTERS as u8);
                    random.random_bool(0.82).then_some(letter)
                })
            })
            .collect();
        Document { letters, text }
    }

    /// From line `top` on; the last line is written up to `written`.
    fn draw(&self, top: usize, written: usize, out: &mut I420) {
        let [mut luma, _, _] = out.planes_mut();
        luma.fill(PAPER);
        for row in 0..ROWS {
            let line = &self.text[(top + row) % LINES];
            let shown = if row == ROWS - 1 { written } else { COLUMNS };
            for (column, letter) in line.iter().take(shown).enumerate() {
                let Some(letter) = letter else { continue };
                for (y, ink) in self.letters[usize::from(*letter)].iter().enumerate() {
                    let pixels = &mut luma.row(row * CELL.1 + 2 + y)[column * CELL.0 + 1..];
                    for (pixel, _) in pixels.iter_mut().zip(ink).filter(|(_, ink)| **ink) {
                        *pixel = 30;
                    }
                }
            }
        }
    }
}

/// Mean luma PSNR, kbit/s, and ms of each picture's encoding.
fn encode(usage: Usage) -> (f64, f64, f64) {
    let document = Document::new(11);
    let mut picture = I420::new(CONFIG.width as usize, CONFIG.height as usize);
    let mut encoder = Encoder::for_usage(CONFIG, usage).unwrap();
    let mut decoder = Decoder::new().unwrap();
    let whole = Rect {
        x: 0,
        y: 0,
        width: CONFIG.width as usize,
        height: CONFIG.height as usize,
    };
    let frames = SECONDS * CONFIG.fps as usize;
    let (mut sum, mut bytes, mut spent) = (0.0, 0, 0.0);
    for n in 0..frames {
        // Three seconds of writing, then a second in which the page goes up by a line in each other frame.
        let into = n % 120;
        let scrolled = n / 120 * 15 + into.saturating_sub(90) / 2;
        document.draw(scrolled, into.min(90) * COLUMNS / 90, &mut picture);
        let mut unit = Vec::new();
        let began = Instant::now();
        let millis = n as u64 * 1000 / u64::from(CONFIG.fps);
        encoder.encode(picture.view(), millis, &mut unit).unwrap();
        spent += began.elapsed().as_secs_f64();
        bytes += unit.len();
        let decoded = decoder.decode(&unit).unwrap();
        let shown = decoded.picture.expect("a picture for each");
        let wanted: Vec<u8> = (0..whole.height)
            .flat_map(|y| picture.view().y.row(y).to_vec())
            .collect();
        sum += psnr(shown.y, whole, &wanted);
    }
    let frames = frames as f64;
    let kbits = bytes as f64 * 8.0 / 1000.0 / SECONDS as f64;
    (sum / frames, kbits, 1000.0 * spent / frames)
}

#[test]
fn a_shared_screen_is_sharper_in_the_encoders_screen_mode() {
    let (camera, camera_kbits, camera_ms) = encode(Usage::Camera);
    let (screen, screen_kbits, screen_ms) = encode(Usage::Screen);
    println!("as a camera: {camera:.2} dB, {camera_kbits:.0} kbit/s, {camera_ms:.2} ms");
    println!("as a screen: {screen:.2} dB, {screen_kbits:.0} kbit/s, {screen_ms:.2} ms");
    figure("screen_mode_gain", screen - camera, "dB");
    assert!(screen > camera, "{screen} dB, and {camera} dB as a camera");
}
