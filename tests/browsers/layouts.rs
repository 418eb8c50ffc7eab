//! The kinds of picture that a mixed client is shown, changed while it watches.

use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::alone;
use crate::support::analysis::colour_distance;
use crate::support::eventually;
use crate::support::media::{Camera, RED};
use crate::support::person::{MIXED, Person};
use crate::support::pressure::waited_for_a_processor;
use crate::support::server::Server;

const PARTICIPANTS: usize = 16;
/// Longest time without a new picture while the layout changes.
const STALL: Duration = Duration::from_millis(300);
/// What is allowed on top of it if somebody waits for a processor all of the time; in proportion, if less: two cores
/// carry sixteen senders, the server and two browsers.
const BUSY: Duration = Duration::from_millis(600);
/// Until sixteen participants have connected, and until a shared screen is seen.
const SHOWN_WITHIN: Duration = Duration::from_secs(40);
/// Of a picture that somebody gives: nothing else in the room is like it.
const AVATAR: [u8; 3] = [230, 60, 220];
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

    let mut stall = Duration::ZERO;
    let mut watched = Watch::begin(&viewer).await;
    for (choice, kind) in [
        ("speaker".to_owned(), "speaker"),
        (format!("pinned:{sharers}"), "pinned"),
        ("grid".to_owned(), "grid"),
        ("speaker".to_owned(), "speaker"),
    ] {
        choose(&viewer, &choice).await;
        shows(&viewer, kind, 2).await;
        viewer.sees_move(10).await;
        stall = stall.max(watched.over(&viewer, kind).await);
        keep(&viewer, kind).await;
        watched = Watch::begin(&viewer).await;
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
    stall = stall.max(watched.over(&viewer, "screen").await);
    keep(&viewer, "screen").await;
    watched = Watch::begin(&viewer).await;
    sharer.press("#screen").await;
    shows(&viewer, "speaker", 6).await;
    viewer.sees_move(10).await;
    stall = stall.max(watched.over(&viewer, "speaker again").await);
    println!("figure layout_change_stall_ms {} ms", stall.as_millis());
    card_shows_a_given_picture(&viewer, &sharer).await;
    assert_eq!(viewer.value("__bench.remoteOffers").await, offers);
    viewer.close_in_good_order().await;
    sharer.close_in_good_order().await;
}

async fn choose(viewer: &Person, choice: &str) {
    let choose = "const layout = document.querySelector('#layout'); layout.value = arguments[0];
        layout.dispatchEvent(new Event('change'));";
    viewer.browser.eval(choose, vec![choice.into()]).await;
}

/// Somebody without a camera is seen as the picture file that they chose.
async fn card_shows_a_given_picture(viewer: &Person, person: &Person) {
    let id = person.id().await;
    choose(viewer, &format!("pinned:{id}")).await;
    shows(viewer, "pinned", 2).await;
    person.press("#camera").await;
    let give = "const [r, g, b] = arguments, canvas = document.createElement('canvas');
        canvas.width = 300; canvas.height = 200;
        const pen = canvas.getContext('2d');
        pen.fillStyle = `rgb(${r}, ${g}, ${b})`;
        pen.fillRect(0, 0, 300, 200);
        canvas.toBlob(blob => {
            const files = new DataTransfer(), input = document.querySelector('#avatar');
            files.items.add(new File([blob], 'me.png', { type: 'image/png' }));
            input.files = files.files;
            input.dispatchEvent(new Event('change'));
        });";
    let colour = AVATAR.map(Value::from).to_vec();
    person.browser.eval(give, colour).await;
    eventually("the given picture", SHOWN_WITHIN, async || {
        let layout = viewer.value("__bench.last.layout ?? null").await;
        let centre = centre_of_first(&layout).ok_or(layout)?;
        let seen = viewer.browser.pixels(MIXED, &[centre]).await;
        match colour_distance(seen[0], AVATAR) < 40 {
            true => Ok(()),
            false => Err(Value::from(format!("{:?}", seen[0]))),
        }
    })
    .await;
    keep(viewer, "avatar").await;
}

/// The pictures that come during one change. A screenshot is not taken meanwhile: it stops the page for as long as it
/// takes to make, and pictures are counted there.
struct Watch {
    begin: Instant,
    waited: Duration,
}

impl Watch {
    async fn begin(viewer: &Person) -> Self {
        viewer.sees_move(2).await;
        let reset = "__bench.tracks.forEach(t => t.longest = 0);";
        viewer.browser.eval(reset, vec![]).await;
        Watch {
            begin: Instant::now(),
            waited: waited_for_a_processor(),
        }
    }

    /// The longest time without a picture, which is within the limit.
    async fn over(self, viewer: &Person, change: &str) -> Duration {
        let longest = "Math.max(...__bench.tracks.map(t => t.longest))";
        let longest = viewer.value(longest).await.as_f64().unwrap();
        let stall = Duration::from_secs_f64(longest / 1000.0);
        let waited = waited_for_a_processor() - self.waited;
        let pressure = waited.as_secs_f64() / self.begin.elapsed().as_secs_f64();
        let allowed = STALL + BUSY.mul_f64(pressure.min(1.0));
        println!(
            "{change}: {stall:?} without a picture, {allowed:?} allowed at a pressure of {:.0} %",
            100.0 * pressure
        );
        assert!(stall < allowed, "{change}: {stall:?}");
        stall
    }
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
