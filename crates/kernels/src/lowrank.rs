//! Low-rank update `y += scale · B (A x)` (Hu et al., LoRA, arXiv 2106.09685, section 4.1).

use crate::table::Kernels;
use crate::view::{Mat, MatMut};

/// One low-rank update, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct LowRankUpdate<'a> {
    /// `A [r, in]`.
    pub a: &'a [f32],
    /// `B [out, r]`.
    pub b: &'a [f32],
    /// Rank `r`.
    pub rank: usize,
    /// `alpha / r`, a real number.
    pub scale: f32,
}

/// Where the gradients of one low-rank update are added.
#[derive(Debug)]
pub struct LowRankGradient<'a> {
    /// Gradient of `A [r, in]`.
    pub d_a: &'a mut [f32],
    /// Gradient of `B [out, r]`.
    pub d_b: &'a mut [f32],
}

impl LowRankUpdate<'_> {
    fn input(&self) -> usize {
        self.a.len() / self.rank
    }

    fn out(&self) -> usize {
        self.b.len() / self.rank
    }
}

impl Kernels {
    /// `y += scale · (x Aᵀ) Bᵀ`; `x [m, in]`; `y` holds `out` columns of rows that are `y_stride` apart.
    pub fn lowrank(&self, update: LowRankUpdate<'_>, x: &[f32], y: &mut [f32], y_stride: usize, z: &mut Vec<f32>) {
        let (input, out, rank) = (update.input(), update.out(), update.rank);
        let m = x.len() / input;
        z.resize(m * rank, 0.0);
        self.matmul(MatMut::new(z, m, rank), 0.0, 1.0, Mat::new(x, m, input), Mat::new(update.a, rank, input).t());
        self.matmul(
            MatMut::strided(y, m, out, y_stride),
            1.0,
            update.scale,
            Mat::new(z, m, rank),
            Mat::new(update.b, out, rank).t(),
        );
    }

    /// Adds to the gradients of `A` and `B`, and `scale · (d_y B) A` to `d_x` where one is given.
    ///
    /// `x, d_x [m, in]`; `d_y` holds `out` columns of rows that are `d_y_stride` apart.
    pub fn lowrank_backward(
        &self,
        update: LowRankUpdate<'_>,
        x: &[f32],
        (d_y, d_y_stride): (&[f32], usize),
        gradient: LowRankGradient<'_>,
        d_x: Option<&mut [f32]>,
        z: &mut Vec<f32>,
    ) {
        let (input, out, rank) = (update.input(), update.out(), update.rank);
        let m = x.len() / input;
        let x = Mat::new(x, m, input);
        let d_y = Mat::strided(d_y, m, out, d_y_stride);
        let a = Mat::new(update.a, rank, input);
        z.resize(m * rank, 0.0);
        self.matmul(MatMut::new(z, m, rank), 0.0, update.scale, x, a.t());
        self.matmul(MatMut::new(gradient.d_b, out, rank), 1.0, 1.0, d_y.t(), Mat::new(z, m, rank));
        self.matmul(MatMut::new(z, m, rank), 0.0, update.scale, d_y, Mat::new(update.b, out, rank));
        self.matmul(MatMut::new(gradient.d_a, rank, input), 1.0, 1.0, Mat::new(z, m, rank).t(), x);
        if let Some(d_x) = d_x {
            self.matmul(MatMut::new(d_x, m, input), 1.0, 1.0, Mat::new(z, m, rank), a);
        }
    }
}
