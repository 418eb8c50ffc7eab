//! Two participants are in a call while somebody else does everything wrong. Whatever that is, it is answered or counted,
//! and the call goes on.

#[path = "../support/mod.rs"]
mod support;

mod isolation;
mod light;
mod masses;

use futures_util::SinkExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use support::call::{CONNECTING, Call, publisher};
use support::eventually;
use support::relay::{Flow, Relay};
use support::server::{Server, http_get};
use support::wire::Wire;
use talksy_unit::demo::{Participant, ParticipantConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio_tungstenite::tungstenite::Message;

const DEADLINE: Duration = Duration::from_secs(10);
/// A client of which nothing comes any more is gone for the others after this time.
const BROKEN_CLIENT_GONE: Duration = Duration::from_secs(15);

fn room_of(server: &Server, query: &str) -> String {
    format!("{}?room_id=call&publish=0&{query}", server.socket())
}

/// What no client says in earnest, and of what the `error` has to speak.
fn wrong_messages() -> Vec<(String, &'static str)> {
    let message = |kind: &str, data: Value| json!({"type": kind, "data": data}).to_string();
    let sdp = |lines: &[&str]| lines.join("\r\n") + "\r\n";
    let head = ["v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0"];
    let line = [&head[..], &["m=video 9 UDP/TLS/RTP/SAVPF 102", "a=mid:0"]].concat();
    let endless = [&head[..], &vec!["m=audio 9 UDP/TLS/RTP/SAVPF 111"; 3000]].concat();
    vec![
        (String::new(), "JSON"),
        ("nonsense".into(), "JSON"),
        ("{\"type\":".into(), "JSON"),
        ("[1,2,3]".into(), "type"),
        ("{}".into(), "type"),
        ("[".repeat(20_000), "JSON"),
        (message("join", json!(null)), "join"),
        (message("\u{0}\u{1}", json!(null)), "type"),
        (message(&"x".repeat(5000), json!(null)), "type"),
        (message("offer", json!(null)), "offer"),
        (message("offer", json!({"sdp": 7})), "offer"),
        (
            message("offer", json!({"type": "answer", "sdp": "v=0"})),
            "offer",
        ),
        (message("offer", json!("garbage")), ""),
        (message("offer", json!("v=0\r\n")), ""),
        (message("offer", json!(sdp(&head[..2]))), ""),
        (message("offer", json!(sdp(&line))), ""),
        (message("offer", json!(sdp(&endless))), ""),
        (message("offer", json!("\u{fffd}".repeat(50_000))), ""),
        (message("answer", json!(sdp(&line))), ""),
        (message("answer", json!("v=0")), ""),
        (message("candidate", json!(17)), "candidate"),
        (message("candidate", json!("candidate:1 1 udp")), ""),
        (
            message(
                "candidate",
                json!("candidate:1 1 udp 1 999.1.1.1 99999 typ host"),
            ),
            "",
        ),
        (
            message("tracks_added", json!({"t": "hologram"})),
            "tracks_added",
        ),
        (
            message("subscribe_tracks", json!("all")),
            "subscribe_tracks",
        ),
        (
            message(
                "subscribe_tracks",
                json!([{"client_id": "x", "track_id": "y"}]),
            ),
            "",
        ),
        (message("switch_quality", json!("best")), "switch_quality"),
        (message("update_bandwidth", json!(-5)), "update_bandwidth"),
        (
            message("set_bandwidth_limit", json!("a lot")),
            "set_bandwidth_limit",
        ),
        (message("switch_mode", json!("p2p")), "switch_mode"),
        (message("switch_audio", json!(5.1)), "switch_audio"),
        (message("layout", json!({"kind": "spiral"})), "layout"),
        (message("mute", json!({"track_id": 1})), "mute"),
        (
            message("mute", json!({"track_id": "none", "muted": true})),
            "",
        ),
        (
            message("chat", json!({"text": "x".repeat(100_000)})),
            "chat",
        ),
        (
            message("chat", json!({"text": "x".repeat(2 << 20)})),
            "limit",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_messages_are_answered_one_by_one_and_the_socket_stays_open() {
    let server = Server::start(&[]).await;
    let mut call = Call::start(&server, "call").await;
    let mut wire = Wire::open(&room_of(&server, "name=wrong")).await;
    for (text, word) in wrong_messages() {
        let shown: String = text.chars().take(120).collect();
        wire.say_text(text).await;
        let error = wire.expect("error").await;
        let sentence = error.as_str().unwrap();
        assert!(
            sentence.contains(word) && sentence.len() > 10,
            "{shown}: {sentence}"
        );
        assert!(sentence.len() < 1000, "{shown}: {} bytes", sentence.len());
    }
    wire.socket
        .send(Message::binary(vec![0; 100]))
        .await
        .unwrap();
    wire.expect("error").await;
    // Candidates for nothing wait for a description, up to a limit.
    for port in 1..=65 {
        let line = format!("candidate:1 1 udp 1 10.9.9.9 {port} typ host");
        wire.say("candidate", json!(line)).await;
    }
    let error = wire.expect("error").await;
    assert!(error.as_str().unwrap().contains("offer"), "{error}");
    wire.say("is_allow_renegotiation", json!(null)).await;
    assert!(wire.expect("allow_renegotiation").await.is_boolean());
    assert!(server.refused("malformed").await >= 15);
    assert_eq!(server.refused("too_large").await, 1);
    assert_eq!(server.refused("binary").await, 1);
    call.is_undisturbed("wrong messages").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_joins_offers_and_half_open_connections_disturb_nobody() {
    let server = Server::start(&[]).await;
    let mut call = Call::start(&server, "call").await;

    let mut wire = Wire::open(&room_of(&server, "name=again")).await;
    for _ in 0..1000 {
        wire.say("join", json!({"room_id": "call"})).await;
    }
    // Answers wait for whoever reads them, so they are read here and not between.
    for _ in 0..1000 {
        wire.expect("error").await;
    }
    assert_eq!(server.refused("malformed").await, 1000);
    call.is_undisturbed("1000 joins of one socket").await;

    for n in 0..200 {
        drop(Wire::open(&room_of(&server, &format!("name=fleeting{n}"))).await);
    }
    let alone = async || match server.get("/stats?room_id=call").await.1 {
        text if text.contains("\"clients_count\":3") => Ok(()),
        text => Err(text[..text.len().min(200)].to_owned()),
    };
    // They may come back for a while, but the others do not see them.
    eventually("the fleeting clients are gone", BROKEN_CLIENT_GONE, alone).await;
    call.is_undisturbed("200 sockets that came and went").await;

    let mut half_open = Vec::new();
    for n in 0..300 {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port))
            .await
            .unwrap();
        let beginning = "GET /ws?room_id=call HTTP/1.1\r\nHost: localhost\r\nUpgrade: webso";
        let said = &beginning.as_bytes()[..n % beginning.len()];
        stream.write_all(said).await.unwrap();
        half_open.push(stream);
    }
    let (status, _) = http_get(server.port, "/").await.unwrap();
    assert_eq!(status, 200, "the page is still served");
    call.is_undisturbed("300 half-open connections").await;
    // The server lets go of them by itself.
    let mut rest = Vec::new();
    let ending = async {
        for stream in &mut half_open {
            let _ = stream.read_to_end(&mut rest).await;
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(15), ending).await;
    assert!(ended.is_ok(), "half-open connections are closed after 10 s");
    call.is_undisturbed("their end").await;
}

/// Random datagrams that look like each protocol on the media port, some cut short.
fn garbage(random: &mut StdRng) -> Vec<u8> {
    let len = random.random_range(0..1400);
    let mut datagram: Vec<u8> = (0..len).map(|_| random.random()).collect();
    let first = match random.random_range(0..6) {
        0 => &[0u8, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..],
        1 => &[22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 40, 1],
        2 => &[0x80, 102],
        3 => &[0x81, 200, 0, 1],
        4 => &[0x90, 0xe6],
        _ => &[],
    };
    let replaced = first.len().min(datagram.len());
    datagram[..replaced].copy_from_slice(&first[..replaced]);
    datagram
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_from_strangers_on_the_media_ports_is_counted() {
    const DATAGRAMS: u64 = 4000;
    let server = Server::start(&[]).await;
    let mut call = Call::start(&server, "call").await;
    let ports: Vec<u16> = server
        .media_addresses()
        .iter()
        .map(SocketAddr::port)
        .collect();
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut random = StdRng::seed_from_u64(1);
    let before = server.dropped("worker", "unknown_sender").await;
    for n in 0..DATAGRAMS {
        let port = ports[n as usize % ports.len()];
        let _ = stranger
            .send_to(&garbage(&mut random), ("127.0.0.1", port))
            .await;
        if n % 50 == 0 {
            // A flood beyond the kernel's buffer would be lost there, and show nothing.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let counted = async || {
        let unknown = server.dropped("worker", "unknown_sender").await - before;
        let unclassified = server.dropped("worker", "unclassified").await;
        match (unknown, unclassified) {
            (u, c) if u + c > DATAGRAMS * 9 / 10 && u > 100 && c > 100 => Ok(()),
            counts => Err(counts),
        }
    };
    eventually("strangers' datagrams are counted", DEADLINE, counted).await;
    call.is_undisturbed("garbage from strangers").await;
}

/// A member of the call behind a relay, whose address others can send from.
struct Spoofed {
    server: Server,
    relay: Relay,
    call: Call,
}

impl Spoofed {
    async fn start() -> Self {
        let server = Server::start(&[]).await;
        let relay = Relay::start(server.port).await;
        let call = Call::over(&[&relay.socket(), &server.socket()], "call").await;
        Spoofed {
            server,
            relay,
            call,
        }
    }

    /// Media of the member behind the relay, as it was on the wire.
    fn media(&self) -> Vec<Vec<u8>> {
        let is_media = |datagram: &Vec<u8>| (128..192).contains(&datagram[0]);
        let kept = self.relay.kept();
        let media: Vec<_> = kept.into_iter().filter(is_media).collect();
        assert!(media.len() > 50, "{} packets", media.len());
        media
    }

    /// Sends `datagrams` from the member's address; `reason` of `stage` has to be counted for most of them.
    async fn inject(&mut self, what: &str, datagrams: &[Vec<u8>], counters: &[(&str, &str)]) {
        let before = self.count(counters).await;
        for (n, datagram) in datagrams.iter().enumerate() {
            self.relay.inject(datagram).await;
            if n % 20 == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let wanted = before + datagrams.len() as u64 * 9 / 10;
        let counted = async || match self.count(counters).await {
            count if count >= wanted => Ok(()),
            count => Err((count, wanted)),
        };
        eventually(what, DEADLINE, counted).await;
        self.call.is_undisturbed(what).await;
    }

    async fn count(&self, counters: &[(&str, &str)]) -> u64 {
        let mut sum = 0;
        for (stage, reason) in counters {
            sum += self.server.dropped(stage, reason).await;
        }
        sum
    }
}

const UNAUTHENTIC: &[(&str, &str)] = &[("session", "unauthentic")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_forged_with_a_members_own_address_are_counted_and_change_nothing() {
    let mut spoofed = Spoofed::start().await;
    let mut random = StdRng::seed_from_u64(2);

    let media = spoofed.media();
    spoofed
        .inject("replayed packets", &media, UNAUTHENTIC)
        .await;

    let mut flipped = spoofed.media();
    for packet in &mut flipped {
        let at = random.random_range(12..packet.len());
        packet[at] ^= 1 << random.random_range(0..8);
    }
    spoofed
        .inject("packets with a wrong bit", &flipped, UNAUTHENTIC)
        .await;

    let mut cut = spoofed.media();
    for packet in &mut cut {
        packet.truncate(random.random_range(4..packet.len()));
    }
    spoofed.inject("truncated packets", &cut, UNAUTHENTIC).await;

    // Far ahead: taken for real they would make the true ones too old.
    let mut ahead = spoofed.media();
    for packet in &mut ahead {
        let seq = u16::from_be_bytes([packet[2], packet[3]]).wrapping_add(5000);
        packet[2..4].copy_from_slice(&seq.to_be_bytes());
    }
    spoofed
        .inject("packets from the future", &ahead, UNAUTHENTIC)
        .await;

    let mut rtcp = vec![vec![0x81, 200, 0, 7]; 200];
    for packet in &mut rtcp {
        packet[1] = random.random_range(200..=206);
        packet.extend((0..random.random_range(4..200)).map(|_| random.random::<u8>()));
    }
    spoofed.inject("RTCP garbage", &rtcp, UNAUTHENTIC).await;
}

/// A DTLS record in the clear (RFC 6347, section 4.1).
fn dtls(kind: u8, epoch: u16, body: &[u8]) -> Vec<u8> {
    let mut record = vec![kind, 254, 253];
    record.extend(epoch.to_be_bytes());
    record.extend([0, 0, 0, 0, 0, 9]);
    record.extend((body.len() as u16).to_be_bytes());
    record.extend(body);
    record
}

/// An unsigned STUN binding request for a user name.
pub fn stun(username: &str) -> Vec<u8> {
    let padded = username.len().next_multiple_of(4);
    let mut message = vec![0, 1, 0, 8 + padded as u8, 0x21, 0x12, 0xa4, 0x42];
    message.extend([5; 12]);
    message.extend([0, 6, 0, username.len() as u8]);
    message.extend(username.as_bytes());
    message.resize(24 + padded, 0);
    // USE-CANDIDATE
    message.extend([0, 0x25, 0, 0]);
    message
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stun_and_dtls_forged_with_a_members_own_address_neither_end_nor_move_its_connection() {
    const TRANSPORT: &[(&str, &str)] = &[
        ("transport", "dtls_implausible"),
        ("transport", "dtls_rejected"),
        ("transport", "dtls_too_many"),
        ("transport", "stun_malformed"),
        ("transport", "stun_rejected"),
        ("transport", "stun_unexpected"),
    ];
    let mut spoofed = Spoofed::start().await;
    let mut random = StdRng::seed_from_u64(3);
    // A close_notify and a fatal alert (RFC 5246, section 7.2), a second ClientHello, application data, nonsense.
    let mut records = Vec::new();
    for _ in 0..30 {
        records.push(dtls(21, 0, &[1, 0]));
        records.push(dtls(21, 0, &[2, 40]));
        records.push(dtls(21, 1, &[2, 40]));
        records.push(dtls(22, 0, &[1, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2, 254, 253]));
        let body: Vec<u8> = (0..random.random_range(1..300))
            .map(|_| random.random())
            .collect();
        records.push(dtls(23, 1, &body));
        records.push(dtls(random.random_range(20..26), 1, &body));
    }
    spoofed
        .inject("DTLS in the clear", &records, TRANSPORT)
        .await;

    // Somebody in the same room, whose own user fragment would take the member's address.
    let socket = spoofed.server.socket();
    let mut thief = Wire::open(&format!("{socket}?room_id=call&mode=mcu&publish=0")).await;
    let offer = thief.expect("offer").await;
    let sdp = offer["sdp"].as_str().unwrap();
    let ufrag = sdp
        .lines()
        .find_map(|line| line.strip_prefix("a=ice-ufrag:"))
        .unwrap();
    let requests = vec![stun(&format!("{ufrag}:thief")); 100];
    spoofed
        .inject("STUN of somebody else", &requests, TRANSPORT)
        .await;

    let unsigned = vec![stun("nobody:nobody"); 100];
    spoofed
        .inject("STUN for nobody", &unsigned, TRANSPORT)
        .await;
    let mut broken = vec![stun("nobody:nobody"); 100];
    for (len, message) in broken.iter_mut().enumerate() {
        message.truncate(8 + len % (message.len() - 8));
    }
    spoofed.inject("broken STUN", &broken, TRANSPORT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_reads_its_socket_is_let_go() {
    let server = Server::start(&[]).await;
    let mut call = Call::start(&server, "call").await;
    let deaf = Wire::open(&room_of(&server, "name=deaf")).await;
    let mut loud = Wire::open(&room_of(&server, "name=loud")).await;
    let line = "x".repeat(4000);
    let started = Instant::now();
    // Its kernel's buffers take some megabytes first. Whoever does not read answers no pings either.
    while server.refused("slow").await + server.refused("dead").await == 0 {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "nobody is let go"
        );
        for _ in 0..50 {
            loud.say("chat", json!({"text": line})).await;
            // What it says comes back, and it reads that.
            loud.expect("chat").await;
        }
    }
    call.is_undisturbed("a client that does not read").await;
    let gone = async || match server.get("/stats?room_id=call").await.1 {
        text if text.contains("\"clients_count\":3") => Ok(()),
        text => Err(text[..text.len().min(100)].to_owned()),
    };
    eventually("the deaf client is gone", DEADLINE, gone).await;
    drop(deaf);
}

/// Names on the latest roster that a member got.
fn roster(member: &Participant) -> Vec<String> {
    let observed = member.observed();
    let peers = observed
        .last("room_peers")
        .map(|roster| roster["peers"].clone());
    let peers: Vec<Value> = serde_json::from_value(peers.unwrap_or_default()).unwrap_or_default();
    peers
        .iter()
        .filter_map(|peer| Some(peer["name"].as_str()?.to_owned()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_vanishes_without_a_word_is_gone_after_its_time_and_the_others_are_told() {
    let server = Server::start(&[]).await;
    let mut call = Call::start(&server, "call").await;
    let relay = Relay::start(server.port).await;
    let mut vanishing = Participant::join(publisher(&relay.socket(), "call", "ghost"))
        .await
        .unwrap();
    vanishing
        .wait_until(CONNECTING, |seen| seen.tracks.len() == 4)
        .await
        .unwrap();
    for (member, _) in &mut call.members {
        let sees_both = |seen: &talksy_unit::demo::Observed| {
            seen.tracks
                .iter()
                .filter(|track| track.packets > 10)
                .count()
                == 4
        };
        member.wait_until(CONNECTING, sees_both).await.unwrap();
        assert!(roster(member).contains(&"ghost".to_owned()));
    }
    relay.set_flow(Flow::Gone);
    let since = Instant::now();
    let (witness, _) = &call.members[0];
    let gone = async || match roster(witness) {
        names if names.len() == 2 => Ok(()),
        names => Err(names),
    };
    eventually("the ghost is off the roster", BROKEN_CLIENT_GONE, gone).await;
    println!(
        "figure vanished_client_gone_s {:.1} s",
        since.elapsed().as_secs_f32()
    );
    let untracked = async || match server.get("/stats?room_id=call").await.1 {
        text if text.contains("\"received_tracks\":{\"audio\":2,\"video\":2}") => Ok(()),
        text => Err(text[..text.len().min(400)].to_owned()),
    };
    eventually("its tracks are gone", DEADLINE, untracked).await;
    drop(vanishing);
    let viewer = ParticipantConfig::viewer(&server.socket(), "call", "late");
    let mut late = Participant::join(viewer).await.unwrap();
    let seen = late
        .wait_until(CONNECTING, |seen| {
            seen.tracks.iter().filter(|t| t.packets > 10).count() == 4
        })
        .await
        .unwrap();
    assert_eq!(
        seen.tracks.len(),
        4,
        "nothing of the ghost is offered to newcomers"
    );
}
