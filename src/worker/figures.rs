//! The figures that leave the media thread: of each peer once a second, of the whole worker when it is asked.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rustc_hash::FxHashMap;

use crate::ids::TrackKey;
use crate::mcu::audio::{AUDIO_DROPS, AudioCounters};
use crate::mcu::ladder::Ladder;
use crate::mcu::video::{DECODE_DROPS, Load, VideoStats};
use crate::rtp::params::MediaKind;
use crate::sfu::{DropCounters, Layer, SenderStats};
use crate::stats::{PeerStats, SentTrackStats};
use crate::transport::Drops;
use crate::worker::SourceType;
use crate::worker::bandwidth::BandwidthCounters;
use crate::worker::mixed::MIXED_STREAM;
use crate::worker::session::{Session, SessionCounters};
use crate::worker::socket::SocketCounters;
use crate::worker::state::{Peer, Track};
use crate::worker::tcp::StreamCounters;
use crate::worker::thread::{Worker, WorkerCounters};

/// What one worker did since its start, sessions and rooms that are gone included.
#[derive(Clone, Debug, Default)]
pub struct WorkerFigures {
    /// Peers that it has now.
    pub peers: usize,
    /// Rooms that are mixed now.
    pub mixed_rooms: usize,
    /// Its UDP port.
    pub socket: SocketCounters,
    /// Its TCP connections.
    pub streams: StreamCounters,
    /// Datagrams that reached no session.
    pub worker: WorkerCounters,
    /// What sessions refused.
    pub sessions: SessionCounters,
    /// What their transports threw away: STUN, DTLS, SCTP.
    pub transport: Drops,
    /// Media that came in and went no further.
    pub ingest: DropCounters,
    /// Media that was not sent to a subscriber.
    pub delivery: DropCounters,
    /// Estimates, probes and allocations of bandwidth.
    pub bandwidth: BandwidthCounters,
    /// Peers whose link is measured now, and the sum of their estimates in bit/s.
    pub estimates: (u64, u64),
    /// Events that a room's actor did not take.
    pub dropped_events: u64,
    /// Outputs of the codec threads that the worker did not take.
    pub dropped_outputs: u64,
    /// Packets that were displaced on their way to the codec threads.
    pub displaced: u64,
    /// Opus packets decoded and encoded.
    pub audio_codec: (u64, u64),
    /// Pictures decoded and encoded.
    pub video_codec: (u64, u64),
    /// What was not decoded, with names.
    pub decode_drops: [(&'static str, u64); DECODE_DROPS],
    /// What of the sound was not mixed, with names.
    pub audio_drops: [(&'static str, u64); AUDIO_DROPS],
    /// Pictures of mixes that were done after their deadline.
    pub late_pictures: u64,
    /// Mixed rooms by what is made of their picture, as of now.
    pub loads: [u64; Load::ALL.len()],
}

impl WorkerFigures {
    /// Adds a session's counters.
    pub(super) fn add(&mut self, session: &Session) {
        self.sessions.merge(&session.counters());
        self.transport.merge(session.transport_drops());
        self.ingest.add(session.publisher.counters());
        self.delivery.add(session.subscriber.counters());
    }
}

impl Worker {
    /// Everything until now.
    pub(super) fn figures(&self, now: Instant) -> WorkerFigures {
        let mut figures = self.past.clone();
        figures.peers = self.peers.len();
        figures.socket = self.socket.counters();
        figures.streams = self.socket.streams.counters();
        figures.worker = self.counters;
        for (_, peer) in &self.peers {
            figures.add(&peer.session);
            let estimator = peer.session.subscriber.estimator();
            let counters = peer.bandwidth.counters(estimator);
            figures.bandwidth.merge(&counters);
            if estimator.is_measured() {
                figures.estimates.0 += 1;
                figures.estimates.1 += estimator.estimate(now);
            }
        }
        for room in self.rooms.values() {
            figures.mixed_rooms += usize::from(room.bus.is_some());
            figures.dropped_events += room.dropped_events;
        }
        let codecs = self.bus_sender.totals();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        figures.dropped_outputs = self.bus_sender.dropped();
        figures.displaced = count(&codecs.displaced);
        figures.audio_codec = (count(&codecs.audio_decodes), count(&codecs.audio_encodes));
        figures.video_codec = (count(&codecs.video_decodes), count(&codecs.video_encodes));
        figures.decode_drops = VideoStats::default().decode_drops();
        for (drops, counter) in figures.decode_drops.iter_mut().zip(&codecs.decode_drops) {
            drops.1 = count(counter);
        }
        figures.audio_drops = AudioCounters::default().drops();
        for (drops, counter) in figures.audio_drops.iter_mut().zip(&codecs.audio_drops) {
            drops.1 = count(counter);
        }
        figures.late_pictures = count(&codecs.late_pictures);
        figures.loads = codecs.loads.each_ref().map(count);
        figures
    }
}

/// One peer's figures.
pub(super) fn peer_stats(
    now: Instant,
    peer: &mut Peer,
    tracks: &FxHashMap<TrackKey, Track>,
    ladder: &Ladder,
) -> PeerStats {
    let sent = peer.session.subscriber.stats(now);
    let counters = peer.session.counters();
    let estimate_bps = super::bandwidth::estimate(now, peer);
    let receiving = &peer.receiving;
    PeerStats {
        received: peer.session.publisher.stats(now),
        sent: sent
            .into_iter()
            .filter_map(|figures| {
                let mixed = match figures.kind {
                    MediaKind::Audio => receiving.sound.is_some(),
                    MediaKind::Video => receiving.picture.is_some(),
                };
                let mixed = mixed.then_some(ladder);
                sent_track(figures, tracks.get(&figures.track), mixed)
            })
            .collect(),
        bytes_ingress: counters.bytes_in,
        bytes_egress: counters.bytes_out,
        estimate_bps,
        publish_limit_bps: peer.publish_limit,
        round_trip_ms: peer
            .session
            .subscriber
            .round_trip()
            .map(|round_trip| round_trip.as_secs_f32() * 1e3),
    }
}

/// `None`: the track ended since.
fn sent_track(
    mut figures: SenderStats,
    track: Option<&Track>,
    mixed: Option<&Ladder>,
) -> Option<SentTrackStats> {
    if let (None, Some(ladder), MediaKind::Video) = (track, mixed, figures.kind) {
        // Rungs are told by the names that layers have.
        let best = ladder.quality_of(ladder.top());
        figures.best_layer = Layer(if ladder.top() > 0 { best } else { 0 });
        let named = |layer: Layer| Layer(ladder.quality_of(layer.0));
        figures.layer = figures.layer.map(named);
    }
    let (track_id, stream_id, source) = match track {
        Some(track) => (
            track.info.track_id.clone(),
            track.info.stream_id.clone(),
            track.source,
        ),
        None if mixed.is_some() => (
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
        layer: figures.layer.map(|layer| layer.0),
        best_layer: figures.best_layer.0,
    })
}

/// The track id of one of the mixed pair.
pub fn mixed_track_id(kind: MediaKind) -> String {
    format!("{MIXED_STREAM}-{}", kind.as_str())
}
