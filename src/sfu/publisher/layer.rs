//! One layer of a track: its stream, what its payloads show, its mute, and the requests for its keyframes.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::inspector::Inspector;
use crate::rtp::header::RtpPacket;
use crate::rtp::ntp::Ntp;
use crate::rtp::params::{MediaKind, Ssrc};
use crate::rtp::red::Red;
use crate::sfu::ingest::{Place, Stream};
use crate::sfu::keyframe::KeyframeRequests;
use crate::sfu::rate::RateMeter;
use crate::sfu::{DropReason, Redundant};

/// A layer that is silent for longer flows no more, if the track goes on without it.
const SILENCE: Duration = Duration::from_millis(900);
/// So many frames of other layers show that the track goes on: a screen that nobody touches sends one in a second.
const FRAMES_WITHOUT: u32 = 5;
/// Temporal layers whose rates are told apart; higher ones count for the last.
const METERED: usize = 4;

/// Whether the publisher's packets go on to the subscribers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mute {
    #[default]
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

/// One layer: its stream, if any has come.
#[derive(Debug, Default)]
pub(in crate::sfu) struct LayerStream {
    pub stream: Option<Stream>,
    pub keyframes: KeyframeRequests,
    pub(super) inspector: Inspector,
    /// Width and height of its last keyframe.
    pub(super) size: Option<(u32, u32)>,
    pub(super) stats_rate: RateMeter,
    generation: u32,
    /// See [`crate::sfu::Received::shift`].
    shift: Option<u64>,
    past: Totals,
    mute: Mute,
    /// Packets that a mute has swallowed: the numbers after it close the gap.
    swallowed: u64,
    /// First packet after the last mute; what is before it stays swallowed.
    resumed_at: u64,
    /// Highest number that went on, as the subscribers know it.
    forwarded: Option<u64>,
    /// Its last packet.
    last: Option<Instant>,
    /// Frames of the other layers since.
    without: u32,
    rate: RateMeter,
    temporal_bytes: [u64; METERED],
    temporal_rates: [RateMeter; METERED],
    temporal_layers: usize,
}

impl LayerStream {
    /// The SSRC of its media.
    pub fn ssrc(&self) -> Option<Ssrc> {
        self.stream.as_ref().map(|stream| stream.ssrc)
    }

    /// The packet's extended number. A new SSRC, or a leap, begins a new generation, with the number
    /// `next_generation`.
    pub(super) fn place(
        &mut self,
        now: Instant,
        packet: &RtpPacket<'_>,
        clock_rate: u32,
        next_generation: &mut u32,
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
            self.restart(now, packet, clock_rate, next_generation);
        }
        loop {
            let stream = self.stream.as_mut().ok_or(DropReason::UnknownSsrc)?;
            match stream.place(packet.seq)? {
                Place::New(seq) => return Ok(seq),
                Place::Restart => self.restart(now, packet, clock_rate, next_generation),
            }
        }
    }

    fn restart(
        &mut self,
        now: Instant,
        packet: &RtpPacket<'_>,
        clock_rate: u32,
        next_generation: &mut u32,
    ) {
        self.past = self.totals();
        self.generation = *next_generation;
        *next_generation += 1;
        self.shift = None;
        self.inspector = Inspector::default();
        let new = Stream::new(packet.ssrc, packet.seq, clock_rate);
        if self.stream.replace(new).is_some() {
            self.swallowed = 0;
            self.resumed_at = 0;
            self.forwarded = None;
            self.keyframes.request(now);
        }
    }

    /// A sender report of its stream.
    pub fn handle_report(&mut self, now: Instant, ntp: Ntp, timestamp: u32, clock_rate: u32) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        stream.handle_report(now, ntp, timestamp);
        if let Some((ntp, timestamp)) = stream.report {
            let ticks = (u128::from(ntp.0) * u128::from(clock_rate)) >> 32;
            self.shift = Some((ticks as u64).wrapping_sub(timestamp));
        }
    }

    /// See [`crate::sfu::Received::shift`].
    pub fn shift(&self) -> Option<u64> {
        self.shift
    }

    /// Stops or resumes what goes on. Video resumes with a keyframe, which is asked for.
    pub(super) fn set_muted(&mut self, now: Instant, muted: bool, kind: MediaKind) {
        self.mute = match (muted, self.mute, kind) {
            (true, _, _) => Mute::On,
            (false, Mute::On, MediaKind::Audio) => Mute::Resuming,
            (false, Mute::On, MediaKind::Video) => {
                self.keyframes.request(now);
                Mute::AwaitingKeyframe
            }
            (false, other, _) => other,
        };
    }

    /// The number under which a packet goes on, or the reason why it does not.
    ///
    /// What a mute swallows leaves no gap, or every subscriber would ask for it again.
    pub(super) fn pass(&mut self, seq: u64, keyframe: bool) -> Result<u64, DropReason> {
        match self.mute {
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
                self.mute = Mute::Off;
            }
        }
        let passed = seq - self.swallowed;
        self.forwarded = self.forwarded.max(Some(passed));
        Ok(passed)
    }

    /// Marks what a packet of redundant audio brings of packets that have not come. `seq` and `timestamp` are its own.
    pub(super) fn recover<'p>(
        &mut self,
        now: Instant,
        red: Red<'p>,
        seq: u64,
        timestamp: u64,
        nack: bool,
    ) -> Redundant<'p> {
        let Some(stream) = &mut self.stream else {
            return Redundant::new(red);
        };
        let resumed_at = self.resumed_at;
        Redundant::with_news(red, |distance, block| {
            let seq = seq.saturating_sub(distance);
            if seq < resumed_at || !stream.take_recovered(seq) {
                return false;
            }
            let timestamp = timestamp.saturating_sub(u64::from(block.timestamp_offset));
            let (reception, size) = (&mut stream.reception, block.payload.len());
            reception.handle_packet(now, seq, timestamp, size, true);
            if nack {
                stream.nack.handle_packet(now, seq, true);
            }
            true
        })
    }

    /// A packet of media came, of this temporal layer if the codec shows it.
    pub(super) fn note_packet(&mut self, now: Instant, temporal: Option<u8>, bytes: usize) {
        self.last = Some(now);
        self.without = 0;
        if let Some(temporal) = temporal {
            let temporal = usize::from(temporal).min(METERED - 1);
            self.temporal_bytes[temporal] += bytes as u64;
            self.temporal_layers = self.temporal_layers.max(temporal + 1);
        }
    }

    /// Another layer sent a whole frame.
    pub(super) fn note_other_frame(&mut self) {
        self.without = self.without.saturating_add(1);
    }

    /// Whether packets of it come, as far as packets of the track come at all.
    pub(super) fn flows(&self, now: Instant) -> bool {
        let recent = |last: Instant| now.saturating_duration_since(last) < SILENCE;
        self.last
            .is_some_and(|last| recent(last) || self.without < FRAMES_WITHOUT)
    }

    /// Whether any of it has come.
    pub(super) fn has_begun(&self) -> bool {
        self.last.is_some()
    }

    /// Bit/s of payload, and of it up to and with each temporal layer.
    pub(super) fn bitrates(&mut self, now: Instant) -> (u64, SmallVec<[u64; 4]>) {
        let all = self.rate.read(now, self.totals().bytes);
        let mut sum = 0;
        let meters = self.temporal_rates.iter_mut().zip(self.temporal_bytes);
        let temporal = meters.take(self.temporal_layers).map(|(meter, bytes)| {
            sum += meter.read(now, bytes);
            sum
        });
        (all, temporal.collect())
    }

    pub(super) fn totals(&self) -> Totals {
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
    pub(super) fn plus(self, other: Totals) -> Totals {
        Totals {
            packets: self.packets + other.packets,
            lost: self.lost + other.lost,
            bytes: self.bytes + other.bytes,
        }
    }
}
