//! The figures that leave the media thread once a second.

use std::collections::HashMap;
use std::time::Instant;

use crate::ids::TrackKey;
use crate::rtp::params::MediaKind;
use crate::sfu::SenderStats;
use crate::stats::{PeerStats, SentTrackStats};
use crate::worker::SourceType;
use crate::worker::mixed::MIXED_STREAM;
use crate::worker::state::{Peer, Receiving, Track};

/// One peer's figures.
pub(super) fn peer_stats(
    now: Instant,
    peer: &mut Peer,
    tracks: &HashMap<TrackKey, Track>,
) -> PeerStats {
    let sent = peer.session.subscriber.stats(now);
    let counters = peer.session.counters();
    let mixed = matches!(peer.receiving, Receiving::Mixed(_));
    PeerStats {
        received: peer.session.publisher.stats(now),
        sent: sent
            .into_iter()
            .filter_map(|figures| sent_track(figures, tracks.get(&figures.track), mixed))
            .collect(),
        bytes_ingress: counters.bytes_in,
        bytes_egress: counters.bytes_out,
        round_trip_ms: peer
            .session
            .subscriber
            .round_trip()
            .map(|round_trip| round_trip.as_secs_f32() * 1e3),
    }
}

/// `None`: the track ended since.
fn sent_track(figures: SenderStats, track: Option<&Track>, mixed: bool) -> Option<SentTrackStats> {
    let (track_id, stream_id, source) = match track {
        Some(track) => (
            track.info.track_id.clone(),
            track.info.stream_id.clone(),
            track.source,
        ),
        None if mixed => (
            mixed_track_id(figures.kind),
            MIXED_STREAM.to_string(),
            SourceType::Media,
        ),
        None => return None,
    };
    Some(SentTrackStats {
        track: figures.track,
        track_id,
        stream_id,
        kind: figures.kind,
        codec: figures.codec,
        packets_sent: figures.packets_sent,
        packets_lost: figures.packets_lost,
        fraction_lost: figures.fraction_lost,
        bytes_sent: figures.bytes_sent,
        bitrate: figures.bitrate,
        retransmitted: figures.retransmitted,
        source,
    })
}

/// The track id of one of the mixed pair.
pub(super) fn mixed_track_id(kind: MediaKind) -> String {
    format!("{MIXED_STREAM}-{}", kind.as_str())
}
