//! Two ends in memory and in virtual time. Every fault of the stack below that a file of this module makes up for
//! has a test here that fails without it.

mod channels;
mod hostile;
mod peer;

use super::srtp::SrtpProfile;
use super::*;
use peer::{CHROMIUM, Peer, credentials};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;

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
fn a_transport_may_live_in_any_thread_and_share_its_identity() {
    fn is_send<T: Send>() {}
    fn is_shared<T: Send + Sync>() {}
    is_send::<Transport>();
    is_send::<srtp::SrtpContext>();
    is_send::<TransportEvent>();
    is_shared::<Identity>();
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
fn an_agent_that_waits_before_it_nominates_is_connected_at_once() {
    use rtc::ice::candidate::candidate_host::CandidateHostConfig;
    use rtc::ice::candidate::{CandidateConfig, unmarshal_candidate};
    use rtc::ice::mdns::MulticastDnsMode;
    use rtc::ice::{Agent, AgentConfig};
    use rtc::sansio::Protocol;
    use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};

    let mut world = World::new(CHROMIUM);
    let params = world.peer.params();
    world.server.set_remote(world.now, &params).expect("taken");
    let config = AgentConfig {
        local_ufrag: params.ufrag,
        local_pwd: params.pwd,
        multicast_dns_mode: MulticastDnsMode::Disabled,
        is_controlling: true,
        ..AgentConfig::default()
    };
    let provider = world.peer.identity.provider.clone();
    let mut agent = Agent::new(world.now, Arc::new(config), provider).expect("an agent");
    let host = CandidateHostConfig {
        base_config: CandidateConfig {
            network: "udp".to_owned(),
            address: world.peer.address.ip().to_string(),
            port: world.peer.address.port(),
            component: 1,
            ..CandidateConfig::default()
        },
        ..CandidateHostConfig::default()
    };
    let local = host.new_candidate_host().expect("a candidate");
    agent.add_local_candidate(local).expect("added");
    let remote = unmarshal_candidate("1 1 udp 2130706431 198.51.100.1 7000 typ host");
    agent
        .add_remote_candidate(remote.expect("a candidate"))
        .expect("added");
    let server = world.server.local_credentials();
    agent
        .start_connectivity_checks(world.now, true, server.ufrag, server.pwd)
        .expect("started");
    while agent.get_selected_candidate_pair().is_none() {
        agent.handle_timeout(world.now).expect("alive");
        while let Some(sent) = agent.poll_write() {
            let _ = world
                .server
                .handle_read(world.now, world.peer.address, &sent.message);
        }
        world.server.handle_timeout(world.now);
        while let Some((to, message)) = world.server.poll_transmit() {
            let transport = TransportContext {
                local_addr: to,
                peer_addr: "198.51.100.1:7000".parse().expect("an address"),
                ecn: None,
                transport_protocol: TransportProtocol::UDP,
            };
            let now = world.now;
            let _ = agent.handle_read(TaggedBytesMut {
                now,
                transport,
                message,
            });
        }
        world.now += Duration::from_millis(1);
        assert!(world.now - world.start < Duration::from_millis(300));
    }
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
fn a_new_address_takes_over_from_a_silent_one_without_nomination() {
    let mut world = World::connected(CHROMIUM);
    world.run_for(Duration::from_millis(100));
    let old = world.peer.address;
    world.peer.address = "203.0.113.5:50001".parse().expect("an address");
    let moved = world.peer.address;
    for second in 0..8 {
        world.peer.check(world.now, false);
        world.run_for(Duration::from_secs(1));
        let expected = if second < 4 { old } else { moved };
        if second != 4 {
            assert_eq!(world.server.selected(), Some(expected), "{second}");
        }
    }
    // While media comes from the selected address, checks of another one change nothing.
    world.peer.address = old;
    for _ in 0..12 {
        world.server.note_traffic(world.now);
        world.peer.check(world.now, false);
        world.run_for(Duration::from_secs(1));
    }
    assert_eq!(world.server.selected(), Some(moved));
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
fn the_server_restarts_ice_and_the_session_goes_on() {
    let mut world = World::with_channel();
    let old = world.server.local_credentials();
    assert!(world.server.restart_ice());
    let new = world.server.offered_credentials();
    assert_ne!(new, old);
    assert_eq!(world.server.local_credentials(), old, "of an answer");
    assert!(world.server.restart_ice(), "the same restart");
    assert_eq!(world.server.offered_credentials(), new);
    let ufrags = |world: &World| world.server.ufrags().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(ufrags(&world), [&*old.ufrag, &*new.ufrag]);
    // The old path works while the offer is on its way.
    world.run_for(Duration::from_secs(8));
    assert!(!world.has(|event| matches!(event, TransportEvent::IceDisconnected)));

    world.peer.credentials = credentials(2);
    let params = world.peer.params();
    assert_eq!(
        world.server.set_remote(world.now, &params),
        Ok(RemoteChange::Restarted)
    );
    assert_eq!(world.server.local_credentials(), new);
    assert_eq!(world.server.offered_credentials(), new);
    assert_eq!(ufrags(&world), [&*new.ufrag, &*old.ufrag]);
    assert_eq!(world.server.selected(), Some(world.peer.address));
    world.peer.server = new.clone();
    world.peer.address = "192.0.2.77:1234".parse().expect("an address");
    world.peer.check(world.now, true);
    let moved = world.peer.address;
    assert!(
        world.run(Duration::from_millis(200), |world| world.server.selected()
            == Some(moved))
    );
    assert_eq!(ufrags(&world), [&*new.ufrag]);
    world
        .server
        .send_text(world.now, "internal", "still here")
        .expect("sent");
    assert!(world.run(Duration::from_secs(1), |world| world.peer.texts
        == ["still here"]));
}

#[test]
fn a_restart_of_both_sides_at_once_is_one_restart() {
    let mut world = World::connected(CHROMIUM);
    assert!(world.server.restart_ice());
    let offered = world.server.offered_credentials();
    world.peer.credentials = credentials(2);
    let params = world.peer.params();
    let change = world.server.set_remote(world.now, &params);
    assert_eq!(change, Ok(RemoteChange::Restarted));
    assert_eq!(world.server.local_credentials(), offered);
    assert_eq!(world.server.offered_credentials(), offered);
}

#[test]
fn there_is_nothing_to_restart_before_a_pair_is_selected() {
    let mut world = World::new(CHROMIUM);
    let before = world.server.offered_credentials();
    assert!(!world.server.restart_ice());
    assert_eq!(world.server.offered_credentials(), before);
}

#[test]
fn media_of_a_silent_path_shows_the_new_address_and_the_answer_to_a_check_selects_it() {
    let mut world = World::connected(CHROMIUM);
    let old = world.peer.address;
    let moved: SocketAddr = "203.0.113.5:50001".parse().expect("an address");
    world.server.note_traffic(world.now);
    world.server.note_media_from(world.now, moved);
    assert!(
        world.server.poll_transmit().is_none(),
        "both send: nobody has moved"
    );
    world.now += Duration::from_millis(250);
    world.server.note_media_from(world.now, moved);
    // The check, and no second one before it had the time to be answered.
    world.server.note_media_from(world.now, moved);
    let (to, check) = world.server.poll_transmit().expect("a check");
    assert_eq!(to, moved);
    assert!(world.server.poll_transmit().is_none());
    assert_eq!(world.server.selected(), Some(old), "media proves nothing");
    world.peer.handle_read(world.now, &check);
    let answer = world.peer.out.pop_back().expect("an answer");
    let elsewhere = "198.51.100.9:50001".parse().expect("an address");
    let _ = world.server.handle_read(world.now, elsewhere, &answer);
    assert_eq!(world.server.selected(), Some(old), "from somewhere else");
    let mut forged = answer.to_vec();
    let end = forged.len() - 12;
    forged[end] ^= 1;
    let _ = world.server.handle_read(world.now, moved, &forged);
    assert_eq!(
        world.server.selected(),
        Some(old),
        "not the peer's signature"
    );
    world
        .server
        .handle_read(world.now, moved, &answer)
        .expect("taken");
    assert_eq!(world.server.selected(), Some(moved));
    // The peer's own checks go on from there.
    world.peer.address = moved;
    world.peer.check(world.now, true);
    world.run_for(Duration::from_secs(3));
    assert_eq!(world.server.selected(), Some(moved));
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
    let mut refused = 0;
    for port in 1..=10_000 {
        let line = format!("candidate:1 1 udp 1 198.51.100.1 {port} typ host");
        match world.server.add_remote_candidate(&line) {
            Ok(()) => assert_eq!(refused, 0, "{port}"),
            Err(error) => {
                assert_eq!(error, TransportError::TooManyCandidates(64));
                refused += 1;
            }
        }
    }
    assert!((9_936..10_000).contains(&refused), "{refused}");
}
