//! Who speaks, from the levels in the RTP headers (RFC 6464): a light for the page, not the mixer's judgement.

use std::time::{Duration, Instant};

/// Louder than this (in -dBov, so: less) counts as voice. A quiet talker close to a microphone has about 35.
const VOICE_LEVEL: u8 = 50;
/// Packets in a row that open: one click is no word.
const OPEN_AFTER: u8 = 3;
/// Silence that closes.
const HOLD: Duration = Duration::from_millis(600);

/// The state of one peer.
#[derive(Debug, Default)]
pub struct Speaking {
    loud: u8,
    last_loud: Option<Instant>,
    speaking: bool,
}

impl Speaking {
    /// Takes a packet's level; `Some` when the state changes.
    pub fn handle_level(&mut self, now: Instant, dbov: u8, voice: bool) -> Option<bool> {
        // The V bit is optional: an encoder without a detector leaves it clear at all levels.
        let loud = dbov < VOICE_LEVEL && (voice || dbov < VOICE_LEVEL - 15);
        if !loud {
            self.loud = 0;
            return self.handle_timeout(now);
        }
        self.loud = self.loud.saturating_add(1);
        if self.loud < OPEN_AFTER && !self.speaking {
            return None;
        }
        self.last_loud = Some(now);
        (!std::mem::replace(&mut self.speaking, true)).then_some(true)
    }

    /// Speaks now?
    pub fn is_speaking(&self) -> bool {
        self.speaking
    }

    /// For a peer without levels: what the mixer found.
    pub fn set(&mut self, speaking: bool) {
        self.speaking = speaking;
    }

    /// Closes after [`HOLD`] without voice, also when packets stop coming.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<bool> {
        let silent = self
            .last_loud
            .is_some_and(|at| now.saturating_duration_since(at) >= HOLD);
        (self.speaking && silent).then(|| {
            self.speaking = false;
            false
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_opens_a_click_does_not_and_silence_closes() {
        let start = Instant::now();
        let at = |packet: u32| start + packet * Duration::from_millis(20);
        let mut speaking = Speaking::default();
        assert_eq!(speaking.handle_level(at(0), 20, true), None);
        assert_eq!(speaking.handle_level(at(1), 90, false), None);
        assert_eq!(speaking.handle_level(at(2), 30, true), None);
        assert_eq!(speaking.handle_level(at(3), 30, true), None);
        assert_eq!(speaking.handle_level(at(4), 30, true), Some(true));
        assert_eq!(speaking.handle_level(at(5), 127, false), None);
        assert_eq!(speaking.handle_timeout(at(30)), None);
        assert_eq!(speaking.handle_timeout(at(34)), Some(false));
        assert_eq!(speaking.handle_timeout(at(100)), None);
    }
}
