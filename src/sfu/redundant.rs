//! What redundant audio (RFC 2198) means for a stream: the packets that it brings once more.

use smallvec::SmallVec;

use super::Received;
use crate::rtp::opus::payload_samples;
use crate::rtp::red::{Block, MAX_REDUNDANT, Red};

/// A packet of redundant audio on its way from a track to its subscribers.
#[derive(Clone, Copy, Debug)]
pub struct Redundant<'p> {
    red: Red<'p>,
    /// Bit k: the frame of the packet k + 1 before this one was lost, and is here.
    news: u8,
}

impl<'p> Redundant<'p> {
    /// Nothing in it is news.
    pub(super) fn new(red: Red<'p>) -> Self {
        Redundant { red, news: 0 }
    }

    /// `is_new` is asked about each frame of an earlier packet, with its distance in packets, newest first.
    ///
    /// RED gives a frame's age in time, not in packets. A frame that ends where the one after it begins is of the packet
    /// before; where time is missing in between (DTX, or a sender that repeats every other frame) nobody can tell, and
    /// older ones are left alone.
    pub(super) fn with_news(red: Red<'p>, mut is_new: impl FnMut(u64, &Block<'p>) -> bool) -> Self {
        let mut news = 0;
        for (distance, block) in neighbours(red).iter().enumerate() {
            if is_new(distance as u64 + 1, block) {
                news |= 1 << distance;
            }
        }
        Redundant { red, news }
    }

    /// Appends the whole payload for a leg on which the frames have this payload type.
    pub(super) fn write(self, payload_type: u8, out: &mut Vec<u8>) {
        self.red
            .write(self.red.primary().payload_type, payload_type, out);
    }
}

/// The frames of the packets right before, newest first.
fn neighbours(red: Red<'_>) -> SmallVec<[Block<'_>; MAX_REDUNDANT]> {
    let frames = red.primary().payload_type;
    let mut blocks: SmallVec<[Block<'_>; MAX_REDUNDANT]> =
        red.blocks().take(red.redundant()).collect();
    blocks.reverse();
    let mut age = 0;
    let ends = blocks.iter().position(|block| {
        let samples = payload_samples(block.payload);
        let follows = samples
            .is_some_and(|samples| u32::from(block.timestamp_offset) == u32::from(age) + samples);
        age = block.timestamp_offset;
        !follows || block.payload_type != frames
    });
    blocks.truncate(ends.unwrap_or(blocks.len()));
    blocks
}

impl<'p> Received<'p> {
    /// The lost packets that this one brings, oldest first: they go where it goes, before it.
    pub fn recovered(&self) -> impl Iterator<Item = Received<'p>> {
        let packet = *self;
        let blocks = match packet.red.filter(|redundant| redundant.news != 0) {
            Some(redundant) => neighbours(redundant.red),
            None => SmallVec::new(),
        };
        let news = packet.red.map_or(0, |redundant| redundant.news);
        let at = (0..blocks.len())
            .rev()
            .filter(move |at| news >> at & 1 == 1);
        at.map(move |at| Received {
            first: false,
            seq: packet.seq.saturating_sub(at as u64 + 1),
            timestamp: packet
                .timestamp
                .saturating_sub(u64::from(blocks[at].timestamp_offset)),
            marker: false,
            recovered: true,
            red: None,
            within_red: true,
            payload: blocks[at].payload,
            ..packet
        })
    }
}

#[cfg(test)]
mod tests;
