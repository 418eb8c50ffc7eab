//! Others come and go while a mixed client watches: nothing of that reaches its connection.

use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use talksy_unit::demo::{Participant, ParticipantConfig, Picture, PictureLoop, Turns, VoiceLoop};

use crate::mixed::{one_of_each, shows};
use crate::support::media::{BLUE, GREEN, RED, YELLOW};
use crate::support::person::Person;
use crate::support::server::Server;
use crate::{LOW_VOICE, alone};

/// Longest time between two pictures, and what a busy machine may add.
const LONGEST_GAP: Duration = Duration::from_millis(500);
const GAP_SLACK: Duration = Duration::from_millis(300);

const COLOURS: [[u8; 3]; 4] = [RED, GREEN, BLUE, YELLOW];
const ROOM: &str = "churn";

/// Encoded once: the newcomers differ in their colours.
struct Wardrobe {
    pictures: Vec<Arc<PictureLoop>>,
    voice: Arc<VoiceLoop>,
}

impl Wardrobe {
    fn new() -> Self {
        let encode = |colour| PictureLoop::encode(&Picture::plain(colour)).unwrap();
        Wardrobe {
            pictures: COLOURS.map(|colour| Arc::new(encode(colour))).into(),
            voice: Arc::new(VoiceLoop::encode(LOW_VOICE, Turns::Always).unwrap()),
        }
    }

    /// Newcomer number `index` joins; nobody needs to see what it is sent.
    async fn join(&self, server: &Server, index: usize) -> Participant {
        let config = ParticipantConfig {
            video: Some(self.pictures[index % COLOURS.len()].clone()),
            audio: Some(self.voice.clone()),
            subscribe: false,
            ..ParticipantConfig::viewer(&server.socket(), ROOM, &format!("Guest {index}"))
        };
        Participant::join(config).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_publishers_join_and_leave_and_the_mixed_client_is_never_renegotiated() {
    let _turn = alone().await;
    let server = Server::start(&[]).await;
    let wardrobe = tokio::task::spawn_blocking(Wardrobe::new).await.unwrap();
    let viewer = Person::viewer(&server, &format!("room_id={ROOM}&mode=mcu")).await;
    viewer.join().await;
    // The picture of an empty room is a picture too.
    viewer.sees_move(10).await;
    let script = "__bench.tracks.find(t => t.kind === 'video').longest = 0;";
    viewer.browser.eval(script, vec![]).await;

    let mut present: Option<Participant> = None;
    for index in 0..10 {
        let guest = wardrobe.join(&server, index).await;
        let id = guest.observed().client_id.unwrap();
        shows(&viewer, &id, COLOURS[index % COLOURS.len()]).await;
        if index % 3 == 1 {
            mute(&guest).await;
        }
        if let Some(before) = present.replace(guest) {
            leaves(&viewer, before, index % 2 == 0).await;
        }
        // Once the room empties in between.
        if index == 5
            && let Some(last) = present.take()
        {
            leaves(&viewer, last, true).await;
        }
    }
    if let Some(last) = present.take() {
        leaves(&viewer, last, true).await;
    }
    viewer.sees_move(10).await;

    let counted = viewer.browser.counted().await;
    assert_eq!(
        (&counted["messages"]["offer"], &counted["remoteOffers"]),
        (&json!(1), &json!(1)),
        "{counted}"
    );
    one_of_each(&viewer).await;
    let gap = longest_gap(&viewer).await;
    println!("figure mixed_video_longest_gap_ms {} ms", gap.as_millis());
    assert!(gap < LONGEST_GAP + GAP_SLACK, "{gap:?}");
    viewer.close_in_good_order().await;
}

/// Ends a participant, by its word or by dropping its socket, and waits until its tile is gone.
async fn leaves(viewer: &Person, guest: Participant, orderly: bool) {
    let id = guest.observed().client_id.unwrap();
    if orderly {
        guest.leave().await.unwrap();
    } else {
        drop(guest);
    }
    viewer
        .wait(&format!(
            "!__bench.last.layout.tiles.some(tile => tile.client_id === '{id}')"
        ))
        .await;
}

/// Mutes every track of a participant.
async fn mute(guest: &Participant) {
    let added = guest.observed().last("tracks_added").cloned();
    let added = added.expect("whoever is seen has been told its tracks");
    for track_id in added.as_object().into_iter().flatten().map(|(id, _)| id) {
        let message = json!({"type": "mute", "data": {"track_id": track_id, "muted": true}});
        guest.send(message).await.unwrap();
    }
}

/// Longest time without a new picture since the test began, the time up to now included.
async fn longest_gap(viewer: &Person) -> Duration {
    let script = "(() => { const t = __bench.tracks.find(t => t.kind === 'video'); \
                  return Math.max(t.longest, __bench.now() - t.last); })()";
    let gap: Value = viewer.value(script).await;
    Duration::from_secs_f64(gap.as_f64().unwrap() / 1000.0)
}
