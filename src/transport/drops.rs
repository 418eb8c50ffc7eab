//! What a transport threw away, and why.

/// Why a datagram, a record or a message was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// Neither STUN nor DTLS (RFC 7983, section 7).
    NotForTransport,
    /// STUN with a wrong length or cookie.
    StunMalformed,
    /// STUN that a controlling peer has no reason to send.
    StunUnexpected,
    /// STUN with a wrong user name, a wrong integrity, or an answer to nothing.
    StunRejected,
    /// A check from one address too many.
    TooManyAddresses,
    /// DTLS from an address that no authenticated check came from.
    DtlsFromStranger,
    /// DTLS before the whole ClientHello, or before the peer's description.
    DtlsEarly,
    /// A DTLS record that the handshake cannot need: it could only break it.
    DtlsImplausible,
    /// One handshake record too many: retransmissions beyond any reason.
    DtlsTooMany,
    /// A DTLS record that was refused after the handshake.
    DtlsRejected,
    /// SCTP that belongs to no association.
    SctpUnexpected,
    /// A message on a stream that is no open data channel, or an opening that is not well-formed.
    ChannelUnknown,
    /// One data channel too many.
    TooManyChannels,
    /// A message longer than the agreed maximum.
    MessageTooLong,
    /// Text that is not UTF-8.
    TextNotUtf8,
    /// The transport is closed.
    Closed,
    /// The stack below panicked on it.
    StackPanicked,
}

impl DropReason {
    /// All of them, for whoever prints the counters.
    pub const ALL: [DropReason; 17] = [
        DropReason::NotForTransport,
        DropReason::StunMalformed,
        DropReason::StunUnexpected,
        DropReason::StunRejected,
        DropReason::TooManyAddresses,
        DropReason::DtlsFromStranger,
        DropReason::DtlsEarly,
        DropReason::DtlsImplausible,
        DropReason::DtlsTooMany,
        DropReason::DtlsRejected,
        DropReason::SctpUnexpected,
        DropReason::ChannelUnknown,
        DropReason::TooManyChannels,
        DropReason::MessageTooLong,
        DropReason::TextNotUtf8,
        DropReason::Closed,
        DropReason::StackPanicked,
    ];

    /// A short name for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            DropReason::NotForTransport => "not_for_transport",
            DropReason::StunMalformed => "stun_malformed",
            DropReason::StunUnexpected => "stun_unexpected",
            DropReason::StunRejected => "stun_rejected",
            DropReason::TooManyAddresses => "too_many_addresses",
            DropReason::DtlsFromStranger => "dtls_from_stranger",
            DropReason::DtlsEarly => "dtls_early",
            DropReason::DtlsImplausible => "dtls_implausible",
            DropReason::DtlsTooMany => "dtls_too_many",
            DropReason::DtlsRejected => "dtls_rejected",
            DropReason::SctpUnexpected => "sctp_unexpected",
            DropReason::ChannelUnknown => "channel_unknown",
            DropReason::TooManyChannels => "too_many_channels",
            DropReason::MessageTooLong => "message_too_long",
            DropReason::TextNotUtf8 => "text_not_utf8",
            DropReason::Closed => "closed",
            DropReason::StackPanicked => "stack_panicked",
        }
    }
}

/// A counter per reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    counts: [u64; DropReason::ALL.len()],
}

impl Drops {
    /// How many were dropped for this reason.
    pub fn count(&self, reason: DropReason) -> u64 {
        self.counts[reason as usize]
    }

    /// Every reason that occurred, with its count.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> {
        DropReason::ALL
            .into_iter()
            .map(|reason| (reason, self.count(reason)))
            .filter(|(_, count)| *count > 0)
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: &Drops) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
    }

    pub(super) fn add(&mut self, reason: DropReason) {
        self.counts[reason as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter() {
        let mut drops = Drops::default();
        for reason in DropReason::ALL {
            drops.add(reason);
        }
        assert!(drops.iter().all(|(_, count)| count == 1));
        assert_eq!(drops.iter().count(), DropReason::ALL.len());
    }
}
