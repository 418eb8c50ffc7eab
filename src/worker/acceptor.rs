//! The TCP port of the whole server: takes connections, reads the first STUN request of each (RFC 6544, section 7),
//! and hands the connection to the worker whose peer the request names.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket as RawSocket, Type};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::transport::requested_ufrag;
use crate::worker::network::is_missing_family;
use crate::worker::tcp::{Frame, canonical, next_frame};
use crate::worker::{Command, WorkerHandle};

/// Connections at one time, identified or not; further ones are closed at once.
pub const MAX_CONNECTIONS: usize = 4096;
/// Connections of one address that have not said whose they are; further ones are closed at once. Those that have are
/// limited per peer.
pub const MAX_UNIDENTIFIED_PER_ADDRESS: usize = 32;
/// A connection that has not sent its first request by then is closed.
const IDENTIFY_WITHIN: Duration = Duration::from_secs(5);
/// Longest first message: a binding request with the longest user name and every attribute that browsers add.
const MAX_FIRST: usize = 1500;
/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 256;
/// After an error of `accept` (no file descriptor is left): until the next attempt.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection that has said whose it is, and what was read of it.
#[derive(Debug)]
pub struct Incoming {
    /// The connection.
    pub io: std::net::TcpStream,
    /// Where it comes from.
    pub remote: SocketAddr,
    /// The local user fragment in its first request. Not authenticated.
    pub ufrag: String,
    /// Everything that was read, lengths included.
    pub read: Vec<u8>,
    /// Its part of `MAX_CONNECTIONS`.
    pub permit: OwnedSemaphorePermit,
}

/// Which worker has the peer of a user fragment. Workers write it when a peer comes, goes or restarts ICE; only new
/// TCP connections read it.
#[derive(Clone, Default)]
pub struct Directory {
    ufrags: Arc<Mutex<HashMap<String, usize>>>,
}

impl Directory {
    /// The peer of `ufrag` is on `worker`.
    pub fn insert(&self, ufrag: &str, worker: usize) {
        self.lock().insert(ufrag.to_string(), worker);
    }

    /// It is nowhere any more.
    pub fn remove(&self, ufrag: &str) {
        self.lock().remove(ufrag);
    }

    /// Where it is.
    pub fn find(&self, ufrag: &str) -> Option<usize> {
        self.lock().get(ufrag).copied()
    }

    /// Every statement under the lock leaves the map whole.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.ufrags.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of connections that no worker got.
#[derive(Debug, Default)]
pub struct AcceptorCounters {
    /// Accepted.
    pub accepted: AtomicU64,
    /// Closed because `MAX_CONNECTIONS` or `MAX_UNIDENTIFIED_PER_ADDRESS` are there.
    pub too_many: AtomicU64,
    /// Closed because the first message was no binding request for a peer of this server, or came too late.
    pub unidentified: AtomicU64,
    /// Closed because the worker took no commands.
    pub busy: AtomicU64,
}

impl AcceptorCounters {
    /// Refusals, by name.
    pub fn drops(&self) -> [(&'static str, u64); 3] {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("too_many", count(&self.too_many)),
            ("unidentified", count(&self.unidentified)),
            ("busy", count(&self.busy)),
        ]
    }
}

/// The listening thread. It ends when this is dropped.
pub struct Acceptor {
    /// What it did.
    pub counters: Arc<AcceptorCounters>,
    _stop: oneshot::Sender<()>,
}

struct Shared {
    workers: Vec<WorkerHandle>,
    directory: Directory,
    counters: Arc<AcceptorCounters>,
    permits: Arc<Semaphore>,
    unidentified: Mutex<HashMap<IpAddr, usize>>,
}

impl Acceptor {
    /// Accepts on `listeners` (see [`listen`]).
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start(
        listeners: Vec<std::net::TcpListener>,
        workers: Vec<WorkerHandle>,
        directory: Directory,
    ) -> io::Result<Acceptor> {
        let counters = Arc::new(AcceptorCounters::default());
        let shared = Arc::new(Shared {
            workers,
            directory,
            counters: counters.clone(),
            permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            unidentified: Mutex::default(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        std::thread::Builder::new()
            .name("media-tcp".into())
            .spawn(move || {
                runtime.block_on(async {
                    for listener in listeners {
                        match TcpListener::from_std(listener) {
                            Ok(listener) => {
                                tokio::spawn(accept(listener, shared.clone()));
                            }
                            Err(error) => tracing::error!(%error, "no media over TCP"),
                        }
                    }
                    // An error means that the acceptor was dropped, which is the sign.
                    let _ = stopped.await;
                });
            })?;
        Ok(Acceptor {
            counters,
            _stop: stop,
        })
    }
}

/// A listener for each address family that the host has.
///
/// # Errors
/// The port is taken on one of them, or may not be had.
pub fn listen(port: u16) -> io::Result<Vec<std::net::TcpListener>> {
    let mut listeners = Vec::with_capacity(2);
    let mut port = port;
    for ip in [
        IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::from(Ipv6Addr::UNSPECIFIED),
    ] {
        match listen_at(SocketAddr::new(ip, port)) {
            Ok(listener) => {
                port = listener.local_addr()?.port();
                listeners.push(listener);
            }
            Err(error) if is_missing_family(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(listeners)
}

fn listen_at(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let raw = RawSocket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        raw.set_only_v6(true)?;
    }
    // Connections of a server that has just ended do not keep the next one from its port.
    raw.set_reuse_address(true)?;
    raw.set_nonblocking(true)?;
    raw.bind(&address.into())?;
    raw.listen(BACKLOG)?;
    Ok(raw.into())
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, remote)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        shared.counters.accepted.fetch_add(1, Ordering::Relaxed);
        let place = Place::take(&shared, remote.ip());
        let permit = shared.permits.clone().try_acquire_owned();
        let (Some(place), Ok(permit)) = (place, permit) else {
            shared.counters.too_many.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        tokio::spawn(identify(stream, remote, permit, place));
    }
}

/// One unidentified connection of an address.
struct Place {
    shared: Arc<Shared>,
    address: IpAddr,
}

impl Place {
    fn take(shared: &Arc<Shared>, address: IpAddr) -> Option<Place> {
        let mut unidentified = shared.lock();
        let count = unidentified.entry(address).or_default();
        if *count >= MAX_UNIDENTIFIED_PER_ADDRESS {
            return None;
        }
        *count += 1;
        drop(unidentified);
        Some(Place {
            shared: shared.clone(),
            address,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut unidentified = self.shared.lock();
        if let Some(count) = unidentified.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                unidentified.remove(&self.address);
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.unidentified
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads until the connection has said whose it is, and hands it over.
async fn identify(
    mut stream: TcpStream,
    remote: SocketAddr,
    permit: OwnedSemaphorePermit,
    place: Place,
) {
    let shared = place.shared.clone();
    let first = tokio::time::timeout(IDENTIFY_WITHIN, read_first(&mut stream)).await;
    let found = first.ok().flatten().and_then(|(read, ufrag)| {
        let worker = shared.directory.find(&ufrag)?;
        Some((read, ufrag, shared.workers.get(worker)?))
    });
    drop(place);
    let Some((read, ufrag, worker)) = found else {
        shared.counters.unidentified.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let Ok(io) = stream.into_std() else {
        return;
    };
    let incoming = Incoming {
        io,
        remote: canonical(remote),
        ufrag,
        read,
        permit,
    };
    if worker.send(Command::Connect(Box::new(incoming))).is_err() {
        shared.counters.busy.fetch_add(1, Ordering::Relaxed);
    }
}

/// What was read, and the user fragment in it. `None`: it is no binding request, or the connection ended.
async fn read_first(stream: &mut TcpStream) -> Option<(Vec<u8>, String)> {
    let mut read = Vec::with_capacity(MAX_FIRST);
    loop {
        match next_frame(&read, 0) {
            Frame::Whole(range) => {
                let ufrag = requested_ufrag(&read[range])?.to_string();
                return Some((read, ufrag));
            }
            Frame::Partial if read.len() < MAX_FIRST => {
                if stream.read_buf(&mut read).await.ok()? == 0 {
                    return None;
                }
            }
            Frame::Partial | Frame::TooLong => return None,
        }
    }
}

#[cfg(test)]
mod tests;
