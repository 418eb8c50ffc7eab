//! Of many voices, the few that are forwarded.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::{Passage, VoiceId};

/// Who has a place keeps it for this long after the last loud packet: longer than the pauses between words.
pub const HOLD: Duration = Duration::from_millis(800);
/// A voice from which nothing comes for this long has left its place.
const GONE: Duration = Duration::from_secs(1);
/// While all who have a place speak, a newcomer has to be louder than the quietest by this many decibels ...
const LOUDER: f32 = 6.0;
/// ... for this long.
const FOR: Duration = Duration::from_millis(200);
/// Weight of a packet in the average loudness: some 100 ms.
const WEIGHT: f32 = 0.2;
/// Loud packets further apart than this do not belong to one attempt.
const APART: Duration = Duration::from_millis(100);

/// A voice with a place.
#[derive(Clone, Copy, Debug)]
struct Place {
    id: VoiceId,
    last_packet: Instant,
    /// `None`: never, as far as its client tells.
    last_loud: Option<Instant>,
    loudness: f32,
    pinned: bool,
}

/// The loudest voice without a place, which may get one.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    id: VoiceId,
    since: Instant,
    last: Instant,
    loudness: f32,
}

/// Keeps at most as many places as the limit says. Work for each packet: one look at each place.
#[derive(Debug, Default)]
pub(super) struct Loudest {
    limit: Option<usize>,
    places: SmallVec<[Place; 16]>,
    pinned: SmallVec<[VoiceId; 4]>,
    attempt: Option<Attempt>,
}

impl Loudest {
    pub fn set_limit(&mut self, limit: Option<usize>) {
        self.limit = limit;
        self.places.clear();
    }

    pub fn set_pinned(&mut self, id: VoiceId, pinned: bool) {
        self.pinned.retain(|known| *known != id);
        if pinned {
            self.pinned.push(id);
        }
        if let Some(place) = self.places.iter_mut().find(|place| place.id == id) {
            place.pinned = pinned;
        }
    }

    pub fn release(&mut self, id: VoiceId) {
        self.places.retain(|place| place.id != id);
    }

    /// `loudness`: of a loud packet, in decibels above digital silence.
    pub fn handle_packet(&mut self, now: Instant, id: VoiceId, loudness: Option<u8>) -> Passage {
        let passage = |passes, displaced| Passage { passes, displaced };
        let Some(limit) = self.limit else {
            return passage(true, None);
        };
        let loudness = loudness.map(f32::from);
        if let Some(place) = self.places.iter_mut().find(|place| place.id == id) {
            place.last_packet = now;
            if let Some(loudness) = loudness {
                place.last_loud = Some(now);
                place.loudness += (loudness - place.loudness) * WEIGHT;
            }
            return passage(true, None);
        }
        let new = Place {
            id,
            last_packet: now,
            last_loud: loudness.map(|_| now),
            loudness: loudness.unwrap_or(0.0),
            pinned: self.pinned.contains(&id),
        };
        if self.places.len() < limit {
            self.places.push(new);
            return passage(true, None);
        }
        let Some(victim) = self.victim(now, &new) else {
            return passage(false, None);
        };
        let old = std::mem::replace(&mut self.places[victim], new);
        self.attempt = None;
        passage(true, Some(old.id))
    }

    /// Whose place the newcomer takes.
    fn victim(&mut self, now: Instant, new: &Place) -> Option<usize> {
        let since = |at: Instant| now.saturating_duration_since(at);
        let gone = |place: &Place| since(place.last_packet) >= GONE;
        if let Some(gone) = self.places.iter().position(gone) {
            return Some(gone);
        }
        if new.last_loud.is_none() && !new.pinned {
            return None;
        }
        let unpinned = || {
            let places = self.places.iter().enumerate();
            places.filter(|(_, place)| !place.pinned)
        };
        // `None` is before every moment.
        let (idle, place) = unpinned().min_by_key(|(_, place)| place.last_loud)?;
        if new.pinned || place.last_loud.is_none_or(|at| since(at) >= HOLD) {
            return Some(idle);
        }
        let (quietest, place) =
            unpinned().min_by(|(_, one), (_, other)| one.loudness.total_cmp(&other.loudness))?;
        let needed = place.loudness + LOUDER;
        self.attempts(now, new, needed).then_some(quietest)
    }

    /// Whether the newcomer has been louder than `needed` for long enough.
    fn attempts(&mut self, now: Instant, new: &Place, needed: f32) -> bool {
        let fresh = Attempt {
            id: new.id,
            since: now,
            last: now,
            loudness: new.loudness,
        };
        let attempt = match &mut self.attempt {
            Some(attempt) if now.saturating_duration_since(attempt.last) > APART => {
                *attempt = fresh;
                attempt
            }
            Some(attempt) if attempt.id == new.id => {
                attempt.last = now;
                attempt.loudness += (new.loudness - attempt.loudness) * WEIGHT;
                attempt
            }
            // Another tries already: the louder of the two goes on.
            Some(attempt) if attempt.loudness >= new.loudness => return false,
            attempt => attempt.insert(fresh),
        };
        if attempt.loudness < needed {
            attempt.since = now;
        }
        now.saturating_duration_since(attempt.since) >= FOR
    }
}
