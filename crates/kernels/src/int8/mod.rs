//! Matrix products of 8-bit integers with exact sums: `c = keep · c + t_j (s_i Σ a b + m_i Σ b) + bias`.
//!
//! A column of the right operand has a scale `t_j`, its largest magnitude over 127. A row of the left one has the middle of its
//! range, `m_i`, and a scale `s_i`, half its range over 127: what comes out of a GELU is nearly all of one sign, and would else
//! use half of the integers. Numbers are rounded to the nearest, ties to even. Sums are exact and what follows them is done in one
//! order, so that every instruction set gives the same bits.
//!
//! The left operand lies in rows that are filled up with zeros to a multiple of 64. The right one is cut into panels of 16
//! columns: a [`Line`] holds four neighbours along the summed dimension of each, which is a register of AVX-512 and a row of an
//! AMX tile. Instructions that multiply unsigned by signed integers get it with 128 added to each number: `128 · Σ a` is then
//! taken off.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) mod amx;
pub(crate) mod portable;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;

use crate::lines::{Lines, Sections, bytes_of};
use crate::math::{max, min};
use crate::product::{COLUMNS, Finish, Tile, first, row};
use crate::view::{Mat, MatMut};
use std::ops::Range;

/// Neighbours along the summed dimension that are multiplied at once.
pub(crate) const QUAD: usize = 4;
/// Rows of the left operand are filled up to a multiple of this: a row of a tile.
const STEP: usize = 64;
/// Rows of a tile.
const TILE_ROWS: usize = 16;
/// The largest magnitude of a number.
const LARGEST: f32 = 127.0;
/// Rows whose numbers are all smaller are rows of zeros.
const SMALLEST: f32 = 1e-30;
/// The longest sum that cannot leave 32 bits, with either operand unsigned.
const LONGEST: usize = i32::MAX as usize / (127 * 255);

/// Four numbers of each of a panel's columns.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [[u8; QUAD]; COLUMNS]);

/// Left operand: row `i` is `numbers[i · stride..]`.
#[derive(Clone, Copy)]
pub(crate) struct Lhs<'a> {
    pub(crate) numbers: &'a [i8],
    pub(crate) stride: usize,
    pub(crate) rows: &'a [Row],
}

/// Right operand: quad `l` of panel `p` is `lines[p · quads + l]`; a scale and a sum of integers a column, those of the last
/// panel filled up.
#[derive(Clone, Copy)]
pub(crate) struct Rhs<'a> {
    pub(crate) lines: &'a [Line],
    pub(crate) quads: usize,
    pub(crate) scales: &'a [f32],
    pub(crate) sums: &'a [f32],
    /// What is added to every number.
    offset: u8,
    /// Columns that are no filling.
    cols: usize,
}

/// What a row of integers means.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Row {
    /// A number is its integer times this, more than `middle`; not a number where the row holds something that is not finite.
    pub(crate) scale: f32,
    /// Middle of the range.
    pub(crate) middle: f32,
    /// Sum of the integers.
    pub(crate) sum: i32,
}

/// Products on one instruction set, step by step. Calling one on a machine without it is undefined.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Products {
    /// What is added to every number of a right operand.
    pub(crate) offset: u8,
    /// Rounds a row to integers; room beyond them is filled up with zeros.
    pub(crate) round: unsafe fn(&[f32], &mut [i8]) -> Row,
    /// The same around zero.
    pub(crate) round_weight: unsafe fn(&[f32], &mut [i8]) -> Row,
    /// Multiplies them.
    pub(crate) product: unsafe fn(Lhs<'_>, Rhs<'_>, Finish<'_>, MatMut<'_>),
}

/// Rows of integers, in buffers that are used again.
#[derive(Debug, Default)]
pub(crate) struct Rounded {
    numbers: Vec<Line>,
    rows: Vec<Row>,
    stride: usize,
}

impl Rounded {
    /// Makes room for `rows` rows of `cols` numbers; whole tiles are read.
    pub(crate) fn reserve(&mut self, rows: usize, cols: usize) {
        self.stride = cols.next_multiple_of(STEP);
        first(&mut self.numbers, rows.next_multiple_of(TILE_ROWS) * self.stride / size_of::<Line>());
        first(&mut self.rows, rows);
    }

    fn lhs(&self) -> Lhs<'_> {
        Lhs { numbers: bytes(&self.numbers), stride: self.stride, rows: &self.rows }
    }
}

/// The bytes of lines.
fn bytes(lines: &[Line]) -> &[i8] {
    // SAFETY: a line is 64 bytes and nothing else, so lines that follow one another are bytes that do.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), size_of_val(lines)) }
}

/// As [`bytes`], to write to.
fn bytes_mut(lines: &mut [Line]) -> &mut [i8] {
    // SAFETY: as in `bytes`.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), size_of_val(lines)) }
}

impl Products {
    /// Rounds row `i`.
    ///
    /// # Safety
    /// This machine has the instructions of the products.
    pub(crate) unsafe fn push(&self, x: &[f32], i: usize, into: &mut Rounded) {
        let numbers = &mut bytes_mut(&mut into.numbers)[i * into.stride..][..into.stride];
        // SAFETY: the caller's promise.
        into.rows[i] = unsafe { (self.round)(x, numbers) };
    }

    /// `c = keep · c + a b + bias`.
    ///
    /// # Safety
    /// This machine has the instructions of the products.
    pub(crate) unsafe fn matmul_packed(&self, c: MatMut<'_>, finish: Finish<'_>, a: &Rounded, b: Rhs<'_>) {
        assert!(b.offset == self.offset && b.quads * QUAD == a.stride && b.cols == c.cols, "a weight of another layer");
        // SAFETY: the caller's promise.
        unsafe { (self.product)(a.lhs(), b, finish, c) }
    }
}

/// A right operand `[k, n]` that was kept, a scale a column.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    lines: Lines<Line>,
    scales: Vec<f32>,
    sums: Vec<f32>,
    quads: usize,
    offset: u8,
    rows: usize,
    cols: usize,
}

impl Packed {
    /// Rounds the transpose of `weight [out, in]`; none where a sum could leave its 32 bits, or a number is not finite.
    ///
    /// # Safety
    /// This machine has the instructions of the products.
    pub(crate) unsafe fn new(products: &Products, weight: Mat<'_>) -> Option<Self> {
        let (rows, cols) = (weight.cols, weight.rows);
        let stride = rows.next_multiple_of(STEP);
        if stride > LONGEST {
            return None;
        }
        let (quads, panels) = (stride / QUAD, cols.div_ceil(COLUMNS));
        let mut lines = vec![Line::default(); panels * quads];
        let mut scales = vec![0.0; panels * COLUMNS];
        let mut sums = scales.clone();
        let mut columns = vec![0; COLUMNS * stride];
        for (panel, lines) in lines.chunks_exact_mut(quads.max(1)).enumerate() {
            columns.fill(0);
            let outputs = panel * COLUMNS..cols.min((panel + 1) * COLUMNS);
            for (j, column) in outputs.zip(columns.chunks_exact_mut(stride)) {
                // SAFETY: the caller's promise.
                let Row { scale, sum, .. } = unsafe { (products.round_weight)(row(weight, j), column) };
                (scales[j], sums[j]) = (scale, sum as f32);
            }
            for (column, numbers) in columns.chunks_exact(stride).enumerate() {
                for (line, quad) in lines.iter_mut().zip(numbers.as_chunks::<QUAD>().0) {
                    line.0[column] = quad.map(|x| x.cast_unsigned().wrapping_add(products.offset));
                }
            }
        }
        let finite = scales.iter().all(|scale| scale.is_finite());
        finite.then_some(Packed {
            lines: Lines::Owned(lines),
            scales,
            sums,
            quads,
            offset: products.offset,
            rows,
            cols,
        })
    }

    /// A right operand `[rows, cols]` that was rounded before.
    pub(crate) fn read(products: &Products, (rows, cols): (usize, usize), sections: &mut Sections) -> Option<Self> {
        let stride = rows.checked_next_multiple_of(STEP).filter(|stride| *stride <= LONGEST)?;
        let (quads, panels) = (stride / QUAD, cols.div_ceil(COLUMNS));
        let lines = sections.lines(panels.checked_mul(quads)?)?;
        let columns = panels.checked_mul(COLUMNS)?;
        let (scales, sums) = (sections.floats(columns)?, sections.floats(columns)?);
        Some(Packed { lines, scales, sums, quads, offset: products.offset, rows, cols })
    }

    pub(crate) fn sections(&self) -> Vec<&[u8]> {
        vec![bytes_of(&self.lines), bytes_of(&self.scales), bytes_of(&self.sums)]
    }

    /// Some columns, from the first of a panel on.
    pub(crate) fn rhs_of(&self, columns: Range<usize>) -> Rhs<'_> {
        let panels = columns.start / COLUMNS..columns.end.div_ceil(COLUMNS);
        Rhs {
            lines: &self.lines[panels.start * self.quads..panels.end * self.quads],
            scales: &self.scales[panels.start * COLUMNS..panels.end * COLUMNS],
            sums: &self.sums[panels.start * COLUMNS..panels.end * COLUMNS],
            quads: self.quads,
            offset: self.offset,
            cols: columns.len(),
        }
    }

    /// The matrix `[in, out]` that is computed with.
    pub(crate) fn transpose(&self) -> Vec<f32> {
        let mut transpose = vec![0.0; self.rows * self.cols];
        for (panel, lines) in self.lines.chunks_exact(self.quads.max(1)).enumerate() {
            let columns = panel * COLUMNS..self.cols.min((panel + 1) * COLUMNS);
            for (rows, line) in transpose.chunks_mut(QUAD * self.cols).zip(lines) {
                for (k, row) in rows.chunks_exact_mut(self.cols).enumerate() {
                    let values = row[columns.clone()].iter_mut().zip(&line.0).zip(&self.scales[columns.clone()]);
                    for ((x, numbers), scale) in values {
                        *x = f32::from(numbers[k].wrapping_sub(self.offset).cast_signed()) * scale;
                    }
                }
            }
        }
        transpose
    }
}

/// Rounds a row, see [`Products::round`], around the middle of its range or around zero.
#[inline(always)]
pub(crate) fn round<const AROUND_ZERO: bool>(x: &[f32], numbers: &mut [i8]) -> Row {
    /// `1.5 · 2^23`: adding it rounds to an integer, ties to even, held in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const MAGNITUDE: u32 = 0x7fff_ffff;
    let (numbers, rest) = numbers.split_at_mut(x.len());
    rest.fill(0);
    // Of numbers without their sign the order is that of their bits, and what is not finite comes last.
    let largest = f32::from_bits(x.iter().fold(0, |most, x| most.max(x.to_bits() & MAGNITUDE)));
    let (middle, half) = match AROUND_ZERO {
        true => (0.0, largest),
        false => {
            let (high, low) = (0.5 * max(x), 0.5 * min(x));
            (high + low, high - low)
        }
    };
    if !largest.is_finite() || half < SMALLEST {
        numbers.fill(0);
        return Row { scale: if largest.is_finite() { 0.0 } else { f32::NAN }, middle, sum: 0 };
    }
    let inverse = LARGEST / half;
    let mut sum = 0;
    for (number, x) in numbers.iter_mut().zip(x) {
        *number = ((x - middle) * inverse + ROUND).to_bits() as i8;
        sum += i32::from(*number);
    }
    Row { scale: half / LARGEST, middle, sum }
}

/// The rows and columns of a tile from their sums: `sums(i, v)` are those of its row `i` and panel `v`.
#[inline(always)]
fn finish_tile<'a, 'b>(
    sums: impl Fn(usize, usize) -> &'a [i32; COLUMNS],
    (lhs, rhs): (Lhs<'_>, Rhs<'b>),
    tile: Tile,
    Finish { keep, bias, .. }: Finish<'_>,
    c: &mut MatMut<'_>,
) {
    let of_panels = |values: &'b [f32]| values.as_chunks::<COLUMNS>().0[tile.column / COLUMNS..].iter();
    let panels = of_panels(rhs.scales).zip(of_panels(rhs.sums));
    for (v, of_columns) in (0..tile.columns.div_ceil(COLUMNS)).zip(panels) {
        let columns = tile.column + v * COLUMNS..c.cols.min(tile.column + (v + 1) * COLUMNS);
        let mut padded = [0.0; COLUMNS];
        if let Some(bias) = bias.get(columns.clone()) {
            padded[..bias.len()].copy_from_slice(bias);
        }
        for i in 0..tile.rows {
            let (row, sums) = (lhs.rows[tile.row + i], sums(i, v));
            let c = &mut c.data[(tile.row + i) * c.row_stride..][columns.clone()];
            if let Ok(c) = c.try_into() {
                finish_row(c, sums, (row, rhs.offset), of_columns, (&padded, keep != 0.0));
                continue;
            }
            let mut whole = [0.0; COLUMNS];
            whole[..c.len()].copy_from_slice(c);
            finish_row(&mut whole, sums, (row, rhs.offset), of_columns, (&padded, keep != 0.0));
            c.copy_from_slice(&whole[..c.len()]);
        }
    }
}

/// A row of a whole panel.
#[inline(always)]
fn finish_row(
    c: &mut [f32; COLUMNS],
    sums: &[i32; COLUMNS],
    (row, offset): (Row, u8),
    (scales, weights): (&[f32; COLUMNS], &[f32; COLUMNS]),
    (bias, add): (&[f32; COLUMNS], bool),
) {
    let beyond = i32::from(offset) * row.sum;
    let mut values = [0.0; COLUMNS];
    for j in 0..COLUMNS {
        values[j] = ((sums[j] - beyond) as f32 * row.scale + weights[j] * row.middle) * scales[j] + bias[j];
    }
    if add {
        for j in 0..COLUMNS {
            values[j] += c[j];
        }
    }
    *c = values;
}
