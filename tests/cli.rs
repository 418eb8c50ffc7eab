//! The command as an operator meets it: help, one sentence for each mistake, exit codes, signals.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const USAGE: i32 = 2;
const FAILURE: i32 = 1;

/// The command without this machine's environment for it.
fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_talksy-unit"));
    command.args(args);
    for (key, _) in std::env::vars() {
        let ours = ["PORT", "PUBLIC_IP", "TURN_ENABLED", "DEBUG"].contains(&key.as_str());
        if ours || key.starts_with("TALKSY_") {
            command.env_remove(key);
        }
    }
    command
}

fn run(args: &[&str]) -> Output {
    command(args).output().expect("the binary runs")
}

/// One line on stderr that contains each of `words`.
#[track_caller]
fn fails_with(output: &Output, code: i32, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_eq!(text.trim_end().lines().count(), 1, "one sentence: {text}");
    for word in words {
        assert!(text.contains(word), "{word} in {text}");
    }
}

#[test]
fn help_explains_every_option_with_its_default() {
    let output = run(&["--help"]);
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout);
    for word in [
        "--port",
        "8000",
        "PORT",
        "--host",
        "--public-ip",
        "PUBLIC_IP",
        "--media-port",
        "7882",
        "--media-tcp-port",
        "7881",
        "--turn-port",
        "--turn-peers",
        "--ice-servers",
        "--workers",
        "--tls",
        "--tls-cert",
        "--tls-key",
        "--data-dir",
        "--static-dir",
        "--mix-font",
        "--mix-colours",
        "--mix-opus",
        "bitrate=32,stereo=64,complexity=6,fec=5,dtx=on",
        "--mix-opus-low",
        "TALKSY_MIX_OPUS_LOW",
        "--mix-channels",
        "--demo",
        "--log-level",
        "--room-empty-seconds",
        "--max-rooms",
        "--max-peers-per-room",
        "--max-tracks-per-peer",
        "--max-message-kib",
        "TURN_ENABLED",
        "DEBUG",
        "--health-check",
    ] {
        assert!(text.contains(word), "{word} in {text}");
    }
}

#[test]
fn a_port_in_use_is_one_sentence() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let output = run(&[
        "--host",
        "127.0.0.1",
        "--port",
        &port,
        "--media-port",
        "0",
        "--media-tcp-port",
        "0",
    ]);
    fails_with(&output, FAILURE, &[&port, "in use", "--port"]);
}

#[test]
fn a_media_tcp_port_in_use_is_one_sentence() {
    let taken = TcpListener::bind("0.0.0.0:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let output = run(&[
        "--port",
        "0",
        "--media-port",
        "0",
        "--media-tcp-port",
        &port,
    ]);
    fails_with(&output, FAILURE, &[&port, "in use", "--media-tcp-port"]);
}

#[test]
fn unusable_ice_servers_are_one_sentence() {
    fails_with(
        &run(&["--ice-servers", "stun.example.org"]),
        USAGE,
        &["--ice-servers", "JSON"],
    );
}

#[test]
fn an_unreadable_static_dir_is_one_sentence() {
    let output = run(&["--static-dir", "/no/such/dir"]);
    fails_with(&output, USAGE, &["/no/such/dir", "--static-dir"]);
}

#[test]
fn an_unusable_public_ip_is_one_sentence() {
    let output = command(&[])
        .env("PUBLIC_IP", "0.0.0.0")
        .output()
        .expect("runs");
    fails_with(&output, USAGE, &["PUBLIC_IP", "0.0.0.0"]);
    fails_with(
        &run(&["--public-ip", "example.org"]),
        USAGE,
        &["example.org"],
    );
}

#[test]
fn bad_certificate_files_are_one_sentence() {
    fails_with(&run(&["--tls-cert", "a.pem"]), USAGE, &["--tls-key"]);
    let args = [
        "--tls-cert",
        "/no/a.pem",
        "--tls-key",
        "/no/b.pem",
        "--media-port",
        "0",
        "--media-tcp-port",
        "0",
        "--port",
        "0",
    ];
    fails_with(&run(&args), FAILURE, &["/no/a.pem"]);
}

#[test]
fn the_page_address_is_told_and_sigterm_ends_the_server_cleanly() {
    let args = ["--host", "127.0.0.1", "--port", "0", "--media-port", "0"];
    let child = command(&args)
        .args(["--media-tcp-port", "0", "--turn-port", "0"])
        .env("TURN_ENABLED", "YES")
        .stdout(Stdio::piped())
        .spawn();
    let mut child = Running(child.expect("the binary runs"));
    let stdout = child.0.stdout.take().expect("piped");
    let lines: Vec<String> = BufReader::new(stdout)
        .lines()
        .take(3)
        .map(|l| l.expect("text"))
        .collect();
    assert!(lines[0].starts_with("Page: http://127.0.0.1:"), "{lines:?}");
    assert!(lines[1].contains("PUBLIC_IP"), "{lines:?}");
    assert!(lines[2].starts_with("TURN: port "), "{lines:?}");
    let pid = child.0.id().to_string();
    let killed = Command::new("kill").args(["-TERM", &pid]).status();
    assert!(killed.expect("kill runs").success());
    let start = Instant::now();
    let status = child.0.wait().expect("ends");
    assert!(status.success(), "{status}");
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

/// Ends with the test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_font_or_a_colour_that_cannot_be_used_is_one_sentence() {
    let output = run(&["--mix-opus", "complexity=11"]);
    fails_with(&output, USAGE, &["--mix-opus", "complexity", "10", "11"]);
    let output = run(&["--mix-opus-low", "loud"]);
    fails_with(&output, USAGE, &["--mix-opus-low", "loud", "bitrate"]);
    let output = run(&["--mix-channels", "6"]);
    fails_with(&output, USAGE, &["--mix-channels", "1", "2", "6"]);
    let output = run(&["--mix-colours", "text=white"]);
    fails_with(&output, USAGE, &["--mix-colours", "text=white", "six"]);
    let no_font = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let output = run(&["--mix-font", no_font]);
    fails_with(&output, USAGE, &["--mix-font", no_font, "TrueType"]);
    let output = run(&["--mix-font", "/nowhere.ttf"]);
    fails_with(&output, USAGE, &["/nowhere.ttf", "No such file"]);
}
