//! What a sender is to carry of a track, and what there is to choose from.

use smallvec::SmallVec;

use crate::rtp::params::MAX_ENCODINGS;

/// Layers of one track at most: further streams of a simulcast are declined.
pub const MAX_LAYERS: usize = MAX_ENCODINGS;

/// A quality of a track, 0 the lowest. A track without simulcast has the one layer 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Layer(pub u8);

/// What of a track one sender of a subscriber is to carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nothing.
    Paused,
    /// The best layer that flows, up to this one. Where only better ones flow, the lowest of them.
    UpTo {
        /// Highest layer.
        layer: Layer,
        /// Highest temporal id that is sent; `u8::MAX`: all of them. Only where the codec shows them.
        temporal: u8,
    },
}

impl Target {
    /// Everything.
    pub const BEST: Target = Target::UpTo {
        layer: Layer(u8::MAX),
        temporal: u8::MAX,
    };
}

impl Default for Target {
    fn default() -> Self {
        Target::BEST
    }
}

/// The layers of a track that flow: a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerSet(u8);

impl LayerSet {
    /// A track's only layer.
    pub const LOWEST: LayerSet = LayerSet(1);

    /// Adds one of the first eight layers; others are ignored.
    pub fn insert(&mut self, layer: Layer) {
        self.0 |= 1u8.checked_shl(u32::from(layer.0)).unwrap_or(0);
    }

    /// Whether it flows.
    pub fn contains(self, layer: Layer) -> bool {
        1u8.checked_shl(u32::from(layer.0))
            .is_some_and(|bit| self.0 & bit != 0)
    }

    /// The best layer up to `limit`; where there is none, the lowest above it.
    pub fn best(self, limit: Layer) -> Option<Layer> {
        let below = (0..8u8).rev().map(Layer).filter(|layer| *layer <= limit);
        let above = (0..8u8).map(Layer).filter(|layer| *layer > limit);
        below.chain(above).find(|layer| self.contains(*layer))
    }
}

impl FromIterator<Layer> for LayerSet {
    fn from_iter<I: IntoIterator<Item = Layer>>(layers: I) -> Self {
        let mut set = LayerSet::default();
        layers.into_iter().for_each(|layer| set.insert(layer));
        set
    }
}

/// One layer of a published track, in figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerFigures {
    /// Which.
    pub layer: Layer,
    /// Packets came within about the last second, or nothing at all comes of the whole track.
    pub active: bool,
    /// Bit/s of payload over about the last second.
    pub bitrate: u64,
    /// Width and height in pixels by its last keyframe, where the codec shows them (H.264, VP8).
    pub size: Option<(u32, u32)>,
    /// Bit/s that an encoder of ours can go down to for one who receives this layer already. `None`: it cannot.
    pub least: Option<u64>,
    /// Bit/s up to and with each temporal id. Empty: the codec shows none.
    pub temporal_bitrates: SmallVec<[u64; 4]>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_layer_up_to_a_limit_is_chosen_or_else_the_lowest_above() {
        let set: LayerSet = [Layer(0), Layer(2)].into_iter().collect();
        assert_eq!(set.best(Layer(u8::MAX)), Some(Layer(2)));
        assert_eq!(set.best(Layer(1)), Some(Layer(0)));
        let high: LayerSet = [Layer(2), Layer(9)].into_iter().collect();
        assert_eq!(high.best(Layer(0)), Some(Layer(2)));
        assert_eq!(LayerSet::default().best(Layer(2)), None);
        assert!(!high.contains(Layer(9)));
    }
}
