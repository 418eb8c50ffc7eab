//! The bridge between a client and the server: a thread that carries Ethernet frames between two interfaces.

use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, bind, setsockopt, socket, sockopt,
};

use super::impairment::{Cause, Fate, Impairment, Settings};
use super::trace::{Seen, parse};

/// Frames that the kernel keeps for a bridge that has no processor.
const KERNEL_BUFFER: usize = 4 << 20;
/// Media packets of each direction that are remembered since [`Link::begin`]: 20 minutes of a busy call. Later ones are
/// only counted.
const MAX_SEEN: usize = 500_000;
/// An idle bridge looks this often whether it is still wanted.
const IDLE: Duration = Duration::from_millis(100);
/// Queueing delays are counted up to this many milliseconds; longer ones count as that.
const LONGEST_QUEUE_MS: usize = 5000;

/// One direction of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// What happened in one direction since [`Link::begin`].
#[derive(Clone, Debug)]
pub struct Counters {
    /// Frames that came.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Lost each for itself.
    pub lost: u64,
    /// Lost in bursts.
    pub lost_in_bursts: u64,
    /// Did not fit into the queue.
    pub queue_full: u64,
    /// Came late, after others.
    pub late: u64,
    /// Came twice.
    pub duplicates: u64,
    /// Frames by whole milliseconds in the queue.
    queued_ms: Vec<u32>,
}

/// What was measured since [`Link::begin`].
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// All frames.
    pub counters: Counters,
    /// Media packets in the order in which they came.
    pub seen: Vec<Seen>,
}

/// The way between a client and the server. Dropping it cuts the connection.
pub struct Link {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    lanes: Mutex<[Lane; 2]>,
    stop: AtomicBool,
}

struct Lane {
    impairment: Impairment,
    measured: Measured,
    waiting: BinaryHeap<Waiting>,
    /// Keeps those that leave at the same time in order.
    number: u64,
}

struct Waiting {
    at: Instant,
    number: u64,
    frame: Vec<u8>,
}

impl Link {
    /// Joins two interfaces of this thread's namespace.
    pub(super) fn start(to_client: &str, to_server: &str, seed: u64) -> Self {
        let ends = [open(to_client), open(to_server)];
        let shared = Arc::new(Shared {
            lanes: Mutex::new([Lane::new(2 * seed), Lane::new(2 * seed + 1)]),
            stop: AtomicBool::new(false),
        });
        let bridge = shared.clone();
        let thread = std::thread::Builder::new().name("bridge".into());
        let thread = thread.spawn(move || bridge.run(ends));
        Link {
            shared,
            thread: Some(thread.expect("a thread")),
        }
    }

    /// What one direction does from now on.
    pub fn set(&self, way: Way, settings: Settings) {
        self.shared.lanes()[way as usize].impairment.set(settings);
    }

    /// What both directions do from now on.
    pub fn set_both(&self, settings: Settings) {
        self.set(Way::Up, settings);
        self.set(Way::Down, settings);
    }

    /// Forgets what was measured until now.
    pub fn begin(&self) {
        for lane in self.shared.lanes().iter_mut() {
            lane.measured = Measured::default();
        }
    }

    /// What was measured since [`Link::begin`], of one direction.
    pub fn measured(&self, way: Way) -> Measured {
        self.shared.lanes()[way as usize].measured.clone()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Counters {
    /// Frames that went on, those that came twice counted once.
    pub fn delivered(&self) -> u64 {
        self.packets - self.lost - self.lost_in_bursts - self.queue_full
    }

    /// Share of the frames that were lost, whatever the reason.
    pub fn loss(&self) -> f64 {
        1.0 - self.delivered() as f64 / self.packets.max(1) as f64
    }

    /// The time in the queue that this share of the frames (0 to 1) did not exceed.
    pub fn queueing(&self, share: f64) -> Duration {
        let all: u64 = self.queued_ms.iter().copied().map(u64::from).sum();
        let mut left = (all as f64 * share).ceil() as u64;
        let within = self.queued_ms.iter().position(|count| {
            left = left.saturating_sub(u64::from(*count));
            left == 0
        });
        Duration::from_millis(within.unwrap_or(0) as u64)
    }

    fn count(&mut self, size: usize, fate: &Fate) {
        self.packets += 1;
        self.bytes += size as u64;
        match fate {
            Fate::Lost(Cause::Random) => self.lost += 1,
            Fate::Lost(Cause::Burst) => self.lost_in_bursts += 1,
            Fate::Lost(Cause::QueueFull) => self.queue_full += 1,
            Fate::Leaves {
                queued,
                twice,
                late,
                ..
            } => {
                let queued = (queued.as_millis() as usize).min(LONGEST_QUEUE_MS);
                self.queued_ms[queued] += 1;
                self.duplicates += u64::from(*twice);
                self.late += u64::from(*late);
            }
        }
    }
}

impl Default for Counters {
    fn default() -> Self {
        Counters {
            packets: 0,
            bytes: 0,
            lost: 0,
            lost_in_bursts: 0,
            queue_full: 0,
            late: 0,
            duplicates: 0,
            queued_ms: vec![0; LONGEST_QUEUE_MS + 1],
        }
    }
}

impl Shared {
    fn lanes(&self) -> MutexGuard<'_, [Lane; 2]> {
        self.lanes.lock().expect("nobody panics with it")
    }

    fn run(&self, ends: [File; 2]) {
        let mut poll = Poll::new().expect("epoll");
        for (at, end) in ends.iter().enumerate() {
            let registry = poll.registry();
            let raw = end.as_raw_fd();
            let registered = registry.register(&mut SourceFd(&raw), Token(at), Interest::READABLE);
            registered.expect("a packet socket can be polled");
        }
        let mut events = Events::with_capacity(8);
        let mut buffer = vec![0; 1 << 16];
        let mut due: Option<Instant> = None;
        while !self.stop.load(Ordering::Acquire) {
            let wait = due.map_or(IDLE, |due| due.saturating_duration_since(Instant::now()));
            match poll.poll(&mut events, Some(wait.min(IDLE))) {
                Err(error) if error.kind() != ErrorKind::Interrupted => {
                    panic!("the bridge cannot wait: {error}")
                }
                _ => {}
            }
            let mut lanes = self.lanes();
            due = None;
            for (at, lane) in lanes.iter_mut().enumerate() {
                while let Some(length) = receive(&ends[at], &mut buffer) {
                    lane.handle(Instant::now(), &buffer[..length]);
                }
                lane.send(Instant::now(), &ends[1 - at]);
                due = due
                    .into_iter()
                    .chain(lane.waiting.peek().map(|w| w.at))
                    .min();
            }
        }
    }
}

impl Lane {
    fn new(seed: u64) -> Self {
        Lane {
            impairment: Impairment::new(seed),
            measured: Measured::default(),
            waiting: BinaryHeap::new(),
            number: 0,
        }
    }

    fn handle(&mut self, now: Instant, frame: &[u8]) {
        // Without addresses there is no network at all, not a bad one.
        if frame.get(12..14) == Some(&[0x08, 0x06]) {
            self.wait(now, frame);
            return;
        }
        let fate = self.impairment.decide(now, frame.len());
        self.measured.counters.count(frame.len(), &fate);
        if let Some(packet) = parse(frame).filter(|_| self.measured.seen.len() < MAX_SEEN) {
            self.measured.seen.push(Seen {
                at: now,
                fate,
                packet,
            });
        }
        if let Fate::Leaves { at, twice, .. } = fate {
            for _ in 0..1 + u8::from(twice) {
                self.wait(at, frame);
            }
        }
    }

    fn wait(&mut self, at: Instant, frame: &[u8]) {
        self.waiting.push(Waiting {
            at,
            number: self.number,
            frame: frame.to_vec(),
        });
        self.number += 1;
    }

    fn send(&mut self, now: Instant, mut end: &File) {
        while self.waiting.peek().is_some_and(|first| first.at <= now) {
            let first = self.waiting.pop().expect("it was there");
            match end.write(&first.frame) {
                Ok(_) => {}
                // The other end goes down with its client; nothing is there to be told.
                Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ENETDOWN as i32) => {}
                Err(error) => panic!("{} bytes cannot be sent: {error}", first.frame.len()),
            }
        }
    }
}

// The first to leave is the greatest.
impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Waiting {}

/// A socket that takes and sends whole frames of one interface (packet(7)).
fn open(interface: &str) -> File {
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
        SockProtocol::EthAll,
    );
    let socket = socket.expect("this user may open packet sockets");
    let addresses = getifaddrs().expect("interfaces have addresses");
    let address = addresses
        .filter(|found| found.interface_name == interface)
        .find_map(|found| found.address?.as_link_addr().copied());
    let address = address.expect("the interface was made");
    bind(socket.as_raw_fd(), &address).expect("an interface can be bound to");
    // A user that is root in a namespace of its own alone may not go beyond the system's limit.
    setsockopt(&socket, sockopt::RcvBufForce, &KERNEL_BUFFER)
        .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &KERNEL_BUFFER))
        .expect("a socket's buffer can be set");
    File::from(socket)
}

fn receive(mut end: &File, buffer: &mut [u8]) -> Option<usize> {
    match end.read(buffer) {
        Ok(length) => Some(length),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ENETDOWN as i32) => None,
        Err(error) => panic!("a bridge cannot read: {error}"),
    }
}
