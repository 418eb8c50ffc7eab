//! What is said in one piece of text, taken apart and checked.

use std::net::IpAddr;
use std::path::Path;

use super::ConfigError;
use crate::reach::IceServer;

/// Whether a number lies between two others, both included.
pub(super) fn range(
    option: &'static str,
    value: u64,
    min: u64,
    max: u64,
) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::Range {
        option,
        min,
        max,
        value,
    })
}

/// What browsers would refuse with an exception, and the page with it, is refused here.
pub(super) fn ice_servers(json: &str) -> Result<Vec<IceServer>, ConfigError> {
    if json.trim().is_empty() {
        return Ok(Vec::new());
    }
    let servers: Vec<IceServer> =
        serde_json::from_str(json).map_err(|error| ConfigError::IceServers(error.to_string()))?;
    for server in &servers {
        let named = server.username.is_some() && server.credential.is_some();
        for url in &server.urls {
            let scheme = url.split(':').next().unwrap_or_default();
            let problem = match scheme {
                "stun" | "stuns" => None,
                "turn" | "turns" if named => None,
                "turn" | "turns" => Some("has no username and credential"),
                _ => Some("begins with none of stun:, stuns:, turn: and turns:"),
            };
            if let Some(problem) = problem {
                return Err(ConfigError::IceServers(format!("{url:?} {problem}")));
            }
        }
    }
    Ok(servers)
}

/// Addresses with commas or spaces between them.
pub(super) fn public_ips(text: &str) -> Result<Vec<IpAddr>, ConfigError> {
    let parts = text.split([',', ' ']).map(str::trim);
    parts.filter(|p| !p.is_empty()).map(public_ip).collect()
}

fn public_ip(text: &str) -> Result<IpAddr, ConfigError> {
    let unusable = |why| ConfigError::PublicIp {
        text: text.to_owned(),
        why,
    };
    let ip: IpAddr = text
        .parse()
        .map_err(|_| unusable("it is not an IP address"))?;
    if ip.is_unspecified() {
        Err(unusable("it stands for every address, clients need one"))
    } else if ip.is_multicast() || ip == IpAddr::from([255, 255, 255, 255]) {
        Err(unusable("it is not the address of one machine"))
    } else {
        Ok(ip)
    }
}

/// Part of a sentence, if a folder holds no page.
pub(super) fn readable_page(dir: &Path) -> Result<(), String> {
    std::fs::read_dir(dir).map_err(|e| e.to_string())?;
    match std::fs::File::open(dir.join("index.html")) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("its index.html cannot be read ({error})")),
    }
}

/// These warn at every connection of every browser about what is no fault.
pub(super) const LIBRARIES: &str =
    "rtc=error,rtc_dtls=error,rtc_ice=error,rtc_sctp=error,webrtc=error";

/// A plain level is for this server; the libraries below it speak from `warn` on.
pub(super) fn log_directives(level: &str, debug: bool) -> Result<String, ConfigError> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let level = level.trim().to_ascii_lowercase();
    let level = match (debug, level.as_str()) {
        (true, _) => "debug",
        (false, "") => "info",
        (false, level) => level,
    };
    if matches!(level, "off" | "error") {
        return Ok(level.to_owned());
    }
    if LEVELS.contains(&level) {
        return Ok(format!("warn,{LIBRARIES},talksy_unit={level}"));
    }
    // A bare word would be taken for the name of a module, and everything be silent.
    let is_filter = level.contains('=') && level.parse::<tracing_subscriber::EnvFilter>().is_ok();
    is_filter
        .then(|| level.to_owned())
        .ok_or_else(|| ConfigError::LogLevel(level.to_owned()))
}
