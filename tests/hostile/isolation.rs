//! One room's load is not another room's delay: a call of light peers on the only worker, each of its packets timed, while
//! another room floods the worker with valid media, while one needs more than the worker has, and while one keeps the codec
//! threads from ever resting.

use futures_util::future::join_all;
use std::sync::atomic::Ordering;
use std::time::Duration;
use talksy_unit::demo::{Mode, Participant, ParticipantConfig, Picture, PictureLoop};

use crate::DEADLINE;
use crate::light::{Amount, Flooder, Light, Lights, Listeners, Talker, begin_voice, percentile};
use crate::support::call::CONNECTING;
use crate::support::eventually;
use crate::support::server::Server;
use crate::support::wire::Wire;

const LISTENERS: usize = 3;
/// How long the other room is at it.
const ATTACK: Duration = Duration::from_secs(5);
/// Of a packet's way through the server, the 99th percentile: alone it is below a millisecond; a batch of the flood, one
/// pass of the loop with its fanout, and a codec thread's slice of the processor may stand before it (4 ms seen).
const P99: Duration = Duration::from_millis(20);

/// The call that must not notice.
struct Timed {
    talker: Talker,
    listeners: Listeners,
    /// The talker's socket: who closes it leaves.
    _wire: Wire,
}

impl Timed {
    async fn start(lights: &mut Lights<'_>) -> Self {
        let Light {
            wire, connection, ..
        } = lights.publisher("timed").await;
        let talker = Talker::start(connection);
        let mut peers = Vec::new();
        for _ in 0..LISTENERS {
            peers.push(lights.subscriber("timed", 2).await);
        }
        let listeners = Listeners::start(peers);
        Timed {
            talker,
            listeners,
            _wire: wire,
        }
    }

    /// The 99th percentile of the delay of sound and picture, the longer one, during `what`, which takes so long.
    async fn during(&self, what: &str, time: Duration) -> Duration {
        self.listeners.take();
        tokio::time::sleep(time).await;
        let mut worst = Duration::ZERO;
        for (kind, mut delays) in ["sound", "picture"].into_iter().zip(self.listeners.take()) {
            let [median, p99, longest] = [50, 99, 100].map(|p| percentile(&mut delays, p));
            let figures = [("p50", median), ("p99", p99), ("longest", longest)];
            for (name, delay) in figures {
                let delay = delay.as_micros();
                println!("figure isolation_{what}_{kind}_{name}_us {delay}");
            }
            worst = worst.max(p99);
        }
        worst
    }

    /// Everything came, once and in order, to everybody.
    async fn ends_whole(self) {
        let sent = self.talker.stop();
        // What is under way: the longest that the pacer may keep.
        tokio::time::sleep(Duration::from_millis(500)).await;
        for (n, numbers) in self.listeners.stop().into_iter().enumerate() {
            for (kind, numbers) in ["sound", "picture"].into_iter().zip(numbers) {
                let first = *numbers.first().expect("something came");
                let sent = sent[usize::from(kind == "picture")];
                let whole: Vec<u64> = (first..sent).collect();
                assert!(
                    numbers == whole,
                    "listener {n} got {} of {} packets of {kind}",
                    numbers.len(),
                    whole.len()
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_floods_valid_media_delays_no_packet_of_another_room() {
    const FANOUT: usize = 20;
    let server = Server::start(&["--workers", "1"]).await;
    let mut lights = Lights::new(&server);
    let timed = Timed::start(&mut lights).await;
    let mut flooder = lights.publisher("flooded").await;
    let seq = begin_voice(&mut flooder.connection);
    let mut fanout = Vec::new();
    for _ in 0..FANOUT {
        fanout.push(lights.subscriber("flooded", 1).await);
    }
    let alone = timed.during("alone", Duration::from_secs(2)).await;
    assert!(alone < P99, "{alone:?} with nothing else to do");

    let flood = Flooder::start(
        flooder.connection,
        seq,
        server.media_addresses()[0],
        Amount::FLOOD,
    );
    let sent = flood.sent.clone();
    let flooded = timed.during("flooded", ATTACK).await;
    flood.stop();
    let names = ["flood_media", "flood_reports", "flood_transport"];
    let sent = [&sent.media, &sent.reports, &sent.checks].map(|n| n.load(Ordering::Relaxed));
    let counts = join_all(names.map(|name| server.dropped("session", name))).await;
    let share = server.dropped("worker", "room_share").await;
    println!("flood: {sent:?} sent, {counts:?} dropped as {names:?}, {share} by the room's share");
    assert!(sent[0] > 50_000, "{sent:?} is no flood");
    // 4000 packets a second pass, and 1000 at once; likewise reports and checks.
    for (n, least) in [(0, 75_u64), (1, 60), (2, 60)] {
        assert!(counts[n] > sent[n] * least / 100, "{}", names[n]);
    }
    assert!(flooded < P99, "{flooded:?} beside the flood");
    timed.ends_whole().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_that_needs_more_than_its_worker_takes_nothing_of_another_room() {
    // Each sends what a member may, to each of the others: 1.7 million packets a second, about twice what a worker carries.
    const FLOODERS: usize = 6;
    const FANOUT: usize = 80;
    let server = Server::start(&["--workers", "1"]).await;
    let mut lights = Lights::new(&server);
    let timed = Timed::start(&mut lights).await;
    let mut flooders = Vec::new();
    for _ in 0..FLOODERS {
        let mut flooder = lights.publisher("large").await;
        let seq = begin_voice(&mut flooder.connection);
        flooders.push((flooder, seq));
    }
    let mut fanout = Vec::new();
    for _ in 0..FANOUT {
        fanout.push(lights.subscriber("large", FLOODERS).await);
    }
    let to = server.media_addresses()[0];
    let start = |(flooder, seq): (Light, u16)| {
        let flood = Flooder::start(flooder.connection, seq, to, Amount::ALLOWED);
        (flood, flooder.wire)
    };
    let floods: Vec<_> = flooders.into_iter().map(start).collect();
    // Three tenths of a second without a rest are an overload; what has queued until then goes out first.
    let dropped = async || server.dropped("worker", "room_share").await;
    eventually(
        "an overload is noticed",
        DEADLINE,
        async || match dropped().await {
            0 => Err(()),
            _ => Ok(()),
        },
    )
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = dropped().await;
    let beside = timed.during("overloaded", ATTACK).await;
    let more = dropped().await - before;
    floods.into_iter().for_each(|(flood, _)| flood.stop());
    println!("figure isolation_dropped_by_share {more}");
    assert!(more > 1000, "{more}: the worker was not overloaded");
    assert!(
        beside < P99,
        "{beside:?} beside a room that needs everything"
    );
    timed.ends_whole().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codec_threads_without_a_rest_delay_no_packet_of_another_room() {
    const SOURCES: usize = 4;
    let rungs = "1920x1080@60:6000,1280x720@60:3000";
    let server = Server::start(&["--workers", "1", "--mix-rungs", rungs]).await;
    let timed = Timed::start(&mut Lights::new(&server)).await;
    let picture = Picture {
        width: 1280,
        height: 720,
        ..Picture::numbered(1)
    };
    let camera = std::sync::Arc::new(PictureLoop::encode(&picture).unwrap());
    let config = |name: &str| ParticipantConfig::viewer(&server.socket(), "mixed", name);
    let mut people = Vec::new();
    for n in 0..SOURCES {
        let source = ParticipantConfig {
            video: Some(camera.clone()),
            subscribe: false,
            ..config(&format!("source {n}"))
        };
        people.push(Participant::join(source).await.unwrap());
    }
    for shape in ["landscape", "portrait"] {
        let viewer = ParticipantConfig {
            mode: Mode::Mcu,
            query: vec![("canvas".into(), shape.into())],
            ..config(shape)
        };
        let mut viewer = Participant::join(viewer).await.unwrap();
        let sees = |seen: &talksy_unit::demo::Observed| seen.tracks.iter().any(|t| t.packets > 100);
        viewer.wait_until(CONNECTING, sees).await.unwrap();
        people.push(viewer);
    }
    // Pictures are late: the threads do not keep up.
    let late = async || server.metric("talksy_late_pictures_total").await;
    let overloaded = async || match late().await {
        late if late > 20 => Ok(()),
        late => Err(late),
    };
    eventually("codec threads without a rest", DEADLINE, overloaded).await;
    let before = late().await;
    let busy = timed.during("mixed", ATTACK).await;
    let more = late().await - before;
    println!("figure isolation_late_pictures {more}");
    assert!(more > 10, "{more} late pictures: the load was none");
    assert!(busy < P99, "{busy:?} beside the codecs");
    timed.ends_whole().await;
}
