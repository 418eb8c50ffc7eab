use super::*;
use proptest::prelude::*;

const SENDER: Ssrc = Ssrc(0x0102_0304);
const MEDIA: Ssrc = Ssrc(0xfffe_fdfc);

fn only(bytes: &[u8]) -> Rtcp<'_> {
    let mut all = packets(bytes);
    let packet = all.next().expect("one").expect("well-formed");
    assert!(all.next().is_none());
    packet
}

#[test]
fn a_sender_report_with_its_description_is_read_back() {
    let info = write::SenderInfo {
        ssrc: MEDIA,
        ntp: Ntp(0x1122_3344_5566_7788),
        timestamp: 90_000,
        packets: 7,
        octets: 7000,
    };
    for cname in ["", "a", "ab", "abc", "abcd", &"x".repeat(300)] {
        let mut out = Vec::new();
        write::sender_report(&info, &mut out);
        write::description(MEDIA, cname, &mut out);
        assert_eq!(out.len() % 4, 0);
        let all: Vec<_> = packets(&out).collect::<Result<_, _>>().expect("own");
        assert!(matches!(
            all[..],
            [
                Rtcp::SenderReport {
                    ssrc: MEDIA,
                    ntp: Ntp(0x1122_3344_5566_7788),
                    timestamp: 90_000,
                    ..
                },
                Rtcp::Other { packet_type: 202 }
            ]
        ));
    }
}

#[test]
fn report_blocks_keep_the_sign_of_the_loss() {
    let block = |lost| ReportBlock {
        ssrc: MEDIA,
        fraction_lost: 128,
        cumulative_lost: lost,
        highest_seq: 0x0001_0002,
        jitter: 3,
        last_sr: 4,
        delay_since_last_sr: 5,
    };
    let mut out = Vec::new();
    write::receiver_report(SENDER, [block(-3), block(99)], &mut out);
    let Rtcp::ReceiverReport { blocks } = only(&out) else {
        panic!("not a receiver report");
    };
    assert_eq!(blocks.collect::<Vec<_>>(), [block(-3), block(99)]);

    out.clear();
    write::receiver_report(SENDER, [block(1 << 30)], &mut out);
    let Rtcp::ReceiverReport { mut blocks } = only(&out) else {
        panic!("not a receiver report");
    };
    assert_eq!(blocks.next().expect("one").cumulative_lost, 0x7f_ffff);
}

#[test]
fn keyframe_requests_name_their_source() {
    let mut out = Vec::new();
    write::pli(SENDER, MEDIA, &mut out);
    assert!(matches!(only(&out), Rtcp::Pli { media: MEDIA }));
    out.clear();
    write::fir(SENDER, MEDIA, 9, &mut out);
    let Rtcp::Fir { requests } = only(&out) else {
        panic!("not an intra request");
    };
    assert_eq!(requests.collect::<Vec<_>>(), [(MEDIA, 9)]);
    out.clear();
    write::bye(MEDIA, &mut out);
    assert!(matches!(only(&out), Rtcp::Bye { ssrc: Some(MEDIA) }));
}

#[test]
fn a_cut_compound_gives_what_is_whole_and_then_an_error() {
    let mut out = Vec::new();
    write::pli(SENDER, MEDIA, &mut out);
    write::pli(SENDER, MEDIA, &mut out);
    out.truncate(20);
    let all: Vec<_> = packets(&out).collect();
    assert!(matches!(all[0], Ok(Rtcp::Pli { media: MEDIA })));
    assert_eq!(all[1].err(), Some(Malformed { packet_type: 206 }));
    assert_eq!(all.len(), 2);
}

#[test]
fn what_says_that_more_follows_than_does_is_malformed() {
    let packet = |count: u8, kind: u8, body: &[u8]| {
        let words = (body.len() / 4) as u16;
        [&[0x80 | count, kind], &words.to_be_bytes()[..], body].concat()
    };
    let remb = |streams: u8| {
        let body = [&[7; 8], &b"REMB"[..], &[streams, 0, 0, 9, 0, 0, 0, 1]].concat();
        packet(15, 206, &body)
    };
    for wrong in [
        packet(2, 200, &[7; 24 + 24]),
        packet(31, 201, &[7; 4 + 24]),
        packet(2, 203, &[7; 4]),
        remb(2),
    ] {
        let packet_type = wrong[1];
        let read: Vec<_> = packets(&wrong).collect();
        assert!(
            matches!(read[..], [Err(Malformed { packet_type: found })] if found == packet_type)
        );
    }
    for fine in [
        packet(1, 200, &[7; 24 + 24]),
        packet(1, 201, &[7; 4 + 24]),
        packet(1, 203, &[7; 4]),
        packet(0, 203, &[]),
        remb(1),
    ] {
        assert!(packets(&fine).all(|packet| packet.is_ok()), "{fine:?}");
    }
}

#[test]
fn padding_is_not_read_as_content() {
    // A NACK of one pair, padded by one word.
    let out = [
        0xa1, 205, 0, 4, 1, 2, 3, 4, 0xff, 0xfe, 0xfd, 0xfc, 0, 9, 0, 0, 0, 0, 0, 4,
    ];
    let Rtcp::Nack { seqs, media } = only(&out) else {
        panic!("not a NACK");
    };
    assert_eq!(media, MEDIA);
    assert_eq!(seqs.collect::<Vec<_>>(), [9]);
}

#[test]
fn a_nack_stops_at_its_budget() {
    let seqs: Vec<u16> = (0..100).map(|n| n * 20).collect();
    let mut out = Vec::new();
    assert_eq!(write::nack(SENDER, MEDIA, &seqs, 40, &mut out), 7);
    assert_eq!(out.len(), 40);
    assert_eq!(write::nack(SENDER, MEDIA, &seqs, 12, &mut out), 0);
    assert_eq!(out.len(), 40);
}

proptest! {
    #[test]
    fn any_set_of_missing_packets_is_read_back(start in any::<u16>(), gaps in proptest::collection::vec(1u16..40, 1..60)) {
        let mut seq = start;
        let seqs: Vec<u16> = gaps.iter().map(|gap| { seq = seq.wrapping_add(*gap); seq }).collect();
        let mut out = Vec::new();
        prop_assert_eq!(write::nack(SENDER, MEDIA, &seqs, 1200, &mut out), seqs.len());
        let Rtcp::Nack { seqs: read, .. } = only(&out) else { panic!("not a NACK") };
        prop_assert_eq!(read.collect::<Vec<_>>(), seqs);
    }

    #[test]
    fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), packet_type in 199u8..208, count in 0u8..32, words in 0u16..30) {
        if bytes.len() >= 4 {
            bytes[0] = 0x80 | bytes[0] & 0x20 | count;
            bytes[1] = packet_type;
            bytes[2..4].copy_from_slice(&words.to_be_bytes());
        }
        for packet in packets(&bytes) {
            match packet {
                Ok(Rtcp::SenderReport { blocks, .. } | Rtcp::ReceiverReport { blocks }) => {
                    prop_assert!(blocks.count() <= 31);
                }
                Ok(Rtcp::Nack { seqs, .. }) => prop_assert!(seqs.count() <= 17 * 30),
                Ok(Rtcp::Fir { requests }) => prop_assert!(requests.count() <= 15),
                Ok(Rtcp::TransportWide(feedback)) => { feedback.packets().count(); }
                _ => {}
            }
        }
    }
}

#[test]
fn an_estimate_of_the_receiver_is_read_as_it_was_written() {
    for bps in [
        0,
        1,
        64_000,
        262_143,
        262_144,
        1_234_567,
        50_000_000,
        u64::MAX,
    ] {
        let mut out = Vec::new();
        write::remb(Ssrc(9), bps, &[MEDIA], &mut out);
        let Rtcp::Remb { bps: read } = only(&out) else {
            panic!("not an estimate")
        };
        assert!(
            read <= bps && bps - read <= bps >> 17,
            "{bps} became {read}"
        );
    }
}
