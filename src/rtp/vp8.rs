//! The VP8 payload descriptor and the beginning of a keyframe (RFC 7741, sections 4.2 and 4.3; RFC 6386, section 9.1).

mod depacketizer;

pub use depacketizer::Depacketizer;

/// Width and height in pixels of a keyframe, by its header. `None`: it is malformed, or no keyframe.
pub fn frame_size(frame: &[u8]) -> Option<(u32, u32)> {
    // Frame tag, start code, then two numbers of 14 bits with two bits of scaling each.
    let &[tag, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1] = frame.first_chunk::<10>()? else {
        return None;
    };
    let side = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
    (tag & 1 == 0).then(|| (side(w0, w1), side(h0, h1)))
}

/// A field that counts pictures: where it stands and how wide it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureId {
    /// 7 or 15 bits.
    pub value: u16,
    /// 15 bits wide.
    pub long: bool,
    at: usize,
}

impl PictureId {
    /// The values that fit.
    pub fn mask(self) -> u16 {
        if self.long { 0x7fff } else { 0x7f }
    }
}

/// A payload descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The payload begins with the first byte of a frame.
    pub starts_frame: bool,
    /// Number of the picture.
    pub picture_id: Option<PictureId>,
    /// Number of the frame of temporal layer 0 that this one depends on, and where it stands.
    tl0_index: Option<(u8, usize)>,
    /// Temporal layer, 0 the lowest.
    pub temporal: Option<u8>,
    /// Depends on nothing but temporal layer 0.
    pub layer_sync: bool,
    /// Bytes.
    pub length: usize,
}

impl Descriptor {
    /// `None`: the payload is cut off.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let &flags = payload.first()?;
        let mut descriptor = Descriptor {
            starts_frame: flags & 0x10 != 0 && flags & 0x07 == 0,
            picture_id: None,
            tl0_index: None,
            temporal: None,
            layer_sync: false,
            length: 1,
        };
        if flags & 0x80 == 0 {
            return Some(descriptor);
        }
        let extended = *payload.get(1)?;
        let mut at = 2;
        if extended & 0x80 != 0 {
            let first = *payload.get(at)?;
            let long = first & 0x80 != 0;
            let value = if long {
                u16::from(first & 0x7f) << 8 | u16::from(*payload.get(at + 1)?)
            } else {
                u16::from(first)
            };
            descriptor.picture_id = Some(PictureId { value, long, at });
            at += if long { 2 } else { 1 };
        }
        if extended & 0x40 != 0 {
            descriptor.tl0_index = Some((*payload.get(at)?, at));
            at += 1;
        }
        if extended & 0x30 != 0 {
            let layers = *payload.get(at)?;
            if extended & 0x20 != 0 {
                descriptor.temporal = Some(layers >> 6);
                descriptor.layer_sync = layers & 0x20 != 0;
            }
            at += 1;
        }
        descriptor.length = at;
        Some(descriptor)
    }

    /// Number of the frame of temporal layer 0 that this one depends on.
    pub fn tl0_index(&self) -> Option<u8> {
        self.tl0_index.map(|(value, _)| value)
    }

    /// Whether the payload, of which this is the descriptor, begins a keyframe.
    pub fn starts_keyframe(&self, payload: &[u8]) -> bool {
        let inter = payload.get(self.length).is_none_or(|tag| tag & 1 != 0);
        self.starts_frame && !inter
    }

    /// Width and height in pixels, where the payload begins a keyframe.
    pub fn size(&self, payload: &[u8]) -> Option<(u32, u32)> {
        if !self.starts_keyframe(payload) {
            return None;
        }
        frame_size(payload.get(self.length..)?)
    }

    /// Puts other numbers into the payload of which this is the descriptor; what it does not have stays away.
    pub fn renumber(&self, payload: &mut [u8], picture_id: u16, tl0_index: u8) {
        if let Some(id) = self.picture_id {
            let value = picture_id & id.mask();
            if id.long
                && let Some(field) = payload.get_mut(id.at..id.at + 2)
            {
                field.copy_from_slice(&(value | 0x8000).to_be_bytes());
            } else if let Some(field) = payload.get_mut(id.at) {
                *field = value as u8;
            }
        }
        if let Some((_, at)) = self.tl0_index
            && let Some(field) = payload.get_mut(at)
        {
            *field = tl0_index;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As Chromium writes: 15-bit picture id 0x0102, TL0PICIDX 7, TID 2 with Y; then a keyframe of 640x360.
    const KEYFRAME: [u8; 16] = [
        0x90, 0xe0, 0x81, 0x02, 7, 0xa0, 0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01,
    ];

    #[test]
    fn a_full_descriptor_is_read() {
        let descriptor = Descriptor::parse(&KEYFRAME).expect("whole");
        let id = descriptor.picture_id.expect("has one");
        assert_eq!((id.value, id.long), (0x0102, true));
        assert_eq!(descriptor.tl0_index(), Some(7));
        assert_eq!(
            (descriptor.temporal, descriptor.layer_sync),
            (Some(2), true)
        );
        assert_eq!(descriptor.length, 6);
        assert!(descriptor.starts_keyframe(&KEYFRAME));
        assert_eq!(descriptor.size(&KEYFRAME), Some((640, 360)));
    }

    #[test]
    fn a_short_descriptor_has_no_numbers() {
        let descriptor = Descriptor::parse(&[0x10, 0x01]).expect("whole");
        assert_eq!((descriptor.picture_id, descriptor.temporal), (None, None));
        assert!(descriptor.starts_frame && !descriptor.starts_keyframe(&[0x10, 0x01]));
        assert_eq!(Descriptor::parse(&[0x90, 0xe0, 0x81, 0x02, 7]), None);
        assert_eq!(Descriptor::parse(&[]), None);
    }

    #[test]
    fn numbers_are_replaced_in_their_width() {
        let mut payload = KEYFRAME;
        let descriptor = Descriptor::parse(&payload).expect("whole");
        descriptor.renumber(&mut payload, 0xffff, 200);
        let again = Descriptor::parse(&payload).expect("whole");
        assert_eq!(again.picture_id.expect("has one").value, 0x7fff);
        assert_eq!(again.tl0_index(), Some(200));
        assert_eq!(payload[5..], KEYFRAME[5..]);
        let mut short = [0x90, 0x80, 0x05, 0x01];
        let descriptor = Descriptor::parse(&short).expect("whole");
        descriptor.renumber(&mut short, 0x81, 0);
        assert_eq!(short, [0x90, 0x80, 0x01, 0x01]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_renumbering_keeps_the_form(
            payload in proptest::collection::vec(any::<u8>(), 0..20), id: u16, index: u8
        ) {
            let Some(before) = Descriptor::parse(&payload) else { return Ok(()) };
            before.size(&payload);
            let mut changed = payload.clone();
            before.renumber(&mut changed, id, index);
            let after = Descriptor::parse(&changed).expect("as long as before");
            prop_assert_eq!(after.length, before.length);
            prop_assert_eq!(after.temporal, before.temporal);
            prop_assert_eq!(after.picture_id.map(|p| p.value), before.picture_id.map(|p| id & p.mask()));
            prop_assert_eq!(after.tl0_index(), before.tl0_index().map(|_| index));
        }
    }
}
