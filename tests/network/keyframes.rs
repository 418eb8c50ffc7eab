//! Many viewers, one request.

use std::time::Duration;

use talksy_unit::demo::{Participant, ParticipantConfig};
use talksy_unit::rtp::params::MediaKind;

use crate::alone;
use crate::support::call::{CONNECTING, small_camera};
use crate::support::server::Server;

const VIEWERS: usize = 30;
/// How often all of them ask at once.
const BURSTS: usize = 5;
/// Far more than the window in which requests become one.
const BETWEEN: Duration = Duration::from_millis(1500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_viewers_who_ask_at_once_cost_the_publisher_one_keyframe() {
    let _turn = alone().await;
    let server = Server::start(&[]).await;
    let config = |name: &str| ParticipantConfig::viewer(&server.socket(), "pli", name);
    let camera = ParticipantConfig {
        video: Some(small_camera()),
        subscribe: false,
        ..config("camera")
    };
    let camera = Participant::join(camera).await.unwrap();
    let mut viewers = Vec::new();
    for n in 0..VIEWERS {
        let viewer = Participant::join(config(&format!("viewer {n}"))).await;
        viewers.push(viewer.unwrap());
    }
    for viewer in &mut viewers {
        let sees = viewer.wait_until(CONNECTING, |seen| {
            seen.tracks_of(MediaKind::Video).any(|t| t.frames > 5)
        });
        sees.await.unwrap();
    }
    tokio::time::sleep(BETWEEN).await;
    let mut asked = Vec::new();
    for _ in 0..BURSTS {
        let before = camera.observed().keyframe_requests;
        viewers.iter().for_each(Participant::request_keyframes);
        tokio::time::sleep(BETWEEN).await;
        asked.push(camera.observed().keyframe_requests - before);
    }
    println!(
        "figure keyframe_requests_of_30_at_once {asked:?} requests in each of {BURSTS} bursts"
    );
    // Thirty participants in one busy process may need more than a window for "at once": then there are two.
    assert!(asked.iter().all(|n| (1..=2).contains(n)), "{asked:?}");
    let single = asked.iter().filter(|n| **n == 1).count();
    assert!(2 * single > BURSTS, "{asked:?}");
}
