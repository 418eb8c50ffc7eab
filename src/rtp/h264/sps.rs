//! The size in a sequence parameter set, read before the decoder allocates for it.

use smallvec::SmallVec;

/// Width and height of the coded picture in pixels, whole macroblocks, before cropping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodedSize {
    /// Pixels per row.
    pub width: u32,
    /// Rows, both fields of interlaced pictures counted.
    pub height: u32,
}

/// Why a parameter set is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpsError {
    /// It ends too early, or a number is out of its range.
    #[error("malformed sequence parameter set")]
    Malformed,
    /// Not 8-bit 4:2:0.
    #[error("a picture format other than 8-bit 4:2:0")]
    Format,
}

/// Longest part of a parameter set that is looked at: the size stands far before it.
const LONGEST: usize = 512;

/// The coded size of a sequence parameter set, NAL header included (ITU-T H.264, 7.3.2.1.1).
pub fn coded_size(nal: &[u8]) -> Result<CodedSize, SpsError> {
    read(nal).map(|(size, _)| size)
}

/// Width and height of the picture that is shown, in pixels: the coded size less its cropping (7.4.2.1.1).
pub fn picture_size(nal: &[u8]) -> Result<(u32, u32), SpsError> {
    let (size, cropped) = read(nal)?;
    let side = |coded: u32, less: u32| coded.checked_sub(less).filter(|side| *side > 0);
    let width = side(size.width, cropped.0).ok_or(SpsError::Malformed)?;
    let height = side(size.height, cropped.1).ok_or(SpsError::Malformed)?;
    Ok((width, height))
}

/// The coded size, and how much of its width and height is not shown.
fn read(nal: &[u8]) -> Result<(CodedSize, (u32, u32)), SpsError> {
    let payload = without_emulation_prevention(nal.get(1..).unwrap_or_default());
    let mut bits = Bits {
        data: &payload,
        position: 0,
    };
    let profile = bits.read(8)?;
    bits.read(16)?;
    bits.exp_golomb()?;
    // 7.3.2.1.1: these profiles write their format; all others are 8-bit 4:2:0.
    const WITH_FORMAT: [u32; 13] = [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];
    if WITH_FORMAT.contains(&profile) {
        skip_format(&mut bits)?;
    }
    bits.exp_golomb()?;
    skip_picture_order(&mut bits)?;
    bits.exp_golomb()?;
    bits.read(1)?;
    let columns = bits.exp_golomb()?;
    let rows = bits.exp_golomb()?;
    let fields = 2 - bits.read(1)?;
    let cropped = cropping(&mut bits, fields).unwrap_or_default();
    let side = |macroblocks: u32, times: u32| {
        let macroblocks = macroblocks.checked_add(1)?.checked_mul(times)?;
        macroblocks.checked_mul(16)
    };
    let width = side(columns, 1).ok_or(SpsError::Malformed)?;
    let height = side(rows, fields).ok_or(SpsError::Malformed)?;
    Ok((CodedSize { width, height }, cropped))
}

/// 7.3.2.1.1, after `frame_mbs_only_flag`; `fields` is 2 where frames may be two fields. In 4:2:0 offsets count two
/// columns or two rows of a field.
fn cropping(bits: &mut Bits<'_>, fields: u32) -> Result<(u32, u32), SpsError> {
    if fields == 2 {
        bits.read(1)?;
    }
    bits.read(1)?;
    if bits.read(1)? == 0 {
        return Ok((0, 0));
    }
    let mut both = || Ok(bits.exp_golomb()?.saturating_add(bits.exp_golomb()?));
    let (columns, rows) = (both()?, both()?);
    Ok((
        columns.saturating_mul(2),
        rows.saturating_mul(2).saturating_mul(fields),
    ))
}

fn skip_format(bits: &mut Bits<'_>) -> Result<(), SpsError> {
    let (chroma, luma_depth, chroma_depth) =
        (bits.exp_golomb()?, bits.exp_golomb()?, bits.exp_golomb()?);
    if (chroma, luma_depth, chroma_depth) != (1, 0, 0) {
        return Err(SpsError::Format);
    }
    bits.read(1)?;
    if bits.read(1)? == 1 {
        for list in 0..8 {
            if bits.read(1)? == 1 {
                skip_scaling_list(bits, if list < 6 { 16 } else { 64 })?;
            }
        }
    }
    Ok(())
}

/// 7.3.2.1.1.1.
fn skip_scaling_list(bits: &mut Bits<'_>, size: usize) -> Result<(), SpsError> {
    let (mut last, mut next) = (8, 8);
    for _ in 0..size {
        if next != 0 {
            next = (last + bits.signed_exp_golomb()? + 256).rem_euclid(256);
        }
        if next != 0 {
            last = next;
        }
    }
    Ok(())
}

fn skip_picture_order(bits: &mut Bits<'_>) -> Result<(), SpsError> {
    match bits.exp_golomb()? {
        0 => {
            bits.exp_golomb()?;
        }
        1 => {
            bits.read(1)?;
            bits.exp_golomb()?;
            bits.exp_golomb()?;
            let cycle = bits.exp_golomb()?;
            // 7.4.2.1.1: at most 255.
            if cycle > 255 {
                return Err(SpsError::Malformed);
            }
            for _ in 0..cycle {
                bits.exp_golomb()?;
            }
        }
        2 => {}
        _ => return Err(SpsError::Malformed),
    }
    Ok(())
}

/// 7.4.1: the third byte of 00 00 03 is not payload.
fn without_emulation_prevention(data: &[u8]) -> SmallVec<[u8; 64]> {
    let mut payload = SmallVec::new();
    let mut zeros = 0;
    for byte in data.iter().take(LONGEST) {
        if zeros >= 2 && *byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        payload.push(*byte);
    }
    payload
}

struct Bits<'a> {
    data: &'a [u8],
    position: usize,
}

impl Bits<'_> {
    fn bit(&mut self) -> Result<u32, SpsError> {
        let byte = self
            .data
            .get(self.position / 8)
            .ok_or(SpsError::Malformed)?;
        let bit = byte >> (7 - self.position % 8) & 1;
        self.position += 1;
        Ok(u32::from(bit))
    }

    fn read(&mut self, count: u32) -> Result<u32, SpsError> {
        (0..count).try_fold(0, |value, _| Ok(value << 1 | self.bit()?))
    }

    /// ue(v), 9.1.
    fn exp_golomb(&mut self) -> Result<u32, SpsError> {
        let mut zeros = 0;
        while self.bit()? == 0 {
            zeros += 1;
            if zeros > 31 {
                return Err(SpsError::Malformed);
            }
        }
        Ok((1u32 << zeros) - 1 + self.read(zeros)?)
    }

    /// se(v), 9.1.1; the range that a scaling list needs.
    fn signed_exp_golomb(&mut self) -> Result<i32, SpsError> {
        let code = i32::try_from(self.exp_golomb()?).map_err(|_| SpsError::Malformed)?;
        let magnitude = code / 2 + code % 2;
        if magnitude > 128 {
            return Err(SpsError::Malformed);
        }
        Ok(if code % 2 == 1 { magnitude } else { -magnitude })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_of_real_parameter_sets_are_read() {
        // Chromium 1280x720 constrained baseline; x264 640x360 high with 8x8 transform.
        let baseline = [
            0x67, 0x42, 0xc0, 0x1f, 0x8c, 0x8d, 0x40, 0x28, 0x02, 0xdd, 0x00, 0xf0, 0x88, 0x46,
            0xa0,
        ];
        let size = coded_size(&baseline).unwrap();
        assert_eq!((size.width, size.height), (1280, 720));
        let high = [
            0x67, 0x64, 0x00, 0x1e, 0xac, 0xd9, 0x40, 0xa0, 0x2f, 0xf9, 0x70, 0x11, 0x00, 0x00,
            0x03, 0x00, 0x01, 0x00, 0x00, 0x03, 0x00, 0x3c, 0x0f, 0x16, 0x2d, 0x96,
        ];
        let size = coded_size(&high).unwrap();
        assert_eq!((size.width, size.height), (640, 368));
        assert_eq!(picture_size(&high), Ok((640, 360)));
        assert_eq!(picture_size(&baseline), Ok((1280, 720)));
    }

    #[test]
    fn a_parameter_set_that_ends_early_is_refused() {
        for length in 0..8 {
            let nal = &[0x67, 0x42, 0xc0, 0x1f, 0x8c, 0x8d, 0x40, 0x28][..length];
            assert_eq!(coded_size(nal), Err(SpsError::Malformed));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(nal in prop::collection::vec(any::<u8>(), 0..80), high: bool) {
            let mut nal = nal;
            if let Some(profile) = nal.get_mut(1).filter(|_| high) {
                *profile = 100;
            }
            let _ = picture_size(&nal);
            if let Ok(size) = coded_size(&nal) {
                prop_assert!(size.width >= 16 && size.height >= 16);
            }
        }
    }
}
