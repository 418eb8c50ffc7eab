//! The decoders of pictures, behind one face.

use super::{h264, vp8};
use talksy_mixer::video::View;

/// A codec whose pictures can be mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VideoCodec {
    /// Access units in Annex B form.
    H264,
    /// Frames as of RFC 6386.
    Vp8,
    /// H.264 whose decoder panics at a unit that is called "panic", and takes [`STUCK_FOR`] for one with "stuck".
    #[cfg(test)]
    Faulty,
}

impl VideoCodec {
    /// Whether its decoder makes something of pictures whose reference is missing. Otherwise they wait for a keyframe.
    pub fn is_concealed(self) -> bool {
        self != VideoCodec::Vp8
    }
}

/// See [`VideoCodec::Faulty`].
#[cfg(test)]
pub const STUCK_FOR: std::time::Duration = std::time::Duration::from_secs(5);

/// The decoder of one source.
pub enum PictureDecoder {
    /// OpenH264.
    H264(Box<h264::Decoder>),
    /// libvpx.
    Vp8(vp8::Decoder),
    /// See [`VideoCodec::Faulty`].
    #[cfg(test)]
    Faulty(Box<h264::Decoder>),
}

/// What one encoded picture has brought.
pub struct Decoded<'a> {
    /// The newest picture; it stays until the decoder's next call.
    pub picture: Option<View<'a>>,
    /// Something was missing or wrong, concealed or not: only a keyframe makes the picture right again.
    pub damaged: bool,
}

/// The picture was not looked at further: too large, or a format that is not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undecodable;

impl PictureDecoder {
    /// A decoder that waits for a keyframe. `None`: its library cannot make one.
    pub fn new(codec: VideoCodec) -> Option<Self> {
        match codec {
            VideoCodec::H264 => Some(PictureDecoder::H264(Box::new(h264::Decoder::new().ok()?))),
            VideoCodec::Vp8 => Some(PictureDecoder::Vp8(vp8::Decoder::new()?)),
            #[cfg(test)]
            VideoCodec::Faulty => {
                Some(PictureDecoder::Faulty(Box::new(h264::Decoder::new().ok()?)))
            }
        }
    }

    /// Decodes one picture.
    pub fn decode(&mut self, data: &[u8]) -> Result<Decoded<'_>, Undecodable> {
        match self {
            PictureDecoder::H264(decoder) => decoder.decode(data).map_err(|_| Undecodable),
            PictureDecoder::Vp8(decoder) => decoder.decode(data),
            #[cfg(test)]
            PictureDecoder::Faulty(decoder) => {
                assert!(data != b"panic", "as the test wants");
                if data.windows(5).any(|bytes| bytes == b"stuck") {
                    std::thread::sleep(STUCK_FOR);
                }
                decoder.decode(data).map_err(|_| Undecodable)
            }
        }
    }
}
