//! One subscriber's link becomes narrow, narrower and wide again while somebody sends a camera in three sizes; another
//! subscriber of the same camera notices nothing.

use serde_json::Value;
use std::time::{Duration, Instant};

use crate::support::media::{Camera, RED};
use crate::support::network::bridge::{Link, Way};
use crate::support::network::impairment::{Rate, Settings};
use crate::support::network::{Client, Network};
use crate::support::person::{Person, of_kind};
use crate::support::server::Server;
use crate::{LOW_VOICE, alone};

const MS: Duration = Duration::from_millis(1);
/// Until Chromium sends all three sizes and the top one has been reached.
const WARM: Duration = Duration::from_secs(30);
/// From a new cap until the layer is the right one and stays.
const SETTLING: Duration = Duration::from_secs(5);
/// How long it is watched after that.
const SETTLED: Duration = Duration::from_secs(3);
/// From the cap's end until the top layer is back.
const RECOVERY: Duration = Duration::from_secs(10);
/// Queueing delay that a settled stream may have.
const QUEUE: Duration = Duration::from_millis(200);
/// Longest time without a picture at the subscriber that has a good link, busy machines included.
const STILL: f64 = 1000.0;

/// A 720p camera that costs bits at every size.
fn camera() -> Camera {
    Camera {
        fps: 20,
        ..Camera::hd(RED).grainy(8)
    }
}

fn capped(bps: f64) -> Settings {
    let queue = 500 * MS;
    Settings {
        delay: 25 * MS,
        rate: Some(Rate { bps, queue }),
        ..Settings::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_follows_its_caps_and_is_back_at_the_top_while_another_notices_nothing() {
    let _turn = alone().await;
    let network = Network::new();
    let server = Server::start(&["--public-ip", "10.77.0.1"]).await;
    let clients = [1, 2, 3].map(|seed| network.client(seed));
    let anna = async {
        let anna = Person::afar(&server, &clients[0], "room_id=caps", camera(), LOW_VOICE).await;
        anna.join().await;
        anna
    };
    let (anna, narrow, wide) = tokio::join!(
        anna,
        viewer(&server, &clients[1]),
        viewer(&server, &clients[2]),
    );
    clients[1].link.set(Way::Up, capped(5e6));
    clients[1].link.set(Way::Down, capped(5e6));
    let id = anna.id().await;
    tokio::join!(watch(&narrow, &id), watch(&wide, &id));
    tokio::join!(narrow.sees_width(1280, WARM), wide.sees_width(1280, WARM));
    figures("layers", &anna).await;

    let before = View::of(&wide).await;
    let link = &clients[1].link;
    for (kbps, width) in [(600, 640), (300, 320)] {
        link.set(Way::Down, capped(f64::from(kbps) * 1e3));
        let (after, queue) = settle(&narrow, link, width).await;
        println!("figure cap_{kbps}_settled_ms {after:.0} ms");
        println!("figure cap_{kbps}_queue_ms {} ms", queue.as_millis());
        let limit = SETTLING.as_secs_f64() * 1e3;
        assert!(
            after < limit,
            "{kbps} kbit/s: {after} ms until {width} pixels stay"
        );
        assert!(queue < QUEUE, "{kbps} kbit/s: a queue of {queue:?}");
    }
    link.set(Way::Down, capped(5e6));
    let lifted = Instant::now();
    narrow.sees_width(1280, RECOVERY).await;
    println!(
        "figure cap_end_to_top_ms {} ms",
        lifted.elapsed().as_millis()
    );

    View::of(&wide).await.noticed_nothing(&before);
    let told = narrow.browser.counted().await["messages"].clone();
    println!("told: {told}");
    assert!(told["bitrate_adjusted"].as_u64() >= Some(3), "{told}");
    assert!(told["network_condition"].as_u64() >= Some(1), "{told}");
    for person in [anna, narrow, wide] {
        person.browser.close().await;
    }
}

/// Somebody who watches in a window so large that the best layer is wanted.
async fn viewer(server: &Server, client: &Client) -> Person {
    let viewer = Person::viewer_afar(server, client, "room_id=caps").await;
    viewer.browser.resize(1600, 1000).await;
    viewer.start().await;
    viewer
}

async fn watch(viewer: &Person, publisher: &str) {
    let tile = Person::tile_of(publisher);
    viewer
        .wait(&format!("document.querySelector({tile:?})"))
        .await;
    viewer.watches(&tile).await;
}

/// A new cap holds: milliseconds from now until pictures of `width` came that stayed until the end, and the longest
/// time that a packet stood in the queue after the time for settling.
async fn settle(viewer: &Person, link: &Link, width: u64) -> (f64, Duration) {
    let script = "const s = window.__seen; s.changes = [[performance.now(), s.width]]; return performance.now();";
    let began = viewer.browser.eval(script, vec![]).await.as_f64().unwrap();
    tokio::time::sleep(SETTLING).await;
    link.begin();
    tokio::time::sleep(SETTLED).await;
    let counters = link.measured(Way::Down).counters;
    let changes = viewer.value("window.__seen.changes").await;
    println!("changes since {began:.0}: {changes}");
    println!(
        "queue p50 {:?}, p99 {:?}, dropped {}",
        counters.queueing(0.5),
        counters.queueing(0.99),
        counters.queue_full
    );
    let changes: Vec<(f64, u64)> = serde_json::from_value(changes).unwrap();
    let (at, last) = changes[changes.len() - 1];
    assert_eq!(last, width, "pixels at the end: {changes:?}");
    (at - began, counters.queueing(1.0))
}

/// What a subscriber has got of the camera until now.
struct View {
    picture: Value,
    changes: usize,
    still: f64,
}

impl View {
    async fn of(viewer: &Person) -> Self {
        let inbound = viewer.inbound().await;
        let seen = viewer.value("window.__seen").await;
        // What comes is counted anew from here on.
        let script =
            "const s = window.__seen; s.still = 0; s.changes = []; s.last = performance.now();";
        viewer.browser.eval(script, vec![]).await;
        View {
            picture: of_kind(&inbound, "video").next().unwrap().clone(),
            changes: seen["changes"].as_array().unwrap().len(),
            still: seen["still"].as_f64().unwrap(),
        }
    }

    fn noticed_nothing(&self, before: &View) {
        let grown = |name: &str| {
            self.picture[name].as_f64().unwrap() - before.picture[name].as_f64().unwrap()
        };
        println!("figure caps_other_longest_still_ms {:.0} ms", self.still);
        println!("figure caps_other_freezes {}", grown("freezes"));
        println!("figure caps_other_keyframes {}", grown("keyframes"));
        println!("figure caps_other_frames {}", grown("frames"));
        assert_eq!(self.changes, 0, "the other's layer never changes");
        assert!(self.still < STILL, "{} ms without a picture", self.still);
        // Chromium makes a keyframe of every size when it is asked for one of any: one for each of the other's three
        // layers, and one more for a request that was lost.
        assert!(
            grown("keyframes") <= 4.0,
            "{} keyframes",
            grown("keyframes")
        );
        assert_eq!(grown("freezes"), 0.0);
    }
}

/// Prints what each size of the camera costs.
async fn figures(what: &str, publisher: &Person) {
    let before = outbound(publisher).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    for (before, after) in before.iter().zip(outbound(publisher).await) {
        let bits = 8 * (after["bytes"].as_u64().unwrap() - before["bytes"].as_u64().unwrap());
        println!("figure {what}_{}_kbps {} kbit/s", after["rid"], bits / 1000);
    }
}

async fn outbound(publisher: &Person) -> Vec<Value> {
    let stats = publisher.browser.stats().await;
    stats[0]["outbound"].as_array().unwrap().clone()
}
