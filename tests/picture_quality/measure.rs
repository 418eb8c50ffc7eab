//! What a picture should be, and how far another one is from it.

use talksy_mixer::video::Rect;
use talksy_mixer::video::frame::Plane;

/// Pixels of a tile's edge that are not compared: the line towards the neighbours is drawn over them.
pub const EDGE: usize = 4;

/// The luma of a picture, scaled by the definition: each pixel is the mean of the area that it covers.
pub fn ideal(source: Plane<'_>, width: usize, height: usize) -> Vec<u8> {
    let columns = shares(source.width(), width);
    let rows = shares(source.height(), height);
    // First the columns of every source row, then the rows.
    let mut narrow = vec![0.0f32; width * source.height()];
    for (y, out) in narrow.chunks_exact_mut(width).enumerate() {
        let row = source.row(y);
        for (out, (first, weights)) in out.iter_mut().zip(&columns) {
            let pixels = row[*first..].iter().zip(weights);
            *out = pixels.map(|(p, w)| f32::from(*p) * w).sum();
        }
    }
    let mut out = vec![0; width * height];
    for (out, (first, weights)) in out.chunks_exact_mut(width).zip(&rows) {
        for (x, out) in out.iter_mut().enumerate() {
            let pixels = weights.iter().enumerate();
            let sum: f32 = pixels
                .map(|(k, w)| narrow[(first + k) * width + x] * w)
                .sum();
            *out = (sum + 0.5) as u8;
        }
    }
    out
}

/// For each target pixel the first source pixel that it covers, and the shares of it and those that follow.
fn shares(source: usize, target: usize) -> Vec<(usize, Vec<f32>)> {
    let scale = source as f64 / target as f64;
    (0..target)
        .map(|i| {
            let (from, to) = (i as f64 * scale, (i + 1) as f64 * scale);
            let pixels = from as usize..(to.ceil() as usize).min(source);
            let share = |k: usize| {
                let covered = to.min(k as f64 + 1.0) - from.max(k as f64);
                (covered.max(0.0) / scale) as f32
            };
            (from as usize, pixels.map(share).collect())
        })
        .collect()
}

/// Peak signal to noise ratio in dB of what `canvas` shows at `tile` against `ideal`, which has the tile's size.
pub fn psnr(canvas: Plane<'_>, tile: Rect, ideal: &[u8]) -> f64 {
    let inner = tile.width - 2 * EDGE;
    let (mut sum, mut count) = (0u64, 0u64);
    for y in EDGE..tile.height - EDGE {
        let shown = &canvas.row(tile.y + y)[tile.x + EDGE..][..inner];
        let wanted = &ideal[y * tile.width + EDGE..][..inner];
        let row = shown.iter().zip(wanted).map(|(a, b)| {
            let difference = u32::from(a.abs_diff(*b));
            difference * difference
        });
        sum += u64::from(row.sum::<u32>());
        count += inner as u64;
    }
    let mean = (sum as f64 / count as f64).max(1e-3);
    10.0 * (255.0 * 255.0 / mean).log10()
}
