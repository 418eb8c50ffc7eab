//! One track as a single clean stream for somebody in this process: the room's mixer.

use std::time::Instant;

use super::rewriter::{LeftOut, Rewriter};
use super::selector::{Admission, Selector};
use super::{DropReason, Layer, LayerFigures, Received, Target};

/// The share of a tile's pixels, in percent, that a layer must have to be good enough for it: what is missing is less than
/// what the next layer, mostly four times as large, costs to decode.
const ENOUGH: u64 = 60;

/// A packet's place in the single stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tapped {
    /// Extended sequence number. Gaps are real losses.
    pub seq: u64,
    /// Extended timestamp in units of the codec's clock.
    pub timestamp: u64,
}

/// Takes one layer of a track at a time, as a subscriber does: each begins with a keyframe, and the numbers go on.
#[derive(Clone, Debug)]
pub struct Tap {
    selector: Selector,
    rewriter: Rewriter,
}

impl Default for Tap {
    fn default() -> Self {
        Tap {
            selector: Selector::default(),
            rewriter: Rewriter::new(0),
        }
    }
}

impl Tap {
    /// Wants something else from now on; see [`super::Subscriber::set_target`].
    pub fn set_target(&mut self, target: Target) -> Option<Layer> {
        self.selector.set_target(target)
    }

    /// The layer whose keyframe helps; see [`super::Subscriber`]. `None`: nothing is wanted.
    pub fn needed(&self) -> Option<Layer> {
        self.selector.needed()
    }

    /// The place of this packet, if it is taken. After [`DropReason::AwaitingKeyframe`] its layer is to be asked for
    /// one.
    pub fn take(&mut self, now: Instant, packet: &Received<'_>) -> Result<Tapped, DropReason> {
        match self.selector.admit(packet) {
            Ok(Admission::Continues) => self.rewriter.set_shift(packet.shift),
            Ok(Admission::Begins) => self.rewriter.begin(
                now,
                packet.seq,
                packet.timestamp,
                packet.shift,
                packet.codec.clock_rate(),
            ),
            Err(DropReason::TemporalLayer) => {
                // Whatever hole remains, the reader's jitter buffer steps over it.
                let _: LeftOut = self.rewriter.leave_out(packet.seq, packet.timestamp)?;
                return Err(DropReason::TemporalLayer);
            }
            Err(reason) => return Err(reason),
        }
        let place = self.rewriter.rewrite(now, packet.seq, packet.timestamp)?;
        Ok(Tapped {
            seq: place.seq,
            timestamp: place.timestamp,
        })
    }
}

/// The smallest layer that fills a tile of this width and height; the largest one where none does.
pub fn layer_for_tile(layers: &[LayerFigures], tile: (u32, u32)) -> Layer {
    let area = |(width, height): (u32, u32)| u64::from(width) * u64::from(height);
    let fills = |figures: &&LayerFigures| {
        figures
            .size
            .is_some_and(|size| area(size) * 100 >= area(tile) * ENOUGH)
    };
    let known = |figures: &&LayerFigures| figures.size.is_some();
    let largest = || layers.iter().rev().find(known).or(layers.first());
    layers
        .iter()
        .find(fills)
        .or_else(largest)
        .map_or(Layer(0), |figures| figures.layer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TrackKey;
    use crate::sfu::LayerSet;
    use crate::sfu::testing::*;

    const TRACK: TrackKey = TrackKey(1);

    #[test]
    fn a_tile_gets_the_smallest_layer_that_fills_it() {
        let figures = |layer, size| LayerFigures {
            layer: Layer(layer),
            size,
            ..LayerFigures::default()
        };
        let layers = [
            figures(0, Some((320, 180))),
            figures(1, Some((640, 360))),
            figures(2, Some((1280, 720))),
        ];
        for (tile, layer) in [
            ((128, 72), 0),
            ((320, 180), 0),
            ((400, 224), 0),
            ((426, 240), 1),
            ((640, 360), 1),
            ((960, 540), 2),
            ((1920, 1080), 2),
        ] {
            assert_eq!(layer_for_tile(&layers, tile), Layer(layer), "{tile:?}");
        }
        let upright = [
            figures(0, Some((90, 160))),
            figures(1, Some((360, 640))),
            figures(2, None),
        ];
        assert_eq!(layer_for_tile(&upright, (640, 360)), Layer(1));
        assert_eq!(layer_for_tile(&upright, (1920, 1080)), Layer(1));
        let unknown = [figures(0, None), figures(1, None)];
        assert_eq!(layer_for_tile(&unknown, (640, 360)), Layer(0));
        assert_eq!(layer_for_tile(&layers[2..], (16, 16)), Layer(2));
        assert_eq!(layer_for_tile(&[], (16, 16)), Layer(0));
    }

    #[test]
    fn another_layer_joins_at_its_keyframe_without_a_gap() {
        let now = start();
        let both: LayerSet = [Layer(0), Layer(1)].into_iter().collect();
        let of = |layer: u8, seq, payload| Received {
            layer: Layer(layer),
            layers: both,
            generation: u32::from(layer),
            ..received(TRACK, seq, payload)
        };
        let mut tap = Tap::default();
        tap.set_target(Target::UpTo {
            layer: Layer(0),
            temporal: u8::MAX,
        });
        let high = tap.take(now, &of(1, 900, KEY));
        assert_eq!(high, Err(DropReason::OtherLayer));
        let first = tap.take(now, &of(0, 10, KEY)).expect("begins");
        assert_eq!(tap.set_target(Target::BEST), Some(Layer(1)));
        let shut = tap.take(now, &of(1, 901, DELTA));
        assert_eq!(shut, Err(DropReason::AwaitingKeyframe));
        let second = tap.take(now + ms(33), &of(0, 11, DELTA)).expect("goes on");
        let third = tap.take(now + ms(66), &of(1, 902, KEY)).expect("joins");
        assert_eq!([second.seq, third.seq], [first.seq + 1, first.seq + 2]);
        assert!(third.timestamp > second.timestamp);
        let old = tap.take(now + ms(67), &of(0, 12, DELTA));
        assert_eq!(old, Err(DropReason::OtherLayer));
    }
}
