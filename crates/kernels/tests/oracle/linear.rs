//! `y = x Wᵀ + b`, the residual form, and both gradients.

use crate::exact::{Exact, exact, sum};
use crate::problem::{
    OF_TABLES, Problem, ROWS, Random, WIDTHS, assert_gradient, central_differences, dot, every_isa, every_table,
    rounded,
};
use melo_kernels::{Kernels, Precision};

#[derive(Clone, Copy, Debug)]
enum Pass {
    Forward,
    Add,
    BackwardInput,
    BackwardWeight,
}

#[derive(Debug)]
struct Linear {
    precision: Precision,
    pass: Pass,
    m: usize,
    input: usize,
    out: usize,
    bias: bool,
}

struct Inputs {
    x: Vec<f32>,
    w: Vec<f32>,
    b: Vec<f32>,
    /// `y` before the call, or its gradient.
    y: Vec<f32>,
    /// Gradients before the call, which are added to.
    d_w: Vec<f32>,
    d_b: Vec<f32>,
}

impl Linear {
    fn inputs(&self) -> Inputs {
        let &Linear { m, input, out, bias, .. } = self;
        let mut random = Random::new(m * 31 + input * 7 + out);
        let biases = if bias { out } else { 0 };
        Inputs {
            x: random.values(m * input),
            w: random.values(out * input),
            b: random.values(biases),
            y: random.values(m * out),
            d_w: random.values(out * input),
            d_b: random.values(biases),
        }
    }
}

impl Problem for Linear {
    fn precision(&self) -> Precision {
        self.precision
    }

    fn steps(&self) -> usize {
        3 + match self.pass {
            Pass::Forward | Pass::Add => self.input,
            Pass::BackwardInput => self.out,
            Pass::BackwardWeight => self.m,
        }
    }

    fn reference(&self) -> Vec<Exact> {
        let &Linear { m, input, out, .. } = self;
        let inputs = self.inputs();
        let [b, y, d_w, d_b] = [&inputs.b, &inputs.y, &inputs.d_w, &inputs.d_b].map(|v| exact(v));
        let bias = |j: usize| b.get(j).copied().unwrap_or(Exact::ZERO);
        let factor = |values: &[f32]| exact(&rounded(self.precision, values));
        let (x, w, d_y) = (factor(&inputs.x), factor(&inputs.w), factor(&inputs.y));
        let output = |at: usize| bias(at % out) + sum(input, |l| x[at / out * input + l] * w[at % out * input + l]);
        let row = |l: usize, j: usize| d_y[l * out + j];
        match self.pass {
            Pass::Forward => (0..m * out).map(output).collect(),
            Pass::Add => (0..m * out).map(|at| y[at] + output(at)).collect(),
            Pass::BackwardInput => {
                let slope = |at: usize| sum(out, |j| row(at / input, j) * w[j * input + at % input]);
                (0..m * input).map(slope).collect()
            }
            Pass::BackwardWeight => {
                let of_weight = |at: usize| d_w[at] + sum(m, |l| row(l, at / input) * x[l * input + at % input]);
                // Biases are added up, not multiplied: nothing is rounded.
                let of_bias = |j: usize| d_b[j] + sum(m, |l| y[l * out + j]);
                (0..out * input).map(of_weight).chain((0..d_b.len()).map(of_bias)).collect()
            }
        }
    }

    fn run(&self, kernels: &Kernels) -> Vec<f32> {
        let &Linear { m, input, out, .. } = self;
        let Inputs { x, w, b, mut y, mut d_w, mut d_b } = self.inputs();
        let w = kernels.pack(w, out, input);
        match self.pass {
            Pass::Forward => {
                y.fill(f32::NAN);
                kernels.linear(&x, &w, &b, &mut y);
                y
            }
            Pass::Add => {
                kernels.linear_add(&x, &w, &b, &mut y);
                y
            }
            Pass::BackwardInput => {
                let mut d_x = vec![f32::NAN; m * input];
                kernels.linear_backward(&y, &w, &mut d_x);
                d_x
            }
            Pass::BackwardWeight => {
                kernels.linear_backward_weight(&x, &y, &mut d_w, &mut d_b, out);
                d_w.extend(d_b);
                d_w
            }
        }
    }
}

#[test]
fn linear_and_its_gradients_are_their_sums() {
    let shapes = ROWS.into_iter().flat_map(|m| WIDTHS.map(|input| (m, input)));
    let mut shapes: Vec<_> = shapes.flat_map(|(m, input)| WIDTHS.map(|out| (m, input, out))).collect();
    // Longer than a block of pairs, of odd length; more rows than a block.
    shapes.extend([(13, 1501, 33), (13, 33, 1501), (1051, 5, 33), (250, 40, 70)]);
    let mut bias = false;
    for precision in OF_TABLES {
        for pass in [Pass::Forward, Pass::Add, Pass::BackwardInput, Pass::BackwardWeight] {
            for &(m, input, out) in &shapes {
                bias = !bias;
                Linear { precision, pass, m, input, out, bias }.check();
            }
        }
    }
}

#[test]
fn no_rows_add_nothing_to_a_weight_s_gradient() {
    for kernels in every_table() {
        let (mut d_w, mut d_b) = ([5.0; 6], [7.0; 2]);
        kernels.linear_backward_weight(&[], &[], &mut d_w, &mut d_b, 2);
        assert_eq!((d_w, d_b), ([5.0; 6], [7.0; 2]));
    }
}

#[test]
fn linear_backward_is_the_derivative_of_linear() {
    let (m, input, out) = (5, 16, 3);
    let Inputs { x, w, b, y: d_y, .. } =
        Linear { precision: Precision::F32, pass: Pass::Forward, m, input, out, bias: true }.inputs();
    let loss = |x: &[f64], w: &[f64], b: &[f64]| {
        let y: Vec<f64> = (0..m * out)
            .map(|at| b[at % out] + (0..input).map(|l| x[at / out * input + l] * w[at % out * input + l]).sum::<f64>())
            .collect();
        dot(&y, &d_y)
    };
    let wide = [&x, &w, &b].map(|v| crate::problem::wide(v));
    let numeric_x = central_differences(&x, |x| loss(x, &wide[1], &wide[2]));
    let numeric_w = central_differences(&w, |w| loss(&wide[0], w, &wide[2]));
    let numeric_b = central_differences(&b, |b| loss(&wide[0], &wide[1], b));
    for k in every_isa() {
        let (mut d_x, mut d_w, mut d_b) = (vec![0.0; x.len()], vec![0.0; w.len()], vec![0.0; b.len()]);
        k.linear_backward(&d_y, &k.pack(w.clone(), out, input), &mut d_x);
        k.linear_backward_weight(&x, &d_y, &mut d_w, &mut d_b, out);
        assert_gradient("linear x", k, &d_x, &numeric_x);
        assert_gradient("linear weight", k, &d_w, &numeric_w);
        assert_gradient("linear bias", k, &d_b, &numeric_b);
    }
}
