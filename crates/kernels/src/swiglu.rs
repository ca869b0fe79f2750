//! SwiGLU's gate: `silu(gate) · up`, with `silu(x) = x · σ(x)` (Shazeer 2020, arXiv 2002.05202), row by row.

use crate::math::sigmoid;

/// `h [m, 2 · hidden]` holds `[gate, up]` in each row; `g [m, hidden]`.
#[inline(always)]
pub(crate) fn forward(h: &[f32], hidden: usize, g: &mut [f32]) {
    assert_eq!(h.len(), 2 * g.len(), "swiglu shapes");
    for (h, g) in h.chunks_exact(2 * hidden).zip(g.chunks_exact_mut(hidden)) {
        let (gate, up) = h.split_at(hidden);
        for ((g, &gate), up) in g.iter_mut().zip(gate).zip(up) {
            *g = gate * sigmoid(gate) * up;
        }
    }
}

/// Gradient `d_g [m, hidden]` of the output to that of the input, `d_h [m, 2 · hidden]`.
#[inline(always)]
pub(crate) fn backward(h: &[f32], hidden: usize, d_g: &[f32], d_h: &mut [f32]) {
    assert_eq!(h.len(), 2 * d_g.len(), "swiglu shapes");
    assert_eq!(h.len(), d_h.len(), "swiglu shapes");
    let rows = h.chunks_exact(2 * hidden).zip(d_h.chunks_exact_mut(2 * hidden));
    for ((h, d_h), d_g) in rows.zip(d_g.chunks_exact(hidden)) {
        let (gate, up) = h.split_at(hidden);
        let (d_gate, d_up) = d_h.split_at_mut(hidden);
        for ((((&gate, &up), d_gate), d_up), &d_g) in gate.iter().zip(up).zip(d_gate).zip(d_up).zip(d_g) {
            let s = sigmoid(gate);
            *d_gate = d_g * up * s * (1.0 + gate * (1.0 - s));
            *d_up = d_g * gate * s;
        }
    }
}
