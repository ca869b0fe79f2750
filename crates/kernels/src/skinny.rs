//! Products with a matrix of few rows, in f32: a low-rank update has `r` of them, too few for a blocked matrix product.
//!
//! Every sum is as long as its inner dimension and runs in an order that depends on that length alone.

use crate::math::sum_by;
use crate::view::{Mat, MatMut};

/// Columns computed together: their sums stay in registers.
const COLUMNS: usize = 64;
/// Rows of the few that share a pass.
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
        let y = &mut y.data[i * y.row_stride..][..y.cols];
        let n = y.len();
        let (fours, rest) = z.as_chunks::<FEW>();
        for (z, few) in fours.iter().zip(few.chunks_exact(FEW * n)) {
            let (first, second) = few.split_at(2 * n);
            let ((f0, f1), (f2, f3)) = (first.split_at(n), second.split_at(n));
            for ((((y, f0), f1), f2), f3) in y.iter_mut().zip(f0).zip(f1).zip(f2).zip(f3) {
                *y = *y + z[0] * f0 + z[1] * f1 + z[2] * f2 + z[3] * f3;
            }
        }
        for (&z, few) in rest.iter().zip(few[fours.len() * FEW * n..].chunks_exact(n)) {
            y.iter_mut().zip(few).for_each(|(y, few)| *y += z * few);
        }
    }
}

/// `few += zᵀ x`; `z [m, r]`, `x [m, n]`, `few [r, n]`.
#[inline(always)]
pub(crate) fn gather(z: &[f32], x: Mat<'_>, few: &mut [f32]) {
    let rank = z.len() / x.rows.max(1);
    for column in (0..x.cols).step_by(COLUMNS) {
        let columns = COLUMNS.min(x.cols - column);
        for r in (0..rank).step_by(FEW) {
            let mut sums = [[0.0; COLUMNS]; FEW];
            for (i, z) in z.chunks_exact(rank).enumerate() {
                let x = &x.data[i * x.row_stride + column..][..columns];
                for (sums, &z) in sums.iter_mut().zip(&z[r..]) {
                    sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += z * x);
                }
            }
            for (few, sums) in few.chunks_exact_mut(x.cols).skip(r).zip(&sums) {
                few[column..].iter_mut().zip(&sums[..columns]).for_each(|(few, sum)| *few += sum);
            }
        }
    }
}
