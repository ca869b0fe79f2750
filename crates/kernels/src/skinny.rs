//! Products with a matrix of few rows, in f32: a low-rank update has `r` of them, too few for a blocked matrix product.
//!
//! Every sum is as long as its inner dimension and runs in an order that depends on that length alone.

use crate::math::sum_by;
use crate::view::{Mat, MatMut};

/// Rows that share a pass over what they are added to.
const FEW: usize = 4;

/// `z = scale · x fewᵀ`; `x [m, k]`, `few [r, k]`, `z [m, r]`.
#[inline(always)]
pub(crate) fn dots(x: Mat<'_>, few: &[f32], scale: f32, z: &mut [f32]) {
    let rank = z.len() / x.rows.max(1);
    for (i, z) in z.chunks_exact_mut(rank.max(1)).enumerate() {
        let x = &x.data[i * x.row_stride..][..x.cols];
        for (z, few) in z.iter_mut().zip(few.chunks_exact(x.len())) {
            *z = scale * sum_by([x, few], |[x, few]| x * few);
        }
    }
}

/// `y += z few`; `z [m, r]`, `few [r, n]`, `y [m, n]`.
#[inline(always)]
pub(crate) fn spread(z: &[f32], few: &[f32], y: MatMut<'_>) {
    let rank = z.len() / y.rows.max(1);
    for (i, z) in z.chunks_exact(rank.max(1)).enumerate() {
        let n = y.cols;
        let y = &mut y.data[i * y.row_stride..][..n];
        let few = |r: usize| &few[r * n..(r + 1) * n];
        let fours = rank - rank % FEW;
        for r in (0..fours).step_by(FEW) {
            add::<FEW>(y, std::array::from_fn(|i| (z[r + i], few(r + i))));
        }
        (fours..rank).for_each(|r| add(y, [(z[r], few(r))]));
    }
}

/// `few += zᵀ x`; `z [m, r]`, `x [m, n]`, `few [r, n]`.
#[inline(always)]
pub(crate) fn gather(z: &[f32], x: Mat<'_>, few: &mut [f32]) {
    let rank = z.len() / x.rows.max(1);
    let row = |i: usize| &x.data[i * x.row_stride..][..x.cols];
    let fours = x.rows - x.rows % FEW;
    for first in (0..fours).step_by(FEW) {
        for (r, few) in few.chunks_exact_mut(x.cols).enumerate() {
            add::<FEW>(few, std::array::from_fn(|i| (z[(first + i) * rank + r], row(first + i))));
        }
    }
    for i in fours..x.rows {
        few.chunks_exact_mut(x.cols).zip(&z[i * rank..]).for_each(|(few, &z)| add(few, [(z, row(i))]));
    }
}

/// `y += Σ z x` over rows with their factors, the first of them first.
#[inline(always)]
fn add<const N: usize>(y: &mut [f32], rows: [(f32, &[f32]); N]) {
    let rows = rows.map(|(z, x)| (z, &x[..y.len()]));
    for (at, y) in y.iter_mut().enumerate() {
        for (z, x) in rows {
            *y = z.mul_add(x[at], *y);
        }
    }
}
