//! What the server tells its clients about ways to it, beside the candidates in SDP: ICE servers, its own TURN among them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::ids::PeerId;
use crate::turn::{Secret, TurnCounters};
use crate::worker::AcceptorCounters;

/// An RTCIceServer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IceServer {
    /// `stun:…` and `turn:…`
    pub urls: Vec<String>,
    /// For TURN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// For TURN: a password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

/// The server's own TURN, as it is announced.
#[derive(Clone)]
pub struct OwnTurn {
    /// Its port, UDP and TCP.
    pub port: u16,
    /// What signs the credentials.
    pub secret: Secret,
    /// Addresses that clients reach it by whatever name they used: `PUBLIC_IP`.
    pub public: Vec<IpAddr>,
    /// Likewise, for pages that were opened at `localhost`.
    pub local: Option<IpAddr>,
    /// What it did.
    pub counters: Arc<TurnCounters>,
}

/// See the module's text.
#[derive(Clone, Default)]
pub struct Reach {
    /// ICE servers of the operator.
    pub external: Vec<IceServer>,
    /// The server's own.
    pub turn: Option<OwnTurn>,
    /// What the TCP port for media did.
    pub acceptor: Option<Arc<AcceptorCounters>>,
}

impl Reach {
    /// For `client`, whose browser reached the page at `host` (the value of its Host header).
    pub fn ice_servers(
        &self,
        client: PeerId,
        host: Option<&str>,
        now: SystemTime,
    ) -> Vec<IceServer> {
        let own = self.turn.as_ref().and_then(|turn| {
            let hosts = turn.hosts(host);
            let credentials = turn.secret.issue(&client.to_string(), now);
            let urls = hosts.iter().flat_map(|host| {
                ["udp", "tcp"]
                    .map(|protocol| format!("turn:{host}:{}?transport={protocol}", turn.port))
            });
            let server = IceServer {
                urls: urls.collect(),
                username: Some(credentials.username),
                credential: Some(credentials.password),
            };
            (!hosts.is_empty()).then_some(server)
        });
        own.into_iter()
            .chain(self.external.iter().cloned())
            .collect()
    }
}

impl OwnTurn {
    /// What the configuration says, or else the name that the client used.
    fn hosts(&self, host: Option<&str>) -> Vec<String> {
        if !self.public.is_empty() {
            return self.public.iter().map(|ip| in_url(*ip)).collect();
        }
        let name = host.and_then(host_name);
        let is_local = |name: &str| {
            let bare = name.trim_matches(['[', ']']);
            let loopback = bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
            loopback || bare.eq_ignore_ascii_case("localhost")
        };
        match name.filter(|name| !is_local(name)) {
            Some(name) => vec![name],
            // Browsers do not use loopback for media, and whoever is at localhost reaches the other addresses too.
            None => self.local.map(in_url).into_iter().collect(),
        }
    }
}

fn in_url(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// The name of a Host header without its port. `None`: it is no name that could stand in a URL; the client that sent it
/// gets no better one.
fn host_name(host: &str) -> Option<String> {
    if let Some(rest) = host.strip_prefix('[') {
        let (address, _) = rest.split_once(']')?;
        let ip: std::net::Ipv6Addr = address.parse().ok()?;
        return Some(format!("[{ip}]"));
    }
    let name = host.split(':').next()?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    let whole = !name.is_empty() && name.len() <= 253 && name.bytes().all(fits);
    whole.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(public: &[&str]) -> Reach {
        let parse = |ip: &&str| ip.parse().unwrap();
        Reach {
            external: vec![IceServer {
                urls: vec!["stun:stun.example.org".into()],
                username: None,
                credential: None,
            }],
            turn: Some(OwnTurn {
                port: 3478,
                secret: Secret::random(),
                public: public.iter().map(parse).collect(),
                local: Some("10.0.0.5".parse().unwrap()),
                counters: Arc::default(),
            }),
            acceptor: None,
        }
    }

    fn urls(reach: &Reach, host: Option<&str>) -> Vec<String> {
        let servers = reach.ice_servers(PeerId::random(), host, SystemTime::now());
        servers[0].urls.clone()
    }

    #[test]
    fn turn_is_where_the_page_is_unless_the_address_is_configured() {
        let here = turn(&[]);
        for (host, expected) in [
            (Some("meet.example.org"), "meet.example.org"),
            (Some("meet.example.org:8443"), "meet.example.org"),
            (Some("192.0.2.7:8000"), "192.0.2.7"),
            (Some("[2001:db8::7]:8000"), "[2001:db8::7]"),
            (Some("localhost:8000"), "10.0.0.5"),
            (Some("127.0.0.1:8000"), "10.0.0.5"),
            (Some("[::1]:8000"), "10.0.0.5"),
            (Some("a b\"c"), "10.0.0.5"),
            (Some(""), "10.0.0.5"),
            (None, "10.0.0.5"),
        ] {
            assert_eq!(
                urls(&here, host),
                ["udp", "tcp"].map(|p| format!("turn:{expected}:3478?transport={p}")),
                "{host:?}"
            );
        }
        let there = turn(&["203.0.113.9", "2001:db8::9"]);
        assert_eq!(urls(&there, Some("meet.example.org")).len(), 4);
        assert!(urls(&there, None)[2].starts_with("turn:[2001:db8::9]:3478"));
    }

    #[test]
    fn credentials_are_for_one_client_and_the_operators_servers_follow() {
        let reach = turn(&[]);
        let (client, now) = (PeerId::random(), SystemTime::now());
        let servers = reach.ice_servers(client, None, now);
        let user = servers[0].username.clone().unwrap();
        assert!(user.ends_with(&client.to_string()));
        let secret = &reach.turn.as_ref().unwrap().secret;
        assert_eq!(servers[0].credential, secret.password(&user, now));
        assert_eq!(
            serde_json::to_value(&servers[1]).unwrap(),
            serde_json::json!({"urls": ["stun:stun.example.org"]})
        );
        assert!(Reach::default().ice_servers(client, None, now).is_empty());
    }
}
