//! The last items of a numbered stream. A voice has fifty packets in a second and a picture thousands: what both are
//! given room for at once is what one of them needs, and the other would go through cold memory.

use crate::prefetch::prefetch;

/// Something with a number and a time.
pub trait Numbered: Copy + Default {
    /// Its number; 0 is nothing's.
    fn number(&self) -> u64;

    /// Its time, in the ring's unit.
    fn time(&self) -> u64;
}

/// A ring by number that grows until it remembers long enough, or as much as it may. Allocates with its first item.
#[derive(Clone, Debug)]
pub struct Ring<T> {
    /// A power of two of them, or none yet.
    slots: Vec<T>,
    most: usize,
    memory: u64,
}

/// What it begins with.
const FIRST: usize = 64;

impl<T: Numbered> Ring<T> {
    /// Remembers the last `most` items (a power of two, at least 64), or those of the last `memory` if they are fewer.
    pub fn new(most: usize, memory: u64) -> Self {
        debug_assert!(most.is_power_of_two() && most >= FIRST);
        Ring {
            slots: Vec::new(),
            most,
            memory,
        }
    }

    /// In place of the oldest, as a rule.
    pub fn insert(&mut self, item: T) {
        if self.slots.is_empty() {
            self.slots.resize(FIRST, T::default());
        }
        while self.slots.len() < self.most && self.is_needed(&item) {
            self.grow();
        }
        let at = self.place(item.number());
        self.slots[at] = item;
    }

    /// The item of this number.
    pub fn get(&self, number: u64) -> Option<&T> {
        let item = self.slots.get(self.place(number))?;
        (number != 0 && item.number() == number).then_some(item)
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        let at = self.place(number);
        let item = self.slots.get_mut(at)?;
        (number != 0 && item.number() == number).then_some(item)
    }

    /// Loads the place of this number: see [`crate::prefetch`].
    pub fn prefetch(&self, number: u64) {
        if let Some(item) = self.slots.get(self.place(number)) {
            prefetch(item);
        }
    }

    /// What `item` would displace is remembered still.
    fn is_needed(&self, item: &T) -> bool {
        let displaced = &self.slots[self.place(item.number())];
        let age = item.time().saturating_sub(displaced.time());
        ![0, item.number()].contains(&displaced.number()) && age < self.memory
    }

    fn grow(&mut self) {
        let larger = vec![T::default(); self.slots.len() * 2];
        for item in std::mem::replace(&mut self.slots, larger) {
            let at = self.place(item.number());
            if item.number() != 0 {
                self.slots[at] = item;
            }
        }
    }

    fn place(&self, number: u64) -> usize {
        number as usize & self.slots.len().saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, Default, PartialEq)]
    struct At(u64, u64);

    impl Numbered for At {
        fn number(&self) -> u64 {
            self.0
        }

        fn time(&self) -> u64 {
            self.1
        }
    }

    #[test]
    fn rare_items_take_little_room_and_dense_ones_as_much_as_they_may() {
        let kept = |every: u64| {
            let mut ring = Ring::new(1024, 2000);
            assert_eq!(ring.get(1), None);
            let items = 5000;
            (1..=items).for_each(|n| ring.insert(At(n, n * every)));
            let kept = (1..=items).filter(|n| ring.get(*n) == Some(&At(*n, n * every)));
            (kept.count(), ring.slots.len())
        };
        assert_eq!(
            kept(20),
            (128, 128),
            "two seconds of a voice are 100 packets"
        );
        assert_eq!(kept(1), (1024, 1024), "two seconds would be 2000 packets");
        assert_eq!(kept(100), (64, 64));
    }

    #[test]
    fn what_is_there_survives_growth_and_is_found_by_its_number_only() {
        let mut ring = Ring::new(256, 1000);
        for n in 100..230 {
            ring.insert(At(n, n));
        }
        assert!((100..230).all(|n| ring.get(n) == Some(&At(n, n))));
        assert_eq!((ring.get(99), ring.get(230)), (None, None));
        assert_eq!(ring.get(0), None, "nothing has the number 0");
        ring.get_mut(150).unwrap().1 = 7;
        assert_eq!(ring.get(150), Some(&At(150, 7)));
        // The same number again is no reason to grow.
        let before = ring.slots.len();
        ring.insert(At(150, 8));
        assert_eq!(
            (ring.get(150), ring.slots.len()),
            (Some(&At(150, 8)), before)
        );
    }
}
