//! What a publisher's browser sends, in VP8: temporal layers, of which a viewer gets as many as it wants, and no more
//! than the publisher may send.

use serde_json::{Value, json};
use std::time::Duration;

use crate::support::eventually;
use crate::support::media::{Camera, RED};
use crate::support::person::{Person, of_kind};
use crate::support::server::Server;
use crate::{LOW_VOICE, alone};

/// Until Chromium has begun to send all three sizes: it raises its estimate of the line first.
const ALL_LAYERS: Duration = Duration::from_secs(40);
/// From a wish to its effect.
const EFFECT: Duration = Duration::from_secs(10);
/// Over which frames and bytes are counted.
const WINDOW: Duration = Duration::from_millis(1000);
/// What the publisher may send, bit/s, and how far a second of it may be beyond.
const ALLOWED: f64 = 300_000.0;
const SLACK: f64 = 1.15;

/// The page then knows of no H.264, as a browser without it.
pub const WITHOUT_H264: &str = r#"
const all = RTCRtpReceiver.getCapabilities.bind(RTCRtpReceiver);
RTCRtpReceiver.getCapabilities = (kind) => {
  const known = all(kind);
  return { ...known, codecs: known.codecs.filter((codec) => codec.mimeType !== 'video/H264') };
};
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn temporal_layers_of_vp8_are_left_out_and_a_publisher_keeps_to_what_it_may_send() {
    let _turn = alone().await;
    let server = Server::start(&[]).await;
    let camera = Camera {
        fps: 20,
        ..Camera::hd(RED).noisy()
    };
    let (anna, viewer) = tokio::join!(
        Person::open(&server, "room_id=vp8", camera, LOW_VOICE),
        Person::viewer(&server, "room_id=vp8"),
    );
    viewer.browser.resize(1600, 1000).await;
    viewer.start().await;
    anna.browser.eval(WITHOUT_H264, vec![]).await;
    anna.join().await;
    viewer.sees_and_hears(1, EFFECT).await;
    eventually("three sizes", ALL_LAYERS, async || {
        let sent = Sent::of(&anna).await;
        if sent.frames.iter().all(|frames| *frames > 0.0) {
            Ok(())
        } else {
            Err(sent)
        }
    })
    .await;

    let mut rates = Vec::new();
    for quality in ["mid", "midlow", "midmid"] {
        say(&viewer, "switch_quality", json!(quality)).await;
        rates.push(settled_rate(&viewer).await);
    }
    println!("figure vp8_frames_per_second {rates:.1?} of all, one and two temporal layers");
    let [all, one, two] = rates[..] else {
        unreachable!("three qualities");
    };
    assert!(
        one < 0.4 * all && two < 0.7 * all && two > 1.5 * one,
        "{rates:?}"
    );
    assert!(server.dropped("delivery", "temporal_layer").await > 0);
    let picture = picture(&viewer).await;
    assert_eq!(picture["codec"], "video/VP8");
    // Their numbers close over what is left out: nothing seems to be missing.
    assert_eq!(picture["nacks"], 0, "{picture}");

    say(&anna, "update_bandwidth", json!(ALLOWED)).await;
    eventually("less is sent", EFFECT, async || {
        match Sent::of(&anna).await {
            sent if sent.rate() < SLACK * ALLOWED => {
                println!(
                    "figure update_bandwidth_300_kbps {:.0} kbit/s",
                    sent.rate() / 1e3
                );
                Ok(())
            }
            sent => Err(sent),
        }
    })
    .await;
    say(&anna, "update_bandwidth", json!(0)).await;
    eventually(
        "the best size is sent again",
        2 * EFFECT,
        async || match Sent::of(&anna).await {
            sent if sent.frames[2] > 0.0 && sent.rate() > 3.0 * ALLOWED => Ok(()),
            sent => Err(sent),
        },
    )
    .await;
    viewer.close_in_good_order().await;
    anna.close_in_good_order().await;
}

/// Says something over the page's socket.
async fn say(person: &Person, kind: &str, data: Value) {
    let script = "talksy.socket.send(JSON.stringify({ type: arguments[0], data: arguments[1] }));";
    person.browser.eval(script, vec![json!(kind), data]).await;
}

async fn picture(viewer: &Person) -> Value {
    let inbound = viewer.inbound().await;
    of_kind(&inbound, "video").next().unwrap().clone()
}

/// Frames per second of the middle size, once they are the same for two windows.
async fn settled_rate(viewer: &Person) -> f64 {
    let mut before = 0.0;
    eventually("a steady rate of frames", 2 * EFFECT, async || {
        let from = picture(viewer).await;
        tokio::time::sleep(WINDOW).await;
        let to = picture(viewer).await;
        let frames = to["frames"].as_f64().unwrap() - from["frames"].as_f64().unwrap();
        let rate = frames / WINDOW.as_secs_f64();
        let steady = (rate - before).abs() < 0.15 * rate && to["width"] == 640;
        before = rate;
        if steady { Ok(rate) } else { Err((rate, to)) }
    })
    .await
}

/// What a publisher sends of each size in a window: frames, and bits of all together.
#[derive(Debug)]
struct Sent {
    frames: Vec<f64>,
    bits: f64,
}

impl Sent {
    async fn of(publisher: &Person) -> Self {
        let from = Self::total(publisher).await;
        tokio::time::sleep(WINDOW).await;
        let to = Self::total(publisher).await;
        Sent {
            frames: to
                .frames
                .iter()
                .zip(&from.frames)
                .map(|(to, from)| to - from)
                .collect(),
            bits: to.bits - from.bits,
        }
    }

    async fn total(publisher: &Person) -> Self {
        let stats = publisher.browser.stats().await;
        let outbound = stats[0]["outbound"].as_array().unwrap();
        let number = |stream: &Value, name: &str| stream[name].as_f64().unwrap();
        let of_rid = |rid: &str| {
            let stream = outbound.iter().find(|stream| stream["rid"] == rid);
            stream.map_or(0.0, |stream| number(stream, "frames"))
        };
        Sent {
            frames: ["q", "h", "f"].map(of_rid).into(),
            bits: 8.0
                * outbound
                    .iter()
                    .map(|stream| number(stream, "bytes"))
                    .sum::<f64>(),
        }
    }

    fn rate(&self) -> f64 {
        self.bits / WINDOW.as_secs_f64()
    }
}
