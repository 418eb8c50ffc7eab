//! Starting the media side: certificate, codec threads, one worker per port.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use talksy_mixer::audio::MixerConfig;

use crate::mcu::bus::CodecPools;
use crate::transport::candidates::{Advertised, CandidateError, Interface, interfaces};
use crate::transport::{Identity, TransportError};
use crate::worker::WorkerHandle;
use crate::worker::thread::{self, WorkerConfig};

/// What the media side is started with.
#[derive(Clone, Debug)]
pub struct MediaConfig {
    /// Addresses to advertise; empty: those of this machine.
    pub public_ips: Vec<IpAddr>,
    /// UDP port of the first worker, the others follow; 0: the system chooses each.
    pub first_port: u16,
    /// Media threads, each with a port.
    pub workers: usize,
    /// Voices that are heard at once in a mix.
    pub mix_speakers: usize,
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
    /// Where clients are told to send.
    pub advertised: Vec<SocketAddr>,
}

/// Starts the codec threads and the workers. They end when the last handle is dropped.
///
/// # Errors
/// See [`StartError`].
pub fn start_all(config: &MediaConfig) -> Result<Media, StartError> {
    let interfaces = interfaces()?;
    let listed: Vec<String> = config.public_ips.iter().map(IpAddr::to_string).collect();
    let public = (!listed.is_empty()).then(|| listed.join(","));
    let (listen, family) = family(public.as_deref(), &interfaces)?;
    let identity = Arc::new(Identity::new()?);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut codecs = CodecPools::start(cores.div_ceil(4), cores).map_err(StartError::Threads)?;
    codecs.sound.mixer = MixerConfig::hearing(config.mix_speakers.max(1));
    let mut media = Media {
        workers: Vec::with_capacity(config.workers),
        advertised: Vec::new(),
    };
    for index in 0..config.workers.max(1) {
        let port = match config.first_port {
            0 => 0,
            first => first.saturating_add(index as u16),
        };
        let advertise = {
            let (public, interfaces) = (public.clone(), interfaces.clone());
            move |port| -> Result<Advertised, CandidateError> {
                let mut advertised = Advertised::new(public.as_deref(), &interfaces, port)?;
                advertised.udp.retain(family);
                Ok(advertised)
            }
        };
        // Fails here, before the worker needs it, if it fails at all.
        advertise(port)?;
        let lines = advertise.clone();
        let worker = WorkerConfig {
            listen: SocketAddr::new(listen, port),
            candidates: Arc::new(move |port| {
                lines(port).map_or_else(|_| Vec::new(), |advertised| advertised.lines().collect())
            }),
            identity: identity.clone(),
            codecs: codecs.clone(),
        };
        let (handle, bound) = thread::start(&format!("media-{index}"), worker)
            .map_err(|error| StartError::Bind { port, error })?;
        media.workers.push(handle);
        media.advertised.extend(advertise(bound.port())?.udp);
    }
    Ok(media)
}

/// Whether an address is of the family that is spoken.
type Family = fn(&SocketAddr) -> bool;

/// One socket speaks one address family: IPv4 where there is any, because every client has it.
fn family(
    public: Option<&str>,
    interfaces: &[Interface],
) -> Result<(IpAddr, Family), CandidateError> {
    let advertised = Advertised::new(public, interfaces, 0)?;
    Ok(if advertised.udp.iter().any(SocketAddr::is_ipv4) {
        (Ipv4Addr::UNSPECIFIED.into(), SocketAddr::is_ipv4)
    } else {
        (Ipv6Addr::UNSPECIFIED.into(), SocketAddr::is_ipv6)
    })
}
