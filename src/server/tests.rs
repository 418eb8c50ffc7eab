//! A whole server on loopback, with real sockets and a worker that does what the test says.

use std::time::Instant;

use clap::Parser;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::*;
use crate::config::Arguments;
use crate::ids::PeerId;
use crate::reach::Reach;
use crate::room::fake_worker::FakeWorker;
use crate::worker::{Command, Event, Renegotiation};

mod http;
mod resume;

const PATIENCE: Duration = Duration::from_secs(10);

struct Bench {
    server: Server,
    worker: FakeWorker,
}

impl Bench {
    async fn new(change: impl FnOnce(&mut Settings)) -> Self {
        let args = ["talksy-unit", "--port", "0", "--host", "127.0.0.1"];
        let mut settings = Arguments::parse_from(args).settings().expect("valid");
        change(&mut settings);
        let worker = FakeWorker::new(4096);
        let server = Server::start(&settings, vec![worker.handle()], Reach::default()).await;
        Bench {
            server: server.expect("a free port"),
            worker,
        }
    }

    async fn connect(&self, path: &str) -> Client {
        let url = format!("ws://{}{path}", self.server.local_addr());
        let (socket, _) = connect_async(url).await.expect("upgraded");
        Client { socket }
    }

    /// Connects, and takes the two first messages.
    async fn join(&mut self, path: &str) -> (Client, PeerId) {
        let mut client = self.connect(path).await;
        let id = client.expect("clientid").await;
        client.expect("welcome").await;
        let peer = self.worker.expect_peer().await;
        assert_eq!(id, json!(peer.to_string()));
        (client, peer)
    }
}

struct Client {
    socket: WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>,
}

impl Client {
    async fn frame(&mut self) -> Option<Message> {
        let next = timeout(PATIENCE, self.socket.next()).await;
        next.expect("something in time").and_then(Result::ok)
    }

    async fn message(&mut self) -> Value {
        loop {
            match self.frame().await {
                Some(Message::Text(text)) => {
                    return serde_json::from_str(&text).expect("the server speaks JSON");
                }
                Some(Message::Ping(_) | Message::Pong(_)) => {}
                other => panic!("no message but {other:?}"),
            }
        }
    }

    /// The data of the next message that is no roster; it has to be of this type.
    async fn expect(&mut self, kind: &str) -> Value {
        loop {
            let mut message = self.message().await;
            if message["type"] == "room_peers" && kind != "room_peers" {
                continue;
            }
            assert_eq!(message["type"], kind, "{message}");
            assert_eq!(message["status"], json!(kind != "error"));
            return message["data"].take();
        }
    }

    async fn send(&mut self, message: Value) {
        self.send_text(message.to_string()).await;
    }

    async fn send_text(&mut self, text: impl Into<String>) {
        let message = Message::text(text.into());
        self.socket.send(message).await.expect("sent");
    }

    /// Reads until the server closes, and returns the code.
    async fn closed(&mut self) -> Option<CloseCode> {
        loop {
            match self.frame().await {
                Some(Message::Close(frame)) => return frame.map(|f| f.code),
                Some(_) => {}
                None => return None,
            }
        }
    }
}

#[tokio::test]
async fn clientid_is_the_first_message_and_welcome_the_second() {
    let mut bench = Bench::new(|_| ()).await;
    for (path, room) in [
        ("/ws", "default"),
        ("/wss?room_id=1111", "1111"),
        ("/ws?&room_id=1111", "1111"),
        ("/ws?room_id=null&debug", "default"),
        ("/ws?room_id=r%C3%A4um", "räum"),
    ] {
        let mut client = bench.connect(path).await;
        let first = client.message().await;
        assert_eq!(first["type"], "clientid");
        let second = client.message().await;
        assert_eq!(second["type"], "welcome");
        let peer = bench.worker.expect_peer().await;
        assert_eq!(first["data"], json!(peer.to_string()));
        assert_eq!(second["data"]["client_id"], first["data"]);
        assert_eq!(second["data"]["room_id"], room, "{path}");
        assert_eq!(second["data"]["mode"], "sfu");
    }
}

#[tokio::test]
async fn the_query_decides_name_mode_and_publishing() {
    let mut bench = Bench::new(|_| ()).await;
    let mut client = bench
        .connect("/ws?name=+Ann%0A&mode=mcu&publish=0&max_kbps=120")
        .await;
    client.expect("clientid").await;
    let welcome = client.expect("welcome").await;
    assert_eq!(
        (&welcome["name"], &welcome["mode"]),
        (&json!("Ann"), &json!("mcu"))
    );
    let params = |c: &Command| match c {
        Command::AddPeer { params, .. } => Some(params.clone()),
        _ => None,
    };
    let params = bench.worker.expect("AddPeer", params).await;
    assert!(!params.client_offers_first);
    assert_eq!(params.max_receive_bps, Some(120_000));
}

#[tokio::test]
async fn odd_values_of_the_query_are_complained_about_after_the_welcome() {
    let mut bench = Bench::new(|_| ()).await;
    let (mut client, _) = bench.join("/ws?mode=mesh&max_kbps=x").await;
    assert!(
        client
            .expect("error")
            .await
            .as_str()
            .expect("text")
            .contains("mode")
    );
    assert!(
        client
            .expect("error")
            .await
            .as_str()
            .expect("text")
            .contains("max_kbps")
    );
}

#[tokio::test]
async fn requests_reach_the_worker_and_its_events_the_client() {
    let mut bench = Bench::new(|_| ()).await;
    let (mut client, peer) = bench.join("/ws").await;
    client.send(json!({"type": "offer", "data": "v=0"})).await;
    let offer = |c: &Command| match c {
        Command::Offer { peer, sdp } => Some((*peer, sdp.clone())),
        _ => None,
    };
    assert_eq!(
        bench.worker.expect("Offer", offer).await,
        (peer, "v=0".into())
    );
    let sdp = "v=0 answer".to_owned();
    bench.worker.send(Event::Answer { peer, sdp }).await;
    assert_eq!(
        client.expect("answer").await,
        json!({"type": "answer", "sdp": "v=0 answer"})
    );
    let reply = Renegotiation::Settled;
    bench
        .worker
        .send(Event::RenegotiationReply { peer, reply })
        .await;
    assert_eq!(client.expect("allow_renegotiation").await, "ok");
}

#[tokio::test]
async fn reports_over_the_data_channel_show_in_the_figures_and_garbage_does_not() {
    let mut bench = Bench::new(|_| ()).await;
    let (mut client, peer) = bench.join("/ws").await;
    let report = r#"{"type":"stats","data":{"available_outgoing_bitrate":300000,"quality_limitation_reason":"cpu"}}"#;
    for text in ["garbage", report] {
        let text = text.to_owned();
        bench.worker.send(Event::ChannelText { peer, text }).await;
    }
    let stats = Box::default();
    bench.worker.send(Event::Stats { peer, stats }).await;
    let figures = client.expect("track_stats").await;
    assert_eq!(figures["publisher_bandwidth"], 300_000);
    assert_eq!(figures["current_publish_limitation"], "cpu");
}

#[tokio::test]
async fn malformed_messages_of_every_kind_get_an_error_and_an_open_socket() {
    let mut bench = Bench::new(|_| ()).await;
    let (mut client, peer) = bench.join("/ws").await;
    let texts = [
        "",
        "{",
        "[]",
        "null",
        r#"{"type":"join"}"#,
        r#"{"type":1}"#,
        r#"{"type":"offer"}"#,
        r#"{"type":"candidate","data":5}"#,
        r#"{"type":"tracks_added","data":[]}"#,
        r#"{"type":"tracks_added","data":{"x":"media"}}"#,
        r#"{"type":"subscribe_tracks","data":"x"}"#,
        r#"{"type":"subscribe_tracks","data":[{"client_id":"no","track_id":"x"}]}"#,
        r#"{"type":"switch_quality","data":"best"}"#,
        r#"{"type":"set_bandwidth_limit","data":"many"}"#,
        r#"{"type":"switch_mode","data":"auto"}"#,
        r#"{"type":"switch_audio","data":"stereo"}"#,
        r#"{"type":"layout","data":{"kind":"pinned"}}"#,
        r#"{"type":"mute","data":{"track_id":"x","muted":true}}"#,
        r#"{"type":"chat","data":{}}"#,
    ];
    for text in texts {
        client.send_text(text).await;
        let error = client.expect("error").await;
        assert!(
            error.as_str().is_some_and(|e| e.len() > 10),
            "{text}: {error}"
        );
    }
    let binary = Message::binary(vec![0xff; 100]);
    client.socket.send(binary).await.expect("sent");
    client.expect("error").await;
    client.send(json!({"type": "is_allow_renegotiation"})).await;
    let asked = |c: &Command| {
        matches!(c, Command::AskRenegotiation { peer: p } if *p == peer).then_some(())
    };
    bench.worker.expect("AskRenegotiation", asked).await;
}

#[tokio::test]
async fn a_two_megabyte_message_gets_an_error_and_an_open_socket() {
    let mut bench = Bench::new(|_| ()).await;
    let (mut client, _) = bench.join("/ws").await;
    let text = json!({"type": "offer", "data": "x".repeat(2_000_000)}).to_string();
    client.send_text(text).await;
    let error = client.expect("error").await;
    assert!(error.as_str().expect("text").contains("262144"), "{error}");
    client
        .send(json!({"type": "chat", "data": {"text": "still here"}}))
        .await;
    assert_eq!(client.expect("chat").await["text"], "still here");
}

#[tokio::test]
async fn a_message_beyond_all_bounds_closes_its_socket_with_the_reason() {
    let mut bench = Bench::new(|_| ()).await;
    let (mut client, peer) = bench.join("/ws").await;
    // The server closes while the client is still sending, so the sending may fail.
    let _ = client
        .socket
        .send(Message::text("x".repeat(5_000_000)))
        .await;
    bench.worker.expect_removed(peer).await;
    if let Some(code) = client.closed().await {
        assert_eq!(code, CloseCode::Size);
    }
}

#[tokio::test]
async fn a_thousand_joins_on_one_socket_are_a_thousand_errors() {
    let mut bench = Bench::new(|_| ()).await;
    let (mut client, _) = bench.join("/ws?room_id=a").await;
    let (mut other, _) = bench.join("/ws?room_id=a").await;
    for _ in 0..1000 {
        client
            .send(json!({"type": "join", "data": {"room_id": "b"}}))
            .await;
    }
    other
        .send(json!({"type": "chat", "data": {"text": "not disturbed"}}))
        .await;
    assert_eq!(
        other.expect("chat").await["from"].as_str().map(str::len),
        Some(16)
    );
    let (mut errors, mut chats) = (0, 0);
    while errors < 1000 {
        match client.message().await["type"].as_str() {
            Some("error") => errors += 1,
            Some("chat") => chats += 1,
            _ => {}
        }
    }
    assert_eq!(chats, 1);
    assert_eq!(bench.server.rooms.room_count(), 1);
}

#[tokio::test]
async fn a_socket_from_which_nothing_comes_is_dead_and_one_that_answers_pings_is_not() {
    let mut bench = Bench::new(|settings| {
        settings.session.ping = Duration::from_millis(100);
        settings.session.idle = Duration::from_millis(500);
        settings.limits.gone_after = Duration::from_millis(500);
        settings.session.resume = Duration::from_millis(800);
    })
    .await;
    let (silent, dead) = bench.join("/ws").await;
    let (mut alive, _) = bench.join("/ws").await;
    // Reading is what answers pings; the silent client is not read from.
    let pings = async {
        let start = Instant::now();
        let mut last_roster = 0;
        while start.elapsed() < Duration::from_millis(1500) {
            if let Some(Message::Text(text)) = alive.frame().await {
                let message: Value = serde_json::from_str(&text).expect("JSON");
                last_roster = message["data"]["peers"].as_array().map_or(0, Vec::len);
            }
        }
        last_roster
    };
    assert_eq!(
        pings.await,
        1,
        "the dead one is off the roster, the other on it"
    );
    bench.worker.expect_removed(dead).await;
    drop(silent);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_removed_and_the_others_go_on() {
    let mut bench = Bench::new(|_| ()).await;
    let (slow, peer) = bench.join("/ws").await;
    let (mut other, _) = bench.join("/ws").await;
    for _ in 0..2000 {
        let message = "x".repeat(60_000);
        bench.worker.send(Event::Failed { peer, message }).await;
    }
    bench.worker.expect_removed(peer).await;
    other
        .send(json!({"type": "chat", "data": {"text": "on"}}))
        .await;
    assert_eq!(other.expect("chat").await["text"], "on");
    drop(slow);
}

#[tokio::test]
async fn leave_removes_the_client_and_closes_its_socket_normally() {
    let mut bench = Bench::new(|_| ()).await;
    let (mut client, peer) = bench.join("/ws").await;
    client.send(json!({"type": "leave"})).await;
    bench.worker.expect_removed(peer).await;
    assert_eq!(client.closed().await, Some(CloseCode::Normal));
}

#[tokio::test]
async fn a_full_room_says_so_after_the_clientid_and_closes() {
    let mut bench = Bench::new(|settings| settings.limits.peers_per_room = 1).await;
    let (_first, _) = bench.join("/ws").await;
    let mut second = bench.connect("/ws").await;
    second.expect("clientid").await;
    assert!(
        second
            .expect("error")
            .await
            .as_str()
            .expect("text")
            .contains("full")
    );
    assert_eq!(second.closed().await, Some(CloseCode::Again));
}

#[tokio::test]
async fn names_and_voices_are_on_the_roster() {
    let mut bench = Bench::new(|_| ()).await;
    let (mut ann, _) = bench.join("/ws?name=Ann").await;
    let (_ben, peer) = bench.join("/ws?name=Ben").await;
    let speaking = true;
    bench.worker.send(Event::Speaking { peer, speaking }).await;
    loop {
        let roster = ann.expect("room_peers").await;
        let ben =
            json!({"client_id": peer.to_string(), "name": "Ben", "speaking": true, "muted": false});
        if roster["peers"].as_array().is_some_and(|p| p.contains(&ben)) {
            break;
        }
    }
}

#[tokio::test]
async fn shutdown_tells_the_clients_and_ends_in_time_even_if_one_does_not_answer() {
    let mut bench = Bench::new(|_| ()).await;
    let (mut client, _) = bench.join("/ws").await;
    let (silent, _) = bench.join("/ws").await;
    let address = bench.server.local_addr();
    let start = Instant::now();
    let ending = tokio::spawn(bench.server.shutdown());
    assert_eq!(client.closed().await, Some(CloseCode::Away));
    ending.await.expect("no panic");
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens");
    drop(silent);
}

#[tokio::test]
async fn a_port_in_use_is_told_with_what_to_do() {
    let bench = Bench::new(|_| ()).await;
    let args = ["talksy-unit", "--host", "127.0.0.1"];
    let mut settings = Arguments::parse_from(args).settings().expect("valid");
    settings.listen = bench.server.local_addr();
    let error = Server::start(&settings, Vec::new(), Reach::default())
        .await
        .err()
        .expect("refused");
    assert!(error.to_string().contains("--port"), "{error}");
}
