//! The mixing work as `ffmpeg` does it: the same Opus packets decoded, summed by `amix`, encoded by libopus as this server does.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use ogg::writing::{PacketWriteEndInfo, PacketWriter};
use talksy_mixer::audio::FRAME_SAMPLES;
use talksy_unit::mcu::codec::opus::OpusSettings;

use crate::room::{Recordings, Scene, measure};
use crate::{ROUNDS, median};

/// Length of the material, and how much of it the run has that tells the cost of starting. Seconds.
const LONG: u32 = 40;
const SHORT: u32 = 10;
const FRAMES_PER_SECOND: u32 = 50;
/// Packets in a page, as encoders make them: a second.
const PAGE: u32 = FRAMES_PER_SECOND;

/// Prints both in µs of CPU per participant and 20 ms, medians of rounds in turns, and the ratio.
pub fn compare(participants: usize, recordings: &Recordings) {
    for (scene, who) in [(Scene::ThreeSpeak, "three"), (Scene::AllSpeak, "everybody")] {
        let folder = tempfile::tempdir().expect("a folder");
        let files = write_all(folder.path(), recordings, scene, participants);
        let (mut us, mut them) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let tick = measure(recordings, scene, participants).cpu;
            us.push(tick.as_secs_f64() * 1e6 / participants as f64);
            let spent = mix(&files, folder.path(), LONG) - mix(&files, folder.path(), SHORT);
            let frames = (LONG - SHORT) * FRAMES_PER_SECOND;
            them.push(spent / f64::from(frames) / participants as f64);
        }
        let (us, them) = (median(us), median(them));
        println!(
            "| {participants} | {who} | {us:.2} | {them:.2} | {:.1} |",
            them / us
        );
        println!(
            "figure ffmpeg_amix_ratio_n{participants}{} {:.2} times",
            scene.suffix(),
            them / us
        );
    }
}

/// CPU time of `ffmpeg` for one mix of `files`, in µs.
fn mix(files: &[PathBuf], folder: &Path, seconds: u32) -> f64 {
    let settings = OpusSettings::default();
    let out = folder.join("mix.opus");
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-nostats", "-nostdin", "-benchmark", "-y"]);
    for file in files {
        command.args(["-c:a", "libopus", "-i"]).arg(file);
    }
    let filter = format!("amix=inputs={}:normalize=0", files.len());
    command
        .args(["-filter_complex_threads", "1", "-filter_complex", &filter])
        .args(["-t", &seconds.to_string(), "-ac", "1", "-c:a", "libopus"])
        .args(["-application", "voip", "-frame_duration", "20"])
        .args(["-b:a", &settings.bitrate.to_string()])
        .args(["-compression_level", &settings.complexity.to_string()])
        .args(["-fec", if settings.fec { "1" } else { "0" }])
        .args(["-packet_loss", &settings.expected_loss.to_string()])
        .arg(&out);
    let output = command.output().expect("ffmpeg runs");
    let log = String::from_utf8_lossy(&output.stderr);
    let bytes = std::fs::metadata(&out).map_or(0, |file| file.len());
    let expected = u64::from(settings.bitrate / 8 * seconds);
    assert!(
        output.status.success() && bytes > expected / 2,
        "ffmpeg has made {bytes} bytes of {expected}: {log}"
    );
    let spent = |name: &str| -> Option<f64> {
        let (_, rest) = log.rsplit_once(name)?;
        rest.split_once('s')?.0.parse().ok()
    };
    let times = spent("utime=").zip(spent("stime="));
    let (user, system) = times.expect("ffmpeg says what it took");
    (user + system) * 1e6
}

/// Every participant's packets in a file of its own.
fn write_all(
    folder: &Path,
    recordings: &Recordings,
    scene: Scene,
    participants: usize,
) -> Vec<PathBuf> {
    let file = |n: usize| {
        let path = folder.join(format!("{n}.opus"));
        write(&path, recordings, scene, n).expect("a file");
        path
    };
    (0..participants).map(file).collect()
}

/// Ogg with Opus (RFC 7845): two headers, then packets.
fn write(path: &Path, recordings: &Recordings, scene: Scene, n: usize) -> std::io::Result<()> {
    let mut writer = PacketWriter::new(File::create(path)?);
    let serial = n as u32 + 1;
    // Version 1, one channel, nothing to skip, 48 kHz, no gain, mapping family 0.
    let mut head = b"OpusHead\x01\x01".to_vec();
    head.extend_from_slice(&[0, 0, 0x80, 0xbb, 0, 0, 0, 0, 0]);
    let tags = b"OpusTags\x05\0\0\0bench\0\0\0\0".to_vec();
    writer.write_packet(head, serial, PacketWriteEndInfo::EndPage, 0)?;
    writer.write_packet(tags, serial, PacketWriteEndInfo::EndPage, 0)?;
    let frames = LONG * FRAMES_PER_SECOND;
    for tick in 0..frames {
        let end = match tick + 1 {
            last if last == frames => PacketWriteEndInfo::EndStream,
            next if next % PAGE == 0 => PacketWriteEndInfo::EndPage,
            _ => PacketWriteEndInfo::NormalPacket,
        };
        let (packet, _) = recordings.packet(scene, n, tick.into());
        let position = u64::from(tick + 1) * FRAME_SAMPLES as u64;
        writer.write_packet(packet.to_vec(), serial, end, position)?;
    }
    Ok(())
}
