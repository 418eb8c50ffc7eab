//! How active one voice is: the levels of its last second, and what they can be believed.

use std::time::{Duration, Instant};

use crate::rtp::extension::AudioLevel;

/// One level.
pub const SLOT: Duration = Duration::from_millis(20);
/// Slots that are remembered: the long window.
pub const SLOTS: usize = MEDIUM * LONG;
/// Slots of a medium window: 100 ms.
pub const MEDIUM: usize = 5;
/// Medium windows of the long one: 1 s.
pub const LONG: usize = 10;

/// Loudness is counted upwards from digital silence: 127 less the -dBov of RFC 6464.
const FULL_SCALE: u8 = 127;
/// Nobody counts as louder than -15 dBov: a level is a claim, and a larger claim is no better.
const LOUDEST: u8 = FULL_SCALE - 15;
/// Quieter than -50 dBov is nobody close to a microphone.
const QUIETEST: u8 = FULL_SCALE - 50;
/// Without the V bit, which is optional, only what is louder by this counts.
const WITHOUT_FLAG: u8 = 15;
/// Speech stands out of its own quietest moments by far more.
const ABOVE_FLOOR: u8 = 10;
/// Medium windows over which the floor is sought: 3 s. Nobody speaks for that long without a stop.
const FLOOR_WINDOWS: usize = 30;
/// Without a packet for this many slots, 1 s, what was quiet before is forgotten: a voice that comes back is as new.
const ABSENT: u32 = 50;
/// A medium window in which no packet came says nothing about the floor: the network may have stood still.
const UNKNOWN: u8 = u8::MAX;
/// Slots by which packets may be late without a hole.
const LATE: u64 = 5;
/// Slots by which packets may be early: what comes faster only makes the newest one louder.
const EARLY: u64 = 3;
/// Loud slots after which a voice that the mixer has decoded and not heard is not believed any more: 1 s.
const UNHEARD: u16 = 50;
/// Slots over which the share of time is averaged: 15 s.
const SHARE_SLOTS: f32 = 750.0;

/// The state of one voice. Constant work for each packet, no allocation.
#[derive(Clone, Debug)]
pub struct Activity {
    epoch: Instant,
    /// The next slot to be filled, counted from the epoch; `slots` holds those before it.
    next: u64,
    slots: [u8; SLOTS],
    /// Means of the last medium windows, as a ring.
    windows: [u8; FLOOR_WINDOWS],
    /// Slots with packets in the window that is being filled.
    in_window: u16,
    /// Slots without packets up to now.
    absent: u32,
    floor: u8,
    share: f32,
    decoded: Option<bool>,
    unheard: u16,
}

impl Activity {
    /// A voice that has said nothing yet.
    pub fn new(now: Instant) -> Self {
        Activity {
            epoch: now,
            next: 0,
            slots: [0; SLOTS],
            windows: [0; FLOOR_WINDOWS],
            in_window: 0,
            absent: 0,
            floor: 0,
            share: 0.0,
            decoded: None,
            unheard: 0,
        }
    }

    /// Takes the level of a packet of `slots` times 20 ms. Its loudness in decibels above digital silence, if it is
    /// loud.
    pub fn push(&mut self, now: Instant, level: AudioLevel, slots: u32) -> Option<u8> {
        self.catch_up(now);
        let loudness = FULL_SCALE.saturating_sub(level.dbov).min(LOUDEST);
        let needed = if level.voice {
            QUIETEST
        } else {
            QUIETEST + WITHOUT_FLAG
        };
        let stands_out = loudness >= needed && loudness >= self.floor.saturating_add(ABOVE_FLOOR);
        match self.decoded {
            Some(false) if stands_out => self.unheard = self.unheard.saturating_add(1),
            Some(true) | None => self.unheard = 0,
            Some(false) => {}
        }
        let loud = stands_out && self.is_believed();
        let newest = self.slot_at(now) + EARLY;
        // The floor knows what was claimed; the windows know what is believed.
        for _ in 0..slots.clamp(1, 6) {
            if self.next <= newest {
                self.fill(Some(loudness), loud);
            } else if let Some(last) = self.next.checked_sub(1) {
                let last = &mut self.slots[last as usize % SLOTS];
                *last = (*last).max(if loud { loudness } else { 0 });
            }
        }
        loud.then_some(loudness)
    }

    /// Time without packets is silence.
    pub fn catch_up(&mut self, now: Instant) {
        let oldest = self.slot_at(now).saturating_sub(LATE);
        // After a long silence all there is to know is that it was long.
        if oldest > self.next + 2 * (FLOOR_WINDOWS * MEDIUM) as u64 {
            let passed = oldest - self.next;
            self.share *= (-(passed as f32) / SHARE_SLOTS).exp();
            self.slots = [0; SLOTS];
            self.absent = ABSENT;
            self.windows = [0; FLOOR_WINDOWS];
            self.floor = 0;
            self.next = oldest;
        }
        while self.next < oldest {
            self.fill(None, false);
        }
    }

    fn slot_at(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.epoch);
        (since.as_micros() / SLOT.as_micros()) as u64
    }

    /// The next slot: what a packet claims, if one came, and whether that counts as loud.
    fn fill(&mut self, claim: Option<u8>, loud: bool) {
        let at = self.next as usize;
        self.next += 1;
        self.slots[at % SLOTS] = claim.filter(|_| loud).unwrap_or(0);
        self.share += (f32::from(u8::from(loud)) - self.share) / SHARE_SLOTS;
        let window = &mut self.windows[at / MEDIUM % FLOOR_WINDOWS];
        if at.is_multiple_of(MEDIUM) {
            self.in_window = 0;
            *window = UNKNOWN;
        }
        match claim {
            // A running mean: exact enough, and nothing has to be kept of what was not believed.
            Some(loudness) => {
                let (before, loudness) = (u16::from(*window), u16::from(loudness));
                let sum = before * self.in_window + loudness;
                self.in_window += 1;
                self.absent = 0;
                *window = (sum / self.in_window) as u8;
            }
            None => self.absent = self.absent.saturating_add(1),
        }
        if self.absent >= ABSENT {
            self.windows = [0; FLOOR_WINDOWS];
        }
        if at % MEDIUM == MEDIUM - 1 {
            self.floor = self.windows.iter().copied().min().unwrap_or(0);
        }
    }

    /// What the mixer's decoder says about this voice; `None`: it does not run.
    pub fn set_decoded(&mut self, speaking: Option<bool>) {
        self.decoded = speaking;
        if speaking != Some(false) {
            self.unheard = 0;
        }
    }

    /// False for a voice whose levels the decoder contradicts.
    pub fn is_believed(&self) -> bool {
        self.unheard <= UNHEARD
    }

    /// Share of the last 15 s, exponentially averaged, in which it was loud: 0 to 1.
    pub fn share(&self) -> f32 {
        self.share
    }

    /// Loudness of slot `back` before the newest; 0: not loud.
    pub fn slot(&self, back: usize) -> u8 {
        match self.next.checked_sub(1 + back as u64) {
            Some(at) => self.slots[at as usize % SLOTS],
            None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(dbov: u8) -> AudioLevel {
        AudioLevel { dbov, voice: true }
    }

    /// Loud slots of the last second.
    fn loud(activity: &Activity) -> usize {
        (0..SLOTS).filter(|back| activity.slot(*back) > 0).count()
    }

    #[test]
    fn a_constant_level_is_no_voice_after_three_seconds_and_speech_still_is() {
        let start = Instant::now();
        let (mut constant, mut speech) = (Activity::new(start), Activity::new(start));
        for packet in 0..500u32 {
            let now = start + packet * SLOT;
            let constant_is_loud = constant.push(now, level(0), 1).is_some();
            assert_eq!(constant_is_loud, packet < 150, "packet {packet}");
            // A syllable and a half, and a stop.
            speech.push(now, level(if packet % 25 < 18 { 25 } else { 65 }), 1);
        }
        assert_eq!(loud(&constant), 0);
        assert!((34..=37).contains(&loud(&speech)), "{}", loud(&speech));
    }

    #[test]
    fn a_network_that_stands_still_makes_no_voice_of_a_constant_level() {
        let start = Instant::now();
        let mut activity = Activity::new(start);
        // Every second 400 ms are missing.
        let comes = |packet: &u32| packet % 50 < 30;
        let loud = (0..1000).filter(comes).filter(|packet| {
            let now = start + *packet * SLOT;
            activity.push(now, level(0), 1).is_some()
        });
        assert!(loud.last() < Some(160));
        // Who was away for a second is heard from the first packet on.
        let back = start + 1100 * SLOT;
        assert!(activity.push(back, level(30), 1).is_some());
    }

    #[test]
    fn a_flood_of_packets_fills_no_more_than_the_time_that_passes() {
        let start = Instant::now();
        let mut activity = Activity::new(start);
        for packet in 0..1000u32 {
            activity.push(start + packet * SLOT / 100, level(20), 6);
        }
        assert!(loud(&activity) <= 14, "{}", loud(&activity));
    }

    #[test]
    fn jitter_makes_no_holes_and_a_pause_does() {
        let start = Instant::now();
        let mut activity = Activity::new(start);
        for burst in 0..10u32 {
            let now = start + (burst * 4 + 3) * SLOT;
            for _ in 0..4 {
                activity.push(now, level(20), 1);
            }
        }
        assert_eq!(loud(&activity), 40);
        activity.catch_up(start + 60 * SLOT);
        assert!((30..40).contains(&loud(&activity)), "{}", loud(&activity));
        activity.catch_up(start + 10_000 * SLOT);
        assert_eq!(loud(&activity), 0);
    }

    #[test]
    fn what_the_decoder_does_not_hear_is_believed_for_a_second() {
        let start = Instant::now();
        let mut activity = Activity::new(start);
        activity.set_decoded(Some(false));
        let claim = |activity: &mut Activity, packet: u32| {
            let pause = packet % 10 > 7;
            let dbov = if pause { 90 } else { 20 };
            let now = start + packet * SLOT;
            activity.push(now, level(dbov), 1).is_some()
        };
        let believed = (0..400).filter(|p| claim(&mut activity, *p)).count();
        assert_eq!(believed, usize::from(UNHEARD));
        activity.set_decoded(Some(true));
        assert!(claim(&mut activity, 400));
    }
}
