//! How soon a picture is there, and how soon it is sharp.

use serde_json::Value;
use std::time::Duration;

use crate::support::eventually;
use crate::support::media::{Camera, RED};
use crate::support::person::Person;
use crate::support::server::Server;
use crate::{LOW_VOICE, SLACK, alone};

/// From a publisher's offer to the first picture that another browser has decoded.
const FIRST_PICTURE: Duration = Duration::from_millis(500);
/// What two busy cores may add to it.
const FIRST_PICTURE_SLACK: Duration = Duration::from_millis(700);
/// From Start until 720p arrives.
const SHARP: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_720p_camera_is_seen_in_half_a_second_and_at_full_size_in_two() {
    let _turn = alone().await;
    let server = Server::start(&[]).await;
    let (anna, viewer) = tokio::join!(
        Person::open(&server, "room_id=hd", Camera::hd(RED), LOW_VOICE),
        Person::viewer(&server, "room_id=hd"),
    );
    // No larger layer is forwarded than its tile shows.
    viewer.browser.resize(1600, 1000).await;
    viewer.start().await;
    viewer.wait("talksy.clientId").await;
    let started = "const at = __bench.now(); document.querySelector('#start').click(); return at;";
    let started = anna.browser.eval(started, vec![]).await;
    let started = started.as_f64().unwrap();

    let first = moment(
        &viewer,
        "__bench.tracks.find(t => t.kind === 'video')?.first",
    )
    .await;
    let offered = moment(&anna, "__bench.firstOffer").await;
    let sharp = moment(
        &viewer,
        "__bench.tracks.find(t => t.kind === 'video')?.heights[720]",
    )
    .await;
    let first = after(offered, first);
    let sharp = after(started, sharp);
    println!(
        "figure offer_to_first_picture_ms {} ms\nfigure start_to_720p_ms {} ms",
        first.as_millis(),
        sharp.as_millis()
    );
    assert!(first < FIRST_PICTURE + FIRST_PICTURE_SLACK, "{first:?}");
    assert!(sharp < SHARP + SLACK, "{sharp:?}");
    viewer.close_in_good_order().await;
    anna.close_in_good_order().await;
}

/// A moment of the machine's clock in ms, once the page knows it.
async fn moment(person: &Person, expression: &str) -> f64 {
    eventually(expression, Duration::from_secs(20), async || {
        match person.value(&format!("{expression} ?? null")).await {
            Value::Number(at) => Ok(at.as_f64().unwrap()),
            other => Err(other),
        }
    })
    .await
}

fn after(start: f64, end: f64) -> Duration {
    Duration::from_secs_f64((end - start).max(0.0) / 1000.0)
}
