use std::time::Duration;

use super::*;
use crate::ids::{PeerId, TrackKey};
use crate::rtp::params::Codec;
use crate::signalling::ServerMessage;
use crate::stats::PeerStats;
use crate::worker::SourceType;

fn ann() -> PeerSnapshot {
    PeerSnapshot {
        id: PeerId(0xa1),
        name: "Ann".into(),
        connected: true,
        publisher_bandwidth: 900_000,
        consumer_bandwidth: 0,
        publish_limitation: "none".into(),
        voice_activity: Duration::from_millis(1500),
        stats: PeerStats {
            received: vec![ReceivedTrackStats {
                rid: String::new(),
                track: TrackKey(1),
                track_id: "mic".into(),
                stream_id: "s1".into(),
                kind: MediaKind::Audio,
                codec: Codec::Opus,
                packets_received: 50,
                packets_lost: 1,
                bytes_received: 4000,
                bitrate: 32_000,
                jitter_ms: 1.5,
            }],
            sent: vec![SentTrackStats {
                track: TrackKey(2),
                track_id: "cam".into(),
                stream_id: "s2".into(),
                kind: MediaKind::Video,
                codec: Codec::H264,
                packets_sent: 100,
                packets_lost: 2,
                fraction_lost: 0.5,
                bytes_sent: 100_000,
                bitrate: 800_000,
                retransmitted: 2,
                source: SourceType::Screen,
                layer: Some(0),
                best_layer: 0,
            }],
            estimate_bps: None,
            publish_limit_bps: None,
            bytes_ingress: 5000,
            bytes_egress: 110_000,
            round_trip_ms: Some(3.0),
        },
    }
}

const CLIENT: &str = r#"{"id":"00000000000000a1","name":"Ann","publisher_bandwidth":900000,"consumer_bandwidth":0,"current_bitrate":800000,"current_publish_limitation":"none","voice_activity_duration_ms":1500,"sent_track_stats":[{"id":"cam","stream_id":"s2","kind":"video","codec":"video/H264","packets_lost":2,"packets_sent":100,"fraction_lost":0.5,"bytes_sent":100000,"current_bitrate":800000,"source":"screen","quality":"high","max_quality":"high"}],"received_track_stats":[{"id":"mic","stream_id":"s1","rid":"","kind":"audio","codec":"audio/opus","current_bitrate":32000,"packets_lost":1,"packets_received":50,"bytes_received":4000}]}"#;

#[test]
fn track_stats() {
    let message = ServerMessage::TrackStats(Box::new((&ann()).into()));
    let golden = format!(r#"{{"status":true,"type":"track_stats","data":{CLIENT}}}"#);
    assert_eq!(message.to_json(), golden);
}

#[test]
fn the_stats_of_a_room() {
    let figures = RoomFigures::new(&RoomSnapshot { peers: vec![ann()] }, 77);
    let golden = format!(
        r#"{{"active_sessions":1,"clients_count":1,"bitrate_sent":800000,"bitrate_received":32000,"bytes_ingress":5000,"bytes_egress":110000,"received_tracks":{{"audio":1,"video":0}},"sent_tracks":{{"audio":0,"video":1}},"timestamp":77,"client_stats":{{"00000000000000a1":{CLIENT}}}}}"#
    );
    assert_eq!(
        serde_json::to_string(&figures).expect("no odd keys"),
        golden
    );
}

#[test]
fn the_quality_is_that_of_the_layer_which_flows() {
    let name = |layer, best_layer| {
        let mut peer = ann();
        peer.stats.sent[0].layer = layer;
        peer.stats.sent[0].best_layer = best_layer;
        let figures = ClientFigures::from(&peer);
        let sent = &figures.sent_track_stats[0];
        (sent.quality, sent.max_quality)
    };
    assert_eq!(name(Some(0), 2), ("low", "high"));
    assert_eq!(name(Some(1), 1), ("mid", "mid"));
    assert_eq!(name(Some(0), 0), ("high", "high"), "it has no other");
    assert_eq!(name(None, 2), ("none", "high"));
}

#[test]
fn the_layers_of_a_track_are_listed_by_their_rids_and_counted_once() {
    let mut peer = ann();
    let camera = ReceivedTrackStats {
        kind: MediaKind::Video,
        track: TrackKey(9),
        rid: "q".into(),
        ..peer.stats.received[0].clone()
    };
    let high = ReceivedTrackStats {
        rid: "f".into(),
        ..camera.clone()
    };
    peer.stats.received.extend([camera, high]);
    let figures = RoomFigures::new(&RoomSnapshot { peers: vec![peer] }, 1);
    let counts = figures.received_tracks;
    assert_eq!((counts.audio, counts.video), (1, 1));
    let client = figures.client_stats.values().next().expect("Ann");
    let rids = client.received_track_stats.iter().map(|t| t.rid.as_str());
    assert_eq!(rids.collect::<Vec<_>>(), ["", "q", "f"]);
}

#[test]
fn figures_that_are_not_finite_are_no_error() {
    let mut peer = ann();
    peer.stats.sent[0].fraction_lost = f32::NAN;
    let message = ServerMessage::TrackStats(Box::new((&peer).into()));
    assert!(message.to_json().contains(r#""fraction_lost":null"#));
}
