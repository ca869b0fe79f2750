//! In which numbers matrix products are computed.

use std::fmt;
use std::str::FromStr;

/// Numbers that go into the matrix products of a backbone. Sums, and everything between the products, are always f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Both factors as they are.
    #[default]
    F32,
    /// Both factors rounded to bfloat16 (8 significant bits, the exponents of f32), to the nearest, ties to even.
    Bf16,
}

impl Precision {
    /// Every precision.
    pub const ALL: [Precision; 2] = [Precision::F32, Precision::Bf16];

    /// bfloat16 where this processor multiplies it faster than f32, else f32.
    ///
    /// That is AMD from Zen 4 on, where AVX512-BF16 does twice the work of an f32 FMA an instruction; Intel's
    /// implementation of the same instructions is slower than its f32 FMA.
    pub fn fastest() -> Precision {
        if crate::Isa::Avx512Bf16.is_available() && is_amd() { Precision::Bf16 } else { Precision::F32 }
    }
}

#[cfg(target_arch = "x86_64")]
fn is_amd() -> bool {
    // SAFETY: every x86-64 processor has CPUID with leaf 0. (Newer compilers know that and make the call safe.)
    #[allow(unused_unsafe)]
    let leaf = unsafe { std::arch::x86_64::__cpuid(0) };
    [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD"
}

#[cfg(not(target_arch = "x86_64"))]
fn is_amd() -> bool {
    false
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        })
    }
}

/// A word that names no [`Precision`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownPrecision(String);

impl fmt::Display for UnknownPrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "precision `{}`: expected f32 or bf16", self.0)
    }
}

impl std::error::Error for UnknownPrecision {}

impl FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let known = Precision::ALL.into_iter().find(|precision| precision.to_string() == word);
        known.ok_or_else(|| UnknownPrecision(word.to_owned()))
    }
}
