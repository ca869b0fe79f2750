//! The three GELUs and their slopes.

use crate::exact::Exact;
use crate::problem::{Problem, Random, assert_gradient, central_differences, dot, every_isa};
use melo_kernels::{Gelu, Kernels};
use std::f64::consts::{FRAC_1_SQRT_2, PI};

const KINDS: [Gelu; 3] = [Gelu::Erf, Gelu::Tanh, Gelu::Quick];

/// The tanh form's argument and its slope.
fn tanh_argument(x: f64) -> (f64, f64) {
    let scale = (2.0 / PI).sqrt();
    (scale * (x + 0.044715 * x.powi(3)), scale * (1.0 + 3.0 * 0.044715 * x * x))
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn gelu(kind: Gelu, x: f64) -> f64 {
    match kind {
        Gelu::Erf => 0.5 * x * (1.0 + libm::erf(x * FRAC_1_SQRT_2)),
        Gelu::Tanh => 0.5 * x * (1.0 + tanh_argument(x).0.tanh()),
        Gelu::Quick => x * sigmoid(1.702 * x),
    }
}

fn slope(kind: Gelu, x: f64) -> f64 {
    match kind {
        Gelu::Erf => 0.5 * (1.0 + libm::erf(x * FRAC_1_SQRT_2)) + x * (-0.5 * x * x).exp() / (2.0 * PI).sqrt(),
        Gelu::Tanh => {
            let (argument, its_slope) = tanh_argument(x);
            let t = argument.tanh();
            0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * its_slope
        }
        Gelu::Quick => {
            let s = sigmoid(1.702 * x);
            s * (1.0 + 1.702 * x * (1.0 - s))
        }
    }
}

#[derive(Debug)]
struct Activation {
    kind: Gelu,
    backward: bool,
    len: usize,
    spread: f32,
}

impl Activation {
    fn inputs(&self) -> (Vec<f32>, Vec<f32>) {
        let mut random = Random::new(self.len);
        (random.around(self.len, 0.0, self.spread), random.values(self.len))
    }
}

impl Problem for Activation {
    /// `erf`, `tanh` and `σ` are within 5e-7, 3e-7 and 3e-7, at most five roundings of 1; three more to combine them.
    fn steps(&self) -> usize {
        8
    }

    /// Errors of the inner function come out times `x`, and in the slope of the tanh form also times its argument's slope.
    fn reference(&self) -> Vec<Exact> {
        let (x, d) = self.inputs();
        x.iter()
            .zip(d)
            .map(|(&x, d)| {
                let (x, d) = (f64::from(x), f64::from(d));
                match self.backward {
                    false => Exact { value: gelu(self.kind, x), mass: 0.5 * x.abs() },
                    true => {
                        let sensitivity = 0.5 + 0.5 * x.abs() * tanh_argument(x).1;
                        Exact { value: d * slope(self.kind, x), mass: d.abs() * sensitivity }
                    }
                }
            })
            .collect()
    }

    fn run(&self, kernels: &Kernels) -> Vec<f32> {
        let (x, mut d) = self.inputs();
        if self.backward {
            kernels.gelu_backward(self.kind, &x, &mut d);
            return d;
        }
        let mut y = vec![f32::NAN; x.len()];
        kernels.gelu(self.kind, &x, &mut y);
        y
    }
}

#[test]
fn gelu_and_its_slope_are_their_formulas() {
    for kind in KINDS {
        for backward in [false, true] {
            for len in [1, 3, 16, 17, 192, 3 * 768, 20_000] {
                for spread in [1.0, 6.0, 40.0] {
                    Activation { kind, backward, len, spread }.check();
                }
            }
        }
    }
}

#[test]
fn gelu_backward_is_the_derivative_of_gelu() {
    let mut random = Random::new(1);
    let (x, d_y) = (random.around(67, 0.0, 4.0), random.values(67));
    for kind in KINDS {
        let numeric = central_differences(&x, |x| dot(&x.iter().map(|&x| gelu(kind, x)).collect::<Vec<_>>(), &d_y));
        for k in every_isa() {
            let mut d = d_y.clone();
            k.gelu_backward(kind, &x, &mut d);
            assert_gradient(&format!("{kind:?}"), k, &d, &numeric);
        }
    }
}

#[test]
fn gelu_ends_where_it_should() {
    // `exp` is clamped, so what should vanish may keep 1e-34 of it.
    let near = |found: &[f32], expected: [f32; 3]| found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-30);
    for kind in KINDS {
        for k in every_isa() {
            let (x, mut y, mut d) = ([-1e4, 0.0, 1e4, f32::NAN], [7.0; 4], [1.0; 4]);
            k.gelu(kind, &x, &mut y);
            assert!(near(&y[..3], [0.0, 0.0, 1e4]), "{kind:?} on {}: {y:?}", k.isa);
            k.gelu_backward(kind, &x, &mut d);
            assert!(near(&d[..3], [0.0, 0.5, 1.0]), "{kind:?} on {}: {d:?}", k.isa);
            assert!(y[3].is_nan() && d[3].is_nan(), "{kind:?} on {} hides a NaN", k.isa);
        }
    }
}
