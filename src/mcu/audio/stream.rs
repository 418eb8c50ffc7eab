//! The encoded streams of a mix: one per distinct (mix, rung) that somebody hears.

use talksy_mixer::audio::voice::Noise;
use talksy_mixer::audio::{FRAME_SAMPLES, Frame, SILENCE};

use super::counters::AudioCounters;
use super::{AudioMixConfig, AudioTick, EncodedAudio, MixId};
use crate::mcu::codec::opus::{OpusEncoder, OpusError, OpusSettings};

/// Frames of comfort noise that are encoded when the mix falls silent: from 200 ms of it receivers' decoders learn what they
/// go on with by themselves.
const TAIL: u32 = 10;

/// How loud the comfort noise is; of this, decoders keep some −70 dBFS.
const COMFORT_DBFS: f32 = -60.0;

/// In silence a frame goes out every 400 ms, as Opus encoders with DTX do: receivers then know that the stream lives
/// and take the gaps for silence (RFC 7587, section 3.1.3).
const KEEP_ALIVE_EVERY: u32 = 20;

/// Hybrid, full band, 20 ms, mono, one frame (RFC 6716, section 3.1): announces silence before anything was encoded.
const FIRST_TOC: u8 = 0x78;

/// Says that there are two channels.
const STEREO_TOC: u8 = 0x04;

/// The configuration and channel bits of a TOC byte; with code 0 and no further byte it is a packet without sound.
const TOC_WITHOUT_CODE: u8 = 0xfc;

/// Comfort noise, the same in both channels.
struct Comfort {
    noise: Noise,
    mono: Frame,
    stereo: [f32; 2 * FRAME_SAMPLES],
}

impl Comfort {
    fn new() -> Self {
        Comfort {
            noise: Noise::new(1, COMFORT_DBFS),
            mono: SILENCE,
            stereo: [0.0; 2 * FRAME_SAMPLES],
        }
    }

    /// The next frame for so many channels.
    fn next(&mut self, stereo: bool) -> &[f32] {
        self.noise.next_frame(&mut self.mono);
        if !stereo {
            return &self.mono;
        }
        for (pair, sample) in self.stereo.as_chunks_mut().0.iter_mut().zip(&self.mono) {
            *pair = [*sample; 2];
        }
        &self.stereo
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Activity {
    /// Sound; or, silent for so many ticks only, comfort noise.
    Encoding { silent_for: u32 },
    /// Silent for so many ticks since its last sign of life.
    Silent { since_frame: u32 },
}

pub(super) struct Stream {
    pub mix: MixId,
    /// Somebody hears it in this tick.
    pub wanted: bool,
    /// Somebody hears it from this tick on.
    pub joined: bool,
    encoder: OpusEncoder,
    activity: Activity,
    /// In silence a packet goes out so often, in ticks.
    alive_every: u32,
    toc: u8,
}

/// All streams of one mix, and the encoders that wait for use.
pub(super) struct Streams {
    config: AudioMixConfig,
    streams: Vec<Stream>,
    spare: Vec<OpusEncoder>,
    comfort: Comfort,
}

impl Streams {
    pub fn new(config: AudioMixConfig) -> Self {
        // Two rungs of one channel and of two.
        let most = 4 * (config.mixer.top_k + 1);
        Streams {
            config,
            streams: Vec::with_capacity(most),
            spare: Vec::with_capacity(most),
            comfort: Comfort::new(),
        }
    }

    pub fn begin_tick(&mut self) {
        for stream in &mut self.streams {
            stream.wanted = false;
            stream.joined = false;
        }
    }

    /// Notes that somebody hears `mix`; `joined`: it heard something else, or nothing, until now; `distracted`: it is
    /// theirs alone, and they talk and lose nothing. A new stream's encoder hears `past` first: what its listener heard in
    /// the tick before, if that is known.
    pub fn want(
        &mut self,
        mix: MixId,
        (joined, distracted): (bool, bool),
        past: Option<&[f32]>,
        scratch: &mut Vec<u8>,
        counters: &mut AudioCounters,
    ) {
        let settings = self.config.opus_of(mix.format().rung);
        let settings = match distracted {
            true => settings.for_a_talker(),
            false => settings,
        };
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.mix == mix) {
            stream.wanted = true;
            stream.joined |= joined;
            if stream.encoder.configure(settings).is_err() {
                counters.unencodable += 1;
            }
            return;
        }
        match self.open(mix, settings, past, scratch, counters) {
            Ok(stream) => self.streams.push(stream),
            Err(_) => counters.unencodable += 1,
        }
    }

    fn open(
        &mut self,
        mix: MixId,
        settings: OpusSettings,
        past: Option<&[f32]>,
        scratch: &mut Vec<u8>,
        counters: &mut AudioCounters,
    ) -> Result<Stream, OpusError> {
        let format = mix.format();
        let channels = format.channels();
        let spare = (self.spare.iter()).position(|encoder| encoder.channels() == channels);
        let mut encoder = match spare {
            Some(at) => self.spare.swap_remove(at),
            None => OpusEncoder::with_channels(settings, channels)?,
        };
        encoder.configure(settings)?;
        if let Some(past) = past {
            let begin = scratch.len();
            encoder.encode(past, false, scratch)?;
            scratch.truncate(begin);
            counters.primes += 1;
        }
        Ok(Stream {
            mix,
            wanted: true,
            joined: true,
            encoder,
            activity: Activity::Silent {
                since_frame: KEEP_ALIVE_EVERY,
            },
            alive_every: if settings.dtx { KEEP_ALIVE_EVERY } else { 1 },
            toc: if format.stereo {
                FIRST_TOC | STEREO_TOC
            } else {
                FIRST_TOC
            },
        })
    }

    /// Closes the streams that nobody hears.
    pub fn close_unwanted(&mut self) {
        while let Some(at) = self.streams.iter().position(|stream| !stream.wanted) {
            let mut stream = self.streams.swap_remove(at);
            if stream.encoder.reset().is_ok() {
                self.spare.push(stream.encoder);
            }
        }
    }

    /// Encodes this tick's frame of each stream.
    ///
    /// `frame_of` gives the samples of its channels, and whether they are silent.
    pub fn encode<'a>(
        &mut self,
        mut frame_of: impl FnMut(MixId) -> Option<(&'a [f32], bool)>,
        out: &mut AudioTick,
        counters: &mut AudioCounters,
    ) {
        for stream in &mut self.streams {
            if let Some((samples, silent)) = frame_of(stream.mix) {
                stream.encode(samples, silent, &mut self.comfort, out, counters);
            }
        }
    }
}

impl Stream {
    /// Writes what is to be sent of `samples`, a frame of the stream's channels, in this tick, if anything.
    fn encode(
        &mut self,
        samples: &[f32],
        silent: bool,
        comfort: &mut Comfort,
        out: &mut AudioTick,
        counters: &mut AudioCounters,
    ) {
        let resumes = matches!(self.activity, Activity::Silent { .. }) && !silent;
        self.activity = self.activity.next(silent);
        match &mut self.activity {
            Activity::Silent { since_frame } => {
                if *since_frame < self.alive_every && !self.joined {
                    return;
                }
                *since_frame = 0;
                self.send_sign_of_life(out, counters);
            }
            Activity::Encoding { silent_for: 0 } => {
                // Whoever joins heard another encoder until now, or silence: its decoder's state does not fit.
                self.send(samples, self.joined || resumes, resumes, out, counters);
            }
            Activity::Encoding { silent_for } => {
                // After a voice an encoder takes noise for speech, and decoders learn nothing from that.
                let first = *silent_for == 1;
                if first && self.encoder.reset().is_err() {
                    counters.unencodable += 1;
                }
                let noise = comfort.next(self.mix.format().stereo);
                self.send(noise, self.joined || first, false, out, counters);
            }
        }
    }

    fn send_sign_of_life(&self, out: &mut AudioTick, counters: &mut AudioCounters) {
        let begin = out.payloads.len();
        out.payloads.push(self.toc);
        out.push_frame(self.mix, begin, true, false);
        counters.dtx_frames += 1;
    }

    fn send(
        &mut self,
        samples: &[f32],
        independent: bool,
        resumes: bool,
        out: &mut AudioTick,
        counters: &mut AudioCounters,
    ) {
        let begin = out.payloads.len();
        let encoded = self.encoder.encode(samples, independent, &mut out.payloads);
        if encoded.is_err() {
            counters.unencodable += 1;
            return;
        }
        counters.encodes += 1;
        let toc = out.payloads.get(begin);
        self.toc = toc.map_or(self.toc, |toc| toc & TOC_WITHOUT_CODE);
        out.push_frame(self.mix, begin, false, resumes);
    }
}

impl Activity {
    fn next(self, silent: bool) -> Self {
        match self {
            _ if !silent => Activity::Encoding { silent_for: 0 },
            Activity::Encoding { silent_for } if silent_for < TAIL => Activity::Encoding {
                silent_for: silent_for + 1,
            },
            Activity::Encoding { .. } => Activity::Silent {
                since_frame: KEEP_ALIVE_EVERY,
            },
            Activity::Silent { since_frame } => Activity::Silent {
                since_frame: since_frame + 1,
            },
        }
    }
}

impl AudioTick {
    fn push_frame(&mut self, mix: MixId, begin: usize, silent: bool, resumes: bool) {
        self.frames.push(EncodedAudio {
            mix,
            payload: begin..self.payloads.len(),
            timestamp: self.timestamp,
            silent,
            resumes,
        });
    }
}
