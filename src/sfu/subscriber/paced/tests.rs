use std::time::Duration;

use super::*;
use crate::ids::TrackKey;
use crate::rtp::bwe::Wanted;
use crate::rtp::extension::Extensions;
use crate::rtp::header::RtpPacket;
use crate::rtp::ntp::Ntp;
use crate::rtp::params::{Codec, Ssrc};
use crate::rtp::rtcp::write;
use crate::rtp::twcc::Recorder;
use crate::sfu::testing::*;

const TRACK: TrackKey = TrackKey(1);
const VOICE: TrackKey = TrackKey(2);
const WALL: Ntp = Ntp(0x1000_0000_0000_0000);

/// A subscriber with a picture on sender 1 and a voice on 2, whose pacer allows what a first guess allows.
fn subscriber(now: Instant) -> Subscriber {
    let mut subscriber = Subscriber::new(OWN);
    subscriber.set_lines(&[send_line(1, Codec::H264), send_line(2, Codec::Opus)]);
    subscriber.attach(1, TRACK, Codec::H264);
    subscriber.attach(2, VOICE, Codec::Opus);
    subscriber.adjust_pace(now);
    subscriber
}

fn large(seq: u64) -> Vec<u8> {
    let mut payload = if seq == 1000 { KEY } else { DELTA }.to_vec();
    payload.resize(1100, 7);
    payload
}

/// Sends one picture of `count` packets, all with one timestamp.
fn picture(subscriber: &mut Subscriber, now: Instant, first: u64, count: u64) -> Vec<Sending> {
    let mut sent = Vec::new();
    for seq in first..first + count {
        let payload = large(seq);
        let packet = Received {
            timestamp: first * 3000,
            keyframe: first == 1000,
            marker: seq + 1 == first + count,
            ..received(TRACK, seq, &payload)
        };
        let mut out = Vec::new();
        match subscriber.send(now, 1, &packet, &mut out) {
            Ok(Sending::Now(_)) => assert!(!out.is_empty()),
            _ => assert!(
                out.is_empty(),
                "nothing is appended for what does not leave"
            ),
        }
        sent.extend(subscriber_result(&out));
    }
    sent
}

fn subscriber_result(out: &[u8]) -> Option<Sending> {
    let packet = RtpPacket::parse(out).ok()?;
    Some(Sending::Now(packet.header_len))
}

fn number(out: &[u8]) -> (u16, u16) {
    let packet = RtpPacket::parse(out).expect("RTP");
    let extensions = Extensions::parse(packet.extension, &OUT_IDS);
    (packet.seq, extensions.transport_cc.expect("numbered"))
}

#[test]
fn a_keyframe_waits_in_the_pacer_and_a_voice_overtakes_it() {
    let t0 = start();
    let mut subscriber = subscriber(t0);
    let at_once = picture(&mut subscriber, t0, 1000, 40).len();
    assert!((1..20).contains(&at_once), "{at_once} of 40 at once");
    let mut out = Vec::new();
    let voice = subscriber.send(t0, 2, &audio(VOICE, 5), &mut out);
    assert!(matches!(voice, Ok(Sending::Now(_))), "{voice:?}");
    let (_, voice_number) = number(&out);
    assert_eq!(
        usize::from(voice_number),
        at_once + 1,
        "no number is left out"
    );
    let (mut now, mut left) = (t0, Vec::new());
    while left.len() + at_once < 40 {
        now = subscriber
            .poll_timeout()
            .expect("something waits")
            .max(now + ms(1));
        loop {
            let mut out = Vec::new();
            let Some(header_len) = subscriber.poll_paced(now, &mut out) else {
                break;
            };
            assert_eq!(RtpPacket::parse(&out).expect("RTP").header_len, header_len);
            left.push(number(&out));
        }
    }
    let took = now - t0;
    // 360 kbit at 2.5 Mbit/s.
    assert!((ms(80)..ms(300)).contains(&took), "{took:?}");
    for pair in left.windows(2) {
        assert_eq!(pair[1].0, pair[0].0.wrapping_add(1), "in order");
        assert_eq!(
            pair[1].1,
            pair[0].1.wrapping_add(1),
            "numbered as they leave"
        );
    }
}

#[test]
fn a_full_pacer_leaves_whole_frames_out_until_a_keyframe() {
    let t0 = start();
    let mut subscriber = subscriber(t0);
    picture(&mut subscriber, t0, 1000, 300);
    let refused = |subscriber: &mut Subscriber, now, seq: u64, payload: &[u8]| {
        let packet = Received {
            payload,
            ..received(TRACK, seq, payload)
        };
        subscriber.send(now, 1, &packet, &mut Vec::new()).err()
    };
    let full = refused(&mut subscriber, t0, 1300, DELTA);
    assert_eq!(full, Some(DropReason::PacerFull));
    assert_eq!(subscriber.counters().get(DropReason::PacerFull), 1);
    let mut now = t0;
    while subscriber
        .poll_timeout()
        .is_some_and(|at| at < t0 + ms(900))
    {
        now += ms(5);
        while subscriber.poll_paced(now, &mut Vec::new()).is_some() {}
        if now > t0 + ms(900) {
            break;
        }
    }
    let waits = refused(&mut subscriber, now, 1301, DELTA);
    assert_eq!(waits, Some(DropReason::AwaitingKeyframe));
    assert_eq!(refused(&mut subscriber, now, 1302, KEY), None);
}

#[test]
fn a_probe_is_made_of_padding_on_the_retransmission_stream() {
    let t0 = start();
    let mut subscriber = subscriber(t0);
    let mut recorder = Recorder::default();
    let mut padding = 0;
    subscriber.estimator_mut().set_wanted(Wanted {
        next: 2_000_000,
        top: 4_000_000,
    });
    for n in 0..1_000u64 {
        let now = t0 + Duration::from_millis(n);
        let mut out = Vec::new();
        if n % 20 == 0 {
            let payload = if n == 0 { KEY } else { DELTA };
            let sent = subscriber.send(now, 1, &received(TRACK, 1000 + n, payload), &mut out);
            assert!(sent.is_ok());
            recorder.handle_packet(now + ms(20), number(&out).1);
        }
        out.clear();
        while let Some(header_len) = subscriber.poll_padding(now, &mut out) {
            let packet = RtpPacket::parse(&out).expect("RTP");
            assert_eq!(packet.ssrc, Ssrc(OUT_RTX.0 + 1));
            assert_eq!((packet.payload.len(), packet.padding), (0, 255));
            assert_eq!(packet.header_len, header_len);
            recorder.handle_packet(now + ms(20), number(&out).1);
            padding += 1;
            out.clear();
        }
        let mut feedback = Vec::new();
        while recorder.poll(now + ms(20), Ssrc(7), Ssrc(8), 1100, &mut feedback) {}
        subscriber.handle_rtcp(now + ms(40), WALL, &feedback);
    }
    assert!(padding > 10, "{padding}");
    let estimate = subscriber.estimator().estimate(t0 + ms(1000));
    assert!(estimate > 1_900_000, "{estimate}");
}

#[test]
fn without_a_retransmission_stream_there_are_no_probes() {
    let t0 = start();
    let mut subscriber = Subscriber::new(OWN);
    subscriber.set_lines(&[send_line(2, Codec::Opus)]);
    subscriber.attach(2, VOICE, Codec::Opus);
    subscriber.estimator_mut().set_wanted(Wanted {
        next: 2_000_000,
        top: 2_000_000,
    });
    let mut recorder = Recorder::default();
    for n in 0..100u64 {
        let (now, mut out) = (t0 + ms(n * 20), Vec::new());
        subscriber
            .send(now, 2, &audio(VOICE, 10 + n), &mut out)
            .expect("sent");
        recorder.handle_packet(now, number(&out).1);
        let mut feedback = Vec::new();
        while recorder.poll(now, Ssrc(7), Ssrc(8), 1100, &mut feedback) {}
        subscriber.handle_rtcp(now, WALL, &feedback);
        assert_eq!(subscriber.poll_padding(now, &mut out), None);
        let due = subscriber.estimator().poll_timeout();
        assert!(due.is_none_or(|at| at > now), "no busy waiting");
    }
}

#[test]
fn an_estimate_of_the_receiver_sets_the_pace() {
    let t0 = start();
    let mut subscriber = subscriber(t0);
    // Without transport-wide numbers.
    let mut line = send_line(1, Codec::H264);
    line.extensions.transport_cc = None;
    subscriber.set_lines(&[line]);
    subscriber.adjust_pace(t0);
    for n in 0..100u64 {
        let now = t0 + ms(n * 10);
        subscriber.adjust_pace(now);
        let payload = large(1000 + n);
        let packet = received(TRACK, 1000 + n, &payload);
        let packet = Received {
            keyframe: n == 0,
            ..packet
        };
        subscriber
            .send(now, 1, &packet, &mut Vec::new())
            .expect("sent");
    }
    let mut remb = Vec::new();
    write::remb(Ssrc(7), 300_000, &[], &mut remb);
    subscriber.handle_rtcp(t0 + ms(1000), WALL, &remb);
    let estimate = subscriber.estimator().estimate(t0 + ms(1000));
    assert!((299_000..=300_000).contains(&estimate), "{estimate}");
}
