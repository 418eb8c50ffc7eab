//! Strangers, forgers, and clients that are wrong, broken, malicious or gone.

use super::channels::crc32c;
use super::*;

#[test]
fn a_client_without_a_usable_profile_is_refused() {
    for offered in [&[2u16][..], &[]] {
        let mut world = World::introduced(offered);
        assert!(world.run(Duration::from_secs(2), |world| world.closed().is_some()));
        assert_eq!(world.closed(), Some(&CloseReason::NoSrtpProfile));
        world.run_for(Duration::from_millis(100));
        assert!(world.peer.dtls_failed, "it was told");
    }
}

#[test]
fn a_certificate_other_than_the_announced_one_ends_the_transport() {
    let mut world = World::new(CHROMIUM);
    let mut params = world.peer.params();
    params.fingerprints[0].value = world.server.fingerprint().to_owned();
    world.server.set_remote(world.now, &params).expect("taken");
    world.peer.check(world.now, true);
    assert!(world.run(Duration::from_secs(2), |world| world.closed().is_some()));
    assert_eq!(world.closed(), Some(&CloseReason::FingerprintMismatch));
    assert!(world.profile().is_none());
    world.run_for(Duration::from_millis(100));
    assert!(world.peer.dtls_failed, "it was told");
}

#[test]
fn a_new_address_that_does_not_answer_takes_nothing_over() {
    let mut world = World::connected(CHROMIUM);
    world.run_for(Duration::from_millis(100));
    let real = world.peer.address;
    world.peer.check(world.now, true);
    let captured = world.peer.out.pop_back().expect("a request");
    let thief = "198.51.100.66:6".parse().expect("an address");
    let _ = world.server.handle_read(world.now, thief, &captured);
    world.run_for(Duration::from_secs(3));
    assert_eq!(world.server.selected(), Some(real));
    world.peer.check(world.now, true);
    assert!(
        world.run(Duration::from_millis(100), |world| world.peer.nominated_at
            == Some(world.now))
    );
}

#[test]
fn other_fingerprints_need_another_transport() {
    let mut world = World::connected(CHROMIUM);
    let mut params = world.peer.params();
    params.fingerprints[0].value = world.server.fingerprint().to_owned();
    let refused = world.server.set_remote(world.now, &params);
    assert_eq!(refused, Err(TransportError::OtherPeer));
}

#[test]
fn a_role_conflict_that_nobody_signed_changes_nothing() {
    let mut world = World::introduced(CHROMIUM);
    // ICE-CONTROLLED with the lowest tie-breaker: an agent that obeys it becomes the controlling one.
    let mut forged = vec![0, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42];
    forged.extend([5; 12]);
    forged.extend([0x80, 0x29, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
    let refused = world
        .server
        .handle_read(world.now, world.peer.address, &forged);
    assert_eq!(
        refused,
        Err(TransportError::Dropped(DropReason::StunUnexpected))
    );
    world.peer.patience = Duration::from_secs(9);
    assert!(world.run(Duration::from_secs(1), |world| world.profile().is_some()));
}

#[test]
fn checks_with_wrong_credentials_are_counted_and_have_no_effect() {
    let mut world = World::new(CHROMIUM);
    let params = world.peer.params();
    world.server.set_remote(world.now, &params).expect("taken");
    world.peer.server.pwd = "not the password of the server".to_owned();
    world.peer.check(world.now, true);
    world.run_for(Duration::from_millis(900));
    assert_eq!(world.server.drops().count(DropReason::StunRejected), 1);
    assert_eq!(world.server.selected(), None);
}

#[test]
fn garbage_before_and_during_the_handshake_does_not_kill_it() {
    for seed in 0..20 {
        let mut world = World::introduced(CHROMIUM);
        let mut random = StdRng::seed_from_u64(seed);
        let address = world.peer.address;
        let mut steps = 0;
        while world.profile().is_none() && steps < 400 {
            steps += 1;
            let garbage = garbage(&mut random);
            let _ = world.server.handle_read(world.now, address, &garbage);
            world.run_for(Duration::from_millis(5));
        }
        assert!(
            world.profile().is_some(),
            "seed {seed}: {:?}",
            world.closed()
        );
    }
}

/// A datagram of a kind that has ended handshakes.
/// A DTLS record in the clear (RFC 6347, section 4.1).
fn record(kind: u8, epoch: u8, body: &[u8]) -> Vec<u8> {
    let mut record = vec![kind, 0xfe, 0xfd, 0, epoch, 0, 0, 0, 0, 1, 0];
    record.extend((body.len() as u16).to_be_bytes());
    record.extend(body);
    record
}

#[test]
fn no_forged_record_ends_an_open_association() {
    let mut world = World::connected(CHROMIUM);
    let from = world.peer.address;
    let bodies: [&[u8]; 5] = [
        &[1],
        &[1, 0],
        &[2, 40],
        &[1, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2, 254, 253],
        &[7; 200],
    ];
    for kind in 19..=26 {
        for epoch in 0..=2 {
            for body in bodies {
                let _ = world
                    .server
                    .handle_read(world.now, from, &record(kind, epoch, body));
                world.run_for(Duration::from_millis(1));
                assert_eq!(world.closed(), None, "{kind} in epoch {epoch}: {body:?}");
            }
        }
    }
    let drops = world.server.drops();
    let refused = [DropReason::DtlsImplausible, DropReason::DtlsRejected];
    let refused: u64 = refused.map(|reason| drops.count(reason)).iter().sum();
    assert!(refused >= 100, "{drops:?}");
}

fn garbage(random: &mut StdRng) -> Vec<u8> {
    let record = |kind: u8, epoch: u8, body: &[u8]| {
        let mut record = vec![kind, 0xfe, 0xfd, 0, epoch, 0, 0, 0, 0, 0x70, 1];
        record.extend((body.len() as u16).to_be_bytes());
        record.extend(body);
        record
    };
    match random.random_range(0..8) {
        0 => vec![random.random_range(20..64)],
        1 => (0..random.random_range(1..200))
            .map(|_| random.random::<u8>())
            .collect(),
        2 => record(21, 0, &[2, 40]),
        3 => record(21, 0, &[1, 0]),
        4 => record(23, 0, b"application data in the clear"),
        5 => record(20, 0, &[7]),
        6 => record(
            22,
            0,
            &[
                16, 0, 0, 9, 0, 3, 0, 0, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9,
            ],
        ),
        _ => record(22, 1, &[1, 2, 3, 4]),
    }
}

#[test]
fn no_mutated_datagram_of_a_client_panics() {
    for seed in 0..40 {
        let mut world = World::introduced(CHROMIUM);
        let mut random = StdRng::seed_from_u64(seed);
        world.peer.patience = Duration::from_millis(50);
        world.server.open_channel(world.now, "internal");
        for _ in 0..60 {
            let originals: Vec<_> = world.peer.out.iter().cloned().collect();
            for original in originals {
                let mutated = mutated(&mut random, &original);
                let _ = world
                    .server
                    .handle_read(world.now, world.peer.address, &mutated);
            }
            world.run_for(Duration::from_millis(7));
            if world.peer.keyed && !world.peer.has_sctp() {
                world.peer.connect_sctp(world.now);
            }
            if world.peer.keyed {
                // Behind DTLS: what an authenticated client may do.
                let originals: Vec<_> = world.peer.sent_sctp.drain(..).collect();
                for original in originals {
                    let mut mutated = mutated(&mut random, &original);
                    if mutated.len() >= 12 {
                        mutated[8..12].fill(0);
                        let checksum = crc32c(&mutated).to_le_bytes();
                        mutated[8..12].copy_from_slice(&checksum);
                    }
                    world.peer.write_dtls(world.now, &mutated);
                }
                if world.peer.is_connected() && random.random_bool(0.3) {
                    let len = random.random_range(0..40);
                    let data: Vec<u8> = (0..len).map(|_| random.random()).collect();
                    use rtc::sctp::PayloadProtocolIdentifier as Ppid;
                    let ppid =
                        [Ppid::Dcep, Ppid::String, Ppid::BinaryEmpty][random.random_range(0..3)];
                    let stream = random.random_range(0..6);
                    world.peer.send_raw(world.now, stream, ppid, &data);
                }
            }
        }
    }
}

#[test]
fn a_packet_on_which_the_stack_panics_ends_its_own_transport_only() {
    let mut world = World::with_channel();
    // An ERROR chunk whose cause is longer than the chunk, behind the header of an earlier packet.
    let mut packet = world.peer.sent_sctp[1][..12].to_vec();
    packet[8..12].fill(0);
    packet.extend([9, 0, 0, 8, 0, 1, 0xff, 0xff]);
    let checksum = crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&checksum);
    world.peer.write_dtls(world.now, &packet);
    assert!(world.run(Duration::from_secs(1), |world| world.closed().is_some()));
    assert_eq!(world.closed(), Some(&CloseReason::Panicked));
    assert_eq!(world.server.drops().count(DropReason::StackPanicked), 1);
    assert_eq!(world.server.poll_timeout(), None);
    let sent = world.server.send_text(world.now, "internal", "more");
    assert_eq!(sent, Err(TransportError::Closed));
    world.server.close(world.now);
}

/// A copy with some bytes changed, and sometimes cut.
fn mutated(random: &mut StdRng, datagram: &[u8]) -> Vec<u8> {
    let mut copy = datagram.to_vec();
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..copy.len());
        copy[at] = random.random();
    }
    if random.random_bool(0.25) {
        copy.truncate(random.random_range(1..=copy.len()));
    }
    copy
}

#[test]
fn a_handshake_that_does_not_end_is_given_up() {
    let mut world = World::introduced(CHROMIUM);
    world.lost =
        Box::new(|to, datagram| matches!(to, To::Peer) && is_dtls(datagram) && datagram[13] != 3);
    assert!(world.run(Duration::from_secs(25), |world| world.closed().is_some()));
    assert_eq!(world.closed(), Some(&CloseReason::HandshakeTimeout));
    assert_eq!(world.server.poll_timeout(), None);
}

#[test]
fn a_peer_that_never_checks_is_given_up() {
    let mut world = World::new(CHROMIUM);
    let params = world.peer.params();
    world.server.set_remote(world.now, &params).expect("taken");
    assert!(world.run(Duration::from_secs(31), |world| world.closed().is_some()));
    assert_eq!(world.closed(), Some(&CloseReason::ConnectTimeout));
}

#[test]
fn a_silent_peer_is_reported_and_then_given_up() {
    let mut world = World::connected(CHROMIUM);
    world.run_for(Duration::from_secs(60));
    assert!(
        world.closed().is_none(),
        "its answers to our checks are enough"
    );
    let from = world.now - world.start;
    world.lost = Box::new(|_, _| true);
    assert!(world.run(Duration::from_secs(60), |world| world.closed().is_some()));
    let silent = world
        .events
        .iter()
        .find(|(_, event)| matches!(event, TransportEvent::IceDisconnected))
        .expect("reported");
    let seconds = (silent.0 - from).as_secs();
    // Its last answer to a check may have come up to 3 s before.
    assert!((2..=5).contains(&seconds), "{seconds}");
    assert_eq!(world.closed(), Some(&CloseReason::Silence));
    assert!((26..=30).contains(&(world.now - world.start - from).as_secs()));
}

#[test]
fn strangers_are_not_listened_to() {
    let mut world = World::introduced(CHROMIUM);
    let stranger = "198.51.100.66:6".parse().expect("an address");
    let hello = world.server.handle_read(world.now, stranger, &[22; 60]);
    let from_stranger = DropReason::DtlsFromStranger;
    assert_eq!(hello, Err(TransportError::Dropped(from_stranger)));
    let media = world.server.handle_read(world.now, stranger, &[0x80; 60]);
    let not_ours = DropReason::NotForTransport;
    assert_eq!(media, Err(TransportError::Dropped(not_ours)));
    // What comes from the port of mDNS would pass the agent without authentication.
    let mdns = "198.51.100.66:5353".parse().expect("an address");
    let request = world.peer.out.front().expect("a request").clone();
    let refused = world.server.handle_read(world.now, mdns, &request);
    let unexpected = DropReason::StunUnexpected;
    assert_eq!(refused, Err(TransportError::Dropped(unexpected)));
}

#[test]
fn addresses_are_bounded() {
    let mut world = World::introduced(CHROMIUM);
    for port in 1..300 {
        world.peer.check(world.now, false);
        let request = world.peer.out.pop_back().expect("a request");
        let from = SocketAddr::new([198, 51, 100, 7].into(), port);
        let _ = world.server.handle_read(world.now, from, &request);
        world.exchange();
    }
    assert!(world.server.drops().count(DropReason::TooManyAddresses) >= 199);
    assert!(world.run(Duration::from_secs(3), |world| world.profile().is_some()));
}
