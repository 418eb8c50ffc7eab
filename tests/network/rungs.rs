//! A mixed viewer on a link that becomes slow and good again moves on the ladder, and nobody else does.

use serde_json::Value;
use std::time::{Duration, Instant};

use crate::alone;
use crate::loss::waited;
use crate::support::network::Network;
use crate::support::network::bridge::Way;
use crate::support::network::impairment::{Rate, Settings};
use crate::support::person::{MIXED, Person};
use crate::support::server::Server;

/// Longest time without a new picture on a good link, whatever others do.
const FREEZE: Duration = Duration::from_millis(500);
/// And on the slow one: the smallest rung has a picture in 200 ms, and the freeze begins where the next one is missing.
const FREEZE_AT_A_CAP: Duration = Duration::from_millis(700);
/// Of the time in which processes wait for a processor, what the longest pause may be longer for that.
const BUSY: f64 = 0.5;
/// Until both see the largest rung, and until the one sees it again.
const RISES_WITHIN: Duration = Duration::from_secs(15);
/// Until a rung that fits a slow link is seen.
const FALLS_WITHIN: Duration = Duration::from_secs(5);
/// How long each state of the link is watched after that.
const WATCHED: Duration = Duration::from_secs(3);

const MS: Duration = Duration::from_millis(1);

/// Looks at every picture that the element shows: how colourful it is at least, on the mean of its pixels. A decoder
/// without a reference shows grey.
const LOOK: &str = "
const video = document.querySelector(arguments[0]);
const canvas = document.createElement('canvas');
canvas.width = 64; canvas.height = 36;
const context = canvas.getContext('2d', { willReadFrequently: true });
const look = window.__look = { least: 255, most: 0, pictures: 0 };
const each = () => {
  context.drawImage(video, 0, 0, 64, 36);
  const { data } = context.getImageData(0, 0, 64, 36);
  let sum = 0;
  for (let i = 0; i < data.length; i += 4) {
    sum += Math.max(data[i], data[i + 1], data[i + 2]) - Math.min(data[i], data[i + 1], data[i + 2]);
  }
  const colour = sum / (64 * 36);
  look.least = Math.min(look.least, colour); look.most = Math.max(look.most, colour); look.pictures += 1;
  video.requestVideoFrameCallback(each);
};
video.requestVideoFrameCallback(each);
for (const track of __bench.tracks) { track.heights = {}; track.longest = 0; }
";

fn capped(bps: f64) -> Settings {
    Settings {
        delay: 20 * MS,
        rate: Some(Rate {
            bps,
            queue: 500 * MS,
        }),
        ..Settings::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mixed_viewer_on_a_slow_link_moves_down_the_ladder_and_up_again_beside_others() {
    let _turn = alone().await;
    let network = Network::new();
    let server = Server::start(&["--public-ip", "10.77.0.1", "--demo", "4"]).await;
    let (near, far) = (network.client(1), network.client(2));
    let query = "room_id=demo&mode=mcu&name=Viewer";
    let (good, slow) = tokio::join!(
        Person::viewer_afar(&server, &near, query),
        Person::viewer_afar(&server, &far, query),
    );
    for person in [&good, &slow] {
        person.browser.resize(1500, 1000).await;
    }
    tokio::join!(good.join(), slow.join());
    let rises = |least| format!("document.querySelector('{MIXED}').videoHeight >= {least}");
    let falls = |most| format!("document.querySelector('{MIXED}').videoHeight <= {most}");
    let largest = rises(720);
    tokio::join!(
        good.browser.wait_until(&largest, RISES_WITHIN),
        slow.browser.wait_until(&largest, RISES_WITHIN),
    );
    for person in [&good, &slow] {
        person.browser.eval(LOOK, vec![MIXED.into()]).await;
    }
    let (before, began) = (waited(), Instant::now());

    for (kbits, most) in [(300, 240), (120, 180)] {
        let since = Instant::now();
        far.link.set(Way::Down, capped(f64::from(kbits) * 1000.0));
        slow.browser.wait_until(&falls(most), FALLS_WITHIN).await;
        let took = since.elapsed().as_millis();
        println!("figure rung_down_to_{kbits}kbps_ms {took} ms");
        tokio::time::sleep(WATCHED).await;
        let height = height(&slow).await;
        let longest = longest(&slow).await;
        println!("at {kbits} kbit/s: {height} lines, longest pause {longest:?}");
        assert!(height <= most, "{height} lines at {kbits} kbit/s");
    }
    let since = Instant::now();
    far.link.set(Way::Down, Settings::default());
    slow.browser.wait_until(&largest, RISES_WITHIN).await;
    println!("figure rung_up_again_ms {} ms", since.elapsed().as_millis());

    let busy = (waited() - before).as_secs_f64() / began.elapsed().as_secs_f64();
    println!("figure rung_cpu_pressure_percent {:.0} %", 100.0 * busy);
    for (name, person, freeze) in [("good", &good, FREEZE), ("slow", &slow, FREEZE_AT_A_CAP)] {
        let allowed = freeze.mul_f64(1.0 + BUSY * busy);
        let longest = longest(person).await;
        println!("figure rung_freeze_{name}_ms {} ms", longest.as_millis());
        let look = person.value("__look").await;
        let colour = |name: &str| look[name].as_f64().unwrap();
        println!("{name}: {look}, {}", heights(person).await);
        // The smallest rung has five a second, and is watched twice.
        let at_least = 5.0 * 2.0 * WATCHED.as_secs_f64() * 0.8;
        assert!(colour("pictures") > at_least, "{name}: {look}");
        assert!(colour("least") > 0.6 * colour("most"), "{name}: {look}");
        assert!(longest < allowed, "{name}: {longest:?}");
    }
    let seen = heights(&good).await;
    let others: Vec<&String> = seen.as_object().unwrap().keys().collect();
    assert_eq!(others, ["720"], "a good link keeps the largest rung");
    good.close_in_good_order().await;
    slow.close_in_good_order().await;
}

const PICTURE: &str = "__bench.tracks.find(track => track.kind === 'video')";

async fn height(person: &Person) -> u64 {
    let height = person
        .value(&format!("document.querySelector('{MIXED}').videoHeight"))
        .await;
    height.as_u64().unwrap()
}

/// Longest pause between two decoded pictures since they are looked at.
async fn longest(person: &Person) -> Duration {
    let longest = person.value(&format!("{PICTURE}.longest")).await;
    Duration::from_secs_f64(longest.as_f64().unwrap() / 1000.0)
}

/// The heights that were decoded since then, with the moments of the first picture of each.
async fn heights(person: &Person) -> Value {
    person.value(&format!("{PICTURE}.heights")).await
}
