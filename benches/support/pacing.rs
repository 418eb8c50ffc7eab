//! When a real sender's packets leave: what Chromium does with a camera of some bit rate and a microphone.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub const FPS: u32 = 30;
/// The pacer wakes this often.
pub const TICK: Duration = Duration::from_millis(5);
/// The pacer's rate is this many times the encoder's.
const PACING_FACTOR_TENTHS: usize = 25;
const MAX_PAYLOAD: usize = 1150;
/// Opus at about 32 kbit/s.
const AUDIO_PAYLOAD: std::ops::Range<usize> = 70..95;
/// A keyframe, against the mean frame.
const KEYFRAME_FACTOR: usize = 8;

/// One packet to be sent now.
#[derive(Clone, Copy, Debug)]
pub enum Packet {
    /// A video packet of a frame.
    Video {
        frame: u32,
        size: usize,
        begins: bool,
        ends: bool,
        keyframe: bool,
    },
    /// One Opus packet.
    Audio { number: u32, size: usize },
}

/// Gives out what each tick sends.
pub struct Pacer {
    random: StdRng,
    /// Of the camera, bit/s.
    bitrate: usize,
    queue: std::collections::VecDeque<Packet>,
    ticks: u32,
    frames: u32,
    sounds: u32,
    /// Bytes that may be sent; negative after more than that was sent.
    budget: isize,
}

impl Pacer {
    pub fn new(seed: u64, bitrate: usize) -> Self {
        Pacer {
            random: StdRng::seed_from_u64(seed),
            bitrate,
            queue: Default::default(),
            ticks: 0,
            frames: 0,
            sounds: 0,
            budget: 0,
        }
    }

    /// What leaves at this tick.
    pub fn tick(&mut self, keyframe: &mut bool, out: &mut Vec<Packet>) {
        let time = TICK * self.ticks;
        self.ticks += 1;
        // Sound goes before pictures, and is not held back.
        if time >= Duration::from_millis(20) * self.sounds {
            let size = self.random.random_range(AUDIO_PAYLOAD);
            let number = self.sounds;
            self.sounds += 1;
            out.push(Packet::Audio { number, size });
        }
        if time >= Duration::from_secs(1) * self.frames / FPS {
            self.encode(std::mem::take(keyframe));
        }
        let per_tick =
            self.bitrate / 8 * PACING_FACTOR_TENTHS / 10 * TICK.as_millis() as usize / 1000;
        self.budget = (self.budget + per_tick as isize).min(per_tick as isize);
        while self.budget > 0
            && let Some(packet) = self.queue.pop_front()
        {
            if let Packet::Video { size, .. } = packet {
                self.budget -= size as isize;
            }
            out.push(packet);
        }
    }

    /// Splits a frame into packets about equal in size, the smaller ones first, as Chromium does.
    fn encode(&mut self, keyframe: bool) {
        let mean = self.bitrate / 8 / FPS as usize;
        let spread = self.random.random_range(75..=125);
        let factor = if keyframe { KEYFRAME_FACTOR } else { 1 };
        let bytes = mean * factor * spread / 100;
        let count = bytes.div_ceil(MAX_PAYLOAD);
        let larger = bytes % count;
        for at in 0..count {
            self.queue.push_back(Packet::Video {
                frame: self.frames,
                size: bytes / count + usize::from(at >= count - larger),
                begins: at == 0,
                ends: at + 1 == count,
                keyframe,
            });
        }
        self.frames += 1;
    }
}
