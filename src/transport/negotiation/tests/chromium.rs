//! The machine against a real Chromium: its strictness about m-lines is the reason for half of the rules.
//!
//! Needs `chromedriver` and `chromium` in the path. No media and no connection: descriptions are taken or refused without.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::*;

const PAGE: &str = r"
window.pc = new RTCPeerConnection();
window.tracks = [];
pc.ontrack = e => tracks.push([e.streams.map(s => s.id).join(), e.track.id, e.transceiver.mid]);
window.local = async () => { await pc.setLocalDescription(); return pc.localDescription.sdp; };
window.remote = async (type, sdp) => { await pc.setRemoteDescription({type, sdp}); };
window.picture = () => document.createElement('canvas').captureStream().getVideoTracks()[0];
window.sound = () => new AudioContext().createMediaStreamDestination().stream.getAudioTracks()[0];
";

/// One browser at a time, among all the other tests that run meanwhile.
static TURN: Mutex<()> = Mutex::new(());

/// Between two looks whether the driver listens.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A browser and its driver; both end with it.
struct Page {
    driver: Child,
    port: u16,
    session: String,
    _profile: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = http(self.port, "DELETE", &self.session, None);
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// One request to the driver (W3C WebDriver, section 6.3). `None`: it does not listen yet.
fn http(port: u16, method: &str, path: &str, body: Option<Value>) -> Option<Value> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body.as_bytes()).ok()?;
    // The driver keeps the connection open whatever it was asked.
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or_default();
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut reply = vec![0; length];
    reader.read_exact(&mut reply).ok()?;
    let reply: Value = serde_json::from_slice(&reply).ok()?;
    Some(reply["value"].clone())
}

impl Page {
    fn open() -> Self {
        // A test that failed in its turn has not spoilt the next one's.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let profile = tempfile::tempdir().unwrap();
        // A port that was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .spawn()
            .expect("this test needs chromedriver; `make test` installs it");
        let arguments = json!([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--autoplay-policy=no-user-gesture-required",
            format!("--user-data-dir={}", profile.path().display()),
        ]);
        let options =
            json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": {"args": arguments}}}});
        let deadline = Instant::now() + Duration::from_secs(20);
        let opened = loop {
            if let Some(value) = http(port, "POST", "/session", Some(options.clone())) {
                break value;
            }
            assert!(Instant::now() < deadline, "chromedriver does not listen");
            std::thread::sleep(POLL_INTERVAL);
        };
        let id = opened["sessionId"]
            .as_str()
            .unwrap_or_else(|| panic!("{opened}"));
        let page = Page {
            driver,
            port,
            session: format!("/session/{id}"),
            _profile: profile,
            _turn: turn,
        };
        page.run(PAGE, &[]).unwrap();
        page
    }

    /// The value of an async function body, or what it threw.
    fn run(&self, body: &str, arguments: &[Value]) -> Result<Value, String> {
        let script = format!(
            "const done = arguments[arguments.length - 1], args = arguments;
             (async () => {{ {body} }})().then(v => done({{ok: v === undefined ? null : v}}), e => done({{error: String(e)}}));"
        );
        let path = format!("{}/execute/async", self.session);
        let body = json!({"script": script, "args": arguments});
        let reply = http(self.port, "POST", &path, Some(body)).expect("the browser is gone");
        match reply["error"].as_str() {
            Some(error) => Err(format!("{error} {}", reply["message"])),
            None => Ok(reply["ok"].clone()),
        }
    }

    fn text(&self, body: &str) -> String {
        let value = self.run(body, &[]).unwrap();
        value.as_str().unwrap_or_default().to_owned()
    }

    /// setRemoteDescription(offer), then the answer.
    fn take_offer(&self, sdp: &str) -> Result<String, String> {
        let body = "await remote('offer', args[0]); return local();";
        let answer = self.run(body, &[json!(sdp)])?;
        Ok(answer.as_str().unwrap_or_default().to_owned())
    }

    fn take_answer(&self, sdp: &str) -> Result<Value, String> {
        self.run("await remote('answer', args[0])", &[json!(sdp)])
    }

    /// The client offers, the server answers.
    fn client_offers(&self, bench: &mut Bench) -> String {
        let offer = self.text("return local()");
        bench.offer(&offer).unwrap();
        let answer = next_sdp(bench);
        self.take_answer(&answer)
            .unwrap_or_else(|e| panic!("{e}\n{offer}\n{answer}"));
        answer
    }

    /// The server offers what it has to offer, the client answers. The number of m-lines; `None`: nothing to offer.
    fn server_offers(&self, bench: &mut Bench) -> Option<usize> {
        let offer = bench.drain().into_iter().find_map(|output| match output {
            Output::Offer(sdp) => Some(sdp),
            _ => None,
        })?;
        let answer = self
            .take_offer(&offer)
            .unwrap_or_else(|e| panic!("{e}\n{offer}"));
        bench
            .answer(&answer)
            .unwrap_or_else(|e| panic!("{e}\n{offer}\n{answer}"));
        Some(offer.matches("\r\nm=").count())
    }
}

fn next_sdp(bench: &mut Bench) -> String {
    bench
        .drain()
        .into_iter()
        .find_map(|output| match output {
            Output::Answer(sdp) | Output::Offer(sdp) => Some(sdp),
            _ => None,
        })
        .expect("nothing to send")
}

#[test]
fn chromium_takes_whatever_the_server_offers_and_answers() {
    let page = Page::open();
    let mut bench = Bench::new(true);
    bench.machine.want_channel();
    page.run(
        "pc.addTrack(sound(), new MediaStream()); pc.addTrack(picture(), new MediaStream());",
        &[],
    )
    .unwrap();
    page.client_offers(&mut bench);
    bench.machine.allow_offers();
    // Joins and leaves in every combination of kinds: slots are recycled, ontrack shows the publisher's ids.
    for round in 0..6u64 {
        bench.machine.add_sender(audio(10 * round));
        bench.machine.add_sender(video(10 * round + 1));
        assert_eq!(page.server_offers(&mut bench), Some(5), "round {round}");
        let tracks = page.run("return tracks.splice(0)", &[]).unwrap();
        assert_eq!(tracks[0][0], format!("stream{}", 10 * round));
        assert_eq!(tracks[1][1], format!("track{}", 10 * round + 1));
        bench.machine.remove_sender(SenderId(10 * round));
        bench.machine.remove_sender(SenderId(10 * round + 1));
        page.server_offers(&mut bench).unwrap();
    }
    // The client recycles a slot of ours for a track of its own, then the server offers again.
    page.run("pc.addTransceiver(picture(), {direction: 'sendonly'})", &[])
        .unwrap();
    page.client_offers(&mut bench);
    bench.machine.add_sender(video(100));
    bench.machine.add_sender(video(101));
    page.server_offers(&mut bench).unwrap();
    // The client stops its first transceiver, which is the tagged m-line of the bundle.
    page.run("pc.getTransceivers()[0].stop()", &[]).unwrap();
    page.client_offers(&mut bench);
    bench.machine.add_sender(audio(102));
    page.server_offers(&mut bench).unwrap();
    bench.machine.remove_sender(SenderId(100));
    page.server_offers(&mut bench).unwrap();
    let (receive, send) = bench.machine.session.flows(&bench.machine.senders);
    assert_eq!((receive.len(), send.len()), (2, 2));
}

#[test]
fn a_viewer_in_chromium_lives_through_the_loss_of_its_first_line() {
    let page = Page::open();
    let mut bench = Bench::new(false);
    bench.machine.add_sender(video(1));
    bench.machine.add_sender(audio(2));
    page.server_offers(&mut bench).unwrap();
    bench.machine.remove_sender(SenderId(1));
    page.server_offers(&mut bench).unwrap();
    bench.machine.add_sender(video(3));
    page.server_offers(&mut bench).unwrap();
    bench.machine.want_channel();
    page.server_offers(&mut bench).unwrap();
    // addTrack takes over the transceiver that our offer made.
    page.run("pc.addTrack(picture())", &[]).unwrap();
    page.client_offers(&mut bench);
    let (receive, send) = bench.machine.session.flows(&bench.machine.senders);
    assert_eq!((receive.len(), send.len()), (1, 2));
    bench.machine.remove_sender(SenderId(3));
    page.server_offers(&mut bench).unwrap();
    assert_eq!(page.server_offers(&mut bench), None);
}

/// Offers cross, `late`: our fresh offer is out before the browser answers the first one.
fn cross(page: &Page, late: bool) {
    let mut bench = Bench::new(true);
    let setup = "window.pc = new RTCPeerConnection(); pc.addTrack(sound());";
    page.run(setup, &[]).unwrap();
    page.client_offers(&mut bench);
    bench.machine.allow_offers();
    bench.machine.add_sender(video(1));
    let ours = next_sdp(&mut bench);
    page.run("pc.addTrack(picture())", &[]).unwrap();
    let theirs = page.text("return local()");
    bench.offer(&theirs).unwrap();
    let stale = next_sdp(&mut bench);
    if late {
        bench.pass(CROSSED_QUIET);
    }
    // The browser rolls its own offer back, and knows no answer for it afterwards.
    let answer = page.take_offer(&ours).unwrap();
    assert!(page.take_answer(&stale).is_err());
    if late {
        assert!(page.take_offer(&next_sdp(&mut bench)).is_err());
    }
    bench.answer(&answer).unwrap();
    page.client_offers(&mut bench);
    bench.pass(CROSSED_QUIET);
    page.server_offers(&mut bench);
    let (receive, send) = bench.machine.session.flows(&bench.machine.senders);
    assert_eq!((receive.len(), send.len()), (2, 1));
}

#[test]
fn offers_that_cross_leave_chromium_with_a_working_session() {
    let page = Page::open();
    cross(&page, false);
    cross(&page, true);
}
