//! The loops that measure a machine's peak do the work that they say they did.

use melo_kernels::{Isa, Precision, multiply_adds};
use std::time::{Duration, Instant};

fn quickest(isa: Isa, precision: Precision, rounds: u64) -> Duration {
    let once = |_| {
        let started = Instant::now();
        multiply_adds(isa, precision, rounds);
        started.elapsed()
    };
    (0..5).map(once).min().expect("five times")
}

/// A loop that the compiler had folded would take no time, or the same for any number of rounds. Ten times the work must
/// take three times as long: a machine that is busy with something else does not lose more than that in the best of five.
#[test]
fn ten_times_the_rounds_are_ten_times_the_work_and_take_longer() {
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        for precision in Precision::ALL {
            let of = |rounds| multiply_adds(isa, precision, rounds);
            assert_eq!((of(0), of(70)), (0, 10 * of(7)), "{isa} {precision}");
            let (few, many) = (quickest(isa, precision, 20_000), quickest(isa, precision, 200_000));
            assert!(many > 3 * few, "{isa} {precision}: {few:?} and {many:?}");
        }
    }
}

/// AVX512-BF16 multiplies twice as often an instruction, VNNI four times; four products of 16 by 32 by 16 are what a round
/// does on tiles, and of 16 by 64 by 16 in 8-bit integers.
#[test]
fn a_round_counts_what_its_instructions_do() {
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        let [f32, bf16, split, int8] = Precision::ALL.map(|precision| multiply_adds(isa, precision, 3));
        let expected = match isa {
            Isa::Avx512Bf16 => [2 * f32, 4 * f32],
            Isa::AvxVnni | Isa::Avx512Vnni => [f32, 4 * f32],
            Isa::Amx => [32, 64].map(|numbers| 3 * 4 * 2 * 16 * numbers * 16),
            _ => [f32, f32],
        };
        assert_eq!(([bf16, int8], split), (expected, expected[0]), "{isa}");
    }
}
