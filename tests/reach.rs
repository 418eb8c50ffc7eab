//! Networks that let little through: the call works over TCP, and over TURN.

mod support;

use serde_json::Value;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use support::call::Call;
use support::eventually;
use support::firewall::Firewall;
use support::media::{Camera, GREEN, RED};
use support::person::Person;
use support::process::free_port;
use support::server::Server;
use support::turn::TurnClient;
use support::wire::Wire;
use talksy_unit::demo::Sound;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};

const LOW_VOICE: Sound = Sound::Voice { pitch_hz: 125.0 };
const HIGH_VOICE: Sound = Sound::Voice { pitch_hz: 205.0 };
/// From Start to seeing and hearing the other one, on a busy machine.
const CALL: Duration = Duration::from_secs(15);

/// Asynchronous. The selected pair of the page's connection: both candidates as getStats() has them.
const SELECTED: &str = r#"
const done = arguments[arguments.length - 1];
(async () => {
  const report = await window.__bench.pcs.at(-1).getStats();
  let pair = null;
  report.forEach(s => { if (s.type === 'transport') pair = report.get(s.selectedCandidatePairId); });
  return { local: report.get(pair.localCandidateId), remote: report.get(pair.remoteCandidateId) };
})().then(done, e => done({ error: String(e) }));
"#;

async fn selected(person: &Person) -> Value {
    person.browser.eval_async(SELECTED, vec![]).await
}

async fn two_people(server: &Server) -> (Person, Person) {
    tokio::join!(
        Person::open(server, "room_id=1&name=Anna", Camera::small(RED), LOW_VOICE),
        Person::open(
            server,
            "room_id=1&name=Ben",
            Camera::small(GREEN),
            HIGH_VOICE
        ),
    )
}

async fn call(anna: &Person, ben: &Person) {
    tokio::join!(anna.join(), ben.join());
    tokio::join!(anna.sees_and_hears(1, CALL), ben.sees_and_hears(1, CALL));
    tokio::join!(anna.sees_move(30), ben.sees_move(30));
}

/// The ports of the server's workers.
fn media_ports(server: &Server) -> std::ops::RangeInclusive<u16> {
    let ports = server.media_addresses().into_iter().map(|a| a.port());
    let ports: Vec<u16> = ports.collect();
    *ports.iter().min().unwrap()..=*ports.iter().max().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_udp_the_call_works_over_tcp() {
    let server = Server::start(&[]).await;
    let firewall = Firewall::against_udp(media_ports(&server));
    let (anna, ben) = two_people(&server).await;
    call(&anna, &ben).await;
    for person in [&anna, &ben] {
        let pair = selected(person).await;
        assert_eq!(pair["local"]["protocol"], "tcp", "{pair}");
        assert_eq!(pair["remote"]["protocol"], "tcp", "{pair}");
        assert_eq!(pair["remote"]["candidateType"], "host", "{pair}");
    }
    assert!(firewall.dropped() > 0, "UDP was tried in vain");
    tokio::join!(anna.close_in_good_order(), ben.close_in_good_order());
}

/// The page's next connection may use relays only, and of their URLs only those of one protocol.
const RELAY_ONLY: &str = r#"
const [protocol] = arguments, Native = window.RTCPeerConnection;
window.RTCPeerConnection = class extends Native {
  constructor(configuration) {
    const iceServers = configuration.iceServers.map(server =>
      ({ ...server, urls: server.urls.filter(url => url.endsWith('transport=' + protocol)) }));
    super({ ...configuration, iceServers, iceTransportPolicy: 'relay' });
  }
};
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_call_works_over_turn_with_tcp_and_with_udp() {
    let turn_port = free_port().to_string();
    let server = Server::start(&["--turn-enabled", "--turn-port", &turn_port]).await;
    let firewall = Firewall::against_udp(media_ports(&server));
    let (anna, ben) = two_people(&server).await;
    for (person, protocol) in [(&anna, "tcp"), (&ben, "udp")] {
        let protocol = vec![Value::from(protocol)];
        person.browser.eval(RELAY_ONLY, protocol).await;
    }
    // What the relay sends to the workers goes over loopback; nobody else gets UDP through.
    firewall.allow_loopback();
    call(&anna, &ben).await;
    for (person, protocol) in [(&anna, "tcp"), (&ben, "udp")] {
        let pair = selected(person).await;
        assert_eq!(pair["local"]["candidateType"], "relay", "{pair}");
        assert_eq!(pair["local"]["relayProtocol"], protocol, "{pair}");
    }
    assert!(server.metric("talksy_turn_relayed_bytes_total").await > 100_000);
    tokio::join!(anna.close_in_good_order(), ben.close_in_good_order());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turn_relays_to_nothing_but_this_servers_media() {
    let turn_port = free_port();
    let port = turn_port.to_string();
    let server = Server::start(&["--turn-enabled", "--turn-port", &port]).await;
    let wire = Wire::open(&format!("{}?room_id=1&publish=0", server.socket())).await;
    let given = &wire.welcome["ice_servers"][0];
    let urls = [
        format!("turn:10.77.0.1:{port}?transport=udp"),
        format!("turn:10.77.0.1:{port}?transport=tcp"),
    ];
    assert_eq!(given["urls"], Value::from(urls.to_vec()));
    let text = |key: &str| given[key].as_str().unwrap().to_owned();
    let at = SocketAddr::from(([10, 77, 0, 1], turn_port));

    let mut client = TurnClient::at(at, &text("username"), "guessed").await;
    assert_eq!(client.allocate().await, Some(401));
    let mut client = TurnClient::at(at, &text("username"), &text("credential")).await;
    assert!(
        !client.binding().await.is_empty(),
        "it is a STUN server too"
    );
    assert_eq!(client.allocate().await, None);
    for peer in [
        "127.0.0.1:7882",
        "127.0.0.1:80",
        "127.77.0.1:7882",
        "10.77.0.2:7882",
        "192.168.1.1:443",
        "8.8.8.8:53",
        "169.254.169.254:80",
    ] {
        let refused = client.permission(peer.parse().unwrap()).await;
        assert_eq!(refused, Some(403), "{peer}");
    }
    for media in server.media_addresses() {
        assert_eq!(client.permission(media).await, None, "{media}");
    }
    assert_eq!(server.dropped("turn", "forbidden").await, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_worker_on_one_port_carries_several_rooms() {
    let server = Server::start(&["--workers", "1", "--media-tcp-port", "0"]).await;
    assert_eq!(server.media_addresses().len(), 1);
    let mut calls = Vec::new();
    for room in ["a", "b", "c"] {
        calls.push(Call::start(&server, room).await);
    }
    assert_eq!(server.metric("talksy_peers").await, 6);
    for call in &mut calls {
        call.is_undisturbed("two other rooms").await;
    }
}

/// What floods a worker for a few seconds.
async fn flood(at: SocketAddr, datagram: impl Fn(u32) -> Vec<u8>, lasting: Duration) -> u64 {
    let socket = UdpSocket::bind("0.0.0.0:0").await.unwrap();
    let (begin, mut sent) = (Instant::now(), 0);
    while begin.elapsed() < lasting {
        for _ in 0..64 {
            // A full buffer of the kernel is the flood's own limit.
            if socket.try_send_to(&datagram(sent), at).is_ok() {
                sent += 1;
            }
        }
        tokio::task::yield_now().await;
    }
    u64::from(sent)
}

/// A STUN request for a peer that there is not.
fn stray_request(n: u32) -> Vec<u8> {
    let mut stun = vec![0, 1, 0, 16, 0x21, 0x12, 0xa4, 0x42];
    stun.extend([0; 8]);
    stun.extend(n.to_be_bytes());
    stun.extend([0, 6, 0, 12]);
    stun.extend(format!("{n:07x}:abcd").as_bytes());
    stun
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_at_one_worker_disturbs_no_room_on_it_nor_on_the_other() {
    let server = Server::start(&[]).await;
    let mut calls = Vec::new();
    for room in ["a", "b"] {
        calls.push(Call::start(&server, room).await);
    }
    let memory = server.resident_bytes();
    let at = server.media_addresses()[0];
    let lasting = Duration::from_secs(2);
    let mut junk = vec![0x80; 1200];
    junk[1] = 111;
    let sent = tokio::join!(
        flood(at, stray_request, lasting),
        flood(at, |_| junk.clone(), lasting)
    );
    println!("figure flood_datagrams {sent:?}");
    for call in &mut calls {
        call.is_undisturbed("a flood of datagrams").await;
    }
    let unknown = "talksy_media_drops_total{stage=\"worker\",reason=\"unknown_sender\"}";
    assert!(server.metric(unknown).await > 1000);
    let grown = server.resident_bytes().saturating_sub(memory);
    assert!(grown < 32 << 20, "{grown} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_on_the_tcp_port_are_closed_and_the_call_goes_on() {
    let tcp_port = free_port();
    let server = Server::start(&["--media-tcp-port", &tcp_port.to_string()]).await;
    let mut call = Call::start(&server, "call").await;
    let at = ("127.0.0.1", tcp_port);
    let mut streams = Vec::new();
    for n in 0..200u32 {
        let mut stream = TcpStream::connect(at).await.unwrap();
        let request = stray_request(n);
        let mut framed = (request.len() as u16).to_be_bytes().to_vec();
        framed.extend(request);
        let bytes = match n % 4 {
            0 => &framed[..],
            1 => b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            2 => &[0xff; 64],
            _ => &[],
        };
        // It may be closed already: that is what is wanted.
        let _ = stream.write_all(bytes).await;
        streams.push(stream);
    }
    eventually("all closed", Duration::from_secs(10), async || {
        let unidentified = server.dropped("connection", "unidentified").await;
        let too_many = server.dropped("connection", "too_many").await;
        match unidentified + too_many {
            // The members of the call try TCP too.
            200.. => Ok(()),
            other => Err(other),
        }
    })
    .await;
    call.is_undisturbed("strangers on the TCP port").await;
}
