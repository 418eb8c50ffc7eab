//! The ports: UDP and TCP of every address of the host.

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket as RawSocket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::MAX_MESSAGE;
use super::client::{First, first_message};
use super::credentials::Secret;
use super::peers::PeerPolicy;
use super::quota::{Candidate, Quota, TurnCounters, count};
use super::relay::{Link, Relay};
use crate::worker::{canonical, is_missing_family, listen as listen_tcp};

/// Messages of one client that wait for its task; further ones are dropped (`congested`), as the network would.
const INBOX: usize = 256;
/// Messages that wait to be written to one TCP client; further ones are dropped (`congested`).
const OUTBOX: usize = 256;
/// Clients in the table of a UDP port before those that have ended are looked for.
const SWEEP_FROM: usize = 256;
/// A TCP client from which nothing comes for this long is gone: allocations are refreshed every few minutes.
const TCP_IDLE: Duration = Duration::from_secs(15 * 60);
/// After an error of `accept` (no file descriptor is left): until the next attempt.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A UDP message of a client, and the largest that GRO makes of several.
const UDP_BUFFER: usize = 65_536;

/// What a TURN server is started with.
#[derive(Clone, Debug)]
pub struct TurnConfig {
    /// UDP and TCP port; 0: the system chooses one.
    pub port: u16,
    /// To whom is relayed.
    pub policy: PeerPolicy,
    /// This machine's address for peers outside.
    pub outside: IpAddr,
}

/// There is no TURN server.
#[derive(Debug, thiserror::Error)]
#[error(
    "the TURN port {port} cannot be opened ({error}): stop what uses it, choose another with --turn-port, or go without TURN"
)]
pub struct TurnError {
    port: u16,
    error: io::Error,
}

/// A running TURN server. It ends when this is dropped.
pub struct Turn {
    /// Its port, UDP and TCP.
    pub port: u16,
    /// What signs its credentials.
    pub secret: Secret,
    /// What it did.
    pub counters: Arc<TurnCounters>,
    running: Vec<JoinHandle<()>>,
}

/// What every client's task knows.
pub struct Shared {
    pub policy: Arc<PeerPolicy>,
    pub secret: Secret,
    pub quota: Quota,
    pub counters: Arc<TurnCounters>,
    pub outside: IpAddr,
}

impl Turn {
    /// Opens the ports.
    ///
    /// # Errors
    /// A port is taken, or may not be had.
    pub fn start(config: TurnConfig) -> Result<Turn, TurnError> {
        let failed = |error| TurnError {
            port: config.port,
            error,
        };
        let listeners = listen_tcp(config.port).map_err(failed)?;
        let bound = listeners.first().map(std::net::TcpListener::local_addr);
        let port = bound
            .ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
            .flatten()
            .map_err(failed)?
            .port();
        let shared = Arc::new(Shared {
            policy: Arc::new(config.policy),
            secret: Secret::random(),
            quota: Quota::default(),
            counters: Arc::default(),
            outside: config.outside,
        });
        let mut running = Vec::new();
        for ip in [
            IpAddr::from(Ipv4Addr::UNSPECIFIED),
            IpAddr::from(Ipv6Addr::UNSPECIFIED),
        ] {
            match UdpPort::bind(SocketAddr::new(ip, port)) {
                Ok(socket) => running.push(tokio::spawn(udp(Arc::new(socket), shared.clone()))),
                Err(error) if is_missing_family(&error) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        for listener in listeners {
            let listener = TcpListener::from_std(listener).map_err(failed)?;
            running.push(tokio::spawn(tcp(listener, shared.clone())));
        }
        Ok(Turn {
            port,
            secret: shared.secret.clone(),
            counters: shared.counters.clone(),
            running,
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.running.iter().for_each(JoinHandle::abort);
    }
}

/// A UDP socket that knows to which of the host's addresses a client wrote, and answers from there.
struct UdpPort {
    io: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
}

impl UdpPort {
    fn bind(address: SocketAddr) -> io::Result<Self> {
        let domain = Domain::for_address(address);
        let raw = RawSocket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            raw.set_only_v6(true)?;
        }
        raw.set_nonblocking(true)?;
        raw.bind(&address.into())?;
        let io = UdpSocket::from_std(raw.into())?;
        let state = UdpSocketState::new(UdpSockRef::from(&io))?;
        let local = io.local_addr()?;
        Ok(UdpPort { io, state, local })
    }

    async fn receive(&self, buffer: &mut [u8]) -> io::Result<RecvMeta> {
        let mut meta = [RecvMeta::default()];
        let read = || {
            let mut slices = [IoSliceMut::new(&mut *buffer)];
            self.state
                .recv(UdpSockRef::from(&self.io), &mut slices, &mut meta)
        };
        self.io.async_io(Interest::READABLE, read).await?;
        Ok(meta[0])
    }

    fn send(&self, to: SocketAddr, from: Option<IpAddr>, message: &[u8]) -> bool {
        let transmit = Transmit {
            destination: to,
            ecn: None,
            contents: message,
            segment_size: None,
            src_ip: from,
        };
        let write = || self.state.try_send(UdpSockRef::from(&self.io), &transmit);
        self.io.try_io(Interest::WRITABLE, write).is_ok()
    }
}

struct UdpLink {
    port: Arc<UdpPort>,
    remote: SocketAddr,
    local: Option<IpAddr>,
}

impl Link for UdpLink {
    fn send(&self, message: &[u8]) -> bool {
        self.port.send(self.remote, self.local, message)
    }
}

async fn udp(port: Arc<UdpPort>, shared: Arc<Shared>) {
    let mut clients: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
    let mut sweep_at = SWEEP_FROM;
    let mut buffer = vec![0; UDP_BUFFER];
    loop {
        // Errors of a UDP socket concern single datagrams.
        let Ok(meta) = port.receive(&mut buffer).await else {
            continue;
        };
        let len = meta.len.min(buffer.len());
        for message in buffer[..len].chunks(meta.stride.max(1)) {
            let message = match clients.get(&meta.addr) {
                Some(inbox) => match inbox.try_send(message.to_vec()) {
                    Ok(()) => continue,
                    Err(mpsc::error::TrySendError::Full(_)) => {
                        count(&shared.counters.congested);
                        continue;
                    }
                    Err(mpsc::error::TrySendError::Closed(message)) => message,
                },
                None => message.to_vec(),
            };
            let Some(candidate) = newcomer(&shared, &port, &meta, &message) else {
                clients.remove(&meta.addr);
                continue;
            };
            if clients.len() >= sweep_at {
                clients.retain(|_, inbox| !inbox.is_closed());
                sweep_at = SWEEP_FROM.max(2 * clients.len());
            }
            let (inbox, messages) = mpsc::channel(INBOX);
            // It has room for the first.
            let _ = inbox.try_send(message);
            clients.insert(meta.addr, inbox);
            let link = UdpLink {
                port: port.clone(),
                remote: meta.addr,
                local: meta.dst_ip,
            };
            let relay = Relay::new(shared.clone(), meta.addr, port.local, link, candidate);
            tokio::spawn(relay.run(messages));
        }
    }
}

/// An address that has no client: a place for one if it wants to allocate. Binding requests are answered here.
fn newcomer(shared: &Shared, port: &UdpPort, meta: &RecvMeta, message: &[u8]) -> Option<Candidate> {
    match first_message(meta.addr, message) {
        First::Binding(reply) => {
            if !port.send(meta.addr, meta.dst_ip, &reply) {
                count(&shared.counters.congested);
            }
            None
        }
        First::Stray => {
            count(&shared.counters.stray);
            None
        }
        First::Allocate => {
            let candidate = shared.quota.candidate(meta.addr.ip());
            if candidate.is_none() {
                count(&shared.counters.over_quota);
            }
            candidate
        }
    }
}

struct TcpLink(mpsc::Sender<Vec<u8>>);

impl Link for TcpLink {
    fn send(&self, message: &[u8]) -> bool {
        // Channel data is padded over streams (RFC 8656, section 12.5); STUN messages need none.
        let mut padded = Vec::with_capacity(message.len().next_multiple_of(4));
        padded.extend_from_slice(message);
        padded.resize(message.len().next_multiple_of(4), 0);
        self.0.try_send(padded).is_ok()
    }
}

async fn tcp(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, remote)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let remote = canonical(remote);
        let Some(candidate) = shared.quota.candidate(remote.ip()) else {
            count(&shared.counters.over_quota);
            continue;
        };
        tokio::spawn(serve(stream, remote, shared.clone(), candidate));
    }
}

/// One TCP client: ends with its connection, and ends it when its task has ended.
async fn serve(stream: TcpStream, remote: SocketAddr, shared: Arc<Shared>, candidate: Candidate) {
    let Ok(local) = stream.local_addr() else {
        return;
    };
    // Best effort: without it there is more delay.
    let _ = stream.set_nodelay(true);
    let (mut reader, writer) = stream.into_split();
    let (inbox, messages) = mpsc::channel(INBOX);
    let (outbox, replies) = mpsc::channel(OUTBOX);
    let relay = Relay::new(
        shared.clone(),
        remote,
        canonical(local),
        TcpLink(outbox.clone()),
        candidate,
    );
    let mut task = tokio::spawn(relay.run(messages));
    let writing = tokio::spawn(write(writer, replies));
    let reading = async {
        let mut read = Vec::with_capacity(2 * MAX_MESSAGE);
        while let Some(message) = next_message(&mut reader, &mut read).await {
            if let First::Binding(reply) = first_message(remote, &message) {
                if outbox.try_send(reply).is_err() {
                    count(&shared.counters.congested);
                }
            } else if inbox.send(message).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = reading => {}
        // A panic in the protocol ends this client only.
        _ = &mut task => {}
    }
    task.abort();
    writing.abort();
}

async fn write(mut writer: OwnedWriteHalf, mut replies: mpsc::Receiver<Vec<u8>>) {
    while let Some(reply) = replies.recv().await {
        if writer.write_all(&reply).await.is_err() {
            return;
        }
    }
}

/// The next whole message; `None`: the connection has ended, or is no TURN.
async fn next_message(reader: &mut OwnedReadHalf, read: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Some(length) = message_length(read)? {
            let whole = length.next_multiple_of(4);
            if read.len() >= whole {
                let mut message: Vec<u8> = read.drain(..whole).collect();
                message.truncate(length);
                return Some(message);
            }
        }
        let received = tokio::time::timeout(TCP_IDLE, reader.read_buf(read)).await;
        if received.ok()?.ok()? == 0 {
            return None;
        }
    }
}

/// The length of the message that `read` begins with, without padding. `Some(None)`: not known yet; `None`: no TURN.
fn message_length(read: &[u8]) -> Option<Option<usize>> {
    let Some(head) = read.first_chunk::<4>() else {
        return Some(None);
    };
    let body = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let length = match head[0] {
        0..=3 => 20 + body,
        64..=79 => 4 + body,
        _ => return None,
    };
    (length <= MAX_MESSAGE).then_some(Some(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_a_stream_are_told_apart_by_their_first_byte() {
        assert_eq!(message_length(&[0, 1, 0]), Some(None));
        assert_eq!(message_length(&[0, 1, 0, 8]), Some(Some(28)));
        assert_eq!(message_length(&[0x40, 0, 0, 5]), Some(Some(9)));
        assert_eq!(message_length(b"GET /"), None);
        assert_eq!(message_length(&[0x40, 0, 0xff, 0xff]), None);
    }
}
