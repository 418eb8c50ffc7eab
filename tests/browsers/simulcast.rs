//! One browser sends its camera in three sizes, another is switched among them.
//!
//! Firefox sends VP8 here: its H.264 is a plug-in that it fetches from its maker.

use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::sending::WITHOUT_H264;
use crate::support::analysis::colour_distance;
use crate::support::eventually;
use crate::support::media::{Camera, RED};
use crate::support::person::{Person, of_kind};
use crate::support::server::Server;
use crate::{LOW_VOICE, alone};

/// Longest time without a new picture while layers change.
const STILL: Duration = Duration::from_millis(500);
/// What a machine adds that encodes three sizes and decodes them in software on two busy cores.
const STILL_SLACK: Duration = Duration::from_millis(500);
/// Until Chromium has begun to send all three sizes: it raises its estimate of the line first.
const ALL_LAYERS: Duration = Duration::from_secs(40);
/// From the wish to another size until its pictures are shown.
const SWITCH: Duration = Duration::from_secs(5);
/// Until everybody sees and hears.
const EFFECT: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_moves_among_three_sizes_without_a_freeze_and_only_the_wanted_one_is_asked() {
    let _turn = alone().await;
    let server = Server::start(&[]).await;
    let (anna, viewer) = tokio::join!(
        Person::open(&server, "room_id=layers", Camera::hd(RED), LOW_VOICE),
        Person::viewer(&server, "room_id=layers"),
    );
    a_viewer_moves_among_three_sizes(&anna, &viewer).await;
    viewer.close_in_good_order().await;
    anna.close_in_good_order().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn firefox_sends_three_sizes_of_vp8_and_talks_with_chromium() {
    let _turn = alone().await;
    let server = Server::start(&[]).await;
    let room = "room_id=firefox";
    let (fox, viewer) = tokio::join!(
        Person::in_firefox(&server, room),
        Person::viewer(&server, room),
    );
    a_viewer_moves_among_three_sizes(&fox, &viewer).await;
    viewer.sees_and_hears(1, EFFECT).await;
    let seen = viewer.inbound().await;
    let codecs: Vec<&Value> = of_kind(&seen, "video").map(|t| &t["codec"]).collect();
    assert_eq!(codecs, ["video/VP8"]);
    viewer.close_in_good_order().await;

    let anna = Person::open(&server, room, Camera::small(RED), LOW_VOICE).await;
    anna.browser.eval(WITHOUT_H264, vec![]).await;
    anna.join().await;
    tokio::join!(
        fox.sees_and_hears(1, EFFECT),
        anna.sees_and_hears(1, EFFECT),
    );
    let tile = Person::tile_of(&anna.id().await);
    let seen = fox.browser.pixels(&tile, &[(0.5, 0.5)]).await;
    assert!(colour_distance(seen[0], RED) < 40, "{seen:?}");
    fox.sees_move(20).await;
    let complaints = fox.complaints().await;
    assert!(complaints.is_empty(), "{complaints:?}");
    anna.close_in_good_order().await;
    // Whoever closes the page has left.
    fox.browser.close().await;
}

/// Moves the viewer up and down the sizes that `anna` sends.
async fn a_viewer_moves_among_three_sizes(anna: &Person, viewer: &Person) {
    // No larger layer is forwarded than its tile shows.
    viewer.browser.resize(1600, 1000).await;
    viewer.start().await;
    anna.join().await;
    let tile = Person::tile_of(&anna.id().await);
    viewer
        .wait(&format!("document.querySelector({tile:?})"))
        .await;
    viewer.watches(&tile).await;
    all_sizes_are_sent(anna).await;
    viewer.sees_width(1280, ALL_LAYERS).await;

    for (quality, width, rid) in [
        ("mid", 640, "h"),
        ("low", 320, "q"),
        ("high", 1280, "f"),
        ("low", 320, "q"),
    ] {
        all_sizes_are_sent(anna).await;
        let before = asked(anna).await;
        let script = "const s = window.__seen; s.still = 0; s.last = performance.now(); \
                      talksy.socket.send(JSON.stringify({ type: 'switch_quality', data: arguments[0] }));";
        viewer.browser.eval(script, vec![quality.into()]).await;
        viewer.sees_width(width, SWITCH).await;
        // The pictures that follow count too.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let still = viewer.value("window.__seen.still").await.as_f64().unwrap();
        println!("figure longest_still_to_{quality}_ms {still:.0} ms");
        let longest = (STILL + STILL_SLACK).as_secs_f64() * 1000.0;
        assert!(still < longest, "{still} ms without a picture");
        for (other, count) in asked(anna).await {
            let more = count - before[&other];
            if other == rid {
                assert!(more >= 1, "{rid} was asked for a keyframe");
            } else {
                assert_eq!(more, 0, "{other} was asked though {rid} was wanted");
            }
        }
    }
}

/// Waits until frames of all three sizes come at the same time: a browser under load leaves the best one out for a while.
async fn all_sizes_are_sent(publisher: &Person) {
    eventually("three sizes are sent", ALL_LAYERS, async || {
        let before = layers(publisher).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let after = layers(publisher).await;
        let frames = |layers: &BTreeMap<String, Value>, rid: &str| {
            layers.get(rid).and_then(|layer| layer["frames"].as_u64())
        };
        let grows = |rid: &str| frames(&after, rid) > frames(&before, rid).or(Some(0));
        if ["q", "h", "f"].into_iter().all(grows) {
            Ok(())
        } else {
            Err(after)
        }
    })
    .await;
}

/// What the publisher's getStats() says of each size that it sends.
async fn layers(publisher: &Person) -> BTreeMap<String, Value> {
    let mut layers = BTreeMap::new();
    for connection in publisher.browser.stats().await {
        for stream in connection["outbound"].as_array().unwrap() {
            if let Some(rid) = stream["rid"].as_str() {
                layers.insert(rid.to_owned(), stream.clone());
            }
        }
    }
    layers
}

/// Requests for keyframes that each size got.
async fn asked(publisher: &Person) -> BTreeMap<String, u64> {
    let layers = layers(publisher).await.into_iter();
    layers
        .map(|(rid, stream)| (rid, stream["plis"].as_u64().unwrap()))
        .collect()
}
