//! The table of kernels: the vector loops and the products in bfloat16, compiled once for each instruction set.

use crate::bf16::{self, Lhs, Line, Products, Rhs};
use crate::gelu::Gelu;
use crate::int8;
use crate::isa::Isa;
use crate::precision::Precision;
use crate::product::Finish;
use crate::resample::{self, Taps};
use crate::sgemm;
use crate::view::{Mat, MatMut};
use crate::{gelu, norm, skinny, softmax, swiglu};
use std::sync::OnceLock;

type Layernorm = unsafe fn(x: &[f32], gamma: &[f32], beta: &[f32], eps: f32, y: &mut [f32]);
type LayernormBackward = unsafe fn(x: &[f32], gamma: &[f32], eps: f32, d_y: &[f32], d_x: &mut [f32]);
type LayernormBackwardAffine = unsafe fn(x: &[f32], eps: f32, d_y: &[f32], d_gamma: &mut [f32], d_beta: &mut [f32]);

/// Function pointers of one instruction set, and the precision of its matrix products.
///
/// The pointers are `unsafe` because calling one on a machine without its instructions is undefined;
/// [`Kernels::with`] is the only way to a table and checks that first.
#[derive(Debug)]
pub struct Kernels {
    /// The instruction set in use.
    pub isa: Isa,
    /// What goes into [`Kernels::matmul`], and so into attention and the gradients of weights. A packed weight has its
    /// own; low-rank updates are always in f32.
    pub precision: Precision,
    pub(crate) bf16: Products,
    pub(crate) int8: int8::Products,
    /// None where the `gemm-f32` crate multiplies f32.
    pub(crate) sgemm: Option<sgemm::Products>,
    layernorm: Layernorm,
    layernorm_backward: LayernormBackward,
    layernorm_backward_affine: LayernormBackwardAffine,
    softmax: unsafe fn(&mut [f32], usize, f32),
    exponentials: unsafe fn(&mut [f32], usize, f32, &mut [f32]),
    softmax_backward: unsafe fn(&[f32], &mut [f32], usize, f32),
    gelu: unsafe fn(Gelu, &[f32], &mut [f32]),
    gelu_backward: unsafe fn(Gelu, &[f32], &mut [f32]),
    swiglu: unsafe fn(&[f32], usize, &mut [f32]),
    swiglu_backward: unsafe fn(&[f32], usize, &[f32], &mut [f32]),
    dots: unsafe fn(Mat<'_>, &[f32], f32, &mut [f32]),
    spread: unsafe fn(&[f32], &[f32], MatMut<'_>),
    gather: unsafe fn(&[f32], Mat<'_>, &mut [f32]),
    resample_rows: unsafe fn(&[u8], usize, &Taps, &mut [u8]),
    resample_columns: unsafe fn(&[u8], &Taps, &mut [u8]),
}

/// Compiles every loop with the named target features and collects them in a table a precision.
macro_rules! stamp {
    ($table:ident, $isa:expr, $bf16:ident, $sgemm:expr, ($int8:path, $offset:expr) $(, $feature:literal)?) => {
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
            fn exponentials(scores: &mut [f32], t: usize, scale: f32, shares: &mut [f32]) {
                softmax::exponentials(scores, t, scale, shares)
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
            $(#[target_feature(enable = $feature)])?
            fn swiglu(h: &[f32], hidden: usize, g: &mut [f32]) {
                swiglu::forward(h, hidden, g)
            }
            $(#[target_feature(enable = $feature)])?
            fn swiglu_backward(h: &[f32], hidden: usize, d_g: &[f32], d_h: &mut [f32]) {
                swiglu::backward(h, hidden, d_g, d_h)
            }
            $(#[target_feature(enable = $feature)])?
            fn dots(x: Mat<'_>, few: &[f32], scale: f32, z: &mut [f32]) {
                skinny::dots(x, few, scale, z)
            }
            $(#[target_feature(enable = $feature)])?
            fn spread(z: &[f32], few: &[f32], y: MatMut<'_>) {
                skinny::spread(z, few, y)
            }
            $(#[target_feature(enable = $feature)])?
            fn gather(z: &[f32], x: Mat<'_>, few: &mut [f32]) {
                skinny::gather(z, x, few)
            }
            $(#[target_feature(enable = $feature)])?
            fn resample_rows(x: &[u8], channels: usize, taps: &Taps, y: &mut [u8]) {
                resample::along_rows(x, channels, taps, y)
            }
            $(#[target_feature(enable = $feature)])?
            fn resample_columns(x: &[u8], taps: &Taps, y: &mut [u8]) {
                resample::along_columns(x, taps, y)
            }
            $(#[target_feature(enable = $feature)])?
            fn lhs(x: Mat<'_>, words: &mut [u32]) {
                bf16::$bf16::lhs(x, words)
            }
            $(#[target_feature(enable = $feature)])?
            fn lhs_row(x: &[f32], i: usize, words: &mut [u32]) {
                bf16::$bf16::lhs_row(x, i, words)
            }
            $(#[target_feature(enable = $feature)])?
            fn rhs(x: Mat<'_>, lines: &mut [Line]) {
                bf16::$bf16::rhs(x, lines)
            }
            $(#[target_feature(enable = $feature)])?
            fn residual(x: &[f32], y: &mut [f32]) {
                bf16::$bf16::residual(x, y)
            }
            $(#[target_feature(enable = $feature)])?
            fn product(lhs: Lhs<'_>, rhs: Rhs<'_>, finish: Finish<'_>, c: MatMut<'_>) {
                bf16::$bf16::product(lhs, rhs, finish, c)
            }

            $(#[target_feature(enable = $feature)])?
            fn round(x: &[f32], numbers: &mut [i8]) -> int8::Row {
                int8::round::<false>(x, numbers)
            }
            $(#[target_feature(enable = $feature)])?
            fn round_weight(x: &[f32], numbers: &mut [i8]) -> int8::Row {
                int8::round::<true>(x, numbers)
            }
            $(#[target_feature(enable = $feature)])?
            fn integer_product(lhs: int8::Lhs<'_>, rhs: int8::Rhs<'_>, finish: Finish<'_>, c: MatMut<'_>) {
                $int8(lhs, rhs, finish, c)
            }

            const fn table(precision: Precision) -> Kernels {
                Kernels {
                    isa: $isa,
                    precision,
                    bf16: Products { steps: bf16::$bf16::STEPS, lhs, lhs_row, rhs, residual, product },
                    int8: int8::Products { offset: $offset, round, round_weight, product: integer_product },
                    sgemm: $sgemm,
                    layernorm,
                    layernorm_backward,
                    layernorm_backward_affine,
                    softmax,
                    exponentials,
                    softmax_backward,
                    gelu,
                    gelu_backward,
                    swiglu,
                    swiglu_backward,
                    dots,
                    spread,
                    gather,
                    resample_rows,
                    resample_columns,
                }
            }
            /// In the order of [`Precision::ALL`].
            pub(super) static TABLES: [Kernels; 3] =
                [table(Precision::F32), table(Precision::Bf16), table(Precision::Bf16x3)];
        }
    };
}

stamp!(portable, Isa::Portable, portable, None, (int8::portable::product, int8::portable::OFFSET));
#[cfg(target_arch = "x86_64")]
stamp!(
    avx2,
    Isa::Avx2,
    portable,
    Some(sgemm::x86::AVX2),
    (int8::x86::widened256, int8::x86::WIDENED_OFFSET),
    "avx2,fma"
);
#[cfg(target_arch = "x86_64")]
stamp!(
    avxvnni,
    Isa::AvxVnni,
    portable,
    Some(sgemm::x86::AVX2),
    (int8::x86::vnni256, int8::x86::VNNI_OFFSET),
    "avx2,avxvnni,fma"
);
#[cfg(target_arch = "x86_64")]
stamp!(
    avx512,
    Isa::Avx512,
    portable,
    Some(sgemm::x86::AVX512),
    (int8::x86::widened512, int8::x86::WIDENED_OFFSET),
    "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"
);
#[cfg(target_arch = "x86_64")]
stamp!(
    avx512vnni,
    Isa::Avx512Vnni,
    portable,
    Some(sgemm::x86::AVX512),
    (int8::x86::vnni512, int8::x86::VNNI_OFFSET),
    "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma"
);
#[cfg(target_arch = "x86_64")]
stamp!(
    avx512bf16,
    Isa::Avx512Bf16,
    x86,
    Some(sgemm::x86::AVX512),
    (int8::x86::vnni512, int8::x86::VNNI_OFFSET),
    "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma"
);
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
stamp!(
    amx,
    Isa::Amx,
    amx,
    Some(sgemm::x86::AVX512),
    (int8::amx::product, int8::amx::OFFSET),
    "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma"
);

impl Kernels {
    /// The table of [`Isa::detect`], found once, in this precision.
    pub fn detect(precision: Precision) -> &'static Kernels {
        static DETECTED: OnceLock<Isa> = OnceLock::new();
        let isa = *DETECTED.get_or_init(Isa::detect);
        Kernels::with(isa, precision).unwrap_or(&portable::TABLES[precision.of_tables() as usize])
    }

    /// The table of one instruction set in f32, none where this machine lacks it.
    pub fn for_isa(isa: Isa) -> Option<&'static Kernels> {
        Kernels::with(isa, Precision::F32)
    }

    /// The table of one instruction set and precision, none where this machine lacks the instructions.
    ///
    /// Every instruction set has bfloat16: without instructions for it, the same roundings are made by others.
    pub fn with(isa: Isa, precision: Precision) -> Option<&'static Kernels> {
        if !isa.is_available() {
            return None;
        }
        let tables = match isa {
            Isa::Portable => &portable::TABLES,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => &avx2::TABLES,
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => &avxvnni::TABLES,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => &avx512::TABLES,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => &avx512vnni::TABLES,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => &avx512bf16::TABLES,
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Isa::Amx => &amx::TABLES,
            #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
            _ => return None,
        };
        Some(&tables[precision.of_tables() as usize])
    }

    /// The same instruction set in f32, for what is small and steers everything: heads.
    pub fn in_f32(&self) -> &'static Kernels {
        Kernels::for_isa(self.isa).unwrap_or(&portable::TABLES[0])
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

    /// `e^(scale · s - max)` of every row of `scores [m, t]`, in place; times `shares [m]` they are its softmax.
    pub(crate) fn exponentials(&self, scores: &mut [f32], t: usize, scale: f32, shares: &mut [f32]) {
        // SAFETY: as in `layernorm`.
        unsafe { (self.exponentials)(scores, t, scale, shares) }
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

    /// SwiGLU's gate: `g = silu(gate) · up` with `h [m, 2 · hidden]` holding `[gate, up]` in each row; `g [m, hidden]`.
    pub fn swiglu(&self, h: &[f32], hidden: usize, g: &mut [f32]) {
        // SAFETY: as in `layernorm`.
        unsafe { (self.swiglu)(h, hidden, g) }
    }

    /// Writes the gradient of [`Kernels::swiglu`]'s input, `d_h [m, 2 · hidden]`, for that of its output, `d_g [m, hidden]`.
    pub fn swiglu_backward(&self, h: &[f32], hidden: usize, d_g: &[f32], d_h: &mut [f32]) {
        // SAFETY: as in `layernorm`.
        unsafe { (self.swiglu_backward)(h, hidden, d_g, d_h) }
    }

    /// `z = scale · x fewᵀ`; `x [m, k]`, `few [r, k]`, `z [m, r]`.
    pub(crate) fn dots(&self, x: Mat<'_>, few: &[f32], scale: f32, z: &mut [f32]) {
        // SAFETY: as in `layernorm`.
        unsafe { (self.dots)(x, few, scale, z) }
    }

    /// `y += z few`; `z [m, r]`, `few [r, n]`, `y [m, n]`.
    pub(crate) fn spread(&self, z: &[f32], few: &[f32], y: MatMut<'_>) {
        // SAFETY: as in `layernorm`.
        unsafe { (self.spread)(z, few, y) }
    }

    /// `few += zᵀ x`; `z [m, r]`, `x [m, n]`, `few [r, n]`.
    pub(crate) fn gather(&self, z: &[f32], x: Mat<'_>, few: &mut [f32]) {
        // SAFETY: as in `layernorm`.
        unsafe { (self.gather)(z, x, few) }
    }

    /// Resizes rows of 8-bit samples: `x [h, taps.inputs, channels]`, `y [h, outputs, channels]`, bit-equal on every instruction set.
    ///
    /// # Panics
    /// If a window of `taps` reaches beyond its `inputs`, besides the shapes.
    pub fn resample_rows(&self, x: &[u8], channels: usize, taps: &Taps, y: &mut [u8]) {
        // SAFETY: as in `layernorm`.
        unsafe { (self.resample_rows)(x, channels, taps, y) }
    }

    /// Resizes columns of 8-bit samples: `x [taps.inputs, width]`, `y [outputs, width]`, bit-equal on every instruction set.
    ///
    /// # Panics
    /// As [`Kernels::resample_rows`].
    pub fn resample_columns(&self, x: &[u8], taps: &Taps, y: &mut [u8]) {
        // SAFETY: as in `layernorm`.
        unsafe { (self.resample_columns)(x, taps, y) }
    }
}
