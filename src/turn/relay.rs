//! One client's task: its messages, its relay socket, its time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use turn_server_proto::api::SocketAllocateError;
use turn_server_proto::types::AddressFamily;

use super::MAX_MESSAGE;
use super::client::{Action, Client, Refusal};
use super::credentials::client_of;
use super::listen::Shared;
use super::quota::{Allocation, Candidate, count};

/// A client that has no allocation by then is forgotten.
const ALLOCATE_WITHIN: Duration = Duration::from_secs(10);
/// Datagrams of the relay socket between two looks at the client's own messages.
const RELAYED_PER_TURN: usize = 32;

/// Where a client's answers go. A full way drops them.
pub trait Link: Send + Sync + 'static {
    /// False: it was dropped.
    fn send(&self, message: &[u8]) -> bool;
}

/// A client's task: see [`Relay::run`].
pub struct Relay<L> {
    shared: Arc<Shared>,
    client: Client,
    link: L,
    /// Held until there is an allocation.
    candidate: Option<Candidate>,
    relay: Option<(UdpSocket, Allocation)>,
    begun: Instant,
}

impl<L: Link> Relay<L> {
    /// A client without allocation.
    pub fn new(
        shared: Arc<Shared>,
        remote: SocketAddr,
        listen: SocketAddr,
        link: L,
        candidate: Candidate,
    ) -> Self {
        let now = Instant::now();
        let client = Client::new(
            now,
            remote,
            listen,
            shared.policy.clone(),
            shared.secret.clone(),
        );
        Relay {
            shared,
            client,
            link,
            candidate: Some(candidate),
            relay: None,
            begun: now,
        }
    }

    /// Serves the client until its inbox is closed, its allocation ends, or it makes none in time.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Vec<u8>>) {
        let mut buffer = vec![0; MAX_MESSAGE];
        loop {
            let mut wake = self.settle().await;
            if self.relay.is_none() {
                let give_up = self.begun + ALLOCATE_WITHIN;
                if self.candidate.is_none() || Instant::now() >= give_up {
                    return;
                }
                wake = wake.min(give_up);
            }
            tokio::select! {
                message = inbox.recv() => match message {
                    Some(message) => self.on_message(&message),
                    None => return,
                },
                received = receive(self.relay.as_ref(), &mut buffer) => {
                    if let Some((len, from)) = received {
                        self.on_relayed(from, &buffer[..len]);
                    }
                    self.drain_relay(&mut buffer);
                }
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
    }

    /// Does what the protocol asks for; when it wants to be asked again.
    async fn settle(&mut self) -> Instant {
        loop {
            match self.client.poll(Instant::now()) {
                Ok(Action::Reply(reply)) => self.reply(&reply),
                Ok(Action::Allocate(family)) => self.allocate(family).await,
                Ok(Action::Release) => self.relay = None,
                // Comes from messages only.
                Ok(Action::Relay(..)) => {}
                Err(wake) => return wake,
            }
        }
    }

    fn on_message(&mut self, message: &[u8]) {
        let counters = self.shared.counters.clone();
        let action = match self
            .client
            .handle(Instant::now(), SystemTime::now(), message)
        {
            Ok(action) => action,
            Err((refusal, action)) => {
                count(match refusal {
                    Refusal::Malformed => &counters.malformed,
                    Refusal::Forbidden => &counters.forbidden,
                });
                action
            }
        };
        match action {
            Some(Action::Reply(reply)) => self.reply(&reply),
            Some(Action::Relay(way, data)) => {
                let Some((socket, allocation)) = &self.relay else {
                    return;
                };
                if !allocation.takes(Instant::now(), data.len()) {
                    count(&counters.over_bandwidth);
                } else if socket.try_send_to(&data, way).is_err() {
                    count(&counters.congested);
                } else {
                    let bytes = data.len() as u64;
                    counters.relayed_bytes.fetch_add(bytes, Ordering::Relaxed);
                }
            }
            Some(Action::Allocate(_) | Action::Release) | None => {}
        }
    }

    fn drain_relay(&mut self, buffer: &mut [u8]) {
        for _ in 0..RELAYED_PER_TURN {
            let Some((socket, _)) = &self.relay else {
                return;
            };
            match socket.try_recv_from(buffer) {
                Ok((len, from)) => self.on_relayed(from, &buffer[..len]),
                Err(_) => return,
            }
        }
    }

    fn on_relayed(&mut self, from: SocketAddr, data: &[u8]) {
        let (now, counters) = (Instant::now(), self.shared.counters.clone());
        let Some((_, allocation)) = &self.relay else {
            return;
        };
        if !allocation.takes(now, data.len()) {
            return count(&counters.over_bandwidth);
        }
        match self.client.handle_relayed(now, from, data) {
            Some(message) => {
                let bytes = data.len() as u64;
                counters.relayed_bytes.fetch_add(bytes, Ordering::Relaxed);
                self.reply(&message);
            }
            None => count(&counters.forbidden),
        }
    }

    fn reply(&self, message: &[u8]) {
        if !self.link.send(message) {
            count(&self.shared.counters.congested);
        }
    }

    async fn allocate(&mut self, family: AddressFamily) {
        let now = Instant::now();
        let user = client_of(self.client.user().unwrap_or_default());
        // The protocol asks for a second socket if both families are wanted: one is enough for our own media.
        let place = match self.relay {
            None => self.shared.quota.allocation(user, now),
            Some(_) => None,
        };
        let Some(place) = place else {
            count(&self.shared.counters.over_quota);
            let refused = Err(SocketAllocateError::InsufficientCapacity);
            return self.client.allocated(now, family, refused);
        };
        let relayed = match self.relay_socket(family).await {
            Ok((socket, relayed)) => {
                count(&self.shared.counters.allocations);
                self.relay = Some((socket, place));
                self.candidate = None;
                Ok(relayed)
            }
            Err(error) => {
                tracing::warn!(%error, "TURN has no socket for an allocation");
                Err(SocketAllocateError::InsufficientCapacity)
            }
        };
        self.client.allocated(now, family, relayed);
    }

    /// A relay socket, and its address as the client is told it. For our own media loopback is enough, whatever family
    /// the client believes in.
    async fn relay_socket(
        &self,
        family: AddressFamily,
    ) -> std::io::Result<(UdpSocket, SocketAddr)> {
        let outside = self.shared.policy.is_open() && family == AddressFamily::IPV4;
        let local = if outside {
            Ipv4Addr::UNSPECIFIED
        } else {
            Ipv4Addr::LOCALHOST
        };
        let socket = UdpSocket::bind((local, 0)).await?;
        let port = socket.local_addr()?.port();
        let ip: IpAddr = match family {
            AddressFamily::IPV6 => Ipv6Addr::LOCALHOST.into(),
            AddressFamily::IPV4 if outside => self.shared.outside,
            AddressFamily::IPV4 => Ipv4Addr::LOCALHOST.into(),
        };
        Ok((socket, SocketAddr::new(ip, port)))
    }
}

/// Never ends without a socket. `None`: an error of an earlier datagram.
async fn receive(
    relay: Option<&(UdpSocket, Allocation)>,
    buffer: &mut [u8],
) -> Option<(usize, SocketAddr)> {
    match relay {
        Some((socket, _)) => socket.recv_from(buffer).await.ok(),
        None => std::future::pending().await,
    }
}
