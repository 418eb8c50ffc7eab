//! What cannot be saved: encryption and grouped sends, and nothing else.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustix::time::{ClockId, clock_gettime};

use super::receivers::{Group, SWEEP};

/// A packet's header with its extensions stays in the clear.
const HEADER: usize = 32;
const TAG: usize = 16;

/// Sends the groups of each sweep to `subscribers` sockets as the run did; returns µs of CPU per packet.
pub fn measure(subscribers: usize, sweeps: &[Vec<Group>]) -> f64 {
    let sinks = Sinks::start(subscribers);
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    let key = UnboundKey::new(&AES_128_GCM, &[7; 16]).expect("a key of 16 bytes");
    let mut sender = Sender {
        state: UdpSocketState::new(UdpSockRef::from(&socket)).expect("a socket with options"),
        socket,
        key: LessSafeKey::new(key),
        packet: vec![7; 2048],
        number: 0,
        buffer: Vec::with_capacity(1 << 16),
    };
    let mut spent = 0.0;
    let mut due = Instant::now();
    for groups in sweeps {
        let begin = cpu_us();
        for address in &sinks.addresses {
            for group in groups {
                sender.send(*address, *group);
            }
        }
        spent += cpu_us() - begin;
        due += SWEEP;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    let received = sinks.stop();
    assert_eq!(received, sender.number, "nothing is lost on the way");
    spent / sender.number as f64
}

struct Sender {
    socket: UdpSocket,
    state: UdpSocketState,
    key: LessSafeKey,
    packet: Vec<u8>,
    number: u64,
    buffer: Vec<u8>,
}

impl Sender {
    fn send(&mut self, destination: SocketAddr, group: Group) {
        self.buffer.clear();
        let mut left = group.bytes;
        while left > 0 {
            let size = left.min(group.segment);
            left -= size;
            self.seal(size.max(HEADER + TAG));
        }
        let transmit = Transmit {
            destination,
            ecn: None,
            contents: &self.buffer,
            segment_size: (group.segment < group.bytes).then_some(group.segment),
            src_ip: None,
        };
        let sent = self.state.try_send((&self.socket).into(), &transmit);
        sent.expect("loopback takes it");
    }

    fn seal(&mut self, size: usize) {
        self.number += 1;
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&self.packet[..size - TAG]);
        let (header, body) = self.buffer[start..].split_at_mut(HEADER);
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.number.to_be_bytes());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(&*header), body);
        let tag = sealed.expect("a short packet");
        self.buffer.extend_from_slice(tag.as_ref());
    }
}

/// CPU time of this thread.
fn cpu_us() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

/// Sockets that are emptied like those of the subscribers.
struct Sinks {
    addresses: Vec<SocketAddr>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Sinks {
    fn start(count: usize) -> Self {
        let sockets: Vec<UdpSocket> = (0..count)
            .map(|_| UdpSocket::bind("127.0.0.1:0").expect("a socket"))
            .collect();
        let addresses = sockets.iter().map(|s| s.local_addr().expect("bound"));
        let addresses = addresses.collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut received = 0;
            loop {
                // Whatever was sent before the stop is in the kernel's buffers by then.
                let last = stopped.load(Ordering::Acquire);
                received += sockets.iter().map(empty).sum::<u64>();
                if last {
                    return received;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Sinks {
            addresses,
            stop,
            thread,
        }
    }

    /// Datagrams that came.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("the sinks end well")
    }
}

fn empty(socket: &UdpSocket) -> u64 {
    let set = socket.set_nonblocking(true);
    set.expect("a non-blocking socket");
    let mut buffer = [0; 2048];
    std::iter::from_fn(|| socket.recv(&mut buffer).ok()).count() as u64
}
