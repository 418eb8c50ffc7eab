//! Self-test of the harness: what a real Chromium shows and plays of the files it was given, directly and through a call.

mod support;

use futures_util::{SinkExt, StreamExt};
use std::time::Duration;
use support::analysis::{Recording, colour_distance};
use support::browser::{Browser, Devices};
use support::eventually;
use support::media::{BLUE, Camera, GREEN, RED};
use support::process::marked;
use support::python::PythonClient;
use support::server::StaticPage;
use talksy_unit::demo::Sound;
use tokio_tungstenite::tungstenite::Message;

/// Sees itself in `#own`; `call()` sends camera and microphone through a pair of connections into `#other`.
const PAGE: &str = r#"<!doctype html><title>harness</title>
<video id=own autoplay muted playsinline></video><video id=other autoplay playsinline></video>
<script>
async function look(width, height) {
  own.srcObject = await navigator.mediaDevices.getUserMedia({
    video: { width, height }, audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
}
async function call() {
  const a = new RTCPeerConnection(), b = new RTCPeerConnection();
  a.onicecandidate = e => b.addIceCandidate(e.candidate);
  b.onicecandidate = e => a.addIceCandidate(e.candidate);
  b.ontrack = e => { other.srcObject = e.streams[0]; };
  for (const t of own.srcObject.getTracks()) a.addTrack(t, own.srcObject);
  await a.setLocalDescription(await a.createOffer());
  await b.setRemoteDescription(a.localDescription);
  await b.setLocalDescription(await b.createAnswer());
  await a.setRemoteDescription(b.localDescription);
}
</script>"#;

const VOICE: Sound = Sound::Voice { pitch_hz: 125.0 };

async fn browser(colour: [u8; 3], sound: Sound) -> (Browser, StaticPage) {
    let page = StaticPage::serve(PAGE).await;
    let browser = Browser::start(&Devices {
        camera: Some(Camera::small(colour)),
        microphone: Some(sound),
    })
    .await;
    browser.goto(&page.url()).await;
    browser.eval("look(640, 360)", vec![]).await;
    browser
        .wait_until("own.videoWidth === 640", Duration::from_secs(10))
        .await;
    (browser, page)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fake_camera_has_its_colour_and_the_fake_microphone_its_tone() {
    let (browser, _page) = browser(GREEN, Sound::Tone { hz: 440.0 }).await;
    let seen = browser.pixels("#own", &[(0.5, 0.5), (0.1, 0.1)]).await;
    for colour in seen {
        assert!(colour_distance(colour, GREEN) < 16, "{colour:?}");
    }
    let heard = browser.record("#own", Duration::from_secs(1)).await;
    let (tone, beside) = (heard.level_at(440.0), heard.level_at(880.0));
    assert!(
        tone > -30.0 && beside < tone - 40.0,
        "440 Hz {tone} dB, 880 Hz {beside} dB"
    );
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_from_page_to_page_carries_colour_and_voice() {
    let (browser, _page) = browser(RED, VOICE).await;
    browser.eval("call()", vec![]).await;
    browser
        .wait_until("other.videoWidth > 0", Duration::from_secs(10))
        .await;
    let seen = browser.pixels("#other", &[(0.5, 0.5)]).await[0];
    assert!(colour_distance(seen, RED) < 24, "{seen:?}");

    let heard = browser.record("#other", Duration::from_secs(4)).await;
    let (own, stranger) = (
        heard.likeness(&VOICE.samples(3.0)),
        heard.likeness(&Sound::Voice { pitch_hz: 205.0 }.samples(3.0)),
    );
    assert!(
        own > 0.6 && stranger < 0.3,
        "own {own}, stranger {stranger}"
    );

    let stats = browser.stats().await;
    assert_eq!(stats.len(), 2);
    let received = &stats[1]["inbound"];
    assert!(
        received.as_array().is_some_and(|tracks| tracks.len() == 2),
        "{received}"
    );
    assert_eq!(stats[0]["connection"], "connected");
    let counted = browser.counted().await;
    assert_eq!(
        (&counted["remoteOffers"], &counted["remoteAnswers"]),
        (&1.into(), &1.into())
    );
    assert!(browser.screenshot().await.starts_with(b"\x89PNG"));
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn console_output_and_uncaught_errors_are_seen() {
    let page = StaticPage::serve("<script>console.warn('a word'); setTimeout(() => { throw new Error('a fault'); });</script>").await;
    let devices = Devices {
        camera: None,
        microphone: None,
    };
    let browser = Browser::start(&devices).await;
    browser.goto(&page.url()).await;
    let console = browser.console().await.join("\n");
    assert!(
        console.contains("a word") && console.contains("a fault"),
        "{console}"
    );
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_that_is_dropped_in_the_middle_leaves_no_process() {
    let (browser, _page) = browser(BLUE, VOICE).await;
    let mark = browser.mark();
    assert!(marked(&mark) > 0);
    drop(browser);
    eventually("their end", Duration::from_secs(5), async || {
        match marked(&mark) {
            0 => Ok(()),
            left => Err(left),
        }
    })
    .await;
}

#[tokio::test]
async fn the_client_in_python_joins_and_leaves_and_tells_of_it() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    let mut client = PythonClient::start(&url, &["--room", "a room", "--seconds", "1"]);
    let (stream, _) = listener.accept().await.unwrap();
    let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
    let hello = r#"{"status": true, "type": "clientid", "data": "00ff"}"#;
    socket.send(Message::text(hello)).await.unwrap();
    let joined = client
        .wait_for("joined", Duration::from_secs(5), |_| true)
        .await;
    assert_eq!(joined["client_id"], "00ff");
    let said = socket.next().await.unwrap().unwrap();
    assert_eq!(
        said.to_text().unwrap(),
        r#"{"type": "leave", "data": null}"#
    );
    drop(socket);
    assert!(client.ended(Duration::from_secs(10)));
}

#[test]
fn likeness_finds_a_voice_under_another_and_levels_are_true() {
    let (one, other) = (
        VOICE.samples(3.0),
        Sound::Voice { pitch_hz: 205.0 }.samples(3.0),
    );
    // Heard late, at a third of its gain, with somebody else speaking softly.
    let mixed = Recording {
        samples: (0..144_000)
            .map(|i| 0.3 * one[(i + 5_000) % 144_000] + 0.1 * other[i])
            .collect(),
    };
    let absent = Sound::Voice { pitch_hz: 95.0 }.samples(3.0);
    assert!(mixed.likeness(&one) > 0.8);
    assert!(mixed.likeness(&absent) < 0.3);

    let tone = Recording {
        samples: Sound::Tone { hz: 600.0 }.samples(1.0),
    };
    assert!(
        (tone.level_at(600.0) + 20.0).abs() < 0.5,
        "{}",
        tone.level_at(600.0)
    );
    assert!((tone.level_db() + 20.0).abs() < 0.5);
    assert!(tone.level_at(700.0) < -70.0);
    assert!(colour_distance(RED, BLUE) > 60);
}
