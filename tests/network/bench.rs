//! The test bench itself: what the bridge promises to do to packets, it does.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use crate::alone;
use crate::support::network::bridge::Way;
use crate::support::network::impairment::{
    Bursts, Cause, Fate, Impairment, Jitter, Rate, Settings,
};
use crate::support::network::trace::{Packet, Repairs, Seen, parse};
use crate::support::network::{Network, SERVER};

const MS: Duration = Duration::from_millis(1);

/// The fates of `count` packets of 1000 bytes, one each `gap`.
fn fates(settings: Settings, count: u32, gap: Duration) -> (Instant, Vec<Fate>) {
    let begin = Instant::now();
    let mut impairment = Impairment::new(7);
    impairment.set(settings);
    let decide = |n| impairment.decide(begin + gap * n, 1000);
    (begin, (0..count).map(decide).collect())
}

/// Delays of those that were not lost, with their numbers.
fn delays(begin: Instant, gap: Duration, fates: &[Fate]) -> Vec<(u32, Duration)> {
    let each = fates.iter().enumerate().filter_map(|(n, fate)| match fate {
        Fate::Leaves { at, .. } => Some((n as u32, *at - (begin + gap * n as u32))),
        Fate::Lost(_) => None,
    });
    each.collect()
}

fn share(fates: &[Fate], of: impl Fn(&Fate) -> bool) -> f64 {
    fates.iter().filter(|fate| of(fate)).count() as f64 / fates.len() as f64
}

#[test]
fn random_losses_come_alone_and_bursts_together() {
    let loss = Settings {
        loss: 0.1,
        ..Settings::default()
    };
    let (_, alone) = fates(loss, 50_000, MS);
    let lost = share(&alone, |fate| *fate == Fate::Lost(Cause::Random));
    assert!((lost - 0.1).abs() < 0.01, "{lost}");

    let bursts = Settings {
        bursts: Some(Bursts::new(0.2, 4.0)),
        ..Settings::default()
    };
    let (_, together) = fates(bursts, 50_000, MS);
    let is_lost = |fate: &Fate| *fate == Fate::Lost(Cause::Burst);
    let lost = share(&together, is_lost);
    assert!((lost - 0.2).abs() < 0.02, "{lost}");
    let begins = together
        .windows(2)
        .filter(|two| !is_lost(&two[0]) && is_lost(&two[1]));
    let length = lost * together.len() as f64 / begins.count() as f64;
    assert!((length - 4.0).abs() < 0.4, "{length}");
    let (_, again) = fates(bursts, 50_000, MS);
    assert!(
        together.iter().map(is_lost).eq(again.iter().map(is_lost)),
        "the same seed"
    );
}

#[test]
fn jitter_keeps_the_order_unless_it_is_told_otherwise() {
    let settings = |jitter| Settings {
        delay: 100 * MS,
        jitter,
        ..Settings::default()
    };
    let (begin, ordered) = fates(settings(Jitter::InOrder(30 * MS)), 5000, 5 * MS);
    let ordered = delays(begin, 5 * MS, &ordered);
    assert!(
        ordered
            .iter()
            .all(|(_, d)| (70 * MS..=130 * MS).contains(d))
    );
    assert!(ordered.iter().any(|(_, d)| *d < 90 * MS));
    assert!(ordered.iter().any(|(_, d)| *d > 125 * MS));
    let leaves = |all: &[(u32, Duration)]| -> Vec<Duration> {
        all.iter().map(|(n, delay)| 5 * MS * *n + *delay).collect()
    };
    assert!(leaves(&ordered).is_sorted());
    let (begin, wild) = fates(settings(Jitter::Reordering(30 * MS)), 5000, 5 * MS);
    assert!(!leaves(&delays(begin, 5 * MS, &wild)).is_sorted());
}

#[test]
fn late_packets_are_overtaken_and_duplicates_come_twice() {
    let settings = Settings {
        delay: 20 * MS,
        late: 0.02,
        late_by: 15 * MS,
        duplicates: 0.05,
        ..Settings::default()
    };
    let (begin, all) = fates(settings, 50_000, MS);
    let late = share(&all, |fate| matches!(fate, Fate::Leaves { late: true, .. }));
    let twice = share(&all, |fate| {
        matches!(fate, Fate::Leaves { twice: true, .. })
    });
    assert!(
        (late - 0.02).abs() < 0.004 && (twice - 0.05).abs() < 0.006,
        "{late} {twice}"
    );
    let of_time = |wanted| {
        let delays = delays(begin, MS, &all);
        delays.iter().filter(|(_, delay)| *delay == wanted).count() as f64 / 50_000.0
    };
    assert_eq!(of_time(35 * MS), late);
    assert_eq!(of_time(20 * MS), 1.0 - late);
}

#[test]
fn a_slow_hop_lets_its_rate_through_and_drops_what_does_not_fit_its_queue() {
    let settings = Settings {
        rate: Some(Rate {
            bps: 800_000.0,
            queue: 200 * MS,
        }),
        ..Settings::default()
    };
    // 1.6 Mbit/s: twice as much as goes through, 10 ms for each packet.
    let (begin, all) = fates(settings, 4000, 5 * MS);
    let dropped = share(&all, |fate| *fate == Fate::Lost(Cause::QueueFull));
    assert!((dropped - 0.5).abs() < 0.02, "{dropped}");
    let all = delays(begin, 5 * MS, &all);
    assert_eq!(all[0].1, 10 * MS, "its own transmission");
    assert!(all.iter().all(|(_, delay)| *delay <= 210 * MS));
    assert!(all[2000..].iter().all(|(_, delay)| *delay > 180 * MS));
}

#[test]
fn repairs_are_told_from_probes_by_timestamp_and_size() {
    let begin = Instant::now();
    let seen = |ms: u32, ssrc, seq, timestamp, size, lost| Seen {
        at: begin + MS * ms,
        fate: if lost {
            Fate::Lost(Cause::Random)
        } else {
            let at = begin + MS * ms;
            let queued = Duration::ZERO;
            Fate::Leaves {
                at,
                queued,
                twice: false,
                late: false,
            }
        },
        packet: Packet {
            ssrc,
            seq,
            timestamp,
            payload_type: 96,
            size,
        },
    };
    let all = [
        seen(0, 1, 1, 90, 1000, true),
        seen(1, 1, 2, 90, 1000, false),
        seen(2, 1, 3, 90, 600, true),
        seen(50, 2, 1, 90, 1002, true),
        seen(51, 2, 2, 90, 602, false),
        seen(99, 2, 3, 90, 1002, false),
        seen(100, 2, 4, 90, 1002, false),
        seen(1500, 1, 4, 180, 700, true),
    ];
    let repairs = Repairs::follow(&all, 1, 2, begin + 2000 * MS);
    let expected = Repairs {
        packets: 4,
        lost: 3,
        recoverable: 2,
        repaired: 2,
        retransmissions: 3,
        lost_again: 1,
        needless: 1,
        times: vec![49 * MS, 99 * MS],
    };
    assert_eq!(repairs, expected);
}

#[test]
fn the_clear_part_of_media_is_read_and_nothing_else_is_taken_for_media() {
    let mut frame = vec![0; 14 + 20 + 8 + 12];
    frame[12] = 8;
    frame[14] = 0x45;
    frame[23] = 17;
    frame[42..].copy_from_slice(&[0x90, 0xe0, 1, 2, 0, 0, 3, 4, 0, 0, 5, 6]);
    let packet = Packet {
        ssrc: 0x506,
        seq: 0x102,
        timestamp: 0x304,
        payload_type: 96,
        size: 12,
    };
    assert_eq!(parse(&frame), Some(packet));
    for (at, byte) in [(12, 6), (23, 6), (42, 0), (43, 200)] {
        let mut other = frame.clone();
        other[at] = byte;
        assert_eq!(parse(&other), None);
    }
    for length in 0..frame.len() {
        assert_eq!(parse(&frame[..length]), None);
    }
}

#[tokio::test]
async fn real_datagrams_get_what_was_set_in_each_direction_and_for_each_client() {
    let _turn = alone().await;
    let network = Network::new();
    let clients = [network.client(1), network.client(2)];
    let server = UdpSocket::bind((SERVER, 0)).unwrap();
    server
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    let there = server.local_addr().unwrap();
    let sockets = clients.each_ref().map(|client| {
        let socket = client
            .namespace
            .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap());
        socket.connect(there).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        socket
    });
    // An exchange there and back before anything is set: addresses are resolved, and nothing is lost.
    for (socket, client) in sockets.iter().zip(&clients) {
        exchange(socket, &server, client.address);
        client.link.begin();
    }
    clients[0].link.set(
        Way::Down,
        Settings {
            delay: 80 * MS,
            ..Settings::default()
        },
    );
    clients[0].link.set(
        Way::Up,
        Settings {
            delay: 20 * MS,
            loss: 0.5,
            ..Settings::default()
        },
    );

    let [slow, fast] = &sockets;
    let took = exchange(fast, &server, clients[1].address);
    assert!(took < 60 * MS, "the other client has {took:?}");
    let mut arrived = 0;
    for _ in 0..200 {
        slow.send(&[1; 100]).unwrap();
    }
    server.set_read_timeout(Some(300 * MS)).unwrap();
    while server.recv(&mut [0; 200]).is_ok() {
        arrived += 1;
    }
    let up = clients[0].link.measured(Way::Up).counters;
    assert_eq!((up.packets, up.delivered()), (200, arrived));
    assert!((60..140).contains(&arrived), "{arrived} of 200");
    clients[0].link.set(
        Way::Up,
        Settings {
            delay: 20 * MS,
            ..Settings::default()
        },
    );
    let took = exchange(slow, &server, clients[0].address);
    assert!(
        (100 * MS..200 * MS).contains(&took),
        "{took:?} for 100 ms there and back"
    );
}

/// Sends a large datagram there and back: as large as the server's groups of packets would be without segmentation.
fn exchange(client: &UdpSocket, server: &UdpSocket, address: Ipv4Addr) -> Duration {
    let began = Instant::now();
    let mut buffer = [0; 2000];
    client.send(&[7; 1200]).unwrap();
    let (length, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!((length, from.ip()), (1200, address.into()));
    server.send_to(&buffer[..length], from).unwrap();
    assert_eq!(client.recv(&mut buffer).unwrap(), 1200);
    began.elapsed()
}
