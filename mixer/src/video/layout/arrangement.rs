//! A place for everybody who is seen on one canvas.

use super::super::scale::Fit;
use super::{Kind, MAX_TILES, Person, Rect, Scene, Size, places};

/// A place on the canvas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Whose.
    pub id: u64,
    /// Where.
    pub rect: Rect,
    /// Screens are never cropped.
    pub fit: Fit,
    /// The large one of the picture.
    pub large: bool,
}

/// The places of one canvas, and their memory.
///
/// Who is seen keeps their place as long as it exists. Where there are more people than places, who speaks comes
/// in for who was silent longest. Allocates nothing once it has seen its largest room.
#[derive(Debug)]
pub struct Arrangement {
    canvas: Size,
    placed: Vec<Placed>,
    places: Vec<Rect>,
    chosen: Vec<Chosen>,
    taken: Vec<bool>,
}

/// Somebody who is to be seen in a small tile.
#[derive(Clone, Copy, Debug)]
struct Chosen {
    person: Person,
    /// The place they had, or that of who made room for them.
    before: Option<Rect>,
    /// Index into the places.
    place: Option<usize>,
}

impl Arrangement {
    /// An empty canvas.
    pub fn new(canvas: Size) -> Self {
        Arrangement {
            canvas,
            placed: Vec::new(),
            places: Vec::new(),
            chosen: Vec::new(),
            taken: Vec::new(),
        }
    }

    /// Where everybody is, the large one first, then in reading order.
    pub fn placed(&self) -> &[Placed] {
        &self.placed
    }

    /// Takes everybody's place from another canvas, the first one there to the first one here. For an empty canvas,
    /// with the scene in which the other was arranged.
    pub fn seat_like(&mut self, other: &Arrangement, scene: Scene) {
        let large = other.placed.first().is_some_and(|first| first.large);
        let kind = if large { scene.kind } else { Kind::Grid };
        let others = other.placed.len() - usize::from(large);
        places(kind, others, self.canvas, &mut self.places);
        self.placed.clear();
        let seats = other.placed.iter().zip(&self.places);
        self.placed.extend(seats.map(|(placed, rect)| Placed {
            rect: *rect,
            ..*placed
        }));
    }

    /// Gives `people` their places in `scene`. No two of them share an id.
    pub fn arrange(&mut self, scene: Scene, people: &[Person]) -> &[Placed] {
        let by_id = |id: u64| people.iter().find(|person| person.id == id);
        let large = match scene.kind {
            Kind::Grid => None,
            _ => scene.large.and_then(by_id),
        };
        let kind = if large.is_some() {
            scene.kind
        } else {
            Kind::Grid
        };
        let others = people.len() - usize::from(large.is_some());
        places(kind, others.min(MAX_TILES), self.canvas, &mut self.places);
        let first = usize::from(large.is_some()).min(self.places.len());
        let somebody_left = self.keep(large, by_id);
        self.select(people, large, self.places.len() - first);
        self.assign(first, somebody_left);
        self.write(large, first);
        &self.placed
    }

    /// Whoever had a small tile and is still there is chosen first; tells whether somebody is not.
    fn keep<'p>(
        &mut self,
        large: Option<&Person>,
        by_id: impl Fn(u64) -> Option<&'p Person>,
    ) -> bool {
        self.chosen.clear();
        let placed = &self.placed;
        let was_large = placed.first().filter(|first| first.large);
        let mut stepped_back = was_large
            .and_then(|was| by_id(was.id))
            .filter(|was| large.is_none_or(|large| large.id != was.id));
        let mut somebody_left = false;
        for was in placed.iter().filter(|placed| !placed.large) {
            let person = if large.is_some_and(|large| large.id == was.id) {
                // Who was large takes the place of who is it now.
                stepped_back.take()
            } else {
                by_id(was.id)
            };
            somebody_left |= person.is_none();
            self.chosen.extend(person.map(|person| Chosen {
                person: *person,
                before: Some(was.rect),
                place: None,
            }));
        }
        if let Some(person) = stepped_back {
            // A large tile that becomes one among others comes first in reading order.
            let chosen = Chosen {
                person: *person,
                before: None,
                place: None,
            };
            self.chosen.insert(0, chosen);
        }
        somebody_left
    }

    /// At most `room` are chosen, the foremost in rank; who is chosen already goes before equals.
    fn select(&mut self, people: &[Person], large: Option<&Person>, room: usize) {
        while self.chosen.len() > room {
            let last = self.lowest().expect("there is one more than there is room");
            self.chosen.remove(last);
        }
        let kept = self.chosen.len();
        loop {
            let outside = |person: &&Person| {
                large.is_none_or(|large| large.id != person.id)
                    && self.chosen.iter().all(|c| c.person.id != person.id)
            };
            // The first of equals.
            let Some(next) = people.iter().filter(outside).rev().max_by_key(rank) else {
                break;
            };
            if self.chosen.len() < room {
                self.chosen.push(Chosen {
                    person: *next,
                    before: None,
                    place: None,
                });
                continue;
            }
            match self.lowest() {
                Some(lowest) if rank(&next) > rank(&&self.chosen[lowest].person) => {
                    self.chosen[lowest].person = *next;
                }
                _ => break,
            }
        }
        // Who comes in at the same time stands in the order of the room.
        let order = |c: &Chosen| people.iter().position(|person| person.id == c.person.id);
        self.chosen[kept..].sort_unstable_by_key(order);
    }

    /// The last of those with the lowest rank.
    fn lowest(&self) -> Option<usize> {
        let all = self.chosen.iter().enumerate().rev();
        all.min_by_key(|(_, chosen)| rank(&&chosen.person))
            .map(|(at, _)| at)
    }

    /// Who had a place that is still one stays there; the others take what is free, in order.
    fn assign(&mut self, first: usize, somebody_left: bool) {
        self.taken.clear();
        self.taken.resize(self.places.len(), false);
        for chosen in &mut self.chosen {
            let place = self.places[first..]
                .iter()
                .position(|place| Some(*place) == chosen.before)
                .map(|at| at + first)
                .filter(|at| !self.taken[*at]);
            chosen.place = place;
            if let Some(at) = place {
                self.taken[at] = true;
            }
        }
        let mut free = (first..self.places.len()).filter(|at| !self.taken[*at]);
        for chosen in self.chosen.iter_mut().filter(|c| c.place.is_none()) {
            chosen.place = free.next();
        }
        // Coming in permutes nobody: where staying would, everybody moves up instead.
        let old = || self.chosen.iter().filter(|c| c.before.is_some());
        if !somebody_left && !old().map(|c| c.place).is_sorted() {
            for (at, chosen) in (first..).zip(&mut self.chosen) {
                chosen.place = Some(at);
            }
        }
        self.chosen.sort_unstable_by_key(|chosen| chosen.place);
    }

    fn write(&mut self, large: Option<&Person>, first: usize) {
        let fit = |person: &Person| {
            if person.screen { Fit::Whole } else { Fit::Fill }
        };
        self.placed.clear();
        if let (Some(person), 1) = (large, first) {
            self.placed.push(Placed {
                id: person.id,
                rect: self.places[0],
                fit: fit(person),
                large: true,
            });
        }
        let places = &self.places;
        self.placed.extend(self.chosen.iter().filter_map(|chosen| {
            Some(Placed {
                id: chosen.person.id,
                rect: places[chosen.place?],
                fit: fit(&chosen.person),
                large: false,
            })
        }));
    }
}

/// Who is seen before others: screens, then who speaks, then who spoke last, then who has a picture.
fn rank(person: &&Person) -> (bool, bool, u64, bool) {
    (person.screen, person.speaking, person.spoke, person.camera)
}
