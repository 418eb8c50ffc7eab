//! Two browsers in a call, one of them behind a bad link, both directions of it: what it sends tests how the server asks
//! for what is missing, what it receives how the server answers.

use serde_json::Value;
use std::time::{Duration, Instant};

use crate::support::media::{Camera, GREEN, RED};
use crate::support::network::Network;
use crate::support::network::bridge::{Measured, Way};
use crate::support::network::impairment::{Bursts, Jitter, Settings};
use crate::support::network::trace::{Repairs, losses};
use crate::support::person::{Person, of_kind};
use crate::support::server::Server;
use crate::{HIGH_VOICE, LOW_VOICE, alone};

/// How long a scenario is watched.
const WATCHED: Duration = Duration::from_secs(20);
/// Before that, jitter buffers and round-trip times find their size.
const SETTLING: Duration = Duration::from_secs(4);
/// How long a call may take to stand on a busy machine.
const CONNECTING: Duration = Duration::from_secs(15);
/// Samples of one Opus packet at 48 kHz.
const PACKET_SAMPLES: f64 = 960.0;
/// Of the time in which processes wait for a processor, what pictures and sound may stand still for that.
const BUSY: f64 = 0.1;
/// Of all samples, what browsers conceal on a good network.
const CONCEALED_ANYWAY: f64 = 0.01;

const MS: Duration = Duration::from_millis(1);

/// What a scenario allows.
struct Limits {
    /// Share of the time in which the picture stands.
    frozen: f64,
    /// Retransmissions for each lost packet.
    effort: f64,
    /// Whether packets are lost, so that repairs and concealment are held to what was lost.
    lossy: bool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_with_5_percent_loss_hardly_freezes() {
    let settings = Settings {
        delay: 25 * MS,
        loss: 0.05,
        ..Settings::default()
    };
    endure(
        "loss5",
        settings,
        Limits {
            frozen: 0.02,
            effort: 1.3,
            lossy: true,
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_with_10_percent_loss_freezes_little() {
    let settings = Settings {
        delay: 25 * MS,
        loss: 0.10,
        ..Settings::default()
    };
    endure(
        "loss10",
        settings,
        Limits {
            frozen: 0.06,
            effort: 1.3,
            lossy: true,
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_goes_on_while_a_fifth_is_lost_in_bursts() {
    let settings = Settings {
        delay: 25 * MS,
        bursts: Some(Bursts::new(0.2, 4.0)),
        ..Settings::default()
    };
    endure(
        "burst20",
        settings,
        Limits {
            frozen: 0.15,
            // A fifth of the retransmissions is lost as well: one by one they make 1.25, and one call is a small sample of that.
            effort: 1.4,
            lossy: true,
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jitter_of_30_ms_around_100_ms_freezes_nothing() {
    let settings = Settings {
        delay: 100 * MS,
        jitter: Jitter::InOrder(30 * MS),
        ..Settings::default()
    };
    endure(
        "jitter",
        settings,
        Limits {
            frozen: 0.02,
            effort: 1.3,
            lossy: false,
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_out_of_order_are_put_in_order() {
    let settings = Settings {
        delay: 25 * MS,
        late: 0.02,
        late_by: 20 * MS,
        ..Settings::default()
    };
    endure(
        "reorder2",
        settings,
        Limits {
            frozen: 0.02,
            effort: 1.3,
            lossy: false,
        },
    )
    .await;
}

/// Two in a call; the link of the second does what `settings` say, in both directions.
async fn endure(name: &str, settings: Settings, limits: Limits) {
    let _turn = alone().await;
    let network = Network::new();
    let server = Server::start(&["--public-ip", "10.77.0.1"]).await;
    let (near, far) = (network.client(1), network.client(2));
    let (anna, ben) = tokio::join!(
        Person::afar(
            &server,
            &near,
            "room_id=bad&name=Anna",
            Camera::small(RED).noisy(),
            LOW_VOICE
        ),
        Person::afar(
            &server,
            &far,
            "room_id=bad&name=Ben",
            Camera::small(GREEN).noisy(),
            HIGH_VOICE
        ),
    );
    anna.join().await;
    ben.join().await;
    tokio::join!(
        anna.sees_and_hears(1, CONNECTING),
        ben.sees_and_hears(1, CONNECTING)
    );
    far.link.set_both(settings);
    tokio::time::sleep(SETTLING).await;
    let before = (View::of(&anna).await, View::of(&ben).await);
    far.link.begin();
    tokio::time::sleep(WATCHED).await;
    let (up, down) = (far.link.measured(Way::Up), far.link.measured(Way::Down));
    let end = Instant::now();
    let after = (View::of(&anna).await, View::of(&ben).await);

    let (_, metrics) = server.get("/metrics").await;
    let is_bandwidth =
        |line: &&str| line.starts_with("talksy_pauses") || line.starts_with("talksy_estimate");
    for line in metrics.lines().filter(is_bandwidth) {
        println!("{name}: {line}");
    }
    let counts = ["network_condition", "bitrate_adjusted"];
    for (who, person) in [("Anna", &anna), ("Ben", &ben)] {
        let told = person.browser.counted().await["messages"].clone();
        println!(
            "{name}: {who} was told {:?}",
            counts.map(|kind| told[kind].as_u64())
        );
    }
    // What Ben sends is received by the server, which repairs it; Anna's own link is good.
    Outcome::new(&before.0, &after.0, &after.1.sent, &up, end)
        .judge(&format!("{name}_up"), &limits);
    // What Ben receives is repaired by the server's retransmissions.
    let received = after.1.received();
    Outcome::new(&before.1, &after.1, &received, &down, end)
        .judge(&format!("{name}_down"), &limits);
    anna.browser.close().await;
    ben.browser.close().await;
}

/// The SSRCs of one camera and one microphone on one link.
struct Streams {
    audio: u32,
    /// Each layer with its retransmissions.
    video: Vec<(u32, u32)>,
}

/// What one person's browser says of its call.
struct View {
    at: Instant,
    audio: Value,
    video: Value,
    sent: Streams,
    /// How long something has waited for a processor since the machine started.
    waited: Duration,
}

impl View {
    async fn of(person: &Person) -> Self {
        let stats = person.browser.stats().await;
        let at = Instant::now();
        let inbound = person.inbound().await;
        let one = |kind| of_kind(&inbound, kind).next().unwrap().clone();
        let outbound = stats[0]["outbound"].as_array().unwrap();
        View {
            at,
            audio: one("audio"),
            video: one("video"),
            sent: Streams::of(outbound),
            waited: waited(),
        }
    }

    fn received(&self) -> Streams {
        Streams::of(&[self.audio.clone(), self.video.clone()])
    }
}

impl Streams {
    fn of(tracks: &[Value]) -> Self {
        let number = |track: &Value, name| track[name].as_u64().unwrap_or_default() as u32;
        let layers = of_kind(tracks, "video");
        Streams {
            audio: number(of_kind(tracks, "audio").next().unwrap(), "ssrc"),
            video: layers
                .map(|layer| (number(layer, "ssrc"), number(layer, "rtx")))
                .collect(),
        }
    }
}

/// Time in which some process could have run and had no processor, since the machine's start (the kernel's PSI). Zero where
/// the kernel does not tell: then there is no allowance for a busy machine.
pub fn waited() -> Duration {
    let text = std::fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let some = text.lines().find_map(|line| line.strip_prefix("some "));
    let total = some.and_then(|line| line.split("total=").nth(1)?.trim().parse().ok());
    Duration::from_micros(total.unwrap_or_default())
}

/// What one receiver got of what went over the bad link.
#[derive(Debug)]
struct Outcome {
    frozen: f64,
    freezes: f64,
    samples: f64,
    seconds: f64,
    frames: f64,
    concealed: f64,
    audio: (u64, u64),
    repairs: Repairs,
    keyframes: f64,
    /// Requests for keyframes.
    requests: f64,
    /// Share of the time in which something waited for a processor.
    pressure: f64,
}

impl Outcome {
    fn new(before: &View, after: &View, streams: &Streams, link: &Measured, end: Instant) -> Self {
        let grown = |track: fn(&View) -> &Value, name: &str| {
            track(after)[name].as_f64().unwrap() - track(before)[name].as_f64().unwrap()
        };
        let seconds = (after.at - before.at).as_secs_f64();
        Outcome {
            frozen: grown(|v| &v.video, "frozen") / seconds,
            freezes: grown(|v| &v.video, "freezes"),
            samples: grown(|v| &v.audio, "samples"),
            seconds,
            frames: grown(|v| &v.video, "frames"),
            concealed: grown(|v| &v.audio, "concealed"),
            audio: losses(&link.seen, streams.audio),
            repairs: streams.video.iter().fold(Repairs::default(), |sum, layer| {
                sum.plus(Repairs::follow(&link.seen, layer.0, layer.1, end))
            }),
            keyframes: grown(|v| &v.video, "keyframes"),
            requests: grown(|v| &v.video, "plis"),
            pressure: (after.waited - before.waited).as_secs_f64() / seconds,
        }
    }

    fn judge(&self, name: &str, limits: &Limits) {
        let Outcome { repairs, .. } = self;
        let lost_samples = self.audio.1 as f64 * PACKET_SAMPLES;
        let concealment = self.concealed / lost_samples.max(PACKET_SAMPLES);
        println!("figure {name}_frozen_percent {:.2} %", 100.0 * self.frozen);
        println!(
            "figure {name}_frames_per_second {:.1} 1/s",
            self.frames / self.seconds
        );
        println!("figure {name}_audio_samples {:.0} samples", self.samples);
        println!(
            "figure {name}_audio_concealed {:.0} samples",
            self.concealed
        );
        println!("figure {name}_audio_concealed_per_lost {concealment:.2}");
        println!(
            "figure {name}_video_lost {} of {} packets",
            repairs.lost, repairs.packets
        );
        println!(
            "figure {name}_rtx_answered_percent {:.1} %",
            100.0 * repairs.answered()
        );
        println!("figure {name}_rtx_per_lost {:.2}", repairs.effort());
        println!(
            "figure {name}_repair_median_ms {} ms",
            repairs.time(0.5).as_millis()
        );
        println!(
            "figure {name}_repair_p99_ms {} ms",
            repairs.time(0.99).as_millis()
        );
        println!("figure {name}_freezes {}", self.freezes);
        println!("figure {name}_rtx_needless {} packets", repairs.needless);

        assert!(
            self.frames > 5.0 * self.seconds,
            "{name}: the picture lives"
        );
        assert!(
            self.samples > 0.9 * 48_000.0 * self.seconds,
            "{name}: {} samples in {} s",
            self.samples,
            self.seconds
        );
        println!(
            "figure {name}_keyframes {:.0}, asked for {:.0} times",
            self.keyframes, self.requests
        );
        println!(
            "figure {name}_cpu_pressure_percent {:.0} %",
            100.0 * self.pressure
        );
        let busy = BUSY * self.pressure;
        assert!(
            self.frozen < limits.frozen + busy,
            "{name}: {:.3} of the time",
            self.frozen
        );
        let anyway = (CONCEALED_ANYWAY + busy) * self.samples;
        if limits.lossy {
            assert!(
                repairs.lost > 20 && self.audio.1 > 20,
                "{name}: packets were lost"
            );
            assert!(repairs.answered() >= 0.95, "{name}: {repairs:?}");
            assert!(repairs.effort() <= limits.effort, "{name}: {repairs:?}");
            assert!(
                self.concealed < 1.5 * lost_samples + anyway,
                "{name}: {} concealed, {lost_samples} lost",
                self.concealed
            );
        } else {
            assert!(
                self.concealed < 2.0 * anyway,
                "{name}: {} concealed",
                self.concealed
            );
        }
    }
}
