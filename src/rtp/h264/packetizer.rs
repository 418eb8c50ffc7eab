//! Access units into RTP payloads.

use super::nal;

/// Largest payload made, in bytes: with headers, extensions and SRTP it stays below 1280.
pub const MAX_PAYLOAD: usize = 1180;

const STAP_A_HEADER: usize = 1;
const STAP_A_SIZE: usize = 2;
const FU_A_HEADER: usize = 2;

/// Cuts access units into payloads. Keeps a buffer, so that a steady stream allocates nothing.
#[derive(Debug, Default)]
pub struct Packetizer {
    payload: Vec<u8>,
}

impl Packetizer {
    /// Calls `emit` with each payload of an Annex-B access unit, and whether it is the last (the RTP marker).
    ///
    /// Small NAL units that stand together share a STAP-A, large ones become FU-A fragments of even size, and
    /// access unit delimiters are left out: timestamp and marker say as much.
    pub fn packetize(&mut self, access_unit: &[u8], mut emit: impl FnMut(&[u8], bool)) {
        let mut units = NalUnits::new(access_unit)
            .filter(|unit| nal::of(unit[0]) != nal::DELIMITER)
            .peekable();
        while let Some(unit) = units.next() {
            let next_fits =
                |used: usize, next: &[u8]| used + STAP_A_SIZE + next.len() <= MAX_PAYLOAD;
            let alone = STAP_A_HEADER + STAP_A_SIZE + unit.len();
            if units.peek().is_some_and(|next| next_fits(alone, next)) {
                self.payload.clear();
                self.payload.push(nal::STAP_A);
                self.aggregate(unit);
                while let Some(next) = units.next_if(|next| next_fits(self.payload.len(), next)) {
                    self.aggregate(next);
                }
                emit(&self.payload, units.peek().is_none());
            } else if unit.len() <= MAX_PAYLOAD {
                emit(unit, units.peek().is_none());
            } else {
                self.fragment(unit, units.peek().is_none(), &mut emit);
            }
        }
    }

    /// RFC 6184, section 5.7.1. The aggregate's NRI is the highest of its units.
    fn aggregate(&mut self, unit: &[u8]) {
        let importance = (self.payload[0] & 0x60).max(unit[0] & 0x60);
        self.payload[0] = importance | nal::STAP_A;
        self.payload
            .extend_from_slice(&(unit.len() as u16).to_be_bytes());
        self.payload.extend_from_slice(unit);
    }

    /// RFC 6184, section 5.8.
    fn fragment(&mut self, unit: &[u8], last: bool, emit: &mut impl FnMut(&[u8], bool)) {
        let (header, body) = (unit[0], &unit[1..]);
        let count = body.len().div_ceil(MAX_PAYLOAD - FU_A_HEADER);
        let size = body.len().div_ceil(count);
        let mut fragments = body.chunks(size).enumerate().peekable();
        while let Some((nth, fragment)) = fragments.next() {
            let end = fragments.peek().is_none();
            let flags = if nth == 0 { 0x80 } else { 0 } | if end { 0x40 } else { 0 };
            self.payload.clear();
            self.payload
                .extend_from_slice(&[header & 0xe0 | nal::FU_A, flags | nal::of(header)]);
            self.payload.extend_from_slice(fragment);
            emit(&self.payload, end && last);
        }
    }
}

/// The NAL units of an Annex-B byte stream (ITU-T H.264, annex B), without start codes; empty ones are skipped.
struct NalUnits<'a> {
    rest: &'a [u8],
}

impl<'a> NalUnits<'a> {
    fn new(stream: &'a [u8]) -> Self {
        let start = start_code(stream).map_or(stream.len(), |at| at + 3);
        NalUnits {
            rest: &stream[start..],
        }
    }
}

impl<'a> Iterator for NalUnits<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let end = start_code(self.rest);
            let mut unit = &self.rest[..end.unwrap_or(self.rest.len())];
            self.rest = end.map_or(&[], |at| &self.rest[at + 3..]);
            // Zeros before a start code belong to it: a NAL unit never ends with one (section 7.4.1).
            while let [head @ .., 0] = unit {
                unit = head;
            }
            if !unit.is_empty() {
                return Some(unit);
            }
        }
        None
    }
}

/// Where the next `00 00 01` stands.
fn start_code(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(&third) = bytes.get(at + 2) {
        match third {
            0 => at += 1,
            1 if bytes[at] == 0 && bytes[at + 1] == 0 => return Some(at),
            _ => at += 3,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_start_codes_and_trailing_zeros_are_understood() {
        let stream = [
            0, 0, 1, 0x67, 1, 0, 0, 0, 1, 0x68, 2, 0, 0, 0, 0, 1, 0x65, 3, 0, 0,
        ];
        let units: Vec<&[u8]> = NalUnits::new(&stream).collect();
        assert_eq!(units, [&[0x67u8, 1][..], &[0x68, 2], &[0x65, 3]]);
    }

    #[test]
    fn a_stream_without_start_code_gives_nothing() {
        assert_eq!(NalUnits::new(&[0x65, 1, 2, 3]).count(), 0);
        assert_eq!(NalUnits::new(&[]).count(), 0);
        assert_eq!(NalUnits::new(&[0, 0, 1]).count(), 0);
    }

    #[test]
    fn delimiters_are_left_out() {
        let mut payloads = Vec::new();
        Packetizer::default().packetize(
            &[0, 0, 1, 9, 0xf0, 0, 0, 1, 0x41, 5],
            |payload, marker| {
                payloads.push((payload.to_vec(), marker));
            },
        );
        assert_eq!(payloads, [(vec![0x41, 5], true)]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(stream in proptest::collection::vec(0u8..4, 0..200)) {
            Packetizer::default().packetize(&stream, |payload, _| assert!(!payload.is_empty()));
        }

        #[test]
        fn start_codes_are_found_where_a_plain_search_finds_them(stream in proptest::collection::vec(0u8..3, 0..60)) {
            prop_assert_eq!(start_code(&stream), stream.windows(3).position(|three| three == [0, 0, 1]));
        }
    }
}
