//! LayerNorm, its input gradient and its parameters' gradients.

use crate::exact::Exact;
use crate::problem::{Problem, ROWS, Random, WIDTHS, assert_gradient, central_differences, dot, every_isa, wide};
use melo_kernels::Kernels;

#[derive(Clone, Copy, Debug)]
enum Pass {
    Forward,
    Backward,
    Affine,
}

#[derive(Debug)]
struct Layernorm {
    pass: Pass,
    m: usize,
    d: usize,
    /// Mean of the rows: far from zero, the variance must still be that of the differences.
    center: f32,
    /// Half the range of the rows: at 1e-3 the variance is of the order of `eps`.
    spread: f32,
    eps: f32,
}

struct Inputs {
    x: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    d_y: Vec<f32>,
    /// `d_x`, `d_gamma` and `d_beta` before the call, which are added to.
    before: Vec<f32>,
}

/// One normalised row, with the magnitude that rounding errors of its values are proportional to.
struct Row {
    normal: Vec<Exact>,
    /// `1 / sqrt(var + eps)`.
    scale: f64,
}

impl Layernorm {
    fn inputs(&self) -> Inputs {
        let &Layernorm { m, d, center, spread, .. } = self;
        let mut random = Random::new(m * 1009 + d);
        Inputs {
            x: random.around(m * d, center, spread),
            gamma: random.around(d, 1.0, 0.5),
            beta: random.values(d),
            d_y: random.values(m * d),
            before: random.values((m * d).max(2 * d)),
        }
    }

    /// `x - mean` is off by roundings of `x` and of the mean; the variance is a sum of squares, where nothing cancels.
    fn row(&self, x: &[f32]) -> Row {
        let x = wide(x);
        let d = x.len() as f64;
        let mean = x.iter().sum::<f64>() / d;
        let magnitude = x.iter().map(|x| x.abs()).sum::<f64>() / d;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / d;
        let scale = 1.0 / (variance + f64::from(self.eps)).sqrt();
        let normal = |x: &f64| Exact { value: (x - mean) * scale, mass: (x.abs() + magnitude) * scale };
        Row { normal: x.iter().map(normal).collect(), scale }
    }
}

fn mean(values: impl ExactSizeIterator<Item = Exact>) -> Exact {
    let share = Exact { value: 1.0 / values.len() as f64, mass: 1.0 / values.len() as f64 };
    share * values.sum()
}

impl Problem for Layernorm {
    fn steps(&self) -> usize {
        16 + self.d + if matches!(self.pass, Pass::Affine) { self.m } else { 0 }
    }

    fn reference(&self) -> Vec<Exact> {
        let d = self.d;
        let Inputs { x, gamma, beta, d_y, before } = self.inputs();
        let rows: Vec<Row> = x.chunks_exact(d).map(|x| self.row(x)).collect();
        let of = |values: &[f32], at: usize| Exact::of(values[at]);
        match self.pass {
            Pass::Forward => {
                (0..self.m * d).map(|at| rows[at / d].normal[at % d] * of(&gamma, at % d) + of(&beta, at % d)).collect()
            }
            Pass::Backward => rows
                .iter()
                .enumerate()
                .flat_map(|(i, row)| {
                    let g: Vec<Exact> = (0..d).map(|j| of(&d_y, i * d + j) * of(&gamma, j)).collect();
                    let mean_g = mean(g.iter().copied());
                    let mean_gx = mean((0..d).map(|j| g[j] * row.normal[j]));
                    let scale = Exact { value: row.scale, mass: row.scale };
                    let slope = |j: usize| scale * (g[j] - mean_g - row.normal[j] * mean_gx);
                    (0..d).map(|j| of(&before, i * d + j) + slope(j)).collect::<Vec<_>>()
                })
                .collect(),
            Pass::Affine => {
                let column = |j: usize| rows.iter().enumerate().map(move |(i, row)| (i * d + j, row.normal[j]));
                let of_gamma = |j: usize| of(&before, j) + column(j).map(|(at, x)| of(&d_y, at) * x).sum();
                let of_beta = |j: usize| of(&before, d + j) + column(j).map(|(at, _)| of(&d_y, at)).sum();
                (0..d).map(of_gamma).chain((0..d).map(of_beta)).collect()
            }
        }
    }

    fn run(&self, kernels: &Kernels) -> Vec<f32> {
        let (m, d) = (self.m, self.d);
        let Inputs { x, gamma, beta, d_y, mut before } = self.inputs();
        match self.pass {
            Pass::Forward => {
                let mut y = vec![f32::NAN; m * d];
                kernels.layernorm(&x, &gamma, &beta, self.eps, &mut y);
                y
            }
            Pass::Backward => {
                before.truncate(m * d);
                kernels.layernorm_backward(&x, &gamma, self.eps, &d_y, &mut before);
                before
            }
            Pass::Affine => {
                before.truncate(2 * d);
                let (d_gamma, d_beta) = before.split_at_mut(d);
                kernels.layernorm_backward_affine(&x, self.eps, &d_y, d_gamma, d_beta);
                before
            }
        }
    }
}

#[test]
fn layernorm_and_its_gradients_are_their_formulas() {
    for pass in [Pass::Forward, Pass::Backward, Pass::Affine] {
        for m in ROWS {
            for d in WIDTHS {
                for (center, spread, eps) in [(0.0, 1.0, 1e-6), (3.0, 1.0, 1e-12), (0.0, 1e-3, 1e-6), (0.0, 0.1, 1e-5)]
                {
                    Layernorm { pass, m, d, center, spread, eps }.check();
                }
            }
        }
    }
}

#[test]
fn a_constant_row_becomes_beta() {
    let beta = [0.5, -1.0, 2.0];
    for k in every_isa() {
        let mut y = [f32::NAN; 3];
        k.layernorm(&[4.0; 3], &[1.0; 3], &beta, 1e-6, &mut y);
        assert_eq!(y, beta);
    }
}

#[test]
fn the_variance_is_that_of_the_differences() {
    // Sums of these are exact in f32; the square of their mean is not, so that taking it from the mean of squares gives 2.
    let x: Vec<f32> = (0..32).map(|i| 4097.0 + if i % 2 == 0 { 1.0 } else { -1.0 }).collect();
    for k in every_isa() {
        let mut y = [f32::NAN; 32];
        k.layernorm(&x, &[1.0; 32], &[0.0; 32], 0.0, &mut y);
        assert!(y.iter().enumerate().all(|(i, &y)| y == if i % 2 == 0 { 1.0 } else { -1.0 }), "{y:?} on {}", k.isa);
    }
}

#[test]
fn layernorm_backward_is_the_derivative_of_layernorm() {
    for d in [3, 16, 17] {
        let problem = Layernorm { pass: Pass::Forward, m: 2, d, center: 0.5, spread: 1.0, eps: 1e-3 };
        let Inputs { x, gamma, beta, d_y, .. } = problem.inputs();
        let loss = |x: &[f64], gamma: &[f64], beta: &[f64]| {
            let rows = x.chunks_exact(d).flat_map(|x| {
                let mean = x.iter().sum::<f64>() / d as f64;
                let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / d as f64;
                let scale = (variance + f64::from(problem.eps)).sqrt();
                (0..d).map(move |j| (x[j] - mean) / scale * gamma[j] + beta[j])
            });
            dot(&rows.collect::<Vec<_>>(), &d_y)
        };
        let [wide_x, wide_gamma, wide_beta] = [&x, &gamma, &beta].map(|v| wide(v));
        let numeric_x = central_differences(&x, |x| loss(x, &wide_gamma, &wide_beta));
        let numeric_gamma = central_differences(&gamma, |gamma| loss(&wide_x, gamma, &wide_beta));
        let numeric_beta = central_differences(&beta, |beta| loss(&wide_x, &wide_gamma, beta));
        for k in every_isa() {
            let (mut d_x, mut d_gamma, mut d_beta) = (vec![0.0; 2 * d], vec![0.0; d], vec![0.0; d]);
            k.layernorm_backward(&x, &gamma, problem.eps, &d_y, &mut d_x);
            k.layernorm_backward_affine(&x, problem.eps, &d_y, &mut d_gamma, &mut d_beta);
            assert_gradient("layernorm x", k, &d_x, &numeric_x);
            assert_gradient("layernorm gamma", k, &d_gamma, &numeric_gamma);
            assert_gradient("layernorm beta", k, &d_beta, &numeric_beta);
        }
    }
}
