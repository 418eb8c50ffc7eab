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

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Gate {
    #[default]
    Closed,
    Open {
        generation: u32,
    },
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
        self.gate = Gate::Closed;
    }

    /// Whether nothing goes through until a keyframe comes.
    pub fn is_closed(&self) -> bool {
        self.gate == Gate::Closed
    }

    /// The stream that goes through.
    pub fn generation(&self) -> Option<u32> {
        match self.gate {
            Gate::Closed => None,
            Gate::Open { generation } => Some(generation),
        }
    }

    /// Whether this packet goes to the subscriber.
    pub fn admit(&mut self, packet: &Received<'_>) -> Result<Admission, DropReason> {
        if packet.layer != self.target {
            return Err(DropReason::OtherLayer);
        }
        match self.gate {
            Gate::Open { generation } if generation == packet.generation => {
                return Ok(Admission::Continues);
            }
            Gate::Open { generation } if generation > packet.generation => {
                return Err(DropReason::StaleStream);
            }
            _ => {}
        }
        if packet.codec.kind() == MediaKind::Video && !packet.keyframe {
            return Err(DropReason::AwaitingKeyframe);
        }
        self.gate = Gate::Open {
            generation: packet.generation,
        };
        Ok(Admission::Begins)
    }
}
