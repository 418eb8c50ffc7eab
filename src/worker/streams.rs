//! What the loop does with TCP connections: gives them to their peers, and reads them fairly.

use std::time::Instant;

use mio::event::Event as PollEvent;

use crate::transport::requested_ufrag;
use crate::worker::acceptor::Incoming;
use crate::worker::tcp::{Frame, ReadOutcome, StreamId, next_frame};
use crate::worker::thread::Worker;

/// Reads of one connection between two looks at everything else, of 16 KiB each.
const READS_PER_PASS: usize = 4;

/// The connections that may have something to read.
#[derive(Default)]
pub struct Readable(Vec<StreamId>);

impl Readable {
    /// Nothing to read?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn note(&mut self, id: StreamId) {
        if !self.0.contains(&id) {
            self.0.push(id);
        }
    }
}

impl Worker {
    /// Something happened on a connection.
    pub(super) fn on_stream_event(&mut self, event: &PollEvent) {
        let Some(id) = self.socket.streams.of_token(event.token()) else {
            return;
        };
        if event.is_writable() {
            self.socket.streams.write(id);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.readable_streams.note(id);
        }
    }

    /// Gives a connection to the peer that its first request names, if the request was made with that peer's password.
    pub(super) fn connect_stream(&mut self, now: Instant, incoming: Incoming) {
        let Frame::Whole(first) = next_frame(&incoming.read, 0) else {
            return self.socket.streams.note_refused();
        };
        let request = &incoming.read[first];
        let owner = requested_ufrag(request).and_then(|_| self.demux.addressee(request));
        let Some((slot, peer)) = owner.and_then(|slot| Some((slot, self.peers.get_mut(slot)?)))
        else {
            return self.socket.streams.note_refused();
        };
        let remote = incoming.remote;
        if !peer.session.is_signed(request) || !peer.session.takes_stream(remote) {
            return self.socket.streams.note_refused();
        }
        match self.socket.streams.open(now, slot, incoming) {
            Ok(id) => {
                if let Some(displaced) = peer.session.add_stream(remote, id) {
                    self.socket.streams.close(displaced);
                }
                self.take_datagrams(now, id);
                self.readable_streams.note(id);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                self.socket.streams.note_refused();
            }
        }
    }

    /// Reads every connection that has something, a bounded amount of each.
    pub(super) fn receive_streams(&mut self) {
        let mut ready = std::mem::take(&mut self.readable_streams.0);
        ready.retain(|id| self.receive_stream(*id));
        // What came up meanwhile waits for the next pass too.
        for id in std::mem::replace(&mut self.readable_streams.0, ready) {
            self.readable_streams.note(id);
        }
    }

    /// False: nothing more for now.
    fn receive_stream(&mut self, id: StreamId) -> bool {
        for _ in 0..READS_PER_PASS {
            let now = Instant::now();
            match self.socket.streams.read(now, id) {
                ReadOutcome::More => {
                    self.take_datagrams(now, id);
                    self.flush();
                }
                ReadOutcome::Empty | ReadOutcome::Closed => return false,
            }
        }
        true
    }

    /// Handles every whole datagram that was read.
    fn take_datagrams(&mut self, now: Instant, id: StreamId) {
        let Some((slot, path)) = self.socket.streams.owner(id) else {
            return;
        };
        let mut input = self.socket.streams.take_input(id);
        let (mut at, mut count) = (0, 0);
        loop {
            match next_frame(&input, at) {
                Frame::Whole(range) => {
                    at = range.end;
                    count += 1;
                    self.handle_stream_datagram(now, slot, path, &mut input[range]);
                }
                Frame::Partial => break,
                Frame::TooLong => {
                    self.socket.streams.close_malformed(id);
                    break;
                }
            }
        }
        self.socket.streams.return_input(id, input, at, count);
    }
}
