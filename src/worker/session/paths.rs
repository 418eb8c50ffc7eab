//! The ways between a peer and us: its TCP connections, and from where to where its datagrams went.

use std::net::SocketAddr;

use super::{MAX_SEEN, MAX_STREAMS, Session};
use crate::worker::socket::Path;
use crate::worker::tcp::StreamId;

impl Session {
    /// Whether a connection from this address can be told from the peer's UDP.
    pub fn takes_stream(&self, remote: SocketAddr) -> bool {
        self.stream_of(remote).is_some() || !self.transport.knows(remote)
    }

    /// A connection is the peer's from now on. Returns the one that it displaces.
    pub fn add_stream(&mut self, remote: SocketAddr, stream: StreamId) -> Option<StreamId> {
        let selected = self.transport.selected();
        let same = |(known, _): &(SocketAddr, StreamId)| *known == remote;
        let displaced = match self.streams.iter().position(same) {
            Some(at) => Some(at),
            None if self.streams.len() < MAX_STREAMS => None,
            None => self
                .streams
                .iter()
                .position(|(known, _)| Some(*known) != selected),
        };
        let displaced = displaced.map(|at| self.streams.remove(at).1);
        self.streams.push((remote, stream));
        if selected == Some(remote) {
            self.path = Some(self.path_to(remote));
        }
        displaced
    }

    pub(super) fn stream_of(&self, remote: SocketAddr) -> Option<StreamId> {
        let known = self.streams.iter().find(|(known, _)| *known == remote);
        known.map(|(_, stream)| *stream)
    }

    pub(super) fn path_to(&self, remote: SocketAddr) -> Path {
        let seen = self.seen.iter().find(|path| path.remote == remote);
        Path {
            remote,
            local: seen.and_then(|path| path.local),
            stream: self.stream_of(remote),
        }
    }

    pub(super) fn remember(&mut self, path: Path) {
        match self.seen.iter_mut().find(|seen| seen.remote == path.remote) {
            Some(seen) => *seen = path,
            None => {
                if self.seen.len() >= MAX_SEEN {
                    self.seen.remove(0);
                }
                self.seen.push(path);
            }
        }
    }
}
