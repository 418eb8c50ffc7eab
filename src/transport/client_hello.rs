//! Reads the SRTP profiles that a client offers from its first ClientHello, before a DTLS configuration is made:
//! the stack under us takes the client's favourite, and Chromium lists the slow one first.
//!
//! The message may be spread over several records and datagrams (Chromium: 1200 + 263 bytes), in any order.

use bytes::BytesMut;

/// Bytes of a DTLS record header (RFC 6347, section 4.3.1).
pub(super) const RECORD_HEADER: usize = 13;
/// Bytes of a handshake message header (RFC 6347, section 4.3.2).
pub(super) const HANDSHAKE_HEADER: usize = 12;
/// Content type of a handshake record.
pub(super) const HANDSHAKE: u8 = 22;

/// Handshake type of a ClientHello.
const CLIENT_HELLO: u8 = 1;
/// Longest ClientHello: three times what post-quantum browsers send. A longer one is ignored.
const MAX_HELLO: usize = 8192;
/// Datagrams kept until the message is whole. Further ones are dropped; the client repeats them.
const MAX_HELD: usize = 16;
/// The `use_srtp` extension (RFC 5764, section 4.1.1).
const USE_SRTP: u16 = 14;

/// Collects the first ClientHello.
#[derive(Default)]
pub(super) struct HelloReader {
    body: Vec<u8>,
    filled: Vec<bool>,
    held: Vec<BytesMut>,
}

/// A whole ClientHello.
pub(super) struct Hello {
    /// The offered profile codes, in the client's order; empty without `use_srtp`.
    pub(super) srtp_profiles: Vec<u16>,
    /// Every datagram that had a part of it, for the DTLS stack.
    pub(super) datagrams: Vec<BytesMut>,
}

impl HelloReader {
    /// Takes a datagram. Answers the ClientHello once it is whole; then the reader is empty again.
    pub(super) fn push(&mut self, datagram: &[u8]) -> Option<Hello> {
        let mut useful = false;
        for record in Records::new(datagram) {
            useful |= record.content_type == HANDSHAKE && self.take_fragment(record.body);
        }
        if !useful {
            return None;
        }
        if self.held.len() < MAX_HELD {
            self.held.push(BytesMut::from(datagram));
        }
        if self.filled.contains(&false) {
            return None;
        }
        let HelloReader { body, held, .. } = std::mem::take(self);
        Some(Hello {
            srtp_profiles: use_srtp(&body).unwrap_or_default(),
            datagrams: held,
        })
    }

    /// Whether the record holds a part of the ClientHello that is being read, or begins another.
    fn take_fragment(&mut self, body: &[u8]) -> bool {
        let Some(fragment) = Fragment::parse(body) else {
            return false;
        };
        if fragment.kind != CLIENT_HELLO || fragment.length == 0 || fragment.length > MAX_HELLO {
            return false;
        }
        if self.body.len() != fragment.length {
            *self = HelloReader {
                body: vec![0; fragment.length],
                filled: vec![false; fragment.length],
                held: Vec::new(),
            };
        }
        let range = fragment.offset..fragment.offset + fragment.data.len();
        self.body[range.clone()].copy_from_slice(fragment.data);
        self.filled[range].fill(true);
        true
    }
}

/// A record of a datagram.
pub(super) struct Record<'a> {
    /// Content type.
    pub(super) content_type: u8,
    /// Major and minor version.
    pub(super) version: u16,
    /// Key epoch.
    pub(super) epoch: u16,
    /// What follows the header.
    pub(super) body: &'a [u8],
    /// Header and body.
    pub(super) whole: &'a [u8],
}

/// The records of a datagram (RFC 6347, section 4.1.1), up to the first that is not whole.
pub(super) struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    pub(super) fn new(datagram: &'a [u8]) -> Self {
        Records { rest: datagram }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let header = self.rest.get(..RECORD_HEADER)?;
        let len = usize::from(be16(header, 11)?);
        let whole = self.rest.get(..RECORD_HEADER + len)?;
        self.rest = &self.rest[RECORD_HEADER + len..];
        Some(Record {
            content_type: whole[0],
            version: be16(whole, 1)?,
            epoch: be16(whole, 3)?,
            body: &whole[RECORD_HEADER..],
            whole,
        })
    }
}

/// A handshake message or a part of one, consistent in itself.
pub(super) struct Fragment<'a> {
    /// Handshake type.
    pub(super) kind: u8,
    /// Bytes of the whole message.
    pub(super) length: usize,
    /// Number of the message.
    pub(super) sequence: u16,
    /// Where this part begins.
    pub(super) offset: usize,
    /// This part.
    pub(super) data: &'a [u8],
}

impl<'a> Fragment<'a> {
    /// The first one of a record's body.
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let header = body.get(..HANDSHAKE_HEADER)?;
        let length = be24(header, 1)?;
        let offset = be24(header, 6)?;
        let fragment = be24(header, 9)?;
        if offset + fragment > length {
            return None;
        }
        Some(Fragment {
            kind: header[0],
            length,
            sequence: be16(header, 4)?,
            offset,
            data: body.get(HANDSHAKE_HEADER..HANDSHAKE_HEADER + fragment)?,
        })
    }
}

/// The profiles of a ClientHello's body (RFC 5246, section 7.4.1.2; RFC 6347, section 4.2.1; RFC 5764, 4.1.1).
fn use_srtp(hello: &[u8]) -> Option<Vec<u16>> {
    let mut at = 2 + 32;
    at += 1 + usize::from(*hello.get(at)?); // session id
    at += 1 + usize::from(*hello.get(at)?); // cookie
    at += 2 + usize::from(be16(hello, at)?); // cipher suites
    at += 1 + usize::from(*hello.get(at)?); // compression methods
    let len = usize::from(be16(hello, at)?);
    let mut extensions = hello.get(at + 2..at + 2 + len)?;
    while let (Some(kind), Some(len)) = (be16(extensions, 0), be16(extensions, 2)) {
        let body = extensions.get(4..4 + usize::from(len))?;
        if kind == USE_SRTP {
            let profiles = body.get(2..2 + usize::from(be16(body, 0)?))?;
            return Some(
                profiles
                    .chunks_exact(2)
                    .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
                    .collect(),
            );
        }
        extensions = &extensions[4 + usize::from(len)..];
    }
    None
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([pair[0], pair[1]]))
}

fn be24(bytes: &[u8], at: usize) -> Option<usize> {
    let three = bytes.get(at..at + 3)?;
    Some(usize::from(three[0]) << 16 | usize::from(three[1]) << 8 | usize::from(three[2]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A ClientHello body with some padding extension and these profiles.
    fn body(profiles: &[u16], padding: usize) -> Vec<u8> {
        let mut body = vec![0xfe, 0xfd];
        body.extend([7; 32]);
        body.extend([0, 0]); // no session id, no cookie
        body.extend([0, 2, 0xc0, 0x2b, 1, 0]); // one suite, one compression method
        let mut extensions = vec![0, 21];
        extensions.extend((padding as u16).to_be_bytes());
        extensions.extend(vec![0; padding]);
        extensions.extend([0, 14]);
        extensions.extend((2 * profiles.len() as u16 + 3).to_be_bytes());
        extensions.extend((2 * profiles.len() as u16).to_be_bytes());
        for profile in profiles {
            extensions.extend(profile.to_be_bytes());
        }
        extensions.push(0);
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(extensions);
        body
    }

    fn datagram(body: &[u8], offset: usize, len: usize) -> Vec<u8> {
        let n24 = |n: usize| (n as u32).to_be_bytes()[1..].to_vec();
        let mut message = vec![CLIENT_HELLO];
        message.extend(n24(body.len()));
        message.extend([0, 0]);
        message.extend(n24(offset));
        message.extend(n24(len));
        message.extend(&body[offset..offset + len]);
        let mut record = vec![HANDSHAKE, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];
        record.extend((message.len() as u16).to_be_bytes());
        record.extend(message);
        record
    }

    #[test]
    fn the_profiles_of_a_hello_in_one_piece_are_read() {
        let body = body(&[1, 8, 7], 10);
        let hello = HelloReader::default()
            .push(&datagram(&body, 0, body.len()))
            .expect("whole");
        assert_eq!(hello.srtp_profiles, [1, 8, 7]);
        assert_eq!(hello.datagrams.len(), 1);
    }

    #[test]
    fn fragments_are_joined_in_any_order_and_may_repeat() {
        let body = body(&[7], 1400);
        let (first, second) = (
            datagram(&body, 0, 1200),
            datagram(&body, 1200, body.len() - 1200),
        );
        for order in [[&first, &first, &second], [&second, &second, &first]] {
            let mut reader = HelloReader::default();
            assert!(reader.push(order[0]).is_none());
            assert!(reader.push(order[1]).is_none());
            let hello = reader.push(order[2]).expect("whole");
            assert_eq!(hello.srtp_profiles, [7]);
            assert_eq!(hello.datagrams.len(), 3);
        }
    }

    #[test]
    fn a_hello_without_use_srtp_offers_nothing() {
        let mut body = body(&[7], 0);
        let at = body.len() - 9;
        body[at..at + 2].copy_from_slice(&[0, 99]);
        let hello = HelloReader::default().push(&datagram(&body, 0, body.len()));
        assert!(hello.expect("whole").srtp_profiles.is_empty());
    }

    #[test]
    fn a_fragment_beyond_its_message_is_refused() {
        let body = body(&[7], 0);
        let mut wrong = datagram(&body, 0, body.len());
        wrong[RECORD_HEADER + 8] = 9; // the offset
        assert!(HelloReader::default().push(&wrong).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn no_bytes_panic(
            profiles in prop::collection::vec(any::<u16>(), 0..4),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let body = body(&profiles, 40);
            let mut bytes = datagram(&body, 0, body.len());
            for (at, value) in flips {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            bytes.truncate(cut.index(bytes.len()) + 1);
            let _ = HelloReader::default().push(&bytes);
        }
    }
}
