//! Which packets of a track one subscriber gets.

use super::{DropReason, Layer, LayerSet, Received, Target};
use crate::rtp::params::MediaKind;

/// Whether the stream to the subscriber goes on with a packet, or begins with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The same stream as the packet before.
    Continues,
    /// A new source, layer or generation: the rewriter joins it to what was sent.
    Begins,
}

/// The stream that goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Current {
    layer: Layer,
    generation: u32,
}

/// Lets one stream of a track through, from a keyframe on: that of the layer which the target wants, or of another
/// until the wanted one's keyframe is there.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    target: Target,
    current: Option<Current>,
    /// What flows of the track, by its last packet.
    layers: LayerSet,
    /// The newest packet of the wanted layer that was refused, as generation and number.
    refused: Option<(u32, u64)>,
    /// Highest temporal layer that goes through.
    temporal: u8,
    /// Timestamp of the newest frame that goes through.
    frame: Option<u64>,
}

impl Selector {
    /// Another source: video waits for its keyframe.
    pub fn close(&mut self) {
        *self = Selector {
            target: self.target,
            ..Selector::default()
        };
    }

    /// Whether nothing goes through until a keyframe comes.
    pub fn is_closed(&self) -> bool {
        self.current.is_none()
    }

    /// The stream that goes through.
    pub fn generation(&self) -> Option<u32> {
        self.current.map(|current| current.generation)
    }

    /// The layer that goes through.
    pub fn current(&self) -> Option<Layer> {
        self.current.map(|current| current.layer)
    }

    /// The best layer that the track has now.
    pub fn best_layer(&self) -> Layer {
        self.layers.best(Layer(u8::MAX)).unwrap_or_default()
    }

    /// The layer whose keyframe helps: the one that goes through, or the one that is to.
    pub fn needed(&self) -> Option<Layer> {
        match self.target {
            Target::Paused => None,
            Target::UpTo { layer, .. } => {
                let known = self.current().or(self.layers.best(layer));
                Some(known.unwrap_or(layer))
            }
        }
    }

    /// Wants something else from now on. What goes through goes on until a keyframe of the returned layer is there;
    /// a pause takes effect at once.
    pub fn set_target(&mut self, target: Target) -> Option<Layer> {
        self.target = target;
        let Target::UpTo { layer, .. } = target else {
            self.current = None;
            self.refused = None;
            return None;
        };
        let wanted = self.layers.best(layer)?;
        (self.current() != Some(wanted)).then_some(wanted)
    }

    /// The layer that goes through is better than what is wanted: it goes on only until there is a keyframe of that.
    pub fn is_falling(&self) -> bool {
        match (self.target, self.current()) {
            (Target::UpTo { layer, .. }, Some(current)) => {
                self.layers.best(layer).is_some_and(|best| best < current)
            }
            _ => false,
        }
    }

    /// Whether the decoder would begin anew with this packet, if it was let through.
    pub fn would_begin(&self, packet: &Received<'_>) -> bool {
        let Target::UpTo { layer, .. } = self.target else {
            return false;
        };
        let goes_on = |current: &Current| current.generation == packet.generation;
        let late = |refused: &(u32, u64)| {
            refused.0 == packet.generation && *refused > (packet.generation, packet.seq)
        };
        packet.keyframe
            && !self.refused.as_ref().is_some_and(late)
            && packet.layers.best(layer) == Some(packet.layer)
            && !self.current.as_ref().is_some_and(goes_on)
    }

    /// Whether this packet goes to the subscriber.
    pub fn admit(&mut self, packet: &Received<'_>) -> Result<Admission, DropReason> {
        self.layers = packet.layers;
        let Target::UpTo { layer, temporal } = self.target else {
            return Err(DropReason::Paused);
        };
        if let Some(current) = &mut self.current {
            if current.generation == packet.generation {
                current.layer = packet.layer;
                return self.admit_temporal(packet, temporal);
            }
            if current.layer == packet.layer && current.generation > packet.generation {
                return Err(DropReason::StaleStream);
            }
        }
        if self.layers.best(layer) != Some(packet.layer) {
            return Err(DropReason::OtherLayer);
        }
        if packet.codec.kind() == MediaKind::Video {
            let number = (packet.generation, packet.seq);
            let newest = self
                .refused
                .filter(|(generation, _)| *generation == packet.generation);
            // The rest of a keyframe whose beginning comes late was refused already, and is not in this leg's
            // retransmission cache: the receiver could never complete it.
            if !packet.keyframe || newest > Some(number) {
                self.refused = newest.max(Some(number));
                return Err(DropReason::AwaitingKeyframe);
            }
        }
        self.current = Some(Current {
            layer: packet.layer,
            generation: packet.generation,
        });
        self.refused = None;
        self.temporal = temporal;
        self.frame = Some(packet.timestamp);
        Ok(Admission::Begins)
    }

    /// Temporal layers end with any frame, and begin where the codec allows it.
    fn admit_temporal(
        &mut self,
        packet: &Received<'_>,
        limit: u8,
    ) -> Result<Admission, DropReason> {
        let begins = self.frame.is_none_or(|frame| packet.timestamp > frame);
        if begins && (self.temporal > limit || self.may_rise_at(packet)) {
            self.temporal = limit.min(packet.rises_to.max(self.temporal));
        }
        if packet.temporal > self.temporal {
            return Err(DropReason::TemporalLayer);
        }
        if begins {
            self.frame = Some(packet.timestamp);
        }
        Ok(Admission::Continues)
    }

    /// A frame that the receiver can decode may say what it can decode next; one of the next layer, that it needs
    /// nothing but what the receiver has (RFC 7741, section 4.2: the Y bit).
    fn may_rise_at(&self, packet: &Received<'_>) -> bool {
        let next = packet.temporal == self.temporal.saturating_add(1);
        packet.rises_to > self.temporal
            && (packet.temporal <= self.temporal || (next && packet.rises_to == packet.temporal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TrackKey;
    use crate::sfu::testing::*;

    const TRACK: TrackKey = TrackKey(1);

    #[test]
    fn the_gate_stays_shut_for_a_keyframe_whose_rest_is_gone() {
        let mut selector = Selector::default();
        let shut = Err(DropReason::AwaitingKeyframe);
        assert_eq!(selector.admit(&received(TRACK, 101, DELTA)), shut);
        assert_eq!(selector.admit(&received(TRACK, 100, KEY)), shut);
        assert!(selector.is_closed());
        let begins = selector.admit(&received(TRACK, 102, KEY));
        assert_eq!(begins, Ok(Admission::Begins));
        let continues = selector.admit(&received(TRACK, 103, DELTA));
        assert_eq!(continues, Ok(Admission::Continues));
        assert_eq!(selector.generation(), Some(0));
    }

    #[test]
    fn audio_begins_anywhere_and_another_layer_never() {
        let mut selector = Selector::default();
        let begins = selector.admit(&audio(TRACK, 5));
        assert_eq!(begins, Ok(Admission::Begins));
        let high = Received {
            layer: Layer(1),
            generation: 1,
            ..audio(TRACK, 6)
        };
        assert_eq!(selector.admit(&high), Err(DropReason::OtherLayer));
    }

    #[test]
    fn a_new_generation_waits_for_its_own_keyframe() {
        let mut selector = Selector::default();
        selector.admit(&received(TRACK, 100, KEY)).expect("begins");
        let anew = |seq, payload| Received {
            generation: 1,
            ..received(TRACK, seq, payload)
        };
        let shut = selector.admit(&anew(7, DELTA));
        assert_eq!(shut, Err(DropReason::AwaitingKeyframe));
        assert_eq!(selector.admit(&anew(8, KEY)), Ok(Admission::Begins));
        let stale = selector.admit(&received(TRACK, 101, DELTA));
        assert_eq!(stale, Err(DropReason::StaleStream));
    }
}
