//! Everything that one peer sends.

mod inspector;
mod layer;
mod track;

use std::time::{Duration, Instant};

use smallvec::SmallVec;
use track::Track;

use super::clock::ClockOffset;
use super::ingest::{Routes, Stream};
use super::{DropCounters, DropReason, Layer, LayerFigures, MAX_LAYERS, Received, SenderClock};
use crate::ids::TrackKey;
use crate::prefetch::prefetch;
use crate::rtp::extension::Extensions;
use crate::rtp::header::RtpPacket;
use crate::rtp::nack::MAX_MISSING;
use crate::rtp::ntp::Ntp;
use crate::rtp::params::{ExtensionIds, MediaKind, ReceiveLine, Ssrc};
use crate::rtp::rtcp::{self, ReportBlock, Rtcp, write};
use crate::rtp::twcc::Recorder;
use crate::sfu::PublishedTrack;
use crate::stats::ReceivedTrackStats;

/// Between two receiver reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// A report that is due within this time leaves with feedback that leaves now.
const REPORT_AHEAD: Duration = Duration::from_millis(300);
/// One feedback compound at most; with SRTCP it fits any path.
const MAX_COMPOUND: usize = 1180;

/// Takes the packets of one peer apart, and tells the peer how they fare.
#[derive(Debug)]
pub struct Publisher {
    own_ssrc: Ssrc,
    tracks: Vec<Track>,
    extensions: ExtensionIds,
    routes: Routes,
    clock: ClockOffset,
    transport: Recorder,
    /// Named as the source in transport-wide feedback, which is about all of them.
    last_ssrc: Ssrc,
    report_at: Option<Instant>,
    next_reported: usize,
    missing: Vec<u16>,
    drops: DropCounters,
}

impl Publisher {
    /// A peer that sends nothing yet. `own_ssrc` is the sender of our RTCP to it.
    pub fn new(own_ssrc: Ssrc) -> Self {
        Publisher {
            own_ssrc,
            tracks: Vec::new(),
            extensions: ExtensionIds::default(),
            routes: Routes::default(),
            clock: ClockOffset::default(),
            transport: Recorder::default(),
            last_ssrc: own_ssrc,
            report_at: None,
            next_reported: 0,
            missing: Vec::with_capacity(MAX_MISSING),
            drops: DropCounters::default(),
        }
    }

    /// The m-lines on which the peer may send, after each negotiation. Returns the announced tracks that ended:
    /// their line is gone or inactive, or another track has taken it.
    pub fn set_lines(&mut self, lines: &[ReceiveLine]) -> Vec<TrackKey> {
        let mut before = std::mem::take(&mut self.tracks);
        self.extensions = ExtensionIds::default();
        for line in lines {
            merge(&mut self.extensions, &line.extensions);
            let same = before.iter().position(|track| track.continues_on(line));
            let mut track = match same {
                Some(at) => before.swap_remove(at),
                None => Track::new(line.clone()),
            };
            track.line = line.clone();
            self.tracks.push(track);
        }
        self.routes.set_lines(lines);
        let pictures = lines.iter().any(|line| line.kind == MediaKind::Video);
        self.transport.set_voices_alone(!pictures);
        self.next_reported = 0;
        before
            .iter()
            .filter(|track| track.codec.is_some())
            .map(|track| track.key)
            .collect()
    }

    /// Loads what the next packet will need: see [`crate::prefetch`].
    pub fn prefetch(&self) {
        prefetch(self.tracks.as_slice());
        self.routes.prefetch();
        self.transport.prefetch();
    }

    /// A decrypted RTP packet of the peer.
    pub fn handle_rtp<'p>(
        &mut self,
        now: Instant,
        packet: &'p [u8],
    ) -> Result<Received<'p>, DropReason> {
        self.ingest(now, packet)
            .inspect_err(|reason| self.drops.count(*reason))
    }

    fn ingest<'p>(&mut self, now: Instant, packet: &'p [u8]) -> Result<Received<'p>, DropReason> {
        let packet = RtpPacket::parse(packet).map_err(|_| DropReason::Malformed)?;
        let extensions = Extensions::parse(packet.extension, &self.extensions);
        // Before anything is dropped: the estimate of the sender is about every packet, probes included.
        if let Some(seq) = extensions.transport_cc {
            self.transport.handle_packet(now, seq);
            self.last_ssrc = packet.ssrc;
        }
        let lines = self.tracks.iter().map(|track| &track.line);
        let (at, stream) = self.routes.find(lines, &packet, &extensions)?;
        let track = &mut self.tracks[at];
        let before = track.ssrc(stream);
        let result = track.handle(now, stream, &packet, &extensions);
        if let Some(replaced) = before.filter(|before| track.ssrc(stream) != Some(*before)) {
            self.routes.retire(replaced);
        }
        self.report_at.get_or_insert(now + REPORT_INTERVAL);
        result
    }

    /// A decrypted RTCP compound of the peer, as far as it is about what the peer sends; `wall` is the server's
    /// clock. A BYE ends nothing: the track lives as long as its m-line, and a new SSRC may follow.
    pub fn handle_rtcp(&mut self, now: Instant, wall: Ntp, compound: &[u8]) {
        for packet in rtcp::packets(compound) {
            match packet {
                Ok(Rtcp::SenderReport {
                    ssrc,
                    ntp,
                    timestamp,
                    ..
                }) => self.handle_sender_report(now, wall, ssrc, ntp, timestamp),
                Ok(_) => {}
                Err(_) => self.drops.count(DropReason::MalformedRtcp),
            }
        }
    }

    fn handle_sender_report(
        &mut self,
        now: Instant,
        wall: Ntp,
        ssrc: Ssrc,
        ntp: Ntp,
        timestamp: u32,
    ) {
        let layer = self.tracks.iter_mut().find_map(|track| {
            let clock_rate = track.codec?.clock_rate();
            let mut layers = track.layers.iter_mut();
            Some((layers.find(|layer| layer.ssrc() == Some(ssrc))?, clock_rate))
        });
        // RFC 3550, section 6.4.1: a sender without a wall clock writes zero.
        if let Some((layer, clock_rate)) = layer.filter(|_| ntp != Ntp(0)) {
            layer.handle_report(now, ntp, timestamp, clock_rate);
            self.clock.handle_report(now, wall, ntp);
        }
    }

    /// Somebody cannot decode `layer` of `track` (or the best that flows up to it) before a keyframe. Many requests for
    /// one layer become one per [`super::REQUEST_WINDOW`]; the other layers are not asked.
    pub fn request_keyframe(&mut self, now: Instant, track: TrackKey, layer: Layer) {
        if let Some(track) = self.track_mut(track) {
            track.request_keyframe(now, layer);
        }
    }

    /// The layers of `track` that have come so far, lowest first.
    pub fn layers(
        &mut self,
        now: Instant,
        track: TrackKey,
    ) -> SmallVec<[LayerFigures; MAX_LAYERS]> {
        self.track_mut(track)
            .map(|track| track.figures(now))
            .unwrap_or_default()
    }

    /// The media streams that flow now.
    pub fn ssrcs(&self) -> SmallVec<[Ssrc; 8]> {
        self.tracks
            .iter()
            .flat_map(|track| track.layers.iter())
            .filter_map(|layer| layer.ssrc())
            .collect()
    }

    /// The publisher muted or unmuted a track: nothing of it is returned while muted.
    pub fn set_muted(&mut self, now: Instant, track: TrackKey, muted: bool) {
        if let Some(track) = self.track_mut(track) {
            track.set_muted(now, muted);
        }
    }

    /// Time to the peer and back, from [`super::Subscriber::round_trip`]: spaces repeated requests.
    pub fn set_round_trip(&mut self, round_trip: Duration) {
        for stream in self.streams() {
            stream.nack.set_round_trip(round_trip);
        }
    }

    /// Appends one plain RTCP compound of at most 1180 bytes, if anything is due: receiver reports (once a second),
    /// keyframe requests, missing packets, transport-wide feedback. Call until false.
    ///
    /// Compounds are of reduced size (RFC 5506), which every browser offers.
    pub fn poll_feedback(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let feedback = self.transport.poll_timeout();
        let by = match feedback.is_some_and(|due| due <= now) {
            true => now + REPORT_AHEAD,
            false => now,
        };
        self.write_report(now, by, out);
        self.write_requests(now, start, out);
        let budget = MAX_COMPOUND - (out.len() - start);
        self.transport
            .poll(now, self.own_ssrc, self.last_ssrc, budget, out);
        out.len() > start
    }

    /// When [`Self::poll_feedback`] next has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let layers = self.tracks.iter().flat_map(|track| &track.layers);
        let tracks = layers.flat_map(|layer| {
            let stream = layer.stream.as_ref();
            let missing = stream.and_then(|stream| stream.nack.poll_timeout());
            let keyframe = stream.and_then(|_| layer.keyframes.due());
            missing.into_iter().chain(keyframe)
        });
        tracks
            .chain(self.report_at)
            .chain(self.transport.poll_timeout())
            .min()
    }

    /// RFC 3550, section 6.4.2; at most 31 streams in one report, the others in the next.
    fn write_report(&mut self, now: Instant, by: Instant, out: &mut Vec<u8>) {
        if self.report_at.is_none_or(|at| at > by) {
            return;
        }
        let mut blocks: smallvec::SmallVec<[ReportBlock; write::MAX_BLOCKS]> = Default::default();
        let from = self.next_reported;
        for stream in self.streams().skip(from).take(write::MAX_BLOCKS) {
            blocks.push(stream.reception.report(now, stream.ssrc));
        }
        let complete = blocks.len() < write::MAX_BLOCKS;
        write::receiver_report(self.own_ssrc, blocks, out);
        if complete {
            self.next_reported = 0;
            self.report_at = Some(now + REPORT_INTERVAL);
        } else {
            self.next_reported = from + write::MAX_BLOCKS;
        }
    }

    fn write_requests(&mut self, now: Instant, start: usize, out: &mut Vec<u8>) {
        for track in &mut self.tracks {
            let room = MAX_COMPOUND - (out.len() - start);
            // The longest request for a keyframe, and a NACK with one pair.
            if room < 20 + 16 {
                return;
            }
            track.write_keyframe_requests(now, self.own_ssrc, start + MAX_COMPOUND - 16, out);
            for stream in track.layers.iter_mut().filter_map(|l| l.stream.as_mut()) {
                let room = MAX_COMPOUND - (out.len() - start);
                if room < 16 {
                    return;
                }
                self.missing.clear();
                // Each number takes four bytes at most.
                stream.nack.poll(now, (room - 12) / 4, &mut self.missing);
                write::nack(self.own_ssrc, stream.ssrc, &self.missing, room, out);
            }
        }
    }

    fn streams(&mut self) -> impl Iterator<Item = &mut Stream> {
        let layers = self.tracks.iter_mut().flat_map(|track| &mut track.layers);
        layers.filter_map(|layer| layer.stream.as_mut())
    }

    /// The media clock of one of the track's streams (see [`Received::generation`]) on the server's wall clock, once a
    /// sender report came.
    pub fn clock(&self, track: TrackKey, generation: u32) -> Option<SenderClock> {
        let mut layers = self.track(track)?.layers.iter();
        let layer = layers.find(|layer| layer.generation() == generation)?;
        let (ntp, timestamp) = layer.stream.as_ref()?.report?;
        Some(SenderClock {
            ntp: ntp.shifted(self.clock.offset()?),
            timestamp,
            generation,
        })
    }

    /// The media stream of a track, once its first packet came.
    pub fn ssrc(&self, track: TrackKey) -> Option<Ssrc> {
        self.track(track)?.ssrc(0)
    }

    /// What to announce about a track, once its first packet came.
    pub fn published(&self, track: TrackKey) -> Option<PublishedTrack> {
        self.track(track).and_then(Track::published)
    }

    /// The announced tracks.
    pub fn tracks(&self) -> impl Iterator<Item = PublishedTrack> {
        self.tracks.iter().filter_map(Track::published)
    }

    /// The figures of the announced tracks.
    pub fn stats(&mut self, now: Instant) -> Vec<ReceivedTrackStats> {
        self.tracks
            .iter_mut()
            .flat_map(|track| track.stats(now))
            .collect()
    }

    /// What went no further, and why.
    pub fn counters(&self) -> &DropCounters {
        &self.drops
    }

    fn track(&self, key: TrackKey) -> Option<&Track> {
        self.tracks.iter().find(|track| track.key == key)
    }

    fn track_mut(&mut self, key: TrackKey) -> Option<&mut Track> {
        self.tracks.iter_mut().find(|track| track.key == key)
    }
}

/// RFC 8843, section 9.2: the lines of a bundle agree about ids, but each may use others of them.
fn merge(all: &mut ExtensionIds, line: &ExtensionIds) {
    all.mid = all.mid.or(line.mid);
    all.rid = all.rid.or(line.rid);
    all.repaired_rid = all.repaired_rid.or(line.repaired_rid);
    all.audio_level = all.audio_level.or(line.audio_level);
    all.transport_cc = all.transport_cc.or(line.transport_cc);
    all.abs_send_time = all.abs_send_time.or(line.abs_send_time);
    all.video_orientation = all.video_orientation.or(line.video_orientation);
    all.dependency_descriptor = all.dependency_descriptor.or(line.dependency_descriptor);
    all.playout_delay = all.playout_delay.or(line.playout_delay);
}

#[cfg(test)]
mod tests;
