//! The sound's half of a bus.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::Receiver;
use crossbeam_queue::ArrayQueue;

use super::{
    AUDIO_INTERVAL, Alive, BusCounters, BusOutput, BusSender, MAX_LAG, MixedAudio, drain, raise,
};
use crate::ids::{PeerId, RoomKey, TrackKey};
use crate::mcu::audio::{AudioMix, AudioPacket, AudioRung, AudioTick};
use crate::mcu::codec::SourceCodec;
use crate::mcu::pool::Job;

/// What the worker says to it.
pub(super) enum AudioControl {
    AddSource {
        track: TrackKey,
        peer: PeerId,
        music: bool,
    },
    RemoveSource(TrackKey),
    Muted(TrackKey, bool),
    AddListener(PeerId, AudioRung),
    SetRung(PeerId, AudioRung),
    SetCodec(TrackKey, SourceCodec),
    SetStereo(PeerId, bool),
    SetLossy(PeerId, bool),
    RemoveListener(PeerId),
}

/// Ticks every [`AUDIO_INTERVAL`].
pub(super) struct AudioJob {
    pub(super) room: RoomKey,
    pub(super) mix: AudioMix,
    pub(super) control: Receiver<AudioControl>,
    pub(super) tap: Arc<ArrayQueue<(TrackKey, AudioPacket)>>,
    pub(super) tick: AudioTick,
    pub(super) due: Instant,
    pub(super) output: BusSender,
    pub(super) counters: Arc<BusCounters>,
    pub(super) _alive: Alive,
}

impl AudioJob {
    fn apply(mix: &mut AudioMix, control: AudioControl) {
        match control {
            AudioControl::AddSource { track, peer, music } => mix.add_source(track, peer, music),
            AudioControl::RemoveSource(track) => mix.remove_source(track),
            AudioControl::Muted(track, muted) => mix.set_muted(track, muted),
            AudioControl::AddListener(peer, rung) => mix.add_listener(peer, rung),
            AudioControl::SetRung(peer, rung) => mix.set_rung(peer, rung),
            AudioControl::SetCodec(track, codec) => mix.set_codec(track, codec),
            AudioControl::SetStereo(peer, stereo) => mix.set_stereo(peer, stereo),
            AudioControl::SetLossy(peer, lossy) => mix.set_lossy(peer, lossy),
            AudioControl::RemoveListener(peer) => mix.remove_listener(peer),
        }
    }
}

impl Job for AudioJob {
    fn run(&mut self, now: Instant) -> Option<Instant> {
        let mix = &mut self.mix;
        if !drain(&self.control, |control| Self::apply(mix, control)) {
            return None;
        }
        while let Some((track, packet)) = self.tap.pop() {
            mix.push(track, packet);
        }
        // The mix lives on planned time: a late tick is made up, not moved.
        mix.tick(self.due, &mut self.tick);
        let counters = mix.counters();
        raise(
            &self.counters.audio_decodes,
            &self.output.totals.audio_decodes,
            counters.decodes,
        );
        raise(
            &self.counters.audio_encodes,
            &self.output.totals.audio_encodes,
            counters.encodes,
        );
        let drops = counters.drops().into_iter().zip(&self.counters.audio_drops);
        for (((_, count), of_room), total) in drops.zip(&self.output.totals.audio_drops) {
            raise(of_room, total, count);
        }
        if !self.tick.frames.is_empty() || !self.tick.speaking_changes.is_empty() {
            let frames = self.tick.frames.iter().map(|frame| MixedAudio {
                mix: frame.mix,
                timestamp: frame.timestamp,
                marker: frame.resumes,
                payload: Bytes::copy_from_slice(self.tick.payload(frame)),
            });
            self.output.send(BusOutput::Audio {
                room: self.room,
                frames: frames.collect(),
                routes: self.tick.routes.clone(),
                speaking: self.tick.speaking_changes.clone(),
            });
        }
        let next = NextTick::after(self.due, now);
        self.mix.give_up(next.given_up);
        self.due = next.due;
        Some(next.wake)
    }
}

/// Late ticks follow each other this fast: a stall is made up within a few times its length, and never by a burst.
const CATCH_UP_INTERVAL: Duration = Duration::from_millis(10);

/// The tick after one that was due at some time and is done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NextTick {
    /// Its place on the clock.
    due: Instant,
    /// Ticks before it that are left out, because the stall was longer than [`MAX_LAG`].
    given_up: u32,
    /// When to run it: at its time, or soon if that has passed.
    wake: Instant,
}

impl NextTick {
    fn after(due: Instant, now: Instant) -> Self {
        let due = due + AUDIO_INTERVAL;
        let late = now.saturating_duration_since(due);
        let given_up = if late > MAX_LAG {
            (late.as_nanos() / AUDIO_INTERVAL.as_nanos()) as u32
        } else {
            0
        };
        let due = due + AUDIO_INTERVAL * given_up;
        NextTick {
            due,
            given_up,
            wake: due.max(now + CATCH_UP_INTERVAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the clock for `ticks`; the tick that begins `stalled_at` takes `stall`. The runs' times, and ticks given up.
    fn run(ticks: usize, stalled_at: usize, stall: Duration) -> (Instant, Vec<Instant>, u32) {
        let start = Instant::now();
        let (mut due, mut wake, mut given_up) = (start, start, 0);
        let mut runs = Vec::new();
        for tick in 0..ticks {
            // The scheduler wakes it half a millisecond late each time, which must not add up.
            let mut now = wake + Duration::from_micros(500);
            runs.push(now);
            if tick == stalled_at {
                now += stall;
            }
            let next = NextTick::after(due, now);
            given_up += next.given_up;
            (due, wake) = (next.due, next.wake);
        }
        assert_eq!(
            due,
            start + AUDIO_INTERVAL * (ticks as u32 + given_up),
            "on its grid"
        );
        (start, runs, given_up)
    }

    #[test]
    fn late_wake_ups_do_not_add_up_in_an_hour() {
        let (start, runs, given_up) = run(180_000, usize::MAX, Duration::ZERO);
        assert_eq!(given_up, 0);
        let last = start + AUDIO_INTERVAL * 179_999;
        assert_eq!(runs[179_999] - last, Duration::from_micros(500));
    }

    #[test]
    fn a_short_stall_is_made_up_tick_by_tick_without_a_burst() {
        let (start, runs, given_up) = run(100, 20, Duration::from_millis(90));
        assert_eq!(given_up, 0);
        let closest = runs.windows(2).map(|w| w[1] - w[0]).min();
        assert!(closest >= Some(CATCH_UP_INTERVAL), "{closest:?}");
        assert!(
            runs[40] - (start + AUDIO_INTERVAL * 40) < Duration::from_millis(1),
            "caught up"
        );
    }

    #[test]
    fn a_long_stall_is_given_up_in_whole_ticks() {
        let (start, runs, given_up) = run(100, 20, Duration::from_millis(1010));
        assert!((45..=50).contains(&given_up), "{given_up}");
        let last = start + AUDIO_INTERVAL * (99 + given_up);
        assert!(runs[99] - last < Duration::from_millis(1));
    }
}
