//! In which numbers matrix products are computed.

use crate::isa::Isa;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
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
    /// Each factor as the sum of two bfloat16 numbers, 16 significant bits or more; of their four products the three that
    /// count. As good as f32 for a prediction, at a third of the speed of [`Precision::Bf16`]
    /// (Henry, Tang and Heinecke, arXiv 1904.06376).
    Bf16x3,
    /// The frozen layers of a block in 8-bit integers with exact sums: weights rounded for each output channel, inputs for each
    /// row, both symmetric. All other products in [`Precision::beside_int8`].
    Int8,
}

impl Precision {
    /// Every precision.
    pub const ALL: [Precision; 4] = [Precision::F32, Precision::Bf16, Precision::Bf16x3, Precision::Int8];

    /// Numbers of a table's products, which layers in [`Precision::Int8`] leave to another.
    pub(crate) fn of_tables(self) -> Precision {
        if self == Precision::Int8 { Precision::beside_int8() } else { self }
    }

    /// What is not computed in integers beside layers that are: attention, and layers that integers would change too much.
    pub fn beside_int8() -> Precision {
        Precision::fastest()
    }

    /// bfloat16 where this processor multiplies it faster than f32, else f32.
    ///
    /// That is where there are AMX tiles, and AMD from Zen 4 on, where AVX512-BF16 does twice the work of an f32 FMA an
    /// instruction; Intel's implementation of the same instructions is slower than its f32 FMA.
    pub fn fastest() -> Precision {
        fastest_on(Isa::detect(), is_amd())
    }
}

fn fastest_on(isa: Isa, amd: bool) -> Precision {
    match isa {
        Isa::Amx => Precision::Bf16,
        Isa::Avx512Bf16 if amd => Precision::Bf16,
        _ => Precision::F32,
    }
}

#[cfg(target_arch = "x86_64")]
fn is_amd() -> bool {
    let leaf = crate::cpuid::cpuid(0);
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
            Precision::Bf16x3 => "bf16x3",
            Precision::Int8 => "int8",
        })
    }
}

/// A word that names no [`Precision`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownPrecision(String);

impl fmt::Display for UnknownPrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "precision `{}`: expected f32, bf16, bf16x3 or int8", self.0)
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

/// As the word that it displays as.
impl Serialize for Precision {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Precision {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bfloat16_is_faster_on_tiles_and_on_amd() {
        for (isa, [intel, amd]) in [
            (Isa::Portable, [Precision::F32; 2]),
            (Isa::Avx2, [Precision::F32; 2]),
            (Isa::AvxVnni, [Precision::F32; 2]),
            (Isa::Avx512, [Precision::F32; 2]),
            (Isa::Avx512Vnni, [Precision::F32; 2]),
            (Isa::Avx512Bf16, [Precision::F32, Precision::Bf16]),
            (Isa::Amx, [Precision::Bf16; 2]),
        ] {
            assert_eq!((fastest_on(isa, false), fastest_on(isa, true)), (intel, amd), "{isa}");
        }
    }

    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    #[test]
    fn the_vendor_is_the_one_that_linux_names() {
        let processors = std::fs::read_to_string("/proc/cpuinfo").expect("Linux tells of its processors");
        let vendor = processors.lines().find(|line| line.starts_with("vendor_id")).expect("x86-64 has vendors");
        assert_eq!(is_amd(), vendor.ends_with("AuthenticAMD"), "{vendor}");
    }
}
