//! Two ends in memory and in virtual time. Every fault of the stack below that a file of this module makes up for
//! has a test here that fails without it.

mod peer;

use super::srtp::SrtpProfile;
use super::*;
use peer::{CHROMIUM, Peer, credentials};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// One way between the two ends.
const LATENCY: Duration = Duration::from_millis(10);

enum To {
    Server(SocketAddr),
    Peer,
}

type Loss = dyn FnMut(&To, &[u8]) -> bool;

/// Both ends, what is under way between them, and the time.
struct World {
    start: Instant,
    now: Instant,
    server: Transport,
    peer: Peer,
    wire: VecDeque<(Instant, To, BytesMut)>,
    /// Whether a datagram gets lost.
    lost: Box<Loss>,
    events: Vec<(Duration, TransportEvent)>,
}

impl World {
    fn new(profiles: &[u16]) -> Self {
        let now = Instant::now();
        let identity = Arc::new(Identity::new().expect("an identity"));
        let server =
            Transport::new(now, identity, TransportConfig::default()).expect("a transport");
        let peer = Peer::new(server.local_credentials(), profiles);
        World {
            start: now,
            now,
            server,
            peer,
            wire: VecDeque::new(),
            lost: Box::new(|_, _| false),
            events: Vec::new(),
        }
    }

    /// Both know each other, and the peer sends its first nomination.
    fn introduced(profiles: &[u16]) -> Self {
        let mut world = World::new(profiles);
        let params = world.peer.params();
        let change = world.server.set_remote(world.now, &params);
        assert_eq!(change, Ok(RemoteChange::New));
        world.peer.check(world.now, true);
        world
    }

    /// Up to the keys.
    fn connected(profiles: &[u16]) -> Self {
        let mut world = World::introduced(profiles);
        assert!(world.run(Duration::from_secs(2), |world| world.profile().is_some()));
        world
    }

    /// Up to an open channel `internal` of the server.
    fn with_channel() -> Self {
        let mut world = World::connected(CHROMIUM);
        world.run_for(Duration::from_millis(100));
        world.server.open_channel(world.now, "internal");
        world.peer.connect_sctp(world.now);
        assert!(world.run(Duration::from_secs(2), |world| {
            world.has(|event| matches!(event, TransportEvent::ChannelOpen { label } if label == "internal"))
        }));
        world
    }

    /// Runs until `done`, or for `limit`. Answers whether it was done.
    fn run(&mut self, limit: Duration, done: impl Fn(&World) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            self.exchange();
            if done(self) {
                return true;
            }
            let next = [
                self.wire.front().map(|(at, _, _)| *at),
                self.server.poll_timeout(),
                self.peer.poll_timeout(),
            ];
            let next = next.into_iter().flatten().min();
            match next.filter(|next| *next <= end) {
                Some(next) => self.now = self.now.max(next),
                None => {
                    self.now = end;
                    return false;
                }
            }
            while self.wire.front().is_some_and(|(at, _, _)| *at <= self.now)
                && let Some((_, to, datagram)) = self.wire.pop_front()
            {
                match to {
                    To::Server(from) => {
                        let _ = self.server.handle_read(self.now, from, &datagram);
                    }
                    To::Peer => self.peer.handle_read(self.now, &datagram),
                }
            }
            if self
                .server
                .poll_timeout()
                .is_some_and(|due| due <= self.now)
            {
                self.server.handle_timeout(self.now);
            }
            if self.peer.poll_timeout().is_some_and(|due| due <= self.now) {
                self.peer.handle_timeout(self.now);
            }
        }
    }

    fn run_for(&mut self, time: Duration) {
        self.run(time, |_| false);
    }

    /// Puts on the wire what both ends want to send.
    fn exchange(&mut self) {
        let at = self.now + LATENCY;
        while let Some(datagram) = self.peer.out.pop_front() {
            let to = To::Server(self.peer.address);
            if !(self.lost)(&to, &datagram) {
                self.wire.push_back((at, to, datagram));
            }
        }
        while let Some((to, datagram)) = self.server.poll_transmit() {
            if to == self.peer.address && !(self.lost)(&To::Peer, &datagram) {
                self.wire.push_back((at, To::Peer, datagram));
            }
        }
        while let Some(event) = self.server.poll_event() {
            self.events.push((self.now - self.start, event));
        }
    }

    fn has(&self, wanted: impl Fn(&TransportEvent) -> bool) -> bool {
        self.events.iter().any(|(_, event)| wanted(event))
    }

    fn profile(&self) -> Option<SrtpProfile> {
        self.events.iter().find_map(|(_, event)| match event {
            TransportEvent::Keyed(keys) => Some(keys.profile()),
            _ => None,
        })
    }

    fn closed(&self) -> Option<&CloseReason> {
        self.events.iter().find_map(|(_, event)| match event {
            TransportEvent::Closed(reason) => Some(reason),
            _ => None,
        })
    }

    fn texts(&self) -> Vec<&str> {
        self.events
            .iter()
            .filter_map(|(_, event)| match event {
                TransportEvent::ChannelText { text, .. } => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }
}

fn is_dtls(datagram: &[u8]) -> bool {
    (20..64).contains(&datagram[0])
}

#[test]
fn a_peer_is_connected_within_eight_round_trips() {
    let mut world = World::introduced(CHROMIUM);
    assert!(world.run(Duration::from_secs(2), |world| world.profile().is_some()));
    let elapsed = world.now - world.start;
    assert!(elapsed <= 16 * LATENCY, "{elapsed:?}");
    assert_eq!(world.server.selected(), Some(world.peer.address));
}

#[test]
fn the_first_nomination_is_answered_without_being_repeated() {
    let mut world = World::introduced(CHROMIUM);
    world.peer.patience = Duration::from_secs(9);
    assert!(world.run(Duration::from_secs(1), |world| {
        world.peer.nominated_at.is_some()
    }));
    assert_eq!(world.now - world.start, 4 * LATENCY);
    assert_eq!(world.peer.nominations_sent, 1);
}

#[test]
fn the_best_offered_profile_is_used_and_both_ends_have_its_keys() {
    let cases = [
        (&[1u16, 8, 7][..], SrtpProfile::AeadAes128Gcm),
        (&[1, 8], SrtpProfile::AeadAes256Gcm),
        (&[8], SrtpProfile::AeadAes256Gcm),
        (&[1], SrtpProfile::Aes128CmSha1_80),
    ];
    for (offered, expected) in cases {
        let mut world = World::connected(offered);
        assert_eq!(world.profile(), Some(expected), "{offered:?}");
        world.run_for(Duration::from_millis(200));
        let material = world.peer.keys(expected.material_len());
        let theirs = srtp::SrtpKeys::new(expected, material).expect("keys of that profile");
        assert_same_keys(&world, &theirs);
    }
}

/// What the peer seals, the server opens.
fn assert_same_keys(world: &World, theirs: &srtp::SrtpKeys) {
    let ours = world.events.iter().find_map(|(_, event)| match event {
        TransportEvent::Keyed(keys) => Some(keys),
        _ => None,
    });
    let mut sender = srtp::SrtpContext::new(theirs, srtp::Direction::FromClient);
    let mut receiver = srtp::SrtpContext::new(ours.expect("keys"), srtp::Direction::FromClient);
    let mut packet = vec![0x80, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 1, 2, 3];
    sender.seal_rtp(&mut packet, 0, 12).expect("sealed");
    let opened = receiver.open_rtp(&mut packet).expect("opened");
    assert_eq!(packet[12..opened.len], [1, 2, 3]);
}

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
fn a_lost_flight_is_repeated_although_the_client_repeats_its_hello() {
    let mut world = World::introduced(CHROMIUM);
    // The client's own timer would help after a second; the stack's after any message of the client not at all.
    let mut seen = 0;
    world.lost = Box::new(move |to, datagram| {
        let flight = matches!(to, To::Peer) && is_dtls(datagram) && datagram[13] != 3;
        seen += u32::from(flight);
        flight && seen <= 2
    });
    assert!(world.run(Duration::from_millis(900), |world| {
        world.profile().is_some()
    }));
}

#[test]
fn no_handshake_gets_stuck_when_a_fifth_of_the_datagrams_is_lost() {
    for seed in 0..30 {
        let mut world = World::introduced(CHROMIUM);
        world.peer.patience = Duration::from_millis(50);
        let mut random = StdRng::seed_from_u64(seed);
        world.lost = Box::new(move |_, _| random.random_bool(0.2));
        let done = |world: &World| world.profile().is_some() && world.peer.keyed;
        assert!(world.run(Duration::from_secs(15), done), "seed {seed}");
    }
}

#[test]
fn a_peer_may_come_by_ipv6() {
    let mut world = World::new(CHROMIUM);
    let params = world.peer.params();
    world.server.set_remote(world.now, &params).expect("taken");
    world.peer.address = "[2001:db8::77]:4000".parse().expect("an address");
    world.peer.check(world.now, true);
    assert!(world.run(Duration::from_secs(1), |world| world.profile().is_some()));
    // And go on by IPv4.
    world.peer.address = "203.0.113.8:4000".parse().expect("an address");
    world.peer.check(world.now, true);
    let moved = world.peer.address;
    assert!(world.run(Duration::from_millis(100), |world| {
        world.server.selected() == Some(moved)
    }));
}

#[test]
fn a_new_address_is_followed_when_the_peer_nominates_it() {
    let mut world = World::connected(CHROMIUM);
    let old = world.peer.address;
    world.peer.address = "203.0.113.5:50001".parse().expect("an address");
    world.peer.check(world.now, true);
    let moved = world.peer.address;
    assert!(
        world.run(Duration::from_millis(100), |world| world.server.selected()
            == Some(moved))
    );
    assert!(world.has(|event| matches!(event, TransportEvent::Selected(to) if *to == moved)));
    // And back: the path is not nailed to the second one either.
    world.peer.address = old;
    world.peer.check(world.now, true);
    assert!(
        world.run(Duration::from_millis(100), |world| world.server.selected()
            == Some(old))
    );
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
fn the_client_restarts_ice_and_the_session_goes_on() {
    let mut world = World::with_channel();
    let old = world.server.local_credentials();
    world.peer.credentials = credentials(2);
    let params = world.peer.params();
    assert_eq!(
        world.server.set_remote(world.now, &params),
        Ok(RemoteChange::Restarted)
    );
    let new = world.server.local_credentials();
    assert_ne!(new, old);
    assert_eq!(
        world.server.ufrags().collect::<Vec<_>>(),
        [&new.ufrag, &old.ufrag]
    );
    assert_eq!(
        world.server.selected(),
        Some(world.peer.address),
        "media goes on"
    );
    world.peer.server = new.clone();
    world.peer.address = "192.0.2.77:1234".parse().expect("an address");
    world.peer.check(world.now, true);
    let moved = world.peer.address;
    assert!(
        world.run(Duration::from_millis(200), |world| world.server.selected()
            == Some(moved))
    );
    assert_eq!(world.server.ufrags().collect::<Vec<_>>(), [&new.ufrag]);
    world
        .server
        .send_text(world.now, "internal", "still here")
        .expect("sent");
    assert!(world.run(Duration::from_secs(1), |world| world.peer.texts
        == ["still here"]));
    assert_eq!(
        world.server.set_remote(world.now, &params),
        Ok(RemoteChange::Same)
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
    assert!((11..=15).contains(&seconds), "{seconds}");
    assert_eq!(world.closed(), Some(&CloseReason::Silence));
    assert!((26..=30).contains(&(world.now - world.start - from).as_secs()));
}

#[test]
fn media_counts_as_a_sign_of_life() {
    let mut world = World::connected(CHROMIUM);
    world.lost = Box::new(|_, _| true);
    world.run_for(Duration::from_secs(20));
    assert!(world.has(|event| matches!(event, TransportEvent::IceDisconnected)));
    world.server.note_traffic(world.now);
    world.run_for(Duration::from_secs(2));
    assert!(world.has(|event| matches!(event, TransportEvent::IceReconnected)));
    for _ in 0..40 {
        world.server.note_traffic(world.now);
        world.run_for(Duration::from_secs(1));
    }
    assert!(world.closed().is_none());
}

#[test]
fn text_goes_both_ways_on_a_channel_of_the_server() {
    let mut world = World::with_channel();
    world
        .server
        .send_text(world.now, "internal", "to the peer")
        .expect("sent");
    world
        .server
        .send_text(world.now, "internal", "")
        .expect("sent");
    world.peer.send_text(world.now, 1, "to the server");
    let long = "x".repeat(MAX_MESSAGE_SIZE);
    world.peer.send_text(world.now, 1, &long);
    assert!(world.run(Duration::from_secs(2), |world| world.texts().len() == 2));
    assert_eq!(world.texts(), ["to the server", &long]);
    assert_eq!(world.peer.texts[0], "to the peer");
    assert_eq!(world.peer.texts.len(), 2);
}

#[test]
fn text_goes_both_ways_on_a_channel_of_the_client() {
    let mut world = World::with_channel();
    world.peer.open_channel(world.now, 2, "chat");
    world.peer.send_text(world.now, 2, "hello");
    assert!(world.run(Duration::from_secs(1), |world| !world.texts().is_empty()));
    world
        .server
        .send_text(world.now, "chat", "hi")
        .expect("sent");
    assert!(world.run(Duration::from_secs(1), |world| world.peer.texts == ["hi"]));
}

#[test]
fn a_channel_may_be_asked_for_before_anything_is_connected() {
    let mut world = World::introduced(CHROMIUM);
    world.server.open_channel(world.now, "internal");
    assert_eq!(
        world.server.send_text(world.now, "internal", "too early"),
        Err(TransportError::ChannelNotOpen)
    );
    assert!(world.run(Duration::from_secs(2), |world| world.peer.keyed));
    world.peer.connect_sctp(world.now);
    assert!(world.run(Duration::from_secs(2), |world| {
        world.has(|event| matches!(event, TransportEvent::ChannelOpen { .. }))
    }));
}

#[test]
fn a_channel_that_the_client_closes_is_reported_and_the_others_stay() {
    let mut world = World::with_channel();
    world.peer.open_channel(world.now, 2, "chat");
    world.run_for(Duration::from_millis(200));
    world.peer.close_stream(world.now, 2);
    assert!(world.run(Duration::from_secs(2), |world| world.has(
        |event| matches!(event, TransportEvent::ChannelClosed { label } if label == "chat")
    )));
    world.peer.send_text(world.now, 1, "still open");
    assert!(world.run(Duration::from_secs(1), |world| world.texts()
        == ["still open"]));
}

#[test]
fn channels_survive_loss() {
    let mut world = World::with_channel();
    let mut random = StdRng::seed_from_u64(7);
    world.lost = Box::new(move |_, _| random.random_bool(0.2));
    for number in 0..20 {
        world.peer.send_text(world.now, 1, &number.to_string());
        world.run_for(Duration::from_millis(20));
    }
    assert!(world.run(Duration::from_secs(60), |world| world.texts().len() == 20));
    let expected: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    assert_eq!(world.texts(), expected);
}

#[test]
fn an_association_comes_about_although_its_first_answers_are_lost() {
    let mut world = World::connected(CHROMIUM);
    world.run_for(Duration::from_millis(100));
    let mut answers = 0;
    world.lost = Box::new(move |to, datagram| {
        let answer = matches!(to, To::Peer) && datagram[0] == 23;
        answers += u32::from(answer);
        answer && answers <= 2
    });
    world.server.open_channel(world.now, "internal");
    world.peer.connect_sctp(world.now);
    assert!(world.run(Duration::from_secs(20), |world| {
        world.has(|event| matches!(event, TransportEvent::ChannelOpen { .. }))
    }));
}

#[test]
fn messages_that_are_too_long_or_not_text_are_dropped_and_counted() {
    use rtc::sctp::PayloadProtocolIdentifier as Ppid;
    let mut world = World::with_channel();
    let long = vec![b'x'; MAX_MESSAGE_SIZE + 1];
    world.peer.send_raw(world.now, 1, Ppid::String, &long);
    world
        .peer
        .send_raw(world.now, 1, Ppid::String, &[0xff, 0xfe]);
    // An opening for an open channel, and an internal message whose body is missing: the stack would panic.
    world.peer.send_raw(world.now, 1, Ppid::Dcep, &[3, 9, 9]);
    world.peer.send_raw(world.now, 1, Ppid::Dcep, &[0]);
    world.peer.send_raw(world.now, 1, Ppid::Dcep, &[1]);
    world.peer.send_raw(world.now, 1, Ppid::Dcep, &[4]);
    world.peer.send_text(world.now, 1, "after all that");
    assert!(world.run(Duration::from_secs(5), |world| world.texts()
        == ["after all that"]));
    for (reason, count) in [
        (DropReason::MessageTooLong, 1),
        (DropReason::TextNotUtf8, 1),
        (DropReason::ChannelUnknown, 4),
    ] {
        assert_eq!(world.server.drops().count(reason), count, "{reason:?}");
    }
}

/// The checksum of an SCTP packet (RFC 9260, appendix A), bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    })
}

#[test]
fn a_second_association_is_refused() {
    let mut world = World::with_channel();
    // An INIT chunk with another tag.
    let mut init = vec![0x13, 0x88, 0x13, 0x88, 0, 0, 0, 0, 0, 0, 0, 0];
    init.extend([
        1, 0, 0, 20, 1, 2, 3, 4, 0, 1, 0, 0, 0, 16, 0, 16, 0, 0, 0, 1,
    ]);
    let checksum = crc32c(&init).to_le_bytes();
    init[8..12].copy_from_slice(&checksum);
    world.peer.write_dtls(world.now, &init);
    world.run_for(Duration::from_millis(100));
    assert_eq!(world.server.drops().count(DropReason::SctpUnexpected), 1);
    world.peer.send_text(world.now, 1, "the first one lives");
    assert!(world.run(Duration::from_secs(1), |world| world.texts().len() == 1));
}

#[test]
fn a_goodbye_of_the_peer_ends_the_transport() {
    let mut world = World::connected(CHROMIUM);
    world.run_for(Duration::from_millis(100));
    world.peer.close_dtls(world.now);
    assert!(world.run(Duration::from_secs(1), |world| world.closed().is_some()));
    assert_eq!(world.closed(), Some(&CloseReason::PeerClosed));
    let refused = world
        .server
        .handle_read(world.now, world.peer.address, &[22, 0xfe, 0xfd]);
    assert_eq!(refused, Err(TransportError::Dropped(DropReason::Closed)));
}

#[test]
fn closing_says_goodbye() {
    let mut world = World::with_channel();
    world.server.close(world.now);
    world.run_for(Duration::from_millis(100));
    assert!(world.peer.said_goodbye);
    assert!(world.closed().is_none(), "who closes needs no event");
    assert_eq!(world.server.poll_timeout(), None);
}

#[test]
fn candidates_are_taken_or_left_out() {
    let mut world = World::new(CHROMIUM);
    let params = world.peer.params();
    world.server.set_remote(world.now, &params).expect("taken");
    for fine in [
        "candidate:1 1 udp 2122260223 203.0.113.5 50000 typ host generation 0 ufrag abcd",
        "2 1 UDP 1686052607 203.0.113.5 50001 typ srflx raddr 10.0.0.1 rport 50001",
        "candidate:3 1 udp 2122260223 8f8e6f7e-8c2f-4cb9-a5b5-2a2f3c0e1c11.local 50002 typ host",
        "candidate:4 1 tcp 1518280447 203.0.113.5 9 typ host tcptype active",
        "candidate:5 1 udp 2122260223 0.0.0.0 9 typ host",
        "candidate:6 1 udp 2122260223 2001:db8::7 50000 typ host",
        "",
    ] {
        assert_eq!(world.server.add_remote_candidate(fine), Ok(()), "{fine}");
    }
    for wrong in [
        "nonsense",
        "candidate:1 1 udp x 203.0.113.5 1 typ host",
        "candidate:1 1 udp 1 name 1 typ host",
    ] {
        let refused = world.server.add_remote_candidate(wrong);
        assert_eq!(refused, Err(TransportError::BadCandidate), "{wrong}");
    }
    for port in 1..300 {
        let line = format!("candidate:1 1 udp 1 198.51.100.1 {port} typ host");
        assert_eq!(world.server.add_remote_candidate(&line), Ok(()));
    }
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
