//! 16 registers of 16 words, turned.

use std::arch::x86_64::*;

/// Rows of words to columns.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn transpose_words(r: [__m512i; 16]) -> [__m512i; 16] {
    let mut t = r;
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    // Lane q of `quads[4 i + j]` holds column 4 q + j of rows 4 i to 4 i + 3.
    let mut quads = t;
    for i in 0..4 {
        quads[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        quads[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        quads[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        quads[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    const EVEN: i32 = 0b10_00_10_00;
    const ODD: i32 = 0b11_01_11_01;
    let mut columns = t;
    for j in 0..4 {
        let upper_even = _mm512_shuffle_i32x4::<EVEN>(quads[j], quads[4 + j]);
        let upper_odd = _mm512_shuffle_i32x4::<ODD>(quads[j], quads[4 + j]);
        let lower_even = _mm512_shuffle_i32x4::<EVEN>(quads[8 + j], quads[12 + j]);
        let lower_odd = _mm512_shuffle_i32x4::<ODD>(quads[8 + j], quads[12 + j]);
        columns[j] = _mm512_shuffle_i32x4::<EVEN>(upper_even, lower_even);
        columns[4 + j] = _mm512_shuffle_i32x4::<EVEN>(upper_odd, lower_odd);
        columns[8 + j] = _mm512_shuffle_i32x4::<ODD>(upper_even, lower_even);
        columns[12 + j] = _mm512_shuffle_i32x4::<ODD>(upper_odd, lower_odd);
    }
    columns
}
