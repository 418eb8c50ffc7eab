//! A call on bad networks: sockets that are cut, addresses that change, cables that are pulled, and a fifth of all datagrams
//! lost. A browser is behind a proxy that does it; a participant on loopback watches what comes of the browser.

#[path = "support/mod.rs"]
mod support;

use serde_json::{Value, json};
use std::time::{Duration, Instant};
use support::browser::{Browser, Devices};
use support::call::{Watch, publisher};
use support::eventually;
use support::media::{Camera, RED};
use support::person::Person;
use support::proxy::Proxy;
use support::server::Server;
use talksy_unit::demo::{Participant, Sound};
use talksy_unit::rtp::params::MediaKind;
use tokio::sync::{Mutex, MutexGuard};

/// What two busy cores may add to a promised time.
const SLACK: Duration = Duration::from_secs(1);
const VOICE: Sound = Sound::Voice { pitch_hz: 125.0 };
const CONNECTING: Duration = Duration::from_secs(20);

static STAGE: Mutex<()> = Mutex::const_new(());

/// Held by the test that runs: each has a browser.
async fn alone() -> MutexGuard<'static, ()> {
    STAGE.lock().await
}

/// Anna's browser behind the proxy, and Ben, who watches what he receives of her.
struct Scene {
    server: Server,
    proxy: Proxy,
    anna: Person,
    ben: Participant,
    watch: Watch,
}

impl Scene {
    async fn set() -> Self {
        Self::set_with("").await
    }

    /// `query` is added to the address of Anna's page.
    async fn set_with(query: &str) -> Self {
        let server = Server::start(&[]).await;
        let proxy = Proxy::start(server.port).await;
        let page = proxy.page(&format!("room_id=bad&name=Anna{query}"));
        let (watch, packets) = Watch::new();
        let config = talksy_unit::demo::ParticipantConfig {
            packets: Some(packets),
            ..publisher(&server.socket(), "bad", "Ben")
        };
        let mut ben = Participant::join(config).await.unwrap();
        let anna = Person::open_at(&page, Camera::small(RED), VOICE).await;
        anna.join().await;
        anna.sees_and_hears(1, CONNECTING).await;
        ben.wait_until(CONNECTING, |seen| {
            [MediaKind::Audio, MediaKind::Video]
                .iter()
                .all(|kind| seen.tracks_of(*kind).any(|track| track.packets > 50))
        })
        .await
        .unwrap();
        let remember = "window.before = { id: talksy.clientId, pc: talksy.pc, remoteOffers: __bench.remoteOffers, \
                        localOffers: __bench.localOffers };";
        anna.browser.eval(remember, vec![]).await;
        watch.begin();
        Scene {
            server,
            proxy,
            anna,
            ben,
            watch,
        }
    }

    /// The same id and the same connection as at the beginning.
    async fn is_the_same_session(&self) {
        let same =
            "before.id === talksy.clientId && before.pc === talksy.pc && __bench.pcs.length === 1";
        assert_eq!(self.anna.value(same).await, true);
    }

    /// How long Ben has missed something of Anna at a stretch since the watch began; waits until she is there again.
    async fn pause_of_anna(&mut self, within: Duration) -> Duration {
        let before = self.watch.packets();
        eventually("Anna's media", within, async || {
            let came = self.watch.packets() - before;
            if came > 30 { Ok(()) } else { Err(came) }
        })
        .await;
        self.watch.longest()
    }

    /// How long Anna waits until she sees and hears further things of Ben.
    async fn until_anna_receives(&self, within: Duration) -> Duration {
        let start = Instant::now();
        let before = packets(&self.anna).await;
        eventually("Ben's media", within, async || {
            let now = packets(&self.anna).await;
            let grew = now
                .iter()
                .zip(&before)
                .all(|(now, before)| now > &(before + 10));
            if grew { Ok(()) } else { Err(now) }
        })
        .await;
        start.elapsed()
    }

    async fn end(self) {
        self.is_the_same_session().await;
        self.anna.close_in_good_order().await;
        drop(self.server);
    }
}

/// Packets of each track that has arrived.
async fn packets(person: &Person) -> Vec<u64> {
    let inbound = person.inbound().await;
    inbound
        .iter()
        .filter_map(|track| track["packets"].as_u64())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_socket_is_resumed_and_nothing_is_renegotiated() {
    let _turn = alone().await;
    let mut scene = Scene::set().await;
    let before = scene.ben.observed();
    for round in 1..=3 {
        let start = Instant::now();
        scene.proxy.cut();
        let resumed = format!(
            "__bench.messages.welcome === {} && talksy.socket.readyState === 1",
            round + 1
        );
        scene.anna.wait(&resumed).await;
        let took = start.elapsed();
        println!("figure resume_ms {} ms", took.as_millis());
        assert!(took < Duration::from_secs(3), "{took:?}");
        assert_eq!(scene.anna.value("__bench.last.welcome.resumed").await, true);
    }
    scene.anna.sees_move(20).await;
    scene.until_anna_receives(Duration::from_secs(5)).await;
    let pause = scene.pause_of_anna(Duration::from_secs(5)).await;
    assert!(
        pause < Duration::from_secs(1),
        "Ben missed Anna for {pause:?}"
    );
    let offers = "__bench.remoteOffers === before.remoteOffers && __bench.localOffers === before.localOffers";
    assert_eq!(scene.anna.value(offers).await, true);
    let after = scene.ben.observed();
    assert_eq!(
        after.server_offers, before.server_offers,
        "nothing changed for Ben"
    );
    assert_eq!(peers(&after), 2);
    assert_eq!(delivered(&after), 2);

    // Whoever comes while there is no socket is there after it.
    scene.proxy.cut();
    let carla = Participant::join(publisher(&scene.server.socket(), "bad", "Carla"))
        .await
        .unwrap();
    scene.anna.wait("talksy.remotes.length === 2").await;
    carla.leave().await.unwrap();
    scene.anna.wait("talksy.remotes.length === 1").await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_mixed_sound_outlives_a_cut_socket() {
    let _turn = alone().await;
    let scene = Scene::set_with("&audio=mixed").await;
    let mixed = "talksy.audio === 'mixed' && talksy.mixed?.getAudioTracks().length === 1";
    scene.anna.wait(mixed).await;
    scene.proxy.cut();
    scene
        .anna
        .wait("__bench.last.welcome.resumed && talksy.socket.readyState === 1")
        .await;
    assert_eq!(
        scene.anna.value("__bench.last.welcome.audio").await,
        "mixed"
    );
    scene.until_anna_receives(Duration::from_secs(5)).await;
    assert_eq!(scene.anna.value(mixed).await, true);
    let inbound = scene.anna.inbound().await;
    let sounds = inbound.iter().filter(|track| track["kind"] == "audio");
    assert_eq!(sounds.count(), 1, "{inbound:?}");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_only_lost_its_socket_stays_while_its_media_flows() {
    let _turn = alone().await;
    let scene = Scene::set().await;
    let rosters = scene.ben.observed().count("room_peers");
    scene.proxy.stall_signalling();
    // The server holds the socket for dead after 12 s, and a client that it does not hear for gone after 10.
    let dead = async || match scene.server.refused("dead").await {
        0 => Err("not yet"),
        _ => Ok(()),
    };
    eventually("a dead socket", Duration::from_secs(20), dead).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(peers(&scene.ben.observed()), 2);
    assert_eq!(delivered(&scene.ben.observed()), 2);
    let longest = scene.watch.longest();
    assert!(
        longest < Duration::from_secs(1),
        "Ben missed Anna for {longest:?}"
    );
    println!(
        "rosters meanwhile: {}",
        scene.ben.observed().count("room_peers") - rosters
    );
    scene.proxy.plug_in();
    let back = Instant::now();
    scene
        .anna
        .wait("__bench.last.welcome.resumed && talksy.socket.readyState === 1")
        .await;
    println!(
        "figure resume_after_stall_ms {} ms",
        back.elapsed().as_millis()
    );
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_follows_a_client_whose_port_changes() {
    let _turn = alone().await;
    let mut scene = Scene::set().await;
    for _ in 0..3 {
        scene.watch.begin();
        scene.proxy.rebind();
        let down = scene.until_anna_receives(Duration::from_secs(10)).await;
        let up = scene.pause_of_anna(Duration::from_secs(10)).await;
        println!("figure rebind_up_ms {} ms", up.as_millis());
        println!("figure rebind_down_ms {} ms", down.as_millis());
        assert!(up < Duration::from_secs(2), "Ben missed Anna for {up:?}");
        assert!(
            down < Duration::from_secs(2) + SLACK,
            "Anna missed Ben for {down:?}"
        );
    }
    let offers = "__bench.remoteOffers === before.remoteOffers && __bench.localOffers === before.localOffers";
    assert_eq!(
        scene.anna.value(offers).await,
        true,
        "nothing is renegotiated"
    );
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_is_back_after_the_browser_restarts_ice_on_another_network() {
    let _turn = alone().await;
    let mut scene = Scene::set().await;
    for _ in 0..2 {
        scene.watch.begin();
        scene.proxy.move_network();
        scene.proxy.cut();
        // As the browser does when Wi-Fi is lost and the other network takes over.
        scene
            .anna
            .browser
            .eval("window.dispatchEvent(new Event('online'));", vec![])
            .await;
        let down = scene.until_anna_receives(Duration::from_secs(15)).await;
        let up = scene.pause_of_anna(Duration::from_secs(15)).await;
        println!("figure other_network_up_ms {} ms", up.as_millis());
        println!("figure other_network_down_ms {} ms", down.as_millis());
        assert!(
            up < Duration::from_secs(2) + SLACK,
            "Ben missed Anna for {up:?}"
        );
        assert!(
            down < Duration::from_secs(2) + SLACK,
            "Anna missed Ben for {down:?}"
        );
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_restarts_ice_when_a_path_is_silent_and_its_client_does_not() {
    let _turn = alone().await;
    let mut scene = Scene::set().await;
    scene
        .anna
        .browser
        .eval("talksy.pc.restartIce = () => {};", vec![])
        .await;
    scene.watch.begin();
    scene.proxy.move_network();
    let up = scene.pause_of_anna(Duration::from_secs(20)).await;
    println!("figure server_restart_ms {} ms", up.as_millis());
    assert!(up < Duration::from_secs(10), "{up:?}");
    scene.until_anna_receives(Duration::from_secs(5)).await;
    let offers = "__bench.remoteOffers === before.remoteOffers + 1 && __bench.localOffers === before.localOffers";
    assert_eq!(
        scene.anna.value(offers).await,
        true,
        "one offer of the server, nothing else"
    );
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_disappears_is_noticed_and_is_there_again_when_the_cable_is_back() {
    let _turn = alone().await;
    let mut scene = Scene::set().await;
    let pulled = Instant::now();
    scene.proxy.pull_the_cable();
    gone(&mut scene.ben, pulled, "cable").await;
    // Well before the 30 s for which the server keeps Anna's place.
    scene.proxy.plug_in();
    let back = scene.ben.wait_until(Duration::from_secs(15), |seen| {
        peers(seen) == 2 && delivered(seen) == 2
    });
    back.await.unwrap();
    scene.pause_of_anna(Duration::from_secs(5)).await;
    scene.until_anna_receives(Duration::from_secs(10)).await;
    scene.is_the_same_session().await;

    let killed = Instant::now();
    support::process::end_marked(&scene.anna.browser.mark());
    gone(&mut scene.ben, killed, "killed").await;
}

fn peers(seen: &talksy_unit::demo::Observed) -> usize {
    let roster = seen
        .last("room_peers")
        .and_then(|data| data["peers"].as_array());
    roster.map_or(0, Vec::len)
}

/// Tracks that the server sends, as it says itself.
fn delivered(seen: &talksy_unit::demo::Observed) -> usize {
    let figures = seen.last("track_stats");
    let sent = figures.and_then(|data| data["sent_track_stats"].as_array());
    sent.map_or(0, Vec::len)
}

/// Ben is told within 15 s: he is alone in the room, and Anna's tracks have ended.
async fn gone(ben: &mut Participant, since: Instant, how: &str) {
    let told = ben.wait_until(Duration::from_secs(20), |seen| {
        peers(seen) == 1 && delivered(seen) == 0
    });
    told.await.unwrap();
    let took = since.elapsed();
    println!("figure {how}_noticed_ms {} ms", took.as_millis());
    assert!(took < Duration::from_secs(15), "{took:?}");
}

/// Arguments: a socket's address, and the callback. Gives the milliseconds from the opening of the socket to the connection.
const CONNECT: &str = r#"
const [url, done] = arguments;
(async () => {
  const start = performance.now(), socket = new WebSocket(url), pc = new RTCPeerConnection();
  const say = (type, data) => socket.send(JSON.stringify({ type, data }));
  const connected = new Promise((yes, no) => {
    pc.onconnectionstatechange = () => {
      if (pc.connectionState === 'connected') yes(performance.now() - start);
      if (pc.connectionState === 'failed') no(new Error('failed'));
    };
    setTimeout(() => no(new Error('not within 20 s: ' + pc.iceConnectionState)), 20000);
  });
  pc.addTransceiver('audio', { direction: 'sendrecv' });
  pc.onicecandidate = ({ candidate }) => say('candidate', candidate ? candidate.toJSON() : { candidate: '' });
  socket.onmessage = async ({ data }) => {
    const message = JSON.parse(data);
    if (message.type === 'welcome') {
      await pc.setLocalDescription();
      say('offer', pc.localDescription.sdp);
    }
    if (message.type === 'answer') await pc.setRemoteDescription(message.data);
    if (message.type === 'candidate') pc.addIceCandidate(message.data).catch(() => {});
  };
  const took = await connected.finally(() => { });
  say('leave');
  pc.close();
  return took;
})().then(done, e => done({ error: String(e) }));
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_of_thirty_clients_connect_although_a_fifth_of_all_datagrams_is_lost() {
    let _turn = alone().await;
    let server = Server::start(&[]).await;
    let proxy = Proxy::start(server.port).await;
    let devices = Devices {
        camera: None,
        microphone: None,
    };
    let browser = Browser::start(&devices).await;
    browser.goto(&proxy.page("")).await;
    proxy.set_loss(0.2);
    let mut times: Vec<u64> = Vec::new();
    for _ in 0..30 {
        let socket = json!(format!("{}?room_id=lossy", proxy.socket()));
        let took: Value = browser.eval_async(CONNECT, vec![socket]).await;
        times.push(took.as_f64().unwrap() as u64);
    }
    let (lost, all) = proxy.losses();
    times.sort_unstable();
    println!("lost {lost} of {all} datagrams; connected after {times:?} ms");
    println!(
        "figure lossy_connect_median_ms {} ms",
        times[times.len() / 2]
    );
    println!(
        "figure lossy_connect_longest_ms {} ms",
        times[times.len() - 1]
    );
    assert!(lost * 100 > all * 15, "the network was too good");
    assert!(
        times.iter().all(|ms| *ms < 3000 + SLACK.as_millis() as u64),
        "{times:?}"
    );
    browser.close().await;
}
