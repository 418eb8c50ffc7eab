//! A bad network between browsers and the server: page, signalling and media go through it, and it loses datagrams, changes
//! the client's address as a NAT does, moves it to another network, cuts its connections, or takes the whole cable away.

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

/// The interface that browsers gather candidates on (see `in-namespace`).
const OUTSIDE: &str = "10.77.0.1";

/// What TCP connections do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wire {
    /// Connections of earlier generations are cut.
    generation: u64,
    /// Nothing is passed on, and nothing ends.
    frozen: bool,
}

/// See the module.
pub struct Proxy {
    /// TCP port of page and signalling.
    pub port: u16,
    wire: watch::Sender<Wire>,
    media: Arc<Media>,
    running: Vec<JoinHandle<()>>,
}

struct Media {
    face: UdpSocket,
    /// Where the server takes media.
    server: Mutex<Option<SocketAddr>>,
    state: Mutex<Nat>,
}

#[derive(Default)]
struct Nat {
    /// The socket by which the server sees a client's address.
    mappings: HashMap<SocketAddr, (Arc<UdpSocket>, JoinHandle<()>)>,
    /// Client addresses of a network that is gone.
    dead: HashSet<SocketAddr>,
    /// Last byte of the address that the server sees.
    network: u8,
    /// Share of datagrams that is lost, in each direction.
    loss: f64,
    frozen: bool,
    passed: u64,
    lost: u64,
}

impl Proxy {
    /// A proxy to the server whose page is at `port` of loopback.
    pub async fn start(port: u16) -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let own_port = listener.local_addr().unwrap().port();
        let media = Arc::new(Media {
            face: UdpSocket::bind("0.0.0.0:0").await.unwrap(),
            server: Mutex::default(),
            state: Mutex::new(Nat {
                network: 2,
                ..Nat::default()
            }),
        });
        let (wire, wire_seen) = watch::channel(Wire {
            generation: 0,
            frozen: false,
        });
        let running = vec![
            tokio::spawn(accept(listener, port, media.clone(), wire_seen)),
            tokio::spawn(upstream(media.clone())),
        ];
        Proxy {
            port: own_port,
            wire,
            media,
            running,
        }
    }

    /// Address of the page with `query`.
    pub fn page(&self, query: &str) -> String {
        format!("http://localhost:{}/?{query}", self.port)
    }

    /// Address of the socket.
    pub fn socket(&self) -> String {
        format!("ws://127.0.0.1:{}/ws", self.port)
    }

    /// Cuts every connection as a router that restarts: no close frame comes through.
    pub fn cut(&self) {
        self.wire.send_modify(|wire| wire.generation += 1);
    }

    /// The client gets a new port at the server, for every address of its own.
    pub fn rebind(&self) {
        self.media.state.lock().unwrap().forget();
    }

    /// The client is on another network: what it sent from until now leads nowhere any more, and what it sends from new
    /// ports comes from another address.
    pub fn move_network(&self) {
        let mut nat = self.media.state.lock().unwrap();
        let old: Vec<SocketAddr> = nat.mappings.keys().copied().collect();
        nat.dead.extend(old);
        nat.network += 1;
        nat.forget();
    }

    /// Signalling does not pass any more, and nobody is told; media does.
    pub fn stall_signalling(&self) {
        self.wire.send_modify(|wire| wire.frozen = true);
    }

    /// Nothing passes any more, and nobody is told.
    pub fn pull_the_cable(&self) {
        self.media.state.lock().unwrap().frozen = true;
        self.wire.send_modify(|wire| wire.frozen = true);
    }

    /// Everything passes again that is still there.
    pub fn plug_in(&self) {
        self.media.state.lock().unwrap().frozen = false;
        self.wire.send_modify(|wire| wire.frozen = false);
    }

    /// Share of datagrams that is lost from now on, in each direction.
    pub fn set_loss(&self, loss: f64) {
        self.media.state.lock().unwrap().loss = loss;
    }

    /// Datagrams that were lost, of how many.
    pub fn losses(&self) -> (u64, u64) {
        let nat = self.media.state.lock().unwrap();
        (nat.lost, nat.lost + nat.passed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.running.iter().for_each(JoinHandle::abort);
        self.media.state.lock().unwrap().forget();
    }
}

impl Nat {
    fn forget(&mut self) {
        for (_, (_, task)) in self.mappings.drain() {
            task.abort();
        }
    }

    /// Whether a datagram gets through.
    fn passes(&mut self) -> bool {
        let passes = !self.frozen && rand::random::<f64>() >= self.loss;
        self.passed += u64::from(passes);
        self.lost += u64::from(!passes);
        passes
    }
}

async fn upstream(media: Arc<Media>) {
    let mut buffer = [0; 2048];
    while let Ok((len, from)) = media.face.recv_from(&mut buffer).await {
        let Some(server) = *media.server.lock().unwrap() else {
            continue;
        };
        let known = {
            let mut nat = media.state.lock().unwrap();
            if nat.dead.contains(&from) || !nat.passes() {
                continue;
            }
            nat.mappings.get(&from).map(|(back, _)| back.clone())
        };
        let back = match known {
            Some(back) => back,
            None => media.map(from).await,
        };
        // A full socket buffer loses it, as a network would.
        let _ = back.send_to(&buffer[..len], server).await;
    }
}

impl Media {
    async fn map(self: &Arc<Self>, client: SocketAddr) -> Arc<UdpSocket> {
        let network = self.state.lock().unwrap().network;
        let back = UdpSocket::bind((format!("127.0.0.{network}"), 0)).await;
        let back = Arc::new(back.unwrap());
        let task = tokio::spawn(downstream(self.clone(), back.clone(), client));
        let mut nat = self.state.lock().unwrap();
        nat.mappings.insert(client, (back.clone(), task));
        back
    }

    /// The browser is to learn the proxy's address only.
    fn with_own_address(&self, message: Message) -> Message {
        let passed = rewritten(message.clone(), |kind, mut data| {
            match kind {
                "candidate" => {
                    let line = self.own_candidate(data["candidate"].as_str()?)?;
                    data["candidate"] = line.into();
                }
                "offer" | "answer" => {
                    let lines: Vec<String> = data["sdp"]
                        .as_str()?
                        .lines()
                        .filter_map(|line| match line.strip_prefix("a=candidate:") {
                            Some(_) => Some(format!("a={}", self.own_candidate(&line[2..])?)),
                            None => Some(line.to_owned()),
                        })
                        .collect();
                    data["sdp"] = (lines.join("\r\n") + "\r\n").into();
                }
                _ => {}
            }
            Some(data)
        });
        // An empty candidate ends them, which is true of ours too.
        passed.unwrap_or_else(|| Message::text(r#"{"status":true,"type":"nothing","data":null}"#))
    }

    /// The first UDP candidate over IPv4 is the server's place; the others are left out.
    fn own_candidate(&self, line: &str) -> Option<String> {
        let mut parts: Vec<String> = line.split(' ').map(str::to_owned).collect();
        if !parts.get(2)?.eq_ignore_ascii_case("udp") {
            return None;
        }
        let server: SocketAddr = format!("{}:{}", parts.get(4)?, parts.get(5)?)
            .parse()
            .ok()?;
        let known = *self.server.lock().unwrap().get_or_insert(server);
        parts[4] = OUTSIDE.to_owned();
        parts[5] = self.face.local_addr().unwrap().port().to_string();
        (known == server).then(|| parts.join(" "))
    }
}

async fn downstream(media: Arc<Media>, back: Arc<UdpSocket>, client: SocketAddr) {
    let mut buffer = [0; 2048];
    while let Ok((len, _)) = back.recv_from(&mut buffer).await {
        if media.state.lock().unwrap().passes() {
            let _ = media.face.send_to(&buffer[..len], client).await;
        }
    }
}

async fn accept(listener: TcpListener, port: u16, media: Arc<Media>, wire: watch::Receiver<Wire>) {
    // The connections end with the proxy.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (media, mut cut) = (media.clone(), wire.clone());
        let generation = wire.borrow().generation;
        let passing = pass(stream, port, media, wire.clone());
        connections.spawn(async move {
            tokio::select! {
                () = passing => {}
                _ = cut.wait_for(|wire| wire.generation != generation) => {}
            }
        });
    }
}

/// One connection: signalling with other candidates, anything else as it comes.
async fn pass(mut stream: TcpStream, port: u16, media: Arc<Media>, wire: watch::Receiver<Wire>) {
    until_thawed(&wire).await;
    let mut head = [0; 7];
    while let Ok(len) = stream.peek(&mut head).await {
        if len == 0 {
            return;
        }
        if len == head.len() {
            break;
        }
        tokio::task::yield_now().await;
    }
    if &head == b"GET /ws" {
        signalling(stream, port, media, wire).await;
    } else if let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await {
        // An error is the end of one of them, and of both.
        let _ = copy_bidirectional(&mut stream, &mut server).await;
    }
}

async fn until_thawed(wire: &watch::Receiver<Wire>) {
    let mut wire = wire.clone();
    // An error means that the proxy is gone.
    let _ = wire.wait_for(|wire| !wire.frozen).await;
}

async fn until_frozen(wire: &watch::Receiver<Wire>) {
    let mut wire = wire.clone();
    let _ = wire.wait_for(|wire| wire.frozen).await;
}

async fn signalling(stream: TcpStream, port: u16, media: Arc<Media>, wire: watch::Receiver<Wire>) {
    let mut path = String::new();
    #[allow(clippy::result_large_err)]
    let note = |request: &Request, response: Response| {
        path = request.uri().to_string();
        Ok(response)
    };
    let Ok(client) = tokio_tungstenite::accept_hdr_async(stream, note).await else {
        return;
    };
    let url = format!("ws://127.0.0.1:{port}{path}");
    let Ok((server, _)) = tokio_tungstenite::connect_async(url).await else {
        return;
    };
    let (mut to_client, mut from_client) = client.split();
    let (mut to_server, mut from_server) = server.split();
    loop {
        let passed = tokio::select! {
            () = until_frozen(&wire) => { until_thawed(&wire).await; Ok(()) }
            message = from_client.next() => match message {
                Some(Ok(message)) => match without_candidates(message) {
                    Some(message) => to_server.send(message).await,
                    None => to_server.send(Message::text(r#"{"type":"candidate","data":""}"#)).await,
                },
                _ => return,
            },
            message = from_server.next() => match message {
                Some(Ok(message)) => to_client.send(media.with_own_address(message)).await,
                _ => return,
            },
        };
        if passed.is_err() {
            return;
        }
    }
}

/// The server is to learn the proxy's addresses only, from the checks that come from there. `None`: nothing is left; the
/// count of messages has to stay.
fn without_candidates(message: Message) -> Option<Message> {
    rewritten(message, |kind, data| match kind {
        "candidate" => None,
        "offer" | "answer" => {
            let sdp = data.as_str().or(data["sdp"].as_str())?;
            let lines = sdp.lines().filter(|line| !line.starts_with("a=candidate:"));
            Some(Value::from(lines.collect::<Vec<_>>().join("\r\n") + "\r\n"))
        }
        _ => Some(data),
    })
}

/// The message with other data; `None` where `change` wants it dropped.
fn rewritten(
    message: Message,
    change: impl FnOnce(&str, Value) -> Option<Value>,
) -> Option<Message> {
    let Message::Text(text) = &message else {
        return Some(message);
    };
    let mut value: Value = serde_json::from_str(text).ok()?;
    let kind = value["type"].as_str()?.to_owned();
    let data = value.get_mut("data").map(Value::take).unwrap_or_default();
    value["data"] = change(&kind, data)?;
    Some(Message::text(value.to_string()))
}
