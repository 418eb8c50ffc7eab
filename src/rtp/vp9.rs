//! The VP9 payload descriptor (RFC 9628, section 4.2).

/// A payload descriptor, as far as a forwarding server needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The payload begins with the first byte of a layer frame.
    pub starts_frame: bool,
    /// Depends on earlier pictures.
    pub inter_predicted: bool,
    /// The picture's number, and whether its field has 15 bits, not 7.
    pub picture_id: Option<(u16, bool)>,
    /// Temporal layer, 0 the lowest; `None` without layer indices.
    pub temporal: Option<u8>,
    /// What comes after this picture, in higher temporal layers, depends on nothing before it.
    pub switching_up: bool,
    /// Spatial layer, 0 the lowest.
    pub spatial: u8,
    /// Number of the picture of temporal layer 0 that this one depends on, and where it stands: only in
    /// non-flexible mode.
    tl0_index: Option<(u8, usize)>,
}

const PICTURE_ID_AT: usize = 1;

impl Descriptor {
    /// `None`: the payload is cut off.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let &flags = payload.first()?;
        let mut descriptor = Descriptor {
            starts_frame: flags & 0x08 != 0,
            inter_predicted: flags & 0x40 != 0,
            picture_id: None,
            temporal: None,
            switching_up: false,
            spatial: 0,
            tl0_index: None,
        };
        let mut at = PICTURE_ID_AT;
        if flags & 0x80 != 0 {
            let first = *payload.get(at)?;
            let long = first & 0x80 != 0;
            let value = if long {
                u16::from(first & 0x7f) << 8 | u16::from(*payload.get(at + 1)?)
            } else {
                u16::from(first)
            };
            descriptor.picture_id = Some((value, long));
            at += if long { 2 } else { 1 };
        }
        if flags & 0x20 != 0 {
            let layers = *payload.get(at)?;
            descriptor.temporal = Some(layers >> 5);
            descriptor.switching_up = layers & 0x10 != 0;
            descriptor.spatial = layers >> 1 & 0x07;
            let flexible = flags & 0x10 != 0;
            if !flexible {
                descriptor.tl0_index = Some((*payload.get(at + 1)?, at + 1));
            }
        }
        Some(descriptor)
    }

    /// Number of the picture of temporal layer 0 that this one depends on.
    pub fn tl0_index(&self) -> Option<u8> {
        self.tl0_index.map(|(value, _)| value)
    }

    /// Whether the payload begins a keyframe: a picture that depends on nothing, from its lowest spatial layer.
    pub fn starts_keyframe(&self) -> bool {
        self.starts_frame && !self.inter_predicted && self.spatial == 0
    }

    /// Puts other numbers into the payload of which this is the descriptor; what it does not have stays away.
    /// Dependencies are written as differences, so that all numbers of a stream have to move alike.
    pub fn renumber(&self, payload: &mut [u8], picture_id: u16, tl0_index: u8) {
        match self.picture_id {
            Some((_, true)) => {
                if let Some(field) = payload.get_mut(PICTURE_ID_AT..PICTURE_ID_AT + 2) {
                    field.copy_from_slice(&(picture_id | 0x8000).to_be_bytes());
                }
            }
            Some((_, false)) => {
                if let Some(field) = payload.get_mut(PICTURE_ID_AT) {
                    *field = picture_id as u8 & 0x7f;
                }
            }
            None => {}
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

    #[test]
    fn both_modes_are_read() {
        // I, L, B; id 0x0305; TID 1, U, SID 2; TL0PICIDX 9.
        let fixed = [0xa8, 0x83, 0x05, 0x34, 9, 0xff];
        let descriptor = Descriptor::parse(&fixed).expect("whole");
        assert_eq!(descriptor.picture_id, Some((0x0305, true)));
        assert_eq!(
            (descriptor.temporal, descriptor.switching_up),
            (Some(1), true)
        );
        assert_eq!((descriptor.spatial, descriptor.tl0_index()), (2, Some(9)));
        assert!(!descriptor.starts_keyframe(), "of an upper spatial layer");
        // I, L, F, B; the byte after the layer indices is a reference or payload.
        let flexible = [0xb8, 0x05, 0x40, 0xff];
        let descriptor = Descriptor::parse(&flexible).expect("whole");
        assert_eq!(
            (descriptor.temporal, descriptor.tl0_index()),
            (Some(2), None)
        );
        assert!(descriptor.starts_keyframe());
        assert_eq!(Descriptor::parse(&[0xa8, 0x83, 0x05, 0x34]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_renumbering_keeps_the_form(
            payload in proptest::collection::vec(any::<u8>(), 0..12), id: u16, index: u8
        ) {
            let Some(before) = Descriptor::parse(&payload) else { return Ok(()) };
            let mut changed = payload.clone();
            before.renumber(&mut changed, id, index);
            let after = Descriptor::parse(&changed).expect("as long as before");
            let mask = |long: bool| if long { 0x7fff } else { 0x7f };
            prop_assert_eq!(after.picture_id, before.picture_id.map(|(_, long)| (id & mask(long), long)));
            prop_assert_eq!(after.tl0_index(), before.tl0_index().map(|_| index));
            prop_assert_eq!((after.temporal, after.spatial), (before.temporal, before.spatial));
        }
    }
}
