//! Borrowed matrices with strides: rows of a batch, heads of a fused projection, transposes, all without copies.

/// A read-only `[rows, cols]` view.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) row_stride: usize,
    pub(crate) col_stride: usize,
}

/// A writable `[rows, cols]` view whose columns are adjacent.
#[derive(Debug)]
pub struct MatMut<'a> {
    pub(crate) data: &'a mut [f32],
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) row_stride: usize,
}

/// Asserts that a view of this shape ends inside `len` values.
fn assert_inside(len: usize, rows: usize, cols: usize, row_stride: usize) {
    assert!(cols <= row_stride || rows <= 1, "rows overlap: {cols} columns, stride {row_stride}");
    if rows > 0 && cols > 0 {
        let end = (rows - 1) * row_stride + cols;
        assert!(end <= len, "view [{rows}, {cols}] with stride {row_stride} ends at {end} of {len}");
    }
}

impl<'a> Mat<'a> {
    /// A dense row-major matrix, `[rows, cols]`.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "expected [{rows}, {cols}]");
        Self::strided(data, rows, cols, cols)
    }

    /// `cols` columns at the start of rows that are `row_stride` apart.
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert_inside(data.len(), rows, cols, row_stride);
        Mat { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// The transpose, `[cols, rows]`.
    pub fn t(self) -> Self {
        Mat { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }
}

impl<'a> MatMut<'a> {
    /// A dense row-major matrix, `[rows, cols]`.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "expected [{rows}, {cols}]");
        Self::strided(data, rows, cols, cols)
    }

    /// `cols` columns at the start of rows that are `row_stride` apart.
    pub fn strided(data: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert_inside(data.len(), rows, cols, row_stride);
        MatMut { data, rows, cols, row_stride }
    }
}
