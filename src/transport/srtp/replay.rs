//! Replay protection and packet index estimation (RFC 3711, sections 3.3.1 and 3.3.2).

/// The indices of one stream: the highest that was seen and which of the `64 * WORDS` below it were.
#[derive(Clone, Debug)]
pub(super) struct Window<const WORDS: usize> {
    /// One above the highest index seen; 0 before the first.
    next: u64,
    /// Bit `index % size` is set if that index of the window was seen.
    seen: [u64; WORDS],
}

impl<const WORDS: usize> Window<WORDS> {
    const SIZE: u64 = 64 * WORDS as u64;

    pub(super) const fn new() -> Self {
        Window {
            next: 0,
            seen: [0; WORDS],
        }
    }

    /// The highest index seen.
    pub(super) fn highest(&self) -> Option<u64> {
        self.next.checked_sub(1)
    }

    /// Whether `index` was not seen and is not too old to tell.
    pub(super) fn is_fresh(&self, index: u64) -> bool {
        if index >= self.next {
            return true;
        }
        self.next - index <= Self::SIZE && !self.bit(index)
    }

    /// Marks an authenticated index as seen.
    pub(super) fn mark(&mut self, index: u64) {
        if index >= self.next {
            self.advance(index);
        }
        if self.next - index <= Self::SIZE {
            let (word, mask) = Self::place(index);
            self.seen[word] |= mask;
        }
    }

    /// Forgets what leaves the window when `index` becomes the highest.
    fn advance(&mut self, index: u64) {
        if index - self.next >= Self::SIZE {
            self.seen = [0; WORDS];
        } else {
            for skipped in self.next..=index {
                let (word, mask) = Self::place(skipped);
                self.seen[word] &= !mask;
            }
        }
        self.next = index + 1;
    }

    fn bit(&self, index: u64) -> bool {
        let (word, mask) = Self::place(index);
        self.seen[word] & mask != 0
    }

    fn place(index: u64) -> (usize, u64) {
        let bit = index % Self::SIZE;
        ((bit / 64) as usize, 1 << (bit % 64))
    }
}

/// The 48-bit index of a packet with sequence number `seq`, given the highest one so far (RFC 3711, section
/// 3.3.1). `None` for a packet from before the stream began.
pub(super) fn estimate_index(highest: Option<u64>, seq: u16) -> Option<u64> {
    let Some(highest) = highest else {
        return Some(u64::from(seq));
    };
    let last = highest as u16;
    let rollovers = highest >> 16;
    let rollovers = if last < 0x8000 {
        if u32::from(seq) > u32::from(last) + 0x8000 {
            rollovers.checked_sub(1)?
        } else {
            rollovers
        }
    } else if seq < last - 0x8000 {
        rollovers + 1
    } else {
        rollovers
    };
    Some(rollovers << 16 | u64::from(seq))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn an_index_is_fresh_once() {
        let mut window = Window::<2>::new();
        for index in [5, 3, 200, 199, 73] {
            assert!(window.is_fresh(index), "{index}");
            window.mark(index);
            assert!(!window.is_fresh(index), "{index}");
        }
        assert!(!window.is_fresh(72), "older than 128 below 200");
        assert!(window.is_fresh(74));
    }

    #[test]
    fn the_index_follows_the_rollover_in_both_directions() {
        assert_eq!(estimate_index(None, 65_530), Some(65_530));
        assert_eq!(estimate_index(Some(65_530), 2), Some(65_538));
        assert_eq!(estimate_index(Some(65_538), 65_535), Some(65_535));
        assert_eq!(estimate_index(Some(5), 65_535), None);
        assert_eq!(estimate_index(Some(0x7fff), 0xffff), Some(0xffff));
        assert_eq!(estimate_index(Some(0x8000), 0), Some(0));
        assert_eq!(estimate_index(Some(0x8001), 0), Some(0x1_0000));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_window_agrees_with_a_set(indices in prop::collection::vec(0u64..600, 1..200)) {
            let mut window = Window::<2>::new();
            let mut seen = BTreeSet::new();
            for index in indices {
                let highest = seen.last().copied();
                let too_old = highest.is_some_and(|highest: u64| highest >= index + 128);
                let fresh = !too_old && !seen.contains(&index);
                prop_assert_eq!(window.is_fresh(index), fresh);
                if fresh {
                    window.mark(index);
                    seen.insert(index);
                }
            }
        }

        #[test]
        fn the_estimate_is_right_within_half_a_cycle(highest in 40_000u64..1 << 40, step in -32_000i64..32_000) {
            let index = highest.checked_add_signed(step).expect("in range");
            prop_assert_eq!(estimate_index(Some(highest), index as u16), Some(index));
        }
    }
}
