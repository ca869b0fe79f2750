//! What a block does between its linear layers, on one image of ViT-Base, and attention on one of the quickstart's ViT: `cargo bench -p melo-kernels --bench kernels`.

use divan::Bencher;
use melo_kernels::{AttentionShape, Gelu, Kernels, LowRankUpdate, Precision};

/// Tokens of an image of 224 pixels in patches of 16, and the widths of ViT-Base.
const TOKENS: usize = 197;
const WIDTH: usize = 768;
const HIDDEN: usize = 4 * WIDTH;
const BASE: AttentionShape<'static> = AttentionShape { tokens: TOKENS, heads: 12, width: WIDTH, bias: None };
/// The ViT that formulas taught, on images of 96 pixels.
const FORMULA: AttentionShape<'static> = AttentionShape { tokens: 65, heads: 4, width: 128, bias: None };

/// Values in ±1 without a pattern that a processor could use.
fn values(len: usize) -> Vec<f32> {
    (0..len as u32).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

fn attention(bencher: Bencher<'_, '_>, shape: AttentionShape<'_>, precision: Precision) {
    let kernels = Kernels::detect(precision);
    let values_of_image = shape.tokens * shape.width;
    let (qkv, mut o, mut scores) = (values(3 * values_of_image), vec![0.0; values_of_image], Vec::new());
    bencher.bench_local(|| kernels.attention(shape, &qkv, &mut o, &mut scores));
}

#[divan::bench(args = Precision::ALL)]
fn attention_base(bencher: Bencher<'_, '_>, precision: Precision) {
    attention(bencher, BASE, precision);
}

#[divan::bench(args = Precision::ALL)]
fn attention_formula(bencher: Bencher<'_, '_>, precision: Precision) {
    attention(bencher, FORMULA, precision);
}

fn attention_backward(bencher: Bencher<'_, '_>, shape: AttentionShape<'_>, precision: Precision) {
    let kernels = Kernels::detect(precision);
    let values_of_image = shape.tokens * shape.width;
    let (qkv, d_o, mut scores) = (values(3 * values_of_image), values(values_of_image), Vec::new());
    let mut d_qkv = vec![0.0; qkv.len()];
    bencher.bench_local(|| kernels.attention_backward(shape, &qkv, &d_o, &mut d_qkv, &mut scores));
}

#[divan::bench(args = Precision::ALL)]
fn attention_backward_base(bencher: Bencher<'_, '_>, precision: Precision) {
    attention_backward(bencher, BASE, precision);
}

#[divan::bench(args = Precision::ALL)]
fn attention_backward_formula(bencher: Bencher<'_, '_>, precision: Precision) {
    attention_backward(bencher, FORMULA, precision);
}

#[divan::bench]
fn softmax(bencher: Bencher<'_, '_>) {
    let kernels = Kernels::detect(Precision::F32);
    let mut scores = values(TOKENS * TOKENS);
    bencher.bench_local(|| kernels.softmax(&mut scores, TOKENS, 1.0));
}

#[divan::bench]
fn layernorm(bencher: Bencher<'_, '_>) {
    let kernels = Kernels::detect(Precision::F32);
    let (x, gamma, beta, mut y) = (values(TOKENS * WIDTH), values(WIDTH), values(WIDTH), vec![0.0; TOKENS * WIDTH]);
    bencher.bench_local(|| kernels.layernorm(&x, &gamma, &beta, 1e-6, &mut y));
}

#[divan::bench]
fn layernorm_backward(bencher: Bencher<'_, '_>) {
    let kernels = Kernels::detect(Precision::F32);
    let (x, gamma, d_y, mut d_x) =
        (values(TOKENS * WIDTH), values(WIDTH), values(TOKENS * WIDTH), vec![0.0; TOKENS * WIDTH]);
    bencher.bench_local(|| kernels.layernorm_backward(&x, &gamma, 1e-6, &d_y, &mut d_x));
}

#[divan::bench]
fn gelu(bencher: Bencher<'_, '_>) {
    let kernels = Kernels::detect(Precision::F32);
    let (x, mut y) = (values(TOKENS * HIDDEN), vec![0.0; TOKENS * HIDDEN]);
    bencher.bench_local(|| kernels.gelu(Gelu::Erf, &x, &mut y));
}

#[divan::bench]
fn gelu_backward(bencher: Bencher<'_, '_>) {
    let kernels = Kernels::detect(Precision::F32);
    let (x, mut d) = (values(TOKENS * HIDDEN), values(TOKENS * HIDDEN));
    bencher.bench_local(|| kernels.gelu_backward(Gelu::Erf, &x, &mut d));
}

#[divan::bench(args = [4, 16])]
fn lowrank(bencher: Bencher<'_, '_>, rank: usize) {
    let kernels = Kernels::detect(Precision::F32);
    let (a, b, x) = (values(rank * WIDTH), values(rank * WIDTH), values(TOKENS * WIDTH));
    let update = LowRankUpdate { a: &a, b: &b, rank, scale: 1.0 };
    let (mut y, mut z) = (vec![0.0; TOKENS * WIDTH], Vec::new());
    bencher.bench_local(|| kernels.lowrank(update, &x, &mut y, WIDTH, &mut z));
}

fn main() {
    divan::main();
}
