//! GELU: `x · Φ(x)` (Hendrycks & Gimpel, arXiv 1606.08415) and its two approximations, element by element.

use crate::math::{erf, exp, sigmoid, tanh};
use std::f32::consts::FRAC_1_SQRT_2;

/// Which GELU a backbone was trained with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gelu {
    /// `x/2 · (1 + erf(x/√2))`: timm's and Hugging Face's default.
    Erf,
    /// `x/2 · (1 + tanh(√(2/π)(x + 0.044715 x³)))`: `gelu_tanh`, `gelu_new`.
    Tanh,
    /// `x · σ(1.702 x)`: OpenAI's CLIP.
    Quick,
}

/// `√(2/π)`.
const TANH_SCALE: f32 = 0.797_884_6;
/// Coefficient of x³ in the tanh form (arXiv 1606.08415, section 2).
const TANH_CUBIC: f32 = 0.044_715;
/// Slope of the sigmoid form (arXiv 1606.08415, section 2).
const QUICK_SLOPE: f32 = 1.702;
/// `1/√(2π)`.
const NORMAL_DENSITY: f32 = 0.398_942_3;

#[inline(always)]
fn apply(x: &[f32], y: &mut [f32], f: impl Fn(f32) -> f32) {
    assert_eq!(x.len(), y.len(), "gelu shapes");
    for (y, &x) in y.iter_mut().zip(x) {
        *y = f(x);
    }
}

#[inline(always)]
pub(crate) fn forward(kind: Gelu, x: &[f32], y: &mut [f32]) {
    match kind {
        Gelu::Erf => apply(x, y, |x| 0.5 * x * (1.0 + erf(x * FRAC_1_SQRT_2))),
        Gelu::Tanh => apply(x, y, |x| 0.5 * x * (1.0 + tanh(TANH_SCALE * (x + TANH_CUBIC * x * x * x)))),
        Gelu::Quick => apply(x, y, |x| x * sigmoid(QUICK_SLOPE * x)),
    }
}

/// `d := d · gelu'(x)`, in place.
#[inline(always)]
pub(crate) fn backward(kind: Gelu, x: &[f32], d: &mut [f32]) {
    assert_eq!(x.len(), d.len(), "gelu shapes");
    #[inline(always)]
    fn scale(x: &[f32], d: &mut [f32], slope: impl Fn(f32) -> f32) {
        for (d, &x) in d.iter_mut().zip(x) {
            *d *= slope(x);
        }
    }
    match kind {
        Gelu::Erf => scale(x, d, |x| 0.5 * (1.0 + erf(x * FRAC_1_SQRT_2)) + x * NORMAL_DENSITY * exp(-0.5 * x * x)),
        Gelu::Tanh => scale(x, d, |x| {
            let t = tanh(TANH_SCALE * (x + TANH_CUBIC * x * x * x));
            0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * TANH_SCALE * (1.0 + 3.0 * TANH_CUBIC * x * x)
        }),
        Gelu::Quick => scale(x, d, |x| {
            let s = sigmoid(QUICK_SLOPE * x);
            s * (1.0 + QUICK_SLOPE * x * (1.0 - s))
        }),
    }
}
