//! Which of the latest sequence numbers have been seen.

/// How many sequence numbers back a packet may come and still be told from a duplicate: two seconds of a 4 Mbit/s
/// stream. Older ones are refused.
pub const WINDOW: u64 = 1024;

const WORDS: usize = (WINDOW / 64) as usize;

/// What a sequence number is to a [`SeqWindow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Novelty {
    /// Above all that were seen.
    Newest,
    /// Below the highest, and not seen before.
    Late,
    /// Seen before.
    Duplicate,
    /// Too far below the highest to know.
    TooOld,
}

/// A bitmap over the last [`WINDOW`] extended sequence numbers.
#[derive(Clone, Debug, Default)]
pub struct SeqWindow {
    highest: Option<u64>,
    seen: [u64; WORDS],
}

impl SeqWindow {
    /// What `seq` would be, without marking it.
    pub fn peek(&self, seq: u64) -> Novelty {
        let Some(highest) = self.highest else {
            return Novelty::Newest;
        };
        if seq > highest {
            Novelty::Newest
        } else if highest - seq >= WINDOW {
            Novelty::TooOld
        } else if self.bit(seq) {
            Novelty::Duplicate
        } else {
            Novelty::Late
        }
    }

    /// Marks `seq` as seen, and says what it was before.
    pub fn insert(&mut self, seq: u64) -> Novelty {
        let novelty = self.peek(seq);
        match novelty {
            Novelty::Newest => {
                self.advance(seq);
                self.set(seq, true);
            }
            Novelty::Late => self.set(seq, true),
            Novelty::Duplicate | Novelty::TooOld => {}
        }
        novelty
    }

    /// How many numbers above `seq` have been seen, as far as the window goes.
    pub fn count_above(&self, seq: u64) -> u64 {
        let Some(highest) = self.highest else {
            return 0;
        };
        let from = (seq + 1).max((highest + 1).saturating_sub(WINDOW));
        (from..=highest).filter(|seq| self.bit(*seq)).count() as u64
    }

    /// The highest number seen.
    pub fn highest(&self) -> Option<u64> {
        self.highest
    }

    fn advance(&mut self, seq: u64) {
        match self.highest {
            Some(highest) if seq - highest < WINDOW => {
                for skipped in highest + 1..seq {
                    self.set(skipped, false);
                }
            }
            _ => self.seen = [0; WORDS],
        }
        self.highest = Some(seq);
    }

    fn bit(&self, seq: u64) -> bool {
        self.seen[(seq / 64) as usize % WORDS] >> (seq % 64) & 1 == 1
    }

    fn set(&mut self, seq: u64, value: bool) {
        let word = &mut self.seen[(seq / 64) as usize % WORDS];
        let mask = 1 << (seq % 64);
        if value {
            *word |= mask;
        } else {
            *word &= !mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_agrees_with_a_set(start in 5000u64..1 << 40, steps in proptest::collection::vec(-1500i64..1500, 1..300)) {
            let mut window = SeqWindow::default();
            let mut seen = BTreeSet::from([start]);
            prop_assert_eq!(window.insert(start), Novelty::Newest);
            for step in steps {
                let highest = *seen.last().expect("never empty");
                let seq = highest.saturating_add_signed(step);
                let expected = if seq > highest {
                    Novelty::Newest
                } else if highest - seq >= WINDOW {
                    Novelty::TooOld
                } else if seen.contains(&seq) {
                    Novelty::Duplicate
                } else {
                    Novelty::Late
                };
                prop_assert_eq!(window.insert(seq), expected);
                if expected != Novelty::TooOld {
                    seen.insert(seq);
                }
            }
        }
    }
}
