//! The left operand of a layer, made a row at a time: a row is rounded while what computed it is still in the first-level cache.

use crate::bf16;
use crate::int8;
use crate::linear::{Layout, PackedWeight};
use crate::product::{COLUMNS, first};
use crate::table::Kernels;
use crate::view::Mat;

/// The left operand of a layer, `[rows, cols]`, as the product with its weight reads it.
#[derive(Clone, Copy, Debug)]
pub struct Left<'a> {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) numbers: Numbers<'a>,
}

/// The numbers of a left operand.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Numbers<'a> {
    F32(Mat<'a>),
    Bf16(&'a [bf16::Line]),
    Int8(&'a int8::Rounded),
}

/// Rows `[m, in]` rounded as the product with a weight reads them, in buffers that are used again; f32 is read where it lies.
#[derive(Debug, Default)]
pub struct LeftRows {
    kind: Kind,
    rows: usize,
    cols: usize,
    /// Rows that were there already.
    filled: usize,
    words: Vec<bf16::Line>,
    integers: int8::Rounded,
}

/// What the rows of a weight's layout are rounded to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Kind {
    /// Nothing.
    #[default]
    F32,
    Bf16,
    Int8,
}

impl LeftRows {
    /// Makes room for `rows` rows that will be multiplied by `w`.
    pub fn begin(&mut self, kernels: &Kernels, w: &PackedWeight, rows: usize) {
        let kind = match &w.layout {
            Layout::Int8 { .. } => Kind::Int8,
            Layout::Bf16 { .. } if !kernels.splits() => Kind::Bf16,
            _ => Kind::F32,
        };
        self.make_room(kernels, kind, (rows, w.in_features()));
    }

    /// Makes room for `rows` rows of the gradient of what `w` gives, `[out]` each.
    pub fn begin_backward(&mut self, kernels: &Kernels, w: &PackedWeight, rows: usize) {
        if let Layout::Int8 { backward, .. } = &w.layout
            && let Some(transpose) = backward.get()
        {
            return self.begin(kernels, transpose, rows);
        }
        let kind = match &w.layout {
            Layout::Bf16 { .. } if !kernels.splits() => Kind::Bf16,
            _ => Kind::F32,
        };
        self.make_room(kernels, kind, (rows, w.out_features()));
    }

    fn make_room(&mut self, kernels: &Kernels, kind: Kind, (rows, cols): (usize, usize)) {
        (self.kind, self.rows, self.cols, self.filled) = (kind, rows, cols, 0);
        match kind {
            Kind::F32 => {}
            Kind::Bf16 => {
                first(&mut self.words, kernels.bf16.lhs_words(rows, cols).div_ceil(COLUMNS));
            }
            Kind::Int8 => self.integers.reserve(rows, cols),
        }
    }

    /// True where rows are rounded: they need not stay where they were.
    pub fn rounds(&self) -> bool {
        self.kind != Kind::F32
    }

    /// The next row, `[in]`, or `[out]` of a gradient.
    ///
    /// # Panics
    /// Beyond the rows that there is room for, besides the shape.
    pub fn push(&mut self, kernels: &Kernels, x: &[f32]) {
        assert!(self.filled < self.rows && x.len() == self.cols, "row {} of {}", self.filled, self.rows);
        match self.kind {
            Kind::F32 => {}
            // SAFETY: a table exists only where this machine has its instructions.
            Kind::Bf16 => unsafe { kernels.bf16.push(x, self.filled, &mut self.words) },
            // SAFETY: as above.
            Kind::Int8 => unsafe { kernels.int8.push(x, self.filled, &mut self.integers) },
        }
        self.filled += 1;
    }

    /// All rows, which lie in `values [m, in]` where they are not rounded.
    ///
    /// # Panics
    /// If one was not pushed, besides the shape.
    pub fn of<'a>(&'a self, values: &'a [f32]) -> Left<'a> {
        assert!(self.filled == self.rows, "row {} of {}", self.filled, self.rows);
        let numbers = match self.kind {
            Kind::F32 => Numbers::F32(Mat::new(values, self.rows, self.cols)),
            Kind::Bf16 => Numbers::Bf16(&self.words),
            Kind::Int8 => Numbers::Int8(&self.integers),
        };
        Left { rows: self.rows, cols: self.cols, numbers }
    }
}
