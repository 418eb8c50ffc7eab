//! The mixed audio of one room: packets of its sources in, packets for its listeners out, every 20 ms.
//!
//! Deterministic: the caller tells the time. Nothing is decoded or encoded while nobody listens, or nobody speaks.
//! Everybody who is not heard shares one encoding per rung; only the few who are get one of their own, without
//! their own sources. A listener's move between the two goes unnoticed: the other encoder begins with an independent
//! frame, a new one has heard what the listener heard before, and both run on one timestamp.

mod counters;
mod decoder;
mod source;
mod stream;
mod voice;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

use bytes::Bytes;
pub use talksy_mixer::audio::AudioLevel;
use talksy_mixer::audio::{
    FRAME_SAMPLES, Frame, MixFor, Mixer, MixerConfig, OwnerId, SILENCE, SourceKind, StereoFrame,
};

pub use self::counters::{AUDIO_DROPS, AudioCounters, AudioDrops};
use self::decoder::DecoderKind;
pub use self::source::SourceDelay;
use self::source::{AudioSource, Played};
use self::stream::Streams;
use self::voice::Voice;
use super::codec::SourceCodec;
use super::codec::opus::{Channels, OpusSettings};
use super::jitter::Refused;
use crate::ids::{PeerId, TrackKey};

/// How a room's audio is mixed and encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioMixConfig {
    /// How many are heard at once.
    pub mixer: MixerConfig,
    /// The encoders of [`AudioRung::Normal`].
    pub opus: OpusSettings,
    /// The encoders of [`AudioRung::Low`].
    pub low: OpusSettings,
    /// Listeners may have two channels.
    pub stereo: bool,
}

impl AudioMixConfig {
    /// The encoders of a rung.
    pub fn opus_of(&self, rung: AudioRung) -> OpusSettings {
        match rung {
            AudioRung::Normal => self.opus,
            AudioRung::Low => self.low,
        }
    }
}

impl Default for AudioMixConfig {
    fn default() -> Self {
        AudioMixConfig {
            mixer: MixerConfig::default(),
            opus: OpusSettings::default(),
            low: OpusSettings {
                bitrate: 20_000,
                stereo_bitrate: 32_000,
                ..OpusSettings::default()
            },
            stereo: true,
        }
    }
}

/// How well a listener is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum AudioRung {
    /// 32 kbit/s, of two channels 64, unless the operator says otherwise.
    #[default]
    Normal,
    /// 20 kbit/s, of two channels 32.
    Low,
}

/// What kind of encoding a listener takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct AudioFormat {
    /// How well.
    pub rung: AudioRung,
    /// In two channels.
    pub stereo: bool,
}

impl AudioFormat {
    fn channels(self) -> Channels {
        if self.stereo {
            Channels::Stereo
        } else {
            Channels::Mono
        }
    }
}

impl From<AudioRung> for AudioFormat {
    /// In one channel.
    fn from(rung: AudioRung) -> Self {
        AudioFormat {
            rung,
            stereo: false,
        }
    }
}

/// One distinct encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MixId {
    /// For all who take this format and are not heard.
    Shared(AudioFormat),
    /// For one who is heard: all but its own sources.
    Minus(PeerId, AudioFormat),
}

impl MixId {
    /// Its format.
    pub fn format(self) -> AudioFormat {
        match self {
            MixId::Shared(format) | MixId::Minus(_, format) => format,
        }
    }
}

/// One packet of a source.
#[derive(Clone, Debug)]
pub struct AudioPacket {
    /// Extended sequence number.
    pub seq: u64,
    /// RTP timestamp, in the clock of its codec.
    pub timestamp: u32,
    /// When it arrived.
    pub arrival: Instant,
    /// From its header (RFC 6464), if the leg has that extension.
    pub level: Option<AudioLevel>,
    /// What it carries.
    pub payload: Bytes,
}

/// A packet to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedAudio {
    /// Which encoding.
    pub mix: MixId,
    /// Where it lies: see [`AudioTick::payload`].
    pub payload: Range<usize>,
    /// 48 kHz, the same clock for all mixes of the room; in silence it runs on while nothing is sent.
    pub timestamp: u32,
    /// Holds no sound: it says that the stream lives.
    pub silent: bool,
    /// The first sound after silence: wants the RTP marker (RFC 7587, section 4.2; RFC 3551, section 4.1).
    pub resumes: bool,
}

/// What one tick produced. Reused from tick to tick.
#[derive(Clone, Debug, Default)]
pub struct AudioTick {
    /// At most one packet per mix; in silence mostly none.
    pub frames: Vec<EncodedAudio>,
    /// Who gets which of `frames`. Listeners for whose mix there is none are left out.
    pub routes: Vec<(PeerId, MixId)>,
    /// Who began or stopped speaking.
    pub speaking_changes: Vec<(PeerId, bool)>,
    timestamp: u32,
    payloads: Vec<u8>,
}

impl AudioTick {
    /// The Opus packet of one of this tick's frames.
    pub fn payload(&self, frame: &EncodedAudio) -> &[u8] {
        self.payloads.get(frame.payload.clone()).unwrap_or_default()
    }

    fn begin(&mut self, timestamp: u32) {
        self.frames.clear();
        self.routes.clear();
        self.speaking_changes.clear();
        self.payloads.clear();
        self.timestamp = timestamp;
    }
}

#[derive(Clone, Copy, Debug)]
struct Listener {
    peer: PeerId,
    format: AudioFormat,
    /// Its link loses packets.
    lossy: bool,
    hears: Option<MixId>,
}

/// See the module.
pub struct AudioMix {
    mixer: Mixer,
    sources: BTreeMap<TrackKey, AudioSource>,
    listeners: Vec<Listener>,
    streams: Streams,
    allows_stereo: bool,
    /// With levels, at once.
    most_decoded: usize,
    spare_voices: Vec<Voice>,
    /// Who speaks, as far as that has been told.
    speaking: Vec<PeerId>,
    /// Whose sources changed in this respect, or went.
    speaking_touched: Vec<PeerId>,
    /// The shared mix of the tick before.
    past: Box<Frame>,
    past_is_silent: bool,
    /// The same with two channels, if it had them.
    past_stereo: Box<StereoFrame>,
    past_has_stereo: bool,
    timestamp: u32,
    counters: AudioCounters,
}

impl AudioMix {
    /// An empty room.
    pub fn new(config: AudioMixConfig) -> Self {
        AudioMix {
            mixer: Mixer::new(config.mixer),
            sources: BTreeMap::new(),
            listeners: Vec::new(),
            streams: Streams::new(config),
            allows_stereo: config.stereo,
            most_decoded: config.mixer.max_decoded + 1,
            spare_voices: Vec::new(),
            speaking: Vec::new(),
            speaking_touched: Vec::new(),
            past: Box::new(SILENCE),
            past_is_silent: true,
            past_stereo: Box::new([0.0; 2 * FRAME_SAMPLES]),
            past_has_stereo: false,
            timestamp: 0,
            counters: AudioCounters::default(),
        }
    }

    /// A track whose packets will come. `music`: shared sound, heard as it is, where a microphone is gated.
    pub fn add_source(&mut self, track: TrackKey, peer: PeerId, music: bool) {
        self.remove_source(track);
        let kind = if music {
            SourceKind::Music
        } else {
            SourceKind::Voice
        };
        let id = self.mixer.add_source(OwnerId(peer.0), kind);
        self.sources.insert(track, AudioSource::new(peer, id));
        self.stock_voices();
    }

    /// Decoders are made when sources come: none has to be made within a tick while the sources send Opus in one channel
    /// and levels.
    fn stock_voices(&mut self) {
        let wanted = self.most_decoded.min(self.sources.len());
        let awake = self.sources.values().filter(|source| source.is_awake());
        let missing = wanted.saturating_sub(awake.count() + self.spare_voices.len());
        let usual = DecoderKind::of(SourceCodec::Opus, false);
        let made = (0..missing).map_while(|_| Voice::new(usual).ok());
        self.spare_voices.extend(made);
    }

    /// What the packets of a track carry, if that is not Opus. Before its first packet.
    pub fn set_codec(&mut self, track: TrackKey, codec: SourceCodec) {
        if let Some(source) = self.sources.get_mut(&track) {
            source.set_codec(codec);
        }
    }

    /// The track has ended. What of it is heard just now fades.
    pub fn remove_source(&mut self, track: TrackKey) {
        let Some(mut source) = self.sources.remove(&track) else {
            return;
        };
        self.mixer.remove_source(source.id);
        self.spare_voices.extend(source.sleep());
        note_lost_in_buffer(&mut source, &mut self.counters);
        if source.speaking {
            self.speaking_touched.push(source.peer);
        }
    }

    /// Packets of a muted track are dropped, and what waits of it is forgotten.
    pub fn set_muted(&mut self, track: TrackKey, muted: bool) {
        if let Some(source) = self.sources.get_mut(&track) {
            source.muted = muted;
            if muted {
                source.clear();
            }
        }
    }

    /// Takes a packet. What cannot be used is counted in [`AudioDrops`].
    pub fn push(&mut self, track: TrackKey, packet: AudioPacket) {
        let dropped = &mut self.counters.dropped;
        let Some(source) = self.sources.get_mut(&track) else {
            dropped.unknown_source += 1;
            return;
        };
        if source.muted {
            dropped.muted += 1;
            return;
        }
        if self.listeners.is_empty() {
            dropped.unheard += 1;
            return;
        }
        let AudioPacket {
            seq,
            timestamp,
            arrival,
            level,
            payload,
        } = packet;
        let empty = payload.is_empty();
        match source.push(seq, timestamp, arrival, level, payload) {
            Ok(()) => {}
            Err(Refused::Late) => dropped.late += 1,
            Err(Refused::Duplicate) => dropped.duplicate += 1,
            Err(Refused::Overlapping) => {
                dropped.overlapping += 1;
                source.shut_out();
            }
            Err(Refused::Malformed) => {
                dropped.malformed += 1;
                // Without content it is padding.
                if !empty {
                    source.shut_out();
                }
            }
        }
    }

    /// One who is to get the mix, without its own sources. Known already: changes its rung.
    pub fn add_listener(&mut self, peer: PeerId, rung: AudioRung) {
        if self.listeners.iter().any(|listener| listener.peer == peer) {
            return self.set_rung(peer, rung);
        }
        self.mixer.add_listener(OwnerId(peer.0));
        self.listeners.push(Listener {
            peer,
            format: rung.into(),
            lossy: false,
            hears: None,
        });
    }

    /// Whether a listener takes two channels; it does not until this is called. Takes effect with the next tick.
    pub fn set_stereo(&mut self, peer: PeerId, stereo: bool) {
        let stereo = stereo && self.allows_stereo;
        if let Some(listener) = self.listeners.iter_mut().find(|l| l.peer == peer) {
            listener.format.stereo = stereo;
            self.mixer.set_stereo(OwnerId(peer.0), stereo);
        }
    }

    /// Whether a listener's link loses packets: then its mix has in-band FEC also while it talks.
    pub fn set_lossy(&mut self, peer: PeerId, lossy: bool) {
        if let Some(listener) = self.listeners.iter_mut().find(|l| l.peer == peer) {
            listener.lossy = lossy;
        }
    }

    /// Takes effect with the next tick.
    pub fn set_rung(&mut self, peer: PeerId, rung: AudioRung) {
        if let Some(listener) = self.listeners.iter_mut().find(|l| l.peer == peer) {
            listener.format.rung = rung;
        }
    }

    /// One listener less. Without any, nothing is decoded, and what waits is forgotten.
    pub fn remove_listener(&mut self, peer: PeerId) {
        self.mixer.remove_listener(OwnerId(peer.0));
        self.listeners.retain(|listener| listener.peer != peer);
        if self.listeners.is_empty() {
            self.mixer.hush();
            self.past_is_silent = true;
            self.past_has_stereo = false;
            for source in self.sources.values_mut() {
                source.clear();
                self.spare_voices.extend(source.sleep());
            }
        }
    }

    /// One tick of 20 ms: fills `out`. Each distinct (mix, rung) is encoded once. `now` is the time for which the tick
    /// was planned: who is late makes up for the ticks that it missed, one by one.
    pub fn tick(&mut self, now: Instant, out: &mut AudioTick) {
        out.begin(self.timestamp);
        self.timestamp = self.timestamp.wrapping_add(FRAME_SAMPLES as u32);
        if !self.listeners.is_empty() {
            self.counters.ticks += 1;
            self.gather(now);
            self.mixer.mix();
            self.note_speaking(true);
        } else {
            self.note_speaking(false);
        }
        self.tell_speaking(out);
        self.encode(out);
    }

    /// How late a source is played; `None`: it is unknown, or does not play.
    pub fn delay(&self, track: TrackKey, now: Instant) -> Option<SourceDelay> {
        self.sources.get(&track)?.delay(now)
    }

    /// Leaves out `ticks` that a stall has cost: the clock of the packets goes on with time.
    pub fn give_up(&mut self, ticks: u32) {
        self.timestamp = self
            .timestamp
            .wrapping_add(ticks.wrapping_mul(FRAME_SAMPLES as u32));
        self.counters.ticks_given_up += u64::from(ticks);
    }

    /// What has been done so far.
    pub fn counters(&self) -> &AudioCounters {
        &self.counters
    }

    /// Decodes whom the mixer wants, and lets time pass for the others.
    fn gather(&mut self, now: Instant) {
        for source in self.sources.values_mut() {
            let hint = source.hint();
            self.mixer.hint(source.id, hint);
        }
        self.mixer.rank();
        let wide = self.mixer.wants_stereo();
        for source in self.sources.values_mut() {
            let id = source.id;
            if !self.mixer.is_wanted(id) {
                self.spare_voices.extend(source.sleep());
                source.skip(now);
            } else if let Some(played) = decoded(
                source,
                now,
                wide,
                &mut self.mixer,
                &mut self.spare_voices,
                &mut self.counters,
            ) {
                self.mixer
                    .feed_stereo(id, played.mid, played.side, played.ahead);
            }
            note_lost_in_buffer(source, &mut self.counters);
        }
    }

    fn note_speaking(&mut self, mixed: bool) {
        for source in self.sources.values_mut() {
            let speaking = mixed && self.mixer.is_speaking(source.id);
            if speaking != source.speaking {
                source.speaking = speaking;
                self.speaking_touched.push(source.peer);
            }
        }
    }

    fn tell_speaking(&mut self, out: &mut AudioTick) {
        while let Some(peer) = self.speaking_touched.pop() {
            let told = self.speaking.iter().position(|p| *p == peer);
            let speaks = self
                .sources
                .values()
                .any(|source| source.peer == peer && source.speaking);
            match (told, speaks) {
                (None, true) => self.speaking.push(peer),
                (Some(at), false) => drop(self.speaking.swap_remove(at)),
                _ => continue,
            }
            out.speaking_changes.push((peer, speaks));
        }
    }

    fn encode(&mut self, out: &mut AudioTick) {
        self.streams.begin_tick();
        let mono = (!self.past_is_silent).then_some(&self.past[..]);
        let begins = self.listeners.iter().any(|listener| {
            listener.format.stereo && !listener.hears.is_some_and(|mix| mix.format().stereo)
        });
        if begins && !self.past_is_silent && !self.past_has_stereo {
            // Until now there was one channel: for who takes two from now on, it was in the middle.
            let pairs = self.past_stereo.as_chunks_mut::<2>().0;
            for (pair, x) in pairs.iter_mut().zip(self.past.iter()) {
                *pair = [*x; 2];
            }
            self.past_has_stereo = true;
        }
        let stereo = self.past_has_stereo.then_some(&self.past_stereo[..]);
        for listener in &mut self.listeners {
            let format = listener.format;
            let past = if format.stereo { stereo } else { mono };
            let (mix, past) = match (self.mixer.mix_of(OwnerId(listener.peer.0)), listener.hears) {
                (MixFor::Shared, _) => (MixId::Shared(format), past),
                (MixFor::Minus(_), Some(MixId::Minus(..))) => {
                    (MixId::Minus(listener.peer, format), None)
                }
                (MixFor::Minus(_), _) => (MixId::Minus(listener.peer, format), past),
            };
            let joined = listener.hears != Some(mix);
            listener.hears = Some(mix);
            let talks = matches!(mix, MixId::Minus(peer, _) if self.speaking.contains(&peer));
            let distracted = talks && !listener.lossy;
            let (scratch, counters) = (&mut out.payloads, &mut self.counters);
            (self.streams).want(mix, (joined, distracted), past, scratch, counters);
        }
        self.streams.close_unwanted();
        let mixer = &self.mixer;
        let frame_of = |mix: MixId| {
            let whose = match mix {
                MixId::Shared(_) => MixFor::Shared,
                MixId::Minus(peer, _) => MixFor::Minus(OwnerId(peer.0)),
            };
            let mixed = mixer.mixes().find(|mixed| mixed.whose() == whose)?;
            if mix.format().stereo {
                return mixed.stereo().map(|(both, silent)| (&both[..], silent));
            }
            Some((&mixed.samples()[..], mixed.is_silent()))
        };
        self.streams.encode(frame_of, out, &mut self.counters);
        for listener in &self.listeners {
            if let Some(mix) = listener.hears
                && out.frames.iter().any(|frame| frame.mix == mix)
            {
                out.routes.push((listener.peer, mix));
            }
        }
        self.keep_past();
    }

    fn keep_past(&mut self) {
        let Some(shared) = self.mixer.mixes().next() else {
            return;
        };
        self.past_is_silent = shared.is_silent();
        self.past.copy_from_slice(shared.samples());
        let stereo = shared.stereo().filter(|(_, silent)| !silent);
        self.past_has_stereo = stereo.is_some();
        if let Some((samples, _)) = stereo {
            self.past_stereo.copy_from_slice(samples);
        }
    }
}

/// The frame of a source that the mixer wants, and the one after it as far as it is there; wakes it up where it sleeps.
/// `wide`: somebody hears two channels.
fn decoded<'a>(
    source: &'a mut AudioSource,
    now: Instant,
    wide: bool,
    mixer: &mut Mixer,
    spare: &mut Vec<Voice>,
    counters: &mut AudioCounters,
) -> Option<Played<'a>> {
    let codec = source.wanted_decoder(wide);
    if !source.is_awake() {
        let voice = match spare.iter().position(|voice| voice.decodes(codec)) {
            Some(at) => spare.swap_remove(at),
            None => Voice::new(codec).ok()?,
        };
        let id = source.id;
        source.wake(voice, counters, |frame| mixer.prime(id, frame));
    } else {
        source.change_decoder(codec, counters);
    }
    source.next_frame(now, counters)
}

fn note_lost_in_buffer(source: &mut AudioSource, counters: &mut AudioCounters) {
    let (overflow, stale) = source.jitter.take_dropped();
    counters.dropped.overflow += overflow;
    counters.dropped.stale += stale;
}

#[cfg(test)]
mod tests;
