//! A browser that gets one picture and one sound.

use serde_json::Value;
use std::time::Duration;

use crate::sending::WITHOUT_H264;
use crate::support::analysis::colour_distance;
use crate::support::eventually;
use crate::support::media::{Camera, GREEN, RED};
use crate::support::person::{MIXED, Person, of_kind};
use crate::support::server::Server;
use crate::{ABSENT, ABSENT_VOICE, ALONE, AMONG_TWO, HIGH_VOICE, LOW_VOICE, alone};

/// A publisher's own voice is at least this far below what others hear of it.
const OWN_VOICE_BELOW_DB: f32 = 40.0;
/// Longest time until a picture of somebody new is in the mix.
const SHOWN_WITHIN: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mixed_client_sees_both_in_their_tiles_and_hears_both_and_nobody_hears_itself() {
    let _turn = alone().await;
    let server = Server::start(&[]).await;
    let (anna, ben, viewer) = tokio::join!(
        Person::open(
            &server,
            "room_id=mix&name=Anna",
            Camera::small(RED),
            LOW_VOICE
        ),
        Person::open(
            &server,
            "room_id=mix&name=Ben&mode=mcu",
            Camera::small(GREEN),
            HIGH_VOICE
        ),
        Person::viewer(&server, "room_id=mix&name=Vera&mode=mcu"),
    );
    // Ben's browser sends VP8, which is decoded for the mix as well.
    ben.browser.eval(WITHOUT_H264, vec![]).await;
    tokio::join!(anna.join(), ben.join(), viewer.join());
    let (annas, bens) = (anna.id().await, ben.id().await);
    viewer.sees_and_hears(1, Duration::from_secs(15)).await;
    shows(&viewer, &annas, RED).await;
    shows(&viewer, &bens, GREEN).await;
    let heard = viewer
        .likeness(MIXED, &[LOW_VOICE, HIGH_VOICE, ABSENT_VOICE])
        .await;
    assert!(
        heard[0] > AMONG_TWO && heard[1] > AMONG_TWO && heard[2] < ABSENT,
        "{heard:?}"
    );
    one_of_each(&viewer).await;
    let sent = [sent_codec(&anna).await, sent_codec(&ben).await];
    assert_eq!(sent, ["video/H264", "video/VP8"]);

    let heard = ben.likeness(MIXED, &[LOW_VOICE, HIGH_VOICE]).await;
    assert!(heard[0] > ALONE && heard[1] < ABSENT, "{heard:?}");
    anna.press("#mute").await;
    ben_is_heard_by_others_only(&ben, &viewer).await;

    for person in [viewer, ben, anna] {
        person.close_in_good_order().await;
    }
}

/// Nobody else speaks: what Ben hears is silence, what the viewer hears is Ben.
async fn ben_is_heard_by_others_only(ben: &Person, viewer: &Person) {
    let second = Duration::from_secs(1);
    eventually("silence for Ben", Duration::from_secs(15), async || {
        let (bens, viewers) = tokio::join!(
            ben.browser.record(MIXED, second),
            viewer.browser.record(MIXED, second)
        );
        let (bens, viewers) = (bens.level_db(), viewers.level_db());
        match viewers > -40.0 && bens < viewers - OWN_VOICE_BELOW_DB {
            true => Ok(()),
            false => Err((bens, viewers)),
        }
    })
    .await;
    let heard = viewer.likeness(MIXED, &[HIGH_VOICE, LOW_VOICE]).await;
    assert!(heard[0] > ALONE && heard[1] < ABSENT, "{heard:?}");
}

/// The codec of the camera that a page publishes.
async fn sent_codec(person: &Person) -> String {
    let stats = person.browser.stats().await;
    let sent = stats
        .iter()
        .filter_map(|connection| connection["outbound"].as_array());
    let sent: Vec<Value> = sent.flatten().cloned().collect();
    let mut cameras = of_kind(&sent, "video").filter(|stream| stream["frames"].as_u64() > Some(0));
    let camera = cameras.next().expect("a camera that is sent");
    camera["codec"].as_str().unwrap().to_owned()
}

/// Exactly one audio and one video track come down.
pub async fn one_of_each(person: &Person) {
    let inbound = person.inbound().await;
    for kind in ["audio", "video"] {
        assert_eq!(of_kind(&inbound, kind).count(), 1, "{inbound:?}");
    }
}

/// The tile that the layout gives to a client has its colour in the middle.
pub async fn shows(person: &Person, client_id: &str, colour: [u8; 3]) {
    let what = format!("{colour:?} in the tile of {client_id}");
    eventually(&what, SHOWN_WITHIN, async || {
        let layout = person.value("__bench.last.layout ?? null").await;
        let centre = tile_centre(&layout, client_id).ok_or(format!("no tile in {layout}"))?;
        let seen = person.browser.pixels(MIXED, &[centre]).await[0];
        match colour_distance(seen, colour) < 24 {
            true => Ok(()),
            false => Err(format!("{seen:?} at {centre:?} of {layout}")),
        }
    })
    .await;
}

/// In shares of the canvas.
fn tile_centre(layout: &Value, client_id: &str) -> Option<(f32, f32)> {
    let tiles = layout["tiles"].as_array()?;
    let tile = tiles.iter().find(|tile| tile["client_id"] == client_id)?;
    let number = |value: &Value| value.as_f64().map(|n| n as f32);
    let centre = |at: &str, size: &str| Some(number(&tile[at])? + number(&tile[size])? / 2.0);
    Some((
        centre("x", "width")? / number(&layout["canvas"]["width"])?,
        centre("y", "height")? / number(&layout["canvas"]["height"])?,
    ))
}
