//! The subscribers: one thread that empties their sockets every few milliseconds, opens and counts what came, and
//! sends the reports of real receivers.
//!
//! Nobody waits on a socket, so that no receiver's wake-up is charged to the worker.

use std::io::IoSliceMut;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use socket2::SockRef;
use talksy_unit::rtp::demux::{DatagramKind, classify};
use talksy_unit::rtp::params::{MediaKind, ReceiveLine, Ssrc};
use talksy_unit::sfu::{DropReason, Publisher as Ingest};

use super::connection::Connection;
use super::publisher::NUMBER_AT;

/// Between two sweeps over the sockets; kernel buffers hold far more.
pub const SWEEP: Duration = Duration::from_millis(5);

/// Of each subscriber's socket, in bytes: half a minute of 1.5 Mbit/s, if the kernel allows it.
const KERNEL_BUFFER: usize = 4 << 20;

/// The running subscribers.
pub struct Receivers {
    tell: mpsc::Sender<Change>,
    shared: Arc<Shared>,
    thread: JoinHandle<Vec<Tally>>,
}

/// What the sweeping thread is told between two sweeps.
enum Change {
    Add(Box<Connection>, Vec<ReceiveLine>),
    /// Of the subscriber with this number; the answer says that it holds.
    SetLines(usize, Vec<ReceiveLine>, mpsc::Sender<()>),
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    packets: AtomicU64,
    /// What each sweep found at the first subscriber.
    groups: Mutex<Vec<Vec<Group>>>,
}

/// Datagrams that the worker sent together.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// All of them.
    pub bytes: usize,
    /// Each; the last may be shorter.
    pub segment: usize,
}

impl Group {
    /// How many.
    pub fn datagrams(&self) -> usize {
        self.bytes.div_ceil(self.segment)
    }
}

/// What one subscriber has got of one kind of media.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    first: Option<u64>,
    last: u64,
    pub packets: u64,
}

impl Count {
    fn add(&mut self, number: u64) {
        self.first.get_or_insert(number);
        self.last = self.last.max(number);
        self.packets += 1;
    }

    /// Whether everything came from the first packet on, up to the last of `sent`.
    fn is_whole(&self, sent: u64) -> bool {
        let Some(first) = self.first else {
            return false;
        };
        self.last + 1 == sent && self.packets == sent - first
    }
}

/// What one subscriber has got.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    audio: Count,
    video: Count,
    recovered: u64,
    /// Datagrams that could not be opened or read.
    bad: u64,
}

impl Tally {
    /// Nothing lost, nothing twice, nothing repaired, nothing broken.
    pub fn is_whole(&self, (video, audio): (u64, u64)) -> bool {
        let clean = self.recovered == 0 && self.bad == 0;
        clean && self.video.is_whole(video) && self.audio.is_whole(audio)
    }
}

impl Receivers {
    pub fn start() -> Self {
        let (tell, told) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let sweeper = Sweeper {
            told,
            shared: shared.clone(),
            subscribers: Vec::new(),
            buffer: vec![0; 1 << 16],
        };
        let thread = std::thread::Builder::new()
            .name("receivers".into())
            .spawn(move || sweeper.run())
            .expect("a thread");
        Receivers {
            tell,
            shared,
            thread,
        }
    }

    /// Takes a connected subscriber. The first one shows in what groups its packets were sent.
    pub fn add(&self, connection: Connection, lines: Vec<ReceiveLine>) {
        let told = self.tell.send(Change::Add(Box::new(connection), lines));
        told.expect("the receivers run");
    }

    /// Says on what lines the `number`th subscriber that was added receives from now on.
    pub fn set_lines(&self, number: usize, lines: Vec<ReceiveLine>) {
        let (done, wait) = mpsc::channel();
        let told = self.tell.send(Change::SetLines(number, lines, done));
        told.expect("the receivers run");
        wait.recv().expect("the receivers run");
    }

    /// Packets of media that all subscribers got so far.
    pub fn packets(&self) -> u64 {
        self.shared.packets.load(Ordering::Acquire)
    }

    /// What the sweeps since the last call found at the first subscriber.
    pub fn take_groups(&self) -> Vec<Vec<Group>> {
        std::mem::take(&mut self.shared.groups.lock().expect("no panic"))
    }

    /// Waits until nothing more comes, and returns what each subscriber has got.
    pub fn stop(self) -> Vec<Tally> {
        let quiet = 4 * SWEEP;
        let mut before = self.packets();
        let mut since = Instant::now();
        while since.elapsed() < quiet {
            std::thread::sleep(SWEEP);
            let now = self.packets();
            if now != before {
                (before, since) = (now, Instant::now());
            }
        }
        self.shared.stop.store(true, Ordering::Release);
        self.thread.join().expect("the receivers end well")
    }
}

struct Sweeper {
    told: mpsc::Receiver<Change>,
    shared: Arc<Shared>,
    subscribers: Vec<Subscriber>,
    buffer: Vec<u8>,
}

impl Sweeper {
    fn run(mut self) -> Vec<Tally> {
        while !self.shared.stop.load(Ordering::Acquire) {
            let began = Instant::now();
            while let Ok(change) = self.told.try_recv() {
                self.change(change);
            }
            for subscriber in &mut self.subscribers {
                subscriber.sweep(began, &mut self.buffer, &self.shared);
            }
            std::thread::sleep(SWEEP.saturating_sub(began.elapsed()));
        }
        let tallies = self.subscribers.into_iter();
        tallies.map(|subscriber| subscriber.tally).collect()
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Add(connection, lines) => {
                let scout = self.subscribers.is_empty();
                self.subscribers
                    .push(Subscriber::new(*connection, &lines, scout));
            }
            Change::SetLines(number, lines, done) => {
                self.subscribers[number].ingest.set_lines(&lines);
                // Who asked may have given up.
                let _ = done.send(());
            }
        }
    }
}

struct Subscriber {
    connection: Connection,
    /// Tells datagrams that were sent together.
    groups: Option<UdpSocketState>,
    ingest: Ingest,
    tally: Tally,
    out: Vec<u8>,
}

impl Subscriber {
    fn new(connection: Connection, lines: &[ReceiveLine], scout: bool) -> Self {
        let set = connection.socket.set_nonblocking(true);
        set.expect("a non-blocking socket");
        // The receivers' thread may have to wait for its turn; what cannot be had is done without.
        let _ = SockRef::from(&connection.socket).set_recv_buffer_size(KERNEL_BUFFER);
        let mut ingest = Ingest::new(Ssrc(99));
        ingest.set_lines(lines);
        let groups = scout.then(|| UdpSocketState::new(UdpSockRef::from(&connection.socket)));
        Subscriber {
            connection,
            groups: groups.transpose().expect("a socket with options"),
            ingest,
            tally: Tally::default(),
            out: Vec::with_capacity(2048),
        }
    }

    fn sweep(&mut self, now: Instant, buffer: &mut [u8], shared: &Shared) {
        let mut groups = Vec::new();
        while let Some((bytes, segment)) = self.receive(buffer) {
            if classify(buffer) == DatagramKind::Rtp {
                groups.push(Group { bytes, segment });
            }
            for datagram in buffer[..bytes].chunks_mut(segment) {
                self.take(now, datagram, shared);
            }
        }
        if self.groups.is_some() {
            shared.groups.lock().expect("no panic").push(groups);
        }
        self.answer(now);
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Option<(usize, usize)> {
        let Some(state) = &self.groups else {
            let length = self.connection.socket.recv(buffer).ok()?;
            return Some((length, length.max(1)));
        };
        let mut slices = [IoSliceMut::new(buffer)];
        let mut meta = [RecvMeta::default()];
        let socket = UdpSockRef::from(&self.connection.socket);
        state.recv(socket, &mut slices, &mut meta).ok()?;
        Some((meta[0].len, meta[0].stride.max(1)))
    }

    fn take(&mut self, now: Instant, datagram: &mut [u8], shared: &Shared) {
        match classify(datagram) {
            DatagramKind::Rtp => {
                let Ok(opened) = self.connection.open.open_rtp(datagram) else {
                    self.tally.bad += 1;
                    return;
                };
                let packet = match self.ingest.handle_rtp(now, &datagram[..opened.len]) {
                    Ok(packet) => packet,
                    // A probe of the server's estimator.
                    Err(DropReason::Padding) => return,
                    Err(_) => {
                        self.tally.bad += 1;
                        return;
                    }
                };
                self.tally.recovered += u64::from(packet.recovered);
                let number = packet
                    .payload
                    .get(NUMBER_AT..)
                    .and_then(<[u8]>::first_chunk);
                let number = u64::from_be_bytes(*number.expect("a number in each packet"));
                match packet.codec.kind() {
                    MediaKind::Audio => self.tally.audio.add(number),
                    MediaKind::Video => self.tally.video.add(number),
                }
                shared.packets.fetch_add(1, Ordering::AcqRel);
            }
            DatagramKind::Rtcp => {
                self.tally.bad += u64::from(self.connection.open.open_rtcp(datagram).is_err());
            }
            DatagramKind::Stun => {
                if let Some(answer) = self.connection.ice.answer(datagram) {
                    let _ = self.connection.socket.send(&answer);
                }
            }
            _ => {}
        }
    }

    /// Receiver reports once a second, transport-wide feedback every 50 ms, consent every 2.5 s.
    fn answer(&mut self, now: Instant) {
        loop {
            self.out.clear();
            if !self.ingest.poll_feedback(now, &mut self.out) {
                break;
            }
            let sealed = self.connection.seal.seal_rtcp(&mut self.out, 0);
            sealed.expect("keys that last");
            let _ = self.connection.socket.send(&self.out);
        }
        if let Some(check) = self.connection.ice.poll_consent(now) {
            let _ = self.connection.socket.send(&check);
        }
    }
}
