//! The codecs of the mixed delivery, each behind a small safe face.

pub mod h264;
mod openh264_raw;
pub mod opus;
mod picture;
pub mod telephone;
pub mod vp8;
mod vpx_raw;

#[cfg(test)]
pub use picture::STUCK_FOR;
pub use picture::{Decoded, PictureDecoder, Undecodable, VideoCodec};

use self::telephone::TelephoneCodec;
use crate::rtp::params::Codec;

/// What a source of the mixed sound may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum SourceCodec {
    /// RFC 6716.
    #[default]
    Opus,
    /// What telephones send.
    Telephone(TelephoneCodec),
}

impl SourceCodec {
    /// That of a track; `None`: it is not mixed as sound.
    pub fn of(codec: Codec) -> Option<Self> {
        match codec {
            Codec::Opus => Some(SourceCodec::Opus),
            Codec::Pcmu => Some(SourceCodec::Telephone(TelephoneCodec::Pcmu)),
            Codec::Pcma => Some(SourceCodec::Telephone(TelephoneCodec::Pcma)),
            Codec::G722 => Some(SourceCodec::Telephone(TelephoneCodec::G722)),
            Codec::H264 | Codec::Vp8 | Codec::Vp9 | Codec::Av1 => None,
        }
    }

    /// Duration of a packet in samples at 48 kHz, at most [`opus::MAX_SAMPLES`]; `None`: it is not one of this codec.
    pub fn samples(self, payload: &[u8]) -> Option<usize> {
        match self {
            SourceCodec::Opus => opus::packet_samples(payload).ok(),
            SourceCodec::Telephone(_) => telephone::packet_samples(payload),
        }
    }

    /// Samples at 48 kHz in one tick of its RTP clock.
    pub fn samples_per_tick(self) -> i64 {
        match self {
            SourceCodec::Opus => 1,
            SourceCodec::Telephone(_) => telephone::SAMPLES_PER_TICK,
        }
    }

    /// Whether a packet says that its sender has nothing to say.
    pub fn is_dtx(self, payload: &[u8]) -> bool {
        self == SourceCodec::Opus && payload.len() <= opus::DTX_PAYLOAD
    }
}
