//! To whom is relayed: to the media addresses of this server, and to whatever else the operator names.
//!
//! Clients know the media by its advertised addresses, which may be those of a NAT in front of this machine. A datagram
//! for one of them goes over loopback to the same worker: no hairpin through the NAT, no relay port open to the network.
//! Each advertised address has a loopback address of its own, so that what comes back can be told apart.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// The policy cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is neither a network (10.0.0.0/8, 2001:db8::/32), an address nor \"any\": name what TURN may relay to beside this server's own media, or leave it out"
)]
pub struct PeersError(String);

/// One of `--turn-peers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    /// Every address but loopback, link-local, multicast and unspecified ones.
    Any,
    /// Addresses with the same first bits.
    Prefix(IpAddr, u8),
}

/// Who may be relayed to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerPolicy {
    /// The advertised media addresses, at most [`MAX_MEDIA_IPS`] different ones, with every port.
    media: Vec<SocketAddr>,
    /// Their addresses, each once; its place makes its loopback address.
    ips: Vec<IpAddr>,
    networks: Vec<Network>,
}

/// Media addresses that have a place on loopback; the candidates' own limit is below it.
const MAX_MEDIA_IPS: usize = 250;

impl PeerPolicy {
    /// Nothing but these media addresses.
    pub fn media_only(media: &[SocketAddr]) -> Self {
        let mut ips: Vec<IpAddr> = Vec::new();
        for address in media {
            if !ips.contains(&address.ip()) && ips.len() < MAX_MEDIA_IPS {
                ips.push(address.ip());
            }
        }
        PeerPolicy {
            media: media.to_vec(),
            ips,
            networks: Vec::new(),
        }
    }

    /// The networks of `list` (commas between them) too.
    ///
    /// # Errors
    /// A part of the list cannot be read.
    pub fn and(mut self, list: &str) -> Result<Self, PeersError> {
        for part in list.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            self.networks.push(part.parse()?);
        }
        Ok(self)
    }

    /// Whether anything but this server's media can be reached.
    pub fn is_open(&self) -> bool {
        !self.networks.is_empty()
    }

    /// Whether a permission for this address is given at all (RFC 8656, section 9.2).
    pub fn allows_ip(&self, ip: IpAddr) -> bool {
        self.ips.contains(&ip) || self.networks.iter().any(|network| network.has(ip))
    }

    /// Where a datagram for `peer` really goes; `None`: nowhere.
    pub fn way_to(&self, peer: SocketAddr) -> Option<SocketAddr> {
        if self.media.contains(&peer) {
            let place = self.ips.iter().position(|ip| *ip == peer.ip())?;
            return Some(SocketAddr::new(loopback(place).into(), peer.port()));
        }
        let outside = self.networks.iter().any(|network| network.has(peer.ip()));
        outside.then_some(peer)
    }

    /// As whose a datagram from `from` is passed to the client; `None`: it is nobody's.
    pub fn face_of(&self, from: SocketAddr) -> Option<SocketAddr> {
        for (place, ip) in self.ips.iter().enumerate() {
            if from.ip() == IpAddr::V4(loopback(place)) {
                let face = SocketAddr::new(*ip, from.port());
                return self.media.contains(&face).then_some(face);
            }
        }
        let outside = self.networks.iter().any(|network| network.has(from.ip()));
        outside.then_some(from)
    }
}

/// All of 127.0.0.0/8 is this host, and this part of it is rarely used for anything.
fn loopback(place: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 77, 0, place as u8 + 1)
}

impl Network {
    fn has(&self, ip: IpAddr) -> bool {
        match (self, ip) {
            (Network::Any, ip) => is_remote(ip),
            (Network::Prefix(IpAddr::V4(net), bits), IpAddr::V4(ip)) => {
                let shift = 32 - u32::from(*bits);
                u32::from(*net).checked_shr(shift) == u32::from(ip).checked_shr(shift)
            }
            (Network::Prefix(IpAddr::V6(net), bits), IpAddr::V6(ip)) => {
                let shift = 128 - u32::from(*bits);
                u128::from(*net).checked_shr(shift) == u128::from(ip).checked_shr(shift)
            }
            (Network::Prefix(..), _) => false,
        }
    }
}

fn is_remote(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || link_local)
}

impl FromStr for Network {
    type Err = PeersError;

    fn from_str(text: &str) -> Result<Self, PeersError> {
        if text.eq_ignore_ascii_case("any") {
            return Ok(Network::Any);
        }
        let wrong = || PeersError(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse().map_err(|_| wrong())?,
            None => longest,
        };
        if bits > longest {
            return Err(wrong());
        }
        Ok(Network::Prefix(address, bits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn media() -> PeerPolicy {
        PeerPolicy::media_only(&[
            at("203.0.113.9:7882"),
            at("[2001:db8::9]:7882"),
            at("203.0.113.9:7883"),
        ])
    }

    #[test]
    fn media_is_reached_over_loopback_and_comes_back_as_it_was_called() {
        let policy = media();
        for (peer, way) in [
            ("203.0.113.9:7882", "127.77.0.1:7882"),
            ("203.0.113.9:7883", "127.77.0.1:7883"),
            ("[2001:db8::9]:7882", "127.77.0.2:7882"),
        ] {
            assert_eq!(policy.way_to(at(peer)), Some(at(way)));
            assert_eq!(policy.face_of(at(way)), Some(at(peer)));
        }
    }

    #[test]
    fn nothing_else_is_reached() {
        let policy = media();
        for peer in [
            "127.0.0.1:7882",
            "127.77.0.1:7882",
            "203.0.113.9:22",
            "[2001:db8::9]:7883",
            "10.0.0.1:7882",
            "8.8.8.8:53",
            "169.254.169.254:80",
            "[::1]:7882",
        ] {
            assert_eq!(policy.way_to(at(peer)), None, "{peer}");
            assert_eq!(
                policy.face_of(at(peer)).is_some(),
                peer == "127.77.0.1:7882"
            );
        }
        assert!(!policy.is_open());
        assert!(policy.allows_ip("203.0.113.9".parse().unwrap()));
        assert!(!policy.allows_ip("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn loopback_is_reached_where_the_media_is_there() {
        let policy = PeerPolicy::media_only(&[at("127.0.0.1:7882")]);
        assert_eq!(
            policy.way_to(at("127.0.0.1:7882")),
            Some(at("127.77.0.1:7882"))
        );
        assert_eq!(policy.way_to(at("127.0.0.1:22")), None);
    }

    #[test]
    fn named_networks_are_reached_as_they_are() {
        let policy = media()
            .and("10.1.0.0/16, 192.0.2.1,2001:db8:1::/48")
            .unwrap();
        assert!(policy.is_open());
        for (peer, reached) in [
            ("10.1.2.3:5000", true),
            ("10.2.2.3:5000", false),
            ("192.0.2.1:1", true),
            ("192.0.2.2:1", false),
            ("[2001:db8:1:2::3]:9", true),
            ("[2001:db8:2::3]:9", false),
        ] {
            assert_eq!(policy.way_to(at(peer)).is_some(), reached, "{peer}");
        }
        let any = media().and("any").unwrap();
        assert!(any.allows_ip("8.8.8.8".parse().unwrap()));
        for inner in [
            "127.0.0.1",
            "::1",
            "169.254.1.1",
            "224.0.0.1",
            "0.0.0.0",
            "::ffff:127.0.0.1",
        ] {
            assert!(!any.allows_ip(inner.parse().unwrap()), "{inner}");
        }
        let everything = media().and("0.0.0.0/0").unwrap();
        assert!(everything.allows_ip("127.0.0.1".parse().unwrap()));
        for bad in ["10.0.0.0/33", "example.org", "10.0.0.0/x", "::/129"] {
            assert!(media().and(bad).is_err(), "{bad}");
        }
    }
}
