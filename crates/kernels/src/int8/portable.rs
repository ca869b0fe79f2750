//! Products of 8-bit integers in a plain loop.

use super::{Lhs, QUAD, Rhs, finish_tile};
use crate::product::{Blocking, COLUMNS, Finish, for_each_tile};
use crate::view::MatMut;

pub(crate) const OFFSET: u8 = 0;
const ROWS: usize = 12;
const BLOCKING: Blocking = Blocking { tile_rows: ROWS, rows: 20 * ROWS, steps: usize::MAX };

#[inline(always)]
pub(crate) fn product(lhs: Lhs<'_>, rhs: Rhs<'_>, finish: Finish<'_>, mut c: MatMut<'_>) {
    for_each_tile((c.rows, c.cols, rhs.quads), BLOCKING, finish, |tile, finish| {
        let mut all = [[[0; COLUMNS]; 2]; ROWS];
        for (i, panels) in all[..tile.rows].iter_mut().enumerate() {
            for (v, panel) in panels[..tile.columns.div_ceil(COLUMNS)].iter_mut().enumerate() {
                *panel = sums(lhs, rhs, tile.row + i, tile.column / COLUMNS + v);
            }
        }
        finish_tile(|i, v| &all[i][v], (lhs, rhs), tile, finish, &mut c);
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
