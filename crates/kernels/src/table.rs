//! The table of kernels: the loops of `norm`, `softmax` and `gelu` compiled once for each instruction set.

use crate::gelu::Gelu;
use crate::isa::Isa;
use crate::view::{Mat, MatMut};
use crate::{gelu, linear, norm, softmax};
use std::sync::OnceLock;

type Layernorm = unsafe fn(x: &[f32], gamma: &[f32], beta: &[f32], eps: f32, y: &mut [f32]);
type LayernormBackward = unsafe fn(x: &[f32], gamma: &[f32], eps: f32, d_y: &[f32], d_x: &mut [f32]);
type LayernormBackwardAffine = unsafe fn(x: &[f32], eps: f32, d_y: &[f32], d_gamma: &mut [f32], d_beta: &mut [f32]);

/// Function pointers of one instruction set.
///
/// The pointers are `unsafe` because calling one on a machine without its instructions is undefined;
/// [`Kernels::for_isa`] is the only way to a table and checks that first.
#[derive(Debug)]
pub struct Kernels {
    /// The instruction set in use.
    pub isa: Isa,
    pub(crate) matmul: fn(MatMut<'_>, f32, f32, Mat<'_>, Mat<'_>),
    layernorm: Layernorm,
    layernorm_backward: LayernormBackward,
    layernorm_backward_affine: LayernormBackwardAffine,
    softmax: unsafe fn(&mut [f32], usize, f32),
    softmax_backward: unsafe fn(&[f32], &mut [f32], usize, f32),
    gelu: unsafe fn(Gelu, &[f32], &mut [f32]),
    gelu_backward: unsafe fn(Gelu, &[f32], &mut [f32]),
}

/// Compiles every vector loop with the named target features and collects them in a table.
macro_rules! stamp {
    ($table:ident, $isa:expr $(, $feature:literal)?) => {
        mod $table {
            use super::*;

            $(#[target_feature(enable = $feature)])?
            fn layernorm(x: &[f32], gamma: &[f32], beta: &[f32], eps: f32, y: &mut [f32]) {
                norm::forward(x, gamma, beta, eps, y)
            }
            $(#[target_feature(enable = $feature)])?
            fn layernorm_backward(x: &[f32], gamma: &[f32], eps: f32, d_y: &[f32], d_x: &mut [f32]) {
                norm::backward(x, gamma, eps, d_y, d_x)
            }
            $(#[target_feature(enable = $feature)])?
            fn layernorm_backward_affine(x: &[f32], eps: f32, d_y: &[f32], d_gamma: &mut [f32], d_beta: &mut [f32]) {
                norm::backward_affine(x, eps, d_y, d_gamma, d_beta)
            }
            $(#[target_feature(enable = $feature)])?
            fn softmax(scores: &mut [f32], t: usize, scale: f32) {
                softmax::forward(scores, t, scale)
            }
            $(#[target_feature(enable = $feature)])?
            fn softmax_backward(p: &[f32], d_p: &mut [f32], t: usize, scale: f32) {
                softmax::backward(p, d_p, t, scale)
            }
            $(#[target_feature(enable = $feature)])?
            fn gelu(kind: Gelu, x: &[f32], y: &mut [f32]) {
                gelu::forward(kind, x, y)
            }
            $(#[target_feature(enable = $feature)])?
            fn gelu_backward(kind: Gelu, x: &[f32], d: &mut [f32]) {
                gelu::backward(kind, x, d)
            }

            pub(super) static TABLE: Kernels = Kernels {
                isa: $isa,
                matmul: linear::matmul,
                layernorm,
                layernorm_backward,
                layernorm_backward_affine,
                softmax,
                softmax_backward,
                gelu,
                gelu_backward,
            };
        }
    };
}

stamp!(portable, Isa::Portable);
#[cfg(target_arch = "x86_64")]
stamp!(avx2, Isa::Avx2, "avx2,fma");
#[cfg(target_arch = "x86_64")]
stamp!(avx512, Isa::Avx512, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma");

impl Kernels {
    /// The table of [`Isa::detect`], found once.
    pub fn detect() -> &'static Kernels {
        static DETECTED: OnceLock<&'static Kernels> = OnceLock::new();
        DETECTED.get_or_init(|| Kernels::for_isa(Isa::detect()).unwrap_or(&portable::TABLE))
    }

    /// The table of one instruction set, none where this machine lacks it.
    pub fn for_isa(isa: Isa) -> Option<&'static Kernels> {
        if !isa.is_available() {
            return None;
        }
        match isa {
            Isa::Portable => Some(&portable::TABLE),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Some(&avx2::TABLE),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Some(&avx512::TABLE),
            #[cfg(not(target_arch = "x86_64"))]
            _ => None,
        }
    }

    /// LayerNorm of rows: `y = (x - mean) / sqrt(var + eps) · gamma + beta`; `x, y [m, d]`, `gamma, beta [d]`.
    pub fn layernorm(&self, x: &[f32], gamma: &[f32], beta: &[f32], eps: f32, y: &mut [f32]) {
        // SAFETY: this table exists only where `Isa::is_available` held, so its instructions do too.
        unsafe { (self.layernorm)(x, gamma, beta, eps, y) }
    }

    /// Adds LayerNorm's input gradient to `d_x`; `x, d_y, d_x [m, d]`.
    pub fn layernorm_backward(&self, x: &[f32], gamma: &[f32], eps: f32, d_y: &[f32], d_x: &mut [f32]) {
        // SAFETY: as in `layernorm`.
        unsafe { (self.layernorm_backward)(x, gamma, eps, d_y, d_x) }
    }

    /// Adds LayerNorm's parameter gradients to `d_gamma [d]` and `d_beta [d]`; `x, d_y [m, d]`.
    pub fn layernorm_backward_affine(&self, x: &[f32], eps: f32, d_y: &[f32], d_gamma: &mut [f32], d_beta: &mut [f32]) {
        // SAFETY: as in `layernorm`.
        unsafe { (self.layernorm_backward_affine)(x, eps, d_y, d_gamma, d_beta) }
    }

    /// `softmax(scale · s)` of every row of `scores [m, t]`, in place.
    pub fn softmax(&self, scores: &mut [f32], t: usize, scale: f32) {
        // SAFETY: as in `layernorm`.
        unsafe { (self.softmax)(scores, t, scale) }
    }

    /// Replaces `d_p` by the gradient of the scores under `softmax(scale · s)`; `p, d_p [m, t]`.
    pub fn softmax_backward(&self, p: &[f32], d_p: &mut [f32], t: usize, scale: f32) {
        // SAFETY: as in `layernorm`.
        unsafe { (self.softmax_backward)(p, d_p, t, scale) }
    }

    /// `y = gelu(x)`, element by element.
    pub fn gelu(&self, kind: Gelu, x: &[f32], y: &mut [f32]) {
        // SAFETY: as in `layernorm`.
        unsafe { (self.gelu)(kind, x, y) }
    }

    /// `d := d · gelu'(x)`, element by element.
    pub fn gelu_backward(&self, kind: Gelu, x: &[f32], d: &mut [f32]) {
        // SAFETY: as in `layernorm`.
        unsafe { (self.gelu_backward)(kind, x, d) }
    }
}
