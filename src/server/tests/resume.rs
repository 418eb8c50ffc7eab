//! Sockets that break, and clients that come back.

use super::*;
use crate::ids::TrackKey;
use crate::rtp::params::{Codec, MediaKind};
use crate::worker::PublishedTrack;

/// What a client has to know to come back.
struct Stay {
    token: String,
    seen: u64,
}

impl Bench {
    /// Joins with a room's path; the third is the stay.
    async fn stay(&mut self, path: &str) -> (Client, PeerId, Stay) {
        let mut client = self.connect(path).await;
        client.expect("clientid").await;
        let welcome = client.expect("welcome").await;
        assert_eq!(welcome["resumed"], false);
        assert_eq!(
            (&welcome["sent"], &welcome["received"]),
            (&json!(0), &json!(0))
        );
        let token = welcome["resume_token"]
            .as_str()
            .expect("a token")
            .to_owned();
        (
            client,
            self.worker.expect_peer().await,
            Stay { token, seen: 0 },
        )
    }

    /// A new socket of the stay: takes the two first messages.
    async fn resume(&self, stay: &Stay) -> (Client, Value, Value) {
        let path = format!("/ws?resume={}&seen={}", stay.token, stay.seen);
        let mut client = self.connect(&path).await;
        let id = client.expect("clientid").await;
        let welcome = client.expect("welcome").await;
        (client, id, welcome)
    }

    async fn chat_of(&self, peer: PeerId, text: &str) {
        let message = text.to_owned();
        self.worker.send(Event::Failed { peer, message }).await;
    }
}

impl Client {
    /// The next message of this type, whatever else comes; counts those that have numbers.
    async fn await_kind(&mut self, kind: &str, stay: &mut Stay) -> Value {
        loop {
            let mut message = self.message().await;
            stay.seen += u64::from(message["type"] != "track_stats");
            if message["type"] == kind {
                return message["data"].take();
            }
        }
    }
}

/// Nothing that the client asked for has come to the worker.
fn nothing_but_speech(bench: &mut Bench) {
    for command in bench.worker.drain() {
        assert!(
            !matches!(
                command,
                Command::RemovePeer { .. } | Command::AddPeer { .. }
            ),
            "{command:?}"
        );
    }
}

#[tokio::test]
async fn a_broken_socket_is_resumed_with_the_same_id_and_nothing_is_lost_or_said_twice() {
    let mut bench = Bench::new(|_| ()).await;
    let (mut client, peer, mut stay) = bench.stay("/ws?name=Ann").await;
    client
        .send(json!({"type": "chat", "data": {"text": "one"}}))
        .await;
    client.await_kind("chat", &mut stay).await;
    drop(client);
    bench.chat_of(peer, "while nobody listened").await;
    let sdp = "v=0 offer".to_owned();
    bench.worker.send(Event::Offer { peer, sdp }).await;

    let (mut client, id, welcome) = bench.resume(&stay).await;
    assert_eq!(id, json!(peer.to_string()));
    assert_eq!(welcome["client_id"], id);
    assert_eq!(
        (&welcome["resumed"], &welcome["name"]),
        (&json!(true), &json!("Ann"))
    );
    assert_eq!(welcome["received"], 1);
    assert_eq!(welcome["sent"], stay.seen);
    assert_ne!(welcome["resume_token"], json!(stay.token));
    assert_eq!(client.expect("error").await, "while nobody listened");
    assert_eq!(client.expect("offer").await["sdp"], "v=0 offer");
    client
        .send(json!({"type": "chat", "data": {"text": "two"}}))
        .await;
    assert_eq!(client.expect("chat").await["text"], "two");
    nothing_but_speech(&mut bench);
}

#[tokio::test]
async fn a_client_comes_back_while_its_old_socket_seems_open_and_the_old_one_ends() {
    let mut bench = Bench::new(|_| ()).await;
    let (mut old, peer, stay) = bench.stay("/ws").await;
    let (mut client, id, welcome) = bench.resume(&stay).await;
    assert_eq!(
        (id, &welcome["resumed"]),
        (json!(peer.to_string()), &json!(true))
    );
    assert_eq!(old.closed().await, None);
    client.send(json!({"type": "is_allow_renegotiation"})).await;
    let asked = |c: &Command| {
        matches!(c, Command::AskRenegotiation { peer: p } if *p == peer).then_some(())
    };
    bench.worker.expect("AskRenegotiation", asked).await;
}

#[tokio::test]
async fn a_token_works_once_and_an_unknown_one_begins_a_new_stay() {
    let mut bench = Bench::new(|_| ()).await;
    let (client, peer, stay) = bench.stay("/ws").await;
    drop(client);
    let (mut client, _, welcome) = bench.resume(&stay).await;
    // Said by the client: with that the token is used up.
    client
        .send(json!({"type": "chat", "data": {"text": "here"}}))
        .await;
    client.expect("chat").await;
    for token in [stay.token.as_str(), "unknown"] {
        let token = token.to_owned();
        let (_stranger, id, welcome) = bench.resume(&Stay { token, seen: 0 }).await;
        assert_eq!(welcome["resumed"], false);
        assert_eq!(id, json!(bench.worker.expect_peer().await.to_string()));
        assert_ne!(id, json!(peer.to_string()));
    }
    let token = welcome["resume_token"]
        .as_str()
        .expect("a token")
        .to_owned();
    let elsewhere = format!("/ws?room_id=other&resume={token}");
    let mut stranger = bench.connect(&elsewhere).await;
    stranger.expect("clientid").await;
    assert_eq!(stranger.expect("welcome").await["resumed"], false);
}

#[tokio::test]
async fn a_welcome_that_was_lost_with_its_socket_costs_nothing() {
    let mut bench = Bench::new(|_| ()).await;
    let (client, peer, stay) = bench.stay("/ws").await;
    drop(client);
    for _ in 0..3 {
        // Not one frame of the client comes over these.
        let path = format!("/ws?resume={}&seen=0", stay.token);
        let lost = bench.connect(&path).await;
        drop(lost);
    }
    let (_client, id, welcome) = bench.resume(&stay).await;
    assert_eq!(
        (id, &welcome["resumed"]),
        (json!(peer.to_string()), &json!(true))
    );
}

#[tokio::test]
async fn a_client_that_does_not_come_back_leaves_and_its_token_with_it() {
    let resume = Duration::from_millis(300);
    let mut bench = Bench::new(|settings| settings.session.resume = resume).await;
    let (client, peer, stay) = bench.stay("/ws").await;
    let broken = Instant::now();
    drop(client);
    bench.worker.expect_removed(peer).await;
    assert!(broken.elapsed() >= resume);
    let (_client, _, welcome) = bench.resume(&stay).await;
    assert_eq!(welcome["resumed"], false);
    assert_eq!(bench.server.app.session.resumes.len(), 1, "the new one's");
}

#[tokio::test]
async fn a_close_frame_or_leave_removes_at_once() {
    let mut bench = Bench::new(|_| ()).await;
    let (mut client, peer, _) = bench.stay("/ws").await;
    client.socket.close(None).await.expect("closed");
    bench.worker.expect_removed(peer).await;
}

#[tokio::test]
async fn whoever_missed_too_much_or_does_not_count_is_told_what_holds() {
    let mut bench = Bench::new(|_| ()).await;
    let (client, peer, mut stay) = bench.stay("/ws?name=Ann").await;
    let (mut ben_client, ben, mut ben_stay) = bench.stay("/ws?name=Ben").await;
    bench.worker.send(Event::Connected { peer }).await;
    let track = PublishedTrack {
        key: TrackKey(7),
        track_id: "bens".into(),
        stream_id: "stream".into(),
        kind: MediaKind::Video,
        codec: Codec::H264,
        simulcast: false,
    };
    bench
        .worker
        .send(Event::TrackPublished { peer: ben, track })
        .await;
    ben_client.await_kind("tracks_added", &mut ben_stay).await;
    ben_client
        .send(json!({"type": "tracks_added", "data": {"bens": "screen"}}))
        .await;
    drop(client);
    for n in 0..crate::signalling::resume::LOG_MESSAGES + 10 {
        bench.chat_of(peer, &format!("number {n}")).await;
    }
    let (mut client, id, welcome) = bench.resume(&stay).await;
    assert_eq!(
        (id, &welcome["resumed"]),
        (json!(peer.to_string()), &json!(true))
    );
    assert!(welcome["sent"].as_u64() > Some(500), "{welcome}");
    let peers = client.await_kind("room_peers", &mut stay).await;
    assert_eq!(peers["peers"].as_array().map(Vec::len), Some(2));
    let available = client.await_kind("tracks_available", &mut stay).await;
    assert_eq!(available["bens"]["source_type"], "screen");
    let restated =
        |c: &Command| matches!(c, Command::Restate { peer: p } if *p == peer).then_some(());
    bench.worker.expect("Restate", restated).await;

    let token = welcome["resume_token"].as_str().expect("a token");
    let mut again = bench.connect(&format!("/ws?resume={token}")).await;
    again.expect("clientid").await;
    assert_eq!(again.expect("welcome").await["resumed"], true);
    again.await_kind("tracks_available", &mut stay).await;
}

#[tokio::test]
async fn a_client_without_socket_and_media_is_gone_for_the_others_and_there_again_when_it_resumes()
{
    let mut bench = Bench::new(|settings| {
        settings.limits.gone_after = Duration::from_millis(200);
    })
    .await;
    let (ann, peer, ann_stay) = bench.stay("/ws?name=Ann").await;
    let (mut ben, _, mut stay) = bench.stay("/ws?name=Ben").await;
    let names = |roster: &Value| roster["peers"].as_array().map_or(0, Vec::len);
    while names(&ben.await_kind("room_peers", &mut stay).await) != 2 {}
    drop(ann);
    while names(&ben.await_kind("room_peers", &mut stay).await) != 1 {}
    let suspended =
        |c: &Command| matches!(c, Command::Suspend { peer: p } if *p == peer).then_some(());
    bench.worker.expect("Suspend", suspended).await;
    let (_ann, _, welcome) = bench.resume(&ann_stay).await;
    assert_eq!(welcome["resumed"], true);
    while names(&ben.await_kind("room_peers", &mut stay).await) != 2 {}
}
