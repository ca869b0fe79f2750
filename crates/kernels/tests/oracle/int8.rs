//! 8-bit integers: sums are exact, and every instruction set gives the bits of the oracle.

use crate::problem::{Random, every_isa, every_table, rounded};
use melo_kernels::{Kernels, Precision};

/// Integers and what they mean: `x = middle + scale · number`.
struct Rounded {
    scale: f32,
    middle: f32,
    numbers: Vec<i64>,
}

impl Rounded {
    /// The nearest integers, ties to even, of which 127 are half the range.
    fn new(x: &[f32], middle: f32, half: f32) -> Self {
        let inverse = if half == 0.0 { 0.0 } else { 127.0 / half };
        let numbers = x.iter().map(|x| ((x - middle) * inverse).round_ties_even() as i64).collect();
        Rounded { scale: half / 127.0, middle, numbers }
    }

    /// An input, around the middle of its range.
    fn row(x: &[f32]) -> Self {
        let [high, low] = [f32::max, f32::min].map(|most| 0.5 * x.iter().copied().reduce(most).expect("not empty"));
        Rounded::new(x, high + low, high - low)
    }

    /// A weight, around zero.
    fn column(x: &[f32]) -> Self {
        Rounded::new(x, 0.0, x.iter().fold(0.0, |most: f32, x| most.max(x.abs())))
    }
}

struct Layer {
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    /// What is there already.
    y: Vec<f32>,
    shape: (usize, usize, usize),
}

impl Layer {
    fn new(seed: usize, shape @ (m, input, out): (usize, usize, usize)) -> Self {
        let mut random = Random::new(seed);
        let [x, weight, bias, y] = [m * input, out * input, out, m * out].map(|len| random.values(len));
        Layer { x, weight, bias, y, shape }
    }

    /// `y = x Wᵀ + b`, or added to what is there.
    fn reference(&self, bias: bool, add: bool) -> Vec<f32> {
        let (m, input, out) = self.shape;
        let rows: Vec<_> = self.x.chunks_exact(input).map(Rounded::row).collect();
        let columns: Vec<_> = self.weight.chunks_exact(input).map(Rounded::column).collect();
        let value = |at: usize| {
            let (row, column) = (&rows[at / out], &columns[at % out]);
            let sum: i64 = row.numbers.iter().zip(&column.numbers).map(|(a, b)| a * b).sum();
            let sum = i32::try_from(sum).expect("sums stay in 32 bits") as f32;
            let weights = column.numbers.iter().sum::<i64>() as f32;
            let value = (sum * row.scale + weights * row.middle) * column.scale;
            let value = if bias { value + self.bias[at % out] } else { value };
            if add { value + self.y[at] } else { value }
        };
        (0..m * out).map(value).collect()
    }

    fn run(&self, kernels: &Kernels, bias: bool, add: bool) -> Vec<f32> {
        let (_, input, out) = self.shape;
        let weight = kernels.pack_int8(&self.weight, out, input).expect("finite");
        let bias = if bias { &self.bias[..] } else { &[] };
        let mut y = self.y.clone();
        match add {
            true => kernels.linear_add(&self.x, &weight, bias, &mut y),
            false => kernels.linear(&self.x, &weight, bias, &mut y),
        }
        y
    }
}

#[test]
fn every_instruction_set_gives_the_bits_of_the_oracle() {
    let shapes = [1, 2, 11, 12, 13, 33, 197]
        .into_iter()
        .flat_map(|m| [(1, 1), (3, 17), (64, 16), (65, 33), (192, 48), (200, 70)].map(|(input, out)| (m, input, out)));
    for (seed, shape) in shapes.chain([(245, 768, 35), (3, 3072, 100)]).enumerate() {
        let layer = Layer::new(seed, shape);
        for (bias, add) in [(true, false), (false, false), (true, true), (false, true)] {
            let expected = layer.reference(bias, add);
            for kernels in every_isa() {
                assert!(
                    layer.run(kernels, bias, add) == expected,
                    "{shape:?} bias {bias} add {add} on {}",
                    kernels.isa
                );
            }
        }
    }
}

/// The largest sums there are, of either sign: where pairs of products are added in 16 bits they saturate.
#[test]
fn no_sum_saturates() {
    let shape @ (m, input, out) = (13, 4096, 35);
    let alternating = |len: usize, x: f32| (0..len).map(|at| if at % 2 == 0 { x } else { -x }).collect();
    for (a, b) in [(1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)] {
        let (x, weight) = (alternating(m * input, a), alternating(out * input, b));
        let layer = Layer { x, weight, ..Layer::new(0, shape) };
        let expected = (127 * 127 * input as i32) as f32 * (1.0 / 127.0) * (1.0 / 127.0) * a * b;
        for kernels in every_isa() {
            assert!(layer.run(kernels, false, false).iter().all(|&y| y == expected), "{a} {b} on {}", kernels.isa);
        }
    }
}

/// What comes out of a GELU lies between -0.17 and anything: of a range around zero it would use little more than half.
#[test]
fn a_row_of_one_sign_uses_all_integers() {
    let (m, input, out) = (4, 256, 24);
    let mut layer = Layer::new(5, (m, input, out));
    layer.x = Random::new(6).around(m * input, 2.0, 2.0);
    let exact = |at: usize| -> f64 {
        let (x, weight) = (&layer.x[at / out * input..][..input], &layer.weight[at % out * input..][..input]);
        let column = Rounded::column(weight);
        x.iter().zip(&column.numbers).map(|(&x, &b)| f64::from(x) * b as f64 * f64::from(column.scale)).sum()
    };
    // Independent errors of at most half a step each, whose length is a step over the root of twelve.
    let step = 4.0 / 254.0;
    let bound = 6.0 * step / 12f64.sqrt() * (input as f64).sqrt();
    for kernels in every_isa() {
        for (at, &y) in layer.run(kernels, false, false).iter().enumerate() {
            assert!((f64::from(y) - exact(at)).abs() < bound, "{at} on {}", kernels.isa);
        }
    }
}

#[test]
fn a_row_is_scaled_by_itself_alone() {
    let (m, input, out) = (20, 192, 40);
    let mut layer = Layer::new(1, (m, input, out));
    layer
        .x
        .chunks_exact_mut(input)
        .enumerate()
        .for_each(|(i, x)| x.iter_mut().for_each(|x| *x *= 10f32.powi(i as i32 - 10)));
    for kernels in every_isa() {
        let whole = layer.run(kernels, false, false);
        for i in 0..m {
            let alone = Layer {
                x: layer.x[i * input..(i + 1) * input].to_vec(),
                weight: layer.weight.clone(),
                ..Layer::new(0, (1, input, out))
            };
            assert_eq!(alone.run(kernels, false, false), whole[i * out..(i + 1) * out], "row {i} on {}", kernels.isa);
        }
    }
}

#[test]
fn zeros_stay_zeros_and_what_is_not_finite_stays_so_in_its_row() {
    let (m, input, out) = (6, 70, 20);
    let mut layer = Layer::new(2, (m, input, out));
    layer.x[..input].fill(0.0);
    layer.x[input..2 * input].fill(1e-42);
    for (row, x) in [(2, f32::NAN), (3, f32::INFINITY), (4, f32::NEG_INFINITY)] {
        layer.x[row * input + 5] = x;
    }
    for kernels in every_isa() {
        let y = layer.run(kernels, false, false);
        let rows: Vec<_> = y.chunks_exact(out).collect();
        assert!(rows[..2].iter().all(|row| row.iter().all(|&y| y.abs() < 1e-30)), "{}", kernels.isa);
        assert!(rows[2..5].iter().all(|row| row.iter().all(|y| y.is_nan())), "{}", kernels.isa);
        assert!(rows[5].iter().all(|y| y.is_finite()), "{}", kernels.isa);
    }
}

#[test]
fn weights_that_integers_cannot_hold_are_told() {
    for kernels in every_isa() {
        for x in [f32::NAN, f32::INFINITY] {
            assert!(kernels.pack_int8(&[0.5, x, 1.0, 2.0], 2, 2).is_none(), "{x} on {}", kernels.isa);
        }
        assert!(kernels.pack_int8(&vec![1.0; 70_000], 1, 70_000).is_none(), "{}", kernels.isa);
        assert!(kernels.pack_int8(&[0.0; 4], 2, 2).is_some(), "{}", kernels.isa);
    }
}

/// The gradient is that of the weight which is computed with, in the numbers of the table, whether or not it is kept for more of
/// them; what goes to a file stays the same.
#[test]
fn gradients_are_those_of_the_rounded_weight() {
    for (seed, (m, input, out)) in [(5, 67, 19), (1, 3, 1), (13, 192, 48), (33, 64, 70)].into_iter().enumerate() {
        let layer = Layer::new(seed, (m, input, out));
        let d_y = Random::new(seed + 10).values(m * out);
        let columns = layer.weight.chunks_exact(input).map(Rounded::column);
        let dense: Vec<f32> = columns
            .flat_map(|Rounded { scale, numbers, .. }| numbers.into_iter().map(move |x| x as f32 * scale))
            .collect();
        for kernels in every_table() {
            let what = format!("{m} {input} {out} in {} on {}", kernels.precision, kernels.isa);
            let [dense, d_y_rounded] = [&dense, &d_y].map(|x| rounded(kernels.precision, x));
            let bound = if kernels.precision == Precision::Bf16x3 { 1e-3 } else { 2e-5 };
            let weight = kernels.pack_int8(&layer.weight, out, input).expect("finite");
            let sections: Vec<_> = weight.sections().into_iter().map(<[u8]>::to_vec).collect();
            for kept in [false, true] {
                if kept {
                    kernels.prepare_backward(&weight);
                }
                let mut found = vec![f32::NAN; m * input];
                kernels.linear_backward(&d_y, &weight, &mut found);
                for (at, found) in found.iter().enumerate() {
                    let (i, l) = (at / input, at % input);
                    let term = |j: usize| f64::from(d_y_rounded[i * out + j]) * f64::from(dense[j * input + l]);
                    let expected: f64 = (0..out).map(term).sum();
                    assert!((f64::from(*found) - expected).abs() < bound, "{at}, {what}: {found} {expected}");
                }
            }
            assert!(weight.is_int8() && weight.sections() == sections, "{what}");
            assert_eq!(layer.run(kernels, true, false), layer.reference(true, false), "{what}");
        }
    }
}
