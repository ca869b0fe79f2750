//! Matrix products: `y = x Wᵀ + b` with a packed frozen weight, its gradients, and the general product below them.

use crate::table::Kernels;
use crate::view::{Mat, MatMut};

/// A weight `[out, in]` in the layout that the matrix product wants.
///
/// The portable layout is the row-major matrix itself.
#[derive(Clone, Debug)]
pub struct PackedWeight {
    rows: usize,
    cols: usize,
    data: Vec<f32>,
}

impl PackedWeight {
    /// Packs a dense row-major `[out, in]`.
    pub fn new(data: Vec<f32>, out: usize, input: usize) -> Self {
        assert!(out.checked_mul(input) == Some(data.len()), "{} values, expected [{out}, {input}]", data.len());
        PackedWeight { rows: out, cols: input, data }
    }

    /// Output features.
    pub fn out_features(&self) -> usize {
        self.rows
    }

    /// Input features.
    pub fn in_features(&self) -> usize {
        self.cols
    }

    fn mat(&self) -> Mat<'_> {
        Mat::new(&self.data, self.rows, self.cols)
    }
}

/// `c = keep · c + scale · a b` through the `gemm` crate, which picks its own micro-kernel.
pub(crate) fn matmul(c: MatMut<'_>, keep: f32, scale: f32, a: Mat<'_>, b: Mat<'_>) {
    assert!(
        a.cols == b.rows && c.rows == a.rows && c.cols == b.cols,
        "[{}, {}] · [{}, {}] into [{}, {}]",
        a.rows,
        a.cols,
        b.rows,
        b.cols,
        c.rows,
        c.cols
    );
    if c.rows == 0 || c.cols == 0 {
        return;
    }
    // SAFETY: a view's constructor asserts that its last element lies inside its slice, so offsets fit an `isize`;
    // `t()` keeps that set of elements; the rows of `c` do not overlap one another; the three shapes agree (asserted
    // above); `c` is borrowed mutably, so it overlaps neither input. With no inner dimension no input is read.
    unsafe {
        gemm::gemm(
            c.rows,
            c.cols,
            a.cols,
            c.data.as_mut_ptr(),
            1,
            c.row_stride as isize,
            keep != 0.0,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            keep,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

impl Kernels {
    /// `c = keep · c + scale · a b`; `a [m, k]`, `b [k, n]`, `c [m, n]`; `c` is not read when `keep` is 0.
    pub fn matmul(&self, c: MatMut<'_>, keep: f32, scale: f32, a: Mat<'_>, b: Mat<'_>) {
        (self.matmul)(c, keep, scale, a, b);
    }

    /// `y = x Wᵀ + b`; `x [m, in]`, `y [m, out]`, `bias [out]` or empty for none.
    pub fn linear(&self, x: &[f32], w: &PackedWeight, bias: &[f32], y: &mut [f32]) {
        self.linear_onto(x, w, bias, y, false);
    }

    /// `y += x Wᵀ + b`: the linear layer that ends a residual branch.
    pub fn linear_add(&self, x: &[f32], w: &PackedWeight, bias: &[f32], y: &mut [f32]) {
        self.linear_onto(x, w, bias, y, true);
    }

    fn linear_onto(&self, x: &[f32], w: &PackedWeight, bias: &[f32], y: &mut [f32], add: bool) {
        let (out, input) = (w.rows, w.cols);
        let m = x.len() / input;
        assert!(bias.is_empty() || bias.len() == out, "bias [{}] for [{out}, {input}]", bias.len());
        if !bias.is_empty() {
            for y in y.chunks_exact_mut(out) {
                if add {
                    y.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
                } else {
                    y.copy_from_slice(bias);
                }
            }
        }
        let keep = if add || !bias.is_empty() { 1.0 } else { 0.0 };
        self.matmul(MatMut::new(y, m, out), keep, 1.0, Mat::new(x, m, input), w.mat().t());
    }

    /// `d_x = d_y W`; `d_y [m, out]`, `d_x [m, in]`.
    pub fn linear_backward(&self, d_y: &[f32], w: &PackedWeight, d_x: &mut [f32]) {
        let m = d_y.len() / w.rows;
        self.matmul(MatMut::new(d_x, m, w.cols), 0.0, 1.0, Mat::new(d_y, m, w.rows), w.mat());
    }

    /// `d_w += d_yᵀ x`, `d_b += Σ d_y` over rows; `x [m, in]`, `d_y [m, out]`; an empty `d_b` is skipped.
    pub fn linear_backward_weight(&self, x: &[f32], d_y: &[f32], d_w: &mut [f32], d_b: &mut [f32], out: usize) {
        let (m, input) = (d_y.len() / out, d_w.len() / out);
        self.matmul(MatMut::new(d_w, out, input), 1.0, 1.0, Mat::new(d_y, m, out).t(), Mat::new(x, m, input));
        if !d_b.is_empty() {
            assert_eq!(d_b.len(), out, "bias gradient");
            for d_y in d_y.chunks_exact(out) {
                d_b.iter_mut().zip(d_y).for_each(|(b, d)| *b += d);
            }
        }
    }
}
