//! Clients on networks of their own: each lives in a namespace, and what it and the server send each other goes through
//! a bridge that loses, delays and holds back as a test says.
//!
//! The server stays in the test's namespace ([`SERVER`]); `tests/in-namespace` has made it. The kernel's own emulation
//! (netem) is not on every machine, so the bridge is a thread of the test between two veth pairs.

pub mod bridge;
pub mod impairment;
pub mod namespace;
pub mod trace;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bridge::Link;
use namespace::Namespace;

/// Where clients reach the server: the address of the test's own namespace.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// Names and addresses are never used twice: the kernel takes its time to remove an old network.
static NEXT: AtomicU8 = AtomicU8::new(1);

/// The place between the clients and the server, with one bridge for each client. Dropping it removes everything.
pub struct Network {
    middle: Namespace,
}

/// A network with one address, from which the server is one impaired hop away.
pub struct Client {
    /// Where its programs run.
    pub namespace: Arc<Namespace>,
    /// Its way to the server and back.
    pub link: Link,
    /// Its address.
    pub address: Ipv4Addr,
}

impl Network {
    /// # Panics
    /// When the test does not run in `tests/in-namespace`.
    pub fn new() -> Self {
        let addresses = namespace::command("ip", &["-4", "-o", "address"]);
        assert!(
            addresses.contains(&format!(" {SERVER}/")),
            "this test needs a namespace with {SERVER}: run it by `make browser-test TESTS=\"--test network\"`, \
             or with tests/in-namespace before the command"
        );
        Network {
            middle: Namespace::new(),
        }
    }

    /// A further client. The same `seed` gives the same losses for the same packets.
    pub fn client(&self, seed: u64) -> Client {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(number < 255, "one test binary has at most 254 clients");
        let namespace = Namespace::new();
        let address = Ipv4Addr::new(10, 78, number, 2);
        let middle = self.middle.task().to_owned();
        let (far, near) = (format!("far{number}"), format!("near{number}"));
        let (to_server, to_client) = (format!("s{number}"), format!("c{number}"));

        join(&far, &to_server, &middle);
        // The server answers from the address that it is known by, whatever the interface.
        let (host, source) = (format!("{address}/32"), SERVER.to_string());
        ip(&["route", "add", &host, "dev", &far, "src", &source]);
        let peer = to_client.clone();
        namespace.run(move || {
            join(&near, &peer, &middle);
            ip(&["address", "add", &format!("{address}/24"), "dev", &near]);
            ip(&["route", "add", "default", "dev", &near]);
        });
        let link = self.middle.run(move || {
            for end in [&to_client, &to_server] {
                ip(&["link", "set", end, "addrgenmode", "none", "up"]);
            }
            Link::start(&to_client, &to_server, seed)
        });
        Client {
            namespace: Arc::new(namespace),
            link,
            address,
        }
    }
}

/// Makes a veth pair of `end` here and `peer` in the namespace of the thread `task`.
fn join(end: &str, peer: &str, task: &str) {
    ip(&[
        "link", "add", end, "type", "veth", "peer", "name", peer, "netns", task,
    ]);
    // A bridge in user space sees neither checksums nor segments that an interface was to make.
    namespace::command(
        "ethtool",
        &[
            "-K", end, "tx", "off", "gso", "off", "gro", "off", "tso", "off",
        ],
    );
    ip(&["link", "set", end, "addrgenmode", "none", "up"]);
}

fn ip(arguments: &[&str]) {
    namespace::command("ip", arguments);
}
