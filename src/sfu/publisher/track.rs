//! One m-line on which a peer sends: at most one track.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::ids::TrackKey;
use crate::rtp::extension::Extensions;
use crate::rtp::header::RtpPacket;
use crate::rtp::keyframe::starts_keyframe;
use crate::rtp::nack::GapChange;
use crate::rtp::params::{Codec, MediaKind, PayloadParams, ReceiveLine, Ssrc};
use crate::rtp::rtcp::write;
use crate::rtp::rtx;
use crate::sfu::PublishedTrack;
use crate::sfu::ingest::{Place, Stream};
use crate::sfu::keyframe::KeyframeRequests;
use crate::sfu::rate::RateMeter;
use crate::sfu::{DropReason, Layer, LayerFigures, LayerSet, MAX_LAYERS, Received};
use crate::stats::ReceivedTrackStats;

/// Layers of a track. Simulcast is declined for now; with it, RIDs choose among several.
const LAYERS: usize = 1;

/// Whether the publisher's packets go on to the subscribers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mute {
    Off,
    On,
    /// Unmuted, but a decoder cannot begin yet.
    AwaitingKeyframe,
    /// Unmuted: the next packet follows the last one that went on.
    Resuming,
}

/// What earlier streams of the same layer add to the counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub packets: u64,
    pub lost: u64,
    pub bytes: u64,
}

/// One layer: its stream, if any has come, and the requests for its keyframes.
#[derive(Debug, Default)]
pub(super) struct LayerStream {
    pub stream: Option<Stream>,
    pub keyframes: KeyframeRequests,
    generation: u32,
    past: Totals,
    /// Packets that a mute has swallowed: the numbers after it close the gap.
    swallowed: u64,
    /// First packet after the last mute; what is before it stays swallowed.
    resumed_at: u64,
    /// Highest number that went on, as the subscribers know it.
    forwarded: Option<u64>,
}

/// The track of an m-line.
#[derive(Debug)]
pub(super) struct Track {
    pub line: ReceiveLine,
    pub key: TrackKey,
    /// Codec of the last packet; `None` until the first came.
    pub codec: Option<Codec>,
    pub layers: [LayerStream; LAYERS],
    pub rate: RateMeter,
    pub layer_rate: RateMeter,
    mute: Mute,
}

/// A media packet as the m-line's payload types explain it.
struct Media<'p> {
    params: PayloadParams,
    payload: &'p [u8],
    seq: u64,
    recovered: bool,
}

impl Track {
    /// The track of a new m-line.
    pub fn new(line: ReceiveLine) -> Self {
        Track {
            line,
            key: TrackKey::next(),
            codec: None,
            layers: Default::default(),
            rate: RateMeter::default(),
            layer_rate: RateMeter::default(),
            mute: Mute::Off,
        }
    }

    /// Whether a line after a negotiation still carries this track.
    pub fn continues_on(&self, line: &ReceiveLine) -> bool {
        self.line.mid == line.mid
            && self.line.kind == line.kind
            && self.line.stream_id == line.stream_id
            && self.line.track_id == line.track_id
    }

    /// Stops or resumes what goes on. Video resumes with a keyframe, which is asked for.
    pub fn set_muted(&mut self, now: Instant, muted: bool) {
        self.mute = match (muted, self.mute, self.line.kind) {
            (true, _, _) => Mute::On,
            (false, Mute::On, MediaKind::Audio) => Mute::Resuming,
            (false, Mute::On, MediaKind::Video) => {
                self.layers[0].keyframes.request(now);
                Mute::AwaitingKeyframe
            }
            (false, other, _) => other,
        };
    }

    /// A keyframe is needed of the best layer that flows up to this one.
    pub fn request_keyframe(&mut self, now: Instant, _layer: Layer) {
        self.layers[0].keyframes.request(now);
    }

    /// Takes a packet of this m-line.
    pub fn handle<'p>(
        &mut self,
        now: Instant,
        packet: &RtpPacket<'p>,
        extensions: &Extensions<'p>,
    ) -> Result<Received<'p>, DropReason> {
        let media = self.media(now, packet)?;
        let codec = media.params.codec;
        let layer = &mut self.layers[0];
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
        let overflow =
            media.params.nack && stream.nack.handle_packet(now, media.seq) == GapChange::Overflow;
        let keyframe = starts_keyframe(codec, media.payload);
        if keyframe {
            layer.keyframes.handle_keyframe();
        } else if overflow && codec.kind() == MediaKind::Video {
            layer.keyframes.request(now);
        }
        if media.payload.is_empty() && self.codec.is_none() {
            return Err(DropReason::Padding);
        }
        let seq = layer.pass(&mut self.mute, media.seq, keyframe)?;
        let first = self.codec.replace(codec).is_none();
        Ok(Received {
            track: self.key,
            first,
            codec,
            layer: Layer(0),
            layers: LayerSet::LOWEST,
            temporal: 0,
            rises_to: 0,
            generation: layer.generation,
            seq,
            timestamp,
            shift: None,
            marker: packet.marker,
            keyframe,
            recovered: media.recovered,
            level: extensions.audio_level,
            orientation: extensions.video_orientation,
            dependency_descriptor: extensions.dependency_descriptor,
            payload: media.payload,
        })
    }

    /// Tells media from retransmission by the payload type, and finds the packet's number.
    fn media<'p>(&mut self, now: Instant, packet: &RtpPacket<'p>) -> Result<Media<'p>, DropReason> {
        let payload_type = packet.payload_type;
        let by = |found: &dyn Fn(&PayloadParams) -> bool| {
            self.line
                .payloads
                .iter()
                .find(|params| found(params))
                .cloned()
        };
        if let Some(params) = by(&|params| params.payload_type == payload_type) {
            let seq = self.layers[0].place(now, packet, params.codec.clock_rate())?;
            return Ok(Media {
                params,
                payload: packet.payload,
                seq,
                recovered: false,
            });
        }
        let params =
            by(&|params| params.rtx == Some(payload_type)).ok_or(DropReason::UnknownPayloadType)?;
        let (original, payload) = rtx::unwrap(packet.payload).ok_or(DropReason::Padding)?;
        let stream = self.layers[0]
            .stream
            .as_mut()
            .ok_or(DropReason::UnexpectedRetransmission)?;
        Ok(Media {
            params,
            payload,
            seq: stream.place_retransmitted(original)?,
            recovered: true,
        })
    }

    /// The SSRC of its media.
    pub fn ssrc(&self) -> Option<Ssrc> {
        self.layers[0].stream.as_ref().map(|stream| stream.ssrc)
    }

    /// Appends a request for a keyframe, if one is due: PLI, or FIR where only that was agreed.
    pub fn write_keyframe_request(&mut self, now: Instant, own_ssrc: Ssrc, out: &mut Vec<u8>) {
        let Some(media) = self.ssrc() else {
            return;
        };
        let Some(number) = self.layers[0].keyframes.poll(now) else {
            return;
        };
        let agreed = |found: fn(&PayloadParams) -> bool| self.line.payloads.iter().any(found);
        if agreed(|params| params.pli) {
            write::pli(own_ssrc, media, out);
        } else if agreed(|params| params.fir) {
            write::fir(own_ssrc, media, number, out);
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
        })
    }

    /// Its figures, once its first packet came.
    pub fn stats(&mut self, now: Instant) -> Option<ReceivedTrackStats> {
        let codec = self.codec?;
        let totals = self.totals();
        let jitter = self.layers[0]
            .stream
            .as_ref()
            .map_or(Duration::ZERO, |stream| stream.reception.jitter());
        Some(ReceivedTrackStats {
            track: self.key,
            track_id: self.line.track_id.clone(),
            stream_id: self.line.stream_id.clone(),
            kind: self.line.kind,
            codec,
            packets_received: totals.packets,
            packets_lost: totals.lost,
            bytes_received: totals.bytes,
            bitrate: self.rate.read(now, totals.bytes),
            jitter_ms: jitter.as_secs_f32() * 1e3,
        })
    }

    /// Its layers in figures, lowest first.
    pub fn figures(&mut self, now: Instant) -> SmallVec<[LayerFigures; MAX_LAYERS]> {
        let bytes = self.totals().bytes;
        SmallVec::from_iter(self.codec.map(|_| LayerFigures {
            active: true,
            bitrate: self.layer_rate.read(now, bytes),
            ..LayerFigures::default()
        }))
    }

    fn totals(&self) -> Totals {
        self.layers
            .iter()
            .fold(Totals::default(), |sum, layer| sum.plus(layer.totals()))
    }
}

impl LayerStream {
    /// The packet's extended number. A new SSRC, or a leap, begins a new generation.
    fn place(
        &mut self,
        now: Instant,
        packet: &RtpPacket<'_>,
        clock_rate: u32,
    ) -> Result<u64, DropReason> {
        if self
            .stream
            .as_ref()
            .is_none_or(|stream| stream.ssrc != packet.ssrc)
        {
            // Chromium probes the path before it has media, and a probe is no beginning.
            if packet.payload.is_empty() {
                return Err(DropReason::Padding);
            }
            self.restart(now, packet, clock_rate);
        }
        loop {
            let stream = self.stream.as_mut().ok_or(DropReason::UnknownSsrc)?;
            match stream.place(packet.seq)? {
                Place::New(seq) => return Ok(seq),
                Place::Restart => self.restart(now, packet, clock_rate),
            }
        }
    }

    fn restart(&mut self, now: Instant, packet: &RtpPacket<'_>, clock_rate: u32) {
        self.past = self.totals();
        let new = Stream::new(packet.ssrc, packet.seq, clock_rate);
        if self.stream.replace(new).is_some() {
            self.generation += 1;
            self.swallowed = 0;
            self.resumed_at = 0;
            self.forwarded = None;
            self.keyframes.request(now);
        }
    }

    /// The number under which a packet goes on, or the reason why it does not.
    ///
    /// What a mute swallows leaves no gap, or every subscriber would ask for it again.
    fn pass(&mut self, mute: &mut Mute, seq: u64, keyframe: bool) -> Result<u64, DropReason> {
        match *mute {
            Mute::Off if seq < self.resumed_at => return Err(DropReason::Muted),
            Mute::Off => {}
            Mute::On => return Err(DropReason::Muted),
            Mute::AwaitingKeyframe if !keyframe => return Err(DropReason::Muted),
            Mute::AwaitingKeyframe | Mute::Resuming => {
                if let Some(forwarded) = self.forwarded {
                    if seq <= forwarded + self.swallowed {
                        return Err(DropReason::Muted);
                    }
                    self.swallowed = seq - forwarded - 1;
                }
                self.resumed_at = seq;
                *mute = Mute::Off;
            }
        }
        let passed = seq - self.swallowed;
        self.forwarded = self.forwarded.max(Some(passed));
        Ok(passed)
    }

    fn totals(&self) -> Totals {
        let Some(stream) = &self.stream else {
            return self.past;
        };
        self.past.plus(Totals {
            packets: stream.reception.received(),
            lost: stream.reception.lost(),
            bytes: stream.reception.bytes(),
        })
    }

    /// The stream that sender clocks and packets name.
    pub fn generation(&self) -> u32 {
        self.generation
    }
}

impl Totals {
    fn plus(self, other: Totals) -> Totals {
        Totals {
            packets: self.packets + other.packets,
            lost: self.lost + other.lost,
            bytes: self.bytes + other.bytes,
        }
    }
}
