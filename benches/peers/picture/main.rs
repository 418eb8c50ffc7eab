//! The mixed picture of this server, ffmpeg and GStreamer, in turns: the same files in, one H.264 file out.
//!
//! Each is a process of its own that reads the senders' files, decodes, scales, composes, and encodes 1280x720 at 30
//! frames/s for 1.5 Mbit/s, on one thread where it lets itself be told so. Compared are the CPU time of the whole process
//! (user and system, all of its threads), the bit rate, and the luma PSNR of the tiles against the ideal composite,
//! which is computed from what the cameras saw before any encoder. See `benches/peers/README.md`.

#[path = "../../../tests/picture_quality/measure.rs"]
mod measure;
#[path = "../../../tests/picture_quality/scenes.rs"]
mod scenes;

mod ours;
mod quality;
mod systems;

use std::path::{Path, PathBuf};

use scenes::{LOOP, Scene};
use systems::System;
use talksy_mixer::video::I420;
use talksy_unit::mcu::codec::h264::{Encoder, EncoderConfig};

const PEOPLE: [usize; 3] = [9, 16, 25];
const ROUNDS: usize = 5;
const FPS: u32 = 30;
/// Of each file: ten seconds, so that starting costs little.
const FRAMES: usize = 300;
/// Different pictures; larger rooms show some of them twice.
const SCENES: usize = 9;
const SENDER: EncoderConfig = EncoderConfig {
    width: 640,
    height: 360,
    fps: FPS,
    bitrate: 700_000,
};
const CANVAS: EncoderConfig = EncoderConfig {
    width: 1280,
    height: 720,
    fps: FPS,
    bitrate: 1_500_000,
};

/// The files of a run.
struct Files {
    directory: PathBuf,
}

impl Files {
    fn sender(&self, person: usize, extension: &str) -> PathBuf {
        self.directory
            .join(format!("sender{}.{extension}", person % SCENES))
    }

    fn output(&self, system: System) -> PathBuf {
        self.directory.join(format!("{}.h264", system.name()))
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [command, people, directory] = &args[..]
        && command == ours::COMMAND
    {
        let directory = PathBuf::from(directory);
        return ours::mix(&Files { directory }, people.parse().expect("a number"));
    }
    let sizes: Vec<usize> = args.iter().filter_map(|arg| arg.parse().ok()).collect();
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("picture-peers");
    std::fs::create_dir_all(&directory).expect("a directory for the files");
    let files = Files { directory };
    write_senders(&files);
    println!("| people | | CPU ms per picture (range) | kbit/s | PSNR dB |\n|---|---|---|---|---|");
    for people in PEOPLE {
        if sizes.is_empty() || sizes.contains(&people) {
            compare(&files, people);
        }
    }
}

fn compare(files: &Files, people: usize) {
    let mut costs = vec![Vec::new(); System::ALL.len()];
    for _ in 0..ROUNDS {
        for (system, costs) in System::ALL.into_iter().zip(&mut costs) {
            costs.push(system.run(files, people) * 1000.0 / FRAMES as f64);
        }
    }
    let ideal = quality::Ideal::new(people);
    let mut medians = Vec::new();
    for (system, mut costs) in System::ALL.into_iter().zip(costs) {
        costs.sort_by(f64::total_cmp);
        let (median, name) = (costs[costs.len() / 2], system.name());
        let output = files.output(system);
        let bytes = std::fs::metadata(&output)
            .expect("it wrote something")
            .len();
        let kbits = bytes as f64 * 8.0 / 1000.0 * f64::from(FPS) / FRAMES as f64;
        let psnr = ideal.psnr(&output);
        let (least, most) = (costs[0], costs[costs.len() - 1]);
        println!(
            "| {people} | {name} | {median:.2} ({least:.2} to {most:.2}) | {kbits:.0} | {psnr:.2} |"
        );
        println!("figure picture_{people}x360p_{name}_ms {median:.3} ms");
        println!("figure picture_{people}x360p_{name}_psnr {psnr:.2} dB");
        medians.push(median);
    }
    for (system, median) in System::ALL.into_iter().zip(&medians).skip(1) {
        let ratio = median / medians[0];
        println!(
            "figure picture_{people}x360p_{}_per_ours {ratio:.2} times",
            system.name()
        );
    }
}

/// As Annex B and, for who needs times, as Matroska.
fn write_senders(files: &Files) {
    for seed in 0..SCENES {
        let scene = Scene::new(seed as u64, SENDER.width as usize, SENDER.height as usize);
        let mut picture = I420::new(0, 0);
        let film: Vec<I420> = (0..LOOP)
            .map(|frame| {
                scene.draw(frame, &mut picture);
                picture.clone()
            })
            .collect();
        let mut encoder = Encoder::new(SENDER).expect("an encoder");
        let mut stream = Vec::new();
        for frame in 0..FRAMES {
            let millis = frame as u64 * 1000 / u64::from(FPS);
            encoder
                .encode(film[frame % LOOP].view(), millis, &mut stream)
                .expect("an encoded picture");
        }
        std::fs::write(files.sender(seed, "h264"), stream).expect("room for the files");
        systems::remux(&files.sender(seed, "h264"), &files.sender(seed, "mkv"));
    }
}
