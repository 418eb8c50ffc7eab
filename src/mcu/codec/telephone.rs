//! What telephones and gateways send: G.711 (8 kHz) and G.722 (16 kHz), RFC 3551, sections 4.5.14 and 4.5.2. WebRTC endpoints
//! have to speak G.711 (RFC 7874, section 3).

use audio_codec::g722::G722Decoder;
use audio_codec::pcma::PcmaDecoder;
use audio_codec::pcmu::PcmuDecoder;
use audio_codec::{CodecError, Decoder};
use talksy_mixer::audio::rate::{RateConverter, WrongRate};
use talksy_mixer::audio::{FRAME_SAMPLES, Frame, SILENCE};

/// The RTP clock of all of them is 8 kHz: that of G.722 too, by an old mistake (RFC 3551, section 4.5.2). One tick of it,
/// and one byte, is so many samples at 48 kHz.
pub const SAMPLES_PER_TICK: i64 = 6;

/// The longest packet: 120 ms.
const MAX_BYTES: usize = 960;

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TelephoneCodec {
    /// G.711, μ-law.
    Pcmu,
    /// G.711, A-law.
    Pcma,
    /// G.722 at 64 kbit/s.
    G722,
}

impl TelephoneCodec {
    /// Samples a second.
    pub fn rate(self) -> u32 {
        match self {
            TelephoneCodec::Pcmu | TelephoneCodec::Pcma => 8_000,
            TelephoneCodec::G722 => 16_000,
        }
    }
}

/// Duration of a packet in samples at 48 kHz; `None` for an empty one, and for one of more than 120 ms.
pub fn packet_samples(payload: &[u8]) -> Option<usize> {
    let right = (1..=MAX_BYTES).contains(&payload.len());
    right.then_some(payload.len() * SAMPLES_PER_TICK as usize)
}

/// Not a packet that [`packet_samples`] knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a packet of 1 to {MAX_BYTES} bytes")]
pub struct WrongPacket;

enum Law {
    Pcmu(PcmuDecoder),
    Pcma(PcmaDecoder),
    G722(Box<G722Decoder>),
}

impl Law {
    fn new(codec: TelephoneCodec) -> Self {
        match codec {
            TelephoneCodec::Pcmu => Law::Pcmu(PcmuDecoder::new()),
            TelephoneCodec::Pcma => Law::Pcma(PcmaDecoder::new()),
            TelephoneCodec::G722 => Law::G722(Box::new(G722Decoder::new())),
        }
    }

    fn decode(&mut self, payload: &[u8], pcm: &mut [i16]) -> Result<usize, CodecError> {
        match self {
            Law::Pcmu(decoder) => decoder.decode_into(payload, pcm),
            Law::Pcma(decoder) => decoder.decode_into(payload, pcm),
            Law::G722(decoder) => decoder.decode_frame_into(payload, pcm),
        }
    }
}

/// One source's decoder: packets in, sound of 48 kHz out, in whole frames. What does not fill one waits for the next packet.
pub struct TelephoneDecoder {
    codec: TelephoneCodec,
    law: Law,
    converter: RateConverter,
    pcm: [i16; 2 * MAX_BYTES],
    /// At the codec's rate, not converted yet.
    waiting: Vec<f32>,
    hole: Hole,
    out: Vec<f32>,
}

impl TelephoneDecoder {
    /// One that has heard nothing.
    ///
    /// # Errors
    /// None for the rates of these codecs.
    pub fn new(codec: TelephoneCodec) -> Result<Self, WrongRate> {
        Ok(TelephoneDecoder {
            codec,
            law: Law::new(codec),
            converter: RateConverter::new(codec.rate())?,
            pcm: [0; 2 * MAX_BYTES],
            waiting: Vec::with_capacity(4 * MAX_BYTES),
            hole: Hole::new(codec.rate() as usize),
            out: Vec::with_capacity(8 * FRAME_SAMPLES),
        })
    }

    /// Which codec it decodes.
    pub fn codec(&self) -> TelephoneCodec {
        self.codec
    }

    /// The sound of a packet, 48 kHz, and of what waited.
    ///
    /// # Errors
    /// [`WrongPacket`]; nothing has been taken then.
    pub fn decode(&mut self, payload: &[u8]) -> Result<&[f32], WrongPacket> {
        packet_samples(payload).ok_or(WrongPacket)?;
        let made = (self.law.decode(payload, &mut self.pcm)).map_err(|_| WrongPacket)?;
        let begin = self.waiting.len();
        let sound = self.pcm[..made].iter().map(|x| f32::from(*x) / 32_768.0);
        self.waiting.extend(sound);
        self.hole.close(&mut self.waiting[begin..]);
        Ok(self.converted())
    }

    /// Sound in place of a lost packet of `samples` at 48 kHz, made up from what came before, and of what waited.
    pub fn conceal(&mut self, samples: usize) -> &[f32] {
        let samples = samples * self.codec.rate() as usize / 48_000;
        let begin = self.waiting.len();
        self.waiting.resize(begin + samples.min(2 * MAX_BYTES), 0.0);
        self.hole.fill(&mut self.waiting[begin..]);
        self.converted()
    }

    /// Forgets all it heard.
    pub fn reset(&mut self) {
        self.law = Law::new(self.codec);
        self.converter.reset();
        self.waiting.clear();
        self.hole = Hole::new(self.codec.rate() as usize);
    }

    fn converted(&mut self) -> &[f32] {
        self.out.clear();
        let mut frame: Frame = SILENCE;
        let mut taken = 0;
        loop {
            let needed = self.converter.needed();
            let Some(input) = self.waiting.get(taken..taken + needed) else {
                break;
            };
            if self.converter.process(input, &mut frame).is_err() {
                break;
            }
            taken += needed;
            self.out.extend_from_slice(&frame);
        }
        self.waiting.drain(..taken);
        &self.out
    }
}

/// Fills holes with the last period of the voice, again and again and ever softer, in the manner of G.711, appendix I.
struct Hole {
    /// The last of what was played, the oldest first.
    past: Vec<f32>,
    /// Samples a millisecond.
    ms: usize,
    /// Length of the period that is repeated.
    period: usize,
    /// Samples that were made up in a row.
    made: usize,
}

impl Hole {
    /// What is remembered: two of the longest periods, and what they are found by.
    const PAST_MS: usize = 40;
    /// Voices have 66 to 400 periods a second.
    const SHORTEST_PERIOD_TENTHS: usize = 25;
    const LONGEST_PERIOD_MS: usize = 15;
    /// How much of the past has to be alike.
    const ALIKE_MS: usize = 10;
    /// Made-up sound keeps its level for this long...
    const FULL_MS: usize = 10;
    /// ... and is gone after this.
    const GONE_MS: usize = 60;
    /// Over this, real sound takes over.
    const JOIN_MS: usize = 4;

    fn new(rate: usize) -> Self {
        let ms = rate / 1000;
        Hole {
            past: vec![0.0; Self::PAST_MS * ms],
            ms,
            period: 0,
            made: 0,
        }
    }

    fn fill(&mut self, hole: &mut [f32]) {
        if self.made == 0 {
            self.period = self.find_period();
        }
        for x in hole.iter_mut() {
            *x = self.next_made();
        }
    }

    /// Real sound is there again.
    fn close(&mut self, sound: &mut [f32]) {
        let join = Self::JOIN_MS * self.ms;
        if self.made > 0 {
            for (i, x) in sound.iter_mut().enumerate().take(join) {
                let weight = (i + 1) as f32 / (join + 1) as f32;
                let made = self.next_made();
                *x = made + (*x - made) * weight;
            }
            self.made = 0;
        }
        let kept = sound.len().min(self.past.len());
        self.past.rotate_left(kept);
        let begin = self.past.len() - kept;
        self.past[begin..].copy_from_slice(&sound[sound.len() - kept..]);
    }

    fn next_made(&mut self) -> f32 {
        let at = self.past.len() - self.period + self.made % self.period.max(1);
        let (full, gone) = (Self::FULL_MS * self.ms, Self::GONE_MS * self.ms);
        let gain = 1.0 - self.made.saturating_sub(full) as f32 / (gone - full) as f32;
        self.made = self.made.saturating_add(1);
        self.past.get(at).map_or(0.0, |x| x * gain.max(0.0))
    }

    /// The distance at which the end of the past is most like itself.
    fn find_period(&self) -> usize {
        let (alike, end) = (Self::ALIKE_MS * self.ms, self.past.len());
        let last = &self.past[end - alike..];
        let periods =
            Self::SHORTEST_PERIOD_TENTHS * self.ms / 10..=Self::LONGEST_PERIOD_MS * self.ms;
        let likeness = |period: usize| {
            let before = &self.past[end - alike - period..end - period];
            let dot: f32 = before.iter().zip(last).map(|(a, b)| a * b).sum();
            let power: f32 = before.iter().map(|x| x * x).sum();
            dot / (power + 1e-9).sqrt()
        };
        let best = periods.map(|period| (likeness(period), period));
        best.max_by(|a, b| a.0.total_cmp(&b.0))
            .map_or(alike, |(_, period)| period)
    }
}

#[cfg(test)]
mod tests;
