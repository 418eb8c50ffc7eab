//! Where this server can be reached: the addresses that its descriptions advertise.
//!
//! A worker's socket is bound to a wildcard, so the candidates are not the agent's: they are the configured public
//! addresses, or else those of the interfaces, with the worker's port.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Addresses in one description. Further interfaces are left out: every one costs each client a check.
const MAX_ADVERTISED: usize = 16;
/// Interfaces that lead to containers and virtual machines of this host, not to clients.
const BRIDGES: [&str; 9] = [
    "docker", "br-", "veth", "virbr", "cni", "flannel", "cali", "podman", "lxc",
];
/// Type preference of host candidates (RFC 8445, section 5.1.2.2).
const HOST_PREFERENCE: u32 = 126;

/// Why there is nothing to advertise. Each says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CandidateError {
    /// Not an address.
    #[error(
        "PUBLIC_IP has {0:?}, which is not an IP address: give addresses separated by commas, without ports"
    )]
    NotAnAddress(String),
    /// An address that no client can send to.
    #[error(
        "PUBLIC_IP has {0}, which no client can send to: give the address that clients reach this host by"
    )]
    Unreachable(IpAddr),
    /// The interfaces cannot be listed.
    #[error(
        "the network interfaces cannot be listed ({0}): set PUBLIC_IP to the address of this host"
    )]
    NoInterfaces(String),
    /// There is no interface with an address.
    #[error(
        "no network interface has an address: set PUBLIC_IP to the address that clients reach this host by"
    )]
    NothingFound,
}

/// An interface's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// `eth0`
    pub name: String,
    /// One of its addresses.
    pub address: IpAddr,
}

/// The UDP addresses that a worker advertises, best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// Address and port. Never empty.
    pub udp: Vec<SocketAddr>,
}

impl Advertised {
    /// The configured addresses if there are any (`PUBLIC_IP`, separated by commas), or those of `interfaces`.
    pub fn new(
        public_ip: Option<&str>,
        interfaces: &[Interface],
        port: u16,
    ) -> Result<Self, CandidateError> {
        let configured = public_ip.map_or(Ok(Vec::new()), parse_public_ip)?;
        let addresses = if configured.is_empty() {
            usable(interfaces)
        } else {
            configured
        };
        if addresses.is_empty() {
            return Err(CandidateError::NothingFound);
        }
        let udp = addresses
            .into_iter()
            .map(|address| SocketAddr::new(address, port))
            .collect();
        Ok(Advertised { udp })
    }

    /// The values of `a=candidate` attributes, each beginning with `candidate:` (RFC 8839, section 5.1), one per
    /// address.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.udp.iter().enumerate().map(|(at, address)| {
            let mut line = String::with_capacity(64);
            let (foundation, priority) = (at + 1, priority(at));
            let (ip, port) = (address.ip(), address.port());
            let _ = write!(
                line,
                "candidate:{foundation} 1 udp {priority} {ip} {port} typ host"
            );
            line
        })
    }
}

/// The addresses of this host's interfaces.
pub fn interfaces() -> Result<Vec<Interface>, CandidateError> {
    let found = if_addrs::get_if_addrs()
        .map_err(|error| CandidateError::NoInterfaces(error.to_string()))?;
    let interfaces = found.into_iter().map(|interface| Interface {
        address: interface.ip(),
        name: interface.name,
    });
    Ok(interfaces.collect())
}

/// RFC 8445, section 5.1.2.1, component 1. The first address has the highest local preference.
fn priority(at: usize) -> u32 {
    let local_preference = 65_535 - at as u32;
    HOST_PREFERENCE << 24 | local_preference << 8 | 255
}

fn parse_public_ip(list: &str) -> Result<Vec<IpAddr>, CandidateError> {
    let mut addresses = Vec::new();
    for part in list
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let bare = part.trim_start_matches('[').trim_end_matches(']');
        let address: IpAddr = bare
            .parse()
            .map_err(|_| CandidateError::NotAnAddress(part.to_owned()))?;
        if address.is_unspecified() || address.is_multicast() || is_broadcast(address) {
            return Err(CandidateError::Unreachable(address));
        }
        if !addresses.contains(&address) && addresses.len() < MAX_ADVERTISED {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// Addresses that clients may reach: IPv4 first, no bridges of this host; bridges and then loopback only if
/// nothing else is left.
fn usable(interfaces: &[Interface]) -> Vec<IpAddr> {
    let fitting: Vec<&Interface> = interfaces
        .iter()
        .filter(|interface| {
            !is_link_local(interface.address) && !interface.address.is_unspecified()
        })
        .collect();
    let choices: [fn(&Interface) -> bool; 3] = [
        |interface| !interface.address.is_loopback() && !is_bridge(&interface.name),
        |interface| !interface.address.is_loopback(),
        |_| true,
    ];
    for choice in choices {
        let mut addresses: Vec<IpAddr> = Vec::new();
        for interface in fitting.iter().filter(|interface| choice(interface)) {
            if !addresses.contains(&interface.address) {
                addresses.push(interface.address);
            }
        }
        if !addresses.is_empty() {
            addresses.sort_by_key(IpAddr::is_ipv6);
            addresses.truncate(MAX_ADVERTISED);
            return addresses;
        }
    }
    Vec::new()
}

fn is_bridge(name: &str) -> bool {
    BRIDGES.iter().any(|prefix| name.starts_with(prefix))
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => Ipv6Addr::is_unicast_link_local(&v6),
    }
}

fn is_broadcast(address: IpAddr) -> bool {
    address == IpAddr::V4(Ipv4Addr::BROADCAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, address: &str) -> Interface {
        Interface {
            name: name.to_owned(),
            address: address.parse().expect("an address"),
        }
    }

    fn advertised(interfaces: &[Interface]) -> Vec<String> {
        let advertised = Advertised::new(None, interfaces, 7000).expect("something");
        advertised.udp.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_configured_addresses_come_before_any_interface() {
        let interfaces = [interface("eth0", "10.0.0.5")];
        let public = Advertised::new(Some(" 203.0.113.9 ,[2001:db8::9],"), &interfaces, 7000);
        assert_eq!(
            public.expect("two").lines().collect::<Vec<_>>(),
            [
                "candidate:1 1 udp 2130706431 203.0.113.9 7000 typ host",
                "candidate:2 1 udp 2130706175 2001:db8::9 7000 typ host",
            ]
        );
        let empty = Advertised::new(Some(""), &interfaces, 7000).expect("the interface");
        assert_eq!(empty.udp, [SocketAddr::from(([10, 0, 0, 5], 7000))]);
    }

    #[test]
    fn bridges_loopback_and_link_local_addresses_are_left_out() {
        let found = advertised(&[
            interface("lo", "127.0.0.1"),
            interface("eth0", "fe80::1"),
            interface("eth0", "2001:db8::5"),
            interface("docker0", "172.17.0.1"),
            interface("br-4f", "172.18.0.1"),
            interface("veth12", "169.254.3.4"),
            interface("eth0", "10.0.0.5"),
            interface("eth0", "10.0.0.5"),
        ]);
        assert_eq!(found, ["10.0.0.5:7000", "[2001:db8::5]:7000"]);
    }

    #[test]
    fn bridges_and_then_loopback_are_better_than_nothing() {
        let (lo, docker) = (
            interface("lo", "127.0.0.1"),
            interface("docker0", "172.17.0.1"),
        );
        assert_eq!(advertised(&[lo.clone(), docker]), ["172.17.0.1:7000"]);
        assert_eq!(advertised(&[lo]), ["127.0.0.1:7000"]);
    }

    #[test]
    fn an_unusable_configuration_is_explained() {
        let error = |list| Advertised::new(Some(list), &[], 7000).expect_err("unusable");
        assert_eq!(
            error("example.org").to_string(),
            "PUBLIC_IP has \"example.org\", which is not an IP address: give addresses separated by commas, without ports"
        );
        assert_eq!(
            error("0.0.0.0").to_string(),
            "PUBLIC_IP has 0.0.0.0, which no client can send to: give the address that clients reach this host by"
        );
        assert_eq!(error(","), CandidateError::NothingFound);
    }

    #[test]
    fn this_host_has_interfaces() {
        assert!(!interfaces().expect("a list").is_empty());
    }
}
