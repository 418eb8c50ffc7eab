//! Names and counters for what is not forwarded.

use std::fmt;

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a packet went no further.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum DropReason {
            $($(#[$doc])* $name,)*
        }

        impl DropReason {
            /// All of them, in the order of their declaration.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$name,)*];

            /// A short name for metrics.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(DropReason::$name => $text,)*
                }
            }
        }
    };
}

drop_reasons! {
    /// Not a well-formed RTP packet.
    Malformed = "malformed",
    /// Not a well-formed RTCP compound; what stood before the fault was used.
    MalformedRtcp = "malformed_rtcp",
    /// Neither SSRC, MID nor payload type tells its m-line.
    UnknownSsrc = "unknown_ssrc",
    /// The table of SSRCs is full.
    SsrcTableFull = "ssrc_table_full",
    /// Redundant audio (RFC 2198) whose headers and lengths do not fit.
    MalformedRed = "malformed_red",
    /// A payload type that its m-line does not have.
    UnknownPayloadType = "unknown_payload_type",
    /// Padding only: a probe for bandwidth.
    Padding = "padding",
    /// Came before.
    Duplicate = "duplicate",
    /// Too far behind to be told from a duplicate, or from before a beginning.
    TooOld = "too_old",
    /// A leap in the sequence that the next packet has not confirmed.
    SequenceJump = "sequence_jump",
    /// Of a stream that its publisher has replaced.
    StaleStream = "stale_stream",
    /// A retransmission for a stream that has not begun.
    UnexpectedRetransmission = "unexpected_retransmission",
    /// The publisher muted the track, or has unmuted it and no keyframe came yet.
    Muted = "muted",
    /// The sender has no m-line (yet).
    NotNegotiated = "not_negotiated",
    /// The sender carries another track, or none.
    NotAttached = "not_attached",
    /// The receiving leg does not take this codec.
    CodecNotNegotiated = "codec_not_negotiated",
    /// The leg takes redundant audio, and the next packet carries this one.
    WithinRed = "within_red",
    /// Another layer is being sent.
    OtherLayer = "other_layer",
    /// A temporal layer above what the receiver gets.
    TemporalLayer = "temporal_layer",
    /// Nothing of the track is sent for now.
    Paused = "paused",
    /// The receiver cannot begin here. Ask the publisher for a keyframe: asking is coalesced.
    AwaitingKeyframe = "awaiting_keyframe",
    /// Too much waits for the pacer: whole frames are left out, up to a keyframe after it has drained.
    PacerFull = "pacer_full",
    /// It waited for the pacer when a keyframe came that makes it useless.
    Superseded = "superseded",
    /// Asked for again, but of a layer that a link which has become too narrow for it is being left for another.
    RetransmissionOfLeft = "retransmission_of_left",
    /// Asked for again, but no longer (or never) in the cache.
    RetransmissionGone = "retransmission_gone",
    /// Asked for again within one round trip.
    RetransmissionTooSoon = "retransmission_too_soon",
    /// Asked for again too often.
    RetransmissionExhausted = "retransmission_exhausted",
    /// Too many requests for retransmission at once.
    RetransmissionQueueFull = "retransmission_queue_full",
}

/// How often each [`DropReason`] occurred.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct DropCounters([u64; DropReason::ALL.len()]);

impl DropCounters {
    /// Counts one more.
    pub fn count(&mut self, reason: DropReason) {
        self.0[reason as usize] += 1;
    }

    /// Counts so many more.
    pub fn count_many(&mut self, reason: DropReason, times: u64) {
        self.0[reason as usize] += times;
    }

    /// How often `reason` occurred.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// Those that occurred.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> {
        DropReason::ALL
            .iter()
            .map(|reason| (*reason, self.get(*reason)))
            .filter(|(_, count)| *count > 0)
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &DropCounters) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }
}

impl fmt::Debug for DropCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(reason, count)| (reason.as_str(), count)))
            .finish()
    }
}
