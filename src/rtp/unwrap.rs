//! Counters of 16 and 32 bits, made wide enough never to wrap.

/// Extends the 16-bit RTP sequence number to 64 bits.
///
/// The first value is placed one full turn above zero, so that a reordered predecessor stays positive.
#[derive(Clone, Debug, Default)]
pub struct SeqUnwrapper {
    highest: Option<u64>,
}

impl SeqUnwrapper {
    /// The extended value nearest to the highest one seen; remembers it when it is the new highest.
    pub fn unwrap(&mut self, seq: u16) -> u64 {
        let value = self.peek(seq);
        self.highest = Some(self.highest.map_or(value, |highest| highest.max(value)));
        value
    }

    /// As [`Self::unwrap`], without remembering.
    pub fn peek(&self, seq: u16) -> u64 {
        match self.highest {
            None => (1 << 16) + u64::from(seq),
            Some(highest) => {
                let ahead = seq.wrapping_sub(highest as u16) as i16;
                highest
                    .checked_add_signed(i64::from(ahead))
                    .unwrap_or(u64::from(seq))
            }
        }
    }

    /// The highest value seen.
    pub fn highest(&self) -> Option<u64> {
        self.highest
    }
}

/// Extends the 32-bit RTP timestamp to 64 bits; see [`SeqUnwrapper`].
#[derive(Clone, Debug, Default)]
pub struct TimestampUnwrapper {
    highest: Option<u64>,
}

impl TimestampUnwrapper {
    /// The extended value nearest to the highest one seen; remembers it when it is the new highest.
    pub fn unwrap(&mut self, timestamp: u32) -> u64 {
        let value = self.peek(timestamp);
        self.highest = Some(self.highest.map_or(value, |highest| highest.max(value)));
        value
    }

    /// As [`Self::unwrap`], without remembering.
    pub fn peek(&self, timestamp: u32) -> u64 {
        match self.highest {
            None => (1 << 32) + u64::from(timestamp),
            Some(highest) => {
                let ahead = timestamp.wrapping_sub(highest as u32) as i32;
                highest
                    .checked_add_signed(i64::from(ahead))
                    .unwrap_or(u64::from(timestamp))
            }
        }
    }

    /// Whether any value was seen.
    pub fn started(&self) -> bool {
        self.highest.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_wrap_goes_on_upwards_and_a_late_packet_stays_below() {
        let mut seq = SeqUnwrapper::default();
        let first = seq.unwrap(65_534);
        assert_eq!(seq.unwrap(1), first + 3);
        assert_eq!(seq.unwrap(65_535), first + 1);
        assert_eq!(seq.highest(), Some(first + 3));
    }

    #[test]
    fn a_predecessor_of_the_very_first_zero_is_not_negative() {
        let mut seq = SeqUnwrapper::default();
        let first = seq.unwrap(0);
        assert_eq!(seq.unwrap(65_535), first - 1);
    }

    proptest! {
        #[test]
        fn any_walk_of_less_than_half_a_turn_is_followed_exactly(
            start in any::<u16>(), steps in proptest::collection::vec(-1000i64..30_000, 1..200)
        ) {
            let mut unwrapper = SeqUnwrapper::default();
            let mut truth = i64::from(start) + (1 << 16);
            let mut highest = truth;
            prop_assert_eq!(unwrapper.unwrap(start), truth as u64);
            for step in steps {
                truth = highest + step;
                highest = highest.max(truth);
                prop_assert_eq!(unwrapper.unwrap(truth as u16), truth as u64);
            }
        }

        #[test]
        fn timestamps_are_followed_exactly(
            start in any::<u32>(), steps in proptest::collection::vec(-1_000_000i64..2_000_000_000, 1..100)
        ) {
            let mut unwrapper = TimestampUnwrapper::default();
            let mut highest = i64::from(start) + (1 << 32);
            unwrapper.unwrap(start);
            for step in steps {
                let truth = highest + step;
                highest = highest.max(truth);
                prop_assert_eq!(unwrapper.unwrap(truth as u32), truth as u64);
            }
        }
    }
}
