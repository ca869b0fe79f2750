//! The left operand of a layer, made a row at a time: a row is rounded while what computed it is still in the first-level cache.

use crate::bf16;
use crate::int8;
use crate::linear::{Layout, PackedWeight};
use crate::product::{COLUMNS, first};
use crate::table::Kernels;
use crate::view::Mat;

/// Rows `[m, in]` as the product with a weight reads them, in buffers that are used again.
#[derive(Debug, Default)]
pub struct LeftRows {
    pub(crate) kind: Kind,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// Rows that are there already.
    filled: usize,
    pub(crate) values: Vec<f32>,
    pub(crate) words: Vec<bf16::Line>,
    pub(crate) integers: int8::Rounded,
}

/// What the rows of a weight's layout are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Kind {
    /// As they are, in `values`.
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
            Kind::F32 => {
                first(&mut self.values, rows * cols);
            }
            Kind::Bf16 => {
                first(&mut self.words, kernels.bf16.lhs_words(rows, cols).div_ceil(COLUMNS));
            }
            Kind::Int8 => self.integers.reserve(rows, cols),
        }
    }

    /// The next row, `[in]`, or `[out]` of a gradient.
    ///
    /// # Panics
    /// Beyond the rows that there is room for, besides the shape.
    pub fn push(&mut self, kernels: &Kernels, x: &[f32]) {
        assert!(self.filled < self.rows && x.len() == self.cols, "row {} of {}", self.filled, self.rows);
        match self.kind {
            Kind::F32 => self.values[self.filled * self.cols..][..self.cols].copy_from_slice(x),
            // SAFETY: a table exists only where this machine has its instructions.
            Kind::Bf16 => unsafe { kernels.bf16.push(x, self.filled, &mut self.words) },
            // SAFETY: as above.
            Kind::Int8 => unsafe { kernels.int8.push(x, self.filled, &mut self.integers) },
        }
        self.filled += 1;
    }

    /// The rows as they are.
    pub(crate) fn values(&self) -> Mat<'_> {
        Mat::new(&self.values[..self.rows * self.cols], self.rows, self.cols)
    }

    /// True when every row is there.
    pub(crate) fn is_full(&self) -> bool {
        self.filled == self.rows
    }
}
