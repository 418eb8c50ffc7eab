//! Redundant audio (RFC 2198): one packet carries the newest frame, and before it some that were sent already.

/// Redundant blocks of one packet. Browsers send one or two; a packet with more is malformed.
pub const MAX_REDUNDANT: usize = 8;

/// Bytes of the header of a redundant block (RFC 2198, section 3).
const BLOCK_HEADER: usize = 4;

/// A payload that is no redundant audio: a header or a block runs over its end, or there are too many blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a well-formed RED payload")]
pub struct Malformed;

/// One frame in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<'p> {
    /// What it is, in the numbers of the leg that it came on.
    pub payload_type: u8,
    /// How much older than the packet's timestamp it is, in units of the clock: 0 to 16383.
    pub timestamp_offset: u16,
    /// The frame.
    pub payload: &'p [u8],
}

/// A payload whose headers and lengths are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Red<'p> {
    payload: &'p [u8],
    redundant: usize,
}

impl<'p> Red<'p> {
    /// Checks a payload. Every later access is within it.
    ///
    /// # Errors
    /// [`Malformed`]: see there.
    pub fn parse(payload: &'p [u8]) -> Result<Self, Malformed> {
        let mut redundant = 0;
        let mut blocks_len = 0;
        loop {
            let at = redundant * BLOCK_HEADER;
            let first = *payload.get(at).ok_or(Malformed)?;
            if first & 0x80 == 0 {
                let headers = at + 1;
                return if headers + blocks_len <= payload.len() {
                    Ok(Red { payload, redundant })
                } else {
                    Err(Malformed)
                };
            }
            let header = payload.get(at..at + BLOCK_HEADER).ok_or(Malformed)?;
            blocks_len += block_len(header);
            redundant += 1;
            if redundant > MAX_REDUNDANT {
                return Err(Malformed);
            }
        }
    }

    /// Number of redundant blocks.
    pub fn redundant(&self) -> usize {
        self.redundant
    }

    /// All blocks, oldest first; the last is the packet's own frame.
    pub fn blocks(self) -> impl Iterator<Item = Block<'p>> {
        let headers_len = self.redundant * BLOCK_HEADER + 1;
        let (headers, mut data) = self.payload.split_at(headers_len);
        (0..=self.redundant).map(move |index| {
            let header = &headers[index * BLOCK_HEADER..];
            let (offset, len) = match header {
                [_, offset, low, _, ..] if index < self.redundant => {
                    let offset = u16::from(*offset) << 6 | u16::from(*low) >> 2;
                    (offset, block_len(header))
                }
                _ => (0, data.len()),
            };
            let (payload, rest) = data.split_at(len);
            data = rest;
            Block {
                payload_type: header[0] & 0x7f,
                timestamp_offset: offset,
                payload,
            }
        })
    }

    /// The packet's own frame.
    pub fn primary(self) -> Block<'p> {
        let headers_len = self.redundant * BLOCK_HEADER + 1;
        let headers = &self.payload[..headers_len];
        let redundant: usize = headers.as_chunks::<BLOCK_HEADER>().0[..self.redundant]
            .iter()
            .map(|header| block_len(header))
            .sum();
        Block {
            payload_type: headers[headers_len - 1] & 0x7f,
            timestamp_offset: 0,
            payload: &self.payload[headers_len + redundant..],
        }
    }

    /// Appends the payload as another leg numbers it: blocks of type `from` become `to`, and redundant blocks of any
    /// other type, which mean nothing there, are left out.
    pub fn write(self, from: u8, to: u8, out: &mut Vec<u8>) {
        let keeps = |block: &Block<'_>| block.payload_type == from;
        let redundant = || self.blocks().take(self.redundant).filter(keeps);
        for block in redundant() {
            let (offset, len) = (block.timestamp_offset, block.payload.len());
            out.extend_from_slice(&[
                0x80 | to,
                (offset >> 6) as u8,
                (offset << 2) as u8 | (len >> 8) as u8,
                len as u8,
            ]);
        }
        out.push(to & 0x7f);
        for block in redundant() {
            out.extend_from_slice(block.payload);
        }
        out.extend_from_slice(self.primary().payload);
    }
}

/// Ten bits.
fn block_len(header: &[u8]) -> usize {
    usize::from(header[2] & 3) << 8 | usize::from(header[3])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A payload of redundant blocks `(type, offset, payload)` and a last one.
    fn packed(redundant: &[(u8, u16, Vec<u8>)], last: (u8, &[u8])) -> Vec<u8> {
        let mut out = Vec::new();
        for (payload_type, offset, payload) in redundant {
            let word = 1 << 31
                | u32::from(*payload_type) << 24
                | u32::from(*offset) << 10
                | payload.len() as u32;
            out.extend_from_slice(&word.to_be_bytes());
        }
        out.push(last.0);
        redundant
            .iter()
            .for_each(|(_, _, payload)| out.extend(payload));
        out.extend_from_slice(last.1);
        out
    }

    #[test]
    fn a_packet_of_a_browser_has_its_frame_and_the_one_before() {
        let payload = packed(&[(111, 960, b"before".to_vec())], (111, b"now"));
        let red = Red::parse(&payload).expect("well-formed");
        let blocks: Vec<Block<'_>> = red.blocks().collect();
        assert_eq!(
            blocks,
            [
                Block {
                    payload_type: 111,
                    timestamp_offset: 960,
                    payload: b"before"
                },
                Block {
                    payload_type: 111,
                    timestamp_offset: 0,
                    payload: b"now"
                },
            ]
        );
        assert_eq!(red.primary(), blocks[1]);
    }

    #[test]
    fn the_first_packet_of_a_talk_has_its_frame_alone() {
        let red = Red::parse(&[111, 1, 2]).expect("well-formed");
        assert_eq!((red.redundant(), red.primary().payload), (0, &[1, 2][..]));
    }

    #[test]
    fn what_runs_over_the_end_is_malformed() {
        let whole = packed(&[(111, 960, vec![7; 300])], (111, b""));
        assert!(Red::parse(&whole).is_ok());
        for len in 0..whole.len() {
            assert_eq!(Red::parse(&whole[..len]), Err(Malformed), "{len} bytes");
        }
        let endless = [0xef, 0, 0, 0].repeat(400);
        assert_eq!(Red::parse(&endless), Err(Malformed));
    }

    #[test]
    fn another_leg_gets_its_own_numbers_and_no_foreign_blocks() {
        let payload = packed(
            &[
                (111, 1920, b"a".to_vec()),
                (13, 960, b"noise".to_vec()),
                (111, 960, b"b".to_vec()),
            ],
            (111, b"c"),
        );
        let mut out = Vec::new();
        Red::parse(&payload)
            .expect("well-formed")
            .write(111, 96, &mut out);
        let expected = packed(
            &[(96, 1920, b"a".to_vec()), (96, 960, b"b".to_vec())],
            (96, b"c"),
        );
        assert_eq!(out, expected);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_within_their_bounds(payload in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(red) = Red::parse(&payload) {
                let total: usize = red.blocks().map(|block| block.payload.len()).sum();
                prop_assert_eq!(total + red.redundant() * 4 + 1, payload.len());
                prop_assert_eq!(red.blocks().last(), Some(red.primary()));
                let mut out = Vec::new();
                red.write(red.primary().payload_type, 96, &mut out);
                prop_assert!(Red::parse(&out).is_ok() && out.len() <= payload.len());
            }
        }

        #[test]
        fn what_was_packed_is_read(
            redundant in proptest::collection::vec(
                (0u8..128, 0u16..16_384, proptest::collection::vec(any::<u8>(), 0..1024)), 0..=MAX_REDUNDANT),
            last in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let payload = packed(&redundant, (111, &last));
            let red = Red::parse(&payload).expect("well-formed");
            let read: Vec<_> = red.blocks().take(red.redundant())
                .map(|b| (b.payload_type, b.timestamp_offset, b.payload.to_vec())).collect();
            prop_assert_eq!(read, redundant);
            prop_assert_eq!(red.primary().payload, &last[..]);
        }
    }
}
