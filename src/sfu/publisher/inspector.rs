//! What the payloads and descriptors of one stream show.

use crate::rtp::dependency_descriptor::Structure;
use crate::rtp::keyframe::starts_keyframe;
use crate::rtp::params::Codec;
use crate::rtp::{h264, vp8, vp9};

/// What one packet shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    /// A decoder can begin with it.
    pub keyframe: bool,
    /// Its temporal layer; `None`: the codec does not show it.
    pub temporal: Option<u8>,
    /// See [`crate::sfu::Received::rises_to`].
    pub rises_to: u8,
    /// Width and height, of a keyframe.
    pub size: Option<(u32, u32)>,
}

/// Looks into packets; keeps the template structure of the dependency descriptors, which only keyframes carry.
#[derive(Debug, Default)]
pub(super) struct Inspector {
    structure: Option<Box<Structure>>,
}

impl Inspector {
    /// What a packet shows.
    pub fn inspect(&mut self, codec: Codec, payload: &[u8], descriptor: Option<&[u8]>) -> Shown {
        let mut shown = match codec {
            Codec::Opus | Codec::G722 | Codec::Pcmu | Codec::Pcma => {
                return Shown {
                    keyframe: true,
                    ..Shown::default()
                };
            }
            Codec::Vp8 => vp8(payload),
            Codec::Vp9 => vp9(payload),
            Codec::H264 | Codec::Av1 => Shown {
                keyframe: starts_keyframe(codec, payload),
                ..self.described(descriptor.unwrap_or_default())
            },
        };
        if shown.keyframe {
            shown.rises_to = u8::MAX;
            if codec == Codec::H264 {
                shown.size = h264::picture_size(payload);
            }
        }
        shown
    }

    fn described(&mut self, descriptor: &[u8]) -> Shown {
        if let Some(new) = Structure::parse(descriptor) {
            match &mut self.structure {
                Some(structure) => **structure = new,
                None => self.structure = Some(Box::new(new)),
            }
        }
        let structure = self.structure.as_ref();
        match structure.and_then(|structure| structure.layers(descriptor)) {
            Some(layers) => Shown {
                temporal: Some(layers.temporal),
                rises_to: layers.rises_to,
                ..Shown::default()
            },
            None => Shown::default(),
        }
    }
}

fn vp8(payload: &[u8]) -> Shown {
    let Some(descriptor) = vp8::Descriptor::parse(payload) else {
        return Shown::default();
    };
    let synced = descriptor.temporal.filter(|_| descriptor.layer_sync);
    Shown {
        keyframe: descriptor.starts_keyframe(payload),
        temporal: descriptor.temporal,
        rises_to: synced.unwrap_or(0),
        size: descriptor.size(payload),
    }
}

fn vp9(payload: &[u8]) -> Shown {
    let Some(descriptor) = vp9::Descriptor::parse(payload) else {
        return Shown::default();
    };
    Shown {
        keyframe: descriptor.starts_keyframe(),
        temporal: descriptor.temporal,
        rises_to: if descriptor.switching_up { u8::MAX } else { 0 },
        size: None,
    }
}
