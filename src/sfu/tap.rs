//! One track as a single clean stream for somebody in this process: the room's mixer.

use std::time::Instant;

use super::rewriter::{LeftOut, Rewriter};
use super::selector::{Admission, Selector};
use super::{DropReason, Layer, LayerFigures, Received, Target};

/// Larger pictures are not taken where there is a smaller layer: no tile of the mixed picture shows more of them.
const LARGEST: (u32, u32) = (640, 360);

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

/// The best layer whose picture a mixed picture can use; the lowest where all are larger.
pub fn layer_for_mixing(layers: &[LayerFigures]) -> Layer {
    let area = |(width, height): (u32, u32)| u64::from(width) * u64::from(height);
    let fits =
        |figures: &&LayerFigures| figures.size.is_some_and(|size| area(size) <= area(LARGEST));
    let best = layers.iter().rev().find(fits);
    best.or(layers.first())
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
    fn a_mixed_picture_takes_what_fits_a_tile() {
        let figures = |layer, size| LayerFigures {
            layer: Layer(layer),
            size: Some(size),
            ..LayerFigures::default()
        };
        let (low, mid, high) = (
            figures(0, (320, 180)),
            figures(1, (640, 360)),
            figures(2, (1280, 720)),
        );
        assert_eq!(
            layer_for_mixing(&[low, mid, high.clone()]),
            Layer(1),
            "the best that fits"
        );
        assert_eq!(layer_for_mixing(&[high]), Layer(2), "the only one");
        let upright = figures(1, (360, 640));
        assert_eq!(
            layer_for_mixing(&[figures(0, (90, 160)), upright]),
            Layer(1)
        );
        assert_eq!(layer_for_mixing(&[]), Layer(0));
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
