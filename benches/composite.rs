//! What one mixed picture costs: nine moving 640x360 senders on a 1280x720 canvas, 30 frames/s, 1.5 Mbit/s.
//!
//! The closing `figure` lines are milliseconds of CPU time of this thread per output frame, the median of several
//! passes: decoding nine access units, scaling and composing, encoding, and their sum.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Criterion;
use rustix::time::{ClockId, clock_gettime};
use talksy_mixer::video::frame::{Plane, PlaneMut, Yuv};
use talksy_mixer::video::layout::Scene;
use talksy_mixer::video::scale::{Fit, PlaneScaler, TileScaler};
use talksy_mixer::video::{Compositor, I420, Picture, Size, Theme, TileSpec};
use talksy_unit::mcu::codec::h264::{Decoder, Encoder, EncoderConfig, has_avx2_assembly};

const SENDERS: usize = 9;
/// Frames of one pass: five seconds, of which the first frame is a keyframe.
const FRAMES: usize = 150;
const PASSES: usize = 5;
const SENDER: EncoderConfig = EncoderConfig {
    width: 640,
    height: 360,
    fps: 30,
    bitrate: 700_000,
};
const CANVAS: EncoderConfig = EncoderConfig {
    width: 1280,
    height: 720,
    fps: 30,
    bitrate: 1_500_000,
};

fn main() {
    let streams: Vec<Vec<Vec<u8>>> = (0..SENDERS).map(stream).collect();
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    scaling(&mut criterion);
    composing(&mut criterion);
    criterion.final_summary();

    scaling_against_copying();
    let passes: Vec<Costs> = (0..PASSES).map(|_| pass(&streams)).collect();
    println!(
        "assembly with AVX2: {}; {:.0} kbit/s out",
        has_avx2_assembly(),
        passes[0].bytes as f64 * 8.0 * 30.0 / FRAMES as f64 / 1000.0
    );
    figure("", &passes, |costs| {
        costs.decode + costs.scale + costs.encode
    });
    figure("_decode", &passes, |costs| costs.decode);
    figure("_scale", &passes, |costs| costs.scale);
    figure("_encode", &passes, |costs| costs.encode);
}

/// Scales whole 640x360 pictures to 320x180, and copies their bytes, in turn: prints the medians and their ratio.
fn scaling_against_copying() {
    const ROUNDS: usize = 200;
    let size = |width, height| Size { width, height };
    let (from, to) = (size(640, 360), size(320, 180));
    let mut picture = I420::new(from.width, from.height);
    draw(&mut picture, &texture(3, 1024), 0, 0);
    let mut tile = I420::new(to.width, to.height);
    let mut scaler = TileScaler::new(from, to, Fit::Fill);
    let source = texture(9, from.width * from.height * 3 / 2);
    let mut copy = vec![0; source.len()];
    let (mut scaled, mut copied) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        scaler.draw(black_box(picture.view()), black_box(&mut tile).planes_mut());
        let between = Instant::now();
        black_box(&mut copy).copy_from_slice(black_box(&source));
        scaled.push((between - begin).as_secs_f64() * 1e6);
        copied.push(between.elapsed().as_secs_f64() * 1e6);
    }
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (scaled, copied) = (median(&mut scaled), median(&mut copied));
    println!("figure scale_360p_to_180p_us {scaled:.1} us");
    println!("figure copy_360p_us {copied:.1} us");
    println!("figure scale_360p_to_180p_per_copy {:.2}", scaled / copied);
}

/// Prints the median of one part.
fn figure(name: &str, passes: &[Costs], part: impl Fn(&Costs) -> f64) {
    let mut values: Vec<f64> = passes.iter().map(part).collect();
    values.sort_by(f64::total_cmp);
    let value = values[values.len() / 2];
    println!("figure composite_9x360p_720p30{name}_ms {value:.3} ms");
}

/// CPU milliseconds per output frame.
struct Costs {
    decode: f64,
    scale: f64,
    encode: f64,
    bytes: usize,
}

/// The whole chain over all streams from their beginning, with fresh codecs.
fn pass(streams: &[Vec<Vec<u8>>]) -> Costs {
    let mut decoders: Vec<Decoder> = (0..SENDERS)
        .map(|_| Decoder::new().expect("a decoder"))
        .collect();
    let mut pictures = vec![I420::new(0, 0); SENDERS];
    let mut compositor = compositor();
    let mut encoder = Encoder::new(CANVAS).expect("an encoder");
    let mut out = Vec::new();
    let mut costs = [0.0; 3];
    let mut bytes = 0;
    for frame in 0..FRAMES {
        let begin = cpu_ms();
        for ((decoder, picture), stream) in decoders.iter_mut().zip(&mut pictures).zip(streams) {
            let decoded = decoder.decode(&stream[frame]).expect("a good access unit");
            picture.copy_from(decoded.picture.expect("a picture for each"), 0);
        }
        let decoded = cpu_ms();
        assert!(compose(&mut compositor, &pictures, frame));
        let scaled = cpu_ms();
        out.clear();
        let millis = frame as u64 * 1000 / 30;
        encoder
            .encode(compositor.canvas().view(), millis, &mut out)
            .expect("an encoded canvas");
        let encoded = cpu_ms();
        bytes += out.len();
        for (cost, spent) in
            costs
                .iter_mut()
                .zip([decoded - begin, scaled - decoded, encoded - scaled])
        {
            *cost += spent / FRAMES as f64;
        }
    }
    let [decode, scale, encode] = costs;
    Costs {
        decode,
        scale,
        encode,
        bytes,
    }
}

/// CPU time of this thread, so that other programs on the machine do not count.
fn cpu_ms() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

fn compositor() -> Compositor {
    let mut compositor = Compositor::new(
        CANVAS.width as usize,
        CANVAS.height as usize,
        Theme::default(),
    );
    let tiles: Vec<TileSpec> = (0..SENDERS as u64)
        .map(|id| TileSpec {
            id,
            name: format!("Participant {id}"),
            colour: id,
            speaking: id == 3,
            muted: id % 4 == 1,
            ..TileSpec::default()
        })
        .collect();
    compositor.set_tiles(Scene::default(), &tiles);
    compositor
}

fn compose(compositor: &mut Compositor, pictures: &[I420], frame: usize) -> bool {
    compositor.compose(|i| Picture::Frame {
        view: pictures[i].view(),
        version: (frame * SENDERS + i) as u64,
    })
}

/// A sender: somebody before a background, both textured, swaying.
fn stream(sender: usize) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(SENDER).expect("an encoder");
    let mut picture = I420::new(SENDER.width as usize, SENDER.height as usize);
    let texture = texture(sender as u64 + 1, 1024);
    (0..FRAMES)
        .map(|frame| {
            draw(&mut picture, &texture, sender, frame);
            let mut unit = Vec::new();
            encoder
                .encode(picture.view(), frame as u64 * 1000 / 30, &mut unit)
                .expect("an encoded picture");
            unit
        })
        .collect()
}

fn draw(picture: &mut I420, texture: &[u8], sender: usize, frame: usize) {
    let phase = frame as f32 / 15.0 + sender as f32;
    let (centre_x, centre_y) = (
        320.0 + 60.0 * phase.sin(),
        200.0 + 15.0 * (1.7 * phase).cos(),
    );
    let shift = (20.0 + 8.0 * (0.6 * phase).sin()) as usize;
    let [mut y, mut u, mut v] = picture.planes_mut();
    for row in 0..y.height() {
        let dy = (row as f32 - centre_y) / 150.0;
        for (column, value) in y.row(row).iter_mut().enumerate() {
            let dx = (column as f32 - centre_x) / 110.0;
            let grain = if dx * dx + dy * dy < 1.0 {
                let (x, y) = (
                    column as i32 - centre_x as i32,
                    row as i32 - centre_y as i32,
                );
                90 + texture[((x * 3 + y * 37).rem_euclid(1024)) as usize] / 2
            } else {
                40 + texture[(column + shift + row / 8 * 53) % 1024] / 3
            };
            *value = grain;
        }
    }
    let colour = Yuv {
        y: 0,
        u: 90 + 9 * sender as u8,
        v: 165 - 8 * sender as u8,
    };
    u.fill(colour.u);
    v.fill(colour.v);
}

/// Soft noise (xorshift, smoothed).
fn texture(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let noise: Vec<u16> = (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 56) as u16
        })
        .collect();
    (0..length)
        .map(|i| ((0..6).map(|k| noise[(i + k) % length]).sum::<u16>() / 6) as u8)
        .collect()
}

fn scaling(criterion: &mut Criterion) {
    let source = texture(5, 1280 * 720);
    let mut group = criterion.benchmark_group("scale_luma");
    for (name, from, to) in [
        ("640x360_copy", (640, 360), (640, 360)),
        ("640x360_half", (640, 360), (320, 180)),
        ("640x360_quarter", (640, 360), (160, 90)),
        ("640x360_to_256x144_by_area", (640, 360), (256, 144)),
        ("640x360_to_426x240", (640, 360), (426, 240)),
        ("1280x720_to_426x240", (1280, 720), (426, 240)),
        ("320x180_to_640x360", (320, 180), (640, 360)),
    ] {
        let size = |(width, height)| Size { width, height };
        let mut scaler = PlaneScaler::new(size(from), size(to));
        let mut out = vec![0; to.0 * to.1];
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let source = Plane::new(&source, from.0, from.0, from.1).expect("large enough");
                let out = PlaneMut::new(&mut out, to.0, to.0, to.1).expect("large enough");
                scaler.run(black_box(source), black_box(out));
            });
        });
    }
    group.finish();
}

fn composing(criterion: &mut Criterion) {
    let mut compositor = compositor();
    let mut pictures = vec![I420::new(640, 360); SENDERS];
    let texture = texture(1, 1024);
    for (sender, picture) in pictures.iter_mut().enumerate() {
        draw(picture, &texture, sender, 0);
    }
    let mut frame = 0;
    criterion.bench_function("compose_9x360p_on_720p", |bencher| {
        bencher.iter(|| {
            frame += 1;
            compose(&mut compositor, black_box(&pictures), frame)
        });
    });
}
