//! A source's decoder as a job of its own on the codec threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;

use super::decoder::SourceDecoder;
use crate::mcu::feed::{HELD_PACKETS, VideoPacket};
use crate::mcu::pool::Job;
use crate::mcu::source::VideoSource;

/// Packets of one source that wait for its decoder: a second of 4 Mbit/s. When it is full the newest is refused, and
/// everything up to the next keyframe is thrown away.
pub const FEED_PACKETS: usize = 512;
/// How often a decoder looks for packets. What it decodes is drawn at the next beat of a rung, 33 ms apart at least.
pub const DECODE_INTERVAL: Duration = Duration::from_millis(10);

/// The packets of one source on their way to its decoder. Open at first, and closed while nobody sees the source.
pub struct Feed {
    packets: ArrayQueue<VideoPacket>,
    /// Odd while it is open; another number each time.
    turn: AtomicU64,
    overflown: AtomicBool,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fed {
    /// It waits.
    Taken,
    /// Nobody sees the source.
    Closed,
    /// Too many wait.
    Full,
}

impl Default for Feed {
    fn default() -> Self {
        Feed {
            packets: ArrayQueue::new(FEED_PACKETS),
            turn: AtomicU64::new(1),
            overflown: AtomicBool::new(false),
        }
    }
}

impl Feed {
    /// A packet in any order.
    pub fn push(&self, packet: VideoPacket) -> Fed {
        if self.turn.load(Ordering::Acquire).is_multiple_of(2) {
            return Fed::Closed;
        }
        match self.packets.push(packet) {
            Ok(()) => Fed::Taken,
            Err(_) => {
                self.overflown.store(true, Ordering::Release);
                Fed::Full
            }
        }
    }

    /// Packets are taken from now on, for whoever has the returned end.
    pub(super) fn open(self: &Arc<Self>) -> FeedEnd {
        let turn = self.turn.load(Ordering::Acquire) | 1;
        self.turn.store(turn, Ordering::Release);
        FeedEnd {
            feed: self.clone(),
            turn,
        }
    }

    /// Nothing is taken any more. Returns how many packets have waited in vain.
    pub(super) fn close(&self) -> u64 {
        let turn = self.turn.load(Ordering::Acquire);
        self.turn.store(turn + turn % 2, Ordering::Release);
        self.overflown.store(false, Ordering::Release);
        self.clear()
    }

    fn clear(&self) -> u64 {
        // Bounded: somebody may be pushing.
        let popped = (0..FEED_PACKETS).map_while(|_| self.packets.pop());
        popped.count() as u64
    }
}

/// A feed's way out, until it is closed.
pub(super) struct FeedEnd {
    feed: Arc<Feed>,
    turn: u64,
}

impl FeedEnd {
    fn is_open(&self) -> bool {
        self.feed.turn.load(Ordering::Acquire) == self.turn
    }

    fn pop(&self) -> Option<VideoPacket> {
        self.feed.packets.pop()
    }

    /// Whether packets were refused since the last time. Then all others are gone as well.
    fn take_overflow(&self) -> Option<u64> {
        let overflown = self.feed.overflown.swap(false, Ordering::AcqRel);
        overflown.then(|| self.feed.clear())
    }
}

/// Restores order, assembles, decodes: one picture at a time, so that no source keeps a thread from the others.
pub(super) struct DecodeJob {
    feed: FeedEnd,
    source: VideoSource,
    decoder: SourceDecoder,
}

impl DecodeJob {
    pub(super) fn new(feed: FeedEnd, decoder: SourceDecoder) -> Self {
        DecodeJob {
            feed,
            source: VideoSource::new(decoder.codec()),
            decoder,
        }
    }
}

impl Job for DecodeJob {
    fn run(&mut self, now: Instant) -> Option<Instant> {
        if self.decoder.is_abandoned() || !self.feed.is_open() {
            return None;
        }
        if let Some(lost) = self.feed.take_overflow() {
            self.source = VideoSource::new(self.decoder.codec());
            self.decoder.skip(lost);
        }
        // What a burst brings beyond this waits where it is counted.
        while self.source.held() < 2 * HELD_PACKETS
            && let Some(packet) = self.feed.pop()
        {
            self.source.push(packet);
        }
        let decoder = &mut self.decoder;
        let worked = self.source.next(now, |unit| decoder.decode(unit));
        Some(if worked { now } else { now + DECODE_INTERVAL })
    }
}
