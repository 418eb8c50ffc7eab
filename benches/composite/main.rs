//! What one mixed picture costs: 4, 9, 16 and 25 moving senders of three sizes, on two canvases.
//!
//! The `figure` lines are milliseconds of CPU time of this thread per picture that goes out, the median of several
//! passes: their sum, and its parts. Decoding is all that the senders have sent since the picture before, with the copy
//! of each picture; scaling is the senders' pictures into their tiles; composing is what else is drawn (names, borders);
//! encoding is the canvas.
//!
//! `cargo bench --bench composite -- 9x360p` measures only what has that in its name.

mod kernels;
mod rungs;
#[path = "../../tests/picture_quality/scenes.rs"]
mod scenes;

use rustix::time::{ClockId, clock_gettime};
use scenes::Scene;
use talksy_mixer::video::layout::Scene as Division;
use talksy_mixer::video::scale::{Fit, TileScaler};
use talksy_mixer::video::{Compositor, I420, Picture, Rect, Size, Theme, TileSpec};
use talksy_unit::mcu::codec::h264::{Decoder, Encoder, EncoderConfig, has_avx2_assembly};

const PEOPLE: [usize; 4] = [4, 9, 16, 25];
/// Different pictures; larger rooms show some of them twice, each with a decoder of its own.
const SCENES: usize = 9;
const SENDER_FPS: u32 = 30;
/// Frames of each sender in one pass: two seconds, of which the first one is a keyframe.
const FRAMES: usize = 60;
const PASSES: usize = 3;

const INPUTS: [(&str, EncoderConfig); 3] = [
    ("720p", config(1280, 720, SENDER_FPS, 2_000_000)),
    ("360p", config(640, 360, SENDER_FPS, 700_000)),
    ("180p", config(320, 180, SENDER_FPS, 200_000)),
];
const RUNGS: [(&str, EncoderConfig); 2] = [
    ("720p30", config(1280, 720, 30, 1_500_000)),
    ("360p15", config(640, 360, 15, 300_000)),
];

const fn config(width: u32, height: u32, fps: u32, bitrate: u32) -> EncoderConfig {
    EncoderConfig {
        width,
        height,
        fps,
        bitrate,
    }
}

/// The access units of one sender.
type Stream = Vec<Vec<u8>>;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let wanted: Vec<&String> = wanted.iter().filter(|arg| !arg.starts_with('-')).collect();
    if wanted.is_empty() {
        kernels::run();
    }
    println!("assembly with AVX2: {}", has_avx2_assembly());
    for (input, sender) in INPUTS {
        let wants =
            |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(*part));
        let rooms = PEOPLE
            .iter()
            .flat_map(|people| RUNGS.map(|rung| (*people, rung)));
        let rooms: Vec<_> = rooms
            .map(|(people, (rung, canvas))| {
                (format!("composite_{people}x{input}_{rung}"), people, canvas)
            })
            .filter(|(name, ..)| wants(name))
            .collect();
        let three_rungs = input == "360p" && wants("three_rungs");
        if rooms.is_empty() && !three_rungs {
            continue;
        }
        let streams: Vec<Stream> = (0..SCENES as u64)
            .map(|seed| stream(seed, sender))
            .collect();
        for (name, people, canvas) in rooms {
            let passes: Vec<Costs> = (0..PASSES)
                .map(|_| pass(&streams, people, canvas))
                .collect();
            report(&name, canvas.fps, &passes);
        }
        if three_rungs {
            rungs::run(&streams);
        }
    }
}

fn report(name: &str, fps: u32, passes: &[Costs]) {
    let figure = |part: &str, of: &dyn Fn(&Costs) -> f64| {
        let mut values: Vec<f64> = passes.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        let value = values[values.len() / 2];
        println!("figure {name}{part}_ms {value:.3} ms");
        value
    };
    let sum = figure("", &Costs::sum);
    figure("_decode", &|costs| costs.decode);
    figure("_scale", &|costs| costs.scale);
    figure("_compose", &|costs| costs.compose);
    figure("_encode", &|costs| costs.encode);
    println!(
        "figure {name}_rooms_per_core {:.1} rooms",
        1000.0 / sum / f64::from(fps)
    );
}

/// CPU milliseconds per picture that goes out.
#[derive(Default)]
struct Costs {
    decode: f64,
    scale: f64,
    compose: f64,
    encode: f64,
}

impl Costs {
    fn sum(&self) -> f64 {
        self.decode + self.scale + self.compose + self.encode
    }
}

/// The whole chain over the streams from their beginning, with fresh codecs.
fn pass(streams: &[Stream], people: usize, canvas: EncoderConfig) -> Costs {
    let stream_of = |person: usize| &streams[person % streams.len()];
    let mut decoders: Vec<Decoder> = (0..people)
        .map(|_| Decoder::new().expect("a decoder"))
        .collect();
    let mut pictures = vec![I420::new(0, 0); people];
    let mut compositor = compositor(people, canvas);
    let mut scalers = Vec::new();
    let mut scaled = I420::new(canvas.width as usize, canvas.height as usize);
    let mut encoder = Encoder::new(canvas).expect("an encoder");
    let (mut out, mut costs) = (Vec::new(), Costs::default());
    let every = (SENDER_FPS / canvas.fps) as usize;
    for frame in 0..FRAMES {
        let begin = cpu_ms();
        for (person, (decoder, picture)) in decoders.iter_mut().zip(&mut pictures).enumerate() {
            let decoded = decoder.decode(&stream_of(person)[frame]);
            let decoded = decoded.expect("a good access unit");
            picture.copy_from(decoded.picture.expect("a picture for each"), 0);
        }
        costs.decode += cpu_ms() - begin;
        if frame % every != 0 {
            continue;
        }
        if scalers.is_empty() {
            scalers = self::scalers(&compositor, &pictures);
        }
        // Scaling happens in `compose` as well: it is measured alone, and taken off there.
        let begin = cpu_ms();
        for ((scaler, rect), picture) in scalers.iter_mut().zip(&pictures) {
            scaler.draw(picture.view(), tile(&mut scaled, *rect));
        }
        let between = cpu_ms();
        let version = |person: usize| (frame * people + person) as u64;
        let changed = compositor.compose(|person| Picture::Frame {
            view: pictures[person].view(),
            version: version(person),
        });
        assert!(changed);
        let composed = cpu_ms();
        out.clear();
        let millis = frame as u64 * 1000 / u64::from(SENDER_FPS);
        let picture = compositor.canvas().view();
        encoder
            .encode(picture, millis, &mut out)
            .expect("an encoded canvas");
        costs.encode += cpu_ms() - composed;
        costs.scale += between - begin;
        costs.compose += (composed - between) - (between - begin);
    }
    let pictures = (FRAMES / every) as f64;
    Costs {
        decode: costs.decode / pictures,
        scale: costs.scale / pictures,
        compose: costs.compose / pictures,
        encode: costs.encode / pictures,
    }
}

/// In the order of the people, whose ids are their places.
fn scalers(compositor: &Compositor, pictures: &[I420]) -> Vec<(TileScaler, Rect)> {
    let mut tiles: Vec<(u64, Rect)> = compositor.tiles().collect();
    tiles.sort_by_key(|(id, _)| *id);
    let scaler = |((_, rect), picture): ((u64, Rect), &I420)| {
        let size = Size {
            width: picture.width(),
            height: picture.height(),
        };
        (TileScaler::new(size, rect.size(), Fit::Fill), rect)
    };
    tiles.into_iter().zip(pictures).map(scaler).collect()
}

fn tile(canvas: &mut I420, rect: Rect) -> [talksy_mixer::video::frame::PlaneMut<'_>; 3] {
    let Rect {
        x,
        y,
        width,
        height,
    } = rect;
    let [luma, u, v] = canvas.planes_mut();
    [
        luma.crop(x, y, width, height),
        u.crop(x / 2, y / 2, width / 2, height / 2),
        v.crop(x / 2, y / 2, width / 2, height / 2),
    ]
}

/// CPU time of this thread, so that other programs on the machine do not count.
fn cpu_ms() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

fn compositor(people: usize, canvas: EncoderConfig) -> Compositor {
    let (width, height) = (canvas.width as usize, canvas.height as usize);
    let mut compositor = Compositor::new(width, height, Theme::default());
    let tiles: Vec<TileSpec> = (0..people as u64)
        .map(|id| TileSpec {
            id,
            name: format!("Participant {id}"),
            colour: id,
            speaking: id == 3,
            muted: id % 4 == 1,
            ..TileSpec::default()
        })
        .collect();
    compositor.set_tiles(Division::default(), &tiles);
    compositor
}

fn stream(seed: u64, sender: EncoderConfig) -> Stream {
    let scene = Scene::new(seed, sender.width as usize, sender.height as usize);
    let mut encoder = Encoder::new(sender).expect("an encoder");
    let mut picture = I420::new(0, 0);
    (0..FRAMES)
        .map(|frame| {
            scene.draw(frame, &mut picture);
            let (millis, mut unit) = (frame as u64 * 1000 / 30, Vec::new());
            encoder
                .encode(picture.view(), millis, &mut unit)
                .expect("an encoded picture");
            unit
        })
        .collect()
}
