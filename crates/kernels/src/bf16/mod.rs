//! Matrix products in bfloat16 with sums in f32: `c = keep · c + scale · a b + bias`.
//!
//! Two numbers that are neighbours along the summed dimension share a 32-bit word, the first in the low half. The left
//! operand keeps the order of its source, or is cut into tiles where instructions multiply tiles. The right one is cut
//! into panels of 16 columns: a panel holds one [`Line`] of 16 words for every pair, which is a register of AVX-512 and a
//! row of an AMX tile. What does not fill a pair, a line or a tile is filled up with zeros.
//!
//! Products of three (`bf16x3`) split each f32 into the bfloat16 nearest to it and the one nearest to what is left,
//! `x = high + low` within 2⁻¹⁶ of `x`, and add `high·high + high·low + low·high`.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) mod amx;
pub(crate) mod portable;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;

use crate::lines::{Lines, Sections, bytes_of};
use crate::product::{COLUMNS, Finish, first, row};
use crate::view::{Mat, MatMut};
use std::cell::RefCell;
use std::ops::Range;

/// Rows of a tile in registers: with two panels, 24 of the 32 hold sums.
pub(crate) const ROWS: usize = 12;

/// One pair of each of a panel's columns.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u32; COLUMNS]);

/// Left operand: the word of row `i` and pair `l` is `words[i · row_stride + l · pair_stride]`, unless the products have
/// an order of their own.
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

/// Products on one instruction set, step by step. Calling one on a machine without it is undefined.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Products {
    /// The rows of a left operand and the pairs of both are filled up with zeros to multiples of these.
    pub(crate) steps: Steps,
    /// Rounds a left operand `[m, k]`.
    pub(crate) lhs: unsafe fn(Mat<'_>, &mut [u32]),
    /// Rounds one row of a left operand whose rows are made one by one.
    pub(crate) lhs_row: unsafe fn(&[f32], usize, &mut [u32]),
    /// Rounds a right operand `[k, n]` into panels.
    pub(crate) rhs: unsafe fn(Mat<'_>, &mut [Line]),
    /// What rounding takes away, `y = x - bf16(x)`.
    pub(crate) residual: unsafe fn(&[f32], &mut [f32]),
    /// Multiplies them.
    pub(crate) product: unsafe fn(Lhs<'_>, Rhs<'_>, Finish<'_>, MatMut<'_>),
}

/// What is multiplied at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steps {
    pub(crate) rows: usize,
    pub(crate) pairs: usize,
}

impl Steps {
    /// Any number of rows and pairs.
    pub(crate) const ONE: Steps = Steps { rows: 1, pairs: 1 };

    /// Pairs of `k` numbers.
    fn pairs(self, k: usize) -> usize {
        k.div_ceil(2).next_multiple_of(self.pairs)
    }
}

/// Buffers of a right operand that is not kept: its panels, those of what rounding left, and that itself.
#[derive(Debug, Default)]
pub(crate) struct RightBuffers {
    panels: [Vec<Line>; 2],
    residual: Vec<f32>,
}

/// Rounded left operand of one product, used again by the next.
#[derive(Default)]
struct Scratch {
    lhs: Vec<Line>,
    residual: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The words of lines.
fn words(lines: &mut [Line]) -> &mut [u32] {
    // SAFETY: a line is 16 words and nothing else, so lines that follow one another are words that do.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * COLUMNS) }
}

/// `x - bf16(x)`, in the order of `x`.
///
/// # Safety
/// This machine has the instructions of the products.
unsafe fn residual<'a>(products: &Products, x: Mat<'_>, values: &'a mut Vec<f32>) -> Mat<'a> {
    let transposed = x.col_stride != 1;
    let x = if transposed { x.t() } else { x };
    let values = first(values, x.rows * x.cols);
    for i in 0..x.rows {
        // SAFETY: the caller's promise.
        unsafe { (products.residual)(row(x, i), &mut values[i * x.cols..][..x.cols]) };
    }
    let left = Mat::new(values, x.rows, x.cols);
    if transposed { left.t() } else { left }
}

/// A right operand rounded, and for products of three what that left.
#[derive(Clone, Copy)]
pub(crate) struct Operand<'a> {
    pub(crate) high: Rhs<'a>,
    pub(crate) low: Option<Rhs<'a>>,
}

impl Products {
    /// Lines of a right operand `[k, n]`.
    fn lines(&self, k: usize, n: usize) -> usize {
        self.steps.pairs(k) * n.div_ceil(COLUMNS)
    }

    /// A right operand rounded, and with `split` what that leaves, in panels which lie in `buffers`.
    ///
    /// # Safety
    /// This machine has the instructions of the products.
    pub(crate) unsafe fn right<'a>(&self, b: Mat<'_>, split: bool, buffers: &'a mut RightBuffers) -> Operand<'a> {
        let RightBuffers { panels: [high, low], residual: values } = buffers;
        let (len, pairs) = (self.lines(b.rows, b.cols), self.steps.pairs(b.rows));
        let [high, low] = [first(high, len), first(low, if split { len } else { 0 })];
        // SAFETY: the caller's promise.
        unsafe { (self.rhs)(b, high) };
        if split {
            // SAFETY: the caller's promise.
            unsafe { (self.rhs)(residual(self, b, values), low) };
        }
        Operand { high: Rhs { lines: high, pairs }, low: split.then_some(Rhs { lines: low, pairs }) }
    }

    /// Words of a left operand `[m, k]`.
    pub(crate) fn lhs_words(&self, m: usize, k: usize) -> usize {
        m.next_multiple_of(self.steps.rows) * self.steps.pairs(k)
    }

    /// Rounds row `i` of a left operand whose rows are made one by one.
    ///
    /// # Safety
    /// This machine has the instructions of the products.
    pub(crate) unsafe fn push(&self, x: &[f32], i: usize, into: &mut [Line]) {
        // SAFETY: the caller's promise.
        unsafe { (self.lhs_row)(x, i, words(into)) }
    }

    /// `c = keep · c + scale · a b + bias` of a left operand whose rows were made one by one.
    ///
    /// # Safety
    /// This machine has the instructions of the products.
    pub(crate) unsafe fn matmul_rows(&self, c: MatMut<'_>, finish: Finish<'_>, rows: &[Line], b: Operand<'_>) {
        // SAFETY: a line is 16 words and nothing else.
        let words = unsafe { std::slice::from_raw_parts(rows.as_ptr().cast(), rows.len() * COLUMNS) };
        // SAFETY: the caller's promise.
        unsafe { (self.product)(Lhs { words, row_stride: b.high.pairs, pair_stride: 1 }, b.high, finish, c) }
    }

    /// `c = keep · c + scale · a b + bias` with a right operand in panels.
    ///
    /// # Safety
    /// This machine has the instructions of the products.
    pub(crate) unsafe fn matmul_packed(&self, c: MatMut<'_>, finish: Finish<'_>, a: Mat<'_>, b: Operand<'_>) {
        SCRATCH.with_borrow_mut(|Scratch { lhs, residual }| {
            // SAFETY: the caller's promise.
            unsafe { self.multiply((lhs, residual), a, b, finish, c) }
        });
    }

    /// Rounds `a` and multiplies; where `b` has a low part, so has `a`.
    ///
    /// # Safety
    /// This machine has the instructions of the products.
    unsafe fn multiply(
        &self,
        (lines, values): (&mut Vec<Line>, &mut Vec<f32>),
        a: Mat<'_>,
        b: Operand<'_>,
        finish: Finish<'_>,
        mut c: MatMut<'_>,
    ) {
        let len = self.lhs_words(a.rows, a.cols);
        let lines = first(lines, len.div_ceil(COLUMNS));
        let mut product = |a: Mat<'_>, factors: &[(Rhs<'_>, Finish<'_>)]| {
            let words = &mut words(lines)[..len];
            // SAFETY: the caller's promise.
            unsafe { (self.lhs)(a, words) };
            let (row_stride, pair_stride) = if a.col_stride == 1 { (b.high.pairs, 1) } else { (1, a.rows) };
            for &(b, finish) in factors {
                // SAFETY: the caller's promise.
                unsafe { (self.product)(Lhs { words, row_stride, pair_stride }, b, finish, c.again()) };
            }
        };
        let Some(low) = b.low else {
            return product(a, &[(b.high, finish)]);
        };
        let add = Finish { keep: 1.0, bias: &[], ..finish };
        product(a, &[(b.high, finish), (low, add)]);
        // SAFETY: the caller's promise.
        product(unsafe { residual(self, a, values) }, &[(b.high, add)]);
    }
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
    if x.rows == 0 || x.cols == 0 {
        return;
    }
    let pairs = lines.len() / x.cols.div_ceil(COLUMNS);
    let columns_of = |panel: usize| panel * COLUMNS..x.cols.min((panel + 1) * COLUMNS);
    if x.col_stride == 1 {
        for (panel, lines) in lines.chunks_exact_mut(pairs).enumerate() {
            for (l, line) in lines.iter_mut().enumerate() {
                let columns = |i| row(x, i).get(columns_of(panel)).unwrap_or_default();
                interleave(columns(2 * l), columns(2 * l + 1), &mut line.0);
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

/// A right operand `[k, n]` that was kept: panels of `n`.
#[derive(Clone, Debug)]
pub(crate) struct Panels {
    lines: Lines<Line>,
    pairs: usize,
    rows: usize,
    cols: usize,
}

impl Panels {
    fn of(products: &Products, lines: Lines<Line>, rows: usize, cols: usize) -> Self {
        Panels { lines, pairs: products.steps.pairs(rows), rows, cols }
    }

    /// A right operand `[rows, cols]` that was rounded before.
    fn read(products: &Products, (rows, cols): (usize, usize), sections: &mut Sections) -> Option<Self> {
        let lines = sections.lines(products.steps.pairs(rows).checked_mul(cols.div_ceil(COLUMNS))?)?;
        Some(Panels::of(products, lines, rows, cols))
    }

    /// Rounds a right operand.
    ///
    /// # Safety
    /// This machine has the instructions of the products.
    unsafe fn new(products: &Products, b: Mat<'_>) -> Self {
        let mut lines = vec![Line::default(); products.lines(b.rows, b.cols)];
        // SAFETY: the caller's promise.
        unsafe { (products.rhs)(b, &mut lines) };
        Panels::of(products, Lines::Owned(lines), b.rows, b.cols)
    }

    fn rhs(&self) -> Rhs<'_> {
        Rhs { lines: &self.lines, pairs: self.pairs }
    }

    /// Some columns, from the first of a panel on.
    fn rhs_of(&self, columns: Range<usize>) -> Rhs<'_> {
        let panels = columns.start / COLUMNS..columns.end.div_ceil(COLUMNS);
        Rhs { lines: &self.lines[panels.start * self.pairs..panels.end * self.pairs], ..self.rhs() }
    }

    /// The panels of the transpose.
    ///
    /// Two neighbouring columns of a line make one word for each of its two rows.
    fn transposed(&self, products: &Products) -> Panels {
        let mut transposed = vec![Line::default(); products.lines(self.cols, self.rows)];
        let pairs = products.steps.pairs(self.cols);
        for (panel, source) in self.lines.chunks_exact(self.pairs.max(1)).enumerate() {
            let first_pair = panel * COLUMNS / 2;
            let taken = (COLUMNS / 2).min(pairs - first_pair);
            for (l, line) in source[..self.rows.div_ceil(2)].iter().enumerate() {
                let (target, column) = (2 * l / COLUMNS * pairs + first_pair, 2 * l % COLUMNS);
                let two_columns = line.0.as_chunks::<2>().0;
                for (target, &[low, high]) in transposed[target..target + taken].iter_mut().zip(two_columns) {
                    target.0[column] = (low & 0xffff) | (high << 16);
                    target.0[column + 1] = (low >> 16) | (high & 0xffff_0000);
                }
            }
        }
        Panels::of(products, Lines::Owned(transposed), self.cols, self.rows)
    }
}

/// A kept right operand rounded, and for products of three what that left.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    high: Panels,
    low: Option<Panels>,
}

impl Packed {
    /// Rounds a right operand; with `split` also what that leaves.
    ///
    /// # Safety
    /// This machine has the instructions of the products.
    pub(crate) unsafe fn new(products: &Products, b: Mat<'_>, split: bool) -> Self {
        // SAFETY: the caller's promise.
        let high = unsafe { Panels::new(products, b) };
        // SAFETY: the caller's promise.
        let low = split.then(|| unsafe { Panels::new(products, residual(products, b, &mut Vec::new())) });
        Packed { high, low }
    }

    /// A right operand `[k, n]` that was rounded before.
    pub(crate) fn read(
        products: &Products,
        split: bool,
        shape: (usize, usize),
        sections: &mut Sections,
    ) -> Option<Self> {
        let high = Panels::read(products, shape, sections)?;
        let low = if split { Some(Panels::read(products, shape, sections)?) } else { None };
        Some(Packed { high, low })
    }

    pub(crate) fn sections(&self) -> Vec<&[u8]> {
        [Some(&self.high), self.low.as_ref()].into_iter().flatten().map(|panels| bytes_of(&panels.lines)).collect()
    }

    pub(crate) fn operand(&self) -> Operand<'_> {
        Operand { high: self.high.rhs(), low: self.low.as_ref().map(Panels::rhs) }
    }

    /// Some columns, from the first of a panel on.
    pub(crate) fn operand_of(&self, columns: Range<usize>) -> Operand<'_> {
        let low = self.low.as_ref().map(|low| low.rhs_of(columns.clone()));
        Operand { high: self.high.rhs_of(columns), low }
    }

    /// The same of the transpose.
    pub(crate) fn transposed(&self, products: &Products) -> Packed {
        Packed { high: self.high.transposed(products), low: self.low.as_ref().map(|low| low.transposed(products)) }
    }
}
