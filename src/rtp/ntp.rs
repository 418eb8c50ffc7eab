//! The wall clock's format in sender reports.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds between the epochs of NTP (1900) and Unix (1970).
const UNIX_EPOCH_IN_NTP: u64 = 2_208_988_800;

/// An NTP timestamp: seconds since 1900 in the upper 32 bits, their fraction in the lower (RFC 3550, section 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ntp(pub u64);

impl Ntp {
    /// The NTP form of a wall-clock time; times before 1970 become 1970.
    pub fn from_system(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ntp(UNIX_EPOCH_IN_NTP << 32) + since
    }

    /// The middle 32 bits, 16.16 seconds: LSR of a report block (RFC 3550, section 6.4.1).
    pub fn middle(self) -> u32 {
        (self.0 >> 16) as u32
    }

    /// `self - earlier` in units of 2⁻³² s, negative when `earlier` is later.
    pub fn units_since(self, earlier: Ntp) -> i64 {
        self.0.wrapping_sub(earlier.0) as i64
    }

    /// `self` moved by `units` of 2⁻³² s.
    pub fn shifted(self, units: i64) -> Ntp {
        Ntp(self.0.wrapping_add_signed(units))
    }
}

impl std::ops::Add<Duration> for Ntp {
    type Output = Ntp;

    fn add(self, duration: Duration) -> Ntp {
        Ntp(self.0.wrapping_add(units(duration)))
    }
}

/// A duration in units of 2⁻³² s.
pub fn units(duration: Duration) -> u64 {
    let fraction = (u64::from(duration.subsec_nanos()) << 32) / 1_000_000_000;
    (duration.as_secs() << 32).wrapping_add(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seventy_years_lie_between_the_epochs() {
        assert_eq!(Ntp::from_system(UNIX_EPOCH).0 >> 32, UNIX_EPOCH_IN_NTP);
    }

    #[test]
    fn durations_survive_addition_to_the_nanosecond() {
        let start = Ntp::from_system(UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        let later = start + Duration::from_millis(1500);
        assert_eq!(later.units_since(start), 3 << 31);
        assert_eq!(start.units_since(later), -(3 << 31));
        assert_eq!(start.shifted(3 << 31), later);
    }
}
