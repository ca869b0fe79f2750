//! LayerNorm over rows: `y = (x - mean) / sqrt(var + eps) · gamma + beta`, `x, y [m, d]`, `gamma, beta [d]`.
//!
//! Backward recomputes the statistics from `x`: reading a row again is cheaper than keeping them.

use crate::math::sum_by;

/// Mean and reciprocal standard deviation of one row.
#[inline(always)]
fn statistics(x: &[f32], eps: f32) -> (f32, f32) {
    let d = x.len() as f32;
    let mean = sum_by([x], |[x]| x) / d;
    let variance = sum_by([x], |[x]| (x - mean) * (x - mean)) / d;
    (mean, 1.0 / (variance + eps).sqrt())
}

#[inline(always)]
pub(crate) fn forward(x: &[f32], gamma: &[f32], beta: &[f32], eps: f32, y: &mut [f32]) {
    let d = gamma.len();
    assert!(beta.len() == d && x.len() == y.len() && x.len().is_multiple_of(d), "layernorm shapes");
    for (x, y) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)) {
        let (mean, scale) = statistics(x, eps);
        for (((y, &x), &gamma), &beta) in y.iter_mut().zip(x).zip(gamma).zip(beta) {
            *y = (x - mean) * scale * gamma + beta;
        }
    }
}

/// `d_x += scale · (g - mean(g) - x̂ · mean(g · x̂))` with `g = d_y · gamma`.
#[inline(always)]
pub(crate) fn backward(x: &[f32], gamma: &[f32], eps: f32, d_y: &[f32], d_x: &mut [f32]) {
    let d = gamma.len();
    assert!(x.len() == d_y.len() && x.len() == d_x.len() && x.len().is_multiple_of(d), "layernorm shapes");
    for ((x, d_y), d_x) in x.chunks_exact(d).zip(d_y.chunks_exact(d)).zip(d_x.chunks_exact_mut(d)) {
        let (mean, scale) = statistics(x, eps);
        let mean_g = sum_by([d_y, gamma], |[d_y, gamma]| d_y * gamma) / d as f32;
        let mean_gx = sum_by([d_y, gamma, x], |[d_y, gamma, x]| d_y * gamma * (x - mean) * scale) / d as f32;
        for (((d_x, &d_y), &x), &gamma) in d_x.iter_mut().zip(d_y).zip(x).zip(gamma) {
            *d_x += scale * (d_y * gamma - mean_g - (x - mean) * scale * mean_gx);
        }
    }
}

/// `d_gamma += Σ d_y · x̂`, `d_beta += Σ d_y`, over rows.
#[inline(always)]
pub(crate) fn backward_affine(x: &[f32], eps: f32, d_y: &[f32], d_gamma: &mut [f32], d_beta: &mut [f32]) {
    let d = d_gamma.len();
    assert!(x.len() == d_y.len() && x.len().is_multiple_of(d) && d_beta.len() == d, "layernorm shapes");
    for (x, d_y) in x.chunks_exact(d).zip(d_y.chunks_exact(d)) {
        let (mean, scale) = statistics(x, eps);
        for (((d_gamma, d_beta), &d_y), &x) in d_gamma.iter_mut().zip(d_beta.iter_mut()).zip(d_y).zip(x) {
            *d_gamma += d_y * (x - mean) * scale;
            *d_beta += d_y;
        }
    }
}
