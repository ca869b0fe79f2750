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

/// The row stride of a view whose every element lies inside `len` values.
///
/// Pointer arithmetic relies on this assertion, so it must not wrap. The stride of a single row means nothing and is
/// replaced by its length: a stride that is kept is smaller than the slice.
fn checked_stride(len: usize, rows: usize, cols: usize, row_stride: usize) -> usize {
    if rows <= 1 || cols == 0 {
        assert!(rows * cols <= len, "view [{rows}, {cols}] leaves its {len} values");
        return cols;
    }
    assert!(cols <= row_stride, "rows overlap: {cols} columns, stride {row_stride}");
    let end = (rows - 1).checked_mul(row_stride).and_then(|start| start.checked_add(cols));
    assert!(
        end.is_some_and(|end| end <= len),
        "view [{rows}, {cols}] with stride {row_stride} leaves its {len} values"
    );
    row_stride
}

/// Asserts that a dense `[rows, cols]` has exactly `len` values.
fn assert_dense(len: usize, rows: usize, cols: usize) {
    assert!(rows.checked_mul(cols) == Some(len), "{len} values, expected [{rows}, {cols}]");
}

impl<'a> Mat<'a> {
    /// A dense row-major matrix, `[rows, cols]`.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_dense(data.len(), rows, cols);
        Self::strided(data, rows, cols, cols)
    }

    /// `cols` columns at the start of rows that are `row_stride` apart.
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        let row_stride = checked_stride(data.len(), rows, cols, row_stride);
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
        assert_dense(data.len(), rows, cols);
        Self::strided(data, rows, cols, cols)
    }

    /// `cols` columns at the start of rows that are `row_stride` apart.
    pub fn strided(data: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        let row_stride = checked_stride(data.len(), rows, cols, row_stride);
        MatMut { data, rows, cols, row_stride }
    }

    /// The same view for a shorter time.
    pub(crate) fn again(&mut self) -> MatMut<'_> {
        MatMut { data: self.data, rows: self.rows, cols: self.cols, row_stride: self.row_stride }
    }
}

/// Asserts that `a b` has the shape of `c`; shapes are `(rows, columns)`.
pub(crate) fn assert_product(c: &MatMut<'_>, (m, k): (usize, usize), (k_b, n): (usize, usize)) {
    assert!(k == k_b && c.rows == m && c.cols == n, "[{m}, {k}] · [{k_b}, {n}] into [{}, {}]", c.rows, c.cols);
}
