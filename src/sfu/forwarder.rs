//! One sender of a subscriber: what sits on one m-line that we send on.

use std::time::{Duration, Instant};

use super::clock::SenderClock;
use super::numbering::{MAX_DESCRIPTOR, Numbering};
use super::protection::{self, Frames};
use super::rate::RateMeter;
use super::rewriter::{LeftOut, Rewriter, Rewritten};
use super::selector::{Admission, Selector};
use super::{DropReason, Layer, Received, SenderStats, Target};
use crate::ids::TrackKey;
use crate::rtp::extension::{self, AbsSendTime, Extensions};
use crate::rtp::header::HeaderFields;
use crate::rtp::ntp::Ntp;
use crate::rtp::params::{Codec, ExtensionIds, MediaKind, PayloadParams, SendLine, Ssrc};
use crate::rtp::playout::{Playout, RepairTime};
use crate::rtp::rtcp::{ReportBlock, write};
use crate::rtp::rtx::{PacketMeta, RtxCache, Unavailable};

/// Between two sender reports of a stream.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Packets between two reports of a receiver at most.
const MAX_REPORTED: u32 = 100_000;
/// Bytes of one packet of padding: the most that its last byte can tell.
const PADDING: u8 = 255;
/// Until the publisher's clock is known, this often is it asked for.
const REPORT_RETRY: Duration = Duration::from_millis(100);

/// What all senders of one leg share.
#[derive(Debug, Default)]
pub(super) struct Leg {
    epoch: Option<Instant>,
    transport_seq: u16,
    number: Option<u16>,
    repair_time: Duration,
    /// Of each frame of audio, beyond the first.
    copies: usize,
}

impl Leg {
    fn next_transport_seq(&mut self) -> u16 {
        self.transport_seq = self.transport_seq.wrapping_add(1);
        self.number = Some(self.transport_seq);
        self.transport_seq
    }

    /// The number that was given out since the last call; at most one.
    pub fn take_number(&mut self) -> Option<u16> {
        self.number.take()
    }

    /// As [`Self::take_number`], but what got the number does not leave yet: the next packet has it.
    pub fn take_back(&mut self) -> bool {
        let numbered = self.number.take().is_some();
        if numbered {
            self.transport_seq = self.transport_seq.wrapping_sub(1);
        }
        numbered
    }

    /// Number and departure of a packet that had to wait.
    pub fn stamp(&mut self, now: Instant, ids: &ExtensionIds, numbered: bool, packet: &mut [u8]) {
        let number = numbered.then(|| self.next_transport_seq());
        let time = self.send_time(now);
        extension::stamp(packet, ids, number, time);
    }

    /// What the way to the peer loses, and how long that takes to be there after all. `crowded`: its queue is long.
    pub fn set_losses(&mut self, repair: &RepairTime, crowded: bool) {
        self.repair_time = repair.needed();
        self.copies = protection::copies(repair.loss(), self.copies, crowded);
    }

    fn send_time(&mut self, now: Instant) -> AbsSendTime {
        let epoch = *self.epoch.get_or_insert(now);
        AbsSendTime::from_epoch(now.saturating_duration_since(epoch))
    }
}

/// The payload format in use.
#[derive(Clone, Copy, Debug)]
struct Format {
    codec: Codec,
    payload_type: u8,
    rtx: Option<u8>,
    red: Option<u8>,
    transport_cc: bool,
}

/// The state of one SSRC: begins anew when the m-line gets another.
///
/// It outlives a pause of the m-line: encryption forbids that a sequence number comes twice under one SSRC
/// (RFC 3711, section 9.1).
#[derive(Debug)]
struct Stream {
    line: SendLine,
    active: bool,
    format: Option<Format>,
    rewriter: Rewriter,
    numbering: Numbering,
    cache: RtxCache,
    rtx_seq: u16,
    last_timestamp: u32,
    packets: u64,
    bytes: u64,
    retransmitted: u64,
    report_at: Option<Instant>,
    reported: Option<ReportBlock>,
    rate: RateMeter,
    playout: Playout,
    frames: Frames,
}

#[derive(Clone, Copy, Debug)]
struct Source {
    track: TrackKey,
    codec: Codec,
}

/// Joins a source to an m-line.
#[derive(Debug, Default)]
pub(super) struct Forwarder {
    source: Option<Source>,
    selector: Selector,
    stream: Option<Stream>,
    /// Of the last packet that was forwarded, as generation and timestamp.
    frame: Option<(u32, u64)>,
}

impl Forwarder {
    /// The m-line it has now; `None`: it has none any more.
    pub fn set_line(&mut self, line: Option<&SendLine>) {
        let Some(line) = line else {
            if let Some(stream) = &mut self.stream {
                stream.active = false;
                stream.cache = RtxCache::default();
            }
            self.selector.close();
            return;
        };
        match &mut self.stream {
            Some(stream) if stream.line.ssrc == line.ssrc => {
                stream.active = true;
                if stream.line != *line {
                    stream.line = line.clone();
                    stream.format = None;
                }
            }
            _ => {
                self.stream = Some(Stream::new(line.clone()));
                self.selector.close();
            }
        }
    }

    /// Carries `track` from now on. Whether a keyframe of it is needed.
    pub fn attach(&mut self, track: TrackKey, codec: Codec) -> bool {
        if self.source.is_none_or(|source| source.track != track) {
            self.selector.close();
        }
        self.source = Some(Source { track, codec });
        codec.kind() == MediaKind::Video && self.selector.is_closed()
    }

    /// Sends nothing until the next packet, which goes on without a gap: numbers that were not sent were not given.
    pub fn pause(&mut self) {
        self.selector.close();
    }

    /// Carries nothing any more.
    pub fn detach(&mut self) {
        self.source = None;
        self.selector.close();
    }

    /// Neither a track nor an m-line.
    pub fn is_idle(&self) -> bool {
        self.source.is_none() && self.stream.as_ref().is_none_or(|stream| !stream.active)
    }

    /// Nothing was ever sent, so nothing needs to be remembered.
    pub fn is_fresh(&self) -> bool {
        self.stream
            .as_ref()
            .is_none_or(|stream| stream.packets == 0)
    }

    /// Its media stream.
    pub fn ssrc(&self) -> Option<Ssrc> {
        self.stream.as_ref().map(|stream| stream.line.ssrc)
    }

    /// The video that it carries, and the layer of which a keyframe helps its receiver.
    pub fn video_source(&self) -> Option<(TrackKey, Layer)> {
        let source = self
            .source
            .filter(|source| source.codec.kind() == MediaKind::Video)?;
        Some((source.track, self.selector.needed()?))
    }

    /// See [`super::Subscriber::set_target`].
    pub fn set_target(&mut self, target: Target) -> Option<Layer> {
        let wanted = self.selector.set_target(target);
        wanted.filter(|_| {
            self.source
                .is_some_and(|source| source.codec.kind() == MediaKind::Video)
        })
    }

    /// The layer that flows.
    pub fn current(&self) -> Option<Layer> {
        self.selector.current()
    }

    /// The track and the stream of it that flow.
    pub fn flow(&self) -> Option<(TrackKey, u32)> {
        Some((self.source?.track, self.selector.generation()?))
    }

    /// See [`super::Subscriber::forward`].
    pub fn forward(
        &mut self,
        now: Instant,
        leg: &mut Leg,
        packet: &Received<'_>,
        out: &mut Vec<u8>,
    ) -> Result<usize, DropReason> {
        if self
            .source
            .is_none_or(|source| source.track != packet.track)
        {
            return Err(DropReason::NotAttached);
        }
        let stream = self
            .stream
            .as_mut()
            .filter(|stream| stream.active)
            .ok_or(DropReason::NotNegotiated)?;
        let format = stream.format(packet.codec)?;
        if packet.within_red && format.red.is_some() {
            return Err(DropReason::WithinRed);
        }
        match self.selector.admit(packet) {
            Ok(Admission::Continues) => stream.rewriter.set_shift(packet.shift),
            Ok(Admission::Begins) => stream.begin(now, packet),
            Err(DropReason::TemporalLayer) => {
                return stream.leave_out(now, leg, format, packet, out);
            }
            Err(reason) => return Err(reason),
        }
        self.frame = Some((packet.generation, packet.timestamp));
        stream.send(now, leg, format, packet, out)
    }

    /// Sends one packet again as a retransmission (RFC 4588, section 4); returns its header's length.
    pub fn retransmit(
        &mut self,
        now: Instant,
        leg: &mut Leg,
        seq: u16,
        round_trip: Duration,
        out: &mut Vec<u8>,
    ) -> Result<usize, DropReason> {
        let stream = self
            .stream
            .as_mut()
            .filter(|stream| stream.active)
            .ok_or(DropReason::NotNegotiated)?;
        stream.retransmit(now, leg, seq, round_trip, out)
    }

    /// The receiver's view of this stream. Packets that came and that did not since the report before.
    pub fn handle_report(&mut self, block: ReportBlock) -> (u32, u32) {
        let Some(stream) = &mut self.stream else {
            return (0, 0);
        };
        let before = stream.reported.replace(block);
        before.map_or((0, 0), |before| {
            let expected = block.highest_seq.wrapping_sub(before.highest_seq);
            // A receiver that begins anew, or nonsense.
            if expected > MAX_REPORTED {
                return (0, 0);
            }
            let lost = expected * u32::from(block.fraction_lost) / 256;
            (expected - lost, lost)
        })
    }

    /// The ids of its m-line, while it can send.
    pub fn extensions(&self) -> Option<&ExtensionIds> {
        let stream = self.stream.as_ref().filter(|stream| stream.active)?;
        Some(&stream.line.extensions)
    }

    /// Whether this packet is of another frame than the last one that was forwarded.
    pub fn begins_frame(&self, packet: &Received<'_>) -> bool {
        self.frame != Some((packet.generation, packet.timestamp))
    }

    /// What flows is being left for something lower.
    pub fn is_falling(&self) -> bool {
        self.selector.is_falling()
    }

    /// Whether this packet is the first of a keyframe with which the receiver's decoder begins anew.
    pub fn would_begin(&self, packet: &Received<'_>) -> bool {
        self.selector.would_begin(packet)
    }

    /// Nothing that was sent until now is sent again: what comes next does not need it.
    pub fn forget_sent(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.cache.clear();
        }
    }

    /// Nothing more goes through before a keyframe.
    pub fn interrupt(&mut self) {
        self.selector.close();
    }

    /// Appends a packet of nothing but padding, as a retransmission: its stream has gaps anyway. Returns its
    /// header's length; `None` where the m-line has no retransmissions or no transport-wide numbers.
    pub fn pad(&mut self, now: Instant, leg: &mut Leg, out: &mut Vec<u8>) -> Option<usize> {
        let stream = self.stream.as_mut().filter(|stream| stream.active)?;
        stream.pad(now, leg, out)
    }

    /// When the next sender report is due.
    pub fn report_at(&self) -> Option<Instant> {
        self.source?;
        let stream = self.stream.as_ref().filter(|stream| stream.active)?;
        // While nothing is sent there is no clock to report.
        stream.report_at.filter(|_| !self.selector.is_closed())
    }

    /// Appends a sender report with its description, if one is due and the source's clock is known.
    pub fn poll_report(
        &mut self,
        now: Instant,
        wall: Ntp,
        clock: &mut dyn FnMut(TrackKey) -> Option<SenderClock>,
        out: &mut Vec<u8>,
    ) -> bool {
        let (Some(source), Some(stream)) = (self.source, &mut self.stream) else {
            return false;
        };
        if !stream.active || stream.report_at.is_none_or(|at| at > now) {
            return false;
        }
        let timestamp = clock(source.track)
            .filter(|clock| self.selector.generation() == Some(clock.generation))
            .map(|clock| clock.timestamp_at(wall, source.codec.clock_rate()))
            .and_then(|timestamp| stream.rewriter.map_timestamp(timestamp));
        let Some(timestamp) = timestamp else {
            stream.report_at = Some(now + REPORT_RETRY);
            return false;
        };
        stream.report_at = Some(now + REPORT_INTERVAL);
        let info = write::SenderInfo {
            ssrc: stream.line.ssrc,
            ntp: wall,
            timestamp: timestamp as u32,
            packets: stream.packets as u32,
            octets: stream.bytes as u32,
        };
        write::sender_report(&info, out);
        write::description(stream.line.ssrc, &stream.line.cname, out);
        true
    }

    /// Its figures, if it carries a track on an m-line.
    pub fn stats(&mut self, now: Instant, sender: u64) -> Option<SenderStats> {
        let source = self.source?;
        let stream = self.stream.as_mut().filter(|stream| stream.active)?;
        let reported = stream.reported;
        Some(SenderStats {
            sender,
            track: source.track,
            layer: self.selector.current(),
            best_layer: self.selector.best_layer(),
            kind: stream.line.kind,
            codec: source.codec,
            packets_sent: stream.packets,
            bytes_sent: stream.bytes,
            bitrate: stream.rate.read(now, stream.bytes),
            retransmitted: stream.retransmitted,
            packets_lost: reported.map_or(0, |block| block.cumulative_lost.max(0) as u64),
            fraction_lost: reported.map_or(0.0, |block| f32::from(block.fraction_lost) / 256.0),
        })
    }

    /// Bytes held for retransmission.
    pub fn memory(&self) -> usize {
        self.stream
            .as_ref()
            .map_or(0, |stream| stream.cache.memory())
    }
}

impl Stream {
    fn new(line: SendLine) -> Self {
        let initial = |ssrc: Ssrc| (ssrc.0 & 0x7fff) as u16;
        Stream {
            active: true,
            format: None,
            rewriter: Rewriter::new(initial(line.ssrc)),
            numbering: Numbering::default(),
            cache: RtxCache::default(),
            rtx_seq: initial(line.rtx_ssrc),
            last_timestamp: 0,
            packets: 0,
            bytes: 0,
            retransmitted: 0,
            report_at: None,
            reported: None,
            rate: RateMeter::default(),
            playout: Playout::default(),
            frames: Frames::default(),
            line,
        }
    }

    /// The leg's payload type for a codec. Looked up when the codec or the m-line changed.
    fn format(&mut self, codec: Codec) -> Result<Format, DropReason> {
        if let Some(format) = self.format.filter(|format| format.codec == codec) {
            return Ok(format);
        }
        let params: &PayloadParams = self
            .line
            .payloads
            .iter()
            .find(|params| params.codec == codec)
            .ok_or(DropReason::CodecNotNegotiated)?;
        let format = Format {
            codec,
            payload_type: params.payload_type,
            rtx: params.rtx.filter(|_| params.nack),
            red: params.red,
            transport_cc: params.transport_cc,
        };
        // A retransmission's payload type names its codec: what another codec left cannot be sent again.
        if self.format.is_some() {
            self.cache.clear();
        }
        self.format = Some(format);
        Ok(format)
    }

    /// Another source, layer or generation begins with this packet.
    fn begin(&mut self, now: Instant, packet: &Received<'_>) {
        let clock_rate = packet.codec.clock_rate();
        self.rewriter
            .begin(now, packet.seq, packet.timestamp, packet.shift, clock_rate);
        self.numbering.begin();
        // The receiver learns at once how the new source's time and the wall clock belong together.
        self.report_at = self.report_at.map(|_| now);
    }

    /// A packet of a temporal layer that the receiver does not get: it does not miss it either.
    fn leave_out(
        &mut self,
        now: Instant,
        leg: &mut Leg,
        format: Format,
        packet: &Received<'_>,
        out: &mut Vec<u8>,
    ) -> Result<usize, DropReason> {
        self.numbering.leave_out(packet.codec, packet.payload);
        match self.rewriter.leave_out(packet.seq, packet.timestamp)? {
            LeftOut::Closed => Err(DropReason::TemporalLayer),
            LeftOut::Hole(place) => {
                let empty = Received {
                    marker: false,
                    dependency_descriptor: None,
                    red: None,
                    payload: &[],
                    ..*packet
                };
                Ok(self.send_at(now, leg, format, place, &empty, out))
            }
        }
    }

    fn send(
        &mut self,
        now: Instant,
        leg: &mut Leg,
        format: Format,
        packet: &Received<'_>,
        out: &mut Vec<u8>,
    ) -> Result<usize, DropReason> {
        let place = self.rewriter.rewrite(now, packet.seq, packet.timestamp)?;
        Ok(self.send_at(now, leg, format, place, packet, out))
    }

    fn send_at(
        &mut self,
        now: Instant,
        leg: &mut Leg,
        format: Format,
        place: Rewritten,
        packet: &Received<'_>,
        out: &mut Vec<u8>,
    ) -> usize {
        let red = packet.red.zip(format.red);
        let protected = self.protect(leg, format, place, packet);
        let payload_type = match format.red {
            Some(payload_type) if red.is_some() || protected => payload_type,
            _ => format.payload_type,
        };
        let fields = HeaderFields {
            payload_type,
            marker: packet.marker,
            seq: place.seq as u16,
            timestamp: place.timestamp as u32,
            ssrc: self.line.ssrc,
        };
        let mut renumbered = [0; MAX_DESCRIPTOR];
        let wanted = self.line.extensions.dependency_descriptor.is_some();
        let descriptor = packet.dependency_descriptor.filter(|_| wanted);
        let descriptor = descriptor.and_then(|descriptor| {
            let copy = renumbered.get_mut(..descriptor.len())?;
            copy.copy_from_slice(descriptor);
            self.numbering.renumber_descriptor(copy);
            Some(&*copy)
        });
        let playout = self.line.extensions.playout_delay.and_then(|_| {
            // What was lost on the way here is repaired first.
            let needed = packet.repair_time + leg.repair_time;
            self.playout.update(now, needed, packet.playout)
        });
        let extensions = Extensions {
            playout_delay: playout,
            audio_level: packet.level,
            video_orientation: packet.orientation,
            dependency_descriptor: descriptor,
            ..leg_extensions(now, leg, &self.line, format)
        };
        let header_len = fields.write(&self.line.extensions, &extensions, out);
        let body = out.len();
        self.last_timestamp = fields.timestamp;
        match red {
            Some((redundant, _)) => redundant.write(format.payload_type, out),
            None if protected => out.extend_from_slice(self.frames.packed()),
            None => out.extend_from_slice(packet.payload),
        }
        self.numbering.renumber(packet.codec, &mut out[body..]);
        self.packets += 1;
        self.bytes += (out.len() - body) as u64;
        self.report_at.get_or_insert(now);
        if format.rtx.is_some() {
            let meta = PacketMeta {
                seq: place.seq,
                timestamp: fields.timestamp,
                marker: packet.marker,
                orientation: packet.orientation,
            };
            let descriptor = descriptor.unwrap_or_default();
            // A retransmission names the plain codec, so that is what it has.
            let plain = if red.is_some() || protected {
                packet.payload
            } else {
                &out[body..]
            };
            self.cache.insert(now, meta, descriptor, plain);
        }
        header_len
    }

    /// Packs a frame together with those before it, where the path loses packets, the peer takes that, and the publisher
    /// has not done it. Whether there was something to pack.
    fn protect(
        &mut self,
        leg: &Leg,
        format: Format,
        place: Rewritten,
        packet: &Received<'_>,
    ) -> bool {
        let wanted = leg.copies > 0 && format.red.is_some() && packet.red.is_none();
        let place = (place.seq, place.timestamp as u32);
        wanted
            && self
                .frames
                .pack(place, packet.payload, leg.copies, format.payload_type)
    }

    fn pad(&mut self, now: Instant, leg: &mut Leg, out: &mut Vec<u8>) -> Option<usize> {
        let format = self.format.filter(|format| format.transport_cc)?;
        self.line.extensions.transport_cc?;
        let payload_type = format.rtx?;
        self.rtx_seq = self.rtx_seq.wrapping_add(1);
        let fields = HeaderFields {
            payload_type,
            marker: false,
            seq: self.rtx_seq,
            timestamp: self.last_timestamp,
            ssrc: self.line.rtx_ssrc,
        };
        let start = out.len();
        let extensions = leg_extensions(now, leg, &self.line, format);
        let header_len = fields.write(&self.line.extensions, &extensions, out);
        // RFC 3550, section 5.1: the P bit, and the count in the last byte.
        out[start] |= 0x20;
        out.resize(out.len() + usize::from(PADDING) - 1, 0);
        out.push(PADDING);
        Some(header_len)
    }

    fn retransmit(
        &mut self,
        now: Instant,
        leg: &mut Leg,
        seq: u16,
        round_trip: Duration,
        out: &mut Vec<u8>,
    ) -> Result<usize, DropReason> {
        let format = self.format.ok_or(DropReason::RetransmissionGone)?;
        let payload_type = format.rtx.ok_or(DropReason::RetransmissionGone)?;
        let cached =
            self.cache
                .take(now, seq, round_trip)
                .map_err(|unavailable| match unavailable {
                    Unavailable::Gone => DropReason::RetransmissionGone,
                    Unavailable::TooSoon => DropReason::RetransmissionTooSoon,
                    Unavailable::Exhausted => DropReason::RetransmissionExhausted,
                })?;
        self.rtx_seq = self.rtx_seq.wrapping_add(1);
        let fields = HeaderFields {
            payload_type,
            marker: cached.meta.marker,
            seq: self.rtx_seq,
            timestamp: cached.meta.timestamp,
            ssrc: self.line.rtx_ssrc,
        };
        let descriptor = cached.dependency_descriptor;
        let extensions = Extensions {
            video_orientation: cached.meta.orientation,
            dependency_descriptor: (!descriptor.is_empty()).then_some(descriptor),
            ..leg_extensions(now, leg, &self.line, format)
        };
        let header_len = fields.write(&self.line.extensions, &extensions, out);
        out.extend_from_slice(&(cached.meta.seq as u16).to_be_bytes());
        out.extend_from_slice(cached.payload);
        self.retransmitted += 1;
        Ok(header_len)
    }
}

/// What every packet of this leg carries, whatever its source.
fn leg_extensions<'l>(
    now: Instant,
    leg: &mut Leg,
    line: &'l SendLine,
    format: Format,
) -> Extensions<'l> {
    let ids = &line.extensions;
    let counted = format.transport_cc && ids.transport_cc.is_some();
    Extensions {
        mid: Some(line.mid.as_str()),
        transport_cc: counted.then(|| leg.next_transport_seq()),
        abs_send_time: ids.abs_send_time.map(|_| leg.send_time(now)),
        ..Extensions::default()
    }
}
