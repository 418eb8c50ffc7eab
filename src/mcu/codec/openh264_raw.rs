//! What the `openh264` crate leaves to its raw interface. One of this crate's few modules with unsafe code.
//!
//! These gaps are closed here. A damaged access unit is an error to the crate even when the decoder has concealed
//! the damage and made a picture ([`decode`]). Concealment is off without a setter ([`set_concealment`]). The
//! bit rate of a running encoder cannot be changed ([`set_bitrate`]), and its set-up is not quiet ([`silence`]).
#![allow(unsafe_code)]

use std::ffi::{c_int, c_uchar, c_void};
use std::ptr;

use openh264::decoder::Decoder;
use openh264::encoder::Encoder;
use openh264_sys2::{
    DECODER_OPTION_ERROR_CON_IDC, ENCODER_OPTION, ENCODER_OPTION_BITRATE,
    ENCODER_OPTION_MAX_BITRATE, ENCODER_OPTION_TRACE_LEVEL, LAYER_NUM, SBitrateInfo, SBufferInfo,
    SPATIAL_LAYER_0, SPATIAL_LAYER_ALL, WELS_LOG_QUIET,
};
use talksy_mixer::video::View;
use talksy_mixer::video::frame::Plane;

/// `WELS_CPU_AVX2` of OpenH264's `cpu_core.h`, where it is 0 unless HAVE_AVX2 is defined.
const CPU_AVX2: u32 = 0x0004_0000;

unsafe extern "C" {
    /// OpenH264, `common/inc/cpu.h`. Answers 0 when the library was built without its assembly.
    fn WelsCPUFeatureDetect(processors: *mut i32) -> u32;
}

/// Whether OpenH264 was built with its assembly and its AVX2 paths, and this CPU has AVX2.
///
/// Without nasm the library silently falls back to C, three times slower.
pub fn has_avx2_assembly() -> bool {
    let mut processors = 0;
    // SAFETY: the function writes one integer through the pointer and keeps nothing.
    let features = unsafe { WelsCPUFeatureDetect(&mut processors) };
    features & CPU_AVX2 != 0
}

/// What one access unit has brought.
pub struct RawDecoded<'a> {
    /// `DECODING_STATE` bits of `codec_app_def.h`; 0 when nothing was wrong.
    pub state: i32,
    /// The picture, if one is ready.
    pub picture: Option<View<'a>>,
}

/// Decodes one access unit in Annex B form. The picture lives in the decoder until its next call.
pub fn decode<'a>(decoder: &'a mut Decoder, access_unit: &[u8]) -> RawDecoded<'a> {
    let Ok(length) = c_int::try_from(access_unit.len()) else {
        return RawDecoded {
            state: -1,
            picture: None,
        };
    };
    let mut planes: [*mut c_uchar; 3] = [ptr::null_mut(); 3];
    let mut info = SBufferInfo::default();
    // SAFETY: the decoder is initialised (the crate's constructor did it). It reads `length` bytes, and writes
    // three pointers and one SBufferInfo; none of these pointers is kept.
    let state = unsafe {
        decoder.raw_api().decode_frame_no_delay(
            access_unit.as_ptr(),
            length,
            planes.as_mut_ptr(),
            &raw mut info,
        )
    };
    let picture = (info.iBufferStatus == 1)
        .then(|| {
            // SAFETY: iBufferStatus 1 says that the planes and the union's only member are set. The planes lie in
            // the decoder's picture buffer, which stays until its next call, and `'a` borrows it until then.
            unsafe { view(planes, &info) }
        })
        .flatten();
    RawDecoded { state, picture }
}

/// SAFETY: `info` describes the planes that `planes` points to, and they outlive `'a`.
unsafe fn view<'a>(planes: [*mut c_uchar; 3], info: &SBufferInfo) -> Option<View<'a>> {
    // SAFETY: the union has one member.
    let buffer = unsafe { info.UsrData.sSystemBuffer };
    let width = usize::try_from(buffer.iWidth).ok()?;
    let height = usize::try_from(buffer.iHeight).ok()?;
    let plane = |data: *mut c_uchar, stride: c_int, width: usize, height: usize| {
        let stride = usize::try_from(stride).ok()?;
        if data.is_null() || width == 0 || height == 0 || stride < width {
            return None;
        }
        // SAFETY: rows are `stride` apart, and the last one is `width` long.
        let data = unsafe { std::slice::from_raw_parts(data, (height - 1) * stride + width) };
        Plane::new(data, stride, width, height)
    };
    let [luma, chroma] = buffer.iStride;
    View::new(
        plane(planes[0], luma, width, height)?,
        plane(planes[1], chroma, width / 2, height / 2)?,
        plane(planes[2], chroma, width / 2, height / 2)?,
    )
}

/// Sets how damage is concealed (`ERROR_CON_IDC` of `codec_app_def.h`) and tells what the decoder made of it.
pub fn set_concealment(decoder: &mut Decoder, method: i32) -> Option<i32> {
    let mut method: c_int = method;
    let option = (&raw mut method).cast::<c_void>();
    // SAFETY: the decoder is initialised; both calls take a pointer to one int for this option and do not keep it.
    unsafe {
        let api = decoder.raw_api();
        let set = api.set_option(DECODER_OPTION_ERROR_CON_IDC, option);
        let got = api.get_option(DECODER_OPTION_ERROR_CON_IDC, option);
        (set == 0 && got == 0).then_some(method)
    }
}

/// Keeps the library from writing to stderr. The crate does so too, but only after the set-up, which warns.
pub fn silence(encoder: &mut Encoder) {
    let mut level: c_int = WELS_LOG_QUIET;
    // SAFETY: this option takes a pointer to one int, does not keep it, and is allowed before the set-up. Its
    // result does not matter: the worst is a line on stderr.
    unsafe {
        encoder
            .raw_api()
            .set_option(ENCODER_OPTION_TRACE_LEVEL, (&raw mut level).cast());
    }
}

/// Changes the target and the upper bound of a running encoder, bit/s. False when it refuses.
pub fn set_bitrate(encoder: &mut Encoder, bps: i32) -> bool {
    // The target may never lie above the bound: the bound rises first and falls last.
    let bound = bitrate(encoder, ENCODER_OPTION_MAX_BITRATE, SPATIAL_LAYER_0);
    let higher = bound.unwrap_or(0).max(bps);
    option(encoder, ENCODER_OPTION_MAX_BITRATE, SPATIAL_LAYER_0, higher)
        && option(encoder, ENCODER_OPTION_BITRATE, SPATIAL_LAYER_ALL, bps)
        && option(encoder, ENCODER_OPTION_MAX_BITRATE, SPATIAL_LAYER_0, bps)
}

/// The target of a running encoder, bit/s.
#[cfg(test)]
pub fn target_bitrate(encoder: &mut Encoder) -> Option<i32> {
    bitrate(encoder, ENCODER_OPTION_BITRATE, SPATIAL_LAYER_0)
}

fn option(encoder: &mut Encoder, option: ENCODER_OPTION, layer: LAYER_NUM, bps: i32) -> bool {
    let mut info = SBitrateInfo {
        iLayer: layer,
        iBitrate: bps,
    };
    // SAFETY: these options take a pointer to one SBitrateInfo and do not keep it. An encoder that has not begun
    // answers with an error code.
    unsafe { encoder.raw_api().set_option(option, (&raw mut info).cast()) == 0 }
}

fn bitrate(encoder: &mut Encoder, option: ENCODER_OPTION, layer: LAYER_NUM) -> Option<i32> {
    let mut info = SBitrateInfo {
        iLayer: layer,
        iBitrate: 0,
    };
    // SAFETY: as for `option`; the struct is written to.
    let code = unsafe { encoder.raw_api().get_option(option, (&raw mut info).cast()) };
    (code == 0).then_some(info.iBitrate)
}
