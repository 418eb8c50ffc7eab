//! Opus payloads, as far as forwarding and buffering need to look into them.

/// Samples per channel at 48 kHz in a payload, from its table-of-contents byte (RFC 6716, section 3.1).
///
/// `None` for an empty payload, and for one that claims no frame or more than 120 ms (section 3.2.5).
pub fn payload_samples(payload: &[u8]) -> Option<u32> {
    let toc = *payload.first()?;
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(*payload.get(1)? & 0x3f),
    };
    let samples = frames * frame_samples(toc >> 3);
    (1..=5760).contains(&samples).then_some(samples)
}

/// Samples of one frame by configuration number (RFC 6716, table 2).
fn frame_samples(config: u8) -> u32 {
    match config {
        // SILK: 10, 20, 40, 60 ms.
        0..=11 => [480, 960, 1920, 2880][usize::from(config & 3)],
        // Hybrid: 10, 20 ms.
        12..=15 => [480, 960][usize::from(config & 1)],
        // CELT: 2.5, 5, 10, 20 ms.
        _ => [120, 240, 480, 960][usize::from(config & 3)],
    }
}

/// The fewest streams of a packet that [`is_surround`] knows: those of 5.1.
const SURROUND_STREAMS: usize = 4;
/// The most: those of eight channels that are not coupled.
const MOST_STREAMS: usize = 8;
/// Bytes of the longest frame (RFC 6716, section 3.2.1).
const MAX_FRAME: usize = 1275;

/// Whether a payload is a multistream packet of 5.1 or more channels (RFC 7845, section 5.1.1; browsers call it
/// `multiopus`): self-delimited packets (RFC 6716, appendix B) and a plain one behind them, all of one duration. For a
/// decoder of one stream it looks like an ordinary packet, and sounds like noise.
///
/// Every multistream packet is known by this, and of ordinary ones some three in a hundred thousand are taken for one.
pub fn is_surround(payload: &[u8]) -> bool {
    let Some(samples) = payload_samples(payload) else {
        return false;
    };
    let mut rest = payload;
    for streams in 2..=MOST_STREAMS {
        match packet(rest, true) {
            Some((duration, behind)) if duration == samples => rest = behind,
            _ => return false,
        }
        let last = packet(rest, false).map(|(duration, _)| duration);
        if streams >= SURROUND_STREAMS && last == Some(samples) {
            return true;
        }
    }
    false
}

/// One packet at the beginning of `bytes`: its duration in samples, and what lies behind it. One that is not self-delimited
/// takes all there is.
fn packet(bytes: &[u8], delimited: bool) -> Option<(u32, &[u8])> {
    let samples = payload_samples(bytes)?;
    let mut rest = Bytes(bytes);
    let (frames, padding, equal) = match rest.byte()? & 3 {
        0 => (1, 0, true),
        1 => (2, 0, true),
        2 => (2, 0, false),
        _ => {
            let count = rest.byte()?;
            let padding = if count & 0x40 == 0 {
                0
            } else {
                rest.padding()?
            };
            (usize::from(count & 0x3f), padding, count & 0x80 == 0)
        }
    };
    let mut content = padding;
    for _ in 1..if equal { 1 } else { frames } {
        content += rest.frame_length()?;
    }
    if delimited {
        let last = rest.frame_length()?;
        content += if equal { frames * last } else { last };
    } else {
        let last = rest.0.len().checked_sub(content)?;
        let (each, over) = if equal {
            (last / frames, last % frames)
        } else {
            (last, 0)
        };
        if each > MAX_FRAME || over > 0 {
            return None;
        }
        content += last;
    }
    Some((samples, rest.0.get(content..)?))
}

/// Bytes that are read one by one.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// Section 3.2.1.
    fn frame_length(&mut self) -> Option<usize> {
        let first = usize::from(self.byte()?);
        if first < 252 {
            return Some(first);
        }
        Some(first + 4 * usize::from(self.byte()?))
    }

    /// Section 3.2.5: 255 stands for 254 and another byte.
    fn padding(&mut self) -> Option<usize> {
        let mut padding = 0;
        loop {
            match self.byte()? {
                255 => padding += 254,
                last => return Some(padding + usize::from(last)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A self-delimited packet of each of the four codes, 20 ms in all, and what makes it plain: the bytes of its length left out.
    const CODES: [(&[u8], &[u8]); 5] = [
        (&[0x78, 3, 1, 2, 3], &[0x78, 1, 2, 3]),
        (&[0x71, 2, 1, 2, 3, 4], &[0x71, 1, 2, 3, 4]),
        (&[0x72, 1, 2, 1, 2, 3], &[0x72, 1, 1, 2, 3]),
        // Four frames of 5 ms: of one size with padding, and of different sizes.
        (
            &[0xeb, 0x44, 2, 1, 1, 2, 3, 4, 0, 0],
            &[0xeb, 0x44, 2, 1, 2, 3, 4, 0, 0],
        ),
        (
            &[0xeb, 0x84, 1, 0, 2, 1, 1, 2, 3, 4],
            &[0xeb, 0x84, 1, 0, 2, 1, 2, 3, 4],
        ),
    ];

    #[test]
    fn three_packets_of_any_code_before_a_plain_one_are_surround() {
        for (_, plain) in CODES {
            for (first, _) in CODES {
                for (second, _) in CODES {
                    let all = [first, second, first, plain].concat();
                    assert!(is_surround(&all), "{all:x?}");
                    assert!(!is_surround(&all[..all.len() - plain.len()]), "no last");
                    let two = [first, second, plain].concat();
                    assert!(!is_surround(&two), "{two:x?}: three streams");
                }
            }
        }
    }

    #[test]
    fn packets_of_different_durations_are_not_surround() {
        let ten: &[u8] = &[0x70, 3, 1, 2, 3];
        let (twenty, plain) = CODES[0];
        assert!(!is_surround(&[twenty, ten, twenty, plain].concat()));
        assert!(!is_surround(
            &[twenty, twenty, twenty, &[0x70, 1, 2]].concat()
        ));
    }

    #[test]
    fn browsers_send_twenty_milliseconds() {
        // 0x78: hybrid 20 ms, mono, one frame. 0x6f would be three-coded.
        assert_eq!(payload_samples(&[0x78, 1, 2]), Some(960));
        assert_eq!(payload_samples(&[0xfc, 1, 2]), Some(960));
    }

    #[test]
    fn frames_are_counted() {
        assert_eq!(payload_samples(&[0x79, 0]), Some(1920));
        assert_eq!(payload_samples(&[0x7b, 3]), Some(2880));
        assert_eq!(payload_samples(&[0x7b, 7]), None, "140 ms");
        assert_eq!(payload_samples(&[0x7b, 0]), None, "no frame");
        assert_eq!(payload_samples(&[0x7b]), None);
        assert_eq!(payload_samples(&[]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_surround_or_not(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            // Nothing is promised of them but an answer.
            let _ = is_surround(&payload);
        }

        #[test]
        fn any_bytes_give_at_most_120_ms(payload in proptest::collection::vec(any::<u8>(), 0..4)) {
            prop_assert!(payload_samples(&payload).is_none_or(|n| (120..=5760).contains(&n)));
        }
    }
}
