//! Products of 8-bit integers on tiles (`TDPBSSD`).
//!
//! A tile of the left operand is 64 numbers of 16 rows, where they lie; one of a panel is 16 lines in one piece.

use super::{Lhs, Line, Rhs, finish_tile};
use crate::product::{Blocking, COLUMNS, Finish, Tile, for_each_tile};
use crate::tile::{self, ROWS, Rows, Sums};
use crate::view::MatMut;

pub(crate) const OFFSET: u8 = 0;
/// Lines of a tile.
const LINES: usize = 16;
const BLOCKING: Blocking = Blocking { tile_rows: 2 * ROWS, rows: 16 * ROWS, steps: usize::MAX };

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(crate) fn product(lhs: Lhs<'_>, rhs: Rhs<'_>, finish: Finish<'_>, mut c: MatMut<'_>) {
    let mut sums = Sums::default();
    // SAFETY: whoever multiplies tiles has promised that the machine has them.
    unsafe { tile::configure() };
    for_each_tile((c.rows, c.cols, rhs.quads), BLOCKING, finish, |tile, finish| {
        multiply(lhs, rhs, tile, &mut sums);
        finish_tile(|i, v| sums.row(i, v), (lhs, rhs), tile, finish, &mut c);
    });
    // SAFETY: as above.
    unsafe { tile::release() };
}

/// Sums over the whole length of both operands.
fn multiply(lhs: Lhs<'_>, rhs: Rhs<'_>, tile: Tile, sums: &mut Sums<i32>) {
    let (strips, panels) = (tile.rows.div_ceil(ROWS), tile.columns.div_ceil(COLUMNS));
    let first_line = tile.column / COLUMNS * rhs.quads;
    let strip =
        |strip: usize| lhs.numbers[(tile.row + strip * ROWS) * lhs.stride..][..ROWS * lhs.stride].as_ptr().cast();
    let panel = |panel: usize| rhs.lines[first_line + panel * rhs.quads..][..rhs.quads].as_ptr().cast();
    let (blocks, rows) = (rhs.quads / LINES, Rows { stride: lhs.stride, step: size_of::<Line>() });
    // SAFETY: each pointer is to `blocks` tiles, as measured by the slices; tiles are configured by `product`.
    unsafe {
        match (strips, panels) {
            (2, 2) => tile::integers_2x2([strip(0), strip(1)], [panel(0), panel(1)], rows, blocks, sums),
            (2, _) => tile::integers_2x1([strip(0), strip(1)], panel(0), rows, blocks, sums),
            (_, 2) => tile::integers_1x2(strip(0), [panel(0), panel(1)], rows, blocks, sums),
            _ => tile::integers_1x1(strip(0), panel(0), rows, blocks, sums),
        }
    }
}

const _: () = assert!(size_of::<Line>() * LINES == tile::BYTES);
