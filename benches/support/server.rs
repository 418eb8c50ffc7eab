//! The server under measurement: its media side, started as the product starts it, with one room.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use talksy_unit::ids::{PeerId, RoomKey, TrackKey};
use talksy_unit::rtp::params::ReceiveLine;
use talksy_unit::transport::srtp::SrtpProfile;
use talksy_unit::worker::{
    Command, Delivery, Event, MediaConfig, PeerParams, WorkerHandle, start_all,
};
use tokio::sync::mpsc;

use super::connection::{Connection, Identity, Local, connect};
use super::sdp;

/// A loaded machine answers late.
const PATIENCE: Duration = Duration::from_secs(60);
/// A handshake that does not end (an overloaded machine may lose its packets) is begun anew, as a page would.
const ATTEMPTS: usize = 4;
const THREAD: &str = "media-0";

/// One worker with one room.
pub struct Server {
    worker: WorkerHandle,
    address: SocketAddr,
    room: RoomKey,
    events: mpsc::Receiver<Event>,
    waiting: VecDeque<Event>,
    identity: Identity,
    profile: SrtpProfile,
    peers: usize,
    thread: i32,
}

/// A connected peer that nothing is sent to yet.
pub struct Joined {
    peer: PeerId,
    local: Local,
}

impl Server {
    pub fn start(identity: &Identity, profile: SrtpProfile) -> Self {
        let media = start_all(&MediaConfig {
            tcp_port: None,
            public_ips: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            first_port: 0,
            workers: 1,
            theme: Default::default(),
            sound: talksy_unit::mcu::audio::AudioMixConfig::default(),
            ladder: Default::default(),
        });
        let mut media = media.expect("the media side starts");
        let (sender, events) = mpsc::channel(4096);
        let room = RoomKey::next();
        let worker = media.workers.remove(0);
        let opened = worker.send(Command::OpenRoom {
            room,
            events: sender,
            voices: Default::default(),
        });
        opened.expect("room in the queue");
        Server {
            worker,
            address: media.advertised[0],
            room,
            events,
            waiting: VecDeque::new(),
            identity: identity.clone(),
            profile,
            peers: 0,
            thread: until("the worker's thread", || thread_named(THREAD)),
        }
    }

    /// The worker's thread.
    pub fn thread(&self) -> i32 {
        self.thread
    }

    /// Connects a peer that sends a camera and a microphone.
    pub fn publisher(&mut self) -> Connection {
        let (peer, number) = self.add_peer(true);
        let local = self.identity.local(number);
        let sdp = sdp::offer(&local);
        self.send(Command::Offer { peer, sdp });
        let answer = self.wait("an answer", |event| match event {
            Event::Answer { peer: to, sdp } if *to == peer => Some(sdp.clone()),
            _ => None,
        });
        connect(&self.identity, local, &answer, self.address, self.profile).expect("a connection")
    }

    /// The published tracks, once both have begun.
    pub fn tracks(&mut self) -> Vec<TrackKey> {
        let mut next = || {
            self.wait("a published track", |event| match event {
                Event::TrackPublished { track, .. } => Some(track.key),
                _ => None,
            })
        };
        vec![next(), next()]
    }

    /// Connects a peer that will receive.
    pub fn join(&mut self) -> (Joined, Connection) {
        for attempt in 1..=ATTEMPTS {
            let (peer, number) = self.add_peer(false);
            let local = self.identity.local(number);
            let offer = self.next_offer(peer);
            let sdp = sdp::answer(&offer, &local);
            self.send(Command::Answer { peer, sdp });
            let (to, profile) = (self.address, self.profile);
            match connect(&self.identity, local.clone(), &offer, to, profile) {
                Ok(connection) => return (Joined { peer, local }, connection),
                Err(error) => eprintln!("attempt {attempt} to connect a subscriber: {error}"),
            }
            self.send(Command::RemovePeer { peer });
        }
        panic!("a subscriber does not connect");
    }

    /// Subscribes a connected peer to `tracks`. `prepare` is told the m-lines on which they come, before they do.
    pub fn subscribe(
        &mut self,
        joined: &Joined,
        tracks: &[TrackKey],
        prepare: impl FnOnce(Vec<ReceiveLine>),
    ) {
        let peer = joined.peer;
        self.send(Command::Subscribe {
            peer,
            tracks: tracks.to_vec(),
        });
        let offer = self.next_offer(peer);
        let lines = sdp::receive_lines(&offer);
        assert_eq!(
            lines.len(),
            tracks.len(),
            "all tracks in one offer:\n{offer}"
        );
        prepare(lines);
        let sdp = sdp::answer(&offer, &joined.local);
        self.send(Command::Answer { peer, sdp });
    }

    fn next_offer(&mut self, peer: PeerId) -> String {
        self.wait("an offer", |event| match event {
            Event::Offer { peer: to, sdp } if *to == peer => Some(sdp.clone()),
            _ => None,
        })
    }

    fn add_peer(&mut self, client_offers_first: bool) -> (PeerId, usize) {
        let peer = PeerId::random();
        self.peers += 1;
        self.send(Command::AddPeer {
            room: self.room,
            peer,
            params: PeerParams {
                name: format!("peer {}", self.peers),
                delivery: Delivery::Forward,
                client_offers_first,
                max_receive_bps: None,
                canvas: None,
            },
        });
        (peer, self.peers)
    }

    fn send(&self, command: Command) {
        self.worker.send(command).expect("room in the queue");
    }

    /// The first event that `pick` takes; the others wait, but figures.
    fn wait<T>(&mut self, what: &str, pick: impl Fn(&Event) -> Option<T>) -> T {
        let found = self.waiting.iter().enumerate();
        if let Some((at, value)) = found.filter_map(|(at, e)| Some((at, pick(e)?))).next() {
            self.waiting.remove(at);
            return value;
        }
        until(what, || {
            let event = self.events.try_recv().ok()?;
            if let Event::Failed { message, .. } = &event {
                panic!("while waiting for {what}: {message}");
            }
            let picked = pick(&event);
            if picked.is_none() && !matches!(event, Event::Stats { .. }) {
                self.waiting.push_back(event);
            }
            picked
        })
    }

    /// Takes what the worker tells, so that its queue does not fill.
    pub fn drain(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            if let Event::Disconnected { reason, .. } = event {
                panic!("a peer was lost: {reason}");
            }
        }
    }

    /// CPU time of the worker's thread, in µs.
    pub fn cpu_us(&self) -> f64 {
        let path = format!("/proc/self/task/{}/schedstat", self.thread);
        let text = std::fs::read_to_string(path).expect("the thread runs");
        let nanos = text.split(' ').next().and_then(|first| first.parse().ok());
        nanos.map_or(0.0, |nanos: u64| nanos as f64 / 1e3)
    }

    /// Ends the worker and waits for its thread.
    pub fn stop(self) {
        drop(self.worker);
        until("the worker's end", || {
            thread_named(THREAD).is_none().then_some(())
        });
    }
}

fn thread_named(name: &str) -> Option<i32> {
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    tasks.flatten().find_map(|task| {
        let comm = std::fs::read_to_string(task.path().join("comm")).ok()?;
        let id = task.file_name().to_str()?.parse().ok()?;
        (comm.trim_end() == name).then_some(id)
    })
}

/// Asks again and again until there is an answer.
fn until<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = poll() {
            return value;
        }
        assert!(
            Instant::now() < give_up,
            "{what} did not come in {PATIENCE:?}"
        );
        std::thread::sleep(Duration::from_micros(200));
    }
}
