//! What a session counts.

/// Why a packet from the network went no further than the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounters {
    /// SRTP before the keys are known.
    pub early: u64,
    /// SRTP or SRTCP that fails authentication, or is replayed or malformed.
    pub unauthentic: u64,
    /// RTP that the ingest refused, for its own counted reasons.
    pub refused: u64,
    /// Datagrams that the transport refused (STUN, DTLS).
    pub transport: u64,
    /// Data-channel messages that were binary or too long.
    pub channel: u64,
    /// Beyond what one member may send, by what it was.
    pub flood: Flood,
    /// Bytes from the peer, any protocol.
    pub bytes_in: u64,
    /// Bytes to the peer, media only.
    pub bytes_out: u64,
}

impl SessionCounters {
    /// Adds another's counts.
    pub fn merge(&mut self, other: &SessionCounters) {
        self.early += other.early;
        self.unauthentic += other.unauthentic;
        self.refused += other.refused;
        self.transport += other.transport;
        self.channel += other.channel;
        self.flood.merge(&other.flood);
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
    }
}

/// Authentic packets and messages beyond a member's [`Allowance`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flood {
    /// RTP packets.
    pub media: u64,
    /// RTCP packets.
    pub reports: u64,
    /// STUN and DTLS datagrams.
    pub transport: u64,
    /// Texts on the data channel.
    pub texts: u64,
}

impl Flood {
    fn merge(&mut self, other: &Flood) {
        self.media += other.media;
        self.reports += other.reports;
        self.transport += other.transport;
        self.texts += other.texts;
    }
}
