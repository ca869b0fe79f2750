//! Products with frozen weights, in f32 and bfloat16, forward and backward.

use super::{Both, Floats, Null, Number, Words, assert_close, random, run, wide};

/// Rows, out and in features: tiny, odd on every side of a tile, and ViT-Tiny's.
const SHAPES: [[usize; 3]; 6] = [[1, 1, 1], [5, 7, 3], [64, 64, 32], [65, 67, 33], [70, 24, 588], [197, 576, 192]];

/// Rounded to bfloat16 by the processor's own rule: to the nearest, ties to even.
fn rounded(values: &[f32]) -> Vec<f32> {
    values.iter().map(|&x| half::bf16::from_f32(x).to_f32()).collect()
}

/// As bfloat16, two in a word.
fn packed(values: &[f32]) -> Vec<u32> {
    let halves: Vec<u32> = values.iter().map(|&x| u32::from(half::bf16::from_f32(x).to_bits())).collect();
    halves.chunks(2).map(|pair| pair[0] | pair.get(1).map_or(0, |high| high << 16)).collect()
}

/// `Σ_k a(i, k) b(k, j)`.
fn product([m, n, k]: [usize; 3], a: impl Fn(usize, usize) -> f64, b: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    let entry = |at: usize| (0..k).map(|k| a(at / n, k) * b(k, at % n)).sum();
    (0..m * n).map(entry).collect()
}

#[test]
fn linear() {
    for [m, n, k] in SHAPES {
        let (x, weight, bias, y) = (random(m * k, 1), random(n * k, 2), random(n, 3), random(m * n, 4));
        let blocks = [n.div_ceil(64), m.div_ceil(64), 1];
        for (bf16, biased, accumulate) in [(false, true, 0), (false, false, 1), (true, true, 1), (true, false, 0)] {
            let words = packed(&weight);
            let of_weight = if bf16 { Words(&words) } else { Floats(&weight) };
            let of_bias = if biased { Floats(&bias) } else { Null };
            let given =
                [Floats(&x), Number(k), of_weight, of_bias, Both(&y), Number(n), Number(m), Number(n), Number(k)];
            let kernel = if bf16 { "linear_bf16" } else { "linear_f32" };
            let Some(found) = run(kernel, blocks, 128, &[&given[..], &[Number(accumulate)]].concat()) else { return };
            let (x, weight) = if bf16 { (rounded(&x), rounded(&weight)) } else { (x.clone(), weight.clone()) };
            let mut expected =
                product([m, n, k], |i, k_| f64::from(x[i * k + k_]), |k_, j| f64::from(weight[j * k + k_]));
            for (at, value) in expected.iter_mut().enumerate() {
                *value += if biased { f64::from(bias[at % n]) } else { 0.0 };
                *value += if accumulate == 1 { f64::from(y[at]) } else { 0.0 };
            }
            // Products of rounded numbers are exact in f32: what is left is the order of sums in f32, of up to 588 terms.
            assert_close(2e-6, &found[0], &expected, &format!("{kernel} of {m}, {n}, {k}"));
        }
    }
}

#[test]
fn linear_backward() {
    for [m, n, k] in SHAPES {
        let (d_y, weight) = (random(m * n, 1), random(n * k, 2));
        let blocks = [k.div_ceil(64), m.div_ceil(64), 1];
        for bf16 in [false, true] {
            let words = packed(&weight);
            let of_weight = if bf16 { Words(&words) } else { Floats(&weight) };
            let d_x = vec![0.0; m * k];
            let given = [Floats(&d_y), Number(n), of_weight, Both(&d_x), Number(k), Number(m), Number(k), Number(n)];
            let kernel = if bf16 { "linear_backward_bf16" } else { "linear_backward_f32" };
            let Some(found) = run(kernel, blocks, 128, &given) else { return };
            let (d_y, weight) = if bf16 { (rounded(&d_y), rounded(&weight)) } else { (d_y.clone(), weight.clone()) };
            let expected = product([m, k, n], |i, j| f64::from(d_y[i * n + j]), |j, i| f64::from(weight[j * k + i]));
            assert_close(2e-6, &found[0], &expected, &format!("{kernel} of {m}, {n}, {k}"));
        }
    }
}

/// What bfloat16 does with ties, infinities and NaN.
#[test]
fn rounding() {
    let odd = [1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, -1.0 - 1.0 / 256.0, f32::MAX, f32::INFINITY, 1e-40, 0.0, -0.0];
    let (m, k) = (odd.len(), 1);
    let one = packed(&[1.0]);
    let given =
        [Floats(&odd), Number(1), Words(&one), Null, Both(&[0.0; 8]), Number(1), Number(m), Number(1), Number(k)];
    let Some(found) = run("linear_bf16", [1, 1, 1], 128, &[&given[..], &[Number(0)]].concat()) else { return };
    let expected: Vec<f64> = wide(&rounded(&odd));
    assert_eq!(wide(&found[0])[..4], expected[..4]);
    assert_eq!(wide(&found[0])[6..], expected[6..]);
    let nan =
        [Floats(&[f32::NAN]), Number(1), Words(&one), Null, Both(&[0.0]), Number(1), Number(1), Number(1), Number(1)];
    let found = run("linear_bf16", [1, 1, 1], 128, &[&nan[..], &[Number(0)]].concat()).expect("as before");
    assert!(found[0][0].is_nan());
}
