//! Which packets of a track one subscriber gets.

use super::{DropReason, Layer, Received};
use crate::rtp::params::MediaKind;

/// Whether the stream to the subscriber goes on with a packet, or begins with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The same stream as the packet before.
    Continues,
    /// A new source, layer or generation: the rewriter joins it to what was sent.
    Begins,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    /// The newest packet that was refused, as generation and number.
    Closed {
        newest: Option<(u32, u64)>,
    },
    Open {
        generation: u32,
    },
}

impl Default for Gate {
    fn default() -> Self {
        Gate::Closed { newest: None }
    }
}

/// Lets one layer through, from a keyframe on.
///
/// The target layer is what an allocator will set; while every track has one layer, it stays 0.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    target: Layer,
    gate: Gate,
}

impl Selector {
    /// Another source: video waits for its keyframe.
    pub fn close(&mut self) {
        self.gate = Gate::default();
    }

    /// Whether nothing goes through until a keyframe comes.
    pub fn is_closed(&self) -> bool {
        matches!(self.gate, Gate::Closed { .. })
    }

    /// The stream that goes through.
    pub fn generation(&self) -> Option<u32> {
        match self.gate {
            Gate::Closed { .. } => None,
            Gate::Open { generation } => Some(generation),
        }
    }

    /// Whether this packet goes to the subscriber.
    pub fn admit(&mut self, packet: &Received<'_>) -> Result<Admission, DropReason> {
        if packet.layer != self.target {
            return Err(DropReason::OtherLayer);
        }
        let newest = match self.gate {
            Gate::Open { generation } if generation == packet.generation => {
                return Ok(Admission::Continues);
            }
            Gate::Open { generation } if generation > packet.generation => {
                return Err(DropReason::StaleStream);
            }
            Gate::Open { .. } => None,
            Gate::Closed { newest } => newest,
        };
        if packet.codec.kind() == MediaKind::Video {
            let number = (packet.generation, packet.seq);
            // The rest of a keyframe whose beginning comes late was refused already, and is not in this leg's
            // retransmission cache: the receiver could never complete it.
            if !packet.keyframe || newest > Some(number) {
                self.gate = Gate::Closed {
                    newest: newest.max(Some(number)),
                };
                return Err(DropReason::AwaitingKeyframe);
            }
        }
        self.gate = Gate::Open {
            generation: packet.generation,
        };
        Ok(Admission::Begins)
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
