mod losses;

use super::*;
use crate::rtp::extension::{AudioLevel, Extensions};
use crate::rtp::header::RtpPacket;
use crate::rtp::rtcp::write;
use crate::rtp::rtx;
use crate::sfu::testing::*;
use proptest::prelude::*;

const TRACK: TrackKey = TrackKey(1);
const OTHER: TrackKey = TrackKey(2);
const WALL: Ntp = Ntp(0x1000_0000_0000_0000);

fn subscriber() -> Subscriber {
    let mut subscriber = Subscriber::new(OWN);
    subscriber.set_lines(&[send_line(1, Codec::H264), send_line(2, Codec::Opus)]);
    subscriber
}

fn sent(subscriber: &mut Subscriber, now: Instant, sender: u64, packet: &Received<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let header_len = subscriber
        .forward(now, sender, packet, &mut out)
        .expect("forwarded");
    assert_eq!(RtpPacket::parse(&out).expect("RTP").header_len, header_len);
    out
}

#[test]
fn video_waits_for_a_keyframe_and_flows_from_there() {
    let now = start();
    let mut subscriber = subscriber();
    assert!(subscriber.attach(1, TRACK, Codec::H264));
    let mut out = Vec::new();
    let refused = subscriber.forward(now, 1, &received(TRACK, 70_000, DELTA), &mut out);
    assert_eq!(refused, Err(DropReason::AwaitingKeyframe));
    assert!(out.is_empty());
    let first = sent(&mut subscriber, now, 1, &received(TRACK, 70_001, KEY));
    let second = sent(&mut subscriber, now, 1, &received(TRACK, 70_002, DELTA));
    let (first, second) = (
        RtpPacket::parse(&first).unwrap(),
        RtpPacket::parse(&second).unwrap(),
    );
    assert_eq!(second.seq, first.seq.wrapping_add(1));
    assert_eq!(second.timestamp, first.timestamp.wrapping_add(3000));
    assert!(!subscriber.attach(1, TRACK, Codec::H264), "nothing new");
    assert_eq!(subscriber.counters().get(DropReason::AwaitingKeyframe), 1);
}

#[test]
fn what_a_pause_leaves_out_is_no_gap_and_time_goes_on() {
    let begun = start();
    let mut subscriber = subscriber();
    subscriber.attach(2, TRACK, Codec::Opus);
    let at = |packet: u64| begun + ms(20 * (packet - 1000));
    let numbers = |subscriber: &mut Subscriber, packet| {
        let out = sent(subscriber, at(packet), 2, &audio(TRACK, packet));
        let parsed = RtpPacket::parse(&out).expect("RTP");
        (parsed.seq, parsed.timestamp)
    };
    let (seq, timestamp) = numbers(&mut subscriber, 1000);
    numbers(&mut subscriber, 1001);
    subscriber.pause(2);
    assert_eq!(subscriber.poll_timeout(), None, "no reports meanwhile");
    let after = numbers(&mut subscriber, 1500);
    assert_eq!(after, (seq + 2, timestamp + 500 * 960));
    // Packets from before stay out: their numbers were never given.
    let mut out = Vec::new();
    let late = subscriber.forward(at(1501), 2, &audio(TRACK, 1499), &mut out);
    assert_eq!(late, Err(DropReason::TooOld));
    assert_eq!(
        numbers(&mut subscriber, 1501),
        (seq + 3, timestamp + 501 * 960)
    );
}

#[test]
fn the_packet_speaks_the_language_of_its_leg() {
    let now = start();
    let mut subscriber = subscriber();
    subscriber.attach(1, TRACK, Codec::H264);
    let packet = Received {
        orientation: Some(1),
        dependency_descriptor: Some(b"not negotiated"),
        ..received(TRACK, 5000, KEY)
    };
    let out = sent(&mut subscriber, now, 1, &packet);
    let parsed = RtpPacket::parse(&out).expect("RTP");
    assert_eq!(
        (parsed.payload_type, parsed.ssrc, parsed.marker),
        (120, Ssrc(OUT.0 + 1), true)
    );
    assert_eq!(parsed.payload, KEY);
    let extensions = Extensions::parse(parsed.extension, &OUT_IDS);
    assert_eq!(extensions.mid, Some("s1"));
    assert_eq!(extensions.video_orientation, Some(1));
    assert_eq!(extensions.transport_cc, Some(1));
    assert!(extensions.abs_send_time.is_some());

    subscriber.attach(2, OTHER, Codec::Opus);
    let out = sent(&mut subscriber, now, 2, &audio(OTHER, 9));
    let parsed = RtpPacket::parse(&out).expect("RTP");
    let extensions = Extensions::parse(parsed.extension, &OUT_IDS);
    assert_eq!(
        extensions.transport_cc,
        Some(2),
        "one count for the whole leg"
    );
    let level = AudioLevel {
        dbov: 30,
        voice: true,
    };
    assert_eq!(extensions.audio_level, Some(level));
}

#[test]
fn audio_switches_between_mixes_without_a_gap() {
    let now = start();
    let mut subscriber = subscriber();
    assert!(
        !subscriber.attach(2, TRACK, Codec::Opus),
        "audio needs no keyframe"
    );
    let first = sent(&mut subscriber, now, 2, &audio(TRACK, 100));
    subscriber.attach(2, OTHER, Codec::Opus);
    let mut out = Vec::new();
    let late = subscriber.forward(now, 2, &audio(TRACK, 101), &mut out);
    assert_eq!(late, Err(DropReason::NotAttached));
    let second = sent(&mut subscriber, now + ms(20), 2, &audio(OTHER, 50_000));
    let (first, second) = (
        RtpPacket::parse(&first).unwrap(),
        RtpPacket::parse(&second).unwrap(),
    );
    assert_eq!(second.seq, first.seq.wrapping_add(1));
    assert_eq!(second.timestamp, first.timestamp.wrapping_add(960));
}

#[test]
fn a_publisher_that_starts_over_is_joined_at_its_keyframe() {
    let now = start();
    let mut subscriber = subscriber();
    subscriber.attach(1, TRACK, Codec::H264);
    let first = sent(&mut subscriber, now, 1, &received(TRACK, 70_000, KEY));
    let anew = |seq, payload| Received {
        generation: 1,
        ..received(TRACK, seq, payload)
    };
    let mut out = Vec::new();
    let refused = subscriber.forward(now, 1, &anew(100, DELTA), &mut out);
    assert_eq!(refused, Err(DropReason::AwaitingKeyframe));
    let second = sent(&mut subscriber, now, 1, &anew(101, KEY));
    let stale = subscriber.forward(now, 1, &received(TRACK, 70_001, DELTA), &mut out);
    assert_eq!(stale, Err(DropReason::StaleStream));
    let (first, second) = (
        RtpPacket::parse(&first).unwrap(),
        RtpPacket::parse(&second).unwrap(),
    );
    assert_eq!(second.seq, first.seq.wrapping_add(1));
}

#[test]
fn what_has_no_line_no_codec_or_no_track_is_counted() {
    let now = start();
    let mut subscriber = subscriber();
    let mut out = Vec::new();
    let mut refused = |subscriber: &mut Subscriber, sender, packet: &Received<'_>| {
        subscriber.forward(now, sender, packet, &mut out).err()
    };
    let packet = received(TRACK, 1000, KEY);
    assert_eq!(
        refused(&mut subscriber, 1, &packet),
        Some(DropReason::NotAttached)
    );
    assert_eq!(
        refused(&mut subscriber, 9, &packet),
        Some(DropReason::NotAttached)
    );
    subscriber.attach(9, TRACK, Codec::H264);
    assert_eq!(
        refused(&mut subscriber, 9, &packet),
        Some(DropReason::NotNegotiated)
    );
    subscriber.attach(1, TRACK, Codec::Vp8);
    let vp8 = Received {
        codec: Codec::Vp8,
        ..packet
    };
    assert_eq!(
        refused(&mut subscriber, 1, &vp8),
        Some(DropReason::CodecNotNegotiated)
    );
    subscriber.detach(1);
    assert_eq!(
        refused(&mut subscriber, 1, &packet),
        Some(DropReason::NotAttached)
    );
    assert_eq!(subscriber.counters().get(DropReason::NotAttached), 3);
    subscriber.detach(9);
    assert_eq!(subscriber.ids, [1, 2], "a sender with neither is forgotten");
}

#[test]
fn a_missing_packet_is_sent_again_once_per_round_trip() {
    let now = start();
    let mut subscriber = subscriber();
    subscriber.attach(1, TRACK, Codec::H264);
    sent(&mut subscriber, now, 1, &received(TRACK, 1000, KEY));
    let original = sent(&mut subscriber, now, 1, &received(TRACK, 1001, DELTA));
    let original = RtpPacket::parse(&original).expect("RTP");
    let mut nack = Vec::new();
    write::nack(
        OWN,
        original.ssrc,
        &[original.seq, original.seq + 1],
        1200,
        &mut nack,
    );
    assert!(subscriber.handle_rtcp(start(), WALL, &nack).is_empty());
    let mut out = Vec::new();
    let header_len = subscriber
        .poll_retransmission(now, &mut out)
        .expect("cached");
    let again = RtpPacket::parse(&out).expect("RTP");
    assert_eq!(again.header_len, header_len);
    assert_eq!((again.ssrc, again.payload_type), (Ssrc(OUT_RTX.0 + 1), 121));
    assert_eq!(again.timestamp, original.timestamp);
    assert_eq!(rtx::unwrap(again.payload), Some((original.seq, DELTA)));
    assert_eq!(
        Extensions::parse(again.extension, &OUT_IDS).transport_cc,
        Some(3)
    );
    assert_eq!(
        subscriber.poll_retransmission(now, &mut out),
        None,
        "never sent"
    );
    subscriber.handle_rtcp(start(), WALL, &nack);
    assert_eq!(subscriber.poll_retransmission(now, &mut out), None);
    assert_eq!(
        subscriber.counters().get(DropReason::RetransmissionTooSoon),
        1
    );
    assert_eq!(subscriber.counters().get(DropReason::RetransmissionGone), 2);
    assert_eq!(subscriber.stats(now)[0].retransmitted, 1);
}

#[test]
fn requests_for_retransmission_are_bounded() {
    let mut subscriber = subscriber();
    let mut nack = Vec::new();
    let seqs: Vec<u16> = (0..2000).collect();
    write::nack(OWN, Ssrc(OUT.0 + 1), &seqs, 1200, &mut nack);
    subscriber.handle_rtcp(start(), WALL, &nack);
    assert_eq!(subscriber.wanted.len(), MAX_WANTED);
    let refused = subscriber
        .counters()
        .get(DropReason::RetransmissionQueueFull);
    assert_eq!(refused, 2000 - MAX_WANTED as u64);
}

#[test]
fn keyframe_wishes_name_the_track_once() {
    let mut subscriber = subscriber();
    subscriber.attach(1, TRACK, Codec::H264);
    subscriber.attach(2, OTHER, Codec::Opus);
    let mut compound = Vec::new();
    write::pli(OWN, Ssrc(OUT.0 + 1), &mut compound);
    write::fir(OWN, Ssrc(OUT.0 + 1), 1, &mut compound);
    write::pli(OWN, Ssrc(OUT.0 + 2), &mut compound);
    write::pli(OWN, Ssrc(77), &mut compound);
    assert_eq!(
        subscriber.handle_rtcp(start(), WALL, &compound)[..],
        [(TRACK, Layer(u8::MAX))]
    );
}

#[test]
fn the_first_report_follows_the_first_packet_and_keeps_both_clocks() {
    let t0 = start();
    let mut subscriber = subscriber();
    subscriber.attach(1, TRACK, Codec::H264);
    assert_eq!(subscriber.poll_timeout(), None);
    let packet = received(TRACK, 1000, KEY);
    let first = sent(&mut subscriber, t0, 1, &packet);
    let first = RtpPacket::parse(&first).expect("RTP");
    assert_eq!(subscriber.poll_timeout(), Some(t0));
    let mut out = Vec::new();
    assert!(!subscriber.poll_report(t0, WALL, &mut |_| None, &mut out));
    let t1 = t0 + ms(100);
    assert_eq!(
        subscriber.poll_timeout(),
        Some(t1),
        "the clock may come any moment"
    );
    // The publisher's report: the packet was taken half a second ago.
    let mut clock = |track| {
        (track == TRACK).then_some(SenderClock {
            ntp: WALL.shifted(-(1 << 31)),
            timestamp: packet.timestamp,
            generation: 0,
        })
    };
    assert!(subscriber.poll_report(t1, WALL, &mut clock, &mut out));
    let Some(Ok(Rtcp::SenderReport {
        ssrc,
        ntp,
        timestamp,
        ..
    })) = rtcp::packets(&out).next()
    else {
        panic!("not a sender report");
    };
    assert_eq!((ssrc, ntp), (Ssrc(OUT.0 + 1), WALL));
    assert_eq!(timestamp, first.timestamp.wrapping_add(45_000));
    assert_eq!(rtcp::packets(&out).count(), 2, "report and description");
    assert!(!subscriber.poll_report(t1, WALL, &mut clock, &mut out));
    assert_eq!(subscriber.poll_timeout(), Some(t1 + ms(1000)));
}

#[test]
fn reports_of_the_receiver_are_kept() {
    let now = start();
    let mut subscriber = subscriber();
    subscriber.attach(1, TRACK, Codec::H264);
    sent(&mut subscriber, now, 1, &received(TRACK, 1000, KEY));
    let block = ReportBlock {
        ssrc: Ssrc(OUT.0 + 1),
        fraction_lost: 64,
        cumulative_lost: 12,
        highest_seq: 0,
        jitter: 0,
        last_sr: WALL.middle().wrapping_sub(65_536),
        delay_since_last_sr: 65_536 - 6554,
    };
    let mut compound = Vec::new();
    write::receiver_report(OWN, [block], &mut compound);
    subscriber.handle_rtcp(start(), WALL, &compound);
    assert_eq!(subscriber.round_trip().expect("measured").as_millis(), 100);
    let stats = subscriber.stats(now)[0];
    assert_eq!((stats.packets_lost, stats.fraction_lost), (12, 0.25));
    assert_eq!(
        (stats.packets_sent, stats.bytes_sent),
        (1, KEY.len() as u64)
    );
}

#[test]
fn a_line_that_comes_back_goes_on_and_never_repeats_a_number() {
    let now = start();
    let mut subscriber = subscriber();
    subscriber.attach(1, TRACK, Codec::H264);
    let first = sent(&mut subscriber, now, 1, &received(TRACK, 1000, KEY));
    subscriber.set_lines(&[]);
    let mut out = Vec::new();
    let refused = subscriber.forward(now, 1, &received(TRACK, 1001, KEY), &mut out);
    assert_eq!(refused, Err(DropReason::NotNegotiated));
    subscriber.detach(1);
    assert_eq!((subscriber.poll_timeout(), subscriber.memory()), (None, 0));
    subscriber.set_lines(&[send_line(1, Codec::H264)]);
    assert!(subscriber.attach(1, TRACK, Codec::H264));
    let second = sent(&mut subscriber, now, 1, &received(TRACK, 1000, KEY));
    let (first, second) = (
        RtpPacket::parse(&first).unwrap(),
        RtpPacket::parse(&second).unwrap(),
    );
    assert_eq!(second.seq, first.seq.wrapping_add(1));
}

#[test]
fn senders_that_are_gone_for_good_do_not_pile_up() {
    let now = start();
    let mut subscriber = Subscriber::new(OWN);
    for sender in 0..1000 {
        subscriber.set_lines(&[send_line(sender, Codec::H264)]);
        subscriber.attach(sender, TRACK, Codec::H264);
        sent(&mut subscriber, now, sender, &received(TRACK, 1000, KEY));
        subscriber.detach(sender);
        assert!(subscriber.senders.len() <= MAX_IDLE + 1);
        assert_eq!(subscriber.senders.len(), subscriber.ids.len());
    }
}

#[test]
fn one_subscription_stays_below_a_mebibyte() {
    let now = start();
    let mut subscriber = subscriber();
    subscriber.attach(1, TRACK, Codec::H264);
    let mut out = Vec::new();
    let big = [0x65; 1150];
    for seq in 0..5000 {
        let packet = Received {
            keyframe: true,
            ..received(TRACK, 1000 + seq, &big)
        };
        subscriber
            .forward(now + ms(seq), 1, &packet, &mut out)
            .expect("sent");
        out.clear();
    }
    assert!(subscriber.memory() < 640 * 1024, "{}", subscriber.memory());
}

proptest! {
    #[test]
    fn no_rtcp_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..100), kind in 200u8..207) {
        if bytes.len() > 4 {
            bytes[0] = 0x81;
            bytes[1] = kind;
            bytes[2] = 0;
            bytes[3] = (bytes.len() / 4 - 1) as u8;
        }
        let mut subscriber = subscriber();
        subscriber.handle_rtcp(start(), WALL, &bytes);
        prop_assert!(subscriber.wanted.len() <= MAX_WANTED);
    }
}
