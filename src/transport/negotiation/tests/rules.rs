use super::browser::Browser;
use super::*;
use crate::rtp::params::Encodings;

fn answer_text(outputs: &[Output]) -> &str {
    outputs
        .iter()
        .find_map(|output| match output {
            Output::Answer(sdp) => Some(sdp.as_str()),
            _ => None,
        })
        .expect("no answer")
}

fn offer_text(outputs: &[Output]) -> &str {
    outputs
        .iter()
        .find_map(|output| match output {
            Output::Offer(sdp) => Some(sdp.as_str()),
            _ => None,
        })
        .expect("no offer")
}

fn lines(outputs: &[Output]) -> (&[ReceiveLine], &[SendLine]) {
    outputs
        .iter()
        .rev()
        .find_map(|output| match output {
            Output::LinesChanged { receive, send } => Some((&receive[..], &send[..])),
            _ => None,
        })
        .expect("no change of lines")
}

fn m_lines(sdp: &str) -> Vec<&str> {
    sdp.lines().filter(|line| line.starts_with("m=")).collect()
}

#[test]
fn a_camera_of_chromium_is_received_as_constrained_baseline_h264_with_its_numbers() {
    let mut bench = Bench::new(true);
    bench.offer(CHROMIUM_PUBLISH).unwrap();
    let outputs = bench.drain();
    let sdp = answer_text(&outputs);
    assert_eq!(
        m_lines(sdp),
        [
            "m=audio 9 UDP/TLS/RTP/SAVPF 111 63",
            "m=video 9 UDP/TLS/RTP/SAVPF 108 109"
        ]
    );
    assert!(sdp.contains("a=group:BUNDLE 0 1\r\n"));
    assert!(sdp.contains("a=fmtp:111 minptime=10;useinbandfec=1;usedtx=1\r\n"));
    assert!(sdp.contains("a=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\n"));
    assert!(sdp.contains(
        "a=fmtp:108 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f;x-google-start-bitrate=1500\r\n"
    ));
    assert!(sdp.contains("a=extmap:13 urn:3gpp:video-orientation\r\n"));
    assert_eq!(sdp.matches("a=setup:passive\r\n").count(), 2);
    assert_eq!(sdp.matches("a=recvonly\r\n").count(), 2);
    assert_eq!(sdp.matches("a=candidate:1 1 udp").count(), 1);
    for absent in [
        "goog-remb",
        "toffset",
        "a=sendrecv",
        "a=msid:",
        "a=rid",
        "allow-mixed",
    ] {
        assert!(!sdp.contains(absent), "{absent}");
    }
    let (receive, send) = lines(&outputs);
    assert!(send.is_empty());
    assert_eq!(receive[0].track_id, "0b99569a-6526-46fe-8648-9f17b274fcdc");
    assert_eq!(receive[1].stream_id, "2e13b9a7-9d6c-400d-9ca0-cbef37ee4cd8");
    assert_eq!(receive[1].ssrcs.len(), 1);
    assert_eq!(receive[1].ssrcs[0].rtx, Some(Ssrc(1_742_222_236)));
    assert_eq!(receive[1].payloads.len(), 1);
    assert_eq!(receive[1].payloads[0].rtx, Some(109));
    assert_eq!(receive[1].extensions.transport_cc, Some(3));
    assert_eq!(receive[0].extensions.audio_level, Some(1));
    assert_eq!(bench.port.remote[0].ufrag, "3Fm/");
    assert_eq!(bench.port.remote[0].fingerprints[0].0, "sha-256");
}

#[test]
fn redundant_audio_is_answered_in_the_order_of_the_offer_and_offered_behind_the_plain_form() {
    let mut bench = Bench::new(true);
    let preferring = CHROMIUM_PUBLISH.replacen("SAVPF 111 63", "SAVPF 63 111", 1);
    assert_ne!(preferring, CHROMIUM_PUBLISH);
    bench.offer(&preferring).unwrap();
    let outputs = bench.drain();
    let sdp = answer_text(&outputs);
    assert_eq!(m_lines(sdp)[0], "m=audio 9 UDP/TLS/RTP/SAVPF 63 111");
    let (receive, _) = lines(&outputs);
    assert_eq!(receive[0].payloads[0].payload_type, 111);
    assert_eq!(receive[0].payloads[0].red, Some(63));
    bench.machine.add_sender(audio(7));
    bench.machine.allow_offers();
    let outputs = bench.drain();
    let offer = (outputs.iter()).find_map(|output| match output {
        Output::Offer(sdp) => Some(sdp.as_str()),
        _ => None,
    });
    let audio_lines = m_lines(offer.expect("an offer"));
    assert_eq!(audio_lines[0], "m=audio 9 UDP/TLS/RTP/SAVPF 63 111");
    assert_eq!(audio_lines[2], "m=audio 9 UDP/TLS/RTP/SAVPF 111 63");
}

#[test]
fn nack_for_opus_is_taken_from_a_publisher_and_not_promised_to_a_receiver() {
    let mut bench = Bench::new(true);
    let feedback = "a=rtcp-fb:111 transport-cc\r\n";
    assert!(CHROMIUM_PUBLISH.contains(feedback));
    let with_nack = format!("{feedback}a=rtcp-fb:111 nack\r\n");
    let offer = CHROMIUM_PUBLISH.replacen(feedback, &with_nack, 1);
    bench.offer(&offer).unwrap();
    let outputs = bench.drain();
    assert!(answer_text(&outputs).contains("a=rtcp-fb:111 nack\r\n"));
    assert!(lines(&outputs).0[0].payloads[0].nack);
    bench.machine.add_sender(audio(7));
    bench.machine.allow_offers();
    let outputs = bench.drain();
    let offer = outputs.iter().find_map(|output| match output {
        Output::Offer(sdp) => Some(sdp.as_str()),
        _ => None,
    });
    let delivered = offer.and_then(|sdp| sdp.split("m=audio").nth(2));
    assert!(!delivered.expect("a line of ours").contains("nack"));
}

#[test]
fn stereo_is_welcome_to_who_says_that_it_sends_stereo() {
    for (fmtp, stereo) in [
        ("minptime=10;useinbandfec=1;sprop-stereo=1", true),
        ("minptime=10;useinbandfec=1;stereo=1", false),
    ] {
        let mut bench = Bench::new(true);
        let plain = "a=fmtp:111 minptime=10;useinbandfec=1";
        assert!(CHROMIUM_PUBLISH.contains(plain));
        let offer = CHROMIUM_PUBLISH.replacen(plain, &format!("a=fmtp:111 {fmtp}"), 1);
        bench.offer(&offer).unwrap();
        let outputs = bench.drain();
        let ours = "a=fmtp:111 minptime=10;useinbandfec=1;usedtx=1;stereo=1\r\n";
        assert_eq!(answer_text(&outputs).contains(ours), stereo, "{fmtp}");
    }
}

#[test]
fn who_likes_to_receive_stereo_is_known_by_its_answer() {
    for stereo in [true, false] {
        let mut bench = Bench::new(false);
        bench.machine.add_sender(audio(1));
        let sdp = offer_text(&bench.drain()).to_owned();
        let answer = Browser::default().take_offer(&sdp).unwrap();
        let plain = "a=rtpmap:111 opus/48000/2\r\n";
        assert!(answer.contains(plain), "{answer}");
        let answer = match stereo {
            true => answer.replace(plain, &format!("{plain}a=fmtp:111 stereo=1\r\n")),
            false => answer,
        };
        bench.answer(&answer).unwrap();
        let outputs = bench.drain();
        let (_, send) = lines(&outputs);
        assert_eq!(send[0].payloads[0].stereo, stereo);
    }
}

/// A client whose sound is what telephones send; `listed` are its payload types, `maps` what it says of them.
fn telephone(listed: &str, maps: &str) -> String {
    let begin = CHROMIUM_PUBLISH.find("m=audio").unwrap();
    let end = CHROMIUM_PUBLISH.find("m=video").unwrap();
    let kept = CHROMIUM_PUBLISH[begin..end].lines().filter(|line| {
        let of_payload = ["a=rtpmap:", "a=fmtp:", "a=rtcp-fb:", "m=audio"];
        !of_payload
            .iter()
            .any(|attribute| line.starts_with(attribute))
    });
    let mut audio = format!("m=audio 9 UDP/TLS/RTP/SAVPF {listed}\r\n");
    for line in kept.chain(maps.lines()) {
        audio.push_str(line);
        audio.push_str("\r\n");
    }
    [&CHROMIUM_PUBLISH[..begin], &audio, &CHROMIUM_PUBLISH[end..]].concat()
}

#[test]
fn telephones_are_received_behind_opus_the_wider_band_first_and_without_a_map_too() {
    let maps = "a=rtpmap:0 PCMU/8000\na=rtpmap:8 PCMA/8000/1\na=rtpmap:9 G722/8000";
    let opus = format!("{maps}\na=rtpmap:111 opus/48000/2");
    for (listed, maps, taken) in [
        ("0 8", maps, "0"),
        ("8 0", "", "0"),
        ("8", "", "8"),
        ("0 8 9", maps, "9"),
        ("0 9 111", &opus, "111"),
        (
            "13 0 126",
            "a=rtpmap:13 CN/8000\na=rtpmap:126 telephone-event/8000",
            "0",
        ),
    ] {
        let mut bench = Bench::new(true);
        bench.offer(&telephone(listed, maps)).unwrap();
        let outputs = bench.drain();
        let answer = answer_text(&outputs);
        let line = format!("m=audio 9 UDP/TLS/RTP/SAVPF {taken}");
        assert_eq!(m_lines(answer)[0], line, "{listed}");
        let (receive, _) = lines(&outputs);
        assert_eq!(receive[0].payloads[0].payload_type.to_string(), taken);
    }
    // Another clock is another thing.
    let mut bench = Bench::new(true);
    let wrong = telephone("100", "a=rtpmap:100 PCMU/16000");
    bench.offer(&wrong).unwrap();
    let outputs = bench.drain();
    assert!(m_lines(answer_text(&outputs))[0].starts_with("m=audio 0 "));
}

#[test]
fn the_sound_of_a_telephone_is_offered_and_who_cannot_decode_it_is_told_so() {
    for decodes in [true, false] {
        let mut bench = Bench::new(false);
        bench.machine.add_sender(SenderSpec {
            codec: Codec::Pcma,
            ..audio(1)
        });
        let sdp = offer_text(&bench.drain()).to_owned();
        assert!(sdp.contains("m=audio 9 UDP/TLS/RTP/SAVPF 8\r\n"), "{sdp}");
        assert!(sdp.contains("a=rtpmap:8 PCMA/8000\r\n"), "{sdp}");
        let mut answer = Browser::default().take_offer(&sdp).unwrap();
        if !decodes {
            assert!(answer.contains("PCMA/8000"));
            answer = answer.replace("PCMA/8000", "X-PCMA/8000");
        }
        bench.answer(&answer).unwrap();
        let outputs = bench.drain();
        let refused = outputs.contains(&Output::SenderRefused {
            sender: SenderId(1),
            reason: "the client cannot decode PCMA".into(),
        });
        assert_eq!(refused, !decodes, "{outputs:?}");
        if decodes {
            let (_, send) = lines(&outputs);
            assert_eq!(send[0].payloads[0].codec, Codec::Pcma);
        }
    }
}

#[test]
fn a_camera_of_firefox_without_h264_is_received_as_vp8_with_its_ids_without_braces() {
    let mut bench = Bench::new(true);
    bench.offer(FIREFOX_PUBLISH).unwrap();
    let outputs = bench.drain();
    assert_eq!(
        m_lines(answer_text(&outputs)),
        [
            "m=audio 9 UDP/TLS/RTP/SAVPF 109",
            "m=video 9 UDP/TLS/RTP/SAVPF 120 124"
        ]
    );
    let (receive, _) = lines(&outputs);
    assert_eq!(receive[1].payloads[0].codec, Codec::Vp8);
    assert_eq!(receive[1].track_id.len(), 36);
    assert_eq!(receive[0].stream_id, receive[1].stream_id);
    assert!(receive[1].ssrcs[0].rtx.is_some());
}

#[test]
fn the_rids_of_firefox_are_taken_and_the_streams_that_it_lists_are_not() {
    let mut bench = Bench::new(true);
    bench.offer(FIREFOX_SIMULCAST).unwrap();
    let outputs = bench.drain();
    let sdp = answer_text(&outputs);
    assert!(sdp.contains("a=simulcast:recv a;b\r\n"));
    // RFC 8285, section 5: what is sent only is received only.
    assert!(sdp.contains("a=extmap:9/recvonly urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n"));
    let (receive, _) = lines(&outputs);
    assert_eq!(
        receive[0].encodings,
        Encodings::Rids(vec!["a".into(), "b".into()])
    );
    assert!(receive[0].ssrcs.is_empty());
    assert_eq!(receive[0].payloads[0].codec, Codec::Vp8);
    assert_eq!(receive[0].extensions.repaired_rid, Some(10));
}

#[test]
fn simulcast_is_accepted_and_a_data_channel_of_the_client_too() {
    let mut bench = Bench::new(true);
    bench.offer(CHROMIUM_SIMULCAST).unwrap();
    let outputs = bench.drain();
    let sdp = answer_text(&outputs);
    for rid in ["a", "b", "c"] {
        assert!(sdp.contains(&format!("a=rid:{rid} recv\r\n")));
    }
    assert!(sdp.contains("a=simulcast:recv a;b;c\r\n"));
    assert!(sdp.contains("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"));
    let (receive, _) = lines(&outputs);
    assert_eq!(receive.len(), 1);
    assert_eq!(receive[0].streams(), 3);
    assert!(receive[0].ssrcs.is_empty());
    assert_eq!(receive[0].extensions.rid, Some(10));
    assert_eq!(receive[0].extensions.repaired_rid, Some(11));
    assert_eq!(bench.machine.channel().unwrap().max_message_size, 262_144);
    // An offer of ours says it again, or the client would go on with one layer.
    bench.machine.allow_offers();
    bench.machine.add_sender(video(1));
    let outputs = bench.drain();
    let offer = offer_text(&outputs);
    assert_eq!(offer.matches("a=simulcast:recv a;b;c\r\n").count(), 1);
}

#[test]
fn a_simulcast_that_is_written_into_the_offer_is_taken_by_its_ssrcs() {
    let section = CHROMIUM_PUBLISH.find("m=video").expect("has a camera");
    let (before, camera) = CHROMIUM_PUBLISH.split_at(section);
    let at = camera.find("a=ssrc-group:FID").expect("has a stream");
    let end = camera.rfind("a=ssrc:").expect("has a stream");
    let end = end + camera[end..].find('\n').expect("ends") + 1;
    let mut layers = String::from("a=ssrc-group:SIM 11 22 33 44\r\n");
    for ssrc in [11, 22, 33, 44] {
        let rtx = ssrc + 1;
        layers += &format!("a=ssrc-group:FID {ssrc} {rtx}\r\na=ssrc:{ssrc} cname:x\r\n");
        layers += &format!("a=ssrc:{rtx} cname:x\r\n");
    }
    let sdp = format!("{before}{}{layers}{}", &camera[..at], &camera[end..]);
    let mut bench = Bench::new(true);
    bench.offer(&sdp).unwrap();
    let outputs = bench.drain();
    let (receive, _) = lines(&outputs);
    assert_eq!(receive[1].encodings, Encodings::Ssrcs);
    let pairs = receive[1].ssrcs.iter();
    let pairs: Vec<_> = pairs.map(|a| (a.primary.0, a.rtx.map(|s| s.0))).collect();
    assert_eq!(pairs, [(11, Some(12)), (22, Some(23)), (33, Some(34))]);
    assert!(!answer_text(&outputs).contains("a=rid"));
}

#[test]
fn rids_are_paused_have_alternatives_and_may_be_nonsense() {
    let rids = |line: &str| {
        let sdp = CHROMIUM_SIMULCAST.replace("a=simulcast:send a;b;c", line);
        let mut bench = Bench::new(true);
        bench.offer(&sdp).unwrap();
        let outputs = bench.drain();
        let (receive, _) = lines(&outputs);
        match receive[0].encodings.clone() {
            Encodings::Rids(rids) => rids.concat(),
            _ => String::new(),
        }
    };
    assert_eq!(rids("a=simulcast:recv x send ~c;b,a"), "cb");
    assert_eq!(rids("a=simulcast:send a;a;;x;b b"), "ab");
    assert_eq!(rids("a=simulcast:recv a;b"), "");
    assert_eq!(rids("a=simulcast:send"), "");
}

#[test]
fn nothing_is_delivered_on_a_line_that_the_client_made_for_sending_too() {
    let mut bench = Bench::new(true);
    bench.machine.add_sender(video(1));
    bench.offer(CHROMIUM_PUBLISH).unwrap();
    let outputs = bench.drain();
    assert!(!answer_text(&outputs).contains("sendrecv"));
    assert!(lines(&outputs).1.is_empty());
}

#[test]
fn a_line_that_the_client_made_for_receiving_is_used_and_named_by_its_mid() {
    let mut bench = Bench::new(true);
    bench.machine.add_sender(video(1));
    bench.offer(CHROMIUM_RECVONLY).unwrap();
    let outputs = bench.drain();
    let sdp = answer_text(&outputs);
    assert!(sdp.contains("a=msid:stream1 track1\r\n"));
    assert!(sdp.contains("a=ssrc-group:FID 1001 2001\r\n"));
    let (receive, send) = lines(&outputs);
    assert!(receive.is_empty());
    assert_eq!(send.len(), 1);
    assert_eq!(send[0].mid.as_str(), "1");
    assert_eq!(send[0].payloads[0].codec, Codec::H264);
    // The audio line is vacant: it says so, and is filled by an offer later.
    assert_eq!(sdp.matches("a=inactive\r\n").count(), 1);
    bench.machine.allow_offers();
    bench.machine.add_sender(audio(2));
    let outputs = bench.drain();
    assert_eq!(m_lines(offer_text(&outputs)).len(), 2);
    assert!(offer_text(&outputs).contains("a=msid:stream2 track2\r\n"));
}

#[test]
fn offers_wait_for_the_first_connection_and_bring_the_data_channel() {
    let mut bench = Bench::new(true);
    bench.machine.want_channel();
    bench.machine.add_sender(video(1));
    assert_eq!(bench.poll(), None);
    bench.offer(CHROMIUM_PUBLISH).unwrap();
    let outputs = bench.drain();
    assert!(!outputs.iter().any(|o| matches!(o, Output::Offer(_))));
    bench.machine.allow_offers();
    let outputs = bench.drain();
    let sdp = offer_text(&outputs);
    let lines = m_lines(sdp);
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[2], "m=application 9 UDP/DTLS/SCTP webrtc-datachannel");
    // The client's numbers for this codec, and only this codec.
    assert_eq!(lines[3], "m=video 9 UDP/TLS/RTP/SAVPF 108 109");
    assert!(sdp.contains("a=setup:actpass\r\n") && !sdp.contains("a=setup:passive"));
    assert!(sdp.contains("a=msid:stream1 track1\r\n"));
}

#[test]
fn a_server_that_offers_first_puts_the_data_channel_first_and_learns_the_answer() {
    let mut bench = Bench::new(false);
    bench.machine.want_channel();
    bench.machine.add_sender(video(1));
    bench.machine.add_sender(audio(2));
    let outputs = bench.drain();
    let sdp = offer_text(&outputs).to_owned();
    assert!(m_lines(&sdp)[0].starts_with("m=application"));
    let mut browser = Browser::default();
    let answer = browser.take_offer(&sdp).unwrap();
    bench.answer(&answer).unwrap();
    let outputs = bench.drain();
    let (receive, send) = lines(&outputs);
    assert!(receive.is_empty());
    assert_eq!(send.iter().map(|s| s.sender).collect::<Vec<_>>(), [1, 2]);
    assert!(bench.machine.channel().is_some());
    assert_eq!(
        bench.answer(&answer),
        Err(NegotiationError::AnswerWithoutOffer)
    );
}

#[test]
fn a_client_that_answers_passive_is_refused_and_the_offer_stays_out() {
    let mut bench = Bench::new(false);
    bench.machine.add_sender(audio(1));
    let sdp = offer_text(&bench.drain()).to_owned();
    let answer = Browser::default().take_offer(&sdp).unwrap();
    let passive = answer.replace("a=setup:active", "a=setup:passive");
    assert_eq!(bench.answer(&passive), Err(NegotiationError::Setup));
    assert_eq!(bench.answer(&answer), Ok(()));
}

#[test]
fn a_client_without_the_codec_is_told_and_the_sender_is_gone() {
    let mut bench = Bench::new(false);
    bench.machine.add_sender(video(1));
    bench.machine.add_sender(audio(2));
    let sdp = offer_text(&bench.drain()).to_owned();
    let mut browser = Browser {
        no_h264: true,
        ..Browser::default()
    };
    let answer = browser.take_offer(&sdp).unwrap();
    bench.answer(&answer).unwrap();
    let outputs = bench.drain();
    assert_eq!(
        outputs[0],
        Output::SenderRefused {
            sender: SenderId(1),
            reason: "the client cannot decode H264".into()
        }
    );
    assert_eq!(lines(&outputs).1.len(), 1);
    assert!(!outputs.iter().any(|o| matches!(o, Output::Offer(_))));
}

#[test]
fn a_hundred_joins_and_leaves_do_not_grow_the_description() {
    let mut bench = Bench::new(true);
    let mut browser = Browser::default();
    browser.add_track(MediaKind::Audio);
    browser.add_track(MediaKind::Video);
    let offer = browser.make_offer();
    bench.offer(&offer).unwrap();
    browser.take_answer(answer_text(&bench.drain())).unwrap();
    bench.machine.allow_offers();
    let mut mids = std::collections::HashSet::new();
    for round in 0..100 {
        bench.machine.add_sender(audio(2 * round));
        bench.machine.add_sender(video(2 * round + 1));
        for remove in [false, true] {
            if remove {
                bench.machine.remove_sender(SenderId(2 * round));
                bench.machine.remove_sender(SenderId(2 * round + 1));
            }
            let sdp = offer_text(&bench.drain()).to_owned();
            assert!(m_lines(&sdp).len() <= 4);
            let answer = browser.take_offer(&sdp).unwrap();
            bench.answer(&answer).unwrap();
        }
        mids.extend(browser.slots.iter().map(|slot| slot.mid.clone()));
    }
    assert_eq!(mids.len(), 2 + 200);
}

#[test]
fn a_dedicated_line_falls_silent_and_is_taken_up_again() {
    let mut bench = Bench::new(false);
    let mut browser = Browser::default();
    let mixed = |id| SenderSpec {
        dedicated: true,
        ..video(id)
    };
    let mut exchange = |bench: &mut Bench| {
        let sdp = offer_text(&bench.drain()).to_owned();
        let answer = browser.take_offer(&sdp).unwrap();
        bench.answer(&answer).unwrap();
        sdp
    };
    bench.machine.add_sender(mixed(1));
    exchange(&mut bench);
    bench.machine.remove_sender(SenderId(1));
    bench.machine.add_sender(mixed(2));
    let silent = exchange(&mut bench);
    assert!(silent.contains("a=inactive") && m_lines(&silent).len() == 1);
    let again = exchange(&mut bench);
    assert!(again.contains("a=msid:stream2 track2") && again.contains("a=mid:s0"));
    assert_eq!(m_lines(&again).len(), 1);
}

#[test]
fn a_client_that_may_offer_is_not_disturbed_for_ten_seconds() {
    let mut bench = Bench::new(false);
    assert!(bench.machine.ask_renegotiation(bench.now));
    bench.machine.add_sender(audio(1));
    assert_eq!(bench.poll(), None);
    bench.pass(HOLD - Duration::from_millis(1));
    assert_eq!(bench.poll(), None);
    assert_eq!(
        bench.machine.poll_timeout(),
        Some(bench.now + Duration::from_millis(1))
    );
    bench.pass(Duration::from_millis(1));
    let sdp = offer_text(&bench.drain()).to_owned();
    assert!(!bench.machine.ask_renegotiation(bench.now));
    bench
        .answer(&Browser::default().take_offer(&sdp).unwrap())
        .unwrap();
    assert!(bench.drain().contains(&Output::RenegotiationSettled));
    assert!(bench.machine.ask_renegotiation(bench.now));
}

#[test]
fn an_offer_without_an_answer_is_taken_back_and_made_again_when_something_changes() {
    let mut bench = Bench::new(false);
    bench.machine.add_sender(audio(1));
    let first = offer_text(&bench.drain()).to_owned();
    assert!(!bench.machine.ask_renegotiation(bench.now));
    bench.pass(OFFER_TIMEOUT);
    assert_eq!(bench.drain(), [Output::RenegotiationSettled]);
    assert_eq!(bench.machine.poll_timeout(), None);
    bench.machine.add_sender(audio(2));
    let second = offer_text(&bench.drain()).to_owned();
    assert_eq!(m_lines(&second).len(), 2);
    // The client was only slow: its answer to the first offer counts, and the rest is offered on top.
    let mut browser = Browser::default();
    let late = browser.take_offer(&first).unwrap();
    bench.answer(&late).unwrap();
    assert_eq!(lines(&bench.drain()).1.len(), 1);
    bench.pass(CROSSED_QUIET);
    let rest = offer_text(&bench.drain()).to_owned();
    bench.answer(&browser.take_offer(&rest).unwrap()).unwrap();
    assert_eq!(lines(&bench.drain()).1.len(), 2);
}

/// The server's offer and the client's are both on their way.
fn crossing() -> (Bench, Browser, String) {
    let mut bench = Bench::new(true);
    let mut browser = Browser::default();
    browser.add_track(MediaKind::Audio);
    let offer = browser.make_offer();
    bench.offer(&offer).unwrap();
    browser.take_answer(answer_text(&bench.drain())).unwrap();
    bench.machine.allow_offers();
    bench.machine.add_sender(audio(1));
    let ours = offer_text(&bench.drain()).to_owned();
    browser.add_track(MediaKind::Video);
    let theirs = browser.make_offer();
    bench.offer(&theirs).unwrap();
    (bench, browser, ours)
}

#[test]
fn a_client_that_ignores_our_offer_gets_its_answer_and_a_fresh_offer_later() {
    let (mut bench, mut browser, _) = crossing();
    let outputs = bench.drain();
    assert!(!outputs.iter().any(|o| matches!(o, Output::Offer(_))));
    browser.take_answer(answer_text(&outputs)).unwrap();
    bench.pass(CROSSED_QUIET);
    let again = offer_text(&bench.drain()).to_owned();
    assert_eq!(m_lines(&again).len(), 3);
    bench.answer(&browser.take_offer(&again).unwrap()).unwrap();
    assert_eq!(lines(&bench.drain()).1.len(), 1);
}

#[test]
fn a_client_that_takes_its_offer_back_too_makes_ours_stand() {
    let (mut bench, mut browser, ours) = crossing();
    let late = answer_text(&bench.drain()).to_owned();
    let answer = browser.take_offer(&ours).unwrap();
    assert!(browser.take_answer(&late).is_err());
    bench.answer(&answer).unwrap();
    let outputs = bench.drain();
    let (receive, send) = lines(&outputs);
    assert_eq!((receive.len(), send.len()), (1, 1));
    // The client's wish is not lost: it offers again, on top of ours.
    assert_eq!(bench.poll(), None);
    bench.offer(&browser.make_offer()).unwrap();
    let outputs = bench.drain();
    browser.take_answer(answer_text(&outputs)).unwrap();
    assert_eq!(lines(&outputs).0.len(), 2);
}

#[test]
fn a_late_answer_to_the_crossed_offer_wins_over_the_fresh_one() {
    let (mut bench, mut browser, ours) = crossing();
    bench.drain();
    bench.pass(CROSSED_QUIET);
    let fresh = offer_text(&bench.drain()).to_owned();
    let answer = browser.take_offer(&ours).unwrap();
    assert!(browser.take_offer(&fresh).is_err());
    bench.answer(&answer).unwrap();
    assert_eq!(lines(&bench.drain()).1.len(), 1);
}

#[test]
fn a_restart_of_ice_reaches_the_transport_before_the_answer_is_written() {
    let mut bench = Bench::new(true);
    let mut browser = Browser::default();
    browser.add_track(MediaKind::Audio);
    bench.offer(&browser.make_offer()).unwrap();
    browser.take_answer(answer_text(&bench.drain())).unwrap();
    browser.restarts = 1;
    bench.offer(&browser.make_offer()).unwrap();
    let ufrags: Vec<_> = bench.port.remote.iter().map(|r| r.ufrag.as_str()).collect();
    assert_eq!(ufrags, ["u0000", "u0001"]);
}

#[test]
fn our_restart_of_ice_is_an_offer_of_the_same_lines_and_no_answer_speaks_of_it() {
    let mut bench = Bench::new(true);
    let mut browser = Browser::default();
    browser.add_track(MediaKind::Audio);
    bench.offer(&browser.make_offer()).unwrap();
    browser.take_answer(answer_text(&bench.drain())).unwrap();
    bench.machine.allow_offers();
    bench.machine.add_sender(video(1));
    let sdp = offer_text(&bench.drain()).to_owned();
    bench.answer(&browser.take_offer(&sdp).unwrap()).unwrap();
    bench.drain();

    bench.port.restarts = true;
    bench.machine.restate();
    let restart = offer_text(&bench.drain()).to_owned();
    assert!(restart.contains("a=ice-ufrag:next"), "{restart}");
    assert_eq!(m_lines(&restart), m_lines(&sdp));
    // It crosses an offer of the client: that is answered with what holds until the restart is agreed.
    browser.add_track(MediaKind::Audio);
    bench.offer(&browser.make_offer()).unwrap();
    let outputs = bench.drain();
    let answer = answer_text(&outputs);
    assert!(answer.contains("a=ice-ufrag:serv"), "{answer}");
    browser.take_answer(answer).unwrap();
    bench.pass(CROSSED_QUIET);
    let again = offer_text(&bench.drain()).to_owned();
    assert!(again.contains("a=ice-ufrag:next"), "{again}");
    bench.answer(&browser.take_offer(&again).unwrap()).unwrap();
    bench.pass(CROSSED_QUIET);
    assert!(bench.drain().iter().all(|o| !matches!(o, Output::Offer(_))));
}

#[test]
fn an_offer_that_is_out_is_told_once_more_to_a_client_that_may_have_missed_it() {
    let mut bench = Bench::new(false);
    let mut browser = Browser::default();
    bench.machine.repeat_offer();
    bench.machine.add_sender(video(1));
    let sdp = offer_text(&bench.drain()).to_owned();
    let answer = browser.take_offer(&sdp).unwrap();
    bench.machine.repeat_offer();
    let again = offer_text(&bench.drain()).to_owned();
    assert_eq!(m_lines(&again), m_lines(&sdp));
    bench.answer(&answer).unwrap();
    assert_eq!(lines(&bench.drain()).1.len(), 1);
    bench.machine.repeat_offer();
    assert_eq!(bench.drain(), [], "nothing is out");
}

#[test]
fn a_client_line_that_takes_over_ours_is_received_and_still_sent_on() {
    let mut bench = Bench::new(false);
    let mut browser = Browser::default();
    bench.machine.add_sender(video(1));
    let sdp = offer_text(&bench.drain()).to_owned();
    bench.answer(&browser.take_offer(&sdp).unwrap()).unwrap();
    bench.drain();
    browser.add_track(MediaKind::Video);
    bench.offer(&browser.make_offer()).unwrap();
    let outputs = bench.drain();
    browser.take_answer(answer_text(&outputs)).unwrap();
    let (receive, send) = lines(&outputs);
    assert_eq!((receive.len(), send.len()), (1, 1));
    // Without its sender the line lives on for the client's track.
    bench.machine.remove_sender(SenderId(1));
    let outputs = bench.drain();
    let sdp = offer_text(&outputs);
    assert!(sdp.contains("a=recvonly") && !sdp.contains("m=video 0"));
    bench.answer(&browser.take_offer(sdp).unwrap()).unwrap();
    assert_eq!(
        bench.machine.session.flows(&bench.machine.senders).0.len(),
        1
    );
}

#[test]
fn bad_descriptions_are_refused_with_a_sentence_and_change_nothing() {
    let mut bench = Bench::new(true);
    bench.offer(CHROMIUM_PUBLISH).unwrap();
    bench.drain();
    let before = format!("{:?}", bench.machine.session);
    let good = CHROMIUM_PUBLISH;
    let cases = [
        (String::new(), "this is not a session description"),
        ("hello".to_owned(), "this is not a session description"),
        (
            "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n".to_owned(),
            "has no m-lines",
        ),
        ("x".repeat(300_000), "is too long"),
        (
            good.replace("a=group:BUNDLE 0 1\r\n", ""),
            "does not bundle",
        ),
        (
            good.replace("a=mid:1", "a=mid:0"),
            "m-line 1 has no usable a=mid",
        ),
        (
            good.replace("a=ice-pwd:", "a=ice-pwx:"),
            "no ICE credentials",
        ),
        (
            good.replace("a=fingerprint:", "a=x:"),
            "no certificate fingerprint",
        ),
        (good.replace("actpass", "passive"), "active DTLS role"),
        (
            good.replace("a=msid-semantic", "a=ice-lite\r\na=x"),
            "ICE-lite",
        ),
        (
            format!("{good}{}", "m=audio 0 RTP/SAVPF 0\r\n".repeat(255)),
            "257 m-lines are too many: 256 are allowed",
        ),
        (
            format!("{}nonsense", "m=audio\r\n".repeat(1000)),
            "1000 m-lines are too many: 256 are allowed",
        ),
    ];
    for (sdp, sentence) in cases {
        let error = bench.offer(&sdp).unwrap_err().to_string();
        assert!(error.contains(sentence), "{error}");
        assert!(error.len() < 300);
    }
    bench.port.refuses = true;
    assert!(matches!(
        bench.offer(good),
        Err(NegotiationError::Transport(_))
    ));
    assert_eq!(format!("{:?}", bench.machine.session), before);
    assert_eq!(bench.poll(), None);
}

#[test]
fn a_line_without_rtcp_mux_or_outside_the_bundle_is_rejected_alone() {
    for broken in [
        CHROMIUM_PUBLISH.replace("a=group:BUNDLE 0 1", "a=group:BUNDLE 0"),
        {
            let (audio, video) = CHROMIUM_PUBLISH.split_once("m=video").unwrap();
            format!("{audio}m=video{}", video.replace("a=rtcp-mux\r\n", ""))
        },
    ] {
        let mut bench = Bench::new(true);
        bench.offer(&broken).unwrap();
        let outputs = bench.drain();
        assert_eq!(
            m_lines(answer_text(&outputs))[1],
            "m=video 0 UDP/TLS/RTP/SAVPF 0"
        );
        assert!(answer_text(&outputs).contains("a=group:BUNDLE 0\r\n"));
        assert_eq!(lines(&outputs).0.len(), 1);
    }
}

#[test]
fn a_track_without_a_name_gets_one_and_keeps_it() {
    let mut bench = Bench::new(true);
    let nameless: String = CHROMIUM_PUBLISH
        .lines()
        .filter(|line| !line.contains("msid:"))
        .map(|line| format!("{line}\r\n"))
        .collect();
    bench.offer(&nameless).unwrap();
    let outputs = bench.drain();
    let first = lines(&outputs).0.to_vec();
    assert_eq!(first[0].track_id.len(), 32);
    assert_ne!(first[0].track_id, first[1].track_id);
    bench.offer(&nameless).unwrap();
    let outputs = bench.drain();
    assert!(
        matches!(outputs[..], [Output::Answer(_)]),
        "nothing changes"
    );
}

#[test]
fn ids_of_publishers_cannot_write_lines_into_the_descriptions_of_others() {
    let mut bench = Bench::new(false);
    bench.machine.add_sender(SenderSpec {
        stream_id: "{a b}\r\na=evil".into(),
        ..audio(1)
    });
    let outputs = bench.drain();
    assert!(offer_text(&outputs).contains("a=msid:{ab}aevil track1\r\n"));
}
