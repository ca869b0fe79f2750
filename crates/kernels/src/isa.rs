//! Which instruction set the vector loops and the matrix products run on: detected once, lowered by `MELO_ISA` for tests.
//!
//! The `gemm-f32` crate detects its own, for products in f32 alone: all of them on [`Isa::Portable`], and everywhere the gradient
//! of a weight.

use std::fmt;

/// Instruction sets with a kernel table, slowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// What the compiler's baseline target offers.
    Portable,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// The same with AVX-VNNI: products in [`Precision::Int8`](crate::Precision::Int8) have their own instructions.
    AvxVnni,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
    /// The same with VNNI, for the same products.
    Avx512Vnni,
    /// The same with BF16: products in [`Precision::Bf16`](crate::Precision::Bf16) have their own instructions.
    Avx512Bf16,
    /// The same with AMX: products in bfloat16 and of 8-bit integers are of tiles. Linux only, which a process asks for them.
    Amx,
}

impl Isa {
    /// Every instruction set, slowest first.
    pub const ALL: [Isa; 7] =
        [Isa::Portable, Isa::Avx2, Isa::AvxVnni, Isa::Avx512, Isa::Avx512Vnni, Isa::Avx512Bf16, Isa::Amx];

    /// True when this machine can run it.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => Isa::Avx2.is_available() && is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                Isa::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => Isa::Avx512.is_available() && is_x86_feature_detected!("avx512vnni"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => Isa::Avx512Vnni.is_available() && is_x86_feature_detected!("avx512bf16"),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Isa::Amx => Isa::Avx512Bf16.is_available() && crate::tile::is_available(),
            #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
            _ => false,
        }
    }

    /// The fastest available instruction set, no faster than `MELO_ISA` (the words of [`Isa`]'s `Display`) where it is set.
    ///
    /// # Panics
    /// When `MELO_ISA` holds another word: a forced test must not silently run on something else.
    pub fn detect() -> Isa {
        let ceiling = match std::env::var("MELO_ISA") {
            Err(_) => Isa::Amx,
            Ok(word) => *Isa::ALL.iter().find(|isa| isa.to_string() == word).unwrap_or_else(|| {
                panic!("MELO_ISA={word}: expected one of {}", Isa::ALL.map(|isa| isa.to_string()).join(", "))
            }),
        };
        Isa::ALL.into_iter().rev().find(|isa| *isa <= ceiling && isa.is_available()).unwrap_or(Isa::Portable)
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::AvxVnni => "avxvnni",
            Isa::Avx512 => "avx512",
            Isa::Avx512Vnni => "avx512vnni",
            Isa::Avx512Bf16 => "avx512bf16",
            Isa::Amx => "amx",
        })
    }
}
