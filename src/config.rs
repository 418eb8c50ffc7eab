//! What the operator says: the command line and the environment, checked before anything starts.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use talksy_mixer::audio::MixerConfig;
use talksy_mixer::video::Theme;
use talksy_mixer::video::theme::{ColoursError, Font};

use crate::mcu::audio::AudioMixConfig;
use crate::mcu::ladder::{Ladder, LadderError};
use crate::reach::IceServer;
use crate::room::Limits;
use crate::signalling::session::SessionOptions;
use crate::turn::{PeerPolicy, PeersError};
use crate::worker::VoiceLimits;
use checks::{ice_servers, log_directives, public_ips, range, readable_page};

mod checks;
mod opus;

/// The slowest link sends a request's headers in less.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest number of forwarded sounds or cameras that can be asked for: each packet looks at each place.
pub(crate) const MAX_STREAMS: u64 = 64;
/// How often sockets are pinged.
const PING: Duration = Duration::from_secs(4);
/// A socket from which nothing comes for this long is dead: two pings were not answered. With [`GONE_AFTER`], which runs
/// at the same time, the others know of a client that disappeared within 15 s.
const IDLE: Duration = Duration::from_secs(12);
/// A client with a broken socket of which nothing else is heard is gone for the others after this time.
const GONE_AFTER: Duration = Duration::from_secs(10);
/// How long a client may take to come back after its socket broke.
const RESUME: Duration = Duration::from_secs(30);

/// A hybrid SFU/MCU conferencing server: rooms forward tracks, constrained clients get one mixed stream.
#[derive(Parser, Clone, Debug)]
#[command(version, about, max_term_width = 100)]
pub struct Arguments {
    /// TCP port of the page and the signalling socket
    #[arg(long, env = "PORT", default_value_t = 8000)]
    pub port: u16,

    /// Address that the page and the signalling socket listen on
    #[arg(long, env = "TALKSY_HOST", default_value = "0.0.0.0")]
    pub host: IpAddr,

    /// Addresses at which clients reach the media ports, comma-separated, when they are not those of this machine
    /// (behind NAT, in a container). Default: every address of this machine
    #[arg(long, env = "PUBLIC_IP", value_name = "IP[,IP]")]
    pub public_ip: Option<String>,

    /// First UDP media port; each worker takes one from here on
    #[arg(long, env = "TALKSY_MEDIA_PORT", default_value_t = 7882)]
    pub media_port: u16,

    /// TCP port for the media of clients whose network has no UDP; 0: none
    #[arg(long, env = "TALKSY_MEDIA_TCP_PORT", default_value_t = 7881)]
    pub media_tcp_port: u16,

    /// Media threads. Default: one for each core
    #[arg(long, env = "TALKSY_WORKERS")]
    pub workers: Option<usize>,

    /// Serve HTTPS with a self-signed certificate, made once and kept in the data directory
    #[arg(long, env = "TALKSY_TLS", value_parser = truthy, num_args = 0..=1, default_value = "false", default_missing_value = "true", value_name = "BOOL")]
    pub tls: bool,

    /// Serve HTTPS with this certificate chain (PEM)
    #[arg(long, env = "TALKSY_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// The certificate's private key (PEM)
    #[arg(long, env = "TALKSY_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Where the self-signed certificate is kept. Default: $XDG_STATE_HOME/talksy-unit or
    /// ~/.local/state/talksy-unit
    #[arg(long, env = "TALKSY_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Serve the page from this directory instead of the built-in one
    #[arg(long, env = "TALKSY_STATIC_DIR", value_name = "DIR")]
    pub static_dir: Option<PathBuf>,

    /// Write names in the mixed picture in this TrueType or OpenType font. Default: DejaVu Sans, built in
    #[arg(long, env = "TALKSY_MIX_FONT", value_name = "FILE")]
    pub mix_font: Option<PathBuf>,

    /// Colours of the mixed picture as name=RRGGBB, comma-separated: background, bars, speaking, text, label
    #[arg(
        long,
        env = "TALKSY_MIX_COLOURS",
        value_name = "LIST",
        default_value = "",
        hide_default_value = true
    )]
    pub mix_colours: String,

    /// Qualities of the mixed picture as width x height @ frames per second : kbit/s, from the largest to the smallest,
    /// comma-separated; phones get them turned
    #[arg(
        long,
        env = "TALKSY_MIX_RUNGS",
        value_name = "LIST",
        default_value_t = Ladder::default().to_string()
    )]
    pub mix_rungs: String,

    /// Fill room "demo" with this many synthetic participants
    #[arg(long, env = "TALKSY_DEMO", value_name = "N")]
    pub demo: Option<usize>,

    /// What is logged: error, warn, info, debug, trace, or directives such as talksy_unit::room=debug
    #[arg(
        long,
        env = "TALKSY_LOG_LEVEL",
        default_value = "info",
        value_name = "LEVEL"
    )]
    pub log_level: String,

    /// Log at level debug: true, 1 or yes
    #[arg(long, env = "DEBUG", value_parser = truthy, num_args = 0..=1, default_value = "false", default_missing_value = "true", value_name = "BOOL")]
    pub debug: bool,

    /// Start the built-in TURN server, which relays to this server's own media: true, 1 or yes
    #[arg(long, env = "TURN_ENABLED", value_parser = truthy, num_args = 0..=1, default_value = "false", default_missing_value = "true", value_name = "BOOL")]
    pub turn_enabled: bool,

    /// UDP and TCP port of the built-in TURN server
    #[arg(long, env = "TALKSY_TURN_PORT", default_value_t = crate::turn::DEFAULT_PORT)]
    pub turn_port: u16,

    /// Networks that the built-in TURN server relays to beside this server's own media, comma-separated, or "any".
    /// Default: none
    #[arg(long, env = "TALKSY_TURN_PEERS", value_name = "NETWORK[,NETWORK]")]
    pub turn_peers: Option<String>,

    /// STUN and TURN servers of your own, for the clients: a JSON array of RTCIceServer objects, such as
    /// [{"urls": ["turn:turn.example.org"], "username": "u", "credential": "p"}]
    #[arg(long, env = "TALKSY_ICE_SERVERS", value_name = "JSON")]
    pub ice_servers: Option<String>,

    /// How many voices of a mixed room are heard at once, the loudest ones (K)
    #[arg(long, env = "TALKSY_MIX_SPEAKERS", default_value_t = 3)]
    pub mix_speakers: usize,

    /// How the mixed sound is encoded, as name=value, comma-separated: bitrate and stereo (kbit/s of one channel and of two),
    /// complexity (0 to 10), fec (the loss in percent that redundancy is made for; 0: none), dtx (on: nothing is sent
    /// in silence). What is left out keeps its default: bitrate=32,stereo=64,complexity=6,fec=5,dtx=on
    #[arg(
        long,
        env = "TALKSY_MIX_OPUS",
        value_name = "LIST",
        default_value = "",
        hide_default_value = true
    )]
    pub mix_opus: String,

    /// The same for clients that receive little (max_kbps): bitrate=20,stereo=32,complexity=6,fec=5,dtx=on
    #[arg(
        long,
        env = "TALKSY_MIX_OPUS_LOW",
        value_name = "LIST",
        default_value = "",
        hide_default_value = true
    )]
    pub mix_opus_low: String,

    /// Channels of the mixed sound: 2 gives both to the clients that ask for stereo, 1 to nobody
    #[arg(
        long,
        env = "TALKSY_MIX_CHANNELS",
        default_value_t = 2,
        value_name = "N"
    )]
    pub mix_channels: usize,

    /// An empty room is removed after this many seconds
    #[arg(long, env = "TALKSY_ROOM_EMPTY_SECONDS", default_value_t = 60)]
    pub room_empty_seconds: u64,

    /// Rooms at one time
    #[arg(long, env = "TALKSY_MAX_ROOMS", default_value_t = 1000)]
    pub max_rooms: usize,

    /// Participants in one room at one time
    #[arg(long, env = "TALKSY_MAX_PEERS_PER_ROOM", default_value_t = 200)]
    pub max_peers_per_room: usize,

    /// Published tracks of one participant at one time
    #[arg(long, env = "TALKSY_MAX_TRACKS_PER_PEER", default_value_t = 8)]
    pub max_tracks_per_peer: usize,

    /// Sounds of one room that are forwarded to each participant at one time: the loudest. 0: all of them
    #[arg(
        long,
        env = "TALKSY_MAX_AUDIO_STREAMS",
        default_value_t = 16,
        value_name = "N"
    )]
    pub max_audio_streams: usize,

    /// Cameras of one room that are forwarded to each participant at one time: of those who spoke last. 0: all of them
    #[arg(long, env = "TALKSY_LAST_N", default_value_t = 0, value_name = "N")]
    pub last_n: usize,

    /// Signalling sockets at one time
    #[arg(long, env = "TALKSY_MAX_SOCKETS", default_value_t = 10_000)]
    pub max_sockets: usize,

    /// Longest signalling message, KiB; longer ones are answered with an error
    #[arg(long, env = "TALKSY_MAX_MESSAGE_KIB", default_value_t = 256)]
    pub max_message_kib: usize,

    /// Ask the server that runs with these options whether it is well, and exit with 0 or 1
    #[arg(long)]
    pub health_check: bool,
}

/// Settings that cannot work. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not an address that a client could send to.
    #[error(
        "PUBLIC_IP {text:?} is unusable: {why}. Give the IP address at which clients reach this machine, or leave it out to use its own addresses"
    )]
    PublicIp {
        /// The part that is wrong.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The page's directory does not work.
    #[error(
        "the static directory {dir:?} cannot be used: {why}. Name a readable directory with an index.html, or leave out --static-dir to serve the built-in page"
    )]
    StaticDir {
        /// As it was given.
        dir: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// One of `--tls-cert` and `--tls-key` without the other.
    #[error(
        "--tls-cert and --tls-key belong together: give both, or --tls for a self-signed certificate"
    )]
    TlsHalf,
    /// A number outside of what makes sense.
    #[error("{option} has to be between {min} and {max}, not {value}: change it or leave it out")]
    Range {
        /// The option.
        option: &'static str,
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
        /// As it was given.
        value: u64,
    },
    /// Not a list of ICE servers.
    #[error(
        "--ice-servers cannot be read ({0}): give a JSON array such as [{{\"urls\": [\"stun:stun.example.org\"]}}], with username and credential for turn: URLs"
    )]
    IceServers(String),
    /// Not a list of networks.
    #[error("--turn-peers: {0}")]
    TurnPeers(#[from] PeersError),
    /// Not a font, or not to be read.
    #[error("--mix-font {}: {why}", file.display())]
    MixFont {
        /// As it was given.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Not a list of colours.
    #[error("--mix-colours: {0}")]
    MixColours(#[from] ColoursError),
    /// Not a list of encoder settings.
    #[error(transparent)]
    MixOpus(#[from] opus::OpusListError),
    /// Not a ladder of qualities.
    #[error("--mix-rungs: {0}")]
    MixRungs(#[from] LadderError),
    /// Not a log level.
    #[error("the log level {0:?} is not understood: use error, warn, info, debug or trace")]
    LogLevel(String),
}

/// Where the certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsSource {
    /// PEM files of the operator.
    Files {
        /// Certificate chain.
        cert: PathBuf,
        /// Private key.
        key: PathBuf,
    },
    /// Made by this server and kept in this directory.
    SelfSigned(PathBuf),
}

/// Checked settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the page and the socket are served.
    pub listen: SocketAddr,
    /// Addresses to advertise for media; empty: those of this machine.
    pub public_ips: Vec<IpAddr>,
    /// First UDP media port; 0 lets the system choose each.
    pub media_port: u16,
    /// TCP port for media; `None`: none.
    pub media_tcp_port: Option<u16>,
    /// Number of media threads.
    pub workers: usize,
    /// HTTPS, and with what.
    pub tls: Option<TlsSource>,
    /// Serves the page instead of the built-in one.
    pub static_dir: Option<PathBuf>,
    /// How the mixed picture looks.
    pub theme: Theme,
    /// In what qualities it is made.
    pub ladder: Ladder,
    /// Number of synthetic participants.
    pub demo: Option<usize>,
    /// Filter directives for `tracing`.
    pub log: String,
    /// Port of the TURN server; `None`: there is none.
    pub turn_port: Option<u16>,
    /// Networks that it relays to beside the media.
    pub turn_peers: String,
    /// ICE servers of the operator.
    pub ice_servers: Vec<IceServer>,
    /// How rooms' sound is mixed and encoded.
    pub sound: AudioMixConfig,
    /// Limits of each room.
    pub limits: Limits,
    /// Rooms at one time.
    pub max_rooms: usize,
    /// Sockets at one time.
    pub max_sockets: usize,
    /// A connection that has not sent its request's headers by then is closed.
    pub header_timeout: Duration,
    /// Limits and times of each socket.
    pub session: SessionOptions,
}

impl Arguments {
    /// Checks what clap cannot.
    pub fn settings(&self) -> Result<Settings, ConfigError> {
        let workers = self.workers.unwrap_or_else(default_workers);
        let last_port = u64::from(u16::MAX - self.media_port) + 1;
        range("--workers", workers as u64, 1, last_port.min(256))?;
        range(
            "--room-empty-seconds",
            self.room_empty_seconds,
            1,
            31_536_000,
        )?;
        range("--mix-speakers", self.mix_speakers as u64, 1, 16)?;
        range("--mix-channels", self.mix_channels as u64, 1, 2)?;
        range("--max-rooms", self.max_rooms as u64, 1, 1_000_000)?;
        range(
            "--max-peers-per-room",
            self.max_peers_per_room as u64,
            1,
            10_000,
        )?;
        range(
            "--max-tracks-per-peer",
            self.max_tracks_per_peer as u64,
            1,
            256,
        )?;
        range(
            "--max-audio-streams",
            self.max_audio_streams as u64,
            0,
            MAX_STREAMS,
        )?;
        range("--last-n", self.last_n as u64, 0, MAX_STREAMS)?;
        range("--max-sockets", self.max_sockets as u64, 1, 1_000_000)?;
        range("--max-message-kib", self.max_message_kib as u64, 16, 16_384)?;
        if let Some(demo) = self.demo {
            range("--demo", demo as u64, 1, 25)?;
        }
        Ok(Settings {
            listen: SocketAddr::new(self.host, self.port),
            public_ips: public_ips(self.public_ip.as_deref().unwrap_or_default())?,
            media_port: self.media_port,
            media_tcp_port: (self.media_tcp_port > 0).then_some(self.media_tcp_port),
            workers,
            tls: self.tls_source()?,
            static_dir: self.checked_static_dir()?,
            theme: self.theme()?,
            ladder: self.mix_rungs.parse()?,
            demo: self.demo,
            log: log_directives(&self.log_level, self.debug)?,
            turn_port: self.turn_enabled.then_some(self.turn_port),
            turn_peers: self.checked_turn_peers()?,
            ice_servers: ice_servers(self.ice_servers.as_deref().unwrap_or_default())?,
            sound: self.sound()?,
            limits: Limits {
                peers_per_room: self.max_peers_per_room,
                tracks_per_peer: self.max_tracks_per_peer,
                empty_for: Duration::from_secs(self.room_empty_seconds),
                voices: VoiceLimits {
                    audio: stream_limit(self.max_audio_streams),
                    video: stream_limit(self.last_n),
                },
                gone_after: GONE_AFTER,
            },
            max_rooms: self.max_rooms,
            max_sockets: self.max_sockets,
            header_timeout: HEADER_TIMEOUT,
            session: SessionOptions {
                ping: PING,
                idle: IDLE,
                resume: RESUME,
                max_message: self.max_message_kib * 1024,
            },
        })
    }

    fn sound(&self) -> Result<AudioMixConfig, ConfigError> {
        let default = AudioMixConfig::default();
        Ok(AudioMixConfig {
            mixer: MixerConfig::hearing(self.mix_speakers),
            opus: opus::settings("--mix-opus", &self.mix_opus, default.opus)?,
            low: opus::settings("--mix-opus-low", &self.mix_opus_low, default.low)?,
            stereo: self.mix_channels == 2,
        })
    }

    fn theme(&self) -> Result<Theme, ConfigError> {
        let font = match given(&self.mix_font) {
            Some(file) => std::fs::read(file)
                .map_err(|error| error.to_string())
                .and_then(|bytes| Font::from_bytes(bytes).map_err(|error| error.to_string()))
                .map_err(|why| ConfigError::MixFont {
                    file: file.clone(),
                    why,
                })?,
            None => Font::default(),
        };
        let colours = self.mix_colours.parse()?;
        Ok(Theme { colours, font })
    }

    fn tls_source(&self) -> Result<Option<TlsSource>, ConfigError> {
        match (given(&self.tls_cert), given(&self.tls_key)) {
            (Some(cert), Some(key)) => Ok(Some(TlsSource::Files {
                cert: cert.clone(),
                key: key.clone(),
            })),
            (None, None) => Ok(self.tls.then(|| TlsSource::SelfSigned(self.data_dir()))),
            _ => Err(ConfigError::TlsHalf),
        }
    }

    fn checked_turn_peers(&self) -> Result<String, ConfigError> {
        let list = self.turn_peers.clone().unwrap_or_default();
        PeerPolicy::default().and(&list)?;
        Ok(list)
    }

    fn data_dir(&self) -> PathBuf {
        let from = |key: &str| {
            std::env::var_os(key)
                .filter(|v| !v.is_empty())
                .map(PathBuf::from)
        };
        let given = given(&self.data_dir).cloned();
        let state = || from("XDG_STATE_HOME").map(|dir| dir.join("talksy-unit"));
        let home = || from("HOME").map(|dir| dir.join(".local/state/talksy-unit"));
        given
            .or_else(state)
            .or_else(home)
            .unwrap_or_else(|| PathBuf::from(".talksy"))
    }

    fn checked_static_dir(&self) -> Result<Option<PathBuf>, ConfigError> {
        let Some(dir) = given(&self.static_dir) else {
            return Ok(None);
        };
        match readable_page(dir) {
            Ok(()) => Ok(Some(dir.clone())),
            Err(why) => Err(ConfigError::StaticDir {
                dir: dir.clone(),
                why,
            }),
        }
    }
}

/// Container files often set a variable to nothing when they mean to leave it out.
fn given(path: &Option<PathBuf>) -> Option<&PathBuf> {
    path.as_ref().filter(|p| !p.as_os_str().is_empty())
}

/// 0 stands for no limit.
pub(crate) fn stream_limit(limit: usize) -> Option<usize> {
    (limit > 0).then_some(limit)
}

/// As many as can handle packets at once. The codec threads share the cores with them, and the system's scheduler is fair:
/// a media thread sleeps most of its time, so it is run first when it wakes.
fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// `true`, `1` and `yes` in any case; everything else is no. (The old server took any value as yes.)
fn truthy(text: &str) -> Result<bool, std::convert::Infallible> {
    Ok(["true", "1", "yes"]
        .iter()
        .any(|yes| text.trim().eq_ignore_ascii_case(yes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(args: &[&str]) -> Result<Settings, ConfigError> {
        let args = std::iter::once("talksy-unit").chain(args.iter().copied());
        Arguments::try_parse_from(args)
            .expect("clap takes it")
            .settings()
    }

    #[test]
    fn yes_is_true_1_or_yes_in_any_case_and_nothing_else() {
        for yes in ["true", "TRUE", "1", "Yes", " yes "] {
            assert_eq!(truthy(yes), Ok(true), "{yes}");
        }
        for no in ["", "false", "FALSE", "0", "no", "on", "2"] {
            assert_eq!(truthy(no), Ok(false), "{no}");
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_old_server() {
        let settings = settings(&["--workers", "2"]).expect("valid");
        assert_eq!(settings.listen.to_string(), "0.0.0.0:8000");
        assert_eq!((settings.media_port, settings.workers), (7882, 2));
        assert_eq!(settings.media_tcp_port, Some(7881));
        assert_eq!(settings.session.max_message, 256 * 1024);
        assert_eq!(settings.tls, None);
        assert!(settings.public_ips.is_empty());
    }

    #[test]
    fn several_public_addresses_are_taken_and_unusable_ones_refused() {
        let both = settings(&["--public-ip", "203.0.113.9, 2001:db8::1"]).expect("valid");
        assert_eq!(both.public_ips.len(), 2);
        assert!(
            settings(&["--public-ip", ""])
                .expect("valid")
                .public_ips
                .is_empty()
        );
        for bad in [
            "example.org",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "1.2.3",
            "255.255.255.255",
        ] {
            let error = settings(&["--public-ip", bad]).expect_err(bad);
            assert!(matches!(error, ConfigError::PublicIp { .. }), "{error}");
        }
    }

    #[test]
    fn ice_servers_that_a_browser_would_refuse_are_refused() {
        let servers = |json| settings(&["--ice-servers", json]).map(|s| s.ice_servers);
        assert_eq!(servers("").expect("none"), []);
        let stun = servers(r#"[{"urls": ["stun:a.example"]}]"#).expect("valid");
        assert_eq!(stun[0].urls, ["stun:a.example"]);
        let turn = r#"[{"urls": ["turns:a.example"], "username": "u", "credential": "p"}]"#;
        assert_eq!(
            servers(turn).expect("valid")[0].username.as_deref(),
            Some("u")
        );
        for bad in [
            "stun:a",
            "{}",
            r#"[{"urls": ["turn:a"]}]"#,
            r#"[{"urls": ["http:a"]}]"#,
        ] {
            let error = servers(bad).expect_err(bad).to_string();
            assert!(error.starts_with("--ice-servers"), "{error}");
        }
    }

    #[test]
    fn turn_is_off_until_it_is_asked_for_and_its_peers_are_checked() {
        assert_eq!(settings(&[]).expect("valid").turn_port, None);
        let on = settings(&["--turn-enabled", "--turn-peers", "10.0.0.0/8,any"]).expect("valid");
        assert_eq!(on.turn_port, Some(3478));
        let error = settings(&["--turn-peers", "everybody"]).expect_err("refused");
        assert!(error.to_string().starts_with("--turn-peers"), "{error}");
    }

    #[test]
    fn certificate_and_key_belong_together() {
        assert!(matches!(
            settings(&["--tls-cert", "a.pem"]),
            Err(ConfigError::TlsHalf)
        ));
        let files = settings(&["--tls-cert", "a.pem", "--tls-key", "b.pem"]).expect("valid");
        assert!(matches!(files.tls, Some(TlsSource::Files { .. })));
        let own = settings(&["--tls", "--data-dir", "/x"]).expect("valid");
        assert_eq!(own.tls, Some(TlsSource::SelfSigned("/x".into())));
    }

    #[test]
    fn numbers_out_of_range_are_named() {
        for args in [
            ["--workers", "0"],
            ["--max-rooms", "0"],
            ["--mix-speakers", "0"],
            ["--mix-speakers", "17"],
            ["--mix-channels", "3"],
            ["--demo", "26"],
            ["--max-message-kib", "1"],
            ["--room-empty-seconds", "0"],
        ] {
            let error = settings(&args).expect_err(args[0]).to_string();
            assert!(error.starts_with(args[0]), "{error}");
        }
        assert!(settings(&["--media-port", "65535", "--workers", "2"]).is_err());
    }

    #[test]
    fn a_plain_log_level_is_for_this_server_and_a_bare_word_is_refused() {
        let log = |level| settings(&["--log-level", level]).map(|s| s.log);
        assert_eq!(
            log("debug").expect("valid"),
            format!("warn,{},talksy_unit=debug", checks::LIBRARIES)
        );
        assert_eq!(log("off").expect("valid"), "off");
        assert_eq!(log("a=info,b=warn").expect("valid"), "a=info,b=warn");
        assert!(matches!(log("loud"), Err(ConfigError::LogLevel(_))));
    }

    #[test]
    fn a_static_dir_needs_a_readable_page() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().to_str().expect("text");
        assert!(matches!(
            settings(&["--static-dir", path]),
            Err(ConfigError::StaticDir { .. })
        ));
        std::fs::write(dir.path().join("index.html"), "hi").expect("written");
        assert!(settings(&["--static-dir", path]).is_ok());
    }
}
