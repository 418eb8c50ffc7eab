//! Selective forwarding, pure: packets in, packets out, time as an argument.
//!
//! The worker owns one [`Publisher`] and one [`Subscriber`] per peer. A packet's life:
//!
//! 1. [`Publisher::handle_rtp`] (ingest): which track, extended numbers, duplicates, retransmissions unwrapped,
//!    keyframe?, audio level; the result is a [`Received`]. The mixer's packets begin here, made by the worker.
//! 2. The worker's fanout calls [`Subscriber::forward`] for each subscription: the selector (which layer, keyframe
//!    gate), the rewriter (sequence and time of that leg), then header, payload, and a copy for retransmission.
//! 3. Back: [`Subscriber::handle_rtcp`] returns keyframe wishes for [`Publisher::request_keyframe`], queues what
//!    [`Subscriber::poll_retransmission`] sends again, and notes the receiver's reports.
//!
//! Everything that is not forwarded has a [`DropReason`] and is counted.

mod allocator;
mod clock;
mod congestion;
mod drops;
mod forwarder;
mod ingest;
mod keyframe;
#[cfg(test)]
mod layers_tests;
mod limit;
#[cfg(test)]
mod narrowing_tests;
mod numbering;
mod pacer;
mod protection;
mod publisher;
mod rate;
mod redundant;
mod rewriter;
mod selector;
#[cfg(test)]
mod simulation;
mod speakers;
mod subscriber;
mod tap;
mod target;
#[cfg(test)]
mod testing;

pub use allocator::{Allocation, Allocator, Budget, Choice, Demand, VIDEO_OVERHEAD};
pub use clock::SenderClock;
pub use drops::{DropCounters, DropReason};
pub use keyframe::REQUEST_WINDOW;
pub use limit::PublishLimit;
pub use publisher::Publisher;
pub use redundant::Redundant;
pub use speakers::{ELECTION, Passage, Sound, Speakers, VoiceId};
pub use subscriber::{FeedbackCounters, SenderStats, Sending, Subscriber};
pub use tap::{Tap, Tapped, layer_for_tile};
pub use target::{Layer, LayerFigures, LayerSet, MAX_LAYERS, Target};

use std::time::Duration;

use crate::ids::TrackKey;
use crate::rtp::extension::AudioLevel;
use crate::rtp::params::{Codec, MediaKind};
use crate::rtp::playout::PlayoutDelay;

/// A track that a peer began to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedTrack {
    /// Its identity in this process.
    pub key: TrackKey,
    /// The track id of the publisher's msid.
    pub track_id: String,
    /// The stream id of the publisher's msid.
    pub stream_id: String,
    /// Audio or video.
    pub kind: MediaKind,
    /// The codec its first packet had.
    pub codec: Codec,
    /// It may come in several layers.
    pub simulcast: bool,
}

/// A packet on its way from a track to its subscribers.
#[derive(Clone, Copy, Debug)]
pub struct Received<'p> {
    /// Which track.
    pub track: TrackKey,
    /// First packet of the track: its beginning is to be announced.
    pub first: bool,
    /// What the payload is.
    pub codec: Codec,
    /// Which quality.
    pub layer: Layer,
    /// The layers of the track that flow now, this one included.
    pub layers: LayerSet,
    /// Temporal layer, 0 the lowest; 0 where the codec does not show it.
    pub temporal: u8,
    /// Whoever was sent less may be sent frames up to this temporal layer from here on. 0: no change.
    pub rises_to: u8,
    /// Tells the streams of the track apart: each layer has its own, and another when its publisher starts over
    /// with a new SSRC. `seq` and `timestamp` of one have nothing to do with those of another; a later one has a
    /// higher number. A mixed track's are numbered as its layers are.
    pub generation: u32,
    /// Extended sequence number. Gaps are real losses.
    pub seq: u64,
    /// Extended timestamp in units of the codec's clock.
    pub timestamp: u64,
    /// Added to `timestamp` (modulo 2⁶⁴) it gives a time line that all streams of the track share. `None`: not
    /// known before the stream's first sender report.
    pub shift: Option<u64>,
    /// The RTP marker.
    pub marker: bool,
    /// A decoder can begin with this packet. True for all audio.
    pub keyframe: bool,
    /// It came by way of a retransmission.
    pub recovered: bool,
    /// A packet of its layer before it is lost for good, and no keyframe has come since: who gets this layer needs one.
    pub broken: bool,
    /// The time after which lost packets of its stream are mostly there after all; zero where few are lost.
    pub repair_time: Duration,
    /// How loud it is (RFC 6464).
    pub level: Option<AudioLevel>,
    /// Video orientation (3GPP TS 26.114), passed on as it came.
    pub orientation: Option<u8>,
    /// How long its publisher wants it to be held back.
    pub playout: Option<PlayoutDelay>,
    /// Passed on as it came, where the leg negotiated it.
    pub dependency_descriptor: Option<&'p [u8]>,
    /// The whole payload, where the publisher sent redundant audio (RFC 2198): `payload` is its newest frame.
    pub red: Option<Redundant<'p>>,
    /// It was lost, and found in redundant audio that came later. A leg that takes that packet whole has it too.
    pub within_red: bool,
    /// Without padding. Empty: the publisher sent padding only; it is forwarded to keep the sequence whole.
    pub payload: &'p [u8],
}

#[cfg(test)]
mod tests;
