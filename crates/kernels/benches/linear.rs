//! Linear layers of two images in every precision, forward and backward: `cargo bench -p melo-kernels`.
//!
//! The counter is in products and sums (2 · m · in · out): read it as FLOP/s.

use divan::Bencher;
use divan::counter::ItemsCount;
use melo_kernels::{Kernels, PackedWeight, Precision};
use std::fmt;

/// Rows: two images of 224 pixels in patches of 16.
const ROWS: usize = 2 * 197;

struct Layer {
    model: &'static str,
    name: &'static str,
    input: usize,
    out: usize,
    precision: Precision,
}

impl Layer {
    fn pack(&self, kernels: &Kernels) -> PackedWeight {
        let weight = values(self.out * self.input);
        match self.precision {
            Precision::Int8 => kernels.pack_int8(&weight, self.out, self.input).expect("finite"),
            _ => kernels.pack(weight, self.out, self.input),
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.model, self.name, self.precision)
    }
}

/// The four layers of a block of the quickstart's ViT, of ViT-Tiny and of ViT-Base.
fn layers() -> impl Iterator<Item = Layer> {
    let shapes = [("formula", 128), ("tiny", 192), ("base", 768)].into_iter().flat_map(|(model, d)| {
        let of_block = [("qkv", d, 3 * d), ("proj", d, d), ("fc1", d, 4 * d), ("fc2", 4 * d, d)];
        of_block.map(|(name, input, out)| (model, name, input, out))
    });
    shapes.flat_map(|(model, name, input, out)| {
        Precision::ALL.into_iter().map(move |precision| Layer { model, name, input, out, precision })
    })
}

/// Values in ±1 without a pattern that a processor could use.
fn values(len: usize) -> Vec<f32> {
    (0..len as u32).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

fn flops(layer: &Layer) -> ItemsCount {
    ItemsCount::new(2 * ROWS * layer.input * layer.out)
}

#[divan::bench(args = layers())]
fn forward(bencher: Bencher<'_, '_>, layer: &Layer) {
    let kernels = Kernels::detect(layer.precision);
    let weight = layer.pack(kernels);
    let (x, bias, mut y) = (values(ROWS * layer.input), values(layer.out), vec![0.0; ROWS * layer.out]);
    bencher.counter(flops(layer)).bench_local(|| kernels.linear(&x, &weight, &bias, &mut y));
}

#[divan::bench(args = layers())]
fn backward(bencher: Bencher<'_, '_>, layer: &Layer) {
    let kernels = Kernels::detect(layer.precision);
    let weight = layer.pack(kernels);
    let (d_y, mut d_x) = (values(ROWS * layer.out), vec![0.0; ROWS * layer.input]);
    bencher.counter(flops(layer)).bench_local(|| kernels.linear_backward(&d_y, &weight, &mut d_x));
}

#[divan::bench(args = layers())]
fn backward_weight(bencher: Bencher<'_, '_>, layer: &Layer) {
    let kernels = Kernels::detect(layer.precision);
    let (x, d_y) = (values(ROWS * layer.input), values(ROWS * layer.out));
    let mut d_w = vec![0.0; layer.out * layer.input];
    bencher
        .counter(flops(layer))
        .bench_local(|| kernels.linear_backward_weight(&x, &d_y, &mut d_w, &mut [], layer.out));
}

fn main() {
    divan::main();
}
