//! One sender's video: from access units to its newest picture.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use talksy_mixer::video::{I420, View};

use super::{AccessUnit, VideoStats};
use crate::ids::PeerId;
use crate::mcu::codec::h264::Decoder;

/// Access units that wait for the next tick. A full queue is emptied, and the source goes on at its next
/// keyframe: half a stream cannot be decoded.
pub const SOURCE_QUEUE: usize = 24;
/// A keyframe is asked for at most this often.
pub const KEYFRAME_WISH_INTERVAL: Duration = Duration::from_millis(500);
/// A camera without a new picture for this long shows its card.
pub const CAMERA_TIMEOUT: Duration = Duration::from_secs(3);
/// The same for screens, which send nothing new while nothing moves.
pub const SCREEN_TIMEOUT: Duration = Duration::from_secs(15);

/// A video track that may be decoded. Its decoder lives from its first keyframe until nobody listens.
pub(super) struct Source {
    pub(super) peer: PeerId,
    pub(super) screen: bool,
    muted: bool,
    queue: VecDeque<AccessUnit>,
    state: State,
    last_wish: Option<Instant>,
    picture: I420,
    shown: Option<Shown>,
}

enum State {
    /// Nothing can be decoded before a keyframe.
    AwaitingKeyframe,
    /// Pictures come.
    Decoding {
        decoder: Box<Decoder>,
        /// They are wrong until the next keyframe.
        damaged: bool,
        /// Parts of the last keyframe were missing. There was nothing to conceal them with: they are grey, and so
        /// is what follows.
        grey: bool,
    },
}

/// What `picture` holds.
struct Shown {
    version: u64,
    arrival: Instant,
}

impl Source {
    pub(super) fn new(peer: PeerId, screen: bool) -> Self {
        Source {
            peer,
            screen,
            muted: false,
            queue: VecDeque::new(),
            state: State::AwaitingKeyframe,
            last_wish: None,
            picture: I420::new(0, 0),
            shown: None,
        }
    }

    /// Access units that wait.
    pub(super) fn queued(&self) -> u64 {
        self.queue.len() as u64
    }

    /// Forgets everything that decoding has brought, and what waits for it: nobody listens.
    pub(super) fn sleep(&mut self) {
        *self = Source {
            muted: self.muted,
            last_wish: self.last_wish,
            ..Source::new(self.peer, self.screen)
        };
    }

    pub(super) fn is_muted(&self) -> bool {
        self.muted
    }

    /// Muted sources show their card at once; what they send meanwhile is lost, so they go on with a keyframe.
    pub(super) fn set_muted(&mut self, muted: bool, stats: &mut VideoStats) {
        if self.muted == muted {
            return;
        }
        stats.dropped_muted += self.queued();
        self.sleep();
        self.muted = muted;
    }

    pub(super) fn push(&mut self, unit: AccessUnit, stats: &mut VideoStats) {
        if self.muted {
            stats.dropped_muted += 1;
            return;
        }
        if self.queue.len() >= SOURCE_QUEUE {
            stats.dropped_queue_full += self.queue.len() as u64;
            self.queue.clear();
            self.state = State::AwaitingKeyframe;
        }
        self.queue.push_back(unit);
    }

    /// Decodes all that waits. The newest picture gets the next of `versions`.
    pub(super) fn decode(&mut self, versions: &mut u64, stats: &mut VideoStats) {
        while let Some(unit) = self.queue.pop_front() {
            self.decode_one(&unit, versions, stats);
        }
    }

    fn decode_one(&mut self, unit: &AccessUnit, versions: &mut u64, stats: &mut VideoStats) {
        if let State::AwaitingKeyframe = self.state {
            if !unit.keyframe {
                stats.dropped_before_keyframe += 1;
                return;
            }
            let Ok(decoder) = Decoder::new() else {
                stats.dropped_undecodable += 1;
                return;
            };
            self.state = State::Decoding {
                decoder: Box::new(decoder),
                damaged: false,
                grey: false,
            };
        }
        let State::Decoding {
            decoder,
            damaged,
            grey,
        } = &mut self.state
        else {
            return;
        };
        let Ok(decoded) = decoder.decode(&unit.data) else {
            stats.dropped_undecodable += 1;
            self.state = State::AwaitingKeyframe;
            return;
        };
        stats.decoded += 1;
        stats.damaged += u64::from(decoded.damaged);
        *damaged = decoded.damaged || (!unit.keyframe && (*damaged || unit.broken));
        *grey = match unit.keyframe {
            true => decoded.damaged || decoded.picture.is_none(),
            false => *grey,
        };
        // The last good picture stays.
        let Some(view) = decoded.picture.filter(|_| !*grey) else {
            return;
        };
        self.picture.copy_from(view, unit.orientation);
        *versions += 1;
        self.shown = Some(Shown {
            version: *versions,
            arrival: unit.arrival,
        });
    }

    /// The newest picture and its version, unless it is too old to be shown.
    pub(super) fn picture(&self, now: Instant) -> Option<(View<'_>, u64)> {
        let shown = self.shown.as_ref()?;
        let timeout = if self.screen {
            SCREEN_TIMEOUT
        } else {
            CAMERA_TIMEOUT
        };
        let fresh = now.saturating_duration_since(shown.arrival) < timeout;
        fresh.then(|| (self.picture.view(), shown.version))
    }

    /// Whether its sender should be asked for a keyframe now. Asking is remembered.
    pub(super) fn take_keyframe_wish(&mut self, now: Instant) -> bool {
        let needed = match &self.state {
            State::AwaitingKeyframe => !self.muted,
            State::Decoding { damaged, .. } => *damaged,
        };
        let due = self
            .last_wish
            .is_none_or(|last| now.saturating_duration_since(last) >= KEYFRAME_WISH_INTERVAL);
        if needed && due {
            self.last_wish = Some(now);
        }
        needed && due
    }
}
