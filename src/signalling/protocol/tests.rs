//! Golden JSON: the wire is frozen.

use serde_json::{Value, json};

use super::*;
use crate::ids::PeerId;
use crate::reach::IceServer;
use crate::room::{
    AudioMode, AvailableTrack, DeliveredTrack, LayoutRequest, Mode, ModeReason, PeerSummary,
    Quality, Request, TrackRef,
};
use crate::rtp::params::MediaKind;
use crate::worker::{LayoutKind, LayoutTile, LayoutWish, MixedLayout, Renegotiation};

const ANN: PeerId = PeerId(0xa1);
const BEN: PeerId = PeerId(0xb2);

#[track_caller]
fn golden(message: ServerMessage, json: &str) {
    assert_eq!(message.to_json(), json);
}

#[track_caller]
fn read(kind: &str, data: Value) -> Request {
    let text = json!({ "type": kind, "data": data }).to_string();
    match ClientMessage::parse(&text) {
        Ok(ClientMessage::Room(request)) => request,
        other => panic!("{text}: {other:?}"),
    }
}

#[track_caller]
fn refused(kind: &str, data: Value) -> String {
    let text = json!({ "type": kind, "data": data }).to_string();
    ClientMessage::parse(&text).expect_err(&text).to_string()
}

#[test]
fn clientid() {
    golden(
        ServerMessage::ClientId(ANN),
        r#"{"status":true,"type":"clientid","data":"00000000000000a1"}"#,
    );
}

#[test]
fn answer_offer_and_candidate_are_what_browsers_take_as_they_are() {
    golden(
        ServerMessage::Answer("v=0\r\n".into()),
        r#"{"status":true,"type":"answer","data":{"type":"answer","sdp":"v=0\r\n"}}"#,
    );
    golden(
        ServerMessage::Offer("v=0\r\n".into()),
        r#"{"status":true,"type":"offer","data":{"type":"offer","sdp":"v=0\r\n"}}"#,
    );
    golden(
        ServerMessage::Candidate {
            candidate: "candidate:1 1 UDP 1 10.0.0.1 7882 typ host".into(),
            mid: "0".into(),
            mline_index: 0,
        },
        r#"{"status":true,"type":"candidate","data":{"candidate":"candidate:1 1 UDP 1 10.0.0.1 7882 typ host","sdpMid":"0","sdpMLineIndex":0}}"#,
    );
}

#[test]
fn tracks_added() {
    golden(
        ServerMessage::TracksAdded(vec!["t1".into(), "t2".into()]),
        r#"{"status":true,"type":"tracks_added","data":{"t1":{"id":"t1"},"t2":{"id":"t2"}}}"#,
    );
}

#[test]
fn tracks_available() {
    golden(
        ServerMessage::TracksAvailable(vec![AvailableTrack {
            client_id: ANN,
            client_name: "Ann".into(),
            track_id: "t1".into(),
            stream_id: "s1".into(),
            source: SourceType::Screen,
            kind: MediaKind::Video,
            is_simulcast: false,
        }]),
        r#"{"status":true,"type":"tracks_available","data":{"t1":{"id":"t1","client_id":"00000000000000a1","client_name":"Ann","track_id":"t1","stream_id":"s1","source":"screen","source_type":"screen","kind":"video","is_simulcast":false}}}"#,
    );
}

#[test]
fn allow_renegotiation_is_a_bool_as_a_reply_and_ok_when_pushed() {
    for (reply, data) in [
        (Renegotiation::Allowed, "true"),
        (Renegotiation::Refused, "false"),
        (Renegotiation::Settled, r#""ok""#),
    ] {
        golden(
            ServerMessage::AllowRenegotiation(reply),
            &format!(r#"{{"status":true,"type":"allow_renegotiation","data":{data}}}"#),
        );
    }
}

#[test]
fn network_condition_is_an_integer() {
    for (stable, data) in [(false, 0), (true, 1)] {
        golden(
            ServerMessage::NetworkCondition { stable },
            &format!(r#"{{"status":true,"type":"network_condition","data":{data}}}"#),
        );
    }
}

#[test]
fn voice_detected_and_bitrate_adjusted() {
    golden(
        ServerMessage::VoiceDetected(VoiceDetected {
            ssrc: 5,
            track_id: "t1".into(),
            stream_id: "s1".into(),
            packets: vec![VoicePacket {
                sequence_no: 7,
                timestamp: 960,
                audio_level: 30,
                is_voice: true,
            }],
        }),
        r#"{"status":true,"type":"voice_detected","data":{"ssrc":5,"track_id":"t1","stream_id":"s1","packets":[{"sequenceNo":7,"timestamp":960,"audioLevel":30,"isVoice":true}]}}"#,
    );
    golden(
        ServerMessage::BitrateAdjusted {
            track_id: "t1".into(),
            bitrate: 500_000,
        },
        r#"{"status":true,"type":"bitrate_adjusted","data":{"track_id":"t1","bitrate":500000}}"#,
    );
}

#[test]
fn error_is_the_only_message_without_status() {
    golden(
        ServerMessage::Error("there is no message type \"x\"".into()),
        r#"{"status":false,"type":"error","data":"there is no message type \"x\""}"#,
    );
}

#[test]
fn the_messages_of_part_b() {
    let version = env!("CARGO_PKG_VERSION");
    golden(
        ServerMessage::Welcome(Welcome {
            client_id: ANN,
            room_id: "1111".into(),
            name: "Ann".into(),
            delivery: Delivery::Mixed,
            ice_servers: vec![],
            resume: Resumption {
                token: Some("T0ken".into()),
                resumed: true,
                sent: 17,
                received: 4,
            },
        }),
        &format!(
            r#"{{"status":true,"type":"welcome","data":{{"client_id":"00000000000000a1","room_id":"1111","name":"Ann","mode":"mcu","audio":"mixed","ice_servers":[],"resume_token":"T0ken","resumed":true,"sent":17,"received":4,"server":{{"version":"{version}"}}}}}}"#
        ),
    );
    golden(
        ServerMessage::Welcome(Welcome {
            client_id: ANN,
            room_id: "1111".into(),
            name: "Ann".into(),
            delivery: Delivery::Forward,
            ice_servers: vec![IceServer {
                urls: vec!["turn:a.example:3478?transport=udp".into()],
                username: Some("1:a1".into()),
                credential: Some("secret".into()),
            }],
            resume: Resumption::default(),
        }),
        &format!(
            r#"{{"status":true,"type":"welcome","data":{{"client_id":"00000000000000a1","room_id":"1111","name":"Ann","mode":"sfu","audio":"forwarded","ice_servers":[{{"urls":["turn:a.example:3478?transport=udp"],"username":"1:a1","credential":"secret"}}],"resume_token":null,"resumed":false,"sent":0,"received":0,"server":{{"version":"{version}"}}}}}}"#
        ),
    );
    for (delivery, mode, audio) in [
        (Delivery::Forward, "sfu", "forwarded"),
        (Delivery::MixedAudio, "sfu", "mixed"),
        (Delivery::Mixed, "mcu", "mixed"),
    ] {
        let reason = ModeReason::Requested;
        golden(
            ServerMessage::Mode { delivery, reason },
            &format!(
                r#"{{"status":true,"type":"mode","data":{{"mode":"{mode}","audio":"{audio}","reason":"requested"}}}}"#
            ),
        );
    }
    golden(
        ServerMessage::RoomPeers(
            vec![PeerSummary {
                client_id: BEN,
                name: "Ben".into(),
                speaking: true,
                muted: false,
            }]
            .into(),
        ),
        r#"{"status":true,"type":"room_peers","data":{"peers":[{"client_id":"00000000000000b2","name":"Ben","speaking":true,"muted":false}]}}"#,
    );
    golden(
        ServerMessage::Layout(MixedLayout {
            shown: LayoutWish::default(),
            canvas: (640, 360),
            tiles: vec![LayoutTile {
                peer: ANN,
                x: 0,
                y: 90,
                width: 320,
                height: 180,
            }],
        }),
        r#"{"status":true,"type":"layout","data":{"kind":"grid","canvas":{"width":640,"height":360},"tiles":[{"client_id":"00000000000000a1","x":0,"y":90,"width":320,"height":180}]}}"#,
    );
    golden(
        ServerMessage::Layout(MixedLayout {
            shown: LayoutWish {
                kind: LayoutKind::Pinned,
                pinned: Some(BEN),
            },
            canvas: (320, 180),
            tiles: vec![],
        }),
        r#"{"status":true,"type":"layout","data":{"kind":"pinned","pinned":"00000000000000b2","canvas":{"width":320,"height":180},"tiles":[]}}"#,
    );
    golden(
        ServerMessage::Chat {
            from: ANN,
            text: "hi".into(),
            at: 12,
        },
        r#"{"status":true,"type":"chat","data":{"text":"hi","from":"00000000000000a1","at":12}}"#,
    );
    golden(
        ServerMessage::ActiveSpeaker {
            client_id: Some(ANN),
        },
        r#"{"status":true,"type":"active_speaker","data":{"client_id":"00000000000000a1"}}"#,
    );
    golden(
        ServerMessage::ActiveSpeaker { client_id: None },
        r#"{"status":true,"type":"active_speaker","data":{"client_id":null}}"#,
    );
    golden(
        ServerMessage::Delivered(DeliveredTrack {
            mid: "3".into(),
            client_id: Some(ANN),
            track_id: Some("t1".into()),
            stream_id: Some("s1".into()),
        }),
        r#"{"status":true,"type":"delivered","data":{"mid":"3","client_id":"00000000000000a1","track_id":"t1","stream_id":"s1"}}"#,
    );
}

#[test]
fn descriptions_come_as_a_string_or_as_an_object() {
    for data in [
        json!("v=0\r\n"),
        json!({"type": "offer", "sdp": "v=0\r\n"}),
        json!({"sdp": "v=0\r\n", "extra": 1}),
    ] {
        assert_eq!(read("offer", data), Request::Offer("v=0\r\n".into()));
    }
    assert_eq!(
        read("answer", json!({"type": "answer", "sdp": "v=0"})),
        Request::Answer("v=0".into())
    );
    assert!(refused("offer", json!({"type": "answer", "sdp": "v=0"})).starts_with("offer:"));
    for data in [
        json!(null),
        json!(7),
        json!({"type": "offer"}),
        json!(""),
        json!([]),
    ] {
        refused("offer", data);
    }
}

#[test]
fn candidates_come_as_a_string_as_an_object_or_empty() {
    let line = "candidate:1 1 UDP 1 10.0.0.1 9 typ host";
    for data in [
        json!(line),
        json!({"candidate": line, "sdpMid": "0", "sdpMLineIndex": 0, "usernameFragment": "x"}),
    ] {
        assert_eq!(read("candidate", data), Request::Candidate(line.into()));
    }
    for data in [json!(""), json!(null), json!({"candidate": ""}), json!({})] {
        assert_eq!(read("candidate", data), Request::Candidate(String::new()));
    }
    for data in [
        json!(1),
        json!({"candidate": 1}),
        json!({"candidate": null}),
    ] {
        refused("candidate", data);
    }
}

#[test]
fn track_types_are_media_or_screen_and_beyond_part_a_music() {
    assert_eq!(
        read(
            "tracks_added",
            json!({"a": "media", "b": "screen", "c": "music"})
        ),
        Request::TrackTypes(vec![
            ("a".into(), SourceType::Media),
            ("b".into(), SourceType::Screen),
            ("c".into(), SourceType::Music)
        ])
    );
    assert_eq!(source_name(SourceType::Music), "media");
    for data in [
        json!({"a": "camera"}),
        json!({"a": 1}),
        json!("media"),
        json!(null),
    ] {
        refused("tracks_added", data);
    }
}

#[test]
fn subscriptions_ignore_unknown_keys() {
    assert_eq!(
        read(
            "subscribe_tracks",
            json!([{"client_id": "c", "track_id": "t", "source": "media", "more": {}}])
        ),
        Request::Subscribe(vec![TrackRef {
            client_id: "c".into(),
            track_id: "t".into()
        }])
    );
    assert_eq!(
        read("subscribe_tracks", json!([])),
        Request::Subscribe(Vec::new())
    );
    for data in [
        json!({}),
        json!([{"client_id": "c"}]),
        json!(["t"]),
        json!(null),
    ] {
        refused("subscribe_tracks", data);
    }
}

#[test]
fn qualities_have_coarse_and_fine_names() {
    let layer = |spatial, temporal| Request::SwitchQuality(Quality::Layer { spatial, temporal });
    for (name, request) in [
        ("none", Request::SwitchQuality(Quality::None)),
        ("low", layer(0, None)),
        ("mid", layer(1, None)),
        ("high", layer(2, None)),
        ("lowlow", layer(0, Some(0))),
        ("lowmid", layer(0, Some(1))),
        ("midlow", layer(1, Some(0))),
        ("midmid", layer(1, Some(1))),
        ("highlow", layer(2, Some(0))),
        ("highmid", layer(2, Some(1))),
    ] {
        assert_eq!(read("switch_quality", json!(name)), request, "{name}");
    }
    for data in [json!("best"), json!(""), json!(2), json!("lowlowlow")] {
        refused("switch_quality", data);
    }
}

#[test]
fn bandwidths_are_numbers_or_strings_of_digits() {
    for data in [json!(250_000), json!("250000"), json!(250_000.7)] {
        assert_eq!(
            read("set_bandwidth_limit", data),
            Request::ReceiveLimit(Some(250_000))
        );
    }
    assert_eq!(
        read("set_bandwidth_limit", json!(0)),
        Request::ReceiveLimit(None)
    );
    assert_eq!(
        read("update_bandwidth", json!(5)),
        Request::PublishBandwidth(5)
    );
    for data in [
        json!(-1),
        json!("x"),
        json!("-1"),
        json!(null),
        json!([]),
        json!(1e300),
    ] {
        refused("set_bandwidth_limit", data.clone());
        refused("update_bandwidth", data);
    }
}

#[test]
fn asking_to_renegotiate_needs_no_data() {
    let text = r#"{"type":"is_allow_renegotiation"}"#;
    assert_eq!(
        ClientMessage::parse(text),
        Ok(ClientMessage::Room(Request::AskRenegotiation))
    );
}

#[test]
fn what_clients_say_of_part_b() {
    for (name, mode) in [("sfu", Mode::Sfu), ("mcu", Mode::Mcu), ("auto", Mode::Auto)] {
        assert_eq!(read("switch_mode", json!(name)), Request::SwitchMode(mode));
    }
    for (name, audio) in [
        ("forwarded", AudioMode::Forwarded),
        ("mixed", AudioMode::Mixed),
    ] {
        let request = Request::SwitchAudio(audio);
        assert_eq!(read("switch_audio", json!(name)), request);
    }
    assert_eq!(
        read("layout", json!({"kind": "pinned", "pinned": "c"})),
        Request::Layout(LayoutRequest {
            kind: LayoutKind::Pinned,
            pinned: Some("c".into()),
        })
    );
    assert_eq!(
        read("mute", json!({"track_id": "t", "muted": true})),
        Request::Mute {
            track_id: "t".into(),
            muted: true
        }
    );
    let parse = |text| ClientMessage::parse(text).expect("understood");
    assert_eq!(
        parse(r#"{"type":"chat","data":{"text":"hi"}}"#),
        ClientMessage::Chat("hi".into())
    );
    assert_eq!(parse(r#"{"type":"leave"}"#), ClientMessage::Leave);
    assert_eq!(
        parse(r#"{"type":"avatar","data":"data:image/png;base64,aGk="}"#),
        ClientMessage::Avatar(Some(b"hi".to_vec()))
    );
    assert_eq!(
        parse(r#"{"type":"avatar","data":null}"#),
        ClientMessage::Avatar(None)
    );
    refused("avatar", json!("data:image/svg+xml;base64,aGk="));
    refused("switch_mode", json!("mesh"));
    for data in [json!("stereo"), json!(true), json!(null), json!({})] {
        refused("switch_audio", data);
    }
    refused("layout", json!({"kind": "circle"}));
    refused("layout", json!({"kind": "pinned", "pinned": 7}));
    refused("layout", json!("grid"));
    refused("mute", json!({"track_id": "t"}));
    refused("chat", json!({"text": "  "}));
    refused("chat", json!({"text": "x".repeat(MAX_CHAT + 1)}));
}

#[test]
fn unknown_keys_of_the_envelope_are_ignored_and_broken_ones_refused() {
    let text = r#"{"type":"leave","data":null,"id":5}"#;
    assert_eq!(ClientMessage::parse(text), Ok(ClientMessage::Leave));
    for text in [
        "",
        "null",
        "[]",
        "{}",
        "{",
        r#"{"type":5}"#,
        r#"{"data":1}"#,
        "\u{0}",
        "leave",
    ] {
        let error = ClientMessage::parse(text).expect_err(text);
        assert!(matches!(error, ProtocolError::Envelope(_)), "{text}");
    }
    let error = ClientMessage::parse(r#"{"type":"join"}"#).expect_err("unknown");
    assert_eq!(error, ProtocolError::UnknownType("join".into()));
}

#[test]
fn errors_repeat_at_most_a_little_of_what_the_client_said() {
    let long = "x".repeat(100_000);
    let texts = [
        format!(r#"{{"type":"{long}"}}"#),
        format!(r#"{{"type":"mute","data":"{long}"}}"#),
        format!(r#"{{"type":"offer","data":{{"type":"{long}","sdp":"v=0"}}}}"#),
    ];
    for text in texts {
        let error = ClientMessage::parse(&text)
            .expect_err("refused")
            .to_string();
        assert!(error.len() < 400, "{}", error.len());
    }
}

#[test]
fn deep_nesting_is_an_error_and_no_overflow() {
    let text = format!(r#"{{"type":"offer","data":{}}}"#, "[".repeat(100_000));
    ClientMessage::parse(&text).expect_err("refused");
}

/// Every client message in a valid form, spoilt in every way that a seeded generator thinks of.
#[test]
fn spoilt_messages_are_refused_or_understood_but_never_a_panic() {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    let seeds = [
        r#"{"type":"offer","data":{"type":"offer","sdp":"v=0\r\n"}}"#,
        r#"{"type":"candidate","data":{"candidate":"candidate:1","sdpMLineIndex":0}}"#,
        r#"{"type":"tracks_added","data":{"a":"media","b":"screen"}}"#,
        r#"{"type":"subscribe_tracks","data":[{"client_id":"c","track_id":"t"}]}"#,
        r#"{"type":"switch_quality","data":"highmid"}"#,
        r#"{"type":"set_bandwidth_limit","data":"250000"}"#,
        r#"{"type":"update_bandwidth","data":1e5}"#,
        r#"{"type":"mute","data":{"track_id":"ä","muted":true}}"#,
        r#"{"type":"switch_audio","data":"mixed"}"#,
        r#"{"type":"layout","data":{"kind":"grid"}}"#,
        r#"{"type":"avatar","data":"data:image/png;base64,aGk="}"#,
        r#"{"type":"chat","data":{"text":"hi"}}"#,
    ];
    let mut rng = StdRng::seed_from_u64(9);
    let mut understood = 0;
    for _ in 0..20_000 {
        let mut text: Vec<char> = seeds[rng.random_range(0..seeds.len())].chars().collect();
        for _ in 0..rng.random_range(0..4) {
            let place = rng.random_range(0..text.len());
            match rng.random_range(0..4) {
                0 => text[place] = rng.random(),
                1 => drop(text.remove(place)),
                2 => text.insert(place, ['"', '{', '}', '[', '0', '-', ',', ':'][place % 8]),
                _ => text.truncate(place.max(1) + 1),
            }
        }
        let text: String = text.into_iter().collect();
        understood += usize::from(ClientMessage::parse(&text).is_ok());
    }
    assert!((5_000..19_000).contains(&understood), "{understood}");
}
