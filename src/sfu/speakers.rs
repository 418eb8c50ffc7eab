//! Who speaks in a room: the dominant speaker, and the voices that are loud enough to be forwarded.
//!
//! Fed with the levels of the packets' headers (RFC 6464), which every client writes itself. They are hints: a level is
//! capped, a constant one is no voice, and where the mixer decodes it says what it hears. A client that imitates speech
//! wins against those who speak for [`CONTEST`] at most, and then has to keep out of it for [`YIELD`], twice as long each
//! time.

mod activity;
mod loudest;
mod score;

use std::time::{Duration, Instant};

use activity::Activity;
use loudest::Loudest;
use score::Scores;
use slab::Slab;

use crate::rtp::extension::AudioLevel;

/// Between two elections.
pub const ELECTION: Duration = Duration::from_millis(300);
/// Who has talked over somebody for this long, and talks more than that one altogether, loses the floor.
pub const CONTEST: Duration = Duration::from_secs(3);
/// Who has lost the floor that way is passed over for this long while others speak. Doubles each time.
pub const YIELD: Duration = Duration::from_secs(10);
/// Doubles up to this.
pub const LONGEST_YIELD: Duration = Duration::from_secs(320);
/// Others count as speaking for this long after their last loud packet.
const SPOKE: Duration = Duration::from_secs(3);
/// Shares of time that are closer than this are equal.
const SAME_SHARE: f32 = 0.05;
/// Whose share of time has fallen below this talks as people do: earlier contests are forgotten.
const FORGIVEN_SHARE: f32 = 0.15;
/// Windows of the last second with speech that make somebody a speaker in a contest.
const SPEAKS: usize = 3;

/// A voice of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VoiceId(usize);

/// What a packet says about its sound.
#[derive(Clone, Copy, Debug)]
pub struct Sound {
    /// RFC 6464; `None`: the client does not tell.
    pub level: Option<AudioLevel>,
    /// How long it is, in units of 20 ms.
    pub slots: u32,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// It is forwarded.
    pub passes: bool,
    /// The voice that lost its place to this one just now.
    pub displaced: Option<VoiceId>,
}

#[derive(Debug)]
struct Voice {
    activity: Activity,
    /// A screen's sound: forwarded before all others, and never a speaker.
    screen: bool,
    scores: Scores,
    last_loud: Option<Instant>,
    yields_until: Option<Instant>,
    next_yield: Duration,
}

/// The voices of one room. Pure and bounded: constant work for each packet, and for each voice ten elections in three
/// seconds; allocates only when a voice comes.
#[derive(Debug, Default)]
pub struct Speakers {
    voices: Slab<Voice>,
    dominant: Option<VoiceId>,
    contested: Duration,
    due: Option<Instant>,
    loudest: Loudest,
}

impl Speakers {
    /// A voice has come.
    pub fn insert(&mut self, now: Instant) -> VoiceId {
        self.due.get_or_insert(now + ELECTION);
        VoiceId(self.voices.insert(Voice {
            activity: Activity::new(now),
            screen: false,
            scores: Scores::silent(),
            last_loud: None,
            yields_until: None,
            next_yield: YIELD,
        }))
    }

    /// A voice has gone. The room has no dominant speaker then, if it was that one.
    pub fn remove(&mut self, id: VoiceId) {
        if self.voices.try_remove(id.0).is_none() {
            return;
        }
        self.loudest.set_pinned(id, false);
        self.loudest.release(id);
        if self.dominant == Some(id) {
            self.dominant = None;
            self.contested = Duration::ZERO;
        }
    }

    /// The sound of a screen is no speaker, and keeps its place among the forwarded ones.
    pub fn set_screen(&mut self, id: VoiceId, screen: bool) {
        if let Some(voice) = self.voices.get_mut(id.0) {
            voice.screen = screen;
            self.loudest.set_pinned(id, screen);
            if screen && self.dominant == Some(id) {
                self.dominant = None;
            }
        }
    }

    /// A voice that has been muted gives its place away.
    pub fn release(&mut self, id: VoiceId) {
        self.loudest.release(id);
    }

    /// How many voices are forwarded at most; `None`: all.
    pub fn set_limit(&mut self, limit: Option<usize>) {
        self.loudest.set_limit(limit);
    }

    /// What the mixer's decoder says about a voice; `None`: it does not run any more.
    pub fn set_decoded(&mut self, id: VoiceId, speaking: Option<bool>) {
        if let Some(voice) = self.voices.get_mut(id.0) {
            voice.activity.set_decoded(speaking);
        }
    }

    /// As [`Speakers::set_decoded`], for every voice.
    pub fn set_all_decoded(&mut self, speaking: Option<bool>) {
        for (_, voice) in &mut self.voices {
            voice.activity.set_decoded(speaking);
        }
    }

    /// False for a voice whose levels the mixer's decoder contradicts.
    pub fn is_believed(&self, id: VoiceId) -> bool {
        let voice = self.voices.get(id.0);
        voice.is_none_or(|voice| voice.activity.is_believed())
    }

    /// A packet of a voice. It is decided by its own level, so that a word's beginning passes.
    pub fn handle_packet(&mut self, now: Instant, id: VoiceId, sound: Sound) -> Passage {
        let Some(voice) = self.voices.get_mut(id.0) else {
            return Passage {
                passes: true,
                displaced: None,
            };
        };
        let loud = match sound.level {
            Some(level) => voice.activity.push(now, level, sound.slots),
            None => None,
        };
        if loud.is_some() {
            voice.last_loud = Some(now);
        }
        self.loudest.handle_packet(now, id, loud)
    }

    /// When [`Speakers::handle_timeout`] is wanted; `None`: there is no voice.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due.filter(|_| !self.voices.is_empty())
    }

    /// Elects, if it is time. The new dominant speaker, if it is another. Where nobody speaks the last one stays.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<VoiceId> {
        if self.due.is_none_or(|due| due > now) {
            return None;
        }
        self.due = Some(now + ELECTION);
        for (_, voice) in &mut self.voices {
            voice.activity.catch_up(now);
            voice.scores = Scores::of(&voice.activity);
            if voice.activity.share() < FORGIVEN_SHARE
                && voice.yields_until.is_none_or(|until| until <= now)
            {
                voice.next_yield = YIELD;
            }
        }
        let winner = self.yield_to(now).or_else(|| self.winner(now))?;
        self.contested = Duration::ZERO;
        self.dominant = Some(winner);
        Some(winner)
    }

    /// The dominant speaker.
    pub fn dominant(&self) -> Option<VoiceId> {
        self.dominant
    }

    /// The challenger that is better than the dominant speaker by most.
    fn winner(&self, now: Instant) -> Option<VoiceId> {
        let dominant = self.dominant.and_then(|id| self.voices.get(id.0));
        let theirs = dominant.map_or_else(Scores::silent, |voice| voice.scores);
        self.challengers(now)
            .filter_map(|(id, voice)| Some((id, voice.scores.advantage_over(&theirs)?)))
            .max_by(|(_, one), (_, other)| one.total_cmp(other))
            .map(|(id, _)| id)
    }

    /// Two who talk at once for long: the floor goes to the one who talks less altogether.
    fn yield_to(&mut self, now: Instant) -> Option<VoiceId> {
        let incumbent = self.dominant?;
        let theirs = self.voices.get(incumbent.0)?;
        let share = theirs.activity.share();
        let rival = self
            .challengers(now)
            .filter(|(_, voice)| voice.scores.windows >= SPEAKS)
            .min_by(|(_, one), (_, other)| one.activity.share().total_cmp(&other.activity.share()))
            .map(|(id, voice)| (id, voice.activity.share()));
        let speaks = theirs.scores.windows >= SPEAKS;
        let Some((rival, rivals_share)) = rival.filter(|_| speaks) else {
            self.contested = self.contested.saturating_sub(ELECTION / 2);
            return None;
        };
        self.contested += ELECTION;
        if self.contested < CONTEST || rivals_share + SAME_SHARE > share {
            return None;
        }
        let loser = self.voices.get_mut(incumbent.0)?;
        loser.yields_until = Some(now + loser.next_yield);
        loser.next_yield = (loser.next_yield * 2).min(LONGEST_YIELD);
        Some(rival)
    }

    /// Those who may win now. Who has lost a contest may not while anybody else speaks.
    fn challengers(&self, now: Instant) -> impl Iterator<Item = (VoiceId, &Voice)> {
        let recent = move |voice: &Voice| {
            let last = voice.last_loud.filter(|_| !voice.screen);
            last.is_some_and(|last| now.saturating_duration_since(last) < SPOKE)
        };
        let speakers = self.voices.iter().filter(|(_, voice)| recent(voice));
        let others = speakers.count();
        self.voices
            .iter()
            .map(|(at, voice)| (VoiceId(at), voice))
            .filter(move |(id, voice)| {
                let others = others - usize::from(recent(voice));
                let yields = voice.yields_until.is_some_and(|until| until > now) && others > 0;
                !voice.screen && !yields && self.dominant != Some(*id)
            })
    }
}

#[cfg(test)]
mod tests;
