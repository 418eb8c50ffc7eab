//! The parts that have a measure of their own: scaling beside copying, and one composed canvas.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Criterion;
use talksy_mixer::video::frame::{Plane, PlaneMut};
use talksy_mixer::video::scale::{Fit, PlaneScaler, TileScaler};
use talksy_mixer::video::{I420, Picture, Size};

use crate::scenes::Scene;
use crate::{RUNGS, compositor};

const SENDERS: usize = 9;

pub fn run() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    scaling(&mut criterion);
    composing(&mut criterion);
    criterion.final_summary();
    scaling_against_copying();
}

/// Scales whole 640x360 pictures to 320x180, and copies their bytes, in turn: prints the medians and their ratio.
fn scaling_against_copying() {
    const ROUNDS: usize = 400;
    let size = |width, height| Size { width, height };
    let (from, to) = (size(640, 360), size(320, 180));
    let picture = drawn(3);
    let mut tile = I420::new(to.width, to.height);
    let mut scaler = TileScaler::new(from, to, Fit::Fill);
    let view = picture.view();
    let source = [view.y.data(), view.u.data(), view.v.data()].concat();
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
    println!(
        "figure scale_360p_to_180p_per_copy {:.2} times",
        scaled / copied
    );
}

fn drawn(seed: u64) -> I420 {
    let mut picture = I420::new(0, 0);
    Scene::new(seed, 640, 360).draw(0, &mut picture);
    picture
}

fn scaling(criterion: &mut Criterion) {
    let source: Vec<u8> = (0..1280 * 720u32)
        .map(|i| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8)
        .collect();
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
    let mut compositor = compositor(SENDERS, RUNGS[0].1);
    let pictures: Vec<I420> = (0..SENDERS as u64).map(drawn).collect();
    let mut version = 0;
    criterion.bench_function("compose_9x360p_on_720p", |bencher| {
        bencher.iter(|| {
            version += SENDERS as u64;
            compositor.compose(|person| Picture::Frame {
                view: black_box(&pictures)[person].view(),
                version: version + person as u64,
            })
        });
    });
}
