//! libvpx's C interface, as much of it as decodes VP8. One of this crate's few modules with unsafe code.
//!
//! These declarations are those of `vpx/vpx_decoder.h` and `vpx/vpx_image.h` since libvpx 1.4. [`ABI_VERSION`] goes along
//! with them: a library whose structures differ refuses it. Crates with bindings either stop at libvpx 1.13 or need a
//! parser for their build script.
//!
//! A context is initialised in [`Decoder::new`], destroyed on `Drop`, and stays where it is, in a box. Pictures lie in the
//! decoder's buffers and are borrowed from it until its next call.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_long, c_uchar, c_uint, c_void};
use std::mem::MaybeUninit;
use std::ptr;

use talksy_mixer::video::View;
use talksy_mixer::video::frame::Plane;

/// `VPX_DECODER_ABI_VERSION`.
const ABI_VERSION: c_int = 12;
/// `VPX_CODEC_OK`.
const OK: c_int = 0;
/// `VPX_IMG_FMT_I420`.
const FORMAT_I420: c_int = 0x102;

/// `vpx_codec_ctx_t`: seven words of which none is ours to look at.
#[repr(C)]
struct Context([*mut c_void; 7]);

/// `vpx_codec_dec_cfg_t`.
#[repr(C)]
struct Config {
    threads: c_uint,
    width: c_uint,
    height: c_uint,
}

/// `vpx_image_t`.
#[repr(C)]
struct Image {
    format: c_int,
    colour_space: c_int,
    range: c_int,
    stored_width: c_uint,
    stored_height: c_uint,
    bit_depth: c_uint,
    width: c_uint,
    height: c_uint,
    render_size: [c_uint; 2],
    chroma_shifts: [c_uint; 2],
    planes: [*mut c_uchar; 4],
    strides: [c_int; 4],
    bits_per_sample: c_int,
    user: *mut c_void,
    data: *mut c_uchar,
    data_is_owned: c_int,
    is_allocated: c_int,
    buffer: *mut c_void,
}

#[link(name = "vpx")]
unsafe extern "C" {
    fn vpx_codec_vp8_dx() -> *mut c_void;
    fn vpx_codec_dec_init_ver(
        context: *mut Context,
        interface: *mut c_void,
        config: *const Config,
        flags: c_long,
        version: c_int,
    ) -> c_int;
    fn vpx_codec_decode(
        context: *mut Context,
        data: *const u8,
        length: c_uint,
        user: *mut c_void,
        deadline: c_long,
    ) -> c_int;
    fn vpx_codec_get_frame(context: *mut Context, iterator: *mut *const c_void) -> *mut Image;
    fn vpx_codec_destroy(context: *mut Context) -> c_int;
}

/// A VP8 decoder with one thread.
pub struct Decoder {
    context: Box<Context>,
}

// SAFETY: libvpx's VP8 decoder, without threads of its own, has no state outside its context, and one owner uses it.
unsafe impl Send for Decoder {}

impl Decoder {
    /// `None`: libvpx refuses, for want of memory or because its interface is another version's.
    pub fn new() -> Option<Self> {
        let mut context = Box::new(MaybeUninit::<Context>::zeroed());
        let config = Config {
            threads: 1,
            width: 0,
            height: 0,
        };
        // SAFETY: the context is ours and as large as libvpx's; the interface is a static of libvpx; the decoder copies the
        // configuration into its own state and keeps no pointer to ours.
        let result = unsafe {
            vpx_codec_dec_init_ver(
                context.as_mut_ptr(),
                vpx_codec_vp8_dx(),
                &raw const config,
                0,
                ABI_VERSION,
            )
        };
        if result != OK {
            return None;
        }
        // SAFETY: all bytes are initialised: zeroed, and then written to by a call that succeeded.
        let context = unsafe { context.assume_init() };
        Some(Decoder { context })
    }

    /// Decodes one frame; false if it is corrupt.
    pub fn decode(&mut self, frame: &[u8]) -> bool {
        let Ok(length) = c_uint::try_from(frame.len()) else {
            return false;
        };
        // SAFETY: the context is initialised; `length` bytes are readable, and libvpx has no use for them after the call.
        let result = unsafe {
            vpx_codec_decode(
                &raw mut *self.context,
                frame.as_ptr(),
                length,
                ptr::null_mut(),
                0,
            )
        };
        result == OK
    }

    /// The picture that the last call has made, if it shows one. Odd sides lose a pixel.
    pub fn picture(&mut self) -> Option<View<'_>> {
        let mut iterator = ptr::null();
        // SAFETY: the context is initialised; the result is null or an image that stays until the next call of the
        // decoder, which `&mut self` puts off until the view is gone.
        let image =
            unsafe { vpx_codec_get_frame(&raw mut *self.context, &raw mut iterator).as_ref()? };
        if image.format != FORMAT_I420 {
            return None;
        }
        let (width, height) = (image.width as usize & !1, image.height as usize & !1);
        let plane = |at: usize, width: usize, height: usize| {
            let stride = usize::try_from(image.strides[at]).ok()?;
            let data = image.planes[at];
            if data.is_null() || width == 0 || height == 0 || stride < width {
                return None;
            }
            // SAFETY: an image has `height` rows (in chroma half of them, rounded up) of `width` bytes (likewise), `stride`
            // apart.
            let data = unsafe { std::slice::from_raw_parts(data, (height - 1) * stride + width) };
            Plane::new(data, stride, width, height)
        };
        View::new(
            plane(0, width, height)?,
            plane(1, width / 2, height / 2)?,
            plane(2, width / 2, height / 2)?,
        )
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: it is initialised, and not used after this.
        unsafe { vpx_codec_destroy(&raw mut *self.context) };
    }
}
