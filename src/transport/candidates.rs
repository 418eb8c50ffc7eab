//! Where this server can be reached: the addresses that its descriptions advertise.
//!
//! A worker's socket is bound to a wildcard, so the candidates are not the agent's: they are the configured public
//! addresses, or else those of the interfaces, with the worker's port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Addresses in one description. Further interfaces are left out: every one costs each client a check.
const MAX_ADVERTISED: usize = 16;
/// Interfaces that lead to containers and virtual machines of this host, not to clients.
const BRIDGES: [&str; 9] = [
    "docker", "br-", "veth", "virbr", "cni", "flannel", "cali", "podman", "lxc",
];
/// Type preference of host candidates (RFC 8445, section 5.1.2.2).
const HOST_PREFERENCE: u32 = 126;
/// The same over TCP: below everything that UDP has, relays excepted (RFC 6544, section 4.2).
const TCP_PREFERENCE: u32 = 90;
/// Direction preference of passive candidates, in the upper three bits of the local preference (RFC 6544, section 4.2).
const PASSIVE: u32 = 4 << 13;

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

/// The addresses that a worker advertises, best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// Address and UDP port. Never empty.
    pub udp: Vec<SocketAddr>,
    /// Address and TCP port on which connections are taken; empty: none are.
    pub tcp: Vec<SocketAddr>,
}

impl Advertised {
    /// The configured addresses if there are any (`PUBLIC_IP`, separated by commas), or those of `interfaces`.
    pub fn new(
        public_ip: Option<&str>,
        interfaces: &[Interface],
        port: u16,
        tcp_port: Option<u16>,
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
        let with_port = |port| {
            let addresses = addresses.iter();
            addresses
                .map(|address| SocketAddr::new(*address, port))
                .collect()
        };
        Ok(Advertised {
            udp: with_port(port),
            tcp: tcp_port.map(with_port).unwrap_or_default(),
        })
    }

    /// Leaves out what does not fit.
    pub fn retain(&mut self, fits: impl Fn(&SocketAddr) -> bool) {
        self.udp.retain(&fits);
        self.tcp.retain(&fits);
    }

    /// The values of `a=candidate` attributes, each beginning with `candidate:` (RFC 8839, section 5.1; RFC 6544,
    /// section 4.5), one per address and protocol, UDP first.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let udp = self.udp.iter().enumerate().map(|(at, address)| {
            let priority = priority(HOST_PREFERENCE, 65_535 - at as u32);
            line(at + 1, "udp", priority, *address)
        });
        let others = self.udp.len();
        let tcp = self.tcp.iter().enumerate().map(move |(at, address)| {
            let priority = priority(TCP_PREFERENCE, PASSIVE + 8_191 - at as u32);
            line(others + at + 1, "tcp", priority, *address) + " tcptype passive"
        });
        udp.chain(tcp)
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

fn line(foundation: usize, protocol: &str, priority: u32, address: SocketAddr) -> String {
    let (ip, port) = (address.ip(), address.port());
    format!("candidate:{foundation} 1 {protocol} {priority} {ip} {port} typ host")
}

/// RFC 8445, section 5.1.2.1, component 1.
fn priority(type_preference: u32, local_preference: u32) -> u32 {
    type_preference << 24 | local_preference << 8 | 255
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

/// Addresses that clients may reach: IPv4 first, no bridges of this host; bridges, link-local addresses and then
/// loopback only if nothing else is left.
fn usable(interfaces: &[Interface]) -> Vec<IpAddr> {
    let fitting: Vec<&Interface> = interfaces
        .iter()
        .filter(|interface| {
            // A link-local IPv6 address means nothing without the client's own name of the link.
            let usable = interface.address.is_ipv4() || !is_link_local(interface.address);
            usable && !interface.address.is_unspecified()
        })
        .collect();
    let choices: [fn(&Interface) -> bool; 4] = [
        |interface| is_routed(interface.address) && !is_bridge(&interface.name),
        |interface| is_routed(interface.address),
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

/// Neither loopback nor link-local.
fn is_routed(address: IpAddr) -> bool {
    !address.is_loopback() && !is_link_local(address)
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
        let advertised = Advertised::new(None, interfaces, 7000, None).expect("something");
        advertised.udp.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_configured_addresses_come_before_any_interface() {
        let interfaces = [interface("eth0", "10.0.0.5")];
        let public = Advertised::new(
            Some(" 203.0.113.9 ,[2001:db8::9],"),
            &interfaces,
            7000,
            Some(7001),
        );
        assert_eq!(
            public.expect("two").lines().collect::<Vec<_>>(),
            [
                "candidate:1 1 udp 2130706431 203.0.113.9 7000 typ host",
                "candidate:2 1 udp 2130706175 2001:db8::9 7000 typ host",
                "candidate:3 1 tcp 1520435199 203.0.113.9 7001 typ host tcptype passive",
                "candidate:4 1 tcp 1520434943 2001:db8::9 7001 typ host tcptype passive",
            ]
        );
        let empty = Advertised::new(Some(""), &interfaces, 7000, None).expect("the interface");
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
        let link_local = interface("eth0", "169.254.3.4");
        let of_the_link = interface("eth0", "fe80::1");
        assert_eq!(
            advertised(&[lo.clone(), of_the_link.clone(), link_local]),
            ["169.254.3.4:7000"]
        );
        assert_eq!(advertised(&[lo, of_the_link]), ["127.0.0.1:7000"]);
    }

    #[test]
    fn an_unusable_configuration_is_explained() {
        let error = |list| Advertised::new(Some(list), &[], 7000, None).expect_err("unusable");
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
