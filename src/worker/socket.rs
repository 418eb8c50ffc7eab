//! A UDP socket of the worker: batches in (GRO, `recvmmsg`), grouped datagrams out (GSO).

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket as RawSocket, Type};

use crate::worker::tcp::StreamId;

/// Kernel buffers: a keyframe to fifty subscribers is about 4 MB at once. The kernel may grant less.
const KERNEL_BUFFER: usize = 8 << 20;
/// One buffer of a receive batch; GRO fills it with datagrams of one sender.
const RECEIVE_BUFFER: usize = 65_536;
/// A GSO send is limited by the size of an IP packet, less the headers.
const MAX_GSO_BYTES: usize = 65_000;

/// How a datagram reached us, and how an answer goes back: with the address it was sent to as its source, which
/// matters on hosts with several addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// The remote end.
    pub remote: SocketAddr,
    /// Our address, where the platform tells it.
    pub local: Option<IpAddr>,
    /// The connection, if the datagram came over TCP.
    pub stream: Option<StreamId>,
}

/// What the socket did, for figures and benches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketCounters {
    /// Datagrams received.
    pub datagrams_in: u64,
    /// Datagrams sent.
    pub datagrams_out: u64,
    /// `sendmsg` calls: `datagrams_out / sends` is the mean GSO group.
    pub sends: u64,
    /// Datagrams that the kernel's full buffer or an unreachable network refused.
    pub refused: u64,
}

impl SocketCounters {
    /// The counts of both.
    pub fn plus(self, other: SocketCounters) -> SocketCounters {
        SocketCounters {
            datagrams_in: self.datagrams_in + other.datagrams_in,
            datagrams_out: self.datagrams_out + other.datagrams_out,
            sends: self.sends + other.sends,
            refused: self.refused + other.refused,
        }
    }
}

/// A non-blocking UDP socket of one address family with the platform's batching.
pub struct UdpPort {
    io: mio::net::UdpSocket,
    state: UdpSocketState,
    max_segments: usize,
    counters: SocketCounters,
}

impl UdpPort {
    /// Binds `address`.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let raw = RawSocket::new(
            Domain::for_address(address),
            Type::DGRAM,
            Some(Protocol::UDP),
        )?;
        if address.is_ipv6() {
            raw.set_only_v6(true)?;
        }
        raw.set_nonblocking(true)?;
        // Best effort: the limits of the kernel (net.core.rmem_max) stand above ours.
        let _ = raw.set_recv_buffer_size(KERNEL_BUFFER);
        let _ = raw.set_send_buffer_size(KERNEL_BUFFER);
        raw.bind(&address.into())?;
        let io = mio::net::UdpSocket::from_std(raw.into());
        let state = UdpSocketState::new(UdpSockRef::from(&io))?;
        let max_segments = state.max_gso_segments().max(1);
        Ok(UdpPort {
            io,
            state,
            max_segments,
            counters: SocketCounters::default(),
        })
    }

    /// For registration with the poll.
    pub fn source(&mut self) -> &mut mio::net::UdpSocket {
        &mut self.io
    }

    /// Where it is bound.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    /// Counters since the start.
    pub fn counters(&self) -> SocketCounters {
        self.counters
    }

    /// Fills `batch`; false when nothing more is there: a batch that is not full has emptied the socket, and what
    /// comes after it makes it readable anew.
    pub fn receive(&mut self, batch: &mut ReceiveBatch) -> bool {
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] = {
            let mut buffers = batch.buffers.chunks_exact_mut(RECEIVE_BUFFER);
            std::array::from_fn(|_| IoSliceMut::new(buffers.next().unwrap_or_default()))
        };
        match self
            .state
            .recv(UdpSockRef::from(&self.io), &mut slices, &mut batch.meta)
        {
            Ok(count) => {
                batch.filled = count;
                batch.arrival = Instant::now();
                let datagrams = batch.meta[..count]
                    .iter()
                    .map(|m| m.len.div_ceil(m.stride.max(1)) as u64);
                self.counters.datagrams_in += datagrams.sum::<u64>();
                count == BATCH_SIZE
            }
            // Errors of a UDP socket concern single datagrams (ICMP); the next call goes on.
            Err(_) => {
                batch.filled = 0;
                false
            }
        }
    }

    /// Sends one datagram. A full kernel buffer drops it, as the network would.
    pub fn send(&mut self, path: Path, datagram: &[u8]) {
        self.transmit(path, datagram, None, 1);
    }

    /// Sends an outbox to its peer, in groups of datagrams of one size (the last of a group may be smaller), and
    /// empties it.
    pub fn send_all(&mut self, path: Path, outbox: &mut Outbox) {
        let mut start = 0;
        let mut first = 0;
        while first < outbox.sizes.len() {
            let segment = outbox.sizes[first] as usize;
            let (mut end, mut last) = (start + segment, first + 1);
            while last < outbox.sizes.len() && last - first < self.max_segments {
                let size = outbox.sizes[last] as usize;
                if size > segment || end - start + size > MAX_GSO_BYTES {
                    break;
                }
                end += size;
                last += 1;
                if size < segment {
                    break;
                }
            }
            let group = last - first;
            self.transmit(
                path,
                &outbox.bytes[start..end],
                (group > 1).then_some(segment),
                group as u64,
            );
            (start, first) = (end, last);
        }
        outbox.clear();
    }

    fn transmit(
        &mut self,
        path: Path,
        contents: &[u8],
        segment_size: Option<usize>,
        datagrams: u64,
    ) {
        let transmit = Transmit {
            destination: path.remote,
            ecn: None,
            contents,
            segment_size,
            src_ip: path.local,
        };
        self.counters.sends += 1;
        match self.state.try_send(UdpSockRef::from(&self.io), &transmit) {
            Ok(()) => self.counters.datagrams_out += datagrams,
            Err(_) => self.counters.refused += datagrams,
        }
    }
}

/// The buffers of one receive call: 32 times 64 KiB, reused.
pub struct ReceiveBatch {
    buffers: Vec<u8>,
    meta: [RecvMeta; BATCH_SIZE],
    filled: usize,
    arrival: Instant,
}

impl Default for ReceiveBatch {
    fn default() -> Self {
        ReceiveBatch {
            buffers: vec![0; RECEIVE_BUFFER * BATCH_SIZE],
            meta: [RecvMeta::default(); BATCH_SIZE],
            filled: 0,
            arrival: Instant::now(),
        }
    }
}

impl ReceiveBatch {
    /// Nothing was read.
    pub(super) fn clear(&mut self) {
        self.filled = 0;
    }

    /// When the batch was read.
    pub fn arrival(&self) -> Instant {
        self.arrival
    }

    /// Where the datagrams came from; those of one sender may have come together.
    pub fn remotes(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.meta[..self.filled].iter().map(|meta| meta.addr)
    }

    /// Every datagram with its path, to be decrypted in place.
    pub fn datagrams(&mut self) -> impl Iterator<Item = (Path, &mut [u8])> {
        let filled = self.filled;
        self.buffers
            .chunks_exact_mut(RECEIVE_BUFFER)
            .zip(&self.meta)
            .take(filled)
            .flat_map(|(buffer, meta)| {
                let path = Path {
                    remote: meta.addr,
                    local: meta.dst_ip,
                    stream: None,
                };
                let len = meta.len.min(buffer.len());
                buffer[..len]
                    .chunks_mut(meta.stride.max(1))
                    .map(move |datagram| (path, datagram))
            })
    }
}

/// What one pass of the loop has for one peer: sealed packets back to back.
#[derive(Default)]
pub struct Outbox {
    /// The packets.
    pub bytes: Vec<u8>,
    sizes: Vec<u16>,
}

impl Outbox {
    /// Everything from `start` on is one datagram, if it was sealed; otherwise it is taken back, since nothing may
    /// leave in the clear. Returns `sealed`.
    pub fn commit(&mut self, start: usize, sealed: bool) -> bool {
        if sealed {
            self.sizes.push((self.bytes.len() - start) as u16);
        } else {
            self.bytes.truncate(start);
        }
        sealed
    }

    /// The datagrams, in order.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes.as_slice();
        self.sizes.iter().map(move |size| {
            let (datagram, after) = rest.split_at(usize::from(*size));
            rest = after;
            datagram
        })
    }

    /// Nothing to send?
    pub fn is_empty(&self) -> bool {
        self.sizes.is_empty()
    }

    /// Drops what is there, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.sizes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (UdpPort, std::net::UdpSocket, Path) {
        let socket = UdpPort::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        other
            .set_read_timeout(Some(std::time::Duration::from_secs(5)))
            .unwrap();
        let path = Path {
            remote: other.local_addr().unwrap(),
            local: None,
            stream: None,
        };
        (socket, other, path)
    }

    #[test]
    fn an_outbox_of_mixed_sizes_arrives_whole_and_in_order() {
        let (mut socket, other, path) = pair();
        let mut outbox = Outbox::default();
        let sizes = [100usize, 100, 100, 60, 100, 200, 200, 1, 1, 5];
        for (i, size) in sizes.iter().enumerate() {
            let start = outbox.bytes.len();
            outbox.bytes.extend(std::iter::repeat_n(i as u8, *size));
            outbox.commit(start, true);
        }
        socket.send_all(path, &mut outbox);
        assert!(outbox.is_empty());
        let mut buffer = [0u8; 2000];
        for (i, size) in sizes.iter().enumerate() {
            let n = other.recv(&mut buffer).unwrap();
            assert_eq!((n, buffer[0]), (*size, i as u8));
        }
        assert_eq!(socket.counters().datagrams_out, sizes.len() as u64);
        assert!(
            socket.counters().sends < sizes.len() as u64,
            "equal sizes go out in groups"
        );
    }

    #[test]
    fn a_batch_tells_each_datagram_and_where_it_came_from() {
        let (mut socket, other, path) = pair();
        let to = socket.local_addr().unwrap();
        for i in 0..5u8 {
            other.send_to(&[i; 40], to).unwrap();
        }
        let mut batch = ReceiveBatch::default();
        let mut seen = vec![];
        let deadline = Instant::now() + std::time::Duration::from_secs(5);
        while seen.len() < 5 && Instant::now() < deadline {
            socket.receive(&mut batch);
            for (from, datagram) in batch.datagrams() {
                assert_eq!(from.remote, path.remote);
                seen.push(datagram[0]);
            }
        }
        assert_eq!(seen, [0, 1, 2, 3, 4]);
    }
}
