//! The decoder of one source, whatever it sends.

use crate::mcu::codec::SourceCodec;
use crate::mcu::codec::opus::{Channels, OpusDecoder, OpusError};
use crate::mcu::codec::telephone::{TelephoneCodec, TelephoneDecoder, WrongPacket};
use crate::rtp::opus::is_surround;

/// What a source needs to be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecoderKind {
    /// Opus, into one channel or two.
    Opus(Channels),
    /// One channel.
    Telephone(TelephoneCodec),
}

impl DecoderKind {
    /// For a source of this codec; `wide`: both channels of Opus are wanted.
    pub fn of(codec: SourceCodec, wide: bool) -> Self {
        match codec {
            SourceCodec::Opus if wide => DecoderKind::Opus(Channels::Stereo),
            SourceCodec::Opus => DecoderKind::Opus(Channels::Mono),
            SourceCodec::Telephone(codec) => DecoderKind::Telephone(codec),
        }
    }

    /// Its sound has two channels.
    pub fn is_wide(self) -> bool {
        self == DecoderKind::Opus(Channels::Stereo)
    }
}

/// There is no sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a packet could not be decoded")]
pub struct Undecodable;

impl From<OpusError> for Undecodable {
    fn from(_: OpusError) -> Self {
        Undecodable
    }
}

impl From<WrongPacket> for Undecodable {
    fn from(_: WrongPacket) -> Self {
        Undecodable
    }
}

/// Decoded sound of 48 kHz.
#[derive(Clone, Copy, Debug)]
pub enum Sound<'a> {
    /// One channel.
    Mono(&'a [f32]),
    /// Left and right in turns.
    Stereo(&'a [f32]),
}

/// See the module.
pub enum SourceDecoder {
    Opus(OpusDecoder, Channels),
    Telephone(Box<TelephoneDecoder>),
}

impl SourceDecoder {
    /// One that has heard nothing.
    pub fn new(kind: DecoderKind) -> Result<Self, Undecodable> {
        Ok(match kind {
            DecoderKind::Opus(channels) => {
                SourceDecoder::Opus(OpusDecoder::with_channels(channels)?, channels)
            }
            DecoderKind::Telephone(codec) => {
                let decoder = TelephoneDecoder::new(codec).map_err(|_| Undecodable)?;
                SourceDecoder::Telephone(Box::new(decoder))
            }
        })
    }

    pub fn kind(&self) -> DecoderKind {
        match self {
            SourceDecoder::Opus(_, channels) => DecoderKind::Opus(*channels),
            SourceDecoder::Telephone(decoder) => DecoderKind::Telephone(decoder.codec()),
        }
    }

    /// Whether a packet is of what it decodes: one of 5.1 or more channels, which nobody is offered, would come out as noise.
    pub fn takes(&self, payload: &[u8]) -> bool {
        !matches!(self, SourceDecoder::Opus(..)) || !is_surround(payload)
    }

    /// The sound of a packet. A telephone's packets come out in whole frames: now and then none, now and then two.
    pub fn decode(&mut self, payload: &[u8]) -> Result<Sound<'_>, Undecodable> {
        Ok(match self {
            SourceDecoder::Opus(decoder, channels) => opus(*channels, decoder.decode(payload)?),
            SourceDecoder::Telephone(decoder) => Sound::Mono(decoder.decode(payload)?),
        })
    }

    /// Sound in place of a lost packet of `samples`, made up from what came before.
    pub fn conceal(&mut self, samples: usize) -> Result<Sound<'_>, Undecodable> {
        Ok(match self {
            SourceDecoder::Opus(decoder, channels) => opus(*channels, decoder.conceal(samples)?),
            SourceDecoder::Telephone(decoder) => Sound::Mono(decoder.conceal(samples)),
        })
    }

    /// Whether packets may carry a copy of the one before.
    pub fn has_fec(&self) -> bool {
        matches!(self, SourceDecoder::Opus(..))
    }

    /// The sound of a lost packet from its successor; made up where that carries no copy.
    pub fn recover(&mut self, successor: &[u8], samples: usize) -> Result<Sound<'_>, Undecodable> {
        Ok(match self {
            SourceDecoder::Opus(decoder, channels) => {
                opus(*channels, decoder.recover(successor, samples)?)
            }
            SourceDecoder::Telephone(decoder) => Sound::Mono(decoder.conceal(samples)),
        })
    }

    /// Forgets all it heard.
    pub fn reset(&mut self) {
        match self {
            // A decoder that refuses to be reset still decodes: its next packets sound rough, no more.
            SourceDecoder::Opus(decoder, _) => {
                let _ = decoder.reset();
            }
            SourceDecoder::Telephone(decoder) => decoder.reset(),
        }
    }
}

fn opus(channels: Channels, sound: &[f32]) -> Sound<'_> {
    match channels {
        Channels::Mono => Sound::Mono(sound),
        Channels::Stereo => Sound::Stereo(sound),
    }
}
