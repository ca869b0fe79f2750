//! bfloat16 on integers and f32, for machines without instructions for it: the same roundings, and sums of the same
//! exact products.

use super::{Lhs, Line, ROWS, Rhs, Steps, round_lhs, round_rhs};
use crate::product::{Blocking, COLUMNS, Finish, Tile, for_each_tile, row};
use crate::view::{Mat, MatMut};

pub(crate) const STEPS: Steps = Steps::ONE;
/// Also of the products with instructions: a block of rows is 480 kB.
pub(crate) const BLOCKING: Blocking = Blocking { tile_rows: ROWS, rows: 20 * ROWS, steps: 512 };

/// The bfloat16 nearest to `x`, ties to even, in the low half of a word. As the instructions do, numbers too small for a
/// full significand become zeros, and NaN is made quiet.
#[inline(always)]
fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    let nearest = (bits.wrapping_add(0x7fff + (bits >> 16 & 1))) >> 16;
    let quiet = bits >> 16 | 0x40;
    let signed_zero = bits >> 16 & 0x8000;
    let finite = if bits & 0x7f80_0000 == 0 { signed_zero } else { nearest };
    if bits & 0x7fff_ffff > 0x7f80_0000 { quiet } else { finite }
}

/// The two numbers of a word.
#[inline(always)]
fn split(word: u32) -> (f32, f32) {
    (f32::from_bits(word << 16), f32::from_bits(word & 0xffff_0000))
}

/// `y = x - bf16(x)`, exact.
#[inline(always)]
pub(crate) fn residual(x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "residual shapes");
    for (y, &x) in y.iter_mut().zip(x) {
        *y = x - split(round(x)).0;
    }
}

#[inline(always)]
pub(super) fn pairs(x: &[f32], words: &mut [u32]) {
    for (word, pair) in words.iter_mut().zip(x.chunks(2)) {
        *word = round(pair[0]) | pair.get(1).map_or(0, |&x| round(x) << 16);
    }
}

#[inline(always)]
fn interleave(low: &[f32], high: &[f32], words: &mut [u32]) {
    words[low.len()..].fill(0);
    for (word, &low) in words.iter_mut().zip(low) {
        *word = round(low);
    }
    for (word, &high) in words.iter_mut().zip(high) {
        *word |= round(high) << 16;
    }
}

#[inline(always)]
pub(crate) fn lhs(x: Mat<'_>, words: &mut [u32]) {
    round_lhs(x, words, pairs, interleave);
}

#[inline(always)]
pub(crate) fn lhs_row(x: &[f32], i: usize, words: &mut [u32]) {
    let count = x.len().div_ceil(2);
    pairs(x, &mut words[i * count..][..count]);
}

#[inline(always)]
pub(crate) fn rhs(x: Mat<'_>, lines: &mut [Line]) {
    round_rhs(x, lines, interleave, |columns, lines| {
        lines.fill(Line::default());
        for j in 0..columns.rows {
            let column = row(columns, j);
            for (line, pair) in lines.iter_mut().zip(column.chunks(2)) {
                pairs(pair, &mut line.0[j..=j]);
            }
        }
    });
}

#[inline(always)]
pub(crate) fn product(lhs: Lhs<'_>, rhs: Rhs<'_>, finish: Finish<'_>, c: MatMut<'_>) {
    for_each_tile((c.rows, c.cols, rhs.pairs), BLOCKING, finish, |tile, finish| {
        for row in tile.row..tile.row + tile.rows {
            for column in (tile.column..tile.column + tile.columns).step_by(COLUMNS) {
                let sums = sums(lhs, rhs, row, column / COLUMNS, tile);
                let end = c.cols.min(column + COLUMNS);
                let c = &mut c.data[row * c.row_stride..][column..end];
                store(c, &sums, finish, column);
            }
        }
    });
}

/// A row of the left operand with a panel of the right one.
#[inline(always)]
fn sums(lhs: Lhs<'_>, rhs: Rhs<'_>, row: usize, panel: usize, tile: Tile) -> [f32; COLUMNS] {
    let mut sums = [0.0; COLUMNS];
    for l in tile.step..tile.step + tile.steps {
        let (a_low, a_high) = split(lhs.words[row * lhs.row_stride + l * lhs.pair_stride]);
        let line = &rhs.lines[panel * rhs.pairs + l].0;
        for (sum, &word) in sums.iter_mut().zip(line) {
            let (b_low, b_high) = split(word);
            *sum += a_low * b_low + a_high * b_high;
        }
    }
    sums
}

#[inline(always)]
fn store(c: &mut [f32], sums: &[f32; COLUMNS], Finish { keep, scale, bias }: Finish<'_>, column: usize) {
    for (j, (c, &sum)) in c.iter_mut().zip(sums).enumerate() {
        let value = scale * sum + bias.get(column + j).copied().unwrap_or(0.0);
        *c = if keep == 0.0 { value } else { keep * *c + value };
    }
}

#[cfg(test)]
mod tests {
    use super::round;

    /// Every f32 is between two neighbouring bfloat16s, or is one.
    #[test]
    fn rounding_is_to_the_nearest_and_to_even() {
        let up = |bits: u32| f32::from_bits(bits << 16);
        for bits in [0x0080_u32, 0x3f80, 0x3f81, 0x4049, 0x7f00, 0xbf80, 0xc049] {
            let (x, next) = (f64::from(up(bits)), f64::from(up(bits + 1)));
            let between = |share: f64| round((x + share * (next - x)) as f32);
            assert_eq!(between(0.0), bits);
            assert_eq!(between(0.49), bits);
            assert_eq!(between(0.5), bits + (bits & 1));
            assert_eq!(between(0.51), bits + 1);
        }
    }

    #[test]
    fn what_has_no_nearest_is_kept_or_flushed() {
        assert_eq!(round(f32::INFINITY), 0x7f80);
        assert_eq!(round(f32::MAX), 0x7f80);
        assert_eq!(round(-0.0), 0x8000);
        assert_eq!(round(-1e-40), 0x8000);
        assert_eq!(round(f32::from_bits(0x7f80_0001)), 0x7fc0);
        assert_eq!(round(f32::from_bits(0xffff_ffff)), 0xffff);
    }
}
