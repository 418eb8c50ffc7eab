//! RTCP (RFC 3550, section 6; feedback: RFC 4585, RFC 5104): [`packets`] reads, [`mod@write`] writes.

pub mod write;

use super::ntp::Ntp;
use super::params::Ssrc;
use super::twcc::Feedback;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const DESCRIPTION: u8 = 202;
const BYE: u8 = 203;
const TRANSPORT_FEEDBACK: u8 = 205;
const PAYLOAD_FEEDBACK: u8 = 206;

/// One packet of a compound. Borrows it.
#[derive(Clone, Copy, Debug)]
pub enum Rtcp<'a> {
    /// RFC 3550, section 6.4.1.
    SenderReport {
        /// Whose media.
        ssrc: Ssrc,
        /// Wall clock of the sender.
        ntp: Ntp,
        /// The same moment on the media clock.
        timestamp: u32,
        /// What it receives.
        blocks: ReportBlocks<'a>,
    },
    /// RFC 3550, section 6.4.2.
    ReceiverReport {
        /// What it receives.
        blocks: ReportBlocks<'a>,
    },
    /// RFC 3550, section 6.6.
    Bye {
        /// The first source that leaves, if any is named.
        ssrc: Option<Ssrc>,
    },
    /// RFC 4585, section 6.2.1.
    Nack {
        /// Whose packets are missing.
        media: Ssrc,
        /// Which.
        seqs: NackSeqs<'a>,
    },
    /// RFC 4585, section 6.3.1.
    Pli {
        /// Whose picture is lost.
        media: Ssrc,
    },
    /// RFC 5104, section 4.3.1.
    Fir {
        /// Who shall send a keyframe.
        requests: FirRequests<'a>,
    },
    /// Receiver estimated maximum bitrate (draft-alvestrand-rmcat-remb-03, section 2.2).
    Remb {
        /// Bit/s.
        bps: u64,
    },
    /// Transport-wide feedback, unread.
    TransportWide(Feedback<'a>),
    /// Well-formed, and of no use here.
    Other {
        /// The packet type.
        packet_type: u8,
    },
}

/// The compound is cut off, or not RTCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed RTCP packet of type {packet_type}")]
pub struct Malformed {
    /// As far as it could be read; 0 otherwise.
    pub packet_type: u8,
}

/// The packets of a compound. One with a bad body is passed over; after a bad header or length nothing follows.
pub fn packets(compound: &[u8]) -> impl Iterator<Item = Result<Rtcp<'_>, Malformed>> {
    let mut rest = compound;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        match split(rest) {
            Some((packet, tail)) => {
                rest = tail;
                Some(read(packet))
            }
            None => {
                let packet_type = rest.get(1).copied().unwrap_or(0);
                rest = &[];
                Some(Err(Malformed { packet_type }))
            }
        }
    })
}

/// One packet with its padding cut off: first byte, packet type, what follows the common header.
struct Raw<'a> {
    count: u8,
    packet_type: u8,
    body: &'a [u8],
}

fn split(bytes: &[u8]) -> Option<(Raw<'_>, &[u8])> {
    let (head, _) = bytes.split_first_chunk::<4>()?;
    if head[0] >> 6 != 2 {
        return None;
    }
    let size = 4 * (usize::from(u16::from_be_bytes([head[2], head[3]])) + 1);
    let (packet, tail) = bytes.split_at_checked(size)?;
    let mut body = &packet[4..];
    if head[0] & 0x20 != 0 {
        let padding = usize::from(*body.last()?);
        body = body.get(..body.len().checked_sub(padding)?)?;
    }
    let raw = Raw {
        count: head[0] & 0x1f,
        packet_type: head[1],
        body,
    };
    Some((raw, tail))
}

fn read(raw: Raw<'_>) -> Result<Rtcp<'_>, Malformed> {
    let packet_type = raw.packet_type;
    let packet = match (packet_type, raw.count) {
        (SENDER_REPORT, count) => sender_report(raw.body, count),
        (RECEIVER_REPORT, count) => receiver_report(raw.body, count),
        (BYE, count) => bye(raw.body, count),
        (TRANSPORT_FEEDBACK, 1) => nack(raw.body),
        (TRANSPORT_FEEDBACK, 15) => Feedback::parse(raw.body).map(Rtcp::TransportWide),
        (PAYLOAD_FEEDBACK, 1) => word(raw.body, 4).map(|media| Rtcp::Pli { media: Ssrc(media) }),
        (PAYLOAD_FEEDBACK, 4) => raw.body.get(8..).map(|rest| Rtcp::Fir {
            requests: FirRequests(rest),
        }),
        // Application layer feedback of any other kind is well formed.
        (PAYLOAD_FEEDBACK, 15) if raw.body.get(8..12) == Some(b"REMB") => remb(raw.body),
        _ => Some(Rtcp::Other { packet_type }),
    };
    packet.ok_or(Malformed { packet_type })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|bytes| u32::from_be_bytes(*bytes))
}

/// `None`: fewer streams are there than it says.
fn remb(body: &[u8]) -> Option<Rtcp<'_>> {
    let fci = body.get(8..)?;
    let (head, streams) = fci.split_first_chunk::<8>()?;
    streams.get(..4 * usize::from(head[4]))?;
    let mantissa = u64::from(u32::from_be_bytes([0, head[5] & 3, head[6], head[7]]));
    let bps = mantissa.checked_shl(u32::from(head[5] >> 2)).unwrap_or(0);
    // What the shift has lost is beyond any link.
    let exact = bps >> (head[5] >> 2) == mantissa;
    Some(Rtcp::Remb {
        bps: if exact { bps } else { u64::MAX },
    })
}

fn sender_report(body: &[u8], count: u8) -> Option<Rtcp<'_>> {
    let ntp = u64::from(word(body, 4)?) << 32 | u64::from(word(body, 8)?);
    Some(Rtcp::SenderReport {
        ssrc: Ssrc(word(body, 0)?),
        ntp: Ntp(ntp),
        timestamp: word(body, 12)?,
        blocks: ReportBlocks::new(body.get(24..)?, count)?,
    })
}

fn receiver_report(body: &[u8], count: u8) -> Option<Rtcp<'_>> {
    let blocks = ReportBlocks::new(body.get(4..)?, count)?;
    Some(Rtcp::ReceiverReport { blocks })
}

/// `None`: fewer sources are there than it says.
fn bye(body: &[u8], count: u8) -> Option<Rtcp<'_>> {
    body.get(..4 * usize::from(count))?;
    Some(Rtcp::Bye {
        ssrc: word(body, 0).map(Ssrc),
    })
}

fn nack(body: &[u8]) -> Option<Rtcp<'_>> {
    Some(Rtcp::Nack {
        media: Ssrc(word(body, 4)?),
        seqs: NackSeqs {
            pairs: body.get(8..)?,
            pending: None,
        },
    })
}

/// How one of our streams fares at its receiver (RFC 3550, section 6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportBlock {
    /// Which stream.
    pub ssrc: Ssrc,
    /// Fraction lost since the last report, of 256.
    pub fraction_lost: u8,
    /// Lost since the beginning; 24 bits with sign.
    pub cumulative_lost: i32,
    /// Highest sequence number, with the count of wraps above.
    pub highest_seq: u32,
    /// Interarrival jitter in units of the media clock.
    pub jitter: u32,
    /// Middle of the NTP time of the last sender report; 0: none came.
    pub last_sr: u32,
    /// Since that report came, in 1/65536 s.
    pub delay_since_last_sr: u32,
}

impl ReportBlock {
    /// Bytes on the wire.
    pub const SIZE: usize = 24;

    fn read(bytes: &[u8; Self::SIZE]) -> Self {
        let word = |at| word(bytes, at).unwrap_or_default();
        ReportBlock {
            ssrc: Ssrc(word(0)),
            fraction_lost: bytes[4],
            cumulative_lost: (word(4) << 8) as i32 >> 8,
            highest_seq: word(8),
            jitter: word(12),
            last_sr: word(16),
            delay_since_last_sr: word(20),
        }
    }
}

/// Iterator over the report blocks of an SR or RR; at most 31.
#[derive(Clone, Copy, Debug)]
pub struct ReportBlocks<'a>(&'a [u8]);

impl<'a> ReportBlocks<'a> {
    /// `None`: there are fewer than `count`.
    fn new(rest: &'a [u8], count: u8) -> Option<Self> {
        rest.get(..usize::from(count) * ReportBlock::SIZE)
            .map(ReportBlocks)
    }
}

impl Iterator for ReportBlocks<'_> {
    type Item = ReportBlock;

    fn next(&mut self) -> Option<ReportBlock> {
        let (block, tail) = self.0.split_first_chunk()?;
        self.0 = tail;
        Some(ReportBlock::read(block))
    }
}

/// Iterator over the sequence numbers of a generic NACK: each pair names one, and up to 16 after it.
#[derive(Clone, Copy, Debug)]
pub struct NackSeqs<'a> {
    pairs: &'a [u8],
    pending: Option<(u16, u16)>,
}

impl Iterator for NackSeqs<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        if let Some((base, mask)) = self.pending.filter(|(_, mask)| *mask != 0) {
            let offset = mask.trailing_zeros() as u16;
            self.pending = Some((base, mask & (mask - 1)));
            return Some(base.wrapping_add(offset + 1));
        }
        let (&[a, b, c, d], tail) = self.pairs.split_first_chunk()?;
        self.pairs = tail;
        let base = u16::from_be_bytes([a, b]);
        self.pending = Some((base, u16::from_be_bytes([c, d])));
        Some(base)
    }
}

/// Iterator over the entries of a full intra request: who, and the number of the request.
#[derive(Clone, Copy, Debug)]
pub struct FirRequests<'a>(&'a [u8]);

impl Iterator for FirRequests<'_> {
    type Item = (Ssrc, u8);

    fn next(&mut self) -> Option<(Ssrc, u8)> {
        let (&[a, b, c, d, number, ..], tail) = self.0.split_first_chunk::<8>()?;
        self.0 = tail;
        Some((Ssrc(u32::from_be_bytes([a, b, c, d])), number))
    }
}

#[cfg(test)]
mod tests;
