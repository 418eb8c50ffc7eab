//! What is measured: distortion, loudness, peaks, spectra, gains.

use ebur128::{EbuR128, Mode};
use rustfft::FftPlanner;
use rustfft::num_complex::Complex;

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(x, y)| f64::from(*x) * f64::from(*y))
        .sum()
}

/// The energy of `x`.
pub fn energy(x: &[f32]) -> f64 {
    dot(x, x)
}

/// Decibels of a ratio of energies.
pub fn db(ratio: f64) -> f64 {
    10.0 * ratio.log10()
}

/// Scale-invariant signal-to-distortion ratio in dB (Le Roux and others, 2019).
pub fn si_sdr(reference: &[f32], estimate: &[f32]) -> f64 {
    let scale = dot(reference, estimate) / energy(reference);
    let signal = scale * scale * energy(reference);
    db(signal / (energy(estimate) - signal).max(1e-12))
}

/// Signal to error in dB of `estimate` against `reference`, at one scale.
pub fn snr(reference: &[f32], estimate: &[f32]) -> f64 {
    let error: Vec<f32> = reference.iter().zip(estimate).map(|(a, b)| a - b).collect();
    db(energy(reference) / energy(&error).max(1e-12))
}

/// The factor of `reference` in `estimate`.
pub fn gain(reference: &[f32], estimate: &[f32]) -> f64 {
    dot(reference, estimate) / energy(reference).max(1e-12)
}

/// Integrated loudness in LUFS (EBU R 128: gated, so pauses do not count).
pub fn lufs(mono: &[f32]) -> f64 {
    let mut meter = EbuR128::new(1, 48_000, Mode::I).expect("48 kHz mono");
    meter.add_frames_f32(mono).expect("whole frames");
    meter.loudness_global().expect("the mode was asked for")
}

/// True peak in dBFS, four times oversampled (ITU-R BS.1770).
pub fn true_peak(mono: &[f32]) -> f64 {
    let mut meter = EbuR128::new(1, 48_000, Mode::TRUE_PEAK).expect("48 kHz mono");
    meter.add_frames_f32(mono).expect("whole frames");
    20.0 * meter.true_peak(0).expect("the mode was asked for").log10()
}

/// The share of the energy of `sound` that lies above `hz`, with windows that leak by less than −90 dB.
pub fn share_above(sound: &[f32], hz: f32) -> f64 {
    const LENGTH: usize = 4_096;
    let fft = FftPlanner::new().plan_fft_forward(LENGTH);
    let first = (hz / 48_000.0 * LENGTH as f32) as usize;
    let (mut above, mut all) = (0.0, 0.0);
    // Blackman and Harris, four terms.
    let window = |i: usize| {
        let angle = std::f64::consts::TAU * i as f64 / LENGTH as f64;
        0.358_75 - 0.488_29 * angle.cos() + 0.141_28 * (2.0 * angle).cos()
            - 0.011_68 * (3.0 * angle).cos()
    };
    for at in (0..sound.len().saturating_sub(LENGTH)).step_by(LENGTH / 2) {
        let mut buffer: Vec<Complex<f64>> = sound[at..at + LENGTH]
            .iter()
            .enumerate()
            .map(|(i, x)| Complex::new(f64::from(*x) * window(i), 0.0))
            .collect();
        fft.process(&mut buffer);
        for (bin, value) in buffer[..LENGTH / 2].iter().enumerate() {
            all += value.norm_sqr();
            above += if bin >= first { value.norm_sqr() } else { 0.0 };
        }
    }
    above / all
}

/// Where speech begins after at least `quiet` frames of 20 ms without, by the clean signal: first frames, as indices.
pub fn onsets(clean: &[f32], threshold: f32, quiet: usize) -> Vec<usize> {
    let mut silent_for = quiet;
    let mut found = Vec::new();
    for (n, frame) in clean.chunks_exact(960).enumerate() {
        if talksy_mixer::audio::level::Dbfs::of(frame).0 > threshold {
            if silent_for >= quiet {
                found.push(n);
            }
            silent_for = 0;
        } else {
            silent_for += 1;
        }
    }
    found
}
