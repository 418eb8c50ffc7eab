//! What kind of picture a room has now, and who is large in it.

use std::time::Duration;

use super::{Kind, Person, Scene, Wish};

/// Who speaks for this long while the large one is silent becomes the large one: an interjection does not.
pub const TURN: Duration = Duration::from_millis(800);
/// The same while the large one goes on speaking, for who began after them.
pub const CROSSTALK: Duration = Duration::from_secs(3);

/// Decides for one room. A shared screen is shown large by itself, until somebody asks for another picture.
#[derive(Debug, Default)]
pub struct Director {
    wish: Wish,
    /// There was a screen the last time.
    has_screen: bool,
    /// The wish was made while a screen was shared, so it stands above the screen.
    chosen_over_screen: bool,
    speaker: Option<u64>,
    challenger: Option<Challenger>,
}

/// Who speaks and is not large yet.
#[derive(Clone, Copy, Debug)]
struct Challenger {
    id: u64,
    since: Duration,
}

impl Director {
    /// The picture that is wanted from the next [`direct`](Self::direct) on.
    pub fn set_wish(&mut self, wish: Wish) {
        self.wish = wish;
        self.chosen_over_screen = self.has_screen;
    }

    /// What was asked for last.
    pub fn wish(&self) -> Wish {
        self.wish
    }

    /// The scene at `now`, the time since any fixed beginning. To be called on every change of `people`, and from
    /// time to time, because it takes a while to become the speaker.
    ///
    /// Where a wish cannot be carried out (nobody shares a screen, the pinned one is gone) the picture is a grid.
    pub fn direct(&mut self, now: Duration, people: &[Person]) -> Scene {
        let screens = people.iter().filter(|person| person.screen);
        let screen = screens.max_by_key(|person| person.spoke).map(|s| s.id);
        self.has_screen = screen.is_some();
        self.chosen_over_screen &= self.has_screen;
        let kind = match self.wish.kind {
            _ if self.has_screen && !self.chosen_over_screen => Kind::Screen,
            kind => kind,
        };
        if kind != Kind::Speaker {
            self.challenger = None;
        }
        let large = match kind {
            Kind::Grid => None,
            Kind::Speaker => self.speaker(now, people),
            Kind::Pinned => self
                .wish
                .pinned
                .filter(|pinned| people.iter().any(|person| person.id == *pinned)),
            Kind::Screen => screen,
        };
        match large {
            Some(_) => Scene { kind, large },
            None => Scene::default(),
        }
    }

    fn speaker(&mut self, now: Duration, people: &[Person]) -> Option<u64> {
        let candidates = || people.iter().filter(|person| !person.screen);
        let large = candidates().find(|person| Some(person.id) == self.speaker);
        let Some(large) = large else {
            // The first of equals.
            let best = candidates()
                .rev()
                .max_by_key(|person| (person.speaking, person.spoke, person.camera));
            self.challenger = None;
            self.speaker = best.map(|person| person.id);
            return self.speaker;
        };
        let challenger = candidates()
            .filter(|person| person.speaking && person.id != large.id)
            .filter(|person| !large.speaking || person.spoke > large.spoke)
            .max_by_key(|person| person.spoke);
        let patience = if large.speaking { CROSSTALK } else { TURN };
        match (challenger, self.challenger) {
            (None, _) => self.challenger = None,
            (Some(person), Some(known)) if person.id == known.id => {
                if now.saturating_sub(known.since) >= patience {
                    self.challenger = None;
                    self.speaker = Some(person.id);
                }
            }
            (Some(person), _) => {
                let (id, since) = (person.id, now);
                self.challenger = Some(Challenger { id, since });
            }
        }
        self.speaker
    }
}
