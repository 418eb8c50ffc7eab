//! Pictures that stand for somebody without a camera.

use std::io::Cursor;

use image::{ImageReader, Limits, RgbImage, imageops};

use super::frame::{I420, Yuv};

/// Longest image file that is looked at, in bytes.
pub const MAX_AVATAR_BYTES: usize = 512 * 1024;
/// Most pixels of an image's side.
pub const MAX_AVATAR_SIDE: u32 = 2048;
/// Side of what is kept of it, in pixels; the largest disc on a 720p canvas is a little larger.
pub const AVATAR_SIDE: usize = 320;

/// A decoded image, cut to a square.
#[derive(Clone, PartialEq, Eq)]
pub struct Avatar {
    pub(super) picture: I420,
}

impl std::fmt::Debug for Avatar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Avatar")
    }
}

/// An image that cannot be an avatar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AvatarError {
    /// The file is too long.
    #[error("the image has {0} bytes, at most {MAX_AVATAR_BYTES} are taken")]
    TooLong(usize),
    /// Not PNG, not JPEG, broken, or with sides beyond [`MAX_AVATAR_SIDE`].
    #[error("the image is no PNG or JPEG of at most {MAX_AVATAR_SIDE} pixels a side: {0}")]
    Undecodable(String),
}

impl Avatar {
    /// Decodes a PNG or JPEG. Takes milliseconds: not for a thread that has a deadline.
    ///
    /// # Errors
    /// See [`AvatarError`]. No image needs more than some 16 MiB while it is decoded.
    pub fn decode(bytes: &[u8]) -> Result<Self, AvatarError> {
        if bytes.len() > MAX_AVATAR_BYTES {
            return Err(AvatarError::TooLong(bytes.len()));
        }
        let undecodable = |error: String| AvatarError::Undecodable(error);
        let mut reader = ImageReader::new(Cursor::new(bytes))
            .with_guessed_format()
            .map_err(|error| undecodable(error.to_string()))?;
        let mut limits = Limits::default();
        limits.max_image_width = Some(MAX_AVATAR_SIDE);
        limits.max_image_height = Some(MAX_AVATAR_SIDE);
        limits.max_alloc = Some(u64::from(MAX_AVATAR_SIDE * MAX_AVATAR_SIDE) * 8);
        reader.limits(limits);
        let image = reader
            .decode()
            .map_err(|error| undecodable(error.to_string()))?;
        let side = image.width().min(image.height());
        let (x, y) = ((image.width() - side) / 2, (image.height() - side) / 2);
        let to = AVATAR_SIDE as u32;
        let square = image
            .crop_imm(x, y, side, side)
            .resize_exact(to, to, imageops::FilterType::Triangle)
            .to_rgba8();
        // Transparent parts are white: most logos are made for paper.
        let rgb = RgbImage::from_fn(to, to, |x, y| {
            let [r, g, b, a] = square.get_pixel(x, y).0;
            let over = |value: u8| {
                let (value, a) = (u16::from(value), u16::from(a));
                ((value * a + 255 * (255 - a)) / 255) as u8
            };
            image::Rgb([over(r), over(g), over(b)])
        });
        Ok(Avatar {
            picture: from_rgb(&rgb),
        })
    }
}

/// Chroma is the mean of four pixels.
fn from_rgb(image: &RgbImage) -> I420 {
    let mut picture = I420::new(image.width() as usize, image.height() as usize);
    let colour = |x: u32, y: u32| {
        let [r, g, b] = image.get_pixel(x, y).0;
        Yuv::from_rgb(r, g, b)
    };
    let [mut y_plane, mut u_plane, mut v_plane] = picture.planes_mut();
    for y in 0..image.height() {
        for (x, value) in (0..image.width()).zip(y_plane.row(y as usize)) {
            *value = colour(x, y).y;
        }
    }
    for y in 0..image.height() / 2 {
        let (u_row, v_row) = (u_plane.row(y as usize), v_plane.row(y as usize));
        for (x, (u, v)) in (0..image.width() / 2).zip(u_row.iter_mut().zip(v_row)) {
            let block = [(0, 0), (1, 0), (0, 1), (1, 1)];
            let block = block.map(|(dx, dy)| colour(2 * x + dx, 2 * y + dy));
            let mean = |part: fn(&Yuv) -> u8| {
                let sum: u16 = block.iter().map(|yuv| u16::from(part(yuv))).sum();
                ((sum + 2) / 4) as u8
            };
            (*u, *v) = (mean(|yuv| yuv.u), mean(|yuv| yuv.v));
        }
    }
    picture
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageFormat, RgbaImage};

    fn png(image: &RgbaImage) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn the_middle_square_is_kept_and_transparent_parts_are_white() {
        let image = RgbaImage::from_fn(300, 100, |x, y| match (x, y) {
            (0..100 | 200.., _) => image::Rgba([0, 255, 0, 255]),
            (_, 0..50) => image::Rgba([255, 0, 0, 255]),
            _ => image::Rgba([0, 0, 0, 0]),
        });
        let avatar = Avatar::decode(&png(&image)).unwrap();
        let view = avatar.picture.view();
        assert_eq!((view.width(), view.height()), (AVATAR_SIDE, AVATAR_SIDE));
        let at = |x: usize, y: usize| [view.y.row(y)[x], view.u.row(y / 2)[x / 2]];
        assert_eq!(at(160, 40), [82, 90]);
        assert_eq!(at(20, 40), [82, 90], "nothing of the sides");
        assert_eq!(at(160, 280), [235, 128]);
    }

    #[test]
    fn what_is_too_long_too_large_or_broken_is_refused() {
        let long = vec![0; MAX_AVATAR_BYTES + 1];
        assert!(matches!(
            Avatar::decode(&long),
            Err(AvatarError::TooLong(_))
        ));
        let large = png(&RgbaImage::new(MAX_AVATAR_SIDE + 1, 2));
        let mut broken = png(&RgbaImage::new(20, 20));
        broken.truncate(60);
        for bytes in [&large[..], &broken[..], b"GIF89a", b""] {
            let refused = Avatar::decode(bytes);
            assert!(
                matches!(refused, Err(AvatarError::Undecodable(_))),
                "{refused:?}"
            );
        }
    }
}
