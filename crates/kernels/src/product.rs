//! What products with a right operand in panels have in common: how they are walked, and what becomes of the sums.
//!
//! A panel is 16 columns: the summed dimension is gone along in steps (of one number in f32, of a pair in bfloat16), in
//! blocks whose bounds depend on their number alone, so that an element of `c` depends on its row of `a` and column of `b`,
//! not on the rest of the product.

use crate::view::Mat;

/// Columns of a panel.
pub(crate) const COLUMNS: usize = 16;

/// How a product is walked.
#[derive(Clone, Copy)]
pub(crate) struct Blocking {
    /// Rows of a tile.
    pub(crate) tile_rows: usize,
    /// Rows whose steps of a block stay in the second-level cache: all panels pass along them.
    pub(crate) rows: usize,
    /// Steps that are summed before the left operand's next ones are visited.
    pub(crate) steps: usize,
}

/// What becomes of the sums: `c = keep · c + scale · sum + bias`; `c` is not read when `keep` is 0; no bias is empty.
#[derive(Clone, Copy)]
pub(crate) struct Finish<'a> {
    pub(crate) keep: f32,
    pub(crate) scale: f32,
    pub(crate) bias: &'a [f32],
}

/// A part of the product: a few rows and at most two panels' columns, over some of the steps.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    pub(crate) row: usize,
    pub(crate) rows: usize,
    pub(crate) column: usize,
    pub(crate) columns: usize,
    pub(crate) step: usize,
    pub(crate) steps: usize,
}

/// The loops around a tile: steps in blocks, rows in blocks, and in these every two panels pass along all strips of rows.
#[inline(always)]
pub(crate) fn for_each_tile(
    (rows, columns, steps): (usize, usize, usize),
    blocking: Blocking,
    finish: Finish<'_>,
    mut tile: impl FnMut(Tile, Finish<'_>),
) {
    for step in (0..steps.max(1)).step_by(blocking.steps) {
        let finish = if step == 0 { finish } else { Finish { keep: 1.0, bias: &[], ..finish } };
        let steps = blocking.steps.min(steps - step);
        for block in (0..rows).step_by(blocking.rows) {
            let end = rows.min(block + blocking.rows);
            for column in (0..columns).step_by(2 * COLUMNS) {
                let columns = (2 * COLUMNS).min(columns - column);
                for row in (block..end).step_by(blocking.tile_rows) {
                    tile(Tile { row, rows: blocking.tile_rows.min(end - row), column, columns, step, steps }, finish);
                }
            }
        }
    }
}

/// The first `len` values of a buffer, which grows where it must.
pub(crate) fn first<T: Clone + Default>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    if buffer.len() < len {
        buffer.resize(len, T::default());
    }
    &mut buffer[..len]
}

/// Row `i` of a view whose columns are adjacent; no values past its end.
#[inline(always)]
pub(crate) fn row(x: Mat<'_>, i: usize) -> &[f32] {
    if i < x.rows { &x.data[i * x.row_stride..][..x.cols] } else { &[] }
}
