//! Media over TCP (RFC 6544, passive): the connections of this worker's peers, each a stream of datagrams with their
//! length before them (RFC 4571, section 2).
//!
//! A connection arrives here with the request that told whose it is; [`super::acceptor`] has seen to that.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Interest, Registry, Token};
use slab::Slab;

use crate::worker::acceptor::Incoming;
use crate::worker::demux::Slot;
use crate::worker::socket::Path;

/// The first stream's token; below it are the worker's own.
pub const FIRST_STREAM: usize = 16;
/// Longest datagram that is taken or sent. A peer that announces a longer one is not an ICE agent: it is closed.
pub const MAX_DATAGRAM: usize = 4096;
/// Worker → one connection, bytes: a keyframe of a good camera, or a second at 1 Mbit/s. When it is full, datagrams
/// are dropped whole (`slow_reader`), as on a congested link: the peer's feedback shows it.
pub const SEND_QUEUE: usize = 128 << 10;
/// What the kernel may hold beside it; it doubles the number. At 100 ms of round trip that lets 10 Mbit/s through.
const KERNEL_SEND_BUFFER: usize = 64 << 10;
/// Bytes that are read at once.
const READ_BUFFER: usize = 16 << 10;
/// A connection on which nothing comes for this long is closed; ICE agents check every few seconds.
const IDLE: Duration = Duration::from_secs(60);
/// Between two searches for idle connections.
const SWEEP: Duration = Duration::from_secs(5);

/// A connection. Never means another one later, unlike its place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamId {
    place: u32,
    generation: u32,
}

/// What the connections did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamCounters {
    /// Connections that a peer took.
    pub opened: u64,
    /// Connections now.
    pub open: u64,
    /// Datagrams received.
    pub datagrams_in: u64,
    /// Datagrams sent.
    pub datagrams_out: u64,
    /// Connections whose first request was not its peer's, or collided with another address of it.
    pub refused: u64,
    /// Datagrams dropped because the reader is slow.
    pub slow_reader: u64,
    /// Datagrams for a connection that has ended.
    pub gone: u64,
    /// Connections closed for a datagram that is too long.
    pub malformed: u64,
    /// Connections closed because nothing came.
    pub idle: u64,
}

impl StreamCounters {
    /// Drops and refusals, by name.
    pub fn drops(&self) -> [(&'static str, u64); 5] {
        [
            ("refused", self.refused),
            ("slow_reader", self.slow_reader),
            ("gone", self.gone),
            ("malformed", self.malformed),
            ("idle", self.idle),
        ]
    }
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// There may be more.
    More,
    /// Nothing more for now.
    Empty,
    /// The connection has ended and is forgotten.
    Closed,
}

struct Stream {
    io: mio::net::TcpStream,
    path: Path,
    owner: Slot,
    /// What has been read and not yet taken, at most [`READ_BUFFER`] and one datagram.
    input: Vec<u8>,
    /// Framed datagrams; those before `sent` have left.
    output: Vec<u8>,
    sent: usize,
    heard: Instant,
    /// Held for the connection's whole life: see [`super::acceptor::MAX_CONNECTIONS`].
    _permit: tokio::sync::OwnedSemaphorePermit,
}

/// The connections of one worker.
pub struct Streams {
    registry: Registry,
    table: Slab<Stream>,
    generation: u32,
    next_sweep: Option<Instant>,
    counters: StreamCounters,
}

impl Streams {
    /// Without connections.
    pub fn new(registry: Registry) -> Self {
        Streams {
            registry,
            table: Slab::new(),
            generation: 0,
            next_sweep: None,
            counters: StreamCounters::default(),
        }
    }

    /// The poll that streams are watched by.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Counters since the start.
    pub fn counters(&self) -> StreamCounters {
        StreamCounters {
            open: self.table.len() as u64,
            ..self.counters
        }
    }

    /// A connection was not given to a peer.
    pub fn note_refused(&mut self) {
        self.counters.refused += 1;
    }

    /// Takes a connection for a peer, with what was read of it.
    ///
    /// # Errors
    /// The poll does not take it.
    pub fn open(&mut self, now: Instant, owner: Slot, incoming: Incoming) -> io::Result<StreamId> {
        // Best effort: without them it works too, only with more delay.
        let _ = incoming.io.set_nodelay(true);
        let _ = socket2::SockRef::from(&incoming.io).set_send_buffer_size(KERNEL_SEND_BUFFER);
        incoming.io.set_nonblocking(true)?;
        let mut io = mio::net::TcpStream::from_std(incoming.io);
        let entry = self.table.vacant_entry();
        let place = entry.key();
        let token = Token(FIRST_STREAM + place);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.registry.register(&mut io, token, interest)?;
        self.generation = self.generation.wrapping_add(1);
        let id = StreamId {
            place: place as u32,
            generation: self.generation,
        };
        entry.insert(Stream {
            io,
            path: Path {
                remote: incoming.remote,
                local: None,
                stream: Some(id),
            },
            owner,
            input: incoming.read,
            output: Vec::new(),
            sent: 0,
            heard: now,
            _permit: incoming.permit,
        });
        self.counters.opened += 1;
        Ok(id)
    }

    /// The connection of an event's token.
    pub fn of_token(&self, token: Token) -> Option<StreamId> {
        let place = token.0.checked_sub(FIRST_STREAM)?;
        self.table.get(place)?.path.stream
    }

    /// Whose it is, and its path.
    pub fn owner(&self, id: StreamId) -> Option<(Slot, Path)> {
        let stream = self.get(id)?;
        Some((stream.owner, stream.path))
    }

    /// Reads once. Whole datagrams are then taken with [`Streams::take_input`].
    pub fn read(&mut self, now: Instant, id: StreamId) -> ReadOutcome {
        let Some(stream) = self.get_mut(id) else {
            return ReadOutcome::Closed;
        };
        let filled = stream.input.len();
        stream.input.resize(filled + READ_BUFFER, 0);
        let read = stream.io.read(&mut stream.input[filled..]);
        let len = *read.as_ref().unwrap_or(&0);
        stream.input.truncate(filled + len);
        match read {
            Ok(0) => {
                self.close(id);
                ReadOutcome::Closed
            }
            Ok(_) => {
                stream.heard = now;
                ReadOutcome::More
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => ReadOutcome::More,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ReadOutcome::Empty,
            Err(_) => {
                self.close(id);
                ReadOutcome::Closed
            }
        }
    }

    /// What was read, to be walked with [`next_frame`] and given back with [`Streams::return_input`].
    pub fn take_input(&mut self, id: StreamId) -> Vec<u8> {
        self.get_mut(id)
            .map(|stream| std::mem::take(&mut stream.input))
            .unwrap_or_default()
    }

    /// Gives back what is left behind the first `taken` bytes, in which `datagrams` were.
    pub fn return_input(&mut self, id: StreamId, mut input: Vec<u8>, taken: usize, datagrams: u64) {
        self.counters.datagrams_in += datagrams;
        if let Some(stream) = self.get_mut(id) {
            input.drain(..taken.min(input.len()));
            stream.input = input;
        }
    }

    /// Ends a connection that does not speak the framing.
    pub fn close_malformed(&mut self, id: StreamId) {
        if self.get(id).is_some() {
            self.counters.malformed += 1;
            self.close(id);
        }
    }

    /// Queues datagrams and sends what the kernel takes.
    pub fn send<'d>(&mut self, id: StreamId, datagrams: impl Iterator<Item = &'d [u8]>) {
        let Some(stream) = self.table.get_mut(id.place as usize) else {
            self.counters.gone += datagrams.count() as u64;
            return;
        };
        if stream.path.stream != Some(id) {
            self.counters.gone += datagrams.count() as u64;
            return;
        }
        for datagram in datagrams {
            let waiting = stream.output.len() - stream.sent;
            if datagram.len() > MAX_DATAGRAM || waiting + 2 + datagram.len() > SEND_QUEUE {
                self.counters.slow_reader += 1;
                continue;
            }
            let length = datagram.len() as u16;
            stream.output.extend(length.to_be_bytes());
            stream.output.extend(datagram);
            self.counters.datagrams_out += 1;
        }
        self.write(id);
    }

    /// Sends what waits, as far as the kernel takes it.
    pub fn write(&mut self, id: StreamId) {
        let Some(stream) = self.get_mut(id) else {
            return;
        };
        while stream.sent < stream.output.len() {
            match stream.io.write(&stream.output[stream.sent..]) {
                Ok(0) => break,
                Ok(sent) => stream.sent += sent,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.close(id);
                    return;
                }
            }
        }
        if stream.sent == stream.output.len() {
            stream.output.clear();
            stream.sent = 0;
        } else if stream.sent >= SEND_QUEUE / 2 {
            stream.output.drain(..stream.sent);
            stream.sent = 0;
        }
    }

    /// Ends a connection; nothing if it has ended.
    pub fn close(&mut self, id: StreamId) {
        if self.get(id).is_some() {
            let mut stream = self.table.remove(id.place as usize);
            // It fails only if it is not registered, and it is.
            let _ = self.registry.deregister(&mut stream.io);
        }
    }

    /// Closes connections on which nothing comes any more. Cheap to call at any time.
    pub fn sweep(&mut self, now: Instant) {
        if self.table.is_empty() || self.next_sweep.is_some_and(|at| now < at) {
            return;
        }
        self.next_sweep = Some(now + SWEEP);
        let idle: smallvec::SmallVec<[StreamId; 16]> = self
            .table
            .iter()
            .filter(|(_, stream)| now.saturating_duration_since(stream.heard) >= IDLE)
            .filter_map(|(_, stream)| stream.path.stream)
            .collect();
        for id in idle {
            self.counters.idle += 1;
            self.close(id);
        }
    }

    fn get(&self, id: StreamId) -> Option<&Stream> {
        let stream = self.table.get(id.place as usize)?;
        (stream.path.stream == Some(id)).then_some(stream)
    }

    fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        let stream = self.table.get_mut(id.place as usize)?;
        (stream.path.stream == Some(id)).then_some(stream)
    }
}

/// What stands at `at` in a stream of framed datagrams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A datagram, at these bytes; the next one begins where it ends.
    Whole(std::ops::Range<usize>),
    /// It has not arrived whole.
    Partial,
    /// It is longer than [`MAX_DATAGRAM`].
    TooLong,
}

/// Reads one length and finds its datagram.
pub fn next_frame(bytes: &[u8], at: usize) -> Frame {
    let Some(length) = bytes.get(at..at + 2) else {
        return Frame::Partial;
    };
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    if length > MAX_DATAGRAM {
        return Frame::TooLong;
    }
    let range = at + 2..at + 2 + length;
    if range.end <= bytes.len() {
        Frame::Whole(range)
    } else {
        Frame::Partial
    }
}

/// The remote address of a connection, an IPv4 one in its own form.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests;
