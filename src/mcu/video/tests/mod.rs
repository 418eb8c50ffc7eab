//! A room of synthetic cameras in virtual time, seen through real codecs.

mod decoding;
mod delivery;
mod hostile;
mod ladder;
mod model;
mod picture;
mod sources;

use std::time::Duration;

use super::*;
use crate::mcu::codec::h264::{Decoder, Encoder};
use talksy_mixer::video::I420;
use talksy_mixer::video::frame::Yuv;

/// 640x360 at 20 frames/s, as often as the cameras of these tests send.
const STANDARD: VideoRung = VideoRung::landscape(3);
/// 320x180 at 10 frames/s.
const LOW: VideoRung = VideoRung::landscape(1);

/// A sender: a texture in one colour that moves with every frame.
struct Camera {
    track: TrackKey,
    encoder: Encoder,
    picture: I420,
    texture: Vec<u8>,
    contrast: u16,
    colour: Yuv,
    frame: usize,
}

impl Camera {
    fn new(track: u64, colour: Yuv) -> Self {
        Camera::sized(track, colour, 640, 360)
    }

    fn sized(track: u64, colour: Yuv, width: u32, height: u32) -> Self {
        let config = EncoderConfig {
            width,
            height,
            fps: 20,
            bitrate: 1_500_000,
        };
        Camera {
            track: TrackKey(track),
            encoder: Encoder::new(config).unwrap(),
            picture: I420::new(width as usize, height as usize),
            texture: texture(track, width as usize * 2),
            contrast: 40,
            colour,
            frame: 0,
        }
    }

    fn unit(&mut self, at: Instant) -> AccessUnit {
        self.frame += 1;
        let shift = self.frame * 3;
        let [mut y, mut u, mut v] = self.picture.planes_mut();
        let width = self.texture.len() / 2;
        for row in 0..y.height() {
            let start = (shift + row * row / 90) % width;
            for (to, from) in y.row(row).iter_mut().zip(&self.texture[start..]) {
                let relief = u16::from(*from) * self.contrast / 256;
                *to = self.colour.y.saturating_add(relief as u8);
            }
        }
        u.fill(self.colour.u);
        v.fill(self.colour.v);
        let mut data = Vec::new();
        let millis = self.frame as u64 * 50;
        let keyframe = self
            .encoder
            .encode(self.picture.view(), millis, &mut data)
            .unwrap();
        AccessUnit {
            data: data.into(),
            timestamp: millis as u32 * 90,
            keyframe,
            arrival: at,
            orientation: 0,
            broken: false,
        }
    }

    fn send(&mut self, mix: &mut VideoMix, at: Instant) {
        let unit = self.unit(at);
        mix.push(self.track, unit);
    }
}

/// Soft noise that repeats after half its length (xorshift, smoothed).
fn texture(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let noise: Vec<u16> = (0..length / 2)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 56) as u16
        })
        .collect();
    let soft = (0..length / 2).map(|i| {
        let near = (0..8).map(|k| noise[(i + k) % noise.len()]);
        (near.sum::<u16>() / 8) as u8
    });
    let soft: Vec<u8> = soft.collect();
    soft.repeat(2)
}

/// Sixteen colours, then the same again.
fn colour(i: u64) -> Yuv {
    let i = (i % 16) as u8;
    Yuv {
        y: 60 + 12 * i,
        u: 80 + 10 * i,
        v: 170 - 10 * i,
    }
}

fn person(id: u64) -> Participant {
    Participant {
        peer: PeerId(id),
        name: String::new(),
        speaking: false,
        muted: false,
        camera_off: false,
        avatar: None,
    }
}

/// A mix with a camera for each of `count` people, in virtual time.
struct Room {
    mix: VideoMix,
    cameras: Vec<Camera>,
    now: Instant,
    tick: VideoTick,
}

impl Room {
    fn new(count: u64) -> Self {
        let mut mix = VideoMix::new(Ladder::default());
        mix.set_participants((1..=count).map(person).collect());
        let cameras: Vec<Camera> = (1..=count).map(|i| Camera::new(i, colour(i))).collect();
        for camera in &cameras {
            mix.add_source(camera.track, PeerId(camera.track.0), false);
        }
        Room {
            mix,
            cameras,
            now: Instant::now(),
            tick: VideoTick::default(),
        }
    }

    /// One frame of every camera, then a tick, then 50 ms go by.
    fn step(&mut self) -> &VideoTick {
        for camera in &mut self.cameras {
            camera.send(&mut self.mix, self.now);
        }
        self.quiet_step()
    }

    fn quiet_step(&mut self) -> &VideoTick {
        self.mix.tick(self.now, &mut self.tick);
        self.now += Duration::from_millis(50);
        &self.tick
    }
}

/// A receiver of one rung.
struct Viewer {
    rung: VideoRung,
    decoder: Decoder,
    picture: I420,
}

impl Viewer {
    fn new(rung: VideoRung) -> Self {
        Viewer {
            rung,
            decoder: Decoder::new().unwrap(),
            picture: I420::new(2, 2),
        }
    }

    fn watch(&mut self, tick: &VideoTick) {
        for (_, data) in tick.encoded().filter(|(frame, _)| frame.rung == self.rung) {
            let decoded = self.decoder.decode(data).unwrap();
            assert!(!decoded.damaged);
            self.picture.copy_from(decoded.picture.unwrap(), 0);
        }
    }

    /// The colour in the middle of each tile: mean luma and chroma of 8x8 pixels.
    fn centres(&self, mix: &VideoMix) -> Vec<[u8; 3]> {
        let tiles = mix.layout(self.rung).tiles;
        let middle = |rect: &Rect| (rect.x + rect.width / 2, rect.y + rect.height / 2);
        let view = self.picture.view();
        tiles
            .iter()
            .map(|(_, rect)| {
                let (x, y) = middle(rect);
                let planes = [
                    (view.y, x, y),
                    (view.u, x / 2, y / 2),
                    (view.v, x / 2, y / 2),
                ];
                planes.map(|(plane, x, y)| {
                    let block = plane.crop(x - 4, y - 4, 8, 8);
                    let sum: usize = (0..8)
                        .map(|row| {
                            block
                                .row(row)
                                .iter()
                                .map(|v| usize::from(*v))
                                .sum::<usize>()
                        })
                        .sum();
                    (sum / 64) as u8
                })
            })
            .collect()
    }

    fn sees(&self, mix: &VideoMix, tile: usize, colour: Yuv) -> bool {
        let [_, u, v] = self.centres(mix)[tile];
        u.abs_diff(colour.u) < 5 && v.abs_diff(colour.v) < 5
    }
}
