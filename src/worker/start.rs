//! Starting the media side: certificate, codec threads, one worker per UDP port, the TCP port of all.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use talksy_mixer::video::Theme;

use crate::mcu::audio::AudioMixConfig;
use crate::mcu::bus::CodecPools;
use crate::mcu::ladder::Ladder;
use crate::transport::candidates::{Advertised, CandidateError, interfaces};
use crate::transport::{Identity, TransportError};
use crate::worker::WorkerHandle;
use crate::worker::acceptor::{Acceptor, Directory, listen};
use crate::worker::thread::{self, WorkerConfig};

/// What the media side is started with.
#[derive(Clone, Debug, Default)]
pub struct MediaConfig {
    /// Addresses to advertise; empty: those of this machine.
    pub public_ips: Vec<IpAddr>,
    /// UDP port of the first worker, the others follow; 0: the system chooses each.
    pub first_port: u16,
    /// TCP port for clients that have no UDP; `None`: there is none.
    pub tcp_port: Option<u16>,
    /// Media threads, each with a port.
    pub workers: usize,
    /// How mixed pictures look.
    pub theme: Theme,
    /// How rooms' sound is mixed and encoded.
    pub sound: AudioMixConfig,
    /// In what qualities they are made.
    pub ladder: Ladder,
}

/// Why there is no media side. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Nothing to advertise.
    #[error(transparent)]
    Candidates(#[from] CandidateError),
    /// A port is taken, or may not be had.
    #[error(
        "UDP port {port} for media cannot be opened ({error}): stop what uses it or choose others with --media-port"
    )]
    Bind {
        /// Which.
        port: u16,
        /// The system's word.
        error: io::Error,
    },
    /// The TCP port is taken, or may not be had.
    #[error(
        "TCP port {port} for media cannot be opened ({error}): stop what uses it, choose another with --media-tcp-port, or go without with --media-tcp-port 0"
    )]
    Tcp {
        /// Which.
        port: u16,
        /// The system's word.
        error: io::Error,
    },
    /// No certificate.
    #[error("the certificate for media could not be made: {0}")]
    Identity(#[from] TransportError),
    /// No codec threads.
    #[error("the codec threads could not be started: {0}")]
    Threads(io::Error),
}

/// The running media side.
pub struct Media {
    /// The ways into the workers.
    pub workers: Vec<WorkerHandle>,
    /// Where clients are told to send over UDP: every address with every worker's port.
    pub advertised: Vec<SocketAddr>,
    /// Where they may connect over TCP.
    pub advertised_tcp: Vec<SocketAddr>,
    /// The TCP port, which is open as long as this lives.
    pub acceptor: Option<Acceptor>,
}

/// Starts the codec threads and the workers. They end when the last handle and the acceptor are dropped.
///
/// # Errors
/// See [`StartError`].
pub fn start_all(config: &MediaConfig) -> Result<Media, StartError> {
    let interfaces = interfaces()?;
    let listed: Vec<String> = config.public_ips.iter().map(IpAddr::to_string).collect();
    let public = (!listed.is_empty()).then(|| listed.join(","));
    let tcp_port = config.tcp_port;
    let advertise = move |port| Advertised::new(public.as_deref(), &interfaces, port, tcp_port);
    // Fails here, before anything is started, if it fails at all.
    advertise(config.first_port)?;
    let identity = Arc::new(Identity::new()?);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut codecs = CodecPools::start(cores.div_ceil(4), cores).map_err(StartError::Threads)?;
    codecs.theme = config.theme.clone();
    codecs.sound = config.sound;
    codecs.ladder = config.ladder.clone();
    let listeners = match tcp_port {
        Some(port) => listen(port).map_err(|error| StartError::Tcp { port, error })?,
        None => Vec::new(),
    };
    let directory = Directory::default();
    let (mut workers, mut advertised) = (Vec::with_capacity(config.workers), Vec::new());
    let mut advertised_tcp = Vec::new();
    for index in 0..config.workers.max(1) {
        let port = match config.first_port {
            0 => 0,
            first => first.saturating_add(index as u16),
        };
        let lines = advertise.clone();
        let worker = WorkerConfig {
            index,
            port,
            directory: directory.clone(),
            candidates: Arc::new(move |port| {
                lines(port).map_or_else(|_| Vec::new(), |advertised| advertised.lines().collect())
            }),
            identity: identity.clone(),
            codecs: codecs.clone(),
        };
        let (handle, port) = thread::start(&format!("media-{index}"), worker)
            .map_err(|error| StartError::Bind { port, error })?;
        workers.push(handle);
        let addresses = advertise(port)?;
        advertised.extend(addresses.udp);
        advertised_tcp = addresses.tcp;
    }
    let acceptor = match tcp_port {
        Some(port) => Some(
            Acceptor::start(listeners, workers.clone(), directory)
                .map_err(|error| StartError::Tcp { port, error })?,
        ),
        None => None,
    };
    Ok(Media {
        workers,
        advertised,
        advertised_tcp,
        acceptor,
    })
}
