//! Softmax over rows of attention scores, in place.

use crate::math::{exp, max, replace_by, sum_by};

/// `p = softmax(scale · s)` for every row of `s [m, t]`, in place.
#[inline(always)]
pub(crate) fn forward(scores: &mut [f32], t: usize, scale: f32) {
    assert!(scores.len().is_multiple_of(t), "softmax shapes");
    for row in scores.chunks_exact_mut(t) {
        let top = max(row) * scale;
        for s in row.iter_mut() {
            *s = exp(*s * scale - top);
        }
        let norm = 1.0 / sum_by([row], |[p]| p);
        for p in row.iter_mut() {
            *p *= norm;
        }
    }
}

/// `e^(scale · s - max)` for every row of `s [m, t]`, in place, and what makes probabilities of a row, `share [m]`: the reciprocal of
/// its sum.
#[inline(always)]
pub(crate) fn exponentials(scores: &mut [f32], t: usize, scale: f32, shares: &mut [f32]) {
    assert!(scores.len() == t * shares.len(), "softmax shapes");
    for (row, share) in scores.chunks_exact_mut(t).zip(shares) {
        let top = max(row) * scale;
        *share = 1.0 / replace_by(row, |s| exp(s * scale - top));
    }
}

/// `d_s = scale · p · (d_p - Σ p · d_p)` for every row, `d_p` replaced by `d_s`; `p, d_p [m, t]`.
#[inline(always)]
pub(crate) fn backward(p: &[f32], d_p: &mut [f32], t: usize, scale: f32) {
    assert!(p.len() == d_p.len() && p.len().is_multiple_of(t), "softmax shapes");
    for (p, d) in p.chunks_exact(t).zip(d_p.chunks_exact_mut(t)) {
        let dot = sum_by([p, d], |[p, d]| p * d);
        for (d, &p) in d.iter_mut().zip(p) {
            *d = scale * p * (*d - dot);
        }
    }
}
