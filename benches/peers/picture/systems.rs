//! The programs under measurement, and how they are called.

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use talksy_mixer::video::Rect;

use crate::{CANVAS, FPS, Files, SENDER, ours};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    Ours,
    /// ffmpeg with x264 at its fastest.
    Ultrafast,
    /// ffmpeg with x264 one step slower.
    Superfast,
    /// GStreamer with the same encoder that this server has.
    Gstreamer,
}

impl System {
    pub const ALL: [System; 4] = [
        System::Ours,
        System::Ultrafast,
        System::Superfast,
        System::Gstreamer,
    ];

    pub fn name(self) -> &'static str {
        match self {
            System::Ours => "ours",
            System::Ultrafast => "ffmpeg_ultrafast",
            System::Superfast => "ffmpeg_superfast",
            System::Gstreamer => "gstreamer",
        }
    }

    /// Mixes the files; returns the CPU seconds of the whole process.
    pub fn run(self, files: &Files, people: usize) -> f64 {
        let mut command = match self {
            System::Ours => {
                let this = std::env::current_exe().expect("this program");
                let mut command = Command::new(this);
                command
                    .arg(ours::COMMAND)
                    .arg(people.to_string())
                    .arg(&files.directory);
                command
            }
            System::Ultrafast => ffmpeg(files, people, self, "ultrafast"),
            System::Superfast => ffmpeg(files, people, self, "superfast"),
            System::Gstreamer => gstreamer(files, people, self),
        };
        let before = cpu_of_children();
        finish(&mut command);
        cpu_of_children() - before
    }
}

/// Linux's USER_HZ, which is the same on all of its architectures that this server runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system time of all children that have ended, seconds, to a hundredth (proc(5), `cutime` and `cstime`).
fn cpu_of_children() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("this is Linux");
    // The name before them may hold spaces, but no further closing bracket.
    let fields = stat
        .rsplit(')')
        .next()
        .expect("there is a name")
        .split_whitespace();
    let ticks = fields
        .skip(13)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / TICKS_PER_SECOND
}

pub fn finish(command: &mut Command) {
    let ended = command.stdin(Stdio::null()).stdout(Stdio::null()).output();
    let ended = ended.unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{command:?}: {said}");
}

/// The same access units in a container that says when each is shown.
pub fn remux(from: &Path, to: &Path) {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-y", "-framerate", &FPS.to_string(), "-i"]);
    finish(command.arg(from).args(["-c", "copy"]).arg(to));
}

/// x264 is held to the bit rate as this server's encoder is; its keyframes, too, come on request only.
fn ffmpeg(files: &Files, people: usize, system: System, preset: &str) -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-y", "-nostdin"]);
    command.args(["-filter_threads", "1", "-filter_complex_threads", "1"]);
    let (mut scaled, mut stacked, mut places) = (String::new(), String::new(), Vec::new());
    for (
        person,
        Rect {
            x,
            y,
            width,
            height,
        },
    ) in ours::tiles(people).into_iter().enumerate()
    {
        command.args(["-threads", "1", "-framerate", &FPS.to_string(), "-i"]);
        command.arg(files.sender(person, "h264"));
        let size = format!("{width}:{height}");
        let copied = (width, height) == (SENDER.width as usize, SENDER.height as usize);
        let filter = if copied {
            "null".to_owned()
        } else {
            format!("scale={size}:flags=bilinear")
        };
        let _ = write!(scaled, "[{person}:v]{filter}[t{person}];");
        let _ = write!(stacked, "[t{person}]");
        places.push(format!("{x}_{y}"));
    }
    let (places, canvas) = (
        places.join("|"),
        format!("{}:{}", CANVAS.width, CANVAS.height),
    );
    let graph = format!(
        "{scaled}{stacked}xstack=inputs={people}:layout={places}:fill=black,pad={canvas}[canvas]"
    );
    let rate = CANVAS.bitrate.to_string();
    command.args(["-filter_complex", &graph, "-map", "[canvas]"]);
    command.args(["-c:v", "libx264", "-preset", preset, "-tune", "zerolatency"]);
    command.args([
        "-threads", "1", "-g", "100000", "-b:v", &rate, "-maxrate", &rate,
    ]);
    command.args(["-bufsize", &rate, "-f", "h264"]);
    command.arg(files.output(system));
    command
}

/// The fastest decoder that GStreamer has, its compositor on one thread, and OpenH264 set up as here.
fn gstreamer(files: &Files, people: usize, system: System) -> Command {
    let mut command = Command::new("gst-launch-1.0");
    command.args([
        "-q",
        "compositor",
        "name=mix",
        "max-threads=1",
        "background=black",
    ]);
    let tiles = ours::tiles(people);
    for (
        person,
        Rect {
            x,
            y,
            width,
            height,
        },
    ) in tiles.into_iter().enumerate()
    {
        for (property, value) in [
            ("xpos", x),
            ("ypos", y),
            ("width", width),
            ("height", height),
        ] {
            command.arg(format!("sink_{person}::{property}={value}"));
        }
    }
    let (width, height) = (CANVAS.width, CANVAS.height);
    command.arg("!").arg(format!(
        "video/x-raw,format=I420,width={width},height={height},framerate={FPS}/1"
    ));
    command.args([
        "!",
        "openh264enc",
        "rate-control=bitrate",
        "complexity=low",
        "multi-thread=1",
    ]);
    command.arg(format!("bitrate={}", CANVAS.bitrate));
    command.args(["gop-size=100000", "enable-frame-skip=false", "qp-min=12"]);
    command.args([
        "!",
        "h264parse",
        "!",
        "video/x-h264,stream-format=byte-stream",
    ]);
    command.args(["!", "filesink"]);
    command.arg(format!("location={}", files.output(system).display()));
    for person in 0..people {
        let file = files.sender(person, "mkv");
        command
            .arg("filesrc")
            .arg(format!("location={}", file.display()));
        command.args([
            "!",
            "matroskademux",
            "!",
            "h264parse",
            "!",
            "avdec_h264",
            "max-threads=1",
        ]);
        command.arg("!").arg(format!("mix.sink_{person}"));
    }
    command
}
