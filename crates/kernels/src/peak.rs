//! Multiply-adds in registers and nothing else: what no product on this machine can exceed.
//!
//! Each round steps every one of a few independent sums, `s ← f · s + f`, enough of them that none waits for another:
//! latency times units is 8 for f32 on every x86-64 of the last ten years and at most 12 for AVX512-BF16.

use crate::isa::Isa;
use crate::precision::Precision;
use std::hint::black_box;

/// Each sum converges to `f / (1 - f)`, so that it stays finite and never becomes subnormal, however many rounds.
const FACTOR: f32 = 0.5;

/// Steps independent sums `rounds` times on one thread, and returns how many multiplications and additions that were.
///
/// In bfloat16 these are products of tiles on [`Isa::Amx`] and dot products of pairs on [`Isa::Avx512Bf16`], in 8-bit integers
/// products of tiles and dot products of four with VNNI; everywhere else it is the peak of f32 instructions.
///
/// # Panics
/// When this machine lacks the instruction set.
pub fn multiply_adds(isa: Isa, precision: Precision, rounds: u64) -> u64 {
    assert!(isa.is_available(), "{isa} on a machine without it");
    match (isa, precision) {
        // SAFETY: the machine has the instructions, as asserted above.
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        (Isa::Amx, Precision::Int8) => unsafe { crate::tile::integer_multiply_adds(rounds) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512Vnni | Isa::Avx512Bf16, Precision::Int8) => unsafe { x86::avx512_vnni(rounds) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Isa::AvxVnni, Precision::Int8) => unsafe { x86::avx_vnni(rounds) },
        // SAFETY: as above.
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        (Isa::Amx, Precision::Bf16 | Precision::Bf16x3) => unsafe { crate::tile::multiply_adds(rounds) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512Bf16, Precision::Bf16 | Precision::Bf16x3) => unsafe { x86::bf16_dot_products(rounds) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Bf16 | Isa::Amx, _) => unsafe { x86::avx512(rounds) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2 | Isa::AvxVnni, _) => unsafe { x86::avx2(rounds) },
        _ => portable(rounds),
    }
}

/// Twelve sums of four lanes: the vectors of every baseline target.
fn portable(rounds: u64) -> u64 {
    const FUSED: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));
    let mut sums = black_box([[0.0f32; 4]; 12]);
    let factor = black_box(FACTOR);
    for _ in 0..rounds {
        for sum in sums.as_flattened_mut() {
            *sum = if FUSED { sum.mul_add(factor, factor) } else { *sum * factor + factor };
        }
    }
    black_box(sums);
    rounds * 12 * 4 * 2
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::FACTOR;
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// Twelve sums: with the factor they fill the registers.
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2(rounds: u64) -> u64 {
        let mut sums = black_box([_mm256_setzero_ps(); 12]);
        let factor = black_box(_mm256_set1_ps(FACTOR));
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, factor, factor);
            }
        }
        black_box(sums);
        rounds * 12 * 8 * 2
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn avx512(rounds: u64) -> u64 {
        let mut sums = black_box([_mm512_setzero_ps(); 24]);
        let factor = black_box(_mm512_set1_ps(FACTOR));
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, factor, factor);
            }
        }
        black_box(sums);
        rounds * 24 * 16 * 2
    }

    /// `s ← s + x₀ y₀ + … + x₃ y₃` in each of 16 words: four times the work of an f32 instruction.
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn avx512_vnni(rounds: u64) -> u64 {
        let mut sums = black_box([_mm512_setzero_si512(); 24]);
        let factors = black_box(_mm512_set1_epi8(1));
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, factors, factors);
            }
        }
        black_box(sums);
        rounds * 24 * 16 * 4 * 2
    }

    /// The same in each of 8 words.
    #[target_feature(enable = "avx2,avxvnni")]
    pub(super) fn avx_vnni(rounds: u64) -> u64 {
        let mut sums = black_box([_mm256_setzero_si256(); 12]);
        let factors = black_box(_mm256_set1_epi8(1));
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_dpbusd_avx_epi32(*sum, factors, factors);
            }
        }
        black_box(sums);
        rounds * 12 * 8 * 4 * 2
    }

    /// `s ← s + x₀ y₀ + x₁ y₁` in each of 16 words: an instruction multiplies twice as often as an f32 one.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn bf16_dot_products(rounds: u64) -> u64 {
        let mut sums = black_box([_mm512_setzero_ps(); 24]);
        let ones = black_box(_mm512_set1_ps(FACTOR));
        let pairs = _mm512_cvtne2ps_pbh(ones, ones);
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, pairs, pairs);
            }
        }
        black_box(sums);
        rounds * 24 * 16 * 2 * 2
    }
}
