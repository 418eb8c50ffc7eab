//! Which protocol a datagram on the media port belongs to.

/// What the first bytes of a datagram promise. Only a promise: each protocol's parser has the last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatagramKind {
    /// Connectivity checks, or TURN messages.
    Stun,
    /// Key agreement; SCTP travels inside.
    Dtls,
    /// A TURN channel's data.
    TurnChannel,
    /// SRTP.
    Rtp,
    /// SRTCP, multiplexed with SRTP on one port.
    Rtcp,
    /// Nothing that is spoken here (ZRTP and QUIC included).
    Unknown,
}

/// Sorts a datagram by its first byte (RFC 7983, section 7) and SRTP from SRTCP by its second (RFC 5761,
/// section 4).
pub fn classify(datagram: &[u8]) -> DatagramKind {
    match *datagram {
        [0..=3, ..] => DatagramKind::Stun,
        [20..=63, ..] => DatagramKind::Dtls,
        [64..=79, ..] => DatagramKind::TurnChannel,
        [128..=191, 192..=223, ..] => DatagramKind::Rtcp,
        [128..=191, _, ..] => DatagramKind::Rtp,
        _ => DatagramKind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_borders_of_rfc_7983_are_kept() {
        let kind = |first: u8| classify(&[first, 0]);
        assert_eq!(kind(0), DatagramKind::Stun);
        assert_eq!(kind(3), DatagramKind::Stun);
        assert_eq!(kind(4), DatagramKind::Unknown);
        assert_eq!(kind(19), DatagramKind::Unknown);
        assert_eq!(kind(20), DatagramKind::Dtls);
        assert_eq!(kind(63), DatagramKind::Dtls);
        assert_eq!(kind(64), DatagramKind::TurnChannel);
        assert_eq!(kind(79), DatagramKind::TurnChannel);
        assert_eq!(kind(80), DatagramKind::Unknown);
        assert_eq!(kind(127), DatagramKind::Unknown);
        assert_eq!(kind(128), DatagramKind::Rtp);
        assert_eq!(kind(191), DatagramKind::Rtp);
        assert_eq!(kind(192), DatagramKind::Unknown);
    }

    #[test]
    fn rtcp_is_told_from_rtp_by_its_packet_type() {
        assert_eq!(classify(&[0x80, 191]), DatagramKind::Rtp);
        assert_eq!(classify(&[0x80, 192]), DatagramKind::Rtcp);
        assert_eq!(classify(&[0x80, 223]), DatagramKind::Rtcp);
        assert_eq!(classify(&[0x80, 224]), DatagramKind::Rtp);
    }

    #[test]
    fn short_datagrams_are_nothing() {
        assert_eq!(classify(&[]), DatagramKind::Unknown);
        assert_eq!(classify(&[0x80]), DatagramKind::Unknown);
    }
}
