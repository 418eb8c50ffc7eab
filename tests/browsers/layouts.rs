//! The kinds of picture that a mixed client is shown, changed while it watches.

use serde_json::Value;
use std::path::Path;
use std::time::Duration;

use crate::alone;
use crate::support::analysis::colour_distance;
use crate::support::eventually;
use crate::support::media::{Camera, RED};
use crate::support::person::{MIXED, Person};
use crate::support::server::Server;

const PARTICIPANTS: usize = 16;
/// Longest time without a new picture while the layout changes.
const STALL: Duration = Duration::from_millis(300);
/// What two cores that also carry sixteen senders and two browsers may add to it.
const STALL_SLACK: Duration = Duration::from_millis(900);
/// Until sixteen participants have connected, and until a shared screen is seen.
const SHOWN_WITHIN: Duration = Duration::from_secs(40);
/// The canvas where there is nobody, as a browser shows it.
const BACKGROUND: [u8; 3] = [16, 17, 20];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grid_speaker_pinned_and_screen_follow_one_another_without_a_stall() {
    let _turn = alone().await;
    let count = PARTICIPANTS.to_string();
    let server = Server::start(&["--demo", &count]).await;
    let (viewer, sharer) = tokio::join!(
        Person::viewer(&server, "room_id=demo&mode=mcu&name=Vera"),
        Person::open(
            &server,
            "room_id=demo&name=Sharer",
            Camera::small(RED),
            crate::LOW_VOICE
        ),
    );
    tokio::join!(viewer.join(), sharer.join());
    let sharers = sharer.id().await;
    shows(&viewer, "grid", PARTICIPANTS + 1).await;
    viewer.sees_move(40).await;
    keep(&viewer, "grid").await;
    let offers = viewer.value("__bench.remoteOffers").await;

    viewer
        .browser
        .eval("__bench.tracks.forEach(t => t.longest = 0);", vec![])
        .await;
    for (choice, kind) in [
        ("speaker".to_owned(), "speaker"),
        (format!("pinned:{sharers}"), "pinned"),
        ("grid".to_owned(), "grid"),
        ("speaker".to_owned(), "speaker"),
    ] {
        let choose =
            "const layout = document.querySelector('#layout'); layout.value = arguments[0];
            layout.dispatchEvent(new Event('change'));";
        viewer
            .browser
            .eval(choose, vec![choice.clone().into()])
            .await;
        shows(&viewer, kind, 2).await;
        viewer.sees_move(10).await;
        keep(&viewer, kind).await;
        assert_eq!(viewer.value("layout.value").await, choice.as_str());
    }
    let tiles = viewer.value("__bench.last.layout.tiles").await;
    assert_eq!(tiles.as_array().unwrap().len(), 6, "a strip of five");

    // A shared screen comes by itself, and what was there before comes back when it ends.
    sharer.press("#screen").await;
    shows(&viewer, "screen", 6).await;
    assert_eq!(
        viewer.value("__bench.last.layout.tiles[0].client_id").await,
        sharers.as_str()
    );
    viewer.sees_move(20).await;
    keep(&viewer, "screen").await;
    sharer.press("#screen").await;
    shows(&viewer, "speaker", 6).await;
    viewer.sees_move(10).await;

    let stall = viewer
        .value("Math.max(...__bench.tracks.map(t => t.longest))")
        .await;
    let stall = Duration::from_secs_f64(stall.as_f64().unwrap() / 1000.0);
    println!("figure layout_change_stall_ms {} ms", stall.as_millis());
    assert!(stall < STALL + STALL_SLACK, "{stall:?}");
    assert_eq!(viewer.value("__bench.remoteOffers").await, offers);
    viewer.close_in_good_order().await;
    sharer.close_in_good_order().await;
}

/// Waits until the picture is of this kind with so many tiles at least, and something is seen in the first one.
async fn shows(viewer: &Person, kind: &str, tiles: usize) {
    eventually(kind, SHOWN_WITHIN, async || {
        let layout = viewer.value("__bench.last.layout ?? null").await;
        let shown = layout["tiles"].as_array().map_or(0, Vec::len);
        if layout["kind"] != kind || shown < tiles {
            return Err(layout);
        }
        let Some(centre) = centre_of_first(&layout) else {
            return Err(layout);
        };
        let seen = viewer.browser.pixels(MIXED, &[centre]).await;
        match colour_distance(seen[0], BACKGROUND) > 25 {
            true => Ok(()),
            false => Err(layout),
        }
    })
    .await;
}

fn centre_of_first(layout: &Value) -> Option<(f32, f32)> {
    let tile = layout["tiles"].get(0)?;
    let part = |from: &str, length: &str| {
        let number = |value: &Value| value.as_f64().map(|n| n as f32);
        let middle = number(&tile[from])? + number(&tile[length])? / 2.0;
        Some(middle / number(&layout["canvas"][length])?)
    };
    Some((part("x", "width")?, part("y", "height")?))
}

/// Keeps what the page looks like, to be looked at.
async fn keep(viewer: &Person, kind: &str) {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("layout-{kind}.png"));
    let png = viewer.browser.screenshot().await;
    tokio::fs::write(&path, png).await.unwrap();
    println!("the {kind} is in {}", path.display());
}
