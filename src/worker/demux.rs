//! Which peer a datagram belongs to: by address, and for a new address by the ICE user fragment of its STUN
//! request (RFC 8445, section 7.3).

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::transport::requested_ufrag;
use crate::worker::acceptor::Directory;

/// Addresses that one peer may have at a time. A browser shows a handful (interfaces, relays, reflexive ones);
/// when a further one turns up the oldest that carries no media is forgotten.
pub const ADDRESSES_PER_PEER: usize = 32;

/// A peer's place in the worker's table.
pub type Slot = usize;

/// Addresses and user fragments of one worker.
#[derive(Default)]
pub struct Demux {
    by_address: HashMap<SocketAddr, Slot>,
    by_ufrag: HashMap<String, Slot>,
    addresses: HashMap<Slot, Vec<SocketAddr>>,
    directory: Directory,
    worker: usize,
}

impl Demux {
    /// Of the worker with this number; its user fragments are in `directory` too.
    pub fn new(directory: Directory, worker: usize) -> Self {
        Demux {
            directory,
            worker,
            ..Demux::default()
        }
    }

    /// The peer that is known to send from this address.
    pub fn lookup(&self, from: SocketAddr) -> Option<Slot> {
        self.by_address.get(&from).copied()
    }

    /// The peer that a STUN binding request is meant for.
    pub fn addressee(&self, datagram: &[u8]) -> Option<Slot> {
        self.by_ufrag.get(requested_ufrag(datagram)?).copied()
    }

    /// The address is this peer's from now on, and nobody else's; `selected` is where the peer's media goes.
    ///
    /// A new address is believed before the request's integrity is checked: it only routes further STUN and DTLS,
    /// and the transport refuses what was not made with its password. One that another peer has may only be taken
    /// with an authentic request, or a forged source would cut that peer off.
    pub fn claim(&mut self, from: SocketAddr, slot: Slot, selected: Option<SocketAddr>) {
        if self.by_address.insert(from, slot) == Some(slot) {
            return;
        }
        for list in self.addresses.values_mut() {
            list.retain(|known| *known != from);
        }
        let list = self.addresses.entry(slot).or_default();
        list.push(from);
        if list.len() > ADDRESSES_PER_PEER {
            let oldest = list
                .iter()
                .position(|known| Some(*known) != selected)
                .unwrap_or(0);
            let forgotten = list.remove(oldest);
            self.by_address.remove(&forgotten);
        }
    }

    /// These user fragments are the peer's, and no others.
    pub fn set_ufrags(&mut self, slot: Slot, ufrags: &[String]) {
        self.forget_ufrags(slot);
        for ufrag in ufrags {
            self.by_ufrag.insert(ufrag.clone(), slot);
            self.directory.insert(ufrag, self.worker);
        }
    }

    fn forget_ufrags(&mut self, slot: Slot) {
        let directory = &self.directory;
        self.by_ufrag.retain(|ufrag, owner| {
            if *owner == slot {
                directory.remove(ufrag);
            }
            *owner != slot
        });
    }

    /// The peer is gone.
    pub fn forget(&mut self, slot: Slot) {
        self.forget_ufrags(slot);
        for address in self.addresses.remove(&slot).unwrap_or_default() {
            self.by_address.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(username: &str) -> Vec<u8> {
        let padded = username.len().next_multiple_of(4);
        let mut stun = vec![0, 1, 0, 4 + padded as u8, 0x21, 0x12, 0xa4, 0x42];
        stun.extend([7; 12]);
        stun.extend([0, 6, 0, username.len() as u8]);
        stun.extend(username.as_bytes());
        stun.resize(24 + padded, 0);
        stun
    }

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    #[test]
    fn a_new_address_is_found_by_ufrag_and_then_known() {
        let mut demux = Demux::default();
        demux.set_ufrags(3, &["abc".to_string()]);
        assert_eq!(demux.lookup(addr(1)), None);
        assert_eq!(demux.addressee(&request("abc:them")), Some(3));
        assert_eq!(demux.addressee(&request("xyz:them")), None);
        demux.claim(addr(1), 3, None);
        assert_eq!(demux.lookup(addr(1)), Some(3));
        demux.forget(3);
        assert_eq!(demux.lookup(addr(1)), None);
        assert_eq!(demux.addressee(&request("abc:them")), None);
    }

    #[test]
    fn an_address_belongs_to_whoever_claimed_it_last() {
        let mut demux = Demux::default();
        demux.claim(addr(1), 1, None);
        demux.claim(addr(1), 2, None);
        assert_eq!(demux.lookup(addr(1)), Some(2));
        demux.forget(1);
        assert_eq!(demux.lookup(addr(1)), Some(2));
    }

    #[test]
    fn a_flood_of_addresses_keeps_the_one_with_media() {
        let mut demux = Demux::default();
        for port in 1..=1000 {
            demux.claim(addr(port), 1, Some(addr(1)));
        }
        assert_eq!(demux.lookup(addr(1)), Some(1));
        assert_eq!(demux.by_address.len(), ADDRESSES_PER_PEER);
    }
}
