//! Packets of 5.1 by libopus's own multistream encoder, which the `opus` crate does not have.

#![expect(
    unsafe_code,
    reason = "libopus's C interface; each block says why it is sound"
)]

use std::ffi::c_int;
use std::ptr::NonNull;

use opusic_sys as sys;
use talksy_mixer::audio::FRAME_SAMPLES;

const CHANNELS: usize = 6;
/// More than any packet of 20 ms has: four streams of at most 1277 bytes each.
const MAX_PACKET: usize = 6_000;

/// Six channels at 48 kHz into multistream packets of 20 ms (RFC 7845, section 5.1.1.2).
pub struct SurroundEncoder(NonNull<sys::OpusMSEncoder>);

impl SurroundEncoder {
    /// An encoder of `bitrate` bit/s for all channels together.
    pub fn new(bitrate: i32) -> Self {
        let (mut streams, mut coupled, mut error) = (0, 0, 0);
        let mut mapping = [0u8; CHANNELS];
        // SAFETY: the pointers are to live variables, and `mapping` has a place for each channel.
        let encoder = unsafe {
            sys::opus_multistream_surround_encoder_create(
                48_000,
                CHANNELS as c_int,
                1,
                &mut streams,
                &mut coupled,
                mapping.as_mut_ptr(),
                sys::OPUS_APPLICATION_AUDIO,
                &mut error,
            )
        };
        let encoder = NonNull::new(encoder).expect("libopus makes encoders of 5.1");
        assert_eq!((streams, coupled, error), (4, 2, 0));
        // SAFETY: the encoder is live, and this request takes one int.
        let set = unsafe {
            sys::opus_multistream_encoder_ctl(
                encoder.as_ptr(),
                sys::OPUS_SET_BITRATE_REQUEST,
                bitrate,
            )
        };
        assert_eq!(set, 0);
        SurroundEncoder(encoder)
    }

    /// Packets of whole frames of interleaved samples.
    pub fn encode(&mut self, sound: &[f32]) -> Vec<Vec<u8>> {
        let frames = sound.chunks_exact(FRAME_SAMPLES * CHANNELS);
        frames.map(|frame| self.encode_frame(frame)).collect()
    }

    fn encode_frame(&mut self, frame: &[f32]) -> Vec<u8> {
        assert_eq!(frame.len(), FRAME_SAMPLES * CHANNELS);
        let mut packet = vec![0; MAX_PACKET];
        // SAFETY: `frame` has as many samples as are announced, `packet` as many bytes.
        let length = unsafe {
            sys::opus_multistream_encode_float(
                self.0.as_ptr(),
                frame.as_ptr(),
                FRAME_SAMPLES as c_int,
                packet.as_mut_ptr(),
                MAX_PACKET as sys::opus_int32,
            )
        };
        packet.truncate(usize::try_from(length).expect("libopus encodes any frame"));
        packet
    }
}

impl Drop for SurroundEncoder {
    fn drop(&mut self) {
        // SAFETY: it was made by libopus, and nobody uses it any more.
        unsafe { sys::opus_multistream_encoder_destroy(self.0.as_ptr()) }
    }
}
