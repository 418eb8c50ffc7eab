//! One m-line on which a peer sends: at most one track, in one layer or several.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::layer::LayerStream;
use crate::ids::TrackKey;
use crate::rtp::extension::Extensions;
use crate::rtp::header::RtpPacket;
use crate::rtp::params::{Codec, Encodings, MediaKind, PayloadParams, ReceiveLine, Ssrc};
use crate::rtp::red::Red;
use crate::rtp::rtcp::write;
use crate::rtp::rtx;
use crate::sfu::PublishedTrack;
use crate::sfu::{DropReason, Layer, LayerFigures, LayerSet, MAX_LAYERS, Received};
use crate::stats::ReceivedTrackStats;

/// The track of an m-line.
#[derive(Debug)]
pub(super) struct Track {
    pub line: ReceiveLine,
    pub key: TrackKey,
    /// Codec of the last packet; `None` until the first came.
    pub codec: Option<Codec>,
    /// One for each stream that the line may carry, in the order of its SDP.
    pub layers: SmallVec<[LayerStream; MAX_LAYERS]>,
    /// The SDP names the best layer first.
    best_first: bool,
    next_generation: u32,
}

/// A media packet as the m-line's payload types explain it.
struct Media<'p> {
    params: PayloadParams,
    payload: &'p [u8],
    red: Option<Red<'p>>,
    seq: u64,
    recovered: bool,
}

impl Track {
    /// The track of a new m-line.
    pub fn new(line: ReceiveLine) -> Self {
        let streams = line.streams().min(MAX_LAYERS);
        Track {
            line,
            key: TrackKey::next(),
            codec: None,
            layers: (0..streams).map(|_| LayerStream::default()).collect(),
            best_first: false,
            next_generation: 0,
        }
    }

    /// Whether a line after a negotiation still carries this track.
    pub fn continues_on(&self, line: &ReceiveLine) -> bool {
        self.line.mid == line.mid
            && self.line.kind == line.kind
            && self.line.stream_id == line.stream_id
            && self.line.track_id == line.track_id
            && self.line.streams() == line.streams()
    }

    /// Stops or resumes what goes on. Video resumes with a keyframe of each layer, which is asked for.
    pub fn set_muted(&mut self, now: Instant, muted: bool) {
        for layer in &mut self.layers {
            layer.set_muted(now, muted, self.line.kind);
        }
    }

    /// A keyframe is needed of the best layer that flows up to this one.
    pub fn request_keyframe(&mut self, now: Instant, layer: Layer) {
        let at = self
            .flowing(now)
            .best(layer)
            .map(|layer| self.place_of(layer));
        if let Some(layer) = self.layers.get_mut(at.unwrap_or(0)) {
            layer.keyframes.request(now);
        }
    }

    /// Takes a packet of the stream at this place of the m-line.
    pub fn handle<'p>(
        &mut self,
        now: Instant,
        at: usize,
        packet: &RtpPacket<'p>,
        extensions: &Extensions<'p>,
    ) -> Result<Received<'p>, DropReason> {
        let media = self.media(now, at, packet)?;
        let codec = media.params.codec;
        let alone = self.layers.len() == 1;
        let layer = self.layers.get_mut(at).ok_or(DropReason::UnknownSsrc)?;
        let stream = layer.stream.as_mut().ok_or(DropReason::UnknownSsrc)?;
        let timestamp = if media.recovered {
            stream.timestamps.peek(packet.timestamp)
        } else {
            stream.timestamps.unwrap(packet.timestamp)
        };
        stream.reception.handle_packet(
            now,
            media.seq,
            timestamp,
            media.payload.len(),
            media.recovered,
        );
        if media.params.nack {
            stream.nack.handle_packet(now, media.seq, media.recovered);
        }
        let descriptor = extensions.dependency_descriptor;
        let shown = layer.inspector.inspect(codec, media.payload, descriptor);
        if shown.keyframe {
            stream.nack.handle_keyframe(media.seq);
            layer.keyframes.handle_keyframe();
        } else if stream.nack.is_broken() && alone && codec.kind() == MediaKind::Video {
            // Asked for with every packet until it comes: the request may be lost, too. Of several layers only one that
            // somebody gets is worth it.
            layer.keyframes.request(now);
        }
        let broken = stream.nack.is_broken();
        let repair_time = stream.nack.repair_time();
        if media.payload.is_empty() && self.codec.is_none() {
            return Err(DropReason::Padding);
        }
        if !media.payload.is_empty() {
            layer.note_packet(now, shown.temporal, media.payload.len());
        }
        let seq = layer.pass(media.seq, shown.keyframe)?;
        let red = media
            .red
            .map(|red| layer.recover(now, red, media.seq, timestamp, media.params.nack));
        let (generation, shift) = (layer.generation(), layer.shift());
        let resized = shown.size.is_some() && layer.size != shown.size;
        if resized {
            layer.size = shown.size;
            self.order_by_size();
        }
        if packet.marker && !media.recovered {
            self.note_frame(at);
        }
        let first = self.codec.replace(codec).is_none();
        Ok(Received {
            track: self.key,
            first,
            codec,
            layer: self.layer_at(at),
            layers: self.flowing(now),
            temporal: shown.temporal.unwrap_or(0),
            rises_to: shown.rises_to,
            generation,
            seq,
            timestamp,
            shift,
            marker: packet.marker,
            keyframe: shown.keyframe,
            recovered: media.recovered,
            broken,
            repair_time,
            level: extensions.audio_level,
            orientation: extensions.video_orientation,
            playout: extensions.playout_delay,
            dependency_descriptor: descriptor,
            red,
            within_red: false,
            payload: media.payload,
        })
    }

    fn note_frame(&mut self, of: usize) {
        let others = self.layers.iter_mut().enumerate();
        for (_, layer) in others.filter(|(at, _)| *at != of) {
            layer.note_other_frame();
        }
    }

    /// Tells media from retransmission by the payload type, and finds the packet's number.
    fn media<'p>(
        &mut self,
        now: Instant,
        at: usize,
        packet: &RtpPacket<'p>,
    ) -> Result<Media<'p>, DropReason> {
        let payload_type = packet.payload_type;
        let by = |found: &dyn Fn(&PayloadParams) -> bool| {
            self.line
                .payloads
                .iter()
                .find(|params| found(params))
                .cloned()
        };
        let layer = self.layers.get_mut(at).ok_or(DropReason::UnknownSsrc)?;
        if let Some(params) = by(&|params| params.payload_type == payload_type) {
            let clock_rate = params.codec.clock_rate();
            let seq = layer.place(now, packet, clock_rate, &mut self.next_generation)?;
            return Ok(Media {
                params,
                payload: packet.payload,
                red: None,
                seq,
                recovered: false,
            });
        }
        if let Some(params) = by(&|params| params.red == Some(payload_type)) {
            let red = Red::parse(packet.payload).map_err(|_| DropReason::MalformedRed)?;
            let frame = red.primary();
            if frame.payload_type != params.payload_type {
                return Err(DropReason::UnknownPayloadType);
            }
            let clock_rate = params.codec.clock_rate();
            let seq = layer.place(now, packet, clock_rate, &mut self.next_generation)?;
            return Ok(Media {
                params,
                payload: frame.payload,
                red: Some(red),
                seq,
                recovered: false,
            });
        }
        let params =
            by(&|params| params.rtx == Some(payload_type)).ok_or(DropReason::UnknownPayloadType)?;
        let (original, payload) = rtx::unwrap(packet.payload).ok_or(DropReason::Padding)?;
        let stream = layer
            .stream
            .as_mut()
            .ok_or(DropReason::UnexpectedRetransmission)?;
        Ok(Media {
            params,
            payload,
            red: None,
            seq: stream.place_retransmitted(original)?,
            recovered: true,
        })
    }

    /// The SSRC of the media at a place of the m-line.
    pub fn ssrc(&self, at: usize) -> Option<Ssrc> {
        self.layers.get(at)?.ssrc()
    }

    /// The layers that flow.
    fn flowing(&self, now: Instant) -> LayerSet {
        let layers = self.layers.iter().enumerate();
        layers
            .filter(|(_, layer)| layer.flows(now))
            .map(|(at, _)| self.layer_at(at))
            .collect()
    }

    fn layer_at(&self, at: usize) -> Layer {
        let last = self.layers.len() - 1;
        Layer(if self.best_first { last - at } else { at } as u8)
    }

    /// The inverse of [`Self::layer_at`]; the last place for layers that there are not.
    fn place_of(&self, layer: Layer) -> usize {
        let last = self.layers.len() - 1;
        let at = usize::from(layer.0).min(last);
        if self.best_first { last - at } else { at }
    }

    /// Pages list their encodings from small to large or the other way round: the sizes tell.
    fn order_by_size(&mut self) {
        let sizes = self.layers.iter().filter_map(|layer| layer.size);
        let areas = sizes.map(|(width, height)| u64::from(width) * u64::from(height));
        let areas: SmallVec<[u64; MAX_LAYERS]> = areas.collect();
        let falls = areas.windows(2).filter(|pair| pair[0] > pair[1]).count();
        let rises = areas.windows(2).filter(|pair| pair[0] < pair[1]).count();
        if falls != rises {
            self.best_first = falls > rises;
        }
    }

    /// Appends requests for keyframes, where they are due: PLI, or FIR where only that was agreed. Stops when fewer
    /// than 20 bytes are left of `limit`.
    pub fn write_keyframe_requests(
        &mut self,
        now: Instant,
        own_ssrc: Ssrc,
        limit: usize,
        out: &mut Vec<u8>,
    ) {
        let agreed = |found: fn(&PayloadParams) -> bool| self.line.payloads.iter().any(found);
        let (pli, fir) = (agreed(|params| params.pli), agreed(|params| params.fir));
        for layer in &mut self.layers {
            let Some(media) = layer.ssrc() else {
                continue;
            };
            if out.len() + 20 > limit {
                return;
            }
            let Some(number) = layer.keyframes.poll(now) else {
                continue;
            };
            if pli {
                write::pli(own_ssrc, media, out);
            } else if fir {
                write::fir(own_ssrc, media, number, out);
            }
        }
    }

    /// What to announce, once its first packet came.
    pub fn published(&self) -> Option<PublishedTrack> {
        Some(PublishedTrack {
            key: self.key,
            track_id: self.line.track_id.clone(),
            stream_id: self.line.stream_id.clone(),
            kind: self.line.kind,
            codec: self.codec?,
            simulcast: self.layers.len() > 1,
        })
    }

    /// The figures of its layers that have come, each with its rid, lowest first; none before the first packet.
    pub fn stats(&mut self, now: Instant) -> Vec<ReceivedTrackStats> {
        let Some(codec) = self.codec else {
            return Vec::new();
        };
        let line = &self.line;
        let layers = self.layers.iter_mut().enumerate();
        let mut stats: Vec<_> = layers
            .filter(|(_, layer)| layer.stream.is_some())
            .map(|(at, layer)| {
                let totals = layer.totals();
                let stream = layer.stream.as_ref();
                let jitter = stream.map_or(Duration::ZERO, |stream| stream.reception.jitter());
                ReceivedTrackStats {
                    track: self.key,
                    track_id: line.track_id.clone(),
                    stream_id: line.stream_id.clone(),
                    rid: match &line.encodings {
                        Encodings::Rids(rids) => rids.get(at).cloned().unwrap_or_default(),
                        Encodings::Single | Encodings::Ssrcs => String::new(),
                    },
                    kind: line.kind,
                    codec,
                    packets_received: totals.packets,
                    packets_lost: totals.lost,
                    bytes_received: totals.bytes,
                    bitrate: layer.stats_rate.read(now, totals.bytes),
                    jitter_ms: jitter.as_secs_f32() * 1e3,
                }
            })
            .collect();
        if self.best_first {
            stats.reverse();
        }
        stats
    }

    /// Its layers in figures, lowest first.
    pub fn figures(&mut self, now: Instant) -> SmallVec<[LayerFigures; MAX_LAYERS]> {
        let (best_first, last) = (self.best_first, self.layers.len() - 1);
        let layers = self.layers.iter_mut().enumerate();
        let begun = layers.filter(|(_, layer)| layer.has_begun());
        let mut figures: SmallVec<_> = begun
            .map(|(at, layer)| {
                let (bitrate, temporal_bitrates) = layer.bitrates(now);
                LayerFigures {
                    layer: Layer(if best_first { last - at } else { at } as u8),
                    active: layer.flows(now),
                    bitrate,
                    size: layer.size,
                    least: None,
                    temporal_bitrates,
                }
            })
            .collect();
        figures.sort_by_key(|figures: &LayerFigures| figures.layer);
        figures
    }
}
