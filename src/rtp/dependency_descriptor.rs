//! The dependency descriptor (AV1 RTP payload specification, appendix A), for any codec: which temporal layer a frame
//! belongs to, and where more of them may be decoded.

/// Templates of one structure at most: ids have six bits.
const MAX_TEMPLATES: usize = 64;
/// Decode targets at most: their count has five bits.
const MAX_TARGETS: usize = 32;
/// Bytes of the fields that every descriptor has.
const MANDATORY: usize = 3;

/// Decode target indication: the target needs nothing before this frame, if the frame itself can be decoded.
const SWITCH: u8 = 2;
const NOT_PRESENT: u8 = 0;

/// The number of the frame; `None`: the descriptor is cut off.
pub fn frame_number(descriptor: &[u8]) -> Option<u16> {
    let bytes = descriptor.get(1..MANDATORY)?.first_chunk()?;
    Some(u16::from_be_bytes(*bytes))
}

/// Puts another number into a descriptor. Dependencies are differences: all numbers of a stream have to move alike.
pub fn set_frame_number(descriptor: &mut [u8], number: u16) {
    if let Some(field) = descriptor.get_mut(1..MANDATORY) {
        field.copy_from_slice(&number.to_be_bytes());
    }
}

/// What one descriptor says about its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLayers {
    /// Temporal layer, 0 the lowest.
    pub temporal: u8,
    /// Whoever can decode this frame can decode all up to this temporal layer from here on, if that is more.
    pub rises_to: u8,
}

/// The template structure in force, from the last descriptor that carried one: a keyframe's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Structure {
    id_offset: u8,
    count: u8,
    temporal: [u8; MAX_TEMPLATES],
    rises_to: [u8; MAX_TEMPLATES],
}

impl Structure {
    /// The structure that a descriptor carries. `None`: it carries none, or a malformed one.
    pub fn parse(descriptor: &[u8]) -> Option<Self> {
        let mut bits = Bits {
            data: descriptor.get(MANDATORY..)?,
            position: 0,
        };
        if bits.read(1)? == 0 {
            return None;
        }
        // Other flags: active decode targets, custom indications, differences and chains. All of them stand behind.
        bits.read(4)?;
        let id_offset = bits.read(6)? as u8;
        let targets = bits.read(5)? as usize + 1;
        let mut temporal = [0; MAX_TEMPLATES];
        let count = template_layers(&mut bits, &mut temporal)?;
        let mut indications = [[NOT_PRESENT; MAX_TARGETS]; MAX_TEMPLATES];
        for template in indications.iter_mut().take(count) {
            for indication in template.iter_mut().take(targets) {
                *indication = bits.read(2)? as u8;
            }
        }
        let indications = &indications[..count];
        let target_temporal: [u8; MAX_TARGETS] = std::array::from_fn(|target| {
            let of_target = indications
                .iter()
                .zip(&temporal)
                .filter(|(template, _)| template[target] != NOT_PRESENT);
            of_target.map(|(_, temporal)| *temporal).max().unwrap_or(0)
        });
        let mut rises_to = [0; MAX_TEMPLATES];
        for (highest, template) in rises_to.iter_mut().zip(indications) {
            *highest = highest_switch(&template[..targets], &target_temporal);
        }
        Some(Structure {
            id_offset,
            count: count as u8,
            temporal,
            rises_to,
        })
    }

    /// What a descriptor says under this structure. `None`: it names a template that there is not.
    pub fn layers(&self, descriptor: &[u8]) -> Option<FrameLayers> {
        let id = descriptor.first()? & 0x3f;
        let index = id.wrapping_sub(self.id_offset) & 0x3f;
        let index = usize::from(Some(index).filter(|index| *index < self.count)?);
        Some(FrameLayers {
            temporal: self.temporal[index],
            rises_to: self.rises_to[index],
        })
    }
}

/// A.8.2, template_layers: returns how many templates there are.
fn template_layers(bits: &mut Bits<'_>, temporal: &mut [u8; MAX_TEMPLATES]) -> Option<usize> {
    let mut current = 0u8;
    for (index, entry) in temporal.iter_mut().enumerate() {
        *entry = current;
        match bits.read(2)? {
            0 => {}
            1 => current += 1,
            2 => current = 0,
            _ => return Some(index + 1),
        }
    }
    None
}

/// The highest temporal layer of which all targets that the frame belongs to may be switched to.
fn highest_switch(indications: &[u8], temporal: &[u8; MAX_TARGETS]) -> u8 {
    let present = || {
        let targets = indications.iter().zip(temporal);
        targets.filter(|(indication, _)| **indication != NOT_PRESENT)
    };
    let all_switch = |layer: u8| {
        present()
            .filter(|(_, temporal)| **temporal == layer)
            .all(|(indication, _)| *indication == SWITCH)
    };
    present()
        .map(|(_, layer)| *layer)
        .filter(|layer| all_switch(*layer))
        .max()
        .unwrap_or(0)
}

struct Bits<'a> {
    data: &'a [u8],
    position: usize,
}

impl Bits<'_> {
    fn read(&mut self, count: usize) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            let byte = self.data.get(self.position / 8)?;
            value = value << 1 | u32::from(byte >> (7 - self.position % 8) & 1);
            self.position += 1;
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Packs numbers of given widths into bytes.
    fn pack(fields: &[(u32, usize)]) -> Vec<u8> {
        let bits: Vec<u8> = fields
            .iter()
            .flat_map(|&(value, width)| (0..width).rev().map(move |bit| (value >> bit & 1) as u8))
            .collect();
        bits.chunks(8)
            .map(|byte| {
                byte.iter()
                    .enumerate()
                    .fold(0, |sum, (at, bit)| sum | bit << (7 - at))
            })
            .collect()
    }

    /// L1T3 as libwebrtc writes it: templates T0 (key), T0, T1, T2, T2; targets T0, T1, T2.
    fn l1t3() -> Vec<u8> {
        let mut fields = vec![(1, 1), (1, 1), (10, 6), (0x1234, 16)];
        fields.extend([(1, 1), (0, 4), (10, 6), (2, 5)]);
        fields.extend([(0, 2), (1, 2), (1, 2), (0, 2), (3, 2)]);
        for template in ["SSS", "SSS", "-DS", "--D", "--D"] {
            fields.extend(template.chars().map(|c| match c {
                'S' => (2, 2),
                'D' => (1, 2),
                _ => (0, 2),
            }));
        }
        // No differences, no chains, no resolutions: not read.
        fields.extend([(0, 5), (0, 2), (0, 1)]);
        pack(&fields)
    }

    #[test]
    fn the_layers_of_l1t3_are_told() {
        let descriptor = l1t3();
        let structure = Structure::parse(&descriptor).expect("carries one");
        let of = |template: u8| structure.layers(&[0xc0 | (10 + template), 0, 0]);
        let layers = |temporal, rises_to| Some(FrameLayers { temporal, rises_to });
        assert_eq!(of(0), layers(0, 2));
        assert_eq!(of(1), layers(0, 2));
        assert_eq!(of(2), layers(1, 2));
        assert_eq!(of(3), layers(2, 0));
        assert_eq!(of(4), layers(2, 0));
        assert_eq!(of(5), None, "there are five templates");
    }

    #[test]
    fn the_frame_number_is_read_and_replaced() {
        let mut descriptor = l1t3();
        assert_eq!(frame_number(&descriptor), Some(0x1234));
        set_frame_number(&mut descriptor, 0xfffe);
        assert_eq!(frame_number(&descriptor), Some(0xfffe));
        assert!(Structure::parse(&descriptor).is_some());
        assert_eq!(frame_number(&descriptor[..2]), None);
        assert_eq!(Structure::parse(&descriptor[..3]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(descriptor in proptest::collection::vec(any::<u8>(), 0..80), id: u8) {
            frame_number(&descriptor);
            if let Some(structure) = Structure::parse(&descriptor)
                && let Some(layers) = structure.layers(&[id, 0, 0])
            {
                prop_assert!(usize::from(layers.temporal) < MAX_TEMPLATES);
            }
            let mut changed = descriptor.clone();
            set_frame_number(&mut changed, 7);
            prop_assert_eq!(changed.len(), descriptor.len());
        }

        #[test]
        fn a_structure_that_is_cut_off_is_refused(length in 0usize..10) {
            prop_assert_eq!(Structure::parse(&l1t3()[..length]), None);
        }
    }
}
