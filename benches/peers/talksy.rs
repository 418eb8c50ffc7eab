//! This server, as its users start it: the release binary.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::{Value, json};
use talksy_unit::rtp::params::ReceiveLine;
use talksy_unit::transport::srtp::SrtpProfile;

use super::process::{Process, until};
use super::socket::Socket;
use crate::support::connection::{Connection, Identity, Local, connect};
use crate::support::sdp;
use crate::{ADDRESS, Peer, System};

const HTTP: u16 = 18000;
const MEDIA: u16 = 18100;

pub struct Talksy {
    process: Process,
    identity: Identity,
    profile: SrtpProfile,
    peers: usize,
    /// Kept open: who closes it leaves.
    sockets: Vec<Socket>,
}

impl Talksy {
    pub fn start(identity: &Identity, profile: SrtpProfile) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_talksy-unit"));
        command
            .args(["--port", &HTTP.to_string()])
            .args(["--media-port", &MEDIA.to_string()])
            .args(["--workers", "1", "--log-level", "error"])
            .env("PUBLIC_IP", ADDRESS.to_string());
        Talksy {
            process: Process::start(&mut command),
            identity: identity.clone(),
            profile,
            peers: 0,
            sockets: Vec::new(),
        }
    }

    fn join(&mut self, query: &str) -> (Socket, Local) {
        let address = SocketAddr::new(ADDRESS, HTTP);
        let path = format!("/ws?room_id=bench{query}");
        let mut socket = until("the server", || Socket::open(address, &path, None));
        socket.wait("an id", |message| of(message, "clientid"));
        self.peers += 1;
        (socket, self.identity.local(self.peers))
    }

    fn connect(&self, local: Local, sdp: &str) -> Connection {
        let to = SocketAddr::new(ADDRESS, MEDIA);
        connect(&self.identity, local, sdp, to, self.profile).expect("a connection")
    }

    /// Offers what it publishes, and connects.
    fn offer(
        &mut self,
        query: &str,
        offer: impl Fn(&Local) -> String,
    ) -> (Socket, Local, Connection) {
        let (mut socket, local) = self.join(query);
        socket.send(&json!({"type": "offer", "data": offer(&local)}));
        let answer = socket.wait("an answer", |message| description(message, "answer"));
        let connection = self.connect(local.clone(), &answer);
        (socket, local, connection)
    }
}

impl System for Talksy {
    const NAME: &'static str = "this server";

    fn cpu_us(&self) -> f64 {
        self.process.cpu_us()
    }

    fn publisher(&mut self) -> Connection {
        let (socket, _, connection) = self.offer("", sdp::offer);
        self.sockets.push(socket);
        connection
    }

    fn subscriber(&mut self) -> Peer {
        let (mut socket, local) = self.join("&publish=0");
        let first = socket.wait("an offer", |message| description(message, "offer"));
        let answer = sdp::answer(&first, &local);
        socket.send(&json!({"type": "answer", "data": answer}));
        let connection = self.connect(local.clone(), &first);
        let mut tracks = Vec::new();
        while tracks.len() < 2 {
            let more = socket.wait("tracks", |message| of(message, "tracks_available"));
            let more = more.as_object().expect("an object").values().cloned();
            tracks.extend(more);
        }
        socket.send(&json!({"type": "subscribe_tracks", "data": tracks}));
        let mut lines: Vec<ReceiveLine> = Vec::new();
        while lines.len() < 2 {
            let offer = socket.wait("an offer", |message| description(message, "offer"));
            let answer = sdp::answer(&offer, &local);
            socket.send(&json!({"type": "answer", "data": answer}));
            lines = sdp::receive_lines(&offer);
        }
        self.sockets.push(socket);
        Peer { connection, lines }
    }

    fn speaker(&mut self) -> Peer {
        let (mut socket, local, connection) = self.offer("&audio=mixed", sdp::offer_audio);
        let mut lines: Vec<ReceiveLine> = Vec::new();
        while lines.is_empty() {
            let offer = socket.wait("an offer", |message| description(message, "offer"));
            let answer = sdp::answer(&offer, &local);
            socket.send(&json!({"type": "answer", "data": answer}));
            lines = sdp::receive_lines(&offer);
        }
        self.sockets.push(socket);
        Peer { connection, lines }
    }
}

fn of(message: &Value, kind: &str) -> Option<Value> {
    (message["type"] == kind).then(|| message["data"].clone())
}

fn description(message: &Value, kind: &str) -> Option<String> {
    of(message, kind)?["sdp"].as_str().map(str::to_owned)
}
