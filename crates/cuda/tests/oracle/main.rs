//! Every kernel against f64, at odd, tiny and real sizes, run on the processor: in two orders of threads (`shim/host.h`), which must give
//! the same bytes, or a barrier is missing. Skipped, with a word, where there is no C++20 compiler. With MELO_TEST_CUDA on a card.

mod attention;
mod linear;
mod lowrank;
mod norm;
mod pointwise;
mod ptx;

use melo_cuda::{Address, Argument, Driver, Grid};
use melo_cuda_host::Host;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What a kernel is given.
#[derive(Clone, Copy)]
enum Given<'a> {
    /// f32 that it reads.
    Floats(&'a [f32]),
    /// Words that it reads: numbers, tables, bfloat16.
    Words(&'a [u32]),
    /// f32 that it reads and writes, and that come back.
    Both(&'a [f32]),
    /// So many f32 that it writes, and that come back.
    New(usize),
    Null,
    Number(usize),
    Float(f32),
}
use Given::{Both, Float, Floats, New, Null, Number, Words};

fn bytes(words: impl Iterator<Item = u32>) -> Vec<u8> {
    words.flat_map(u32::to_le_bytes).collect()
}

/// One run: what came back, in the order of the arguments.
fn run_on(
    host: &dyn Driver,
    kernel: &'static str,
    blocks: [usize; 3],
    threads: usize,
    given: &[Given<'_>],
) -> Vec<Vec<f32>> {
    let mut results = Vec::new();
    let mut place = |bytes: &[u8], back: bool| {
        let at = host.allocate(bytes.len().max(4)).expect("memory");
        // SAFETY: so many bytes were just allocated.
        unsafe { host.upload(at, bytes) }.expect("uploaded");
        if back {
            results.push((at, bytes.len()));
        }
        Argument::Pointer(Some(at))
    };
    let arguments: Vec<Argument> = given
        .iter()
        .map(|given| match *given {
            Floats(values) => place(&bytes(values.iter().map(|x| x.to_bits())), false),
            Both(values) => place(&bytes(values.iter().map(|x| x.to_bits())), true),
            Words(words) => place(&bytes(words.iter().copied()), false),
            New(floats) => place(&vec![0xff; 4 * floats], true),
            Null => Argument::Pointer(None),
            Number(number) => Argument::from(number),
            Float(number) => Argument::from(number),
        })
        .collect();
    // SAFETY: each test gives a kernel matrices of the shapes that it tells it; what is beside them is guarded.
    unsafe { host.launch(kernel, Grid { blocks, threads }, &arguments) }.expect("launched");
    let read = |(at, len): (Address, usize)| {
        let mut bytes = vec![0; len];
        // SAFETY: so many bytes were allocated there.
        unsafe { host.download(at, &mut bytes) }.expect("downloaded");
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes"))).collect()
    };
    results.into_iter().map(read).collect()
}

/// What a kernel gives, in any order of threads; none without a compiler.
fn run(kernel: &'static str, blocks: [usize; 3], threads: usize, given: &[Given<'_>]) -> Option<Vec<Vec<f32>>> {
    if std::env::var_os("MELO_TEST_CUDA").is_some() {
        return Some(run_on(&*melo_cuda::card(0).expect("a card"), kernel, blocks, threads, given));
    }
    let (rising, falling) = (Host::open()?, Host::open()?);
    falling.run_backwards();
    let found = run_on(&*rising, kernel, blocks, threads, given);
    let again = run_on(&*falling, kernel, blocks, threads, given);
    let bits = |results: &[Vec<f32>]| -> Vec<u32> { results.iter().flatten().map(|x| x.to_bits()).collect() };
    assert_eq!(bits(&found), bits(&again), "`{kernel}` depends on the order of threads");
    Some(found)
}

/// Blocks of a kernel with a thread an element.
fn elements(count: usize) -> [usize; 3] {
    [count.div_ceil(256), 1, 1]
}

fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| f64::from(x)).collect()
}

/// Asserts that no number is off by more than this share of the largest.
fn assert_close(share: f64, found: &[f32], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
    for (at, (&found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(found) - expected).abs();
        // NaN is no error that is small enough.
        assert!(error <= share * largest, "{what}: {at} is {found}, expected {expected}, off by {:e}", error / largest);
    }
}
