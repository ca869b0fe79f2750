//! Products of 8-bit integers in a plain loop.

use super::{Lhs, QUAD, Rhs, finish_columns};
use crate::product::{Blocking, COLUMNS, Finish, for_each_tile};
use crate::view::MatMut;

pub(crate) const OFFSET: u8 = 0;
const ROWS: usize = 12;
const BLOCKING: Blocking = Blocking { tile_rows: ROWS, rows: 20 * ROWS, steps: usize::MAX };

#[inline(always)]
pub(crate) fn product(lhs: Lhs<'_>, rhs: Rhs<'_>, finish: Finish<'_>, c: MatMut<'_>) {
    for_each_tile((c.rows, c.cols, rhs.quads), BLOCKING, finish, |tile, Finish { keep, bias, .. }| {
        for row in tile.row..tile.row + tile.rows {
            for column in (tile.column..tile.column + tile.columns).step_by(COLUMNS) {
                let columns = column..c.cols.min(column + COLUMNS);
                let bias = bias.get(columns.clone()).unwrap_or_default();
                let c = &mut c.data[row * c.row_stride..][columns];
                let scales = &rhs.scales.as_chunks().0[column / COLUMNS];
                let sums = sums(lhs, rhs, row, column / COLUMNS);
                finish_columns(c, &sums, (lhs.rows[row], OFFSET), scales, (bias, keep));
            }
        }
    });
}

/// A row of the left operand with a panel of the right one.
#[inline(always)]
fn sums(lhs: Lhs<'_>, rhs: Rhs<'_>, row: usize, panel: usize) -> [i32; COLUMNS] {
    let mut sums = [0; COLUMNS];
    let a = lhs.numbers[row * lhs.stride..][..lhs.stride].as_chunks::<QUAD>().0;
    for (a, line) in a.iter().zip(&rhs.lines[panel * rhs.quads..]) {
        for (sum, b) in sums.iter_mut().zip(&line.0) {
            *sum += a.iter().zip(b).map(|(&a, &b)| i32::from(a) * i32::from(b.cast_signed())).sum::<i32>();
        }
    }
    sums
}
