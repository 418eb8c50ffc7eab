use super::*;
use crate::rtp::extension::AudioLevel;
use crate::rtp::params::{Codec, MediaKind};
use crate::sfu::testing::*;
use proptest::prelude::*;

const WALL: Ntp = Ntp(0x1000_0000_0000_0000);

fn publisher() -> Publisher {
    let mut publisher = Publisher::new(OWN);
    assert!(publisher.set_lines(&[video_in(), audio_in()]).is_empty());
    publisher
}

fn feedback(publisher: &mut Publisher, now: Instant) -> Vec<u8> {
    let mut out = Vec::new();
    while publisher.poll_feedback(now, &mut out) {
        assert!(out.len() <= 4 * MAX_COMPOUND);
    }
    out
}

fn keyframe_requests(compound: &[u8]) -> usize {
    rtcp::packets(compound)
        .filter(|packet| matches!(packet, Ok(Rtcp::Pli { media: MEDIA })))
        .count()
}

fn nacked(compound: &[u8]) -> Vec<u16> {
    rtcp::packets(compound)
        .filter_map(|packet| match packet {
            Ok(Rtcp::Nack { seqs, .. }) => Some(seqs),
            _ => None,
        })
        .flatten()
        .collect()
}

#[test]
fn the_first_packet_announces_its_track() {
    let now = start();
    let mut publisher = publisher();
    let packet = rtp(MEDIA, 102, 65_535, 9000, KEY);
    let got = publisher.handle_rtp(now, &packet).expect("announced SSRC");
    assert!(got.first && got.keyframe && got.marker);
    assert_eq!((got.codec, got.payload), (Codec::H264, KEY));
    let published = publisher.published(got.track).expect("announced");
    assert_eq!(
        (published.track_id.as_str(), published.kind),
        ("track-v", MediaKind::Video)
    );
    let packet = rtp(MEDIA, 102, 0, 12_000, DELTA);
    let next = publisher.handle_rtp(now, &packet).expect("next");
    assert!(!next.first && !next.keyframe);
    assert_eq!(
        (next.seq, next.timestamp),
        (got.seq + 1, got.timestamp + 3000)
    );
    assert_eq!(publisher.tracks().count(), 1);
}

#[test]
fn a_stream_without_announcement_is_found_by_mid_or_payload_type() {
    let now = start();
    let mut publisher = Publisher::new(OWN);
    let other = receive_line("v2", vec![payload(Codec::H264, 102)]);
    publisher.set_lines(&[video_in(), other, audio_in()]);
    let by_type = rtp(Ssrc(5), 111, 1, 1, b"opus");
    assert_eq!(
        publisher
            .handle_rtp(now, &by_type)
            .expect("unique type")
            .codec,
        Codec::Opus
    );
    let ambiguous = rtp(Ssrc(6), 102, 1, 1, KEY);
    assert_eq!(
        publisher.handle_rtp(now, &ambiguous).err(),
        Some(DropReason::UnknownSsrc)
    );
    let extensions = Extensions {
        mid: Some("v2"),
        ..Extensions::default()
    };
    let tagged = with_extensions(Ssrc(6), 102, 1, 1, KEY, extensions);
    let track = publisher.handle_rtp(now, &tagged).expect("tagged").track;
    assert_eq!(
        publisher.published(track).expect("announced").track_id,
        "track-v2"
    );
    let untagged = rtp(Ssrc(6), 102, 2, 1, DELTA);
    assert_eq!(
        publisher
            .handle_rtp(now, &untagged)
            .expect("remembered")
            .track,
        track
    );
}

#[test]
fn extensions_are_read() {
    let level = AudioLevel {
        dbov: 20,
        voice: true,
    };
    let extensions = Extensions {
        mid: Some("a"),
        audio_level: Some(level),
        video_orientation: Some(2),
        dependency_descriptor: Some(b"dd"),
        ..Extensions::default()
    };
    let packet = with_extensions(Ssrc(5), 111, 1, 1, b"opus", extensions);
    let mut publisher = publisher();
    let got = publisher.handle_rtp(start(), &packet).expect("audio");
    assert_eq!((got.level, got.orientation), (Some(level), Some(2)));
    assert_eq!(got.dependency_descriptor, Some(&b"dd"[..]));
}

#[test]
fn a_retransmission_takes_the_place_of_what_was_lost() {
    let now = start();
    let mut publisher = publisher();
    let first = publisher
        .handle_rtp(now, &rtp(MEDIA, 102, 10, 0, KEY))
        .expect("first")
        .seq;
    publisher
        .handle_rtp(now, &rtp(MEDIA, 102, 12, 0, DELTA))
        .expect("third");
    assert_eq!(nacked(&feedback(&mut publisher, now + ms(10))), [11]);
    let mut body = 11u16.to_be_bytes().to_vec();
    body.extend_from_slice(DELTA);
    let again = rtp(RTX, 103, 900, 0, &body);
    let got = publisher.handle_rtp(now, &again).expect("repaired");
    assert_eq!(
        (got.seq, got.payload, got.recovered),
        (first + 1, DELTA, true)
    );
    let twice = publisher.handle_rtp(now, &again).err();
    assert_eq!(twice, Some(DropReason::Duplicate));
    assert!(nacked(&feedback(&mut publisher, now + ms(900))).is_empty());
    let late = publisher
        .handle_rtp(now, &rtp(MEDIA, 102, 11, 0, DELTA))
        .err();
    assert_eq!(late, Some(DropReason::Duplicate));
    assert_eq!(publisher.stats(now)[0].packets_lost, 0);
}

#[test]
fn probes_count_for_feedback_and_begin_nothing() {
    let now = start();
    let mut publisher = publisher();
    let extensions = Extensions {
        transport_cc: Some(7),
        ..Extensions::default()
    };
    let mut probe = with_extensions(RTX, 103, 1, 0, &[0, 0, 0, 4], extensions);
    probe[0] |= 0x20;
    assert_eq!(
        publisher.handle_rtp(now, &probe).err(),
        Some(DropReason::Padding)
    );
    let mut probe = with_extensions(MEDIA, 102, 1, 0, &[0, 0, 0, 4], extensions);
    probe[0] |= 0x20;
    assert_eq!(
        publisher.handle_rtp(now, &probe).err(),
        Some(DropReason::Padding)
    );
    assert_eq!(publisher.tracks().count(), 0);
    let told = feedback(&mut publisher, now + ms(100));
    let told = rtcp::packets(&told).any(|packet| matches!(packet, Ok(Rtcp::TransportWide(_))));
    assert!(told);
    let early = rtp(RTX, 103, 2, 0, &[0, 5, 1, 2]);
    let early = publisher.handle_rtp(now, &early).err();
    assert_eq!(early, Some(DropReason::UnexpectedRetransmission));
}

#[test]
fn padding_within_a_stream_keeps_the_sequence_whole() {
    let now = start();
    let mut publisher = publisher();
    publisher
        .handle_rtp(now, &rtp(MEDIA, 102, 1, 0, KEY))
        .expect("media");
    let mut probe = rtp(MEDIA, 102, 2, 0, &[0, 0, 3]);
    probe[0] |= 0x20;
    assert!(
        publisher
            .handle_rtp(now, &probe)
            .expect("kept")
            .payload
            .is_empty()
    );
}

#[test]
fn fifty_viewers_make_one_request_per_window() {
    let t0 = start();
    let mut publisher = publisher();
    let track = publisher
        .handle_rtp(t0, &rtp(MEDIA, 102, 1, 0, KEY))
        .expect("media")
        .track;
    for _ in 0..50 {
        publisher.request_keyframe(t0, track, Layer(0));
    }
    assert_eq!(publisher.poll_timeout(), Some(t0));
    assert_eq!(keyframe_requests(&feedback(&mut publisher, t0)), 1);
    publisher.request_keyframe(t0 + ms(100), track, Layer(0));
    assert_eq!(
        keyframe_requests(&feedback(&mut publisher, t0 + ms(299))),
        0
    );
    assert_eq!(publisher.poll_timeout(), Some(t0 + ms(300)));
    assert_eq!(
        keyframe_requests(&feedback(&mut publisher, t0 + ms(300))),
        1
    );
}

#[test]
fn an_intra_request_stands_in_where_no_pli_was_agreed() {
    let now = start();
    let mut line = video_in();
    for params in &mut line.payloads {
        params.pli = false;
    }
    let mut publisher = Publisher::new(OWN);
    publisher.set_lines(&[line]);
    let track = publisher
        .handle_rtp(now, &rtp(MEDIA, 102, 1, 0, KEY))
        .expect("media")
        .track;
    publisher.request_keyframe(now, track, Layer(0));
    let out = feedback(&mut publisher, now);
    assert!(matches!(
        rtcp::packets(&out).next(),
        Some(Ok(Rtcp::Fir { .. }))
    ));
}

#[test]
fn a_new_ssrc_begins_a_generation_and_the_old_one_is_stale() {
    let now = start();
    let mut publisher = publisher();
    let mid = |ssrc, seq| {
        let extensions = Extensions {
            mid: Some("v"),
            ..Extensions::default()
        };
        with_extensions(ssrc, 102, seq, 0, KEY, extensions)
    };
    let first = mid(MEDIA, 10);
    let first = publisher.handle_rtp(now, &first).expect("first");
    let second = mid(Ssrc(77), 5000);
    let second = publisher.handle_rtp(now, &second).expect("second");
    assert_eq!(first.track, second.track);
    assert_eq!((first.generation, second.generation), (0, 1));
    assert!(!second.first);
    let late = mid(MEDIA, 11);
    assert_eq!(
        publisher.handle_rtp(now, &late).err(),
        Some(DropReason::StaleStream)
    );
    assert_eq!(publisher.stats(now)[0].packets_received, 2);
}

#[test]
fn a_leap_counts_once_it_is_confirmed() {
    let now = start();
    let mut publisher = publisher();
    let mut handle = |seq| {
        let packet = rtp(MEDIA, 102, seq, 0, KEY);
        publisher.handle_rtp(now, &packet).map(|got| got.generation)
    };
    assert_eq!(handle(10), Ok(0));
    assert_eq!(handle(20_000), Err(DropReason::SequenceJump));
    assert_eq!(handle(11), Ok(0));
    assert_eq!(handle(30_000), Err(DropReason::SequenceJump));
    assert_eq!(handle(30_001), Ok(1));
    assert_eq!(handle(30_002), Ok(1));
}

#[test]
fn the_table_of_sources_is_bounded_and_a_flood_harms_nobody_else() {
    let now = start();
    let mut publisher = publisher();
    publisher
        .handle_rtp(now, &rtp(MEDIA, 102, 1, 0, KEY))
        .expect("media");
    for n in 0..500 {
        let _ = publisher.handle_rtp(now, &rtp(Ssrc(10_000 + n), 111, 1, 0, b"opus"));
    }
    // Each new audio SSRC replaces the one before; the video stream is untouched.
    let packet = rtp(MEDIA, 102, 2, 0, DELTA);
    let got = publisher.handle_rtp(now, &packet).expect("media");
    assert_eq!(got.generation, 0);
}

#[test]
fn what_a_mute_swallows_leaves_no_gap() {
    let now = start();
    let mut publisher = publisher();
    let video = |seq, payload: &[u8]| rtp(MEDIA, 102, seq, 0, payload);
    let packet = video(1, KEY);
    let first = publisher.handle_rtp(now, &packet).expect("media");
    publisher.set_muted(now, first.track, true);
    for seq in 2..50 {
        let muted = publisher.handle_rtp(now, &video(seq, KEY)).err();
        assert_eq!(muted, Some(DropReason::Muted));
    }
    publisher.set_muted(now, first.track, false);
    assert_eq!(keyframe_requests(&feedback(&mut publisher, now)), 1);
    let waiting = publisher.handle_rtp(now, &video(50, DELTA)).err();
    assert_eq!(waiting, Some(DropReason::Muted));
    let packet = video(52, KEY);
    assert_eq!(
        publisher.handle_rtp(now, &packet).expect("resumed").seq,
        first.seq + 1
    );
    let late = publisher.handle_rtp(now, &video(51, DELTA)).err();
    assert_eq!(late, Some(DropReason::Muted));
    let packet = video(53, DELTA);
    assert_eq!(
        publisher.handle_rtp(now, &packet).expect("goes on").seq,
        first.seq + 2
    );
}

#[test]
fn lines_that_go_away_or_change_their_msid_end_their_tracks() {
    let now = start();
    let mut publisher = publisher();
    let video = publisher
        .handle_rtp(now, &rtp(MEDIA, 102, 1, 0, KEY))
        .expect("video")
        .track;
    let audio = publisher
        .handle_rtp(now, &rtp(Ssrc(5), 111, 1, 0, b"opus"))
        .expect("audio")
        .track;
    assert!(publisher.set_lines(&[video_in(), audio_in()]).is_empty());
    let other = ReceiveLine {
        track_id: "other".into(),
        ..video_in()
    };
    assert_eq!(publisher.set_lines(&[other, audio_in()]), [video]);
    let packet = rtp(MEDIA, 102, 2, 0, KEY);
    let anew = publisher.handle_rtp(now, &packet).expect("new track");
    assert!(anew.first && anew.track != video);
    let track = anew.track;
    assert_eq!(publisher.set_lines(&[]), [track, audio]);
    let gone = publisher.handle_rtp(now, &rtp(MEDIA, 102, 3, 0, KEY)).err();
    assert_eq!(gone, Some(DropReason::UnknownSsrc));
}

#[test]
fn one_clock_offset_serves_all_tracks() {
    let now = start();
    let mut publisher = publisher();
    let video = publisher
        .handle_rtp(now, &rtp(MEDIA, 102, 1, 90_000, KEY))
        .expect("video")
        .track;
    let packet = rtp(Ssrc(5), 111, 1, 48_000, b"opus");
    let audio = publisher.handle_rtp(now, &packet).expect("audio");
    assert_eq!(publisher.clock(video, 0), None);
    let mut report = |ssrc, sent: Ntp, timestamp, delay: i64| {
        let info = write::SenderInfo {
            ssrc,
            ntp: sent,
            timestamp,
            packets: 1,
            octets: 1,
        };
        let mut out = Vec::new();
        write::sender_report(&info, &mut out);
        publisher.handle_rtcp(now, WALL.shifted(sent.0 as i64 + delay), &out);
        (publisher.clock(video, 0), publisher.clock(audio.track, 0))
    };
    report(MEDIA, Ntp(5 << 32), 90_000, 1000);
    let (video, audio_clock) = report(Ssrc(5), Ntp(5 << 32), 48_000, 3000);
    let (video, audio_clock) = (video.expect("reported"), audio_clock.expect("reported"));
    assert_eq!(
        video.ntp, audio_clock.ntp,
        "the same moment of the peer is one moment here"
    );
    assert_eq!(
        video.ntp,
        WALL.shifted((5 << 32) + 1000),
        "by the quicker of the two reports"
    );
    assert_eq!(audio_clock.timestamp, audio.timestamp);
}

#[test]
fn receiver_reports_leave_once_a_second() {
    let t0 = start();
    let mut publisher = publisher();
    publisher
        .handle_rtp(t0, &rtp(MEDIA, 102, 1, 0, KEY))
        .expect("media");
    publisher
        .handle_rtp(t0, &rtp(MEDIA, 102, 3, 0, DELTA))
        .expect("media");
    let reports = |out: &[u8]| -> Vec<ReportBlock> {
        rtcp::packets(out)
            .filter_map(|packet| match packet {
                Ok(Rtcp::ReceiverReport { blocks }) => Some(blocks),
                _ => None,
            })
            .flatten()
            .collect()
    };
    assert!(reports(&feedback(&mut publisher, t0 + ms(999))).is_empty());
    let blocks = reports(&feedback(&mut publisher, t0 + ms(1000)));
    assert_eq!(
        (blocks.len(), blocks[0].ssrc, blocks[0].cumulative_lost),
        (1, MEDIA, 1)
    );
    assert_eq!(blocks[0].fraction_lost, 85);
}

#[test]
fn a_thousand_lost_packets_fill_no_compound_beyond_its_limit() {
    let t0 = start();
    let mut publisher = publisher();
    let extensions = |seq: u16| Extensions {
        transport_cc: Some(seq),
        ..Extensions::default()
    };
    for n in 0..120u16 {
        let packet = with_extensions(MEDIA, 102, n * 3, 0, KEY, extensions(n * 3));
        publisher.handle_rtp(t0, &packet).expect("media");
    }
    let mut out = Vec::new();
    let mut compounds = 0;
    let now = t0 + ms(1100);
    while publisher.poll_feedback(now, &mut out) {
        assert!(out.len() <= MAX_COMPOUND, "{}", out.len());
        assert!(rtcp::packets(&out).all(|packet| packet.is_ok()));
        compounds += 1;
        out.clear();
    }
    assert!((1..10).contains(&compounds), "{compounds}");
    assert!(publisher.poll_timeout().is_some_and(|at| at > now));
}

#[test]
fn an_unknown_payload_type_is_named() {
    let mut publisher = publisher();
    let unknown = publisher
        .handle_rtp(start(), &rtp(MEDIA, 55, 1, 0, KEY))
        .err();
    assert_eq!(unknown, Some(DropReason::UnknownPayloadType));
    assert_eq!(publisher.counters().get(DropReason::UnknownPayloadType), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_packets_panic(packets in proptest::collection::vec(
        (prop_oneof![Just(102u8), Just(103), Just(111), Just(96), any::<u8>()], prop_oneof![Just(MEDIA.0), Just(RTX.0), 0u32..200],
         any::<u16>(), any::<u32>(), proptest::collection::vec(any::<u8>(), 0..40), 0u8..8), 0..150)
    ) {
        let mut now = start();
        let mut publisher = publisher();
        let mut out = Vec::new();
        for (nth, (payload_type, ssrc, seq, timestamp, body, flags)) in packets.into_iter().enumerate() {
            now += ms(7);
            let mut packet = rtp(Ssrc(ssrc), payload_type, seq % 300, timestamp, &body);
            packet[0] |= flags << 4 & 0x30;
            let muted = publisher.handle_rtp(now, &packet).ok().map(|got| got.track);
            if let Some(track) = muted.filter(|_| flags & 4 != 0) {
                publisher.set_muted(now, track, nth % 2 == 0);
            }
            publisher.handle_rtcp(now, WALL, &body);
            out.clear();
            while publisher.poll_feedback(now, &mut out) {
                prop_assert!(rtcp::packets(&out).all(|packet| packet.is_ok()));
                out.clear();
            }
            prop_assert!(publisher.poll_timeout().is_none_or(|at| at > now));
        }
    }
}

/// Sends a voice for `seconds`, in 20 ms; transport-wide messages, and compounds in all.
fn told_about_a_voice(publisher: &mut Publisher, seconds: u64) -> (usize, usize, usize) {
    let now = start();
    let (mut messages, mut reports, mut compounds) = (0, 0, 0);
    for at in 0..seconds * 1000 {
        if at % 20 == 0 {
            let number = at as u16 / 20;
            let extensions = Extensions {
                mid: Some("a"),
                transport_cc: Some(number),
                ..Extensions::default()
            };
            let packet = with_extensions(Ssrc(5), 111, number, 0, b"opus", extensions);
            publisher
                .handle_rtp(now + ms(at), &packet)
                .expect("a voice");
        }
        let told = feedback(publisher, now + ms(at));
        compounds += usize::from(!told.is_empty());
        for packet in rtcp::packets(&told) {
            messages += usize::from(matches!(packet, Ok(Rtcp::TransportWide(_))));
            reports += usize::from(matches!(packet, Ok(Rtcp::ReceiverReport { .. })));
        }
    }
    (messages, reports, compounds)
}

#[test]
fn who_sends_a_voice_alone_is_told_less_often_and_reports_leave_with_that() {
    let mut alone = Publisher::new(OWN);
    alone.set_lines(&[audio_in()]);
    let (messages, reports, compounds) = told_about_a_voice(&mut alone, 20);
    assert!((72..=80).contains(&messages), "{messages} messages");
    assert!((19..=26).contains(&reports), "{reports} reports");
    assert_eq!(compounds, messages, "no datagram for a report alone");
    let (messages, ..) = told_about_a_voice(&mut publisher(), 20);
    assert!(messages > 150, "{messages} messages beside a picture");
}
