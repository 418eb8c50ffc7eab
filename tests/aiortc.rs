//! A client in another language in a room with ours: aiortc publishes H.264 and Opus, and plays what others publish.

mod support;

use std::sync::Arc;
use std::time::Duration;
use support::analysis::colour_distance;
use support::media::GREEN;
use support::python::{PythonClient, track_of};
use support::server::Server;
use talksy_unit::demo::{
    Participant, ParticipantConfig, Picture, PictureLoop, Sound, Turns, VoiceLoop,
};
use talksy_unit::rtp::params::MediaKind;

const DEADLINE: Duration = Duration::from_secs(20);
const TONE_HZ: f32 = 440.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aiortc_and_we_see_and_hear_each_other() {
    let server = Server::start(&[]).await;
    let mut ours = Participant::join(ParticipantConfig {
        video: Some(Arc::new(
            PictureLoop::encode(&Picture::plain(GREEN)).unwrap(),
        )),
        audio: Some(Arc::new(
            VoiceLoop::encode(Sound::Tone { hz: TONE_HZ }, Turns::Always).unwrap(),
        )),
        ..ParticipantConfig::viewer(&server.socket(), "languages", "rust")
    })
    .await
    .unwrap();
    let mut theirs = PythonClient::start(
        &server.socket(),
        &[
            "--room",
            "languages",
            "--tone",
            "700",
            "--colour",
            "200,40,40",
            "--listen",
            "440",
            "700",
            "--seconds",
            "12",
        ],
    );

    ours.wait_until(DEADLINE, |seen| {
        seen.packets_of(MediaKind::Audio) > 50
            && seen
                .tracks_of(MediaKind::Video)
                .any(|t| t.frames > 20 && t.keyframes > 0)
    })
    .await
    .unwrap();
    let stats = theirs
        .wait_for("stats", DEADLINE, |stats| {
            let frames = |kind| track_of(stats, kind).and_then(|t| t["frames"].as_u64());
            frames("video") > Some(20) && frames("audio") > Some(50)
        })
        .await;
    let video = track_of(&stats, "video").unwrap();
    assert_eq!(
        (&video["width"], &video["height"]),
        (&640.into(), &360.into())
    );
    let seen: [u8; 3] = serde_json::from_value(video["rgb"].clone()).unwrap();
    assert!(colour_distance(seen, GREEN) < 24, "{seen:?}");
    let tones = &track_of(&stats, "audio").unwrap()["tones"];
    assert!(tones["440.0"].as_f64() > Some(-30.0), "{tones}");
    ours.leave().await.unwrap();
    // It stays in good order, although aiortc cannot take an m-line that has stopped (it wants ICE credentials on each).
    assert!(theirs.ended(Duration::from_secs(40)));
}
