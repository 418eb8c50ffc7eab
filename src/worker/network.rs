//! Everything that a worker sends and receives through: its UDP port on both address families, and the TCP
//! connections of its peers.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use mio::{Interest, Registry, Token};

use crate::worker::socket::{Outbox, Path, ReceiveBatch, SocketCounters, UdpPort};
use crate::worker::tcp::Streams;

/// The IPv4 socket's token.
pub const UDP_V4: Token = Token(0);
/// The IPv6 socket's token.
pub const UDP_V6: Token = Token(1);
/// Ports that the system is asked for until one is free on both families.
const PORT_ATTEMPTS: usize = 16;

/// An address family, as the index of its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// Of an address.
    pub fn of(address: SocketAddr) -> Self {
        if address.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        }
    }
}

/// See the module's text.
pub struct Socket {
    /// Indexed by [`Family`]; a host may lack one of them.
    udp: [Option<UdpPort>; 2],
    /// The TCP connections.
    pub streams: Streams,
    /// Datagrams for a family that this host does not have.
    unreachable: u64,
}

impl Socket {
    /// Binds `port` on every family that the host has; 0: the system chooses one that is free on both.
    ///
    /// # Errors
    /// The port is taken on one of them, or the host has no family at all.
    pub fn bind(port: u16, registry: Registry) -> io::Result<Self> {
        let mut attempt = 0;
        let udp = loop {
            attempt += 1;
            match bind_both(port) {
                Err(error)
                    if port == 0
                        && error.kind() == io::ErrorKind::AddrInUse
                        && attempt < PORT_ATTEMPTS => {}
                other => break other?,
            }
        };
        let mut socket = Socket {
            udp,
            streams: Streams::new(registry),
            unreachable: 0,
        };
        for (udp, token) in socket.udp.iter_mut().zip([UDP_V4, UDP_V6]) {
            if let Some(udp) = udp {
                socket
                    .streams
                    .registry()
                    .register(udp.source(), token, Interest::READABLE)?;
            }
        }
        Ok(socket)
    }

    /// The port, the same on both families.
    ///
    /// # Errors
    /// The system's own.
    pub fn port(&self) -> io::Result<u16> {
        let bound = self.udp.iter().flatten().next();
        let bound = bound.ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(bound.local_addr()?.port())
    }

    /// Counters of UDP since the start.
    pub fn counters(&self) -> SocketCounters {
        let counters = self.udp.iter().flatten().map(UdpPort::counters);
        let mut sum = counters.fold(SocketCounters::default(), SocketCounters::plus);
        sum.refused += self.unreachable;
        sum
    }

    /// Packets in and out so far, over UDP and TCP.
    pub fn packets(&self) -> u64 {
        let (udp, tcp) = (self.counters(), self.streams.counters());
        udp.datagrams_in + udp.datagrams_out + tcp.datagrams_in + tcp.datagrams_out
    }

    /// Fills `batch` from one family's socket; false when nothing more is there.
    pub fn receive(&mut self, family: Family, batch: &mut ReceiveBatch) -> bool {
        match &mut self.udp[family as usize] {
            Some(udp) => udp.receive(batch),
            None => {
                batch.clear();
                false
            }
        }
    }

    /// Sends one datagram. A full buffer drops it, as the network would.
    pub fn send(&mut self, path: Path, datagram: &[u8]) {
        match path.stream {
            Some(stream) => self.streams.send(stream, std::iter::once(datagram)),
            None => match &mut self.udp[Family::of(path.remote) as usize] {
                Some(udp) => udp.send(path, datagram),
                None => self.unreachable += 1,
            },
        }
    }

    /// Sends an outbox to its peer and empties it.
    pub fn send_all(&mut self, path: Path, outbox: &mut Outbox) {
        match path.stream {
            Some(stream) => self.streams.send(stream, outbox.datagrams()),
            None => match &mut self.udp[Family::of(path.remote) as usize] {
                Some(udp) => udp.send_all(path, outbox),
                None => self.unreachable += 1,
            },
        }
        outbox.clear();
    }
}

fn bind_both(port: u16) -> io::Result<[Option<UdpPort>; 2]> {
    let v4 = bind_family(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
    let port = match &v4 {
        Some(v4) => v4.local_addr()?.port(),
        None => port,
    };
    let v6 = bind_family(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))?;
    if v4.is_none() && v6.is_none() {
        return Err(io::ErrorKind::AddrNotAvailable.into());
    }
    Ok([v4, v6])
}

/// `None`: the host does not have this family.
fn bind_family(address: SocketAddr) -> io::Result<Option<UdpPort>> {
    match UdpPort::bind(address) {
        Ok(udp) => Ok(Some(udp)),
        Err(error) if is_missing_family(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether binding a wildcard failed because the host lacks the address family.
pub fn is_missing_family(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EAFNOSUPPORT)
        || error.kind() == io::ErrorKind::AddrNotAvailable
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};
    use std::net::{IpAddr, UdpSocket};
    use std::time::{Duration, Instant};

    #[test]
    fn one_port_serves_both_families_and_answers_in_kind() {
        let mut poll = Poll::new().unwrap();
        let mut socket = Socket::bind(0, poll.registry().try_clone().unwrap()).unwrap();
        let port = socket.port().unwrap();
        let others = [
            IpAddr::from(Ipv4Addr::LOCALHOST),
            IpAddr::from(Ipv6Addr::LOCALHOST),
        ]
        .map(|ip| (ip, UdpSocket::bind((ip, 0)).unwrap()));
        for (ip, other) in &others {
            other
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            other.send_to(b"hello", (*ip, port)).unwrap();
        }
        let (mut events, mut batch) = (Events::with_capacity(8), ReceiveBatch::default());
        let (deadline, mut heard) = (Instant::now() + Duration::from_secs(5), Vec::new());
        while heard.len() < 2 && Instant::now() < deadline {
            poll.poll(&mut events, Some(Duration::from_millis(100)))
                .unwrap();
            for family in Family::ALL {
                socket.receive(family, &mut batch);
                let paths: Vec<Path> = batch.datagrams().map(|(path, _)| path).collect();
                for path in paths {
                    assert_eq!(Family::of(path.remote), family);
                    socket.send(path, b"hello yourself");
                    heard.push(family);
                }
            }
        }
        assert_eq!(heard, Family::ALL);
        for (ip, other) in &others {
            let mut answer = [0; 32];
            let (len, from) = other.recv_from(&mut answer).unwrap();
            assert_eq!(&answer[..len], b"hello yourself");
            assert_eq!((from.ip(), from.port()), (*ip, port));
        }
        assert_eq!(socket.counters().datagrams_out, 2);
    }

    #[test]
    fn a_port_that_is_taken_is_an_error() {
        let poll = Poll::new().unwrap();
        let taken = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = Socket::bind(port, poll.registry().try_clone().unwrap()).err();
        assert_eq!(error.map(|e| e.kind()), Some(io::ErrorKind::AddrInUse));
    }
}
