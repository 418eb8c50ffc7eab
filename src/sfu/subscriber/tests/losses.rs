//! What a leg does about the losses that its receiver reports.

use super::*;
use crate::rtp::playout::PlayoutDelay;
use crate::rtp::red::Red;

const RED: u8 = 63;

/// A peer that takes video, and audio that may be redundant.
fn listener() -> Subscriber {
    let mut subscriber = Subscriber::new(OWN);
    let mut audio = send_line(2, Codec::Opus);
    audio.payloads[0].red = Some(RED);
    subscriber.set_lines(&[send_line(1, Codec::H264), audio]);
    subscriber.attach(1, TRACK, Codec::H264);
    subscriber.attach(2, OTHER, Codec::Opus);
    subscriber
}

/// A hundred packets of both, of which the peer reports this share as lost, in 256ths. The last of each.
fn second(subscriber: &mut Subscriber, number: u64, fraction_lost: u8) -> (Vec<u8>, Vec<u8>) {
    let now = start() + ms(1000 * number);
    let mut last = (Vec::new(), Vec::new());
    for n in 100 * number..100 * (number + 1) {
        let picture = if n == 0 { KEY } else { DELTA };
        last.0 = sent(subscriber, now, 1, &received(TRACK, 70_000 + n, picture));
        last.1 = sent(subscriber, now, 2, &audio(OTHER, 70_000 + n));
    }
    let block = |packet: &[u8]| {
        let packet = RtpPacket::parse(packet).expect("RTP");
        ReportBlock {
            ssrc: packet.ssrc,
            fraction_lost,
            cumulative_lost: 0,
            highest_seq: u32::from(packet.seq) + 0x1_0000,
            jitter: 0,
            last_sr: WALL.middle(),
            delay_since_last_sr: 0,
        }
    };
    let mut report = Vec::new();
    write::receiver_report(OWN, [block(&last.0), block(&last.1)], &mut report);
    // It comes 50 ms later.
    let wall = Ntp(WALL.0 + (1 << 32) / 20);
    subscriber.handle_rtcp(now, wall, &report);
    last
}

fn held_back(packet: &[u8]) -> Option<PlayoutDelay> {
    let packet = RtpPacket::parse(packet).expect("RTP");
    Extensions::parse(packet.extension, &OUT_IDS).playout_delay
}

#[test]
fn a_good_link_is_left_as_it_is() {
    let mut subscriber = listener();
    for n in 0..20 {
        let (picture, voice) = second(&mut subscriber, n, 0);
        assert_eq!(held_back(&picture), None);
        assert_eq!(RtpPacket::parse(&voice).expect("RTP").payload_type, 120);
    }
}

#[test]
fn pictures_wait_for_repairs_and_frames_of_a_voice_come_again() {
    let mut subscriber = listener();
    let (mut picture, mut voice) = (Vec::new(), Vec::new());
    for n in 0..10 {
        (picture, voice) = second(&mut subscriber, n, 26);
    }
    let said = held_back(&picture).expect("a lossy link");
    assert!((28..=40).contains(&said.min) && said.max > 100, "{said:?}");
    let packet = RtpPacket::parse(&voice).expect("RTP");
    assert_eq!(packet.payload_type, RED);
    let red = Red::parse(packet.payload).expect("well-formed");
    let blocks = red.blocks().map(|b| (b.payload_type, b.timestamp_offset));
    let blocks: Vec<_> = blocks.collect();
    assert_eq!(blocks, [(120, 1920), (120, 960), (120, 0)]);

    for n in 10..200 {
        (picture, voice) = second(&mut subscriber, n, 0);
    }
    assert_eq!(held_back(&picture).map(|said| said.min), Some(0));
    assert_eq!(RtpPacket::parse(&voice).expect("RTP").payload_type, 120);
}

#[test]
fn the_way_to_the_server_counts_as_well() {
    let now = start();
    let mut subscriber = listener();
    let packet = Received {
        repair_time: ms(210),
        ..received(TRACK, 70_000, KEY)
    };
    let out = sent(&mut subscriber, now, 1, &packet);
    assert_eq!(held_back(&out).map(|said| said.min), Some(25));
    let wish = PlayoutDelay { min: 40, max: 60 };
    let packet = Received {
        playout: Some(wish),
        ..received(TRACK, 70_001, DELTA)
    };
    let out = sent(&mut subscriber, now, 1, &packet);
    assert_eq!(held_back(&out), Some(wish));
}

#[test]
fn a_leg_without_the_extension_or_redundancy_gets_neither() {
    let mut subscriber = Subscriber::new(OWN);
    let mut video = send_line(1, Codec::H264);
    video.extensions.playout_delay = None;
    subscriber.set_lines(&[video, send_line(2, Codec::Opus)]);
    subscriber.attach(1, TRACK, Codec::H264);
    subscriber.attach(2, OTHER, Codec::Opus);
    for n in 0..10 {
        let (picture, voice) = second(&mut subscriber, n, 26);
        assert_eq!(held_back(&picture), None);
        let voice = RtpPacket::parse(&voice).expect("RTP");
        assert_eq!((voice.payload_type, voice.payload), (120, &b"opus"[..]));
    }
}
