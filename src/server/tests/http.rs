//! Pages, figures and certificates over plain HTTP/1.1.

use std::io::{Read, Write};
use std::sync::Arc;

use super::*;
use crate::config::TlsSource;
use crate::worker::{LayoutKind, VoiceLimits};

struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").expect("a whole reply");
        let status = head.split(' ').nth(1).expect("a status line");
        Reply {
            status: status.parse().expect("a number"),
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
}

fn request_text(method: &str, path: &str, extra: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{extra}\r\n")
}

impl Bench {
    async fn request(&self, method: &str, path: &str, extra: &str) -> Reply {
        let mut stream = TcpStream::connect(self.server.local_addr())
            .await
            .expect("open");
        let text = request_text(method, path, extra);
        stream.write_all(text.as_bytes()).await.expect("sent");
        let mut bytes = Vec::new();
        let read = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
        read.expect("in time").expect("read");
        Reply::parse(&bytes)
    }

    async fn get(&self, path: &str) -> Reply {
        self.request("GET", path, "").await
    }
}

#[tokio::test]
async fn figures_of_rooms_have_the_frozen_keys() {
    let mut bench = Bench::new(|_| ()).await;
    let empty = bench.get("/stats").await;
    assert_eq!(
        (empty.status, &empty.json()["clients_count"]),
        (200, &json!(0))
    );
    let (_client, peer) = bench.join("/ws?room_id=1111&name=Ann").await;
    bench.worker.send(Event::Connected { peer }).await;
    let stats = loop {
        let stats = bench.get("/stats?&room_id=1111").await.json();
        if stats["active_sessions"] == 1 {
            break stats;
        }
    };
    assert_eq!(stats["clients_count"], 1);
    assert_eq!(stats["client_stats"][peer.to_string()]["name"], "Ann");
    let unknown = bench.get("/stats?room_id=2222").await;
    assert_eq!(unknown.status, 404);
    assert!(
        unknown.json()["error"]
            .as_str()
            .expect("text")
            .contains("2222")
    );
}

#[tokio::test]
async fn a_created_room_has_an_id_that_can_be_joined() {
    let mut bench = Bench::new(|_| ()).await;
    let reply = bench.get("/create_room?name=Team+call").await;
    assert_eq!(reply.status, 200);
    assert!(
        reply.head.contains("content-type: text/plain"),
        "{}",
        reply.head
    );
    let (id, name) = reply
        .body
        .strip_prefix("room_id: ")
        .and_then(|rest| rest.split_once(", room_name: "))
        .expect("the old format");
    assert_eq!(name, "Team call");
    assert_eq!(bench.get(&format!("/stats?room_id={id}")).await.status, 200);
    bench.join(&format!("/ws?room_id={id}")).await;
    assert_eq!(bench.server.rooms.room_count(), 1);
}

#[tokio::test]
async fn a_created_room_may_forward_more_or_less_than_others() {
    let mut bench = Bench::new(|settings| {
        settings.limits.voices = VoiceLimits {
            audio: Some(16),
            video: Some(9),
        };
    })
    .await;
    for (query, audio, video) in [
        ("", Some(16), Some(9)),
        ("?audio=8", Some(8), Some(9)),
        ("?audio=0&last_n=2", None, Some(2)),
    ] {
        let reply = bench.get(&format!("/create_room{query}")).await;
        assert_eq!(reply.status, 200, "{query}");
        let opened = |command: &Command| match command {
            Command::OpenRoom { voices, .. } => Some(*voices),
            _ => None,
        };
        let voices = bench.worker.expect("OpenRoom", opened).await;
        assert_eq!(voices, VoiceLimits { audio, video }, "{query}");
    }
}

#[tokio::test]
async fn malformed_requests_get_a_4xx() {
    let bench = Bench::new(|_| ()).await;
    let long = format!("/stats?room_id={}", "x".repeat(200));
    for (method, path, status) in [
        ("GET", long.as_str(), 400),
        ("GET", "/stats?room_id=%ff", 400),
        ("GET", "/create_room?audio=-1", 400),
        ("GET", "/create_room?last_n=65", 400),
        ("GET", "/ws?room_id=%00", 400),
        ("GET", "/ws", 400),
        ("POST", "/stats", 405),
        ("GET", "/no/such/page", 404),
        ("GET", "/../Cargo.toml", 404),
        ("GET", "/%2e%2e/Cargo.toml", 404),
        ("GET", "/..%2fCargo.toml", 404),
    ] {
        assert_eq!(
            bench.request(method, path, "").await.status,
            status,
            "{path}"
        );
    }
}

#[tokio::test]
async fn health_and_metrics_are_served() {
    let mut bench = Bench::new(|_| ()).await;
    let (mut client, _) = bench.join("/ws").await;
    client.send_text("nonsense").await;
    client.expect("error").await;
    assert_eq!(bench.get("/healthz").await.status, 200);
    let metrics = bench.get("/metrics").await.body;
    for line in [
        "talksy_rooms 1",
        "talksy_sockets 1",
        "talksy_refusals_total{reason=\"malformed\"} 1",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} in {metrics}");
    }
}

#[tokio::test]
async fn the_health_check_asks_the_running_server() {
    let bench = Bench::new(|_| ()).await;
    let args = ["talksy-unit", "--host", "127.0.0.1"];
    let mut settings = Arguments::parse_from(args).settings().expect("valid");
    settings.listen = bench.server.local_addr();
    assert!(is_healthy(&settings).await);
    bench.server.shutdown().await;
    assert!(!is_healthy(&settings).await);
}

#[tokio::test]
async fn a_static_dir_replaces_the_page() {
    let dir = tempfile::tempdir().expect("temporary directory");
    std::fs::create_dir(dir.path().join("js")).expect("made");
    for (name, text) in [
        ("index.html", "<p>mine"),
        ("js/a.js", "1"),
        (".secret", "x"),
    ] {
        std::fs::write(dir.path().join(name), text).expect("written");
    }
    let path = dir.path().to_owned();
    let bench = Bench::new(|settings| settings.static_dir = Some(path)).await;
    let page = bench.get("/?room_id=1111").await;
    assert_eq!((page.status, page.body.as_str()), (200, "<p>mine"));
    for header in [
        "content-type: text/html; charset=utf-8",
        "cache-control: no-store",
        "x-content-type-options: nosniff",
    ] {
        assert!(page.head.contains(header), "{header} in {}", page.head);
    }
    let script = bench.get("/js/a.js").await;
    assert!(script.head.contains("content-type: text/javascript"));
    assert_eq!(bench.get("/.secret").await.status, 404);
    assert_eq!(bench.get("/js").await.status, 404);
}

#[tokio::test]
async fn a_socket_beyond_the_limit_is_refused_with_503() {
    let mut bench = Bench::new(|settings| settings.max_sockets = 1).await;
    let (_client, _) = bench.join("/ws").await;
    let url = format!("ws://{}/ws", bench.server.local_addr());
    let error = connect_async(url).await.expect_err("refused");
    assert!(error.to_string().contains("503"), "{error}");
}

#[tokio::test]
async fn a_self_signed_certificate_serves_https() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().to_owned();
    let bench = Bench::new(|settings| settings.tls = Some(TlsSource::SelfSigned(path))).await;
    let address = bench.server.local_addr();
    assert!(bench.server.page_urls()[0].starts_with("https://"));
    let pem = std::fs::read(dir.path().join("cert.pem")).expect("kept");
    let reply = tokio::task::spawn_blocking(move || https_get(address, &pem)).await;
    assert_eq!(reply.expect("no panic").status, 200);
}

#[tokio::test]
async fn half_open_connections_are_closed_after_the_header_timeout() {
    let dir = tempfile::tempdir().expect("temporary directory");
    for tls in [None, Some(TlsSource::SelfSigned(dir.path().to_owned()))] {
        let bench = Bench::new(|settings| {
            settings.header_timeout = Duration::from_millis(200);
            settings.tls = tls;
        })
        .await;
        for beginning in ["", "P", "PRI * HTTP/2.0", "GET /ws HTTP/1.1\r\nHost:"] {
            let address = bench.server.local_addr();
            let mut stream = TcpStream::connect(address).await.expect("open");
            let sent = stream.write_all(beginning.as_bytes()).await;
            sent.expect("sent");
            let mut bytes = Vec::new();
            let read = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
            // Closed, or reset: either way it is gone.
            let _ = read.expect("in time");
        }
    }
}

/// Trusts this certificate and no other.
fn https_get(address: SocketAddr, pem: &[u8]) -> Reply {
    use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    let cert = CertificateDer::from_pem_slice(pem).expect("PEM");
    roots.add(cert).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::from(address.ip());
    let mut tls = rustls::ClientConnection::new(Arc::new(config), name).expect("a name");
    let mut tcp = std::net::TcpStream::connect(address).expect("open");
    let mut stream = rustls::Stream::new(&mut tls, &mut tcp);
    let request = request_text("GET", "/healthz", "");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut bytes = Vec::new();
    // A server may end without close_notify; what came before counts.
    let _ = stream.read_to_end(&mut bytes);
    Reply::parse(&bytes)
}

#[tokio::test]
async fn a_layout_by_rest_reaches_the_worker_and_mistakes_get_their_reasons() {
    let mut bench = Bench::new(|_| ()).await;
    let (_client, peer) = bench.join("/ws?room_id=hall").await;
    let post = |path: &str, body: &str| {
        let extra = format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        );
        (path.to_owned(), format!("{extra}\r\n{body}"))
    };
    let cases = [
        ("/rooms/hall/layout", r#"{"kind":"circle"}"#.to_owned(), 400),
        ("/rooms/hall/layout", "{".to_owned(), 400),
        ("/rooms/hall/layout", r#"{"kind":"pinned"}"#.to_owned(), 409),
        (
            "/rooms/hall/layout",
            format!(r#"{{"kind":"pinned","pinned":"{peer}"}}"#),
            409,
        ),
        ("/rooms/none/layout", r#"{"kind":"grid"}"#.to_owned(), 404),
        (
            "/rooms/hall/layout",
            r#"{"kind":"speaker"}"#.to_owned(),
            204,
        ),
    ];
    for (path, body, status) in cases {
        let (path, extra) = post(path, &body);
        let reply = bench.request("POST", &path, &extra).await;
        assert_eq!(reply.status, status, "{body}: {}", reply.body);
    }
    let form = "Content-Type: text/plain\r\nContent-Length: 15\r\n\r\n{\"kind\":\"grid\"}";
    assert_eq!(
        bench
            .request("POST", "/rooms/hall/layout", form)
            .await
            .status,
        415
    );
    let wished = |c: &Command| match c {
        Command::SetLayout { wish, .. } => Some(wish.kind),
        _ => None,
    };
    assert_eq!(
        bench.worker.expect("the layout", wished).await,
        LayoutKind::Speaker
    );
}
