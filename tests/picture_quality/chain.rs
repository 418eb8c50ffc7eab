//! The chain, in virtual time: cameras, encoders, RTP, a lossy line, the mix, and a viewer's decoder.

use std::collections::VecDeque;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use talksy_mixer::video::frame::Plane;
use talksy_mixer::video::{Rect, View};
use talksy_unit::ids::{PeerId, TrackKey};
use talksy_unit::mcu::codec::VideoCodec;
use talksy_unit::mcu::codec::h264::{Decoder, Encoder, EncoderConfig};
use talksy_unit::mcu::feed::VideoPacket;
use talksy_unit::mcu::source::VideoSource;
use talksy_unit::mcu::video::{
    AccessUnit, Ladder, Participant, Unit, VideoMix, VideoRung, VideoTick,
};
use talksy_unit::rtp::h264::Packetizer;

use crate::film::{Film, number_in};
use crate::measure::psnr;
use crate::scenes::LOOP;

/// Frames per second of cameras and mix.
pub const FPS: u64 = 30;
/// From a camera to the mix, and the same for what the mix asks for.
const ONE_WAY: Duration = Duration::from_millis(25);
/// From the films of a frame to the tick that should show it: its packets are there, those of the next one are not.
const TICK: Duration = Duration::from_millis(30);
const CAMERA: EncoderConfig = EncoderConfig {
    width: 640,
    height: 360,
    fps: FPS as u32,
    bitrate: 800_000,
};
const CANVAS: EncoderConfig = EncoderConfig {
    width: 1280,
    height: 720,
    fps: FPS as u32,
    bitrate: 1_500_000,
};
const RUNG: VideoRung = VideoRung::landscape(0);

/// What a viewer sees in one tile of one frame.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Frames that the camera has made since the one that is shown.
    pub age: usize,
    /// How much it is like that one, dB.
    pub psnr: f64,
    /// Most of it is the grey of a decoder that has nothing.
    pub grey: bool,
}

/// Runs the chain for `frames` frames. Gives for each of them, as far as there was a picture, all tiles as seen; and
/// the mean bitrate of what the viewer got, in kbit/s. `loss` is the share of lost packets of each sender.
pub fn run(frames: u64, loss: &[f64]) -> (Vec<Vec<Seen>>, f64) {
    let start = Instant::now();
    let mut mix = VideoMix::new(Ladder::new(vec![CANVAS]));
    let ids = 0..loss.len() as u64;
    let mut senders: Vec<Sender> = ids.map(|id| Sender::new(id, loss[id as usize])).collect();
    mix.set_participants(senders.iter().map(Sender::participant).collect());
    for sender in &senders {
        mix.add_source(sender.track(), PeerId(sender.id), false);
    }
    mix.add_listener(PeerId(1000), RUNG);
    let tiles = tiles(&mix);
    let films = films(&tiles);
    let (mut tick, mut decoder) = (VideoTick::default(), Decoder::new().expect("a decoder"));
    let (mut seen, mut bytes) = (Vec::new(), 0);
    for frame in 0..frames {
        for (sender, film) in senders.iter_mut().zip(films) {
            sender.send(frame, start, film);
        }
        let now = at(start, frame) + TICK;
        for sender in &mut senders {
            sender.deliver(now, &mut mix);
        }
        mix.tick(now, &mut tick);
        for track in mix.keyframe_wishes() {
            senders[track.0 as usize].wish = Some(now + ONE_WAY);
        }
        for (_, unit) in tick.encoded() {
            bytes += unit.len();
            let decoded = decoder.decode(unit).expect("a good access unit");
            let canvas = decoded.picture.expect("a picture for each");
            let all = tiles.iter().zip(films);
            let look = |(tile, film): (&Rect, &Film)| look(canvas.y, *tile, film, frame);
            seen.push(all.map(look).collect());
            if frame + 1 == frames {
                keep(canvas, loss);
            }
        }
    }
    let seconds = frames as f64 / FPS as f64;
    (seen, bytes as f64 * 8.0 / 1000.0 / seconds)
}

fn at(start: Instant, frame: u64) -> Instant {
    start + Duration::from_nanos(frame * 1_000_000_000 / FPS)
}

/// Made once for all tests.
fn films(tiles: &[Rect]) -> &'static [Film] {
    static FILMS: OnceLock<Vec<Film>> = OnceLock::new();
    FILMS.get_or_init(|| {
        let (width, height) = (CAMERA.width as usize, CAMERA.height as usize);
        let film = |(seed, tile): (usize, &Rect)| Film::new(seed as u64, width, height, *tile);
        tiles.iter().enumerate().map(film).collect()
    })
}

fn look(canvas: Plane<'_>, tile: Rect, film: &Film, now: u64) -> Seen {
    let camera = (CAMERA.width as usize, CAMERA.height as usize);
    let shown = number_in(canvas, tile, camera);
    Seen {
        age: (now as usize + LOOP - shown) % LOOP,
        psnr: psnr(canvas, tile, &film.ideals[shown]),
        grey: is_grey(canvas, tile),
    }
}

fn is_grey(canvas: Plane<'_>, tile: Rect) -> bool {
    let rows = tile.y..tile.y + tile.height;
    let pixels = rows.flat_map(|y| &canvas.row(y)[tile.x..][..tile.width]);
    let grey = pixels.filter(|luma| luma.abs_diff(128) <= 4).count();
    2 * grey > tile.width * tile.height
}

/// Keeps what the viewer saw last, to be looked at.
fn keep(canvas: View<'_>, loss: &[f64]) {
    let lost: f64 = loss.iter().sum::<f64>() * 100.0;
    let name = format!("picture-{lost:.0}-percent-lost.y4m");
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let head = format!(
        "YUV4MPEG2 W{} H{} F{FPS}:1 C420jpeg\nFRAME\n",
        canvas.width(),
        canvas.height()
    );
    let mut file = head.into_bytes();
    for plane in [canvas.y, canvas.u, canvas.v] {
        (0..plane.height()).for_each(|y| file.extend_from_slice(plane.row(y)));
    }
    std::fs::write(&path, file).expect("a directory that can be written");
    println!("what was seen last is in {}", path.display());
}

fn tiles(mix: &VideoMix) -> Vec<Rect> {
    let mut tiles = mix.layout(RUNG).tiles;
    tiles.sort_by_key(|(peer, _)| peer.0);
    tiles.into_iter().map(|(_, rect)| rect).collect()
}

struct Sender {
    id: u64,
    encoder: Encoder,
    packetizer: Packetizer,
    source: VideoSource,
    /// On the line, with their arrival.
    packets: VecDeque<VideoPacket>,
    seq: u64,
    loss: f64,
    random: u64,
    /// When it hears that a keyframe is wanted.
    wish: Option<Instant>,
}

impl Sender {
    fn new(id: u64, loss: f64) -> Self {
        Sender {
            id,
            encoder: Encoder::new(CAMERA).expect("an encoder"),
            packetizer: Packetizer::default(),
            source: VideoSource::new(VideoCodec::H264),
            packets: VecDeque::new(),
            seq: 1000,
            loss,
            random: (id + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            wish: None,
        }
    }

    fn track(&self) -> TrackKey {
        TrackKey(self.id)
    }

    /// Without a name, so that nothing is written over its picture.
    fn participant(&self) -> Participant {
        Participant {
            peer: PeerId(self.id),
            name: String::new(),
            speaking: false,
            muted: false,
            camera_off: false,
            avatar: None,
        }
    }

    /// Encodes and sends one frame.
    fn send(&mut self, frame: u64, start: Instant, film: &Film) {
        let now = at(start, frame);
        let picture = film.frames[frame as usize % LOOP].view();
        if self.wish.is_some_and(|heard| heard <= now) {
            self.wish = None;
            self.encoder.request_keyframe();
        }
        let mut unit = Vec::new();
        let millis = frame * 1000 / FPS;
        self.encoder
            .encode(picture, millis, &mut unit)
            .expect("an encoded picture");
        let (packets, seq) = (&mut self.packets, &mut self.seq);
        let (random, loss) = (&mut self.random, self.loss);
        self.packetizer.packetize(&unit, |payload, marker| {
            *seq += 1;
            if !is_lost(random, loss) {
                packets.push_back(VideoPacket {
                    seq: *seq,
                    timestamp: (frame * 90_000 / FPS) as u32,
                    marker,
                    orientation: None,
                    arrival: now + ONE_WAY,
                    payload: Bytes::copy_from_slice(payload),
                });
            }
        });
    }

    /// What has arrived goes to the mix.
    fn deliver(&mut self, now: Instant, mix: &mut VideoMix) {
        while let Some(packet) = self.packets.pop_front_if(|packet| packet.arrival <= now) {
            self.source.push(packet);
        }
        let mut units = Vec::new();
        while self.source.next(now, |unit| units.push(access_unit(&unit))) {}
        for unit in units {
            mix.push(self.track(), unit);
        }
    }
}

fn access_unit(unit: &Unit<'_>) -> AccessUnit {
    AccessUnit {
        data: Bytes::copy_from_slice(unit.data),
        timestamp: 0,
        keyframe: unit.keyframe,
        arrival: unit.arrival,
        orientation: unit.orientation,
        broken: unit.broken,
    }
}

/// xorshift: the same packets are lost in every run.
fn is_lost(random: &mut u64, share: f64) -> bool {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    ((*random >> 11) as f64 / (1u64 << 53) as f64) < share
}
