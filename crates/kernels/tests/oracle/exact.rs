//! Running error analysis: a value in f64 with the magnitude that f32 rounding errors of it are proportional to.

use std::iter::Sum;
use std::ops::{Add, Mul, Sub};

/// A number of an oracle.
///
/// A sum of `k` products computed in f32, in any order, is off by at most `k · ε · Σ |a b|` (Higham, *Accuracy and
/// Stability of Numerical Algorithms*, section 3.1): `mass` is that `Σ |a b|`, however much of it cancels in `value`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exact {
    pub(crate) value: f64,
    pub(crate) mass: f64,
}

impl Exact {
    pub(crate) const ZERO: Exact = Exact { value: 0.0, mass: 0.0 };

    /// An input.
    pub(crate) fn of(x: f32) -> Exact {
        Exact { value: f64::from(x), mass: f64::from(x).abs() }
    }

    /// A value that must be found bit for bit.
    pub(crate) fn untouched(x: f32) -> Exact {
        Exact { value: f64::from(x), mass: 0.0 }
    }
}

impl Add for Exact {
    type Output = Exact;
    fn add(self, other: Exact) -> Exact {
        Exact { value: self.value + other.value, mass: self.mass + other.mass }
    }
}

impl Sub for Exact {
    type Output = Exact;
    fn sub(self, other: Exact) -> Exact {
        Exact { value: self.value - other.value, mass: self.mass + other.mass }
    }
}

impl Mul for Exact {
    type Output = Exact;
    fn mul(self, other: Exact) -> Exact {
        Exact { value: self.value * other.value, mass: self.mass * other.mass }
    }
}

impl Sum for Exact {
    fn sum<I: Iterator<Item = Exact>>(terms: I) -> Exact {
        terms.fold(Exact::ZERO, Exact::add)
    }
}

/// Every value as an input of an oracle.
pub(crate) fn exact(x: &[f32]) -> Vec<Exact> {
    x.iter().map(|&x| Exact::of(x)).collect()
}

/// `Σ f(i)` over `0..len`.
pub(crate) fn sum(len: usize, f: impl Fn(usize) -> Exact) -> Exact {
    (0..len).map(f).sum()
}
