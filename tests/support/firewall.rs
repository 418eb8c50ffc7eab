//! What corporate networks do to UDP: rules of nftables in the tests' own network namespace.

use std::io::Write;
use std::process::{Command, Stdio};

/// Rules that hold until this is dropped.
pub struct Firewall {
    table: String,
}

impl Firewall {
    /// Nobody gets UDP to these ports through.
    ///
    /// # Panics
    /// Outside of the namespace that `tests/in-namespace` makes: the rules are not for anybody's machine.
    pub fn against_udp(ports: std::ops::RangeInclusive<u16>) -> Self {
        let interfaces = std::fs::read_to_string("/proc/self/net/dev").unwrap();
        assert!(
            interfaces.contains("bench0:"),
            "run this by tests/in-namespace: it changes the firewall"
        );
        let table = format!("talksy_test_{}", ports.start());
        let (first, last) = (ports.start(), ports.end());
        // Rejecting would be kinder than most networks are: they swallow.
        nft(&format!(
            "table inet {table} {{\nchain input {{\ntype filter hook input priority 0;\nudp dport {first}-{last} counter drop\n}}\n}}\n"
        ));
        Firewall { table }
    }

    /// Lets what this machine sends itself by loopback addresses pass.
    pub fn allow_loopback(&self) {
        let table = &self.table;
        nft(&format!(
            "insert rule inet {table} input ip daddr 127.0.0.0/8 accept\n"
        ));
    }

    /// Packets that were swallowed.
    pub fn dropped(&self) -> u64 {
        let output = Command::new("nft")
            .args(["list", "table", "inet", &self.table])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let count = text.split("counter packets ").nth(1);
        let count = count.and_then(|text| text.split_whitespace().next());
        count.unwrap_or_else(|| panic!("{text}")).parse().unwrap()
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        nft(&format!("delete table inet {}", self.table));
    }
}

fn nft(rules: &str) {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(rules.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success(), "{rules}");
}
