//! Far too much of everything, while two participants are in a call: it is refused or dropped, counted, and takes no
//! memory that stays.

use futures_util::future::join_all;
use serde_json::json;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::net::UdpSocket;

use crate::support::call::Call;
use crate::support::eventually;
use crate::support::peer::Vp8Peer;
use crate::support::person::Person;
use crate::support::server::Server;
use crate::support::wire::Wire;
use crate::{DEADLINE, room_of, stun};

const OFFER: &str = include_str!("../../src/transport/negotiation/testdata/chromium_publish.sdp");
/// What a server may have grown by after a flood, bytes: a few sessions, and what the allocator keeps.
const GROWTH: u64 = 48 << 20;

/// Sockets that share the flood: each may say a few hundred messages before it is slowed down.
const SOCKETS: u64 = 10;
const CANDIDATES: u64 = 1000;
/// Candidates that one client may signal.
const TAKEN: u64 = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_candidates_and_a_thousand_m_lines_are_refused_one_by_one_beside_a_call() {
    let server = Server::start(&[]).await;
    let mut call = Call::start(&server, "call").await;
    let before = server.resident_bytes();

    join_all((0..SOCKETS).map(|n| candidates(&server, n))).await;
    let refused = SOCKETS * (CANDIDATES - TAKEN);
    let counted = server.refused("not_carried_out").await;
    assert!(
        (refused..refused + 10 * SOCKETS).contains(&counted),
        "{counted} of {refused}"
    );
    call.is_undisturbed("10 000 candidates").await;

    let mut wire = Wire::open(&room_of(&server, "name=long")).await;
    let candidate = |port: u32| {
        format!(
            "a=candidate:1 1 udp 1 10.9.9.9 {} typ host\r\n",
            port + 10_000
        )
    };
    let described: String = (0..10_000).map(candidate).collect();
    wire.say("offer", json!(format!("{OFFER}{described}")))
        .await;
    let error = wire.expect("error").await;
    assert!(error.as_str().unwrap().contains("limit"), "{error}");
    assert_eq!(server.refused("too_large").await, 1);

    join_all((0..4).map(|n| lines(&server, n))).await;
    let more = server.refused("not_carried_out").await - counted;
    assert_eq!(more, 4 * 25);
    call.is_undisturbed("100 descriptions of 1000 m-lines")
        .await;
    let grown = server.resident_bytes().saturating_sub(before);
    println!("figure hostile_descriptions_grown_mib {}", grown >> 20);
    assert!(grown < GROWTH, "{grown} bytes");
}

/// One client that offers in good order and then trickles without end.
async fn candidates(server: &Server, n: u64) {
    let mut wire = Wire::open(&room_of(server, &format!("name=trickles{n}"))).await;
    wire.say("offer", json!(OFFER)).await;
    wire.expect("answer").await;
    for port in 1..=CANDIDATES {
        let line = format!("candidate:1 1 udp 1 10.9.9.{n} {port} typ host");
        wire.say("candidate", json!(line)).await;
    }
    for _ in TAKEN..CANDIDATES {
        let error = wire.expect("error").await;
        let sentence = error.as_str().unwrap();
        assert!(sentence.contains("too many candidates"), "{sentence}");
    }
}

/// One client that offers a thousand m-lines, again and again.
async fn lines(server: &Server, n: u64) {
    let mut wire = Wire::open(&room_of(server, &format!("name=lines{n}"))).await;
    let endless = format!("{OFFER}{}", "m=audio 9 RTP/SAVPF 0\r\n".repeat(998));
    for _ in 0..25 {
        wire.say("offer", json!(endless)).await;
        let error = wire.expect("error").await;
        let sentence = error.as_str().unwrap();
        let expected = "1000 m-lines are too many: 256 are allowed";
        assert!(sentence.contains(expected), "{sentence}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_stun_from_unknown_addresses_is_counted_beside_a_call() {
    const ADDRESSES: usize = 250;
    const REQUESTS: usize = 40;
    let server = Server::start(&["--workers", "1"]).await;
    let mut call = Call::start(&server, "call").await;
    let port = server.media_addresses()[0].port();
    // A client whose fragment leads to a session of the server, and who has not the password.
    let mut thief = Wire::open(&room_of(&server, "name=thief")).await;
    thief.say("offer", json!(OFFER)).await;
    let answer = thief.expect("answer").await;
    let sdp = answer["sdp"].as_str().unwrap().to_owned();
    let known = sdp
        .lines()
        .find_map(|line| line.strip_prefix("a=ice-ufrag:"));
    let known = format!("{}:3Fm/", known.unwrap());

    let before = server.resident_bytes();
    let (unknown, rejected) = (
        server.dropped("worker", "unknown_sender").await,
        server.dropped("transport", "stun_rejected").await,
    );
    for n in 0..ADDRESSES {
        let from = Ipv4Addr::new(127, 9, 0, n as u8 + 1);
        for name in ["nobody:nobody", &known] {
            // One that has named a session is taken for its client's from then on.
            let socket = UdpSocket::bind((from, 0)).await.unwrap();
            for _ in 0..REQUESTS / 2 {
                let _ = socket.send_to(&stun(name), ("127.0.0.1", port)).await;
            }
        }
        // Faster, and the kernel drops them unseen.
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    let half = (ADDRESSES * REQUESTS / 2) as u64;
    let counted = async || {
        let unknown = server.dropped("worker", "unknown_sender").await - unknown;
        let rejected = server.dropped("transport", "stun_rejected").await - rejected;
        match (unknown, rejected) {
            (u, r) if u > half * 9 / 10 && r > half * 9 / 10 => Ok(()),
            counts => Err(counts),
        }
    };
    eventually("STUN of strangers is counted", DEADLINE, counted).await;
    call.is_undisturbed("STUN from 250 addresses").await;
    let grown = server.resident_bytes().saturating_sub(before);
    println!("figure hostile_stun_grown_mib {}", grown >> 20);
    assert!(grown < GROWTH, "{grown} bytes");
}

/// RTCP that says that more follows than does, and claims that no receiver can make (RFC 3550, RFC 4585, RFC 5104,
/// draft-holmer-rmcat-transport-wide-cc-extensions-01, draft-alvestrand-rmcat-remb-03).
fn impossible() -> Vec<Vec<u8>> {
    let packet = |count: u8, kind: u8, body: &[u8]| {
        let words = (body.len() / 4) as u16;
        [&[0x80 | count, kind], &words.to_be_bytes()[..], body].concat()
    };
    let feedback = |format: u8, kind: u8, rest: &[u8]| {
        packet(format, kind, &[&[0, 0, 0, 1, 0, 0, 0, 2], rest].concat())
    };
    vec![
        // 31 report blocks, and one is there.
        packet(31, 200, &[7; 24 + 24]),
        packet(31, 201, &[7; 4 + 24]),
        // 31 sources that leave or describe themselves.
        packet(31, 203, &[7; 4]),
        packet(31, 202, &[7, 7, 7, 7, 1, 255, 0, 0]),
        // Every packet of 250 blocks of 17.
        feedback(1, 205, &[0xff; 1000]),
        // Feedback about 65 535 packets in one run-length chunk, and in chunks that are not there.
        feedback(15, 205, &[0, 0, 0xff, 0xff, 0, 0, 0, 1, 0x3f, 0xff, 0, 0]),
        feedback(15, 205, &[0, 0, 0xff, 0xff, 0, 0, 0, 2]),
        // 255 streams of which none is there, and a rate of 2^80.
        feedback(15, 206, b"REMB\xff\xff\xff\xff"),
        // Requests for the keyframes of sixty streams.
        feedback(4, 206, &[9; 60 * 8]),
        // A length far beyond the end.
        vec![0x81, 201, 0xff, 0xff, 0, 0, 0, 1],
    ]
}

/// Says as many texts on the page's data channel as it is told, each with a size that names a picture of its own.
const CHATTER: &str = "
const [channel] = __bench.channels;
for (let n = 0; n < arguments[0]; n++)
  channel.send(JSON.stringify({ type: 'video_size', data: { track_id: `picture ${n}`, width: 9, height: 9 } }));
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_floods_its_data_channel_is_held_to_its_allowance_beside_a_call() {
    const TEXTS: u64 = 5000;
    let server = Server::start(&[]).await;
    let mut call = Call::start(&server, "call").await;
    let page = Person::viewer(&server, "room_id=call&name=chatters").await;
    page.join().await;
    page.wait("__bench.channels[0]?.readyState === 'open'")
        .await;
    page.sees_move(10).await;
    let before = server.resident_bytes();

    page.browser.eval(CHATTER, vec![TEXTS.into()]).await;
    page.wait("__bench.channels[0].bufferedAmount === 0").await;
    // 200 pass at once, and 100 more in each second that it took; the rest is dropped when it comes.
    eventually(
        "what is too much is dropped",
        DEADLINE,
        async || match server.dropped("session", "flood_texts").await {
            dropped if dropped > TEXTS / 2 => Ok(()),
            dropped => Err(dropped),
        },
    )
    .await;
    call.is_undisturbed("5000 texts on a data channel").await;
    let grown = server.resident_bytes().saturating_sub(before);
    println!("figure hostile_texts_grown_mib {}", grown >> 20);
    assert!(grown < GROWTH, "{grown} bytes");
    // Whoever said too much is in the call as before.
    page.sees_move(20).await;
    page.close_in_good_order().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_members_own_rtcp_with_impossible_counts_is_dropped_beside_a_call() {
    const ROUNDS: usize = 100;
    let server = Server::start(&["--workers", "1"]).await;
    let mut call = Call::start(&server, "call").await;
    let url = format!("{}?room_id=call&name=liar", server.socket());
    let mut wire = Wire::open(&url).await;
    let liar = Vp8Peer::publish(&mut wire, "liar").await;
    let before = server.resident_bytes();
    let malformed = malformed_rtcp(&server).await;
    for _ in 0..ROUNDS {
        for packet in impossible() {
            liar.say_rtcp(packet).await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let counted = async || {
        let now = malformed_rtcp(&server).await;
        match now - malformed {
            count if count > 4 * ROUNDS as u64 => Ok(()),
            count => Err(count),
        }
    };
    eventually("impossible RTCP is counted", DEADLINE, counted).await;
    call.is_undisturbed("impossible RTCP").await;
    let grown = server.resident_bytes().saturating_sub(before);
    println!("figure hostile_rtcp_grown_mib {}", grown >> 20);
    assert!(grown < GROWTH, "{grown} bytes");
}

async fn malformed_rtcp(server: &Server) -> u64 {
    server.dropped("ingest", "malformed_rtcp").await
        + server.dropped("delivery", "malformed_rtcp").await
}
