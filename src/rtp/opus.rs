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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
        fn any_bytes_give_at_most_120_ms(payload in proptest::collection::vec(any::<u8>(), 0..4)) {
            prop_assert!(payload_samples(&payload).is_none_or(|n| (120..=5760).contains(&n)));
        }
    }
}
