//! The RTP packet (RFC 3550, section 5.1): a view of one that came, and the writer of one that leaves.

use super::extension::{ExtensionBlock, Extensions};
use super::params::{ExtensionIds, Ssrc};

const FIXED: usize = 12;

/// Bytes that are no RTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Shorter than the header says.
    #[error("the packet ends within its header")]
    Truncated,
    /// Not version 2.
    #[error("not RTP version 2")]
    Version,
    /// Padding count of zero, or longer than the payload.
    #[error("the padding is longer than the payload")]
    Padding,
}

/// A parsed packet. Borrows the datagram; nothing is copied.
#[derive(Clone, Copy, Debug)]
pub struct RtpPacket<'p> {
    /// 0 to 127.
    pub payload_type: u8,
    /// Last packet of a video frame; first of a talk spurt.
    pub marker: bool,
    /// As on the wire.
    pub seq: u16,
    /// As on the wire.
    pub timestamp: u32,
    /// Who sent it.
    pub ssrc: Ssrc,
    /// The header extension; empty when there is none.
    pub extension: ExtensionBlock<'p>,
    /// Header length in bytes, CSRCs and extension included.
    pub header_len: usize,
    /// Without padding. Empty in a packet that is padding only.
    pub payload: &'p [u8],
    /// Padding bytes, their count included.
    pub padding: u8,
}

impl<'p> RtpPacket<'p> {
    /// Reads a decrypted packet.
    pub fn parse(packet: &'p [u8]) -> Result<Self, ParseError> {
        let fixed: &[u8; FIXED] = packet.first_chunk().ok_or(ParseError::Truncated)?;
        if fixed[0] >> 6 != 2 {
            return Err(ParseError::Version);
        }
        let mut header_len = FIXED + 4 * usize::from(fixed[0] & 15);
        let mut extension = ExtensionBlock::default();
        if fixed[0] & 0x10 != 0 {
            let block = packet.get(header_len..).ok_or(ParseError::Truncated)?;
            let (head, data) = block
                .split_first_chunk::<4>()
                .ok_or(ParseError::Truncated)?;
            let size = 4 * usize::from(u16::from_be_bytes([head[2], head[3]]));
            extension = ExtensionBlock {
                profile: u16::from_be_bytes([head[0], head[1]]),
                data: data.get(..size).ok_or(ParseError::Truncated)?,
            };
            header_len += 4 + size;
        }
        let body = packet.get(header_len..).ok_or(ParseError::Truncated)?;
        let padding = padding(fixed[0], body)?;
        Ok(RtpPacket {
            payload_type: fixed[1] & 0x7f,
            marker: fixed[1] & 0x80 != 0,
            seq: u16::from_be_bytes([fixed[2], fixed[3]]),
            timestamp: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            ssrc: Ssrc(u32::from_be_bytes([
                fixed[8], fixed[9], fixed[10], fixed[11],
            ])),
            extension,
            header_len,
            payload: &body[..body.len() - usize::from(padding)],
            padding,
        })
    }
}

/// RFC 3550, section 5.1: the last byte of the padding counts all of it, itself included.
fn padding(first: u8, body: &[u8]) -> Result<u8, ParseError> {
    if first & 0x20 == 0 {
        return Ok(0);
    }
    match body.last() {
        Some(&count) if count > 0 && usize::from(count) <= body.len() => Ok(count),
        _ => Err(ParseError::Padding),
    }
}

/// The fixed part of a header to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderFields {
    /// 0 to 127.
    pub payload_type: u8,
    /// See [`RtpPacket::marker`].
    pub marker: bool,
    /// Sequence number.
    pub seq: u16,
    /// Timestamp.
    pub timestamp: u32,
    /// Sender.
    pub ssrc: Ssrc,
}

impl HeaderFields {
    /// Appends the header with those of `extensions` that have an id; returns its length in bytes.
    pub fn write(
        &self,
        ids: &ExtensionIds,
        extensions: &Extensions<'_>,
        out: &mut Vec<u8>,
    ) -> usize {
        let start = out.len();
        let mut fixed = [0; FIXED];
        fixed[0] = 0x80;
        fixed[1] = (self.payload_type & 0x7f) | if self.marker { 0x80 } else { 0 };
        fixed[2..4].copy_from_slice(&self.seq.to_be_bytes());
        fixed[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        fixed[8..].copy_from_slice(&self.ssrc.0.to_be_bytes());
        out.extend_from_slice(&fixed);
        if extensions.write(ids, out) {
            out[start] |= 0x10;
        }
        out.len() - start
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FIELDS: HeaderFields = HeaderFields {
        payload_type: 102,
        marker: true,
        seq: 0xfff0,
        timestamp: 0x8000_0001,
        ssrc: Ssrc(0xdead_beef),
    };

    fn ids() -> ExtensionIds {
        ExtensionIds {
            mid: Some(4),
            transport_cc: Some(3),
            ..ExtensionIds::default()
        }
    }

    #[test]
    fn a_written_header_is_read_back() {
        let extensions = Extensions {
            mid: Some("0"),
            transport_cc: Some(77),
            ..Extensions::default()
        };
        let mut out = Vec::new();
        let header_len = FIELDS.write(&ids(), &extensions, &mut out);
        out.extend_from_slice(b"payload");
        let packet = RtpPacket::parse(&out).expect("own packet");
        assert_eq!(packet.header_len, header_len);
        assert_eq!(packet.payload, b"payload");
        assert!(packet.marker);
        assert_eq!(
            (
                packet.payload_type,
                packet.seq,
                packet.timestamp,
                packet.ssrc
            ),
            (102, 0xfff0, 0x8000_0001, Ssrc(0xdead_beef))
        );
        assert_eq!(Extensions::parse(packet.extension, &ids()), extensions);
    }

    #[test]
    fn contributing_sources_are_skipped() {
        let mut packet = vec![0x82, 111, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
        packet.extend_from_slice(&[9; 8]);
        packet.extend_from_slice(b"x");
        let parsed = RtpPacket::parse(&packet).expect("two CSRCs");
        assert_eq!(parsed.header_len, 20);
        assert_eq!(parsed.payload, b"x");
    }

    #[test]
    fn padding_is_cut_off_and_never_trusted() {
        let with = |tail: &[u8]| {
            let mut packet = vec![0xa0, 97, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
            packet.extend_from_slice(tail);
            RtpPacket::parse(&packet).map(|parsed| (parsed.payload.to_vec(), parsed.padding))
        };
        assert_eq!(with(&[1, 2, 0, 2]), Ok((vec![1, 2], 2)));
        assert_eq!(with(&[0, 0, 3]), Ok((vec![], 3)));
        assert_eq!(with(&[0, 0, 4]), Err(ParseError::Padding));
        assert_eq!(with(&[0, 0, 0]), Err(ParseError::Padding));
        assert_eq!(with(&[]), Err(ParseError::Padding));
    }

    #[test]
    fn a_header_cut_anywhere_is_an_error() {
        let mut out = Vec::new();
        let extensions = Extensions {
            mid: Some("0"),
            ..Extensions::default()
        };
        let header_len = FIELDS.write(&ids(), &extensions, &mut out);
        for length in 0..header_len {
            assert_eq!(
                RtpPacket::parse(&out[..length]).err(),
                Some(ParseError::Truncated)
            );
        }
        assert_eq!(RtpPacket::parse(&[0; 12]).err(), Some(ParseError::Version));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut packet in proptest::collection::vec(any::<u8>(), 0..80), version in any::<bool>()) {
            if let (true, Some(first)) = (version, packet.first_mut()) {
                *first = *first & 0x3f | 0x80;
            }
            if let Ok(parsed) = RtpPacket::parse(&packet) {
                prop_assert_eq!(
                    parsed.header_len + parsed.payload.len() + usize::from(parsed.padding),
                    packet.len()
                );
            }
        }
    }
}
