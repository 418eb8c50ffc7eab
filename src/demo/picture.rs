//! The picture of a synthetic participant: its number on its own colour, with a dot that runs around it, encoded once into a loop.

use bytes::Bytes;
use openh264::OpenH264API;
use openh264::encoder::{
    BitRate, Complexity, Encoder, EncoderConfig, FrameRate, IntraFramePeriod, Profile,
    RateControlMode, UsageType,
};
use openh264::formats::YUVBuffer;
use std::time::Duration;

use super::DemoError;

/// Length of the loop. Whatever moves returns to its start in this time, so the seam is not seen.
const LOOP_SECONDS: u32 = 4;

/// Backgrounds of successive numbers, from 0: far from one another, and white is readable on each.
const PALETTE: [[u8; 3]; 8] = [
    [71, 85, 105],
    [67, 76, 200],
    [13, 140, 128],
    [201, 112, 20],
    [196, 40, 84],
    [20, 124, 186],
    [136, 62, 190],
    [86, 128, 36],
];

/// Luma steps of the noise, peak to peak.
const GRAIN: u8 = 12;

/// What a synthetic camera shows and how it is encoded.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Width in pixels, even.
    pub width: usize,
    /// Height in pixels, even.
    pub height: usize,
    /// Frames per second.
    pub fps: u32,
    /// Target in bit/s.
    pub bitrate: u32,
    /// Background colour as R, G, B.
    pub colour: [u8; 3],
    /// The number that is written in the middle; without one the middle is plain.
    pub number: Option<u32>,
}

impl Picture {
    /// 640x360 at 20 frames/s and 500 kbit/s, in a colour that differs well from those of the neighbouring numbers.
    pub fn numbered(number: u32) -> Self {
        Picture {
            width: 640,
            height: 360,
            fps: 20,
            bitrate: 500_000,
            colour: PALETTE[number as usize % PALETTE.len()],
            number: Some(number),
        }
    }

    /// The same without a number: a colour that tests find in the middle.
    pub fn plain(colour: [u8; 3]) -> Self {
        Picture {
            colour,
            number: None,
            ..Picture::numbered(0)
        }
    }

    /// Draws frame `index` of the loop as I420.
    pub fn draw(&self, index: u32) -> Vec<u8> {
        let mut canvas = Canvas::filled(self.width, self.height, self.colour);
        if let Some(number) = self.number {
            canvas.shade(self.colour);
            let turn = index as f32 / (self.fps * LOOP_SECONDS) as f32;
            canvas.emblem(number, turn, self.colour);
        } else {
            canvas.bar(index as usize, (self.fps * LOOP_SECONDS) as usize);
        }
        canvas.grain(index);
        canvas.planes
    }
}

/// Encoded access units that can be sent for ever: the first is an IDR picture, the last leads back to it.
#[derive(Clone, Debug)]
pub struct PictureLoop {
    frames: Vec<Bytes>,
    fps: u32,
}

impl PictureLoop {
    /// Draws and encodes the loop. Takes some hundred milliseconds of CPU: call it off the async threads.
    ///
    /// # Errors
    /// [`DemoError::Picture`] when the size is odd, the bit rate too low or the encoder refuses.
    pub fn encode(picture: &Picture) -> Result<Self, DemoError> {
        let even = picture.width.is_multiple_of(2) && picture.height.is_multiple_of(2);
        if !even || picture.fps == 0 {
            return Err(DemoError::Picture("odd size or no frame rate".into()));
        }
        let config = EncoderConfig::new()
            .bitrate(BitRate::from_bps(picture.bitrate))
            .max_frame_rate(FrameRate::from_hz(picture.fps as f32))
            .rate_control_mode(RateControlMode::Bitrate)
            .usage_type(UsageType::CameraVideoRealTime)
            .profile(Profile::Baseline)
            .complexity(Complexity::Low)
            .intra_frame_period(IntraFramePeriod::auto())
            .scene_change_detect(false)
            .num_threads(1)
            // Without it the encoder holds no rate (and says so on stderr); at usual rates it skips nothing.
            .skip_frames(true);
        let mut encoder = Encoder::with_api_config(OpenH264API::from_source(), config)
            .map_err(|e| DemoError::Picture(e.to_string()))?;
        let frames = (0..picture.fps * LOOP_SECONDS)
            .map(|i| {
                let yuv = YUVBuffer::from_vec(picture.draw(i), picture.width, picture.height);
                match encoder.encode(&yuv).map(|unit| unit.to_vec()) {
                    Ok(unit) if unit.is_empty() => Err(DemoError::Picture(
                        "the bit rate is too low for the size".into(),
                    )),
                    Ok(unit) => Ok(Bytes::from(unit)),
                    Err(error) => Err(DemoError::Picture(error.to_string())),
                }
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(PictureLoop {
            frames,
            fps: picture.fps,
        })
    }

    /// Access unit `index` of the loop in Annex B form; indices wrap. Unit 0 begins with SPS and PPS.
    pub fn unit(&self, index: usize) -> Bytes {
        self.frames[index % self.frames.len()].clone()
    }

    /// Access units in the loop.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Never true: a loop has at least one second.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Time from one access unit to the next.
    pub fn frame_duration(&self) -> Duration {
        Duration::from_secs(1) / self.fps
    }
}

/// An I420 picture that is drawn into with even-aligned rectangles.
struct Canvas {
    planes: Vec<u8>,
    width: usize,
    height: usize,
}

impl Canvas {
    fn filled(width: usize, height: usize, colour: [u8; 3]) -> Self {
        let mut canvas = Canvas {
            planes: vec![0; width * height * 3 / 2],
            width,
            height,
        };
        canvas.rectangle(0, 0, width, height, colour);
        canvas
    }

    /// Fills a rectangle; what lies outside of the picture is cut off, odd corners move to the even pixel before.
    fn rectangle(&mut self, x: usize, y: usize, w: usize, h: usize, colour: [u8; 3]) {
        let (x0, y0) = (x & !1, y & !1);
        let x1 = ((x + w) & !1).min(self.width);
        let y1 = ((y + h) & !1).min(self.height);
        if x0 >= x1 || y0 >= y1 {
            return;
        }
        let [luma, cb, cr] = yuv_of(colour);
        for row in y0..y1 {
            self.planes[row * self.width + x0..row * self.width + x1].fill(luma);
        }
        let (cw, cb_at) = (self.width / 2, self.width * self.height);
        let cr_at = cb_at + cw * (self.height / 2);
        for row in y0 / 2..y1 / 2 {
            let span = row * cw + x0 / 2..row * cw + x1 / 2;
            self.planes[cb_at + span.start..cb_at + span.end].fill(cb);
            self.planes[cr_at + span.start..cr_at + span.end].fill(cr);
        }
    }

    /// Roughens the luma a little, differently in every frame: a flat picture would cost a camera's tenth.
    fn grain(&mut self, frame: u32) {
        let mut state = frame.wrapping_mul(0x9e37_79b9) | 1;
        for luma in &mut self.planes[..self.width * self.height] {
            // Xorshift (Marsaglia 2003): even noise without a table.
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            *luma = luma
                .saturating_add((state >> 24) as u8 % GRAIN)
                .saturating_sub(GRAIN / 2);
        }
    }

    /// Lightens the top and darkens the bottom, as a room behind a person is.
    fn shade(&mut self, colour: [u8; 3]) {
        for y in (0..self.height).step_by(2) {
            let light = 1.15 - 0.4 * y as f32 / self.height as f32;
            self.rectangle(0, y, self.width, 2, scaled(colour, light));
        }
    }

    /// A disc with the number, and a dot that has gone `turn` of its way around it.
    fn emblem(&mut self, number: u32, turn: f32, colour: [u8; 3]) {
        let centre = (self.width as f32 / 2.0, self.height as f32 / 2.0);
        let unit = self.width.min(self.height) as f32;
        let angle = std::f32::consts::TAU * turn;
        let breath = 1.0 + 0.03 * (2.0 * angle).sin();
        self.disc(centre, 0.40 * unit * breath, scaled(colour, 1.3));
        self.disc(centre, 0.33 * unit, scaled(colour, 0.55));
        let dot = (
            centre.0 + 0.40 * unit * angle.sin(),
            centre.1 - 0.40 * unit * angle.cos(),
        );
        self.disc(dot, 0.05 * unit, [250, 250, 250]);
        self.number(number);
    }

    fn disc(&mut self, (cx, cy): (f32, f32), radius: f32, colour: [u8; 3]) {
        let top = (cy - radius).max(0.0) as usize & !1;
        for y in (top..(cy + radius) as usize).step_by(2) {
            let half = (radius.powi(2) - (y as f32 + 1.0 - cy).powi(2))
                .max(0.0)
                .sqrt();
            let left = (cx - half).max(0.0) as usize;
            let right = (cx + half).max(0.0) as usize;
            self.rectangle(left, y, right - left, 2, colour);
        }
    }

    /// A light bar along the bottom, step `at` of `steps` on its way through; the rest of the picture stays plain.
    fn bar(&mut self, at: usize, steps: usize) {
        let (w, h) = (self.width, self.height);
        let x = (w + w / 8) * at / steps;
        let left = x.saturating_sub(w / 8);
        self.rectangle(left, h - h / 10, x - left, h / 20, [235, 235, 235]);
    }

    /// Writes `number` in the middle, white, as seven-segment digits.
    fn number(&mut self, number: u32) {
        let text = number.to_string();
        let digit_h = self.height * 2 / 5;
        let digit_w = digit_h / 2;
        let gap = digit_w / 3;
        let total = text.len() * (digit_w + gap) - gap;
        // The one is a stroke at the right edge of its digit: alone it would look misplaced.
        let nudge = if text == "1" {
            (digit_w - digit_w / 4) / 2
        } else {
            0
        };
        let left = (self.width.saturating_sub(total) / 2).saturating_sub(nudge);
        let top = (self.height - digit_h) / 2;
        for (i, c) in text.bytes().enumerate() {
            self.digit(c - b'0', left + i * (digit_w + gap), top, digit_w, digit_h);
        }
    }

    fn digit(&mut self, digit: u8, x: usize, y: usize, w: usize, h: usize) {
        // Segments a to g, a at the top, clockwise, g in the middle; bit 0 is a.
        const SEGMENTS: [u8; 10] = [0x3f, 0x06, 0x5b, 0x4f, 0x66, 0x6d, 0x7d, 0x07, 0x7f, 0x6f];
        let t = w / 4;
        let half = h / 2;
        let places = [
            (x, y, w, t),
            (x + w - t, y, t, half),
            (x + w - t, y + half, t, h - half),
            (x, y + h - t, w, t),
            (x, y + half, t, h - half),
            (x, y, t, half),
            (x, y + half - t / 2, w, t),
        ];
        for (bit, (px, py, pw, ph)) in places.into_iter().enumerate() {
            if SEGMENTS[usize::from(digit % 10)] >> bit & 1 == 1 {
                self.rectangle(px, py, pw, ph, [250, 250, 250]);
            }
        }
    }
}

/// A colour made lighter or darker.
fn scaled(colour: [u8; 3], factor: f32) -> [u8; 3] {
    colour.map(|c| (f32::from(c) * factor).clamp(0.0, 250.0) as u8)
}

/// BT.601, limited range: what decoders assume of small pictures that say nothing else.
fn yuv_of([r, g, b]: [u8; 3]) -> [u8; 3] {
    let (r, g, b) = (f32::from(r), f32::from(g), f32::from(b));
    [
        16.0 + 0.257 * r + 0.504 * g + 0.098 * b,
        128.0 - 0.148 * r - 0.291 * g + 0.439 * b,
        128.0 + 0.439 * r - 0.368 * g - 0.071 * b,
    ]
    .map(|v| v.round().clamp(0.0, 255.0) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use openh264::decoder::Decoder;
    use openh264::formats::YUVSource;

    fn small(number: u32) -> Picture {
        Picture {
            width: 320,
            height: 180,
            fps: 5,
            ..Picture::numbered(number)
        }
    }

    #[test]
    fn the_loop_decodes_to_the_colour_it_was_drawn_with_twice_around() {
        let picture = Picture {
            number: None,
            ..small(7)
        };
        let video = PictureLoop::encode(&picture).unwrap();
        let mut decoder = Decoder::new().unwrap();
        let [luma, ..] = yuv_of(picture.colour);
        for i in 0..2 * video.len() {
            let unit = video.unit(i);
            let frame = decoder
                .decode(&unit)
                .unwrap()
                .expect("every unit is a picture");
            assert_eq!(frame.dimensions(), (320, 180));
            let corner = frame.y()[4];
            assert!(corner.abs_diff(luma) < 8, "unit {i}: {corner} for {luma}");
        }
    }

    #[test]
    fn only_the_first_unit_is_a_keyframe() {
        let video = PictureLoop::encode(&small(1)).unwrap();
        let is_idr = |unit: &[u8]| {
            unit.windows(4)
                .any(|w| w[..3] == [0, 0, 1] && w[3] & 31 == 5)
        };
        let keys: Vec<usize> = (0..video.len())
            .filter(|i| is_idr(&video.unit(*i)))
            .collect();
        assert_eq!(keys, [0]);
    }

    #[test]
    fn successive_frames_and_different_numbers_differ() {
        let picture = small(3);
        assert_ne!(picture.draw(0), picture.draw(1));
        let other = Picture {
            colour: picture.colour,
            ..small(8)
        };
        assert_ne!(picture.draw(0), other.draw(0));
    }

    #[test]
    fn a_size_that_i420_cannot_hold_is_refused() {
        let odd = Picture {
            width: 321,
            ..small(1)
        };
        assert!(PictureLoop::encode(&odd).is_err());
    }

    #[test]
    fn any_number_of_digits_is_drawn_inside_the_picture() {
        for number in [0, 42, 4_294_967_295] {
            assert_eq!(small(number).draw(3).len(), 320 * 180 * 3 / 2);
        }
    }
}
