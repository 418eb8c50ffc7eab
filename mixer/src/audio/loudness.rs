//! Loudness as it is heard: the K-weighting of ITU-R BS.1770, which EBU R 128 measures by.

/// A filter of second order, normalised to a0 = 1 (transposed direct form II).
#[derive(Clone, Debug)]
struct Biquad {
    b: [f32; 3],
    a: [f32; 2],
    state: [f32; 2],
}

impl Biquad {
    fn next(&mut self, x: f32) -> f32 {
        let y = self.b[0] * x + self.state[0];
        self.state[0] = self.b[1] * x - self.a[0] * y + self.state[1];
        self.state[1] = self.b[2] * x - self.a[1] * y;
        y
    }
}

/// Weights sound by the ear's sensitivity, for 48 kHz.
#[derive(Clone, Debug)]
pub struct KWeighting {
    shelf: Biquad,
    high_pass: Biquad,
}

impl KWeighting {
    /// A filter that has heard nothing. Coefficients: BS.1770-4, annex 1, tables 1 and 2.
    pub fn new() -> Self {
        KWeighting {
            shelf: Biquad {
                b: [1.535_124_9, -2.691_696_2, 1.198_392_8],
                a: [-1.690_659_3, 0.732_480_77],
                state: [0.0; 2],
            },
            high_pass: Biquad {
                b: [1.0, -2.0, 1.0],
                a: [-1.990_047_5, 0.990_072_25],
                state: [0.0; 2],
            },
        }
    }

    /// The weighted mean square of the next samples. Loudness in LUFS is −0.691 + 10 log10 of it. Not finite where a
    /// sample is not: call [`KWeighting::reset`] then.
    pub fn power(&mut self, samples: &[f32]) -> f32 {
        let mut sum = 0.0f32;
        for &x in samples {
            let y = self.high_pass.next(self.shelf.next(x));
            sum += y * y;
        }
        sum / samples.len().max(1) as f32
    }

    /// Forgets what it heard.
    pub fn reset(&mut self) {
        self.shelf.state = [0.0; 2];
        self.high_pass.state = [0.0; 2];
    }
}

impl Default for KWeighting {
    fn default() -> Self {
        Self::new()
    }
}

/// LUFS of a weighted mean square (BS.1770-4, annex 1, equation 2, one channel).
pub fn lufs(power: f32) -> f32 {
    -0.691 + 10.0 * power.max(1e-12).log10()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_scale_sine_of_997_hz_has_minus_3_01_lufs() {
        // BS.1770-4, annex 1: 0 dBFS at 997 Hz in one front channel reads −3.01 LKFS.
        let mut weighting = KWeighting::new();
        let sine: Vec<f32> = (0..96_000)
            .map(|i| (f64::from(i) * 997.0 / 48_000.0 * std::f64::consts::TAU).sin() as f32)
            .collect();
        weighting.power(&sine[..48_000]);
        let measured = lufs(weighting.power(&sine[48_000..]));
        assert!((measured + 3.01).abs() < 0.02, "{measured}");
    }
}
