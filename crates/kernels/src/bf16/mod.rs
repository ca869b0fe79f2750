//! Matrix products in bfloat16 with sums in f32: `c = keep · c + scale · a b + bias`.
//!
//! Two numbers that are neighbours along the summed dimension share a 32-bit word, the first in the low half. The left
//! operand keeps the order of its source. The right one is cut into panels of 16 columns: a panel holds one [`Line`] of
//! 16 words for every pair, which is a register of AVX-512 and a row of an AMX tile. An odd last pair is filled with zero.
//!
//! A sum runs over its pairs in order, in blocks whose bounds depend on their number alone: an element of `c` depends
//! on its row of `a` and column of `b`, not on the rest of the product.

pub(crate) mod portable;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;

use crate::view::{Mat, MatMut, assert_product};
use std::cell::RefCell;

/// Columns of a panel.
pub(crate) const COLUMNS: usize = 16;
/// Rows of a tile: with two panels, 24 of the 32 registers hold sums.
pub(crate) const ROWS: usize = 12;
/// Pairs summed before the left operand's next columns are visited: a block of it stays in the second-level cache.
const BLOCK_PAIRS: usize = 512;
/// Rows of such a block.
const BLOCK_ROWS: usize = 20 * ROWS;

/// One pair of each of a panel's columns.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u32; COLUMNS]);

/// Left operand: the word of row `i` and pair `l` is `words[i · row_stride + l · pair_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Lhs<'a> {
    pub(crate) words: &'a [u32],
    pub(crate) row_stride: usize,
    pub(crate) pair_stride: usize,
}

/// Right operand: pair `l` of panel `p` is `lines[p · pairs + l]`.
#[derive(Clone, Copy)]
pub(crate) struct Rhs<'a> {
    pub(crate) lines: &'a [Line],
    pub(crate) pairs: usize,
}

/// What becomes of the sums: `c = keep · c + scale · sum + bias`; `c` is not read when `keep` is 0; no bias is empty.
#[derive(Clone, Copy)]
pub(crate) struct Finish<'a> {
    pub(crate) keep: f32,
    pub(crate) scale: f32,
    pub(crate) bias: &'a [f32],
}

/// A part of the product: at most [`ROWS`] rows and two panels' columns, over some of the pairs.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    pub(crate) row: usize,
    pub(crate) rows: usize,
    pub(crate) column: usize,
    pub(crate) columns: usize,
    pub(crate) pair: usize,
    pub(crate) pairs: usize,
}

/// The three steps of a product, on one instruction set. Calling one on a machine without it is undefined.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Engine {
    /// Rounds a left operand `[m, k]`.
    pub(crate) lhs: unsafe fn(Mat<'_>, &mut [u32]),
    /// Rounds a right operand `[k, n]` into panels.
    pub(crate) rhs: unsafe fn(Mat<'_>, &mut [Line]),
    /// Multiplies them.
    pub(crate) product: unsafe fn(Lhs<'_>, Rhs<'_>, Finish<'_>, MatMut<'_>),
}

/// Rounded operands of one product, used again by the next.
#[derive(Default)]
struct Scratch {
    words: Vec<u32>,
    lines: Vec<Line>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The first `len` values of a buffer, which grows where it must.
fn first<T: Clone + Default>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    if buffer.len() < len {
        buffer.resize(len, T::default());
    }
    &mut buffer[..len]
}

/// Lines of a right operand `[k, n]`.
pub(crate) fn lines(k: usize, n: usize) -> usize {
    k.div_ceil(2) * n.div_ceil(COLUMNS)
}

impl Engine {
    /// `c = keep · c + scale · a b`, both operands rounded here.
    ///
    /// # Safety
    /// This machine has the engine's instructions.
    pub(crate) unsafe fn matmul(&self, c: MatMut<'_>, keep: f32, scale: f32, a: Mat<'_>, b: Mat<'_>) {
        assert_product(&c, (a.rows, a.cols), (b.rows, b.cols));
        SCRATCH.with_borrow_mut(|Scratch { words, lines: panels }| {
            let panels = first(panels, lines(b.rows, b.cols));
            // SAFETY: the caller's promise.
            unsafe { (self.rhs)(b, panels) };
            let rhs = Rhs { lines: panels, pairs: b.rows.div_ceil(2) };
            // SAFETY: the caller's promise.
            unsafe { self.multiply(words, a, rhs, Finish { keep, scale, bias: &[] }, c) };
        });
    }

    /// `c = keep · c + scale · a b + bias` with a right operand in panels.
    ///
    /// # Safety
    /// This machine has the engine's instructions.
    pub(crate) unsafe fn matmul_packed(&self, c: MatMut<'_>, finish: Finish<'_>, a: Mat<'_>, rhs: Rhs<'_>) {
        // SAFETY: the caller's promise.
        SCRATCH.with_borrow_mut(|Scratch { words, .. }| unsafe { self.multiply(words, a, rhs, finish, c) });
    }

    /// Rounds `a` and multiplies.
    ///
    /// # Safety
    /// This machine has the engine's instructions.
    unsafe fn multiply(&self, words: &mut Vec<u32>, a: Mat<'_>, rhs: Rhs<'_>, finish: Finish<'_>, c: MatMut<'_>) {
        let words = first(words, a.rows * rhs.pairs);
        // SAFETY: the caller's promise.
        unsafe { (self.lhs)(a, words) };
        let (row_stride, pair_stride) = if a.col_stride == 1 { (rhs.pairs, 1) } else { (1, a.rows) };
        // SAFETY: the caller's promise.
        unsafe { (self.product)(Lhs { words, row_stride, pair_stride }, rhs, finish, c) };
    }
}

/// Row `i` of a view whose columns are adjacent; no values past its end.
#[inline(always)]
fn row(x: Mat<'_>, i: usize) -> &[f32] {
    if i < x.rows { &x.data[i * x.row_stride..][..x.cols] } else { &[] }
}

/// The loops around rounding a left operand, by rows or, where those are adjacent, by columns.
///
/// `pairs` rounds a row; `interleave` rounds two columns (the second may be absent) into one word a row.
#[inline(always)]
fn round_lhs(
    x: Mat<'_>,
    words: &mut [u32],
    pairs: impl Fn(&[f32], &mut [u32]),
    interleave: impl Fn(&[f32], &[f32], &mut [u32]),
) {
    if x.rows == 0 || x.cols == 0 {
        return;
    }
    if x.col_stride == 1 {
        for (i, words) in words.chunks_exact_mut(x.cols.div_ceil(2)).enumerate() {
            pairs(row(x, i), words);
        }
        return;
    }
    assert_eq!(x.row_stride, 1, "rows or columns are adjacent");
    for (l, words) in words.chunks_exact_mut(x.rows).enumerate() {
        interleave(row(x.t(), 2 * l), row(x.t(), 2 * l + 1), words);
    }
}

/// The loops around rounding a right operand, by rows or, where those are adjacent, by columns.
///
/// `interleave` rounds two rows (the second may be absent) of at most 16 columns into a line; `transpose` rounds a
/// panel's columns, which are the rows of the view it gets.
#[inline(always)]
fn round_rhs(
    x: Mat<'_>,
    lines: &mut [Line],
    interleave: impl Fn(&[f32], &[f32], &mut [u32]),
    transpose: impl Fn(Mat<'_>, &mut [Line]),
) {
    let pairs = x.rows.div_ceil(2);
    if pairs == 0 || x.cols == 0 {
        return;
    }
    let columns_of = |panel: usize| panel * COLUMNS..x.cols.min((panel + 1) * COLUMNS);
    if x.col_stride == 1 {
        for (panel, lines) in lines.chunks_exact_mut(pairs).enumerate() {
            for (l, line) in lines.iter_mut().enumerate() {
                let high = row(x, 2 * l + 1).get(columns_of(panel)).unwrap_or_default();
                interleave(&row(x, 2 * l)[columns_of(panel)], high, &mut line.0);
            }
        }
        return;
    }
    assert_eq!(x.row_stride, 1, "rows or columns are adjacent");
    let x = x.t();
    for (panel, lines) in lines.chunks_exact_mut(pairs).enumerate() {
        let columns = columns_of(panel);
        transpose(Mat { data: &x.data[columns.start * x.row_stride..], rows: columns.len(), ..x }, lines);
    }
}

/// The loops around a tile: pairs in blocks, rows in blocks, and in these every two panels pass along all strips of rows.
#[inline(always)]
fn for_each_tile(
    rows: usize,
    columns: usize,
    pairs: usize,
    finish: Finish<'_>,
    mut tile: impl FnMut(Tile, Finish<'_>),
) {
    for pair in (0..pairs.max(1)).step_by(BLOCK_PAIRS) {
        let finish = if pair == 0 { finish } else { Finish { keep: 1.0, bias: &[], ..finish } };
        let pairs = BLOCK_PAIRS.min(pairs - pair);
        for block in (0..rows).step_by(BLOCK_ROWS) {
            let end = rows.min(block + BLOCK_ROWS);
            for column in (0..columns).step_by(2 * COLUMNS) {
                let columns = (2 * COLUMNS).min(columns - column);
                for row in (block..end).step_by(ROWS) {
                    tile(Tile { row, rows: ROWS.min(end - row), column, columns, pair, pairs }, finish);
                }
            }
        }
    }
}

/// A right operand `[k, n]` that was kept: panels of `n`.
#[derive(Clone, Debug)]
pub(crate) struct Panels {
    lines: Vec<Line>,
    rows: usize,
    cols: usize,
}

impl Panels {
    /// Rounds a right operand.
    ///
    /// # Safety
    /// This machine has the engine's instructions.
    pub(crate) unsafe fn new(engine: &Engine, b: Mat<'_>) -> Self {
        let mut panels = vec![Line::default(); lines(b.rows, b.cols)];
        // SAFETY: the caller's promise.
        unsafe { (engine.rhs)(b, &mut panels) };
        Panels { lines: panels, rows: b.rows, cols: b.cols }
    }

    fn pairs(&self) -> usize {
        self.rows.div_ceil(2)
    }

    pub(crate) fn rhs(&self) -> Rhs<'_> {
        Rhs { lines: &self.lines, pairs: self.pairs() }
    }

    /// The panels of the transpose.
    ///
    /// Two neighbouring columns of a line make one word for each of its two rows.
    pub(crate) fn transposed(&self) -> Panels {
        let mut lines = vec![Line::default(); lines(self.cols, self.rows)];
        let pairs = self.cols.div_ceil(2);
        for (panel, source) in self.lines.chunks_exact(self.pairs().max(1)).enumerate() {
            let first_pair = panel * COLUMNS / 2;
            let taken = (COLUMNS / 2).min(pairs - first_pair);
            for (l, line) in source.iter().enumerate() {
                let (target, column) = (2 * l / COLUMNS * pairs + first_pair, 2 * l % COLUMNS);
                let two_columns = line.0.as_chunks::<2>().0;
                for (target, &[low, high]) in lines[target..target + taken].iter_mut().zip(two_columns) {
                    target.0[column] = (low & 0xffff) | (high << 16);
                    target.0[column + 1] = (low >> 16) | (high & 0xffff_0000);
                }
            }
        }
        Panels { lines, rows: self.cols, cols: self.rows }
    }
}
