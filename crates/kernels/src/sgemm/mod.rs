//! Matrix products in f32: `c = keep · c + scale · a b + bias`, with the right operand in panels of 16 columns.
//!
//! A panel holds a [`Line`] of 16 numbers for every row of the operand. One copy serves both directions of a layer: for the
//! product with the transpose, panels are turned a tile at a time, while they are in the first-level cache.

#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "the products are for x86-64"))]

#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;

use crate::lines::{Lines, Sections, bytes_of};
use crate::product::{COLUMNS, Finish, first, row};
use crate::view::{Mat, MatMut, assert_product};
use std::cell::RefCell;
use std::ops::Range;

/// One number of each of a panel's columns.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [f32; COLUMNS]);

/// Right operand, a matrix `[rows, cols]` or its transpose: row `l` of panel `p` of the matrix is `lines[p · rows + l]`.
#[derive(Clone, Copy)]
pub(crate) struct Rhs<'a> {
    lines: &'a [Line],
    rows: usize,
    cols: usize,
    transposed: bool,
}

impl Rhs<'_> {
    /// `(k, n)`.
    fn shape(&self) -> (usize, usize) {
        if self.transposed { (self.cols, self.rows) } else { (self.rows, self.cols) }
    }

    /// Panels of the transpose from number `panel` on, of which rows `step..step + steps` are taken, `steps` a panel.
    #[inline(always)]
    fn turn(
        &self,
        panel: usize,
        (step, steps): (usize, usize),
        turned: &mut [Line],
        turn: impl Fn(&[Line], &mut [Line]),
    ) {
        for (panel, turned) in (panel..).zip(turned.chunks_exact_mut(steps.max(1))) {
            let lines = panel * COLUMNS..self.rows.min((panel + 1) * COLUMNS);
            for (block, turned) in (step / COLUMNS..).zip(turned.chunks_mut(COLUMNS)) {
                turn(&self.lines[block * self.rows..][lines.clone()], turned);
            }
        }
    }
}

/// Products on one instruction set. Calling one on a machine without it is undefined.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Products {
    /// Rows to columns: up to 16 lines in, as many of the 16 out as are asked for; what is not there is zero.
    turn: unsafe fn(&[Line], &mut [Line]),
    /// `c = keep · c + scale · a b + bias`.
    product: unsafe fn(Mat<'_>, Rhs<'_>, Finish<'_>, MatMut<'_>, &mut Scratch),
}

/// What a product packs, in buffers that the next uses again.
#[derive(Default)]
struct Scratch {
    /// Rows of the left operand.
    strips: Vec<f32>,
    /// A tile's panels of a transpose.
    panels: Vec<Line>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Lines of a right operand `[k, n]`.
fn lines(k: usize, n: usize) -> usize {
    k * n.div_ceil(COLUMNS)
}

/// A right operand into its lines; columns that fill no panel are zeros. `turn` is that of the products.
fn pack(b: Mat<'_>, lines: &mut [Line], turn: impl Fn(&[Line], &mut [Line])) {
    if b.rows == 0 {
        return;
    }
    for (panel, lines) in lines.chunks_exact_mut(b.rows).enumerate() {
        let columns = panel * COLUMNS..b.cols.min((panel + 1) * COLUMNS);
        if b.col_stride == 1 {
            for (l, line) in lines.iter_mut().enumerate() {
                let values = &row(b, l)[columns.clone()];
                match values.try_into() {
                    Ok(values) => line.0 = values,
                    Err(_) => {
                        line.0[..values.len()].copy_from_slice(values);
                        line.0[values.len()..].fill(0.0);
                    }
                }
            }
            continue;
        }
        assert_eq!(b.row_stride, 1, "rows or columns are adjacent");
        for (block, lines) in lines.chunks_mut(COLUMNS).enumerate() {
            let mut words = [Line::default(); COLUMNS];
            for (word, j) in words.iter_mut().zip(columns.clone()) {
                let values = &row(b.t(), j)[block * COLUMNS..][..lines.len()];
                match values.try_into() {
                    Ok(values) => word.0 = values,
                    Err(_) => word.0[..values.len()].copy_from_slice(values),
                }
            }
            turn(&words, lines);
        }
    }
}

impl Products {
    /// A right operand in panels, which lie in `buffer`.
    ///
    /// # Safety
    /// This machine has the instructions of the products.
    pub(crate) unsafe fn right<'a>(&self, b: Mat<'_>, buffer: &'a mut Vec<Line>) -> Rhs<'a> {
        let lines = first(buffer, lines(b.rows, b.cols));
        // SAFETY: the caller's promise.
        pack(b, lines, |from, to| unsafe { (self.turn)(from, to) });
        Rhs { lines, rows: b.rows, cols: b.cols, transposed: false }
    }

    /// `c = keep · c + scale · a b + bias` with a right operand in panels.
    ///
    /// # Safety
    /// This machine has the instructions of the products.
    pub(crate) unsafe fn matmul_packed(&self, c: MatMut<'_>, finish: Finish<'_>, a: Mat<'_>, b: Rhs<'_>) {
        assert_product(&c, (a.rows, a.cols), b.shape());
        // SAFETY: the caller's promise.
        SCRATCH.with_borrow_mut(|scratch| unsafe { (self.product)(a, b, finish, c, scratch) });
    }
}

/// A right operand that was kept.
#[derive(Clone, Debug)]
pub(crate) struct Panels {
    lines: Lines<Line>,
    rows: usize,
    cols: usize,
}

impl Panels {
    /// Packs a right operand.
    ///
    /// # Safety
    /// This machine has the instructions of the products.
    pub(crate) unsafe fn new(products: &Products, b: Mat<'_>) -> Self {
        let mut packed = vec![Line::default(); lines(b.rows, b.cols)];
        // SAFETY: the caller's promise.
        pack(b, &mut packed, |from, to| unsafe { (products.turn)(from, to) });
        Panels { lines: Lines::Owned(packed), rows: b.rows, cols: b.cols }
    }

    /// The same of a right operand `[rows, cols]` that was packed before.
    pub(crate) fn read(rows: usize, cols: usize, sections: &mut Sections) -> Option<Self> {
        let lines = sections.lines(rows.checked_mul(cols.div_ceil(COLUMNS))?)?;
        Some(Panels { lines, rows, cols })
    }

    pub(crate) fn section(&self) -> &[u8] {
        bytes_of(&self.lines)
    }

    /// Some columns, from the first of a panel on.
    pub(crate) fn rhs_of(&self, columns: Range<usize>) -> Rhs<'_> {
        let panels = columns.start / COLUMNS..columns.end.div_ceil(COLUMNS);
        let lines = &self.lines[panels.start * self.rows..panels.end * self.rows];
        Rhs { lines, rows: self.rows, cols: columns.len(), transposed: false }
    }

    pub(crate) fn rhs(&self) -> Rhs<'_> {
        Rhs { lines: &self.lines, rows: self.rows, cols: self.cols, transposed: false }
    }

    pub(crate) fn transposed(&self) -> Rhs<'_> {
        Rhs { transposed: true, ..self.rhs() }
    }
}
