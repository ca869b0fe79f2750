//! What every test of a kernel has in common: inputs from a seed, an oracle, a tolerance, and all instruction sets.

use crate::exact::Exact;
use melo_kernels::{Isa, Kernels, Precision};
use std::fmt::Debug;

/// Rows: one, few, an odd number, the tokens of a ViT at 224 pixels.
pub(crate) const ROWS: [usize; 4] = [1, 2, 3, 197];
/// Widths: tiny, around one register, heads, and the widths of ViT-Ti and ViT-B.
pub(crate) const WIDTHS: [usize; 7] = [1, 3, 16, 17, 64, 192, 768];

/// Numbers of a table's matrix products: 8-bit integers are a layout of weights, in a table of others.
pub(crate) const OF_TABLES: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::Bf16x3];

/// One call of a kernel.
pub(crate) trait Problem: Debug {
    /// Roundings on the longest path from an input to an output, whatever the order of summation.
    fn steps(&self) -> usize;
    /// Everything that the call may write, by an oracle in f64.
    fn reference(&self) -> Vec<Exact>;
    /// The same, computed by the kernel.
    fn run(&self, kernels: &Kernels) -> Vec<f32>;

    /// The precision of the matrix products. In bfloat16 the oracle rounds the inputs: what is left are f32 sums of
    /// products that f32 holds exactly.
    fn precision(&self) -> Precision {
        Precision::F32
    }

    /// Matrix products on the longest path. Where a factor is two bfloat16 numbers, each is off by at most 3 · 2⁻¹⁶ of what is
    /// multiplied: 2⁻¹⁶ for what either factor's two numbers leave out, and 2⁻¹⁶ for the product of both low ones.
    fn products(&self) -> usize {
        1
    }

    /// Roundings of intermediate results to bfloat16 on the longest path, each of at most 2⁻⁸.
    fn bf16_roundings(&self) -> usize {
        0
    }

    /// Errors beyond which an output is wrong, besides those of rounding.
    fn floor(&self) -> f64 {
        0.0
    }

    /// Holds every instruction set of this machine to the oracle.
    fn check(&self) {
        let expected = self.reference();
        let split = if self.precision() == Precision::Bf16x3 { self.products() as f64 * 3.0 / 65_536.0 } else { 0.0 };
        // Three sums where there was one.
        let steps = self.steps() * if split > 0.0 { 3 } else { 1 };
        let relative = steps as f64 * f64::from(f32::EPSILON) + self.bf16_roundings() as f64 / 256.0 + split;
        for kernels in every_isa_in(self.precision()) {
            let found = self.run(kernels);
            assert_eq!(found.len(), expected.len(), "{self:?} on {}", kernels.isa);
            for (index, (&found, expected)) in found.iter().zip(&expected).enumerate() {
                let error = (f64::from(found) - expected.value).abs();
                let bound = relative * expected.mass + self.floor();
                assert!(
                    error <= bound,
                    "{self:?} on {}: output {index} is {found}, expected {} ± {bound:e}",
                    kernels.isa,
                    expected.value
                );
            }
        }
    }
}

/// The tables that this machine can run; the portable one is always among them.
pub(crate) fn every_isa() -> impl Iterator<Item = &'static Kernels> {
    every_isa_in(Precision::F32)
}

/// The same for a precision of the matrix products. `MELO_ORACLE_ISA=amx` keeps one alone, for emulated processors.
pub(crate) fn every_isa_in(precision: Precision) -> impl Iterator<Item = &'static Kernels> {
    let only = std::env::var("MELO_ORACLE_ISA").ok();
    let wanted = |isa: &Isa| only.as_ref().is_none_or(|only| *only == isa.to_string());
    let tables: Vec<_> = Isa::ALL.into_iter().filter(wanted).filter_map(|isa| Kernels::with(isa, precision)).collect();
    assert!(!tables.is_empty(), "this machine runs no instruction set of MELO_ORACLE_ISA={}", only.unwrap_or_default());
    tables.into_iter()
}

/// The same for every precision.
pub(crate) fn every_table() -> impl Iterator<Item = &'static Kernels> {
    OF_TABLES.into_iter().flat_map(every_isa_in)
}

/// What a matrix product of this precision makes of its inputs.
pub(crate) fn rounded(precision: Precision, x: &[f32]) -> Vec<f32> {
    match precision {
        Precision::F32 | Precision::Bf16x3 => x.to_vec(),
        Precision::Bf16 => x.iter().map(|&x| to_bf16(x)).collect(),
        Precision::Int8 => unreachable!("no table multiplies in it"),
    }
}

/// The bfloat16 nearest to `x`, ties to even; numbers below the smallest normal one are zeros.
fn to_bf16(x: f32) -> f32 {
    if !x.is_normal() {
        return if x.is_subnormal() { 0.0 } else { x };
    }
    let exponent = (x.to_bits() >> 23 & 0xff) as i32 - 127;
    let unit = 2f64.powi(exponent - 7);
    ((f64::from(x) / unit).round_ties_even() * unit) as f32
}

/// A stream of numbers from a seed (SplitMix64, Steele et al., OOPSLA 2014).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: usize) -> Self {
        Random(seed as u64)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `len` values, uniform in ±1.
    pub(crate) fn values(&mut self, len: usize) -> Vec<f32> {
        self.around(len, 0.0, 1.0)
    }

    /// `len` values, uniform in `center ± spread`.
    pub(crate) fn around(&mut self, len: usize, center: f32, spread: f32) -> Vec<f32> {
        (0..len).map(|_| center + spread * ((self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0)).collect()
    }
}

/// Values in f64.
pub(crate) fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// Step of the central differences: in f64 it leaves `1e-16 / 1e-5` of rounding and `1e-10 · f'''` of truncation.
const STEP: f64 = 1e-5;

/// The gradient of `f` at `x`.
pub(crate) fn central_differences(x: &[f32], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let mut x = wide(x);
    (0..x.len())
        .map(|i| {
            let at = x[i];
            let mut moved = |to: f64| {
                x[i] = to;
                f(&x)
            };
            let slope = (moved(at + STEP) - moved(at - STEP)) / (2.0 * STEP);
            x[i] = at;
            slope
        })
        .collect()
}

/// `Σ a b`: a loss whose gradient on `a` is `b`.
pub(crate) fn dot(a: &[f64], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, &b)| a * f64::from(b)).sum()
}

/// Holds a backward kernel to central differences: within 64 roundings of the largest slope, and the differences' own
/// error, which stays below 1e-8 for inputs and third derivatives of order 1.
pub(crate) fn assert_gradient(what: &str, kernels: &Kernels, found: &[f32], numeric: &[f64]) {
    assert_eq!(found.len(), numeric.len(), "{what}");
    let largest = numeric.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
    assert!(largest > 0.0, "{what}: a gradient of zeros proves nothing");
    let bound = 64.0 * f64::from(f32::EPSILON) * largest + 1e-8;
    for (index, (&found, numeric)) in found.iter().zip(numeric).enumerate() {
        let error = (f64::from(found) - numeric).abs();
        assert!(error <= bound, "{what} on {}: slope {index} is {found}, expected {numeric} ± {bound:e}", kernels.isa);
    }
}
