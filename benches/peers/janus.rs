//! Janus (Debian's package) with its VideoRoom and its AudioBridge.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use talksy_unit::transport::srtp::SrtpProfile;
use tempfile::TempDir;

use super::process::{Process, until};
use super::socket::Socket;
use crate::support::connection::{Connection, Identity, Local, connect};
use crate::support::sdp;
use crate::{ADDRESS, AUDIO_BITRATE, AUDIO_COMPLEXITY, AUDIO_LOSS, Peer, System};

const PORT: u16 = 18188;
const ROOM: u64 = 77;

pub struct Janus {
    process: Process,
    identity: Identity,
    profile: SrtpProfile,
    socket: Socket,
    session: u64,
    transaction: u64,
    peers: usize,
    feed: Value,
    bridge: bool,
    /// Read while it runs.
    _configuration: TempDir,
}

impl Janus {
    pub fn start(identity: &Identity, profile: SrtpProfile) -> Self {
        let configuration = configure();
        let mut command = Command::new("janus");
        command.arg("-F").arg(configuration.path());
        let process = Process::start(&mut command);
        let address = SocketAddr::new(ADDRESS, PORT);
        let socket = until("Janus", || {
            Socket::open(address, "/", Some("janus-protocol"))
        });
        let mut janus = Janus {
            process,
            identity: identity.clone(),
            profile,
            socket,
            session: 0,
            transaction: 0,
            peers: 0,
            feed: Value::Null,
            bridge: false,
            _configuration: configuration,
        };
        janus.session = janus.ask(json!({"janus": "create"}))["data"]["id"]
            .as_u64()
            .expect("a session");
        janus
    }

    /// Sends a request and waits for its reply, an acknowledgement not counted.
    fn ask(&mut self, mut request: Value) -> Value {
        self.transaction += 1;
        let transaction = self.transaction.to_string();
        request["transaction"] = json!(transaction);
        if self.session != 0 {
            request["session_id"] = json!(self.session);
        }
        self.socket.send(&request);
        let reply = self.socket.wait("Janus's reply", |message| {
            let mine = message["transaction"] == transaction.as_str();
            (mine && message["janus"] != "ack").then(|| message.clone())
        });
        let failed = reply["janus"] == "error" || !reply["plugindata"]["data"]["error"].is_null();
        assert!(!failed, "Janus refuses {request}: {reply}");
        reply
    }

    fn attach(&mut self, plugin: &str) -> u64 {
        let request = json!({"janus": "attach", "plugin": format!("janus.plugin.{plugin}")});
        self.ask(request)["data"]["id"].as_u64().expect("a handle")
    }

    fn message(&mut self, handle: u64, body: Value, jsep: Option<(&str, String)>) -> Value {
        let mut request = json!({"janus": "message", "handle_id": handle, "body": body});
        if let Some((kind, sdp)) = jsep {
            request["jsep"] = json!({"type": kind, "sdp": sdp, "trickle": false});
        }
        self.ask(request)
    }

    fn local(&mut self) -> Local {
        self.peers += 1;
        self.identity.local(self.peers)
    }

    fn connect(&self, local: Local, reply: &Value) -> (Connection, String) {
        let sdp = reply["jsep"]["sdp"].as_str().expect("a description");
        let candidate = sdp
            .lines()
            .find_map(|line| line.strip_prefix("a=candidate:"))
            .expect("a candidate");
        let mut fields = candidate.split(' ').skip(4);
        let (ip, port) = (fields.next(), fields.next());
        let to = SocketAddr::new(
            ip.and_then(|ip| ip.parse().ok()).expect("an address"),
            port.and_then(|port| port.parse().ok()).expect("a port"),
        );
        let connection = connect(&self.identity, local, sdp, to, self.profile);
        (connection.expect("a connection"), sdp.to_owned())
    }
}

impl System for Janus {
    const NAME: &'static str = "Janus";

    fn cpu_us(&self) -> f64 {
        self.process.cpu_us()
    }

    fn publisher(&mut self) -> Connection {
        let handle = self.attach("videoroom");
        let room = json!({
            "request": "create", "room": ROOM, "publishers": 2, "bitrate": 0, "audiocodec": "opus", "videocodec": "h264",
            "audiolevel_event": false, "transport_wide_cc_ext": true, "fir_freq": 0,
        });
        self.message(handle, room, None);
        let join =
            json!({"request": "join", "ptype": "publisher", "room": ROOM, "display": "bench"});
        let joined = self.message(handle, join, None);
        self.feed = joined["plugindata"]["data"]["id"].clone();
        let local = self.local();
        // Janus answers as the DTLS client unless the offer takes that part.
        let offer = sdp::offer(&local).replace("setup:actpass", "setup:active");
        let publish = json!({"request": "publish", "audiocodec": "opus", "videocodec": "h264"});
        let reply = self.message(handle, publish, Some(("offer", offer)));
        let connection = self.connect(local, &reply).0;
        // Nobody can subscribe before.
        self.socket.wait("the publisher's beginning", |message| {
            let mine = message["sender"] == handle && message["janus"] == "webrtcup";
            mine.then_some(())
        });
        connection
    }

    fn subscriber(&mut self) -> Peer {
        let handle = self.attach("videoroom");
        let join = json!({
            "request": "join", "ptype": "subscriber", "room": ROOM, "streams": [{"feed": self.feed}],
        });
        let reply = self.message(handle, join, None);
        let local = self.local();
        let offer = reply["jsep"]["sdp"].as_str().expect("an offer");
        let answer = sdp::answer(offer, &local);
        self.message(
            handle,
            json!({"request": "start"}),
            Some(("answer", answer)),
        );
        let (connection, offer) = self.connect(local, &reply);
        let lines = sdp::receive_lines(&offer);
        Peer { connection, lines }
    }

    fn speaker(&mut self) -> Peer {
        let handle = self.attach("audiobridge");
        if !std::mem::replace(&mut self.bridge, true) {
            let room = json!({
                "request": "create", "room": ROOM, "sampling_rate": 48000, "audiolevel_event": false,
                "default_bitrate": AUDIO_BITRATE,
            });
            self.message(handle, room, None);
        }
        let join = json!({
            "request": "join", "room": ROOM, "display": "bench", "quality": AUDIO_COMPLEXITY, "bitrate": AUDIO_BITRATE,
            "expected_loss": AUDIO_LOSS,
        });
        self.message(handle, join, None);
        let local = self.local();
        let offer = sdp::offer_audio(&local)
            .replace("setup:actpass", "setup:active")
            .replace("a=sendonly", "a=sendrecv");
        let reply = self.message(
            handle,
            json!({"request": "configure"}),
            Some(("offer", offer)),
        );
        let (connection, answer) = self.connect(local, &reply);
        let lines = sdp::receive_lines(&answer.replace("a=sendrecv", "a=sendonly"));
        Peer { connection, lines }
    }
}

/// A folder of settings: nothing that is not measured, and lite, because the light peers control.
fn configure() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let libraries = [
        "/usr/lib/x86_64-linux-gnu/janus",
        "/usr/lib/aarch64-linux-gnu/janus",
        "/usr/lib/janus",
    ];
    let libraries = libraries.iter().find(|path| Path::new(path).is_dir());
    let libraries = libraries.expect("Janus's plugins, as Debian installs them");
    let main = format!(
        "general: {{\n  configs_folder = \"{}\"\n  plugins_folder = \"{libraries}/plugins\"\n\
         \x20 transports_folder = \"{libraries}/transports\"\n  events_folder = \"{libraries}/events\"\n\
         \x20 loggers_folder = \"{libraries}/loggers\"\n  debug_level = 1\n  session_timeout = 0\n}}\n\
         media: {{\n  ipv6 = false\n}}\n\
         nat: {{\n  ice_lite = true\n  ice_enforce_list = \"{ADDRESS}\"\n}}\n\
         transports: {{\n  disable = \"libjanus_http.so,libjanus_mqtt.so,libjanus_nanomsg.so,libjanus_pfunix.so,libjanus_rabbitmq.so\"\n}}\n",
        folder.path().display(),
    );
    let sockets = format!(
        "general: {{\n  json = \"plain\"\n  ws = true\n  ws_port = {PORT}\n  ws_logging = 0\n}}\n"
    );
    for (name, text) in [
        ("janus.jcfg", main.as_str()),
        ("janus.transport.websockets.jcfg", &sockets),
        ("janus.plugin.videoroom.jcfg", "general: {\n}\n"),
        ("janus.plugin.audiobridge.jcfg", "general: {\n}\n"),
    ] {
        std::fs::write(folder.path().join(name), text).expect("a file");
    }
    folder
}
