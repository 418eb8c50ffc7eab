//! The row kernels of [`scale`](super::scale), each compiled twice: for the baseline CPU and for AVX2.
//!
//! The one module of this crate with unsafe code, of two kinds. Calling a function with `#[target_feature]`:
//! allowed because the CPU was asked first. Loading 16 bytes through a pointer: allowed because it comes from a
//! slice that was cut to 16 bytes. Every kernel has its plain twin here, and a test that both agree to the bit.
#![allow(unsafe_code)]

/// Outputs that one [`Group`] makes.
pub const GROUP: usize = 8;
/// Source bytes that one [`Group`] may reach.
pub const REACH: usize = 16;
/// Weights add up to this.
pub const ONE: u16 = 64;

/// Neighbouring outputs of a horizontal filter, prepared for `pshufb` and `pmaddubsw`: eight of two source bytes each
/// for [`stretch`], four of four each for [`gather`].
#[derive(Clone, Debug)]
pub struct Group {
    /// The first source byte of the sixteen.
    pub base: usize,
    /// For each output the offsets of its source bytes.
    pub shuffle: [u8; REACH],
    /// For each output their weights, adding up to [`ONE`].
    pub weights: [i8; REACH],
}

macro_rules! dispatch {
    ($plain:ident, $avx2:ident, ($($argument:expr),*)) => {{
        #[cfg(target_arch = "x86_64")]
        if std::is_x86_feature_detected!("avx2") {
            // SAFETY: the function needs nothing but AVX2, which this CPU has.
            return unsafe { $avx2($($argument),*) };
        }
        $plain($($argument),*)
    }};
}

/// Mean of each 2x2 block of two rows. As many outputs as `out` has; `a` and `b` have at least twice as many.
pub fn halve(a: &[u8], b: &[u8], out: &mut [u8]) {
    dispatch!(halve_plain, halve_avx2, (a, b, out))
}

/// Mean of each 4x4 block of four rows. As many outputs as `out` has; each row has at least four times as many.
pub fn quarter(rows: [&[u8]; 4], out: &mut [u8]) {
    dispatch!(quarter_plain, quarter_avx2, (rows, out))
}

/// Four rows in the proportion of `weights`, which add up to [`ONE`]. All have one length.
pub fn mix(rows: [&[u8]; 4], weights: [u16; 4], out: &mut [u8]) {
    dispatch!(mix_plain, mix_avx2, (rows, weights, out))
}

/// Horizontal areas of up to four pixels: four outputs per group. `out` has `GROUP / 2` bytes per group; `row` reaches
/// [`REACH`] bytes beyond each group's base.
pub fn gather(row: &[u8], groups: &[Group], out: &mut [u8]) {
    dispatch!(gather_plain, gather_avx2, (row, groups, out))
}

/// `a` and `b` in the proportion `ONE - weight` to `weight`. All three have one length.
pub fn blend(a: &[u8], b: &[u8], weight: u16, out: &mut [u8]) {
    dispatch!(blend_plain, blend_avx2, (a, b, weight, out))
}

/// Horizontal interpolation: eight outputs per group. `out` has `GROUP` bytes per group; `row` reaches [`REACH`]
/// bytes beyond each group's base.
pub fn stretch(row: &[u8], groups: &[Group], out: &mut [u8]) {
    dispatch!(stretch_plain, stretch_avx2, (row, groups, out))
}

/// A translucent row over a picture's row: `row * keep / 256 + add`. All three have one length.
pub fn overlay(row: &mut [u8], keep: &[u8], add: &[u8]) {
    dispatch!(overlay_plain, overlay_avx2, (row, keep, add))
}

#[inline(always)]
fn halve_plain(a: &[u8], b: &[u8], out: &mut [u8]) {
    let (a, b) = (&a[..out.len() * 2], &b[..out.len() * 2]);
    let pairs = a.chunks_exact(2).zip(b.chunks_exact(2));
    for (out, (a, b)) in out.iter_mut().zip(pairs) {
        let sum = u16::from(a[0]) + u16::from(a[1]) + u16::from(b[0]) + u16::from(b[1]);
        *out = ((sum + 2) >> 2) as u8;
    }
}

#[inline(always)]
fn quarter_plain(rows: [&[u8]; 4], out: &mut [u8]) {
    let [a, b, c, d] = rows.map(|row| &row[..out.len() * 4]);
    let pairs = |a: &[u8], b: &[u8], x: usize| u16::from(a[x]) + u16::from(b[x]);
    let blocks =
        (a.chunks_exact(4).zip(b.chunks_exact(4))).zip(c.chunks_exact(4).zip(d.chunks_exact(4)));
    for (out, ((a, b), (c, d))) in out.iter_mut().zip(blocks) {
        let sum: u16 = (0..4).map(|x| pairs(a, b, x) + pairs(c, d, x)).sum();
        *out = ((sum + 8) >> 4) as u8;
    }
}

#[inline(always)]
fn mix_plain(rows: [&[u8]; 4], weights: [u16; 4], out: &mut [u8]) {
    let [a, b, c, d] = rows.map(|row| &row[..out.len()]);
    for (x, out) in out.iter_mut().enumerate() {
        let sum = u16::from(a[x]) * weights[0]
            + u16::from(b[x]) * weights[1]
            + u16::from(c[x]) * weights[2]
            + u16::from(d[x]) * weights[3];
        *out = ((sum + ONE / 2) / ONE) as u8;
    }
}

#[inline(always)]
fn gather_plain(row: &[u8], groups: &[Group], out: &mut [u8]) {
    for (group, out) in groups.iter().zip(out.chunks_exact_mut(GROUP / 2)) {
        let source = &row[group.base..][..REACH];
        for (i, out) in out.iter_mut().enumerate() {
            let tap = |k: usize| {
                u16::from(source[usize::from(group.shuffle[k])]) * group.weights[k] as u16
            };
            let sum: u16 = (4 * i..4 * i + 4).map(tap).sum();
            *out = ((sum + ONE / 2) / ONE) as u8;
        }
    }
}

#[inline(always)]
fn blend_plain(a: &[u8], b: &[u8], weight: u16, out: &mut [u8]) {
    for (out, (a, b)) in out.iter_mut().zip(a.iter().zip(b)) {
        let sum = u16::from(*a) * (ONE - weight) + u16::from(*b) * weight;
        *out = ((sum + ONE / 2) / ONE) as u8;
    }
}

#[inline(always)]
fn stretch_plain(row: &[u8], groups: &[Group], out: &mut [u8]) {
    for (group, out) in groups.iter().zip(out.chunks_exact_mut(GROUP)) {
        let source = &row[group.base..][..REACH];
        for (i, out) in out.iter_mut().enumerate() {
            let tap = |k: usize| {
                u16::from(source[usize::from(group.shuffle[k])]) * group.weights[k] as u16
            };
            *out = ((tap(2 * i) + tap(2 * i + 1) + ONE / 2) / ONE) as u8;
        }
    }
}

#[inline(always)]
fn overlay_plain(row: &mut [u8], keep: &[u8], add: &[u8]) {
    for (value, (keep, add)) in row.iter_mut().zip(keep.iter().zip(add)) {
        let kept = (u16::from(*value) * u16::from(*keep)) >> 8;
        *value = (kept as u8).saturating_add(*add);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn halve_avx2(a: &[u8], b: &[u8], out: &mut [u8]) {
    use std::arch::x86_64::*;
    let load = |bytes: &[u8; 16]| {
        // SAFETY: the reference says that 16 bytes are readable; the instruction asks for no alignment.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    };
    let (a, b) = (&a[..out.len() * 2], &b[..out.len() * 2]);
    let (ones, half) = (_mm_set1_epi8(1), _mm_set1_epi16(2));
    let sums = |a: &[u8; 16], b: &[u8; 16]| {
        let pairs = |row| _mm_maddubs_epi16(load(row), ones);
        let sums = _mm_add_epi16(_mm_add_epi16(pairs(a), pairs(b)), half);
        _mm_srli_epi16::<2>(sums)
    };
    let (a_blocks, a_rest) = a.as_chunks::<16>();
    let (b_blocks, b_rest) = b.as_chunks::<16>();
    let whole = a_blocks.len() * 8;
    let (out, out_rest) = out.split_at_mut(whole);
    for (out, (a, b)) in out.chunks_exact_mut(8).zip(a_blocks.iter().zip(b_blocks)) {
        let sums = sums(a, b);
        let bytes = _mm_cvtsi128_si64(_mm_packus_epi16(sums, sums));
        out.copy_from_slice(&bytes.to_le_bytes());
    }
    halve_plain(a_rest, b_rest, out_rest);
}

/// Not left to the compiler: it finds no sum of four neighbours.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn quarter_avx2(rows: [&[u8]; 4], out: &mut [u8]) {
    use std::arch::x86_64::*;
    let load = |bytes: &[u8; 16]| {
        // SAFETY: the reference says that 16 bytes are readable; the instruction asks for no alignment.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    };
    let rows = rows.map(|row| &row[..out.len() * 4]);
    let (ones, pairs, half) = (_mm_set1_epi8(1), _mm_set1_epi16(1), _mm_set1_epi32(8));
    let rest = out.len() / 4 * 4;
    let mut fours = out.chunks_exact_mut(4);
    for (i, out) in fours.by_ref().enumerate() {
        let mut sums = _mm_setzero_si128();
        for row in rows {
            let (source, _) = row[16 * i..]
                .split_first_chunk::<16>()
                .expect("four bytes for each output");
            sums = _mm_add_epi16(sums, _mm_maddubs_epi16(load(source), ones));
        }
        let sums = _mm_srli_epi32::<4>(_mm_add_epi32(_mm_madd_epi16(sums, pairs), half));
        let words = _mm_packs_epi32(sums, sums);
        let bytes = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
        out.copy_from_slice(&bytes.to_le_bytes());
    }
    quarter_plain(rows.map(|row| &row[4 * rest..]), fours.into_remainder());
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn mix_avx2(rows: [&[u8]; 4], weights: [u16; 4], out: &mut [u8]) {
    mix_plain(rows, weights, out);
}

/// Not left to the compiler either: a byte shuffle, then the sums of four.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn gather_avx2(row: &[u8], groups: &[Group], out: &mut [u8]) {
    use std::arch::x86_64::*;
    let load = |bytes: &[u8; 16]| {
        // SAFETY: the reference says that 16 bytes are readable; the instruction asks for no alignment.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    };
    let half = _mm_set1_epi32(i32::from(ONE / 2));
    let ones = _mm_set1_epi16(1);
    for (group, out) in groups.iter().zip(out.chunks_exact_mut(GROUP / 2)) {
        let (source, _) = row[group.base..]
            .split_first_chunk::<REACH>()
            .expect("the row reaches beyond each group's base");
        let taps = _mm_shuffle_epi8(load(source), load(&group.shuffle));
        let weights = load(&group.weights.map(|weight| weight as u8));
        let sums = _mm_madd_epi16(_mm_maddubs_epi16(taps, weights), ones);
        let sums = _mm_srli_epi32::<{ ONE.trailing_zeros() as i32 }>(_mm_add_epi32(sums, half));
        let words = _mm_packs_epi32(sums, sums);
        let bytes = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
        out.copy_from_slice(&bytes.to_le_bytes());
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn blend_avx2(a: &[u8], b: &[u8], weight: u16, out: &mut [u8]) {
    blend_plain(a, b, weight, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn overlay_avx2(row: &mut [u8], keep: &[u8], add: &[u8]) {
    overlay_plain(row, keep, add);
}

/// Not left to the compiler: it does not find the byte shuffle.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn stretch_avx2(row: &[u8], groups: &[Group], out: &mut [u8]) {
    use std::arch::x86_64::*;
    let load = |bytes: &[u8; 16]| {
        // SAFETY: the reference says that 16 bytes are readable; the instruction asks for no alignment.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    };
    let half = _mm_set1_epi16((ONE / 2) as i16);
    for (group, out) in groups.iter().zip(out.chunks_exact_mut(GROUP)) {
        let (source, _) = row[group.base..]
            .split_first_chunk::<REACH>()
            .expect("the row reaches beyond each group's base");
        let pairs = _mm_shuffle_epi8(load(source), load(&group.shuffle));
        let weights = load(&group.weights.map(|weight| weight as u8));
        let sums = _mm_add_epi16(_mm_maddubs_epi16(pairs, weights), half);
        let sums = _mm_srli_epi16::<{ ONE.trailing_zeros() as i32 }>(sums);
        let bytes = _mm_cvtsi128_si64(_mm_packus_epi16(sums, sums));
        out.copy_from_slice(&bytes.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn group() -> impl Strategy<Value = Group> {
        let taps = prop::array::uniform8((0u8..15, 0i8..=64));
        (0usize..40, taps).prop_map(|(base, taps)| {
            let mut group = Group {
                base,
                shuffle: [0; REACH],
                weights: [0; REACH],
            };
            for (i, (offset, weight)) in taps.into_iter().enumerate() {
                group.shuffle[2 * i] = offset;
                group.shuffle[2 * i + 1] = offset + 1;
                group.weights[2 * i] = 64 - weight;
                group.weights[2 * i + 1] = weight;
            }
            group
        })
    }

    fn four_taps() -> impl Strategy<Value = Group> {
        let taps = prop::array::uniform4((0u8..13, prop::array::uniform3(0i8..=64)));
        (0usize..40, taps).prop_map(|(base, taps)| {
            let mut group = Group {
                base,
                shuffle: [0; REACH],
                weights: [0; REACH],
            };
            for (i, (offset, mut cuts)) in taps.into_iter().enumerate() {
                cuts.sort_unstable();
                let weights = [cuts[0], cuts[1] - cuts[0], cuts[2] - cuts[1], 64 - cuts[2]];
                for (k, weight) in weights.into_iter().enumerate() {
                    group.shuffle[4 * i + k] = offset + k as u8;
                    group.weights[4 * i + k] = weight;
                }
            }
            group
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn halving_agrees_with_its_plain_twin(
            a in prop::collection::vec(any::<u8>(), 202), b in prop::collection::vec(any::<u8>(), 202),
            len in 0usize..=101,
        ) {
            let (mut fast, mut plain) = (vec![0; len], vec![0; len]);
            halve(&a, &b, &mut fast);
            halve_plain(&a, &b, &mut plain);
            prop_assert_eq!(fast, plain);
        }

        #[test]
        fn quartering_agrees_with_its_plain_twin(
            rows in prop::array::uniform4(prop::collection::vec(any::<u8>(), 300)), len in 0usize..=75,
        ) {
            let rows = [&rows[0][..], &rows[1], &rows[2], &rows[3]];
            let (mut fast, mut plain) = (vec![0; len], vec![0; len]);
            quarter(rows, &mut fast);
            quarter_plain(rows, &mut plain);
            prop_assert_eq!(fast, plain);
        }

        #[test]
        fn mixing_agrees_with_its_plain_twin(
            rows in prop::array::uniform4(prop::collection::vec(any::<u8>(), 83)),
            cuts in prop::array::uniform3(0u16..=ONE),
        ) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let weights = [cuts[0], cuts[1] - cuts[0], cuts[2] - cuts[1], ONE - cuts[2]];
            let rows = [&rows[0][..], &rows[1], &rows[2], &rows[3]];
            let (mut fast, mut plain) = (vec![0; 83], vec![0; 83]);
            mix(rows, weights, &mut fast);
            mix_plain(rows, weights, &mut plain);
            prop_assert_eq!(fast, plain);
        }

        #[test]
        fn gathering_agrees_with_its_plain_twin(
            row in prop::collection::vec(any::<u8>(), 56), groups in prop::collection::vec(four_taps(), 0..5),
        ) {
            let mut fast = vec![0; groups.len() * GROUP / 2];
            let mut plain = fast.clone();
            gather(&row, &groups, &mut fast);
            gather_plain(&row, &groups, &mut plain);
            prop_assert_eq!(fast, plain);
        }

        #[test]
        fn blending_agrees_with_its_plain_twin(
            a in prop::collection::vec(any::<u8>(), 77), b in prop::collection::vec(any::<u8>(), 77),
            weight in 0u16..=ONE,
        ) {
            let (mut fast, mut plain) = (vec![0; 77], vec![0; 77]);
            blend(&a, &b, weight, &mut fast);
            blend_plain(&a, &b, weight, &mut plain);
            prop_assert_eq!(&fast, &plain);
            if weight == 0 { prop_assert_eq!(fast, a) } else if weight == ONE { prop_assert_eq!(fast, b) }
        }

        #[test]
        fn stretching_agrees_with_its_plain_twin(
            row in prop::collection::vec(any::<u8>(), 56), groups in prop::collection::vec(group(), 0..5),
        ) {
            let mut fast = vec![0; groups.len() * GROUP];
            let mut plain = fast.clone();
            stretch(&row, &groups, &mut fast);
            stretch_plain(&row, &groups, &mut plain);
            prop_assert_eq!(fast, plain);
        }

        #[test]
        fn overlaying_agrees_with_its_plain_twin(
            row in prop::collection::vec(any::<u8>(), 61), keep in prop::collection::vec(any::<u8>(), 61),
            add in prop::collection::vec(any::<u8>(), 61),
        ) {
            let (mut fast, mut plain) = (row.clone(), row);
            overlay(&mut fast, &keep, &add);
            overlay_plain(&mut plain, &keep, &add);
            prop_assert_eq!(fast, plain);
        }
    }
}
