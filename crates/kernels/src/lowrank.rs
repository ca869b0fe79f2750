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
        let (z, b, _) = scratch(z, m * rank, out * rank, 0);
        transpose(update.b, rank, b);
        self.dots(Mat::new(x, m, input), update.a, update.scale, z);
        self.spread(z, b, MatMut::strided(y, m, out, y_stride));
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
        let (z, b, d_b) = scratch(z, m * rank, out * rank, out * rank);
        self.dots(x, update.a, update.scale, z);
        d_b.fill(0.0);
        self.gather(z, d_y, d_b);
        for (r, d_b) in d_b.chunks_exact(out).enumerate() {
            gradient.d_b[r..].iter_mut().step_by(rank).zip(d_b).for_each(|(sum, d)| *sum += d);
        }
        transpose(update.b, rank, b);
        self.dots(d_y, b, update.scale, z);
        self.gather(z, x, gradient.d_a);
        if let Some(d_x) = d_x {
            self.spread(z, update.a, MatMut::new(d_x, m, input));
        }
    }
}

/// `A x` and two matrices in the shape of `Bᵀ`, side by side in one buffer.
fn scratch(buffer: &mut Vec<f32>, z: usize, b: usize, d_b: usize) -> (&mut [f32], &mut [f32], &mut [f32]) {
    buffer.resize(z + b + d_b, 0.0);
    let (z, matrices) = buffer.split_at_mut(z);
    let (b, d_b) = matrices.split_at_mut(b);
    (z, b, d_b)
}

/// `x [n, cols]` to `y [cols, n]`.
fn transpose(x: &[f32], cols: usize, y: &mut [f32]) {
    for (column, y) in y.chunks_exact_mut((x.len() / cols).max(1)).enumerate() {
        y.iter_mut().zip(x[column..].iter().step_by(cols)).for_each(|(y, x)| *y = *x);
    }
}
