//! Where a decoder can begin: looking into video payloads for the start of a keyframe.

use super::params::Codec;
use super::{vp8, vp9};

/// Whether this payload is (or holds) the start of a keyframe. Audio needs none, so it always can begin.
///
/// True for the first packet of a keyframe only, never for its continuation: a receiver that gets this packet and
/// all that follow can decode.
pub fn starts_keyframe(codec: Codec, payload: &[u8]) -> bool {
    match codec {
        Codec::Opus | Codec::G722 | Codec::Pcmu | Codec::Pcma => true,
        Codec::H264 => h264(payload),
        Codec::Vp8 => vp8::Descriptor::parse(payload).is_some_and(|d| d.starts_keyframe(payload)),
        Codec::Vp9 => vp9::Descriptor::parse(payload).is_some_and(|d| d.starts_keyframe()),
        Codec::Av1 => av1(payload),
    }
}

const SPS: u8 = 7;
const IDR: u8 = 5;

/// RFC 6184: an SPS or the start of an IDR slice, alone, in a STAP-A, or in the first fragment of an FU-A.
fn h264(payload: &[u8]) -> bool {
    let starts = |nal_type: u8| nal_type == SPS || nal_type == IDR;
    let Some((&first, rest)) = payload.split_first() else {
        return false;
    };
    match first & 0x1f {
        24 => stap_a_types(rest).any(starts),
        28 => rest
            .first()
            .is_some_and(|header| header & 0x80 != 0 && starts(header & 0x1f)),
        single => starts(single),
    }
}

/// NAL unit types in a STAP-A (RFC 6184, section 5.7.1), after its own header byte.
fn stap_a_types(mut rest: &[u8]) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let (size, tail) = rest.split_first_chunk::<2>()?;
        let size = usize::from(u16::from_be_bytes(*size));
        let nal = tail.get(..size)?;
        rest = &tail[size..];
        Some(nal.first()? & 0x1f)
    })
}

/// RTP payload format for AV1, section 4.4: N marks the first packet of a coded video sequence.
fn av1(payload: &[u8]) -> bool {
    payload
        .first()
        .is_some_and(|header| header & 0x08 != 0 && header & 0x80 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn h264_keyframes_begin_with_sps_or_idr() {
        let is = |payload: &[u8]| starts_keyframe(Codec::H264, payload);
        assert!(is(&[0x67, 0x42]));
        assert!(is(&[0x65, 0x88]));
        assert!(!is(&[0x41, 0x9a]));
        assert!(
            is(&[0x78, 0, 2, 0x67, 0x42, 0, 1, 0x68]),
            "STAP-A of SPS, PPS"
        );
        assert!(is(&[0x78, 0, 1, 0x06, 0, 1, 0x65]), "STAP-A of SEI, IDR");
        assert!(!is(&[0x78, 0, 1, 0x41, 0, 1, 0x06]));
        assert!(!is(&[0x78, 0, 9, 0x67]), "size beyond the payload");
        assert!(is(&[0x7c, 0x85, 1]), "first fragment of an IDR");
        assert!(!is(&[0x7c, 0x05, 1]), "middle fragment");
        assert!(!is(&[0x7c, 0x81, 1]), "first fragment of a P slice");
    }

    #[test]
    fn vp8_keyframes_begin_with_the_first_partition() {
        let is = |payload: &[u8]| starts_keyframe(Codec::Vp8, payload);
        assert!(is(&[0x10, 0x00]));
        assert!(!is(&[0x10, 0x01]));
        assert!(!is(&[0x00, 0x00]), "continuation");
        assert!(!is(&[0x11, 0x00]), "second partition");
        assert!(is(&[0x90, 0x80, 0x81, 0x02, 0x00]), "15-bit picture id");
        assert!(
            is(&[0x90, 0xe0, 0x01, 0x02, 0x40, 0x00]),
            "7-bit id, TL0PICIDX, TID"
        );
        assert!(!is(&[0x90, 0xe0, 0x01, 0x02, 0x40]), "cut off");
    }

    #[test]
    fn vp9_keyframes_are_not_predicted_and_of_the_lowest_layer() {
        let is = |payload: &[u8]| starts_keyframe(Codec::Vp9, payload);
        assert!(is(&[0x8a, 0x81, 0x02, 1]));
        assert!(!is(&[0xca, 0x81, 0x02, 1]), "inter-predicted");
        assert!(!is(&[0x82, 0x81, 0x02, 1]), "not its beginning");
        assert!(is(&[0xa8, 0x01, 0x00, 0x00]));
        assert!(!is(&[0xa8, 0x01, 0x02, 0x00]), "spatial layer 1");
    }

    #[test]
    fn av1_keyframes_carry_the_n_bit() {
        let is = |payload: &[u8]| starts_keyframe(Codec::Av1, payload);
        assert!(is(&[0x18, 0x0a]));
        assert!(!is(&[0x10, 0x0a]));
        assert!(!is(&[0x98, 0x0a]), "continuation of an OBU");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(payload in proptest::collection::vec(any::<u8>(), 0..12)) {
            for codec in Codec::ALL {
                starts_keyframe(codec, &payload);
            }
        }
    }
}
