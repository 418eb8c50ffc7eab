use std::collections::VecDeque;

use proptest::prelude::*;

use crate::ids::TrackKey;
use crate::rtp::header::RtpPacket;
use crate::rtp::params::*;
use crate::sfu::testing::*;
use crate::sfu::{DropReason, Publisher, Received, Subscriber};

/// TOC byte of 20 ms of Opus.
const TWENTY_MS: u8 = 0x78;

fn redundant(red: u8) -> PayloadParams {
    PayloadParams {
        red: Some(red),
        ..payload(Codec::Opus, 111)
    }
}

fn publisher() -> Publisher {
    let mut publisher = Publisher::new(OWN);
    publisher.set_lines(&[receive_line("a", vec![redundant(63)])]);
    publisher
}

/// The frame of packet `number`.
fn frame(number: u16) -> Vec<u8> {
    let [high, low] = number.to_be_bytes();
    vec![TWENTY_MS, high, low]
}

/// Packet `number` with the `depth` frames before it.
fn red_packet(number: u16, depth: u16) -> Vec<u8> {
    let depth = depth.min(number);
    let mut payload = Vec::new();
    for age in (1..=depth).rev() {
        let word = 1u32 << 31 | 111 << 24 | (u32::from(age) * 960) << 10 | 3;
        payload.extend_from_slice(&word.to_be_bytes());
    }
    payload.push(111);
    (number - depth..=number).for_each(|number| payload.extend(frame(number)));
    rtp(MEDIA, 63, number, u32::from(number) * 960, &payload)
}

fn plain_packet(number: u16) -> Vec<u8> {
    rtp(MEDIA, 111, number, u32::from(number) * 960, &frame(number))
}

/// What goes on of a packet, in order.
fn goes_on<'p>(publisher: &mut Publisher, packet: &'p [u8]) -> Vec<Received<'p>> {
    match publisher.handle_rtp(start(), packet) {
        Ok(received) => received.recovered().chain([received]).collect(),
        Err(_) => Vec::new(),
    }
}

fn numbers(packets: &[Received<'_>]) -> Vec<u16> {
    packets
        .iter()
        .map(|packet| {
            let number = u16::from_be_bytes([packet.payload[1], packet.payload[2]]);
            assert_eq!(packet.seq as u16, number, "its own sequence number");
            assert_eq!(packet.timestamp as u32, u32::from(number) * 960);
            number
        })
        .collect()
}

#[test]
fn a_lost_packet_is_found_in_the_next_and_goes_first() {
    let mut publisher = publisher();
    let packets: Vec<_> = (10..15).map(|number| red_packet(number, 1)).collect();
    assert_eq!(numbers(&goes_on(&mut publisher, &packets[0])), [9, 10]);
    let after_a_loss = goes_on(&mut publisher, &packets[2]);
    assert_eq!(numbers(&after_a_loss), [11, 12]);
    assert!(after_a_loss[0].within_red && after_a_loss[0].recovered);
    assert_eq!(numbers(&goes_on(&mut publisher, &packets[3])), [13]);
    // The original was late, not lost.
    assert!(goes_on(&mut publisher, &packets[1]).is_empty());
    assert_eq!(publisher.counters().get(DropReason::Duplicate), 1);
}

#[test]
fn a_frame_whose_place_cannot_be_told_is_left_alone() {
    let mut publisher = publisher();
    let first = plain_packet(10);
    assert_eq!(numbers(&goes_on(&mut publisher, &first)), [10]);
    // 40 ms old, but 20 ms long: it may be of the packet before (DTX), or of that before it.
    let mut payload = (1u32 << 31 | 111 << 24 | 1920 << 10 | 3)
        .to_be_bytes()
        .to_vec();
    payload.push(111);
    payload.extend([frame(11), frame(13)].concat());
    let packet = rtp(MEDIA, 63, 13, 13 * 960, &payload);
    assert_eq!(numbers(&goes_on(&mut publisher, &packet)), [13]);
}

#[test]
fn malformed_redundancy_is_dropped_by_name_and_takes_no_place() {
    let mut publisher = publisher();
    let _ = goes_on(&mut publisher, &plain_packet(10));
    let broken = rtp(MEDIA, 63, 11, 11 * 960, &[0xef, 0, 0]);
    assert_eq!(goes_on(&mut publisher, &broken).len(), 0);
    assert_eq!(publisher.counters().get(DropReason::MalformedRed), 1);
    let foreign = rtp(MEDIA, 63, 11, 11 * 960, &[13, 1, 2]);
    assert_eq!(goes_on(&mut publisher, &foreign).len(), 0);
    assert_eq!(publisher.counters().get(DropReason::UnknownPayloadType), 1);
    assert_eq!(numbers(&goes_on(&mut publisher, &plain_packet(11))), [11]);
}

#[test]
fn what_was_said_before_an_unmute_stays_unsaid() {
    let mut publisher = publisher();
    let first = red_packet(10, 0);
    let track = goes_on(&mut publisher, &first)[0].track;
    publisher.set_muted(start(), track, true);
    publisher.set_muted(start(), track, false);
    // Packet 11 was sent while muted, and lost.
    let packet = red_packet(12, 1);
    let packets = goes_on(&mut publisher, &packet);
    assert_eq!(packets.len(), 1);
    assert_eq!(packets[0].payload, frame(12));
}

/// Subscribers of one track: one takes RED under its own numbers, one does not.
fn legs(track: TrackKey) -> [Subscriber; 2] {
    [Some(97), None].map(|red| {
        let mut subscriber = Subscriber::new(OWN);
        let line = send_line(1, Codec::Opus);
        subscriber.set_lines(&[SendLine {
            payloads: vec![PayloadParams {
                red,
                ..payload(Codec::Opus, 120)
            }],
            ..line
        }]);
        subscriber.attach(1, track, Codec::Opus);
        subscriber
    })
}

fn sent(subscriber: &mut Subscriber, packet: &Received<'_>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    subscriber.forward(start(), 1, packet, &mut out).ok()?;
    Some(out)
}

#[test]
fn each_leg_gets_what_it_takes_in_its_own_numbers() {
    let mut publisher = publisher();
    let first = red_packet(10, 0);
    let third = red_packet(12, 1);
    let first = goes_on(&mut publisher, &first);
    let third = goes_on(&mut publisher, &third);
    let [mut red, mut plain] = legs(first[0].track);
    let sizes = |leg: &mut Subscriber| -> Vec<(u8, Vec<u8>)> {
        let packets = first.iter().chain(&third);
        packets
            .filter_map(|packet| sent(leg, packet))
            .map(|out| {
                let packet = RtpPacket::parse(&out).expect("RTP");
                (packet.payload_type, packet.payload.to_vec())
            })
            .collect()
    };
    let word = (1u32 << 31 | 120 << 24 | 960 << 10 | 3).to_be_bytes();
    let whole = [&word[..], &[120], &frame(11), &frame(12)].concat();
    assert_eq!(
        sizes(&mut red),
        [(97, [&[120][..], &frame(10)].concat()), (97, whole)]
    );
    assert_eq!(red.counters().get(DropReason::WithinRed), 1);
    assert_eq!(
        sizes(&mut plain),
        [(120, frame(10)), (120, frame(11)), (120, frame(12))]
    );
}

proptest! {
    /// Whatever is lost, doubled or late: no packet goes on twice, each has its own content, and everything goes on
    /// that came or stood in one of the `depth` packets after it which came. (What stands only in a packet that was
    /// itself found elsewhere before it came, does not: that packet is a duplicate.)
    #[test]
    fn nothing_goes_on_twice_and_nothing_that_came_is_missed(
        depth in 0u16..4,
        fates in proptest::collection::vec(0u8..10, 40..120),
    ) {
        let mut publisher = publisher();
        let mut late = VecDeque::new();
        let mut arrivals = Vec::new();
        for (at, fate) in fates.iter().enumerate() {
            let number = at as u16 + 100;
            match fate {
                0..=2 if at > 0 => {}
                3 => late.push_back(number),
                4 => arrivals.extend([number, number]),
                _ => arrivals.push(number),
            }
            if late.len() > 2 {
                arrivals.extend(late.pop_front());
            }
        }
        let mut went_on = Vec::new();
        for number in &arrivals {
            let packet = red_packet(*number, depth);
            went_on.extend(numbers(&goes_on(&mut publisher, &packet)));
        }
        let mut expected = std::collections::BTreeSet::new();
        for number in &arrivals {
            if !expected.contains(number) {
                expected.extend(number - depth..=*number);
            }
        }
        went_on.sort_unstable();
        prop_assert_eq!(went_on, Vec::from_iter(expected));
    }
}
