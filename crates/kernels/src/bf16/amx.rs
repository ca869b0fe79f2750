//! bfloat16 on tiles: AVX512-BF16 rounds, `TDPBF16PS` multiplies.
//!
//! The left operand is cut into tiles of 16 rows and 16 pairs, one after another along a strip of rows, so that a tile of
//! either operand is 1 KiB in one piece. Four tiles hold the sums of 32 rows and 32 columns.

use super::x86::{finish_columns, interleaved, load, round, store};
pub(crate) use super::x86::{residual, rhs};
use super::{Lhs, Line, Rhs, Steps};
use crate::product::{Blocking, COLUMNS, Finish, Tile, for_each_tile, row};
use crate::tile::{self, ROWS, Rows, Sums};
use crate::transpose::transpose_words;
use crate::view::{Mat, MatMut};
use std::arch::x86_64::*;

/// Pairs of a tile.
const PAIRS: usize = 16;
/// Words of a tile.
const WORDS: usize = ROWS * PAIRS;

pub(crate) const STEPS: Steps = Steps { rows: ROWS, pairs: PAIRS };
/// Two panels of a block are 48 KiB, the first-level cache; the rows of a block are 384 KiB.
const BLOCKING: Blocking = Blocking { tile_rows: 2 * ROWS, rows: 16 * ROWS, steps: 24 * PAIRS };

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(crate) fn lhs(x: Mat<'_>, words: &mut [u32]) {
    if words.is_empty() {
        return;
    }
    let strip_words = words.len() / x.rows.div_ceil(ROWS);
    for (strip, words) in words.chunks_exact_mut(strip_words).enumerate() {
        for (block, tile) in words.chunks_exact_mut(WORDS).enumerate() {
            if x.col_stride == 1 {
                for (i, words) in tile.chunks_exact_mut(PAIRS).enumerate() {
                    let x = row(x, strip * ROWS + i);
                    store(words, 0, round(load(x, 2 * PAIRS * block), load(x, 2 * PAIRS * block + PAIRS)));
                }
            } else {
                store_tile(columns(x.t(), 2 * PAIRS * block, strip * ROWS), tile);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(crate) fn lhs_row(x: &[f32], i: usize, words: &mut [u32]) {
    let blocks = x.len().div_ceil(2 * PAIRS);
    let tiles = words[i / ROWS * blocks * WORDS..].chunks_exact_mut(WORDS).take(blocks);
    for (block, tile) in tiles.enumerate() {
        let row = &mut tile[i % ROWS * PAIRS..][..PAIRS];
        store(row, 0, round(load(x, 2 * PAIRS * block), load(x, 2 * PAIRS * block + PAIRS)));
    }
}

/// Rows of a tile, from the columns of 16 pairs: `x` has a row for each, of which 16 values from `at` on are taken.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn columns(x: Mat<'_>, first: usize, at: usize) -> [__m512i; ROWS] {
    let mut pairs = [_mm512_setzero_si512(); PAIRS];
    for (l, pair) in pairs.iter_mut().enumerate() {
        *pair = interleaved(load(row(x, first + 2 * l), at), load(row(x, first + 2 * l + 1), at));
    }
    transpose_words(pairs)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn store_tile(rows: [__m512i; ROWS], tile: &mut [u32]) {
    for (words, row) in tile.chunks_exact_mut(PAIRS).zip(rows) {
        store(words, 0, row);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(crate) fn product(lhs: Lhs<'_>, rhs: Rhs<'_>, finish: Finish<'_>, c: MatMut<'_>) {
    let mut sums = Sums::default();
    // SAFETY: whoever multiplies tiles has promised that the machine has them.
    unsafe { tile::configure() };
    for_each_tile((c.rows, c.cols, rhs.pairs), BLOCKING, finish, |tile, finish| {
        multiply(lhs, rhs, tile, &mut sums);
        for i in 0..tile.rows {
            let row = &mut c.data[(tile.row + i) * c.row_stride..][tile.column..tile.column + tile.columns];
            for (v, row) in row.chunks_mut(COLUMNS).enumerate() {
                finish_columns(row, sums.row(i, v), finish, tile.column + v * COLUMNS);
            }
        }
    });
    // SAFETY: as above.
    unsafe { tile::release() };
}

/// Sums over a tile's pairs, from the tiles of both operands.
fn multiply(lhs: Lhs<'_>, rhs: Rhs<'_>, tile: Tile, sums: &mut Sums<f32>) {
    let strip_words = rhs.pairs * ROWS;
    let words = tile.row / ROWS * strip_words + tile.step * ROWS;
    let first_line = tile.column / COLUMNS * rhs.pairs + tile.step;
    let (strips, panels) = (tile.rows.div_ceil(ROWS), tile.columns.div_ceil(COLUMNS));
    let strip = |strip: usize| lhs.words[words + strip * strip_words..][..tile.steps * ROWS].as_ptr();
    let panel = |panel: usize| rhs.lines[first_line + panel * rhs.pairs..][..tile.steps].as_ptr().cast::<u32>();
    let (blocks, rows) = (tile.steps / PAIRS, Rows { stride: 4 * PAIRS, step: tile::BYTES });
    // SAFETY: each pointer is to `blocks` tiles of 1 KiB, as measured by the slices; tiles are configured by `product`.
    unsafe {
        match (strips, panels) {
            (2, 2) => tile::sums_2x2([strip(0), strip(1)], [panel(0), panel(1)], rows, blocks, sums),
            (2, _) => tile::sums_2x1([strip(0), strip(1)], panel(0), rows, blocks, sums),
            (_, 2) => tile::sums_1x2(strip(0), [panel(0), panel(1)], rows, blocks, sums),
            _ => tile::sums_1x1(strip(0), panel(0), rows, blocks, sums),
        }
    }
}

const _: () = assert!(size_of::<Line>() * PAIRS == tile::BYTES && size_of::<u32>() * WORDS == tile::BYTES);
