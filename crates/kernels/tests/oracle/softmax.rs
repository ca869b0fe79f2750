//! Softmax of rows, and its gradient.

use crate::exact::{Exact, sum};
use crate::problem::{Problem, ROWS, Random, assert_gradient, central_differences, dot, every_isa, wide};
use melo_kernels::Kernels;

/// Row lengths: tiny, around one register, the tokens of a ViT at 224 pixels.
const TOKENS: [usize; 7] = [1, 2, 5, 15, 16, 17, 197];

#[derive(Clone, Copy, Debug)]
enum Pass {
    Forward,
    Backward,
}

#[derive(Debug)]
struct Softmax {
    pass: Pass,
    m: usize,
    t: usize,
    scale: f32,
    /// Half the range of the scores.
    spread: f32,
}

impl Softmax {
    fn inputs(&self) -> (Vec<f32>, Vec<f32>) {
        let mut random = Random::new(self.m * 211 + self.t);
        let len = self.m * self.t;
        match self.pass {
            Pass::Forward => (random.around(len, self.spread / 2.0, self.spread), Vec::new()),
            Pass::Backward => (random.around(len, 0.5, 0.5), random.values(len)),
        }
    }
}

/// `softmax(scale · s)` of one row in f64.
pub(crate) fn softmax(scores: &[f64], scale: f64) -> Vec<f64> {
    let top = scores.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b * scale));
    let powers: Vec<f64> = scores.iter().map(|s| (s * scale - top).exp()).collect();
    let total: f64 = powers.iter().sum();
    powers.iter().map(|p| p / total).collect()
}

impl Problem for Softmax {
    fn steps(&self) -> usize {
        8 + self.t
    }

    /// `exp` is clamped at e^-87.3: what is smaller comes out as at most this.
    fn floor(&self) -> f64 {
        2e-38
    }

    fn reference(&self) -> Vec<Exact> {
        let t = self.t;
        let scale = f64::from(self.scale);
        let (x, d) = self.inputs();
        match self.pass {
            // A rounding of the scaled score or of the row's largest one moves its exponential by as much, relatively.
            Pass::Forward => x
                .chunks_exact(t)
                .flat_map(|row| {
                    let row = wide(row);
                    let largest = row.iter().fold(0.0, |a: f64, s| a.max((s * scale).abs()));
                    softmax(&row, scale).into_iter().map(move |p| Exact { value: p, mass: p * (1.0 + 2.0 * largest) })
                })
                .collect(),
            Pass::Backward => x
                .chunks_exact(t)
                .zip(d.chunks_exact(t))
                .flat_map(|(p, d)| {
                    let dot = sum(t, |j| Exact::of(p[j]) * Exact::of(d[j]));
                    (0..t).map(move |j| Exact::of(self.scale) * Exact::of(p[j]) * (Exact::of(d[j]) - dot))
                })
                .collect(),
        }
    }

    fn run(&self, kernels: &Kernels) -> Vec<f32> {
        let (mut x, mut d) = self.inputs();
        match self.pass {
            Pass::Forward => {
                kernels.softmax(&mut x, self.t, self.scale);
                x
            }
            Pass::Backward => {
                kernels.softmax_backward(&x, &mut d, self.t, self.scale);
                d
            }
        }
    }
}

#[test]
fn softmax_and_its_gradient_are_their_formulas() {
    for pass in [Pass::Forward, Pass::Backward] {
        for m in ROWS {
            for t in TOKENS {
                for (scale, spread) in [(1.0, 1.0), (0.125, 30.0), (1.0, 60.0), (1.0, 1000.0)] {
                    Softmax { pass, m, t, scale, spread }.check();
                }
            }
        }
    }
}

#[test]
fn softmax_backward_is_the_derivative_of_softmax() {
    for t in [2, 5, 17] {
        let mut random = Random::new(t);
        let (scores, d_p, scale) = (random.around(3 * t, 0.0, 2.0), random.values(3 * t), 0.5);
        let numeric = central_differences(&scores, |scores| {
            let p: Vec<f64> = scores.chunks_exact(t).flat_map(|row| softmax(row, f64::from(scale))).collect();
            dot(&p, &d_p)
        });
        for k in every_isa() {
            let (mut p, mut d) = (scores.clone(), d_p.clone());
            k.softmax(&mut p, t, scale);
            k.softmax_backward(&p, &mut d, t, scale);
            assert_gradient("softmax", k, &d, &numeric);
        }
    }
}
