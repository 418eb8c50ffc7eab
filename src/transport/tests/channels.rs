//! Data channels.

use super::*;

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
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
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
