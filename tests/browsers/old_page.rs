//! A page as those of the old server are: plain, written long before this server, and met as it is.

use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use talksy_unit::demo::{
    Observed, Participant, ParticipantConfig, Picture, PictureLoop, Turns, VoiceLoop,
};
use talksy_unit::rtp::params::MediaKind;

use crate::support::analysis::colour_distance;
use crate::support::browser::{Browser, Devices};
use crate::support::media::{Camera, GREEN, RED};
use crate::support::server::{Server, StaticPage};
use crate::{ABSENT, ABSENT_VOICE, ALONE, HIGH_VOICE, LOW_VOICE, alone};

const DEADLINE: Duration = Duration::from_secs(15);

/// Descriptions and candidates are bare strings, `ontrack` comes only after getUserMedia, everything is subscribed at once,
/// offers go out when they are allowed, and nothing is known of `welcome` and the like.
const PAGE: &str = r#"<!doctype html><title>old</title>
<video id=own autoplay muted playsinline></video><video id=other autoplay playsinline></video>
<script>
let pc, ws, id, stream, types = {};
const errors = [], available = {}, arrived = [];
window.addEventListener('unhandledrejection', e => errors.push(String(e.reason)));
const send = (type, data) => ws.send(JSON.stringify({ type, data }));
function join(address) {
  ws = new WebSocket(address);
  pc = new RTCPeerConnection();
  ws.onmessage = async e => {
    const { status, type, data } = JSON.parse(e.data);
    if (!status) errors.push(data);
    if (type === 'clientid') { id = data; publish(); }
    if (type === 'answer') await pc.setRemoteDescription(data);
    if (type === 'candidate') await pc.addIceCandidate(data);
    if (type === 'offer') {
      await pc.setRemoteDescription(data);
      const answer = await pc.createAnswer();
      await pc.setLocalDescription(answer);
      send('answer', answer.sdp);
    }
    if (type === 'tracks_added') {
      const typed = {};
      for (const track in data) typed[track] = types[track] || 'media';
      send('tracks_added', typed);
    }
    if (type === 'tracks_available') {
      Object.assign(available, data);
      send('subscribe_tracks', Object.values(data).map(({ client_id, track_id }) => ({ client_id, track_id })));
    }
    if (type === 'allow_renegotiation' && data) offer();
  };
}
async function offer() {
  const offer = await pc.createOffer();
  await pc.setLocalDescription(offer);
  send('offer', offer.sdp);
}
async function publish() {
  own.srcObject = stream = await navigator.mediaDevices.getUserMedia({ video: true, audio: true });
  pc.onicecandidate = e => send('candidate', e.candidate ? e.candidate.candidate : '');
  pc.ontrack = e => { arrived.push({ kind: e.track.kind, stream: e.streams[0].id }); other.srcObject = e.streams[0]; };
  for (const track of stream.getTracks()) pc.addTrack(track, stream);
  offer();
}
// A screen: asked for, offered when it is allowed.
function share() {
  const canvas = document.createElement('canvas'), screen = canvas.captureStream(5);
  let hue = 0;
  setInterval(() => { const c = canvas.getContext('2d'); c.fillStyle = `hsl(${hue += 9} 80% 50%)`; c.fillRect(0, 0, 300, 150); }, 100);
  types[screen.getTracks()[0].id] = 'screen';
  // addTrack would take a line that the server has made, and name the track after that line's own sender.
  pc.addTransceiver(screen.getTracks()[0], { streams: [screen] });
  send('is_allow_renegotiation');
}
</script>"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_page_publishes_subscribes_and_shares_a_screen_unchanged() {
    let _turn = alone().await;
    let server = Server::start(&[]).await;
    let page = StaticPage::serve(PAGE).await;
    let browser = Browser::start(&Devices {
        camera: Some(Camera::small(RED)),
        microphone: Some(LOW_VOICE),
    })
    .await;
    browser.goto(&page.url()).await;
    let mut ours = publisher(&server, "1111").await;
    enter(&browser, &server, "/ws?&room_id=1111").await;

    let seen = sees_picture_and_sound(&mut ours).await;
    shows_publisher(&browser, &seen).await;
    let streams = browser.eval("return stream.id", vec![]).await;
    for track in &seen.tracks {
        assert_eq!(json!(track.stream_id), streams);
    }
    browser.eval("share()", vec![]).await;
    let seen = ours
        .wait_until(DEADLINE, |seen| {
            let moving = |t: &&talksy_unit::demo::ReceivedTrack| t.frames > 10;
            seen.tracks_of(MediaKind::Video).filter(moving).count() == 2
        })
        .await
        .unwrap();
    let announced = seen.last("tracks_available").unwrap().as_object().unwrap();
    let sources: Vec<&Value> = announced.values().map(|t| &t["source_type"]).collect();
    assert_eq!(sources, ["screen"], "{announced:?}");
    no_errors(&browser).await;
    ours.leave().await.unwrap();
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_room_null_of_an_old_page_is_the_default_room() {
    let _turn = alone().await;
    let server = Server::start(&[]).await;
    let page = StaticPage::serve(PAGE).await;
    let browser = Browser::start(&Devices {
        camera: Some(Camera::small(RED)),
        microphone: Some(LOW_VOICE),
    })
    .await;
    browser.goto(&page.url()).await;
    enter(&browser, &server, "/wss?&room_id=null").await;
    let mut ours = publisher(&server, "default").await;
    sees_picture_and_sound(&mut ours).await;
    shows_publisher(&browser, &ours.observed()).await;
    no_errors(&browser).await;
    browser.close().await;
}

async fn publisher(server: &Server, room: &str) -> Participant {
    let loops = tokio::task::spawn_blocking(|| {
        (
            PictureLoop::encode(&Picture::plain(GREEN)).unwrap(),
            VoiceLoop::encode(HIGH_VOICE, Turns::Always).unwrap(),
        )
    });
    let (picture, voice) = loops.await.unwrap();
    Participant::join(ParticipantConfig {
        video: Some(Arc::new(picture)),
        audio: Some(Arc::new(voice)),
        ..ParticipantConfig::viewer(&server.socket(), room, "new")
    })
    .await
    .unwrap()
}

async fn enter(browser: &Browser, server: &Server, path: &str) {
    let address = format!("ws://localhost:{}{path}", server.port);
    browser
        .eval("join(arguments[0])", vec![json!(address)])
        .await;
}

async fn sees_picture_and_sound(ours: &mut Participant) -> Observed {
    ours.wait_until(DEADLINE, |seen| {
        seen.packets_of(MediaKind::Audio) > 50
            && seen
                .tracks_of(MediaKind::Video)
                .any(|t| t.frames > 20 && t.keyframes > 0)
    })
    .await
    .unwrap()
}

/// What arrives at the page has the publisher's stream id, its colour and its voice.
async fn shows_publisher(browser: &Browser, publisher: &Observed) {
    browser
        .wait_until("arrived.length === 2 && other.videoWidth > 0", DEADLINE)
        .await;
    let arrived = browser.eval("return [arrived, available]", vec![]).await;
    let (arrived, available) = (&arrived[0], &arrived[1]);
    let told = available.as_object().unwrap();
    for track in arrived.as_array().unwrap() {
        let known = told.values().find(|t| t["kind"] == track["kind"]).unwrap();
        assert_eq!(known["stream_id"], track["stream"]);
        assert_eq!(known["client_id"], json!(publisher.client_id));
    }
    let seen = browser.pixels("#other", &[(0.5, 0.5)]).await[0];
    assert!(colour_distance(seen, GREEN) < 24, "{seen:?}");
    let heard = browser.record("#other", Duration::from_secs(3)).await;
    let likeness = [HIGH_VOICE, ABSENT_VOICE].map(|voice| heard.likeness(&voice.samples(4.0)));
    assert!(likeness[0] > ALONE && likeness[1] < ABSENT, "{likeness:?}");
}

async fn no_errors(browser: &Browser) {
    let errors = browser.eval("return errors", vec![]).await;
    assert_eq!(errors, json!([]));
}
