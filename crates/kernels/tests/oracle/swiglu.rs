//! SwiGLU's gate and its two slopes.

use crate::exact::Exact;
use crate::problem::{Problem, Random, assert_gradient, central_differences, dot, every_isa};
use melo_kernels::Kernels;

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `silu(gate) · up` of rows `[gate, up]`.
fn swiglu(h: &[f64], hidden: usize) -> Vec<f64> {
    let row = |h: &[f64]| (0..hidden).map(|i| h[i] * sigmoid(h[i]) * h[hidden + i]).collect::<Vec<_>>();
    h.chunks_exact(2 * hidden).flat_map(row).collect()
}

#[derive(Debug)]
struct Gate {
    m: usize,
    hidden: usize,
    backward: bool,
}

impl Gate {
    fn inputs(&self) -> (Vec<f32>, Vec<f32>) {
        let mut random = Random::new(self.m * self.hidden);
        (random.around(self.m * 2 * self.hidden, 0.0, 5.0), random.values(self.m * self.hidden))
    }
}

impl Problem for Gate {
    /// `σ` is within 3e-7, five roundings of 1; four more to combine it.
    fn steps(&self) -> usize {
        9
    }

    fn reference(&self) -> Vec<Exact> {
        let (h, d) = self.inputs();
        let wide: Vec<f64> = h.iter().map(|&x| f64::from(x)).collect();
        let hidden = self.hidden;
        if !self.backward {
            let masses = wide.chunks_exact(2 * hidden).flat_map(|h| (0..hidden).map(|i| (h[i] * h[hidden + i]).abs()));
            return swiglu(&wide, hidden).into_iter().zip(masses).map(|(value, mass)| Exact { value, mass }).collect();
        }
        let rows = wide.chunks_exact(2 * hidden).zip(d.chunks_exact(hidden));
        rows.flat_map(|(h, d)| {
            let of = |column: usize| {
                let (gate, up, d) = (h[column % hidden], h[hidden + column % hidden], f64::from(d[column % hidden]));
                let s = sigmoid(gate);
                match column < hidden {
                    true => Exact {
                        value: d * up * s * (1.0 + gate * (1.0 - s)),
                        mass: (d * up).abs() * (1.0 + gate.abs()),
                    },
                    false => Exact { value: d * gate * s, mass: (d * gate).abs() },
                }
            };
            (0..2 * hidden).map(of).collect::<Vec<_>>()
        })
        .collect()
    }

    fn run(&self, kernels: &Kernels) -> Vec<f32> {
        let (h, d) = self.inputs();
        let mut out = vec![f32::NAN; if self.backward { h.len() } else { d.len() }];
        match self.backward {
            true => kernels.swiglu_backward(&h, self.hidden, &d, &mut out),
            false => kernels.swiglu(&h, self.hidden, &mut out),
        }
        out
    }
}

#[test]
fn swiglu_and_its_slopes_are_their_formulas() {
    for (m, hidden) in [(1, 1), (1, 3), (5, 16), (3, 17), (2, 4096)] {
        for backward in [false, true] {
            Gate { m, hidden, backward }.check();
        }
    }
}

#[test]
fn swiglu_backward_is_the_derivative_of_swiglu() {
    let mut random = Random::new(1);
    let (h, d_g) = (random.around(2 * 3 * 7, 0.0, 3.0), random.values(3 * 7));
    let numeric = central_differences(&h, |h| dot(&swiglu(h, 7), &d_g));
    for k in every_isa() {
        let mut d_h = vec![f32::NAN; h.len()];
        k.swiglu_backward(&h, 7, &d_g, &mut d_h);
        assert_gradient("swiglu", k, &d_h, &numeric);
    }
}
