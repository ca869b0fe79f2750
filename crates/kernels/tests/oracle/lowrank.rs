//! `y += scale · B (A x)` into some columns of a wider matrix, and its gradients.

use crate::exact::{Exact, exact, sum};
use crate::problem::{Problem, ROWS, Random, assert_gradient, central_differences, dot, every_isa, wide};
use melo_kernels::{Kernels, LowRankGradient, LowRankUpdate};

#[derive(Debug)]
struct LowRank {
    backward: bool,
    m: usize,
    input: usize,
    out: usize,
    rank: usize,
    /// `alpha / r`, below 1 too.
    scale: f32,
    /// Columns of `y` that belong to somebody else.
    gap: usize,
    /// Whether the input's gradient is asked for.
    d_x: bool,
}

struct Inputs {
    x: Vec<f32>,
    a: Vec<f32>,
    b: Vec<f32>,
    /// `y` before the call, or its gradient.
    y: Vec<f32>,
    /// Gradients before the call, which are added to.
    d_a: Vec<f32>,
    d_b: Vec<f32>,
    d_x: Vec<f32>,
}

impl LowRank {
    fn stride(&self) -> usize {
        self.out + self.gap
    }

    fn inputs(&self) -> Inputs {
        let &LowRank { m, input, out, rank, .. } = self;
        let mut random = Random::new(m + 13 * input + 101 * out + 1009 * rank);
        Inputs {
            x: random.values(m * input),
            a: random.values(rank * input),
            b: random.values(out * rank),
            y: random.values((m - 1) * self.stride() + out),
            d_a: random.values(rank * input),
            d_b: random.values(out * rank),
            d_x: random.values(if self.d_x { m * input } else { 0 }),
        }
    }
}

impl Problem for LowRank {
    fn steps(&self) -> usize {
        6 + self.rank + if self.backward { self.m + self.input.max(self.out) } else { self.input }
    }

    fn reference(&self) -> Vec<Exact> {
        let &LowRank { m, input, out, rank, .. } = self;
        let (stride, scale) = (self.stride(), Exact::of(self.scale));
        let inputs = self.inputs();
        let [x, a, b, y] = [&inputs.x, &inputs.a, &inputs.b, &inputs.y].map(|v| exact(v));
        let z: Vec<Exact> =
            (0..m * rank).map(|at| sum(input, |l| x[at / rank * input + l] * a[at % rank * input + l])).collect();
        if !self.backward {
            let mut expected: Vec<Exact> = inputs.y.iter().map(|&y| Exact::untouched(y)).collect();
            for (i, j) in (0..m).flat_map(|i| (0..out).map(move |j| (i, j))) {
                expected[i * stride + j] = y[i * stride + j] + scale * sum(rank, |l| b[j * rank + l] * z[i * rank + l]);
            }
            return expected;
        }
        let d_z: Vec<Exact> =
            (0..m * rank).map(|at| scale * sum(out, |j| y[at / rank * stride + j] * b[j * rank + at % rank])).collect();
        let of_a = |at: usize| sum(m, |i| d_z[i * rank + at / input] * x[i * input + at % input]);
        let of_b = |at: usize| scale * sum(m, |i| y[i * stride + at / rank] * z[i * rank + at % rank]);
        let of_x = |at: usize| sum(rank, |l| d_z[at / input * rank + l] * a[l * input + at % input]);
        let add = |before: &[f32], slope: &dyn Fn(usize) -> Exact| -> Vec<Exact> {
            before.iter().enumerate().map(|(at, &before)| Exact::of(before) + slope(at)).collect()
        };
        [add(&inputs.d_a, &of_a), add(&inputs.d_b, &of_b), add(&inputs.d_x, &of_x)].concat()
    }

    fn run(&self, kernels: &Kernels) -> Vec<f32> {
        let Inputs { x, a, b, mut y, mut d_a, mut d_b, mut d_x } = self.inputs();
        let update = LowRankUpdate { a: &a, b: &b, rank: self.rank, scale: self.scale };
        // Scratch of an earlier, larger call.
        let mut z = vec![f32::NAN; 10_000];
        if !self.backward {
            kernels.lowrank(update, &x, &mut y, self.stride(), &mut z);
            return y;
        }
        let gradient = LowRankGradient { d_a: &mut d_a, d_b: &mut d_b };
        let d_input = self.d_x.then_some(d_x.as_mut_slice());
        kernels.lowrank_backward(update, &x, (&y, self.stride()), gradient, d_input, &mut z);
        [d_a, d_b, d_x].concat()
    }
}

#[test]
fn lowrank_and_its_gradients_are_their_sums() {
    let mut d_x = false;
    for backward in [false, true] {
        for m in ROWS {
            for (input, out) in [(1, 1), (3, 17), (16, 3), (17, 64), (192, 192), (768, 768), (768, 192)] {
                for rank in [1, 3, 4, 16] {
                    d_x = !d_x;
                    for (scale, gap) in [(1.0, 0), (0.25, 2 * out)] {
                        LowRank { backward, m, input, out, rank, scale, gap, d_x }.check();
                    }
                }
            }
        }
    }
}

#[test]
fn lowrank_backward_is_the_derivative_of_lowrank() {
    let problem = LowRank { backward: true, m: 4, input: 7, out: 5, rank: 3, scale: 0.75, gap: 2, d_x: true };
    let &LowRank { m, input, out, rank, scale, .. } = &problem;
    let Inputs { x, a, b, y: d_y, .. } = problem.inputs();
    let loss = |x: &[f64], a: &[f64], b: &[f64]| {
        let mut y = vec![0.0; d_y.len()];
        for (i, j) in (0..m).flat_map(|i| (0..out).map(move |j| (i, j))) {
            let z = |l: usize| (0..input).map(|f| a[l * input + f] * x[i * input + f]).sum::<f64>();
            y[i * problem.stride() + j] = f64::from(scale) * (0..rank).map(|l| b[j * rank + l] * z(l)).sum::<f64>();
        }
        dot(&y, &d_y)
    };
    let [wide_x, wide_a, wide_b] = [&x, &a, &b].map(|v| wide(v));
    let numeric_x = central_differences(&x, |x| loss(x, &wide_a, &wide_b));
    let numeric_a = central_differences(&a, |a| loss(&wide_x, a, &wide_b));
    let numeric_b = central_differences(&b, |b| loss(&wide_x, &wide_a, b));
    for k in every_isa() {
        let (mut d_a, mut d_b, mut d_x) = (vec![0.0; a.len()], vec![0.0; b.len()], vec![0.0; x.len()]);
        let update = LowRankUpdate { a: &a, b: &b, rank, scale };
        let gradient = LowRankGradient { d_a: &mut d_a, d_b: &mut d_b };
        k.lowrank_backward(update, &x, (&d_y, problem.stride()), gradient, Some(&mut d_x), &mut Vec::new());
        assert_gradient("lowrank x", k, &d_x, &numeric_x);
        assert_gradient("lowrank a", k, &d_a, &numeric_a);
        assert_gradient("lowrank b", k, &d_b, &numeric_b);
    }
}
