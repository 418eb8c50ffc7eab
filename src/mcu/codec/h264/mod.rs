//! H.264 through OpenH264: access units in Annex B form in and out (ITU-T H.264, annex B).

#[cfg(test)]
mod tests;

use openh264::OpenH264API;
use openh264::decoder::{Decoder as CrateDecoder, DecoderConfig, Flush};
use openh264::encoder::{
    BitRate, Complexity, Encoder as CrateEncoder, EncoderConfig as CrateConfig, FrameRate,
    FrameType, IntraFramePeriod, Level, Profile, QpRange, RateControlMode, SpsPpsStrategy,
    UsageType,
};
use openh264::formats::YUVSource;
use talksy_mixer::video::View;

pub use super::Decoded;
use super::openh264_raw as raw;
use crate::rtp::h264::sps;
pub use crate::rtp::h264::sps::SpsError;
pub use raw::has_avx2_assembly;

/// Largest picture that is decoded, in pixels: two of 1920x1088. A phone's portrait video fits as well.
pub const MAX_PIXELS: u64 = 2 * 1920 * 1088;
/// Longest side that is decoded.
pub const MAX_SIDE: u32 = 4096;
/// Longest access unit that is decoded, bytes; a longer one is refused.
pub const MAX_ACCESS_UNIT: usize = 2 << 20;

/// `ERROR_CON_SLICE_COPY`: lost parts are taken from the picture before, but never across a keyframe.
const CONCEAL_BY_SLICE_COPY: i32 = openh264_sys2::ERROR_CON_SLICE_COPY;

/// Why nothing was decoded or encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum H264Error {
    /// OpenH264 could not make a codec.
    #[error("OpenH264 cannot make a codec")]
    Unavailable,
    /// An access unit beyond [`MAX_ACCESS_UNIT`].
    #[error("an access unit of {0} bytes")]
    TooLong(usize),
    /// A picture beyond [`MAX_PIXELS`] or [`MAX_SIDE`].
    #[error("a picture of {0}x{1} pixels")]
    TooLarge(u32, u32),
    /// A parameter set that is malformed or asks for a format that is not decoded.
    #[error(transparent)]
    ParameterSet(#[from] SpsError),
    /// The encoder refused the picture or a setting.
    #[error("the encoder refused")]
    Refused,
}

/// A decoder of one source. Concealment is on; errors leave it usable.
pub struct Decoder {
    inner: CrateDecoder,
}

impl Decoder {
    /// A decoder that waits for a keyframe.
    pub fn new() -> Result<Self, H264Error> {
        let config = DecoderConfig::new().flush_after_decode(Flush::NoFlush);
        let mut inner = CrateDecoder::with_api_config(OpenH264API::from_source(), config)
            .map_err(|_| H264Error::Unavailable)?;
        match raw::set_concealment(&mut inner, CONCEAL_BY_SLICE_COPY) {
            Some(CONCEAL_BY_SLICE_COPY) => Ok(Decoder { inner }),
            _ => Err(H264Error::Unavailable),
        }
    }

    /// Decodes one access unit in Annex B form. An error means that it was not looked at further.
    pub fn decode(&mut self, access_unit: &[u8]) -> Result<Decoded<'_>, H264Error> {
        if access_unit.len() > MAX_ACCESS_UNIT {
            return Err(H264Error::TooLong(access_unit.len()));
        }
        for nal in nal_units(access_unit) {
            if nal_type(nal) == Some(NAL_SPS) {
                check_size(nal)?;
            }
        }
        let raw::RawDecoded { state, picture } = raw::decode(&mut self.inner, access_unit);
        Ok(Decoded {
            damaged: state != 0,
            picture,
        })
    }
}

fn check_size(sps: &[u8]) -> Result<(), H264Error> {
    let size = sps::coded_size(sps)?;
    let pixels = u64::from(size.width) * u64::from(size.height);
    if pixels > MAX_PIXELS || size.width.max(size.height) > MAX_SIDE {
        return Err(H264Error::TooLarge(size.width, size.height));
    }
    Ok(())
}

/// `nal_unit_type` of an IDR slice (ITU-T H.264, table 7-1).
const NAL_IDR: u8 = 5;
/// `nal_unit_type` of a sequence parameter set.
const NAL_SPS: u8 = 7;

fn nal_type(nal: &[u8]) -> Option<u8> {
    nal.first().map(|header| header & 0x1f)
}

/// Whether an access unit has an IDR slice: a decoder can begin there.
pub fn is_keyframe(access_unit: &[u8]) -> bool {
    nal_units(access_unit).any(|nal| nal_type(nal) == Some(NAL_IDR))
}

/// The NAL units of an Annex B byte stream, without start codes.
pub fn nal_units(stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = after_start_code(stream);
    std::iter::from_fn(move || {
        let current = rest?;
        let end = find_start_code(current).unwrap_or(current.len());
        rest = after_start_code(&current[end..]);
        let nal = &current[..end];
        // B.1.1: zeros before a start code are not part of the unit, and a unit does not end with one (7.4.1).
        let length = nal
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at + 1);
        Some(&nal[..length])
    })
    .filter(|nal| !nal.is_empty())
}

fn after_start_code(stream: &[u8]) -> Option<&[u8]> {
    find_start_code(stream).map(|at| &stream[at + 3..])
}

fn find_start_code(stream: &[u8]) -> Option<usize> {
    stream.windows(3).position(|window| window == [0, 0, 1])
}

/// What an encoder makes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EncoderConfig {
    /// Pixels per row, even.
    pub width: u32,
    /// Rows, even.
    pub height: u32,
    /// Frames per second that the bit rate is divided among.
    pub fps: u32,
    /// Target, bit/s.
    pub bitrate: u32,
}

/// What is to be seen in the pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Usage {
    /// People.
    #[default]
    Camera,
    /// A shared screen: sharp edges, large parts that stand still.
    Screen,
}

/// An encoder of one rung: constrained baseline, one slice per picture, no frame skipped, keyframes on request
/// only, each with its parameter sets.
pub struct Encoder {
    inner: CrateEncoder,
    config: EncoderConfig,
    usage: Usage,
    /// OpenH264 is set up by the first picture; before it, there is nothing whose settings could change.
    running: bool,
}

impl Encoder {
    /// An encoder of people whose first picture is a keyframe.
    pub fn new(config: EncoderConfig) -> Result<Self, H264Error> {
        Encoder::for_usage(config, Usage::Camera)
    }

    /// As [`Self::new`], for pictures of another kind. The kind of a running encoder cannot be changed.
    pub fn for_usage(config: EncoderConfig, usage: Usage) -> Result<Self, H264Error> {
        Ok(Encoder {
            inner: crate_encoder(config, usage)?,
            config,
            usage,
            running: false,
        })
    }

    /// Encodes a picture of the configured size and appends its access unit, Annex B, to `out`. Tells whether it
    /// is a keyframe. `millis` is its time, rising.
    pub fn encode(
        &mut self,
        picture: View<'_>,
        millis: u64,
        out: &mut Vec<u8>,
    ) -> Result<bool, H264Error> {
        let configured = (self.config.width as usize, self.config.height as usize);
        // The crate would set the encoder up anew for another size.
        if (picture.width(), picture.height()) != configured {
            return Err(H264Error::Refused);
        }
        let timestamp = openh264::Timestamp::from_millis(millis.min(i64::MAX as u64));
        let encoded = self
            .inner
            .encode_at(&Source::new(picture), timestamp)
            .map_err(|_| H264Error::Refused)?;
        self.running = true;
        let keyframe = match encoded.frame_type() {
            FrameType::IDR => true,
            FrameType::I | FrameType::P | FrameType::IPMixed => false,
            FrameType::Skip | FrameType::Invalid => return Err(H264Error::Refused),
        };
        encoded.write_vec(out);
        Ok(keyframe)
    }

    /// The next picture becomes a keyframe.
    pub fn request_keyframe(&mut self) {
        if self.running {
            self.inner.force_intra_frame();
        }
    }

    /// Changes the target, bit/s, from the next picture on.
    pub fn set_bitrate(&mut self, bps: u32) -> Result<(), H264Error> {
        self.config.bitrate = bps;
        if !self.running {
            self.inner = crate_encoder(self.config, self.usage)?;
            return Ok(());
        }
        let bps = i32::try_from(bps).map_err(|_| H264Error::Refused)?;
        if !raw::set_bitrate(&mut self.inner, bps) {
            return Err(H264Error::Refused);
        }
        Ok(())
    }
}

fn crate_encoder(config: EncoderConfig, usage: Usage) -> Result<CrateEncoder, H264Error> {
    let usage = match usage {
        Usage::Camera => UsageType::CameraVideoRealTime,
        Usage::Screen => UsageType::ScreenContentRealTime,
    };
    let config = CrateConfig::new()
        .profile(Profile::Baseline)
        .level(level(config))
        .usage_type(usage)
        .complexity(Complexity::Low)
        .rate_control_mode(RateControlMode::Bitrate)
        .bitrate(BitRate::from_bps(config.bitrate))
        .max_frame_rate(FrameRate::from_hz(config.fps as f32))
        .skip_frames(false)
        .qp(QpRange::new(12, 51))
        .sps_pps_strategy(SpsPpsStrategy::ConstantId)
        .intra_frame_period(IntraFramePeriod::from_num_frames(0))
        .scene_change_detect(false)
        .num_threads(1);
    let mut encoder = CrateEncoder::with_api_config(OpenH264API::from_source(), config)
        .map_err(|_| H264Error::Unavailable)?;
    raw::silence(&mut encoder);
    Ok(encoder)
}

/// The lowest level that allows this size, frame rate and bit rate (ITU-T H.264, table A-1). At most 3.1 for
/// what fits 42e01f.
fn level(config: EncoderConfig) -> Level {
    let frame = u64::from(config.width.div_ceil(16)) * u64::from(config.height.div_ceil(16));
    let rate = frame * u64::from(config.fps);
    let kbits = u64::from(config.bitrate).div_ceil(1000);
    // Macroblocks per second, macroblocks per frame, kbit/s.
    let limits = [
        (Level::Level_1_1, 3_000, 396, 192),
        (Level::Level_1_2, 6_000, 396, 384),
        (Level::Level_1_3, 11_880, 396, 768),
        (Level::Level_2_0, 11_880, 396, 2_000),
        (Level::Level_2_1, 19_800, 792, 4_000),
        (Level::Level_2_2, 20_250, 1_620, 4_000),
        (Level::Level_3_0, 40_500, 1_620, 10_000),
        (Level::Level_3_1, 108_000, 3_600, 14_000),
        (Level::Level_3_2, 216_000, 5_120, 20_000),
        (Level::Level_4_0, 245_760, 8_192, 20_000),
        (Level::Level_4_2, 522_240, 8_704, 50_000),
    ];
    limits
        .into_iter()
        .find(|(_, max_rate, max_frame, max_kbits)| {
            rate <= *max_rate && frame <= *max_frame && kbits <= *max_kbits
        })
        .map_or(Level::Level_5_1, |(level, ..)| level)
}

/// A view in the form that the crate takes.
struct Source<'a> {
    view: View<'a>,
}

impl<'a> Source<'a> {
    fn new(view: View<'a>) -> Self {
        Source { view }
    }
}

impl YUVSource for Source<'_> {
    fn dimensions(&self) -> (usize, usize) {
        (self.view.width(), self.view.height())
    }

    fn strides(&self) -> (usize, usize, usize) {
        let View { y, u, v } = self.view;
        (y.stride(), u.stride(), v.stride())
    }

    fn y(&self) -> &[u8] {
        self.view.y.data()
    }

    fn u(&self) -> &[u8] {
        self.view.u.data()
    }

    fn v(&self) -> &[u8] {
        self.view.v.data()
    }
}
