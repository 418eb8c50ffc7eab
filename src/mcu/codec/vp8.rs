//! VP8 through libvpx (RFC 6386): frames in, pictures out.

use super::vpx_raw as raw;
use super::{Decoded, Undecodable};
use crate::mcu::codec::h264::{MAX_ACCESS_UNIT, MAX_PIXELS, MAX_SIDE};
use crate::rtp::vp8::frame_size;

/// A decoder of one source. Errors leave it usable.
pub struct Decoder {
    inner: raw::Decoder,
}

impl Decoder {
    /// A decoder that waits for a keyframe. `None`: libvpx cannot make one.
    pub fn new() -> Option<Self> {
        raw::Decoder::new().map(|inner| Decoder { inner })
    }

    /// Decodes one frame, without payload descriptors. An error means that it was not looked at further.
    ///
    /// # Errors
    /// Larger than is decoded, or a keyframe whose header is malformed.
    pub fn decode(&mut self, frame: &[u8]) -> Result<Decoded<'_>, Undecodable> {
        let inter = frame.first().ok_or(Undecodable)? & 1 != 0;
        if frame.len() > MAX_ACCESS_UNIT {
            return Err(Undecodable);
        }
        if !inter {
            let (width, height) = frame_size(frame).ok_or(Undecodable)?;
            let pixels = u64::from(width) * u64::from(height);
            // Before libvpx allocates for it.
            if pixels == 0 || pixels > MAX_PIXELS || width.max(height) > MAX_SIDE {
                return Err(Undecodable);
            }
        }
        let whole = self.inner.decode(frame);
        Ok(Decoded {
            picture: self.inner.picture().filter(|_| whole),
            damaged: !whole,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcu::video::recorded;
    use proptest::prelude::*;

    #[test]
    fn pictures_come_back_as_they_were() {
        let mut decoder = Decoder::new().expect("libvpx decodes");
        let frames = recorded::vp8("vp8_160x90.ivf");
        assert_eq!(frames.len(), 12);
        for (n, frame) in frames.iter().enumerate() {
            let decoded = decoder.decode(frame).expect("it is small");
            assert!(!decoded.damaged);
            let view = decoded.picture.expect("each frame shows one");
            assert_eq!((view.width(), view.height()), (160, 90));
            let luma = |x: usize, y: usize| (60 + (x + 3 * y + 5 * n) % 100) as u8;
            let error: u64 = (0..90)
                .flat_map(|y| {
                    view.y
                        .row(y)
                        .iter()
                        .enumerate()
                        .map(move |(x, v)| (x, y, *v))
                })
                .map(|(x, y, value)| u64::from(value.abs_diff(luma(x, y))))
                .sum();
            assert!(
                error / (160 * 90) < 16,
                "{} in frame {n}",
                error / (160 * 90)
            );
            let chroma = (view.u.row(20)[40], view.v.row(20)[40]);
            assert!(chroma.0.abs_diff(90) < 6 && chroma.1.abs_diff(200) < 6);
        }
    }

    #[test]
    fn the_size_may_change_with_a_keyframe_and_odd_sides_lose_a_pixel() {
        let mut decoder = Decoder::new().expect("libvpx decodes");
        for (name, size) in [
            ("vp8_64x48.ivf", (64, 48)),
            ("vp8_160x90.ivf", (160, 90)),
            ("vp8_63x47.ivf", (62, 46)),
        ] {
            for frame in recorded::vp8(name).iter().take(2) {
                let view = decoder.decode(frame).ok().and_then(|d| d.picture);
                let got = view.map(|view| (view.width(), view.height()));
                assert_eq!(got, Some(size), "{name}");
            }
        }
    }

    #[test]
    fn a_picture_that_is_too_large_is_refused_before_anything_is_allocated() {
        let mut decoder = Decoder::new().expect("libvpx decodes");
        let good = recorded::vp8("vp8_64x48.ivf").remove(0);
        for (width, height) in [(16383u16, 16383u16), (4096, 4096), (0, 48), (64, 0)] {
            let mut frame = good.clone();
            frame[6..8].copy_from_slice(&width.to_le_bytes());
            frame[8..10].copy_from_slice(&height.to_le_bytes());
            assert!(decoder.decode(&frame).is_err(), "{width}x{height}");
        }
        assert!(decoder.decode(&[]).is_err());
        assert!(decoder.decode(&good[..6]).is_err());
        assert!(decoder.decode(&vec![1; MAX_ACCESS_UNIT + 1]).is_err());
        let inter = decoder.decode(&[1, 0, 0, 0]).expect("it is looked at");
        assert!(inter.damaged && inter.picture.is_none(), "no keyframe yet");
        let decoded = decoder.decode(&good).expect("it is still good");
        assert!(decoded.picture.is_some() && !decoded.damaged);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn damaged_and_arbitrary_frames_do_no_harm(
            hits in prop::collection::vec((0usize..12, any::<prop::sample::Index>(), any::<u8>()), 0..20),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 12),
            noise in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut frames = recorded::vp8("vp8_160x90.ivf");
            for (frame, at, value) in hits {
                let frame = &mut frames[frame];
                let at = at.index(frame.len());
                frame[at] = value;
            }
            let mut decoder = Decoder::new().expect("libvpx decodes");
            for (frame, cut) in frames.iter().zip(cuts) {
                let cut = (cut.index(2 * frame.len()) + 1).min(frame.len());
                for data in [&frame[..cut], &noise] {
                    if let Ok(Decoded { picture: Some(view), .. }) = decoder.decode(data) {
                        prop_assert!(view.width() as u64 * view.height() as u64 <= MAX_PIXELS);
                        // Every byte of it may be read.
                        let sum: u64 = (0..view.height()).flat_map(|y| view.y.row(y)).map(|v| u64::from(*v)).sum();
                        prop_assert!(sum <= 255 * MAX_PIXELS);
                    }
                }
            }
        }
    }
}
