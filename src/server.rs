//! The control plane as a whole: binds, serves, and ends within a stated time.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum_server::accept::DefaultAcceptor;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::config::Settings;
use crate::http::guard::Guard;
use crate::http::tls::{TlsError, local_addresses, server_config};
use crate::http::{App, router};
use crate::reach::{OwnTurn, Reach};
use crate::room::RoomManager;
use crate::signalling::counters::Counters;
use crate::signalling::resume::Resumes;
use crate::signalling::session::SessionContext;
use crate::worker::{Media, WorkerHandle};

/// Connections beyond the sockets: pages that are being loaded, health checks.
const SPARE_CONNECTIONS: usize = 1000;
/// A server that does not answer the health check by then is not well.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(3);
/// At the end, how long sockets may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(3);
/// At the end, how long requests that are being answered may take after that.
const LAST_REQUESTS: Duration = Duration::from_secs(1);

/// Why the server does not start. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port belongs to another program.
    #[error(
        "port {0} is in use: stop the program that has it, or choose another one with --port (or PORT)"
    )]
    PortInUse(u16),
    /// The address cannot be had.
    #[error("{address} cannot be listened on ({source}): choose another --host or --port")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// No certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A running server. Dropping it stops serving at once; [`Server::shutdown`] says goodbye first.
pub struct Server {
    address: SocketAddr,
    tls: bool,
    rooms: RoomManager,
    sockets: Arc<Semaphore>,
    max_sockets: u32,
    shutdown: watch::Sender<bool>,
    listener: axum_server::Handle<SocketAddr>,
    serving: JoinHandle<io::Result<()>>,
    app: App,
}

impl Server {
    /// Binds and serves. `workers` are the media threads that are to have the rooms, `reach` what clients are told about
    /// ways to them.
    pub async fn start(
        settings: &Settings,
        workers: Vec<WorkerHandle>,
        reach: Reach,
    ) -> Result<Self, StartError> {
        let tls = settings.tls.as_ref().map(server_config).transpose()?;
        let (listener, address) = listen(settings.listen)?;
        let (shutdown, shutdown_seen) = watch::channel(false);
        let sockets = Arc::new(Semaphore::new(settings.max_sockets));
        let counters = Arc::new(Counters::default());
        let rooms = RoomManager::new(workers, settings.limits, settings.max_rooms);
        let app = App {
            session: SessionContext {
                rooms: rooms.clone(),
                options: settings.session,
                counters: counters.clone(),
                resumes: Resumes::default(),
                shutdown: shutdown_seen,
                reach: Arc::new(reach),
                host: None,
            },
            sockets: sockets.clone(),
            max_sockets: settings.max_sockets,
            static_dir: settings.static_dir.clone().map(Arc::new),
        };
        let handle = axum_server::Handle::new();
        let service = router(app.clone()).into_make_service();
        let plain = axum_server::from_tcp(listener)
            .map_err(|source| listen_error(address, source))?
            .handle(handle.clone());
        let patience = settings.header_timeout;
        let max_connections = settings.max_sockets + SPARE_CONNECTIONS;
        let is_tls = tls.is_some();
        let serving = match tls {
            Some(config) => {
                let config = RustlsConfig::from_config(config);
                let acceptor = RustlsAcceptor::new(config).handshake_timeout(patience);
                let guard = Guard::new(acceptor, max_connections, patience, counters);
                let mut server = plain.acceptor(guard);
                *server.http_builder() = http_builder(patience);
                tokio::spawn(server.serve(service))
            }
            None => {
                let acceptor = DefaultAcceptor::new();
                let guard = Guard::new(acceptor, max_connections, patience, counters);
                let mut server = plain.acceptor(guard);
                *server.http_builder() = http_builder(patience);
                tokio::spawn(server.serve(service))
            }
        };
        Ok(Server {
            address,
            tls: is_tls,
            rooms,
            sockets,
            max_sockets: settings.max_sockets.try_into().unwrap_or(u32::MAX),
            shutdown,
            listener: handle,
            serving,
            app,
        })
    }

    /// Serves plain HTTP on a port of the loopback interface too, until the server is dropped: for participants of
    /// this process, which need not trust its certificate or know its address.
    ///
    /// # Errors
    /// The port cannot be bound.
    pub async fn serve_loopback(&self) -> io::Result<SocketAddr> {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let mut shutdown = self.shutdown.subscribe();
        let router = router(self.app.clone());
        tokio::spawn(async move {
            // An error means that the server is gone.
            let stopped = async move { drop(shutdown.wait_for(|stop| *stop).await) };
            axum::serve(listener, router)
                .with_graceful_shutdown(stopped)
                .await
        });
        Ok(address)
    }

    /// Where it listens; with port 0 in the settings, the port that it got.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Addresses of the page, for people.
    pub fn page_urls(&self) -> Vec<String> {
        let scheme = if self.tls { "https" } else { "http" };
        let port = self.address.port();
        if !self.address.ip().is_unspecified() {
            return vec![format!("{scheme}://{}/", self.address)];
        }
        let mut urls = vec![format!("{scheme}://localhost:{port}/")];
        let others = local_addresses()
            .into_iter()
            .filter(|ip| !ip.is_loopback() && matches!(ip, IpAddr::V4(_)))
            .map(|ip| format!("{scheme}://{ip}:{port}/"));
        urls.extend(others);
        urls
    }

    /// Prints where the page is and where media is expected. On stdout, whatever the log level; that it is closed is
    /// no reason to stop.
    pub fn announce(&self, media: &Media) {
        let mut out = io::stdout().lock();
        for url in self.page_urls() {
            let _ = writeln!(out, "Page: {url}");
        }
        for line in media_lines(media, self.app.session.reach.turn.as_ref()) {
            let _ = writeln!(out, "{line}");
        }
        let _ = out.flush();
    }

    /// Takes no new clients, says goodbye to those it has, and ends their rooms: within 5 s, whatever they do.
    pub async fn shutdown(mut self) {
        self.shutdown.send_replace(true);
        self.listener
            .graceful_shutdown(Some(GOODBYE + LAST_REQUESTS));
        // Every permit is back when the last socket is closed.
        let closed = timeout(GOODBYE, self.sockets.acquire_many(self.max_sockets)).await;
        if closed.is_err() {
            tracing::warn!("some clients did not close their sockets in time");
        }
        self.rooms.close().await;
        if timeout(LAST_REQUESTS, &mut self.serving).await.is_err() {
            tracing::warn!("some requests were cut off");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.send_replace(true);
        self.listener.shutdown();
        self.serving.abort();
    }
}

fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let error = |source| listen_error(address, source);
    let listener = TcpListener::bind(address).map_err(error)?;
    listener.set_nonblocking(true).map_err(error)?;
    let bound = listener.local_addr().map_err(error)?;
    Ok((listener, bound))
}

fn listen_error(address: SocketAddr, source: io::Error) -> StartError {
    match source.kind() {
        io::ErrorKind::AddrInUse => StartError::PortInUse(address.port()),
        _ => StartError::Listen { address, source },
    }
}

/// HTTP/1.1 only: that is where the upgrade to a WebSocket is (RFC 6455, section 4.1).
fn http_builder(header_timeout: Duration) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout);
    builder
}

/// The lines that say where media is expected, and how to change it.
fn media_lines(media: &Media, turn: Option<&OwnTurn>) -> Vec<String> {
    let list = |addresses: &[SocketAddr]| {
        let texts: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
        texts.join(", ")
    };
    let mut lines = vec![format!(
        "Media: UDP {} (set PUBLIC_IP or --public-ip if clients reach this machine at another address)",
        list(&media.advertised)
    )];
    if !media.advertised_tcp.is_empty() {
        lines.push(format!("Media: TCP {}", list(&media.advertised_tcp)));
    }
    if let Some(turn) = turn {
        lines.push(format!("TURN: port {}, UDP and TCP", turn.port));
    }
    lines
}

/// Whether a server that runs with these settings on this machine answers that it is well. With TLS, whether it
/// takes connections: the certificate need not be one that this program would trust.
pub async fn is_healthy(settings: &Settings) -> bool {
    let address = SocketAddr::new(
        match settings.listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        },
        settings.listen.port(),
    );
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        if settings.tls.is_some() {
            return Ok(true);
        }
        let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await?;
        let mut status = [0; b"HTTP/1.1 200".len()];
        stream.read_exact(&mut status).await?;
        io::Result::Ok(&status == b"HTTP/1.1 200")
    };
    matches!(timeout(HEALTH_TIMEOUT, ask).await, Ok(Ok(true)))
}

#[cfg(test)]
mod tests;
