//! A control chart of one figure: is what comes now what the reference was?
//!
//! The figure now is an exponentially weighted moving average (Roberts 1959), the plain mean while that is of fewer answers. It is outside
//! where a likelihood ratio of two samples, what it weighs and the reference, exceeds [`LIMIT`]²: so a small reference, and a rare finding,
//! widen the limits by themselves.

use serde::{Deserialize, Serialize};

/// Weight of the newest answer.
const WEIGHT: f64 = 0.005;
/// Distance from which on a figure is outside, in standard deviations; how often that is by chance, the tests beside this say.
pub(super) const LIMIT: f64 = 4.5;
/// Share of [`LIMIT`] below which a figure that was outside is inside again.
const BACK: f64 = 0.75;
/// Answers that a reference is made of where the card has none.
pub(super) const LEARNED: f64 = 500.0;
/// Answers before which nothing is said.
const FIRST: f64 = 30.0;

/// What a figure was.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Reference {
    pub(super) mean: f64,
    /// Variance of one answer.
    pub(super) variance: f64,
    /// Answers that it is of.
    pub(super) images: f64,
}

/// Whether a figure is a mean, or the share of answers of which something is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Figure {
    Mean,
    Share,
}

/// A figure in time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Chart {
    pub(super) figure: Figure,
    /// None while it is being learned.
    pub(super) reference: Option<Reference>,
    /// The mean of the latest; while the reference is learned of all.
    pub(super) now: f64,
    /// Sum of squared differences from it, while the reference is learned.
    squares: f64,
    /// Answers since the reference.
    pub(super) images: u64,
    pub(super) outside: bool,
}

impl Chart {
    /// Against a reference, or against the first answers.
    pub(super) fn new(figure: Figure, reference: Option<Reference>) -> Self {
        let now = reference.map_or(0.0, |reference| reference.mean);
        Chart { figure, reference, now, squares: 0.0, images: 0, outside: false }
    }

    /// Takes an answer; true where the figure has gone outside, or come back.
    pub(super) fn add(&mut self, value: f64) -> bool {
        if !value.is_finite() {
            return false;
        }
        self.images += 1;
        let (images, before) = (self.images as f64, self.now);
        let plain = 1.0 / images;
        match self.reference {
            None => {
                self.now += plain * (value - before);
                self.squares += (value - before) * (value - self.now);
                if images >= LEARNED {
                    let variance = self.squares / (images - 1.0);
                    let reference = Reference { mean: self.now, variance, images };
                    *self = Chart::new(self.figure, Some(reference));
                }
                false
            }
            Some(_) => {
                self.now += plain.max(WEIGHT) * (value - before);
                let distance = self.distance().map_or(0.0, f64::abs);
                let outside = distance > if self.outside { BACK * LIMIT } else { LIMIT };
                std::mem::replace(&mut self.outside, outside) != outside
            }
        }
    }

    /// How far it is from the reference, in standard deviations; none while too little is known.
    pub(super) fn distance(&self) -> Option<f64> {
        let reference = self.reference.filter(|_| self.images as f64 >= FIRST)?;
        // So many answers an average of this weight is worth.
        let n = (self.images as f64).min((2.0 - WEIGHT) / WEIGHT);
        let m = reference.images;
        let moved = self.now - reference.mean;
        let distance = match self.figure {
            Figure::Mean => {
                // What did not vary at all: any difference that can be seen is one.
                let variance = reference.variance.max(1e-12);
                moved.abs() / (variance * (1.0 / n + 1.0 / m)).sqrt()
            }
            Figure::Share => {
                let pooled = (n * self.now + m * reference.mean) / (n + m);
                (2.0 * (n * divergence(self.now, pooled) + m * divergence(reference.mean, pooled))).max(0.0).sqrt()
            }
        };
        Some(distance.copysign(moved))
    }
}

/// Kullback-Leibler divergence of two shares.
fn divergence(p: f64, q: f64) -> f64 {
    let term = |p: f64, q: f64| if p > 0.0 { p * (p / q).ln() } else { 0.0 };
    term(p, q) + term(1.0 - p, 1.0 - q)
}
