//! What this processor can do at most: multiply-adds in registers, and copies in memory, on all threads of the pool.

use crate::engine::Peak;
use melo_kernels::{Isa, Precision, multiply_adds};
use rayon::prelude::*;
use std::time::{Duration, Instant};

/// Measurements of which the best counts: anything else that runs only slows them down.
const TRIES: usize = 5;
/// Least time of a measurement.
const SHORTEST: Duration = Duration::from_millis(20);
/// Bytes copied by all threads together in one go: more than any cache holds.
const COPIED: usize = 256 << 20;

pub(crate) fn measure(isa: Isa, precision: Precision) -> Peak {
    Peak { flops_per_s: flops_per_s(isa, precision), copy_bytes_per_s: copy_bytes_per_s() }
}

/// Operations a second of all threads at once, with the instructions that products of this precision run on.
///
/// Products in f32 go through the `gemm-f32` crate, which takes the widest instructions that the machine has, whatever
/// `MELO_ISA` says.
fn flops_per_s(isa: Isa, precision: Precision) -> f64 {
    let widest = Isa::ALL.into_iter().rev().find(|isa| isa.is_available()).unwrap_or(Isa::Portable);
    let isa = if precision == Precision::F32 { widest } else { isa };
    let mut rounds = 1000;
    let mut run = || loop {
        let started = Instant::now();
        let done: u64 = rayon::broadcast(|_| multiply_adds(isa, precision, rounds)).into_iter().sum();
        let elapsed = started.elapsed();
        if elapsed >= SHORTEST {
            return done as f64 / elapsed.as_secs_f64();
        }
        rounds *= 2;
    };
    (0..TRIES).map(|_| run()).fold(0.0, f64::max)
}

/// Bytes read and written a second by all threads copying at once.
fn copy_bytes_per_s() -> f64 {
    let threads = rayon::current_num_threads();
    let mut buffers: Vec<_> =
        (0..threads).map(|_| (vec![1u8; COPIED / threads], vec![0u8; COPIED / threads])).collect();
    let bytes = 2 * threads * (COPIED / threads);
    let mut run = || {
        let started = Instant::now();
        buffers.par_iter_mut().with_max_len(1).for_each(|(from, to)| {
            to.copy_from_slice(from);
            std::hint::black_box(to);
        });
        bytes as f64 / started.elapsed().as_secs_f64()
    };
    (0..TRIES).map(|_| run()).fold(0.0, f64::max)
}
