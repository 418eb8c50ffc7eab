//! Who speaks, from the levels in the RTP headers (RFC 6464): a light for the page, not the mixer's judgement.

use std::time::{Duration, Instant};

/// Louder than this (in -dBov, so: less) counts as voice. A quiet talker close to a microphone has about 35.
const VOICE_LEVEL: u8 = 50;
/// Packets in a row that open: one click is no word.
const OPEN_AFTER: u8 = 3;
/// Silence that closes.
pub const HOLD: Duration = Duration::from_millis(600);

/// One packet of a voice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VoicePacket {
    /// RTP sequence number of the publisher.
    pub seq: u16,
    /// RTP timestamp of the publisher, 48 kHz.
    pub timestamp: u32,
    /// RFC 6464: -dBov, 127 is silence.
    pub dbov: u8,
    /// It counts as voice.
    pub voice: bool,
}

/// The state of one peer.
#[derive(Debug, Default)]
pub struct Speaking {
    recent: [VoicePacket; OPEN_AFTER as usize],
    loud: u8,
    last_loud: Option<Instant>,
    speaking: bool,
}

impl Speaking {
    /// Takes a packet with its level; `Some` when the state changes.
    pub fn handle_packet(&mut self, now: Instant, mut packet: VoicePacket) -> Option<bool> {
        let (dbov, voice) = (packet.dbov, packet.voice);
        // The V bit is optional: an encoder without a detector leaves it clear at all levels.
        let loud = dbov < VOICE_LEVEL && (voice || dbov < VOICE_LEVEL - 15);
        packet.voice = loud;
        self.recent.rotate_left(1);
        self.recent[usize::from(OPEN_AFTER) - 1] = packet;
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

    /// The last packets, oldest first: at a beginning those that decided it.
    pub fn recent(&self) -> &[VoicePacket] {
        &self.recent
    }

    /// Speaks now?
    pub fn is_speaking(&self) -> bool {
        self.speaking
    }

    /// What the mixer found, for a peer without levels or with false ones. Whether it is news.
    pub fn set(&mut self, speaking: bool) -> bool {
        self.loud = 0;
        self.last_loud = None;
        std::mem::replace(&mut self.speaking, speaking) != speaking
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
        let mut level = |packet: u32, dbov, voice| {
            let packet_of = VoicePacket {
                seq: packet as u16,
                timestamp: packet * 960,
                dbov,
                voice,
            };
            speaking.handle_packet(at(packet), packet_of)
        };
        assert_eq!(level(0, 20, true), None);
        assert_eq!(level(1, 90, false), None);
        assert_eq!(level(2, 30, true), None);
        assert_eq!(level(3, 30, true), None);
        assert_eq!(level(4, 30, true), Some(true));
        assert_eq!(level(5, 127, false), None);
        let heard: Vec<_> = speaking.recent().iter().map(|p| (p.seq, p.voice)).collect();
        assert_eq!(heard, [(3, true), (4, true), (5, false)]);
        assert_eq!(speaking.handle_timeout(at(30)), None);
        assert_eq!(speaking.handle_timeout(at(34)), Some(false));
        assert_eq!(speaking.handle_timeout(at(100)), None);
    }
}
