//! bfloat16 with AVX512-BF16 (Intel SDM, `VCVTNE2PS2BF16` and `VDPBF16PS`).

use super::portable::BLOCKING;
pub(crate) use super::portable::{STEPS, residual};
use super::{Lhs, Line, ROWS, Rhs, round_lhs, round_rhs};
use crate::prefetch::{prefetch, prefetch_rows};
use crate::product::{COLUMNS, Finish, Tile, for_each_tile, row};
use crate::transpose::transpose_words;
use crate::view::{Mat, MatMut};
use std::arch::x86_64::*;

/// The word order of two rounded registers, the first register's number in the low half.
const INTERLEAVED: [i16; 32] = {
    let mut order = [0; 32];
    let mut i = 0;
    while i < 32 {
        order[i] = (i / 2 + i % 2 * 16) as i16;
        i += 1;
    }
    order
};

/// Bits `0..len` of a mask, all 16 from there on.
#[inline(always)]
fn mask(len: usize) -> __mmask16 {
    if len >= 16 { !0 } else { (1 << len) - 1 }
}

/// Up to 16 values from `at` on, zeros after the end of `x`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn load(x: &[f32], at: usize) -> __m512 {
    if let Some(x) = x.get(at..at + 16) {
        // SAFETY: these are 16 values.
        return unsafe { _mm512_loadu_ps(x.as_ptr()) };
    }
    let len = x.len().saturating_sub(at);
    // SAFETY: only the values that the mask names are read, and those lie in `x`.
    unsafe { _mm512_maskz_loadu_ps(mask(len), x.as_ptr().wrapping_add(at)) }
}

/// As the function below, by the portable loop: Bochs 3.0 computes another number for the instruction.
#[cfg(melo_emulated)]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn round(low: __m512, high: __m512) -> __m512i {
    let (mut x, mut words) = ([0.0; 32], [0; 16]);
    // SAFETY: two registers are 32 numbers, and one is 16 words.
    unsafe {
        _mm512_storeu_ps(x.as_mut_ptr(), low);
        _mm512_storeu_ps(x.as_mut_ptr().add(16), high);
        super::portable::pairs(&x, &mut words);
        _mm512_loadu_si512(words.as_ptr().cast())
    }
}

/// Two registers rounded, `low` in the lower half.
#[cfg(not(melo_emulated))]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn round(low: __m512, high: __m512) -> __m512i {
    // SAFETY: both types are 512 bits without a meaning of their own.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
}

/// Up to 16 words to `at` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn store(words: &mut [u32], at: usize, value: __m512i) {
    if let Some(words) = words.get_mut(at..at + 16) {
        // SAFETY: these are 16 words.
        return unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), value) };
    }
    let len = words.len().saturating_sub(at);
    // SAFETY: only the words that the mask names are written, and those lie in `words`.
    unsafe { _mm512_mask_storeu_epi32(words.as_mut_ptr().wrapping_add(at).cast(), mask(len), value) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn pairs(x: &[f32], words: &mut [u32]) {
    for at in (0..words.len()).step_by(16) {
        store(words, at, round(load(x, 2 * at), load(x, 2 * at + 16)));
    }
}

/// Two registers rounded, `low` in the lower half of each word.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn interleaved(low: __m512, high: __m512) -> __m512i {
    // SAFETY: 32 numbers of 16 bits are 512 bits.
    let order = unsafe { std::mem::transmute::<[i16; 32], __m512i>(INTERLEAVED) };
    _mm512_permutexvar_epi16(order, round(low, high))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn interleave(low: &[f32], high: &[f32], words: &mut [u32]) {
    for at in (0..words.len()).step_by(16) {
        store(words, at, interleaved(load(low, at), load(high, at)));
    }
}

/// A panel from its columns, the rows of `columns`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn transpose(columns: Mat<'_>, lines: &mut [Line]) {
    for (block, lines) in lines.chunks_mut(16).enumerate() {
        let mut words = [_mm512_setzero_si512(); COLUMNS];
        for (j, words) in words.iter_mut().enumerate() {
            let column = row(columns, j);
            *words = round(load(column, 32 * block), load(column, 32 * block + 16));
        }
        for (line, words) in lines.iter_mut().zip(transpose_words(words)) {
            store(&mut line.0, 0, words);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(crate) fn lhs(x: Mat<'_>, words: &mut [u32]) {
    round_lhs(x, words, |x, words| pairs(x, words), |low, high, words| interleave(low, high, words));
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(crate) fn lhs_row(x: &[f32], i: usize, words: &mut [u32]) {
    let count = x.len().div_ceil(2);
    pairs(x, &mut words[i * count..][..count]);
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(crate) fn rhs(x: Mat<'_>, lines: &mut [Line]) {
    round_rhs(x, lines, |low, high, words| interleave(low, high, words), |columns, lines| transpose(columns, lines));
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(crate) fn product(lhs: Lhs<'_>, rhs: Rhs<'_>, finish: Finish<'_>, mut c: MatMut<'_>) {
    for_each_tile((c.rows, c.cols, rhs.pairs), BLOCKING, finish, |tile, finish| {
        if tile.columns > COLUMNS {
            by_rows::<2>(lhs, rhs, tile, finish, &mut c);
        } else {
            by_rows::<1>(lhs, rhs, tile, finish, &mut c);
        }
    });
}

/// A tile of `V` panels, with as many rows as it has known to the compiler.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn by_rows<const V: usize>(lhs: Lhs<'_>, rhs: Rhs<'_>, tile: Tile, finish: Finish<'_>, c: &mut MatMut<'_>) {
    match tile.rows {
        ROWS => multiply::<ROWS, V>(lhs, rhs, tile, finish, c),
        11 => multiply::<11, V>(lhs, rhs, tile, finish, c),
        10 => multiply::<10, V>(lhs, rhs, tile, finish, c),
        9 => multiply::<9, V>(lhs, rhs, tile, finish, c),
        8 => multiply::<8, V>(lhs, rhs, tile, finish, c),
        7 => multiply::<7, V>(lhs, rhs, tile, finish, c),
        6 => multiply::<6, V>(lhs, rhs, tile, finish, c),
        5 => multiply::<5, V>(lhs, rhs, tile, finish, c),
        4 => multiply::<4, V>(lhs, rhs, tile, finish, c),
        3 => multiply::<3, V>(lhs, rhs, tile, finish, c),
        2 => multiply::<2, V>(lhs, rhs, tile, finish, c),
        1 => multiply::<1, V>(lhs, rhs, tile, finish, c),
        rows => unreachable!("a tile of {rows} rows"),
    }
}

/// `M` rows and `V` panels: sums in registers, then the finish.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn multiply<const M: usize, const V: usize>(
    lhs: Lhs<'_>,
    rhs: Rhs<'_>,
    tile: Tile,
    finish: Finish<'_>,
    c: &mut MatMut<'_>,
) {
    let first_line = tile.column / COLUMNS * rhs.pairs + tile.step;
    prefetch_rows(c, (tile.row, M), tile.column);
    let mut sums = [[_mm512_setzero_ps(); V]; M];
    if tile.steps > 0 {
        let last_word = (tile.row + M - 1) * lhs.row_stride + (tile.step + tile.steps - 1) * lhs.pair_stride;
        assert!(last_word < lhs.words.len() && first_line + (V - 1) * rhs.pairs + tile.steps <= rhs.lines.len());
        let mut a = lhs.words[tile.row * lhs.row_stride + tile.step * lhs.pair_stride..].as_ptr();
        let mut b = rhs.lines[first_line..].as_ptr();
        for _ in 0..tile.steps {
            let mut columns = [_mm512_setzero_si512(); V];
            // The next panels come meanwhile.
            for panel in V..2 * V {
                prefetch(b.wrapping_add(panel * rhs.pairs));
            }
            for (v, columns) in columns.iter_mut().enumerate() {
                // SAFETY: within the lines that the assertion above measured; a line is 64 bytes, aligned.
                *columns = unsafe { _mm512_load_si512(b.wrapping_add(v * rhs.pairs).cast()) };
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                // SAFETY: within the words that the assertion above measured.
                let word = unsafe { a.wrapping_add(i * lhs.row_stride).read() };
                for (sum, &columns) in sums.iter_mut().zip(&columns) {
                    *sum = add_products(*sum, _mm512_set1_epi32(word.cast_signed()), columns);
                }
            }
            a = a.wrapping_add(lhs.pair_stride);
            b = b.wrapping_add(1);
        }
    }
    // Through memory: were a register chosen by a loop's index, all of them would live there.
    let mut stored = [[[0.0f32; COLUMNS]; V]; M];
    for (stored, sums) in stored.iter_mut().zip(sums) {
        for (stored, sum) in stored.iter_mut().zip(sums) {
            // SAFETY: these are 16 values.
            unsafe { _mm512_storeu_ps(stored.as_mut_ptr(), sum) };
        }
    }
    if tile.columns == V * COLUMNS {
        return finish_whole(&stored, tile, finish, c);
    }
    for (i, sums) in stored.iter().enumerate() {
        let row = &mut c.data[(tile.row + i) * c.row_stride..][tile.column..tile.column + tile.columns];
        for (v, sum) in sums.iter().enumerate() {
            let columns = v * COLUMNS..tile.columns.min((v + 1) * COLUMNS);
            finish_columns(&mut row[columns], sum, finish, tile.column + v * COLUMNS);
        }
    }
}

/// A tile of whole panels.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn finish_whole<const M: usize, const V: usize>(
    sums: &[[[f32; COLUMNS]; V]; M],
    tile: Tile,
    Finish { keep, scale, bias }: Finish<'_>,
    c: &mut MatMut<'_>,
) {
    let bias = bias.get(tile.column..tile.column + V * COLUMNS);
    let last = (tile.row + M - 1) * c.row_stride + tile.column;
    assert!(last + V * COLUMNS <= c.data.len());
    let mut to = c.data[tile.row * c.row_stride + tile.column..].as_mut_ptr();
    // SAFETY: `V` registers of the bias and, from `to` on, of each of `M` rows of `c`, as asserted above.
    unsafe {
        let mut shift = [_mm512_setzero_ps(); V];
        for (v, shift) in shift.iter_mut().enumerate() {
            *shift = bias.map_or(*shift, |bias| _mm512_loadu_ps(bias.as_ptr().add(v * COLUMNS)));
        }
        let (scale, factor) = (_mm512_set1_ps(scale), _mm512_set1_ps(keep));
        for sums in sums {
            for (v, sum) in sums.iter().enumerate() {
                let to = to.add(v * COLUMNS);
                let value = _mm512_add_ps(_mm512_mul_ps(_mm512_loadu_ps(sum.as_ptr()), scale), shift[v]);
                let kept = keep != 0.0;
                _mm512_storeu_ps(to, if kept { _mm512_fmadd_ps(factor, _mm512_loadu_ps(to), value) } else { value });
            }
            to = to.wrapping_add(c.row_stride);
        }
    }
}

/// `sum + a₀ b₀ + a₁ b₁` in every word.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn add_products(sum: __m512, a: __m512i, b: __m512i) -> __m512 {
    // SAFETY: both types are 512 bits without a meaning of their own.
    let [a, b] = unsafe { std::mem::transmute::<[__m512i; 2], [__m512bh; 2]>([a, b]) };
    _mm512_dpbf16_ps(sum, a, b)
}

/// Up to 16 columns of a row of `c`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn finish_columns(
    c: &mut [f32],
    sum: &[f32; COLUMNS],
    Finish { keep, scale, bias }: Finish<'_>,
    column: usize,
) {
    let mut value = _mm512_mul_ps(load(sum, 0), _mm512_set1_ps(scale));
    if !bias.is_empty() {
        value = _mm512_add_ps(value, load(bias, column));
    }
    if keep != 0.0 {
        value = _mm512_fmadd_ps(_mm512_set1_ps(keep), load(c, 0), value);
    }
    if c.len() == COLUMNS {
        // SAFETY: these are 16 values.
        return unsafe { _mm512_storeu_ps(c.as_mut_ptr(), value) };
    }
    // SAFETY: only the values that the mask names are written, and those lie in `c`.
    unsafe { _mm512_mask_storeu_ps(c.as_mut_ptr(), mask(c.len()), value) };
}
