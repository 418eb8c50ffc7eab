//! Between one participant and the server: passes signalling and media on, and does to them what bad networks and bad
//! people do. The server sees the participant's datagrams and the relay's own from one address.

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

/// Datagrams of the participant that are kept; the oldest go first.
const KEPT: usize = 512;

/// What is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Everything.
    Open,
    /// Nothing of the server's media reaches the participant.
    Deaf,
    /// Nothing in any direction, signalling neither; and no end of it either.
    Gone,
}

/// One participant's way to the server.
pub struct Relay {
    port: u16,
    media: Arc<Media>,
    flow: watch::Sender<Flow>,
    running: Vec<JoinHandle<()>>,
}

struct Media {
    /// Where the participant sends.
    face: UdpSocket,
    /// Where the server sees the participant.
    back: UdpSocket,
    server: Mutex<Option<SocketAddr>>,
    participant: Mutex<Option<SocketAddr>>,
    kept: Mutex<VecDeque<Vec<u8>>>,
}

impl Relay {
    /// A relay to the server whose signalling is at `port` of loopback. It takes one participant.
    pub async fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay_port = listener.local_addr().unwrap().port();
        let media = Arc::new(Media {
            face: UdpSocket::bind("127.0.0.1:0").await.unwrap(),
            back: UdpSocket::bind("127.0.0.1:0").await.unwrap(),
            server: Mutex::default(),
            participant: Mutex::default(),
            kept: Mutex::default(),
        });
        let (flow, flow_seen) = watch::channel(Flow::Open);
        let running = vec![
            tokio::spawn(signalling(listener, port, media.clone(), flow_seen.clone())),
            tokio::spawn(upstream(media.clone(), flow_seen.clone())),
            tokio::spawn(downstream(media.clone(), flow_seen)),
        ];
        Relay {
            port: relay_port,
            media,
            flow,
            running,
        }
    }

    /// The socket's address for the participant.
    pub fn socket(&self) -> String {
        format!("ws://127.0.0.1:{}/ws", self.port)
    }

    /// What is passed on from now on.
    pub fn set_flow(&self, flow: Flow) {
        self.flow.send_replace(flow);
    }

    /// The latest datagrams of the participant, oldest first.
    pub fn kept(&self) -> Vec<Vec<u8>> {
        self.media.kept.lock().unwrap().iter().cloned().collect()
    }

    /// Sends the server a datagram from the participant's own address.
    pub async fn inject(&self, datagram: &[u8]) {
        let server = self.media.server.lock().unwrap().unwrap();
        // A full socket buffer loses it, as a network would.
        let _ = self.media.back.send_to(datagram, server).await;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.running.iter().for_each(JoinHandle::abort);
    }
}

async fn upstream(media: Arc<Media>, flow: watch::Receiver<Flow>) {
    let mut buffer = [0; 2048];
    while let Ok((len, from)) = media.face.recv_from(&mut buffer).await {
        // The participant has sockets on other addresses too; one way is enough.
        if !from.ip().is_loopback() || *flow.borrow() == Flow::Gone {
            continue;
        }
        *media.participant.lock().unwrap() = Some(from);
        let server = *media.server.lock().unwrap();
        if let Some(server) = server {
            let _ = media.back.send_to(&buffer[..len], server).await;
        }
        let mut kept = media.kept.lock().unwrap();
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(buffer[..len].to_vec());
    }
}

async fn downstream(media: Arc<Media>, flow: watch::Receiver<Flow>) {
    let mut buffer = [0; 2048];
    while let Ok((len, _)) = media.back.recv_from(&mut buffer).await {
        let participant = *media.participant.lock().unwrap();
        let is_open = *flow.borrow() == Flow::Open;
        if let (Some(participant), true) = (participant, is_open) {
            let _ = media.face.send_to(&buffer[..len], participant).await;
        }
    }
}

async fn signalling(
    listener: TcpListener,
    port: u16,
    media: Arc<Media>,
    flow: watch::Receiver<Flow>,
) {
    let (stream, _) = listener.accept().await.unwrap();
    let (client, path) = accept(stream).await;
    let url = format!("ws://127.0.0.1:{port}{path}");
    let (server, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let (mut to_client, mut from_client) = client.split();
    let (mut to_server, mut from_server) = server.split();
    loop {
        let mut gone = flow.clone();
        let passed = tokio::select! {
            // Keeps both sockets open and reads neither.
            () = until_gone(&mut gone) => std::future::pending().await,
            message = from_client.next() => match message {
                Some(Ok(message)) => match without_candidates(message) {
                    Some(message) => to_server.send(message).await,
                    None => Ok(()),
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

/// Keeps no lock on the flow.
async fn until_gone(flow: &mut watch::Receiver<Flow>) {
    let _ = flow.wait_for(|flow| *flow == Flow::Gone).await;
}

/// Upgrades, and tells the path with its query.
async fn accept(stream: TcpStream) -> (tokio_tungstenite::WebSocketStream<TcpStream>, String) {
    let mut path = String::new();
    #[allow(clippy::result_large_err)]
    let note = |request: &Request, response: Response| {
        path = request.uri().to_string();
        Ok(response)
    };
    let socket = tokio_tungstenite::accept_hdr_async(stream, note)
        .await
        .unwrap();
    (socket, path)
}

/// The server is to learn the relay's address only, from the checks that come from there.
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

impl Media {
    /// The participant is to learn the relay's address only.
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
                        .filter_map(|line| self.own_line(line))
                        .collect();
                    data["sdp"] = (lines.join("\r\n") + "\r\n").into();
                }
                _ => {}
            }
            Some(data)
        });
        // What cannot be rewritten is not ours to change.
        passed.unwrap_or(message)
    }

    /// Candidates become that of the relay; there may be only one for each m-line, so that of loopback's is dropped.
    fn own_line(&self, line: &str) -> Option<String> {
        match line.strip_prefix("a=") {
            Some(candidate) if candidate.starts_with("candidate:") => self
                .own_candidate(candidate)
                .map(|candidate| format!("a={candidate}")),
            _ => Some(line.to_owned()),
        }
    }

    fn own_candidate(&self, line: &str) -> Option<String> {
        let mut parts: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let server: SocketAddr = format!("{}:{}", parts.get(4)?, parts.get(5)?)
            .parse()
            .ok()?;
        let known = *self.server.lock().unwrap().get_or_insert(server);
        let own = self.face.local_addr().unwrap();
        parts[4] = own.ip().to_string();
        parts[5] = own.port().to_string();
        (known == server).then(|| parts.join(" "))
    }
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
    value["data"] = change(&kind, value["data"].take())?;
    Some(Message::text(value.to_string()))
}
