//! One number that repairs the confidence of a trained classifier without changing its decisions: logits are
//! divided by a temperature (Guo et al., On Calibration of Modern Neural Networks, ICML 2017, § 4.2).

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::checks::{check_multi_label, check_single_label};
use crate::distributions::bisect;

/// What [`fit_temperature_single_label`] and [`fit_temperature_multi_label`] find.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Temperature {
    /// Divide logits by this, in [[`MIN`](Self::MIN), [`MAX`](Self::MAX)]. Above 1: the classifier was too sure.
    pub temperature: f64,
    /// Mean negative log-likelihood at temperature 1, in nats.
    pub nll_before: f64,
    /// At `temperature`; never above `nll_before` by more than rounding.
    pub nll_after: f64,
    /// Whether the best temperature is at or beyond a bound: 0 where the logits separate all labels, infinite
    /// where they are no better than chance. Not a calibration to use.
    pub at_bound: bool,
}

impl Temperature {
    /// Lowest temperature looked at.
    pub const MIN: f64 = 0.01;
    /// Highest temperature looked at.
    pub const MAX: f64 = 100.0;
}

/// The temperature of a softmax over `logits [n, c]` with the least mean negative log-likelihood,
/// `1/n Σ_i (ln Σ_k exp(z_ik / T) - z_i,label / T)`, `labels [n]` in `0..c`. Fit it on validation images.
///
/// The loss is convex in 1/T, so its one stationary point is found by bisection of its slope over ln T. Where
/// all logits of each image are equal, no temperature is better than another, and it is 1.
///
/// # Errors
/// As [`single_label`](crate::single_label).
pub fn fit_temperature_single_label(logits: &[f32], labels: &[usize], classes: usize) -> Result<Temperature, Error> {
    check_single_label("logits", logits, labels, classes)?;
    let loss = |beta: f64| -> Loss {
        let rows = logits.chunks_exact(classes).zip(labels);
        rows.map(|(row, &label)| softmax_loss(row, label, beta)).fold(Loss::default(), Loss::plus)
    };
    Ok(fit(loss, labels.len()))
}

/// The one temperature of `c` sigmoids over `logits [n, c]` with the least mean binary cross-entropy over all
/// `n · c` entries, `labels [n, c]` 0 or 1. Otherwise as [`fit_temperature_single_label`]; for a temperature a
/// finding, pass its column with `classes` 1.
///
/// # Errors
/// No images, no findings, lengths that do not fit, a label other than 0 and 1, a logit that is not finite.
pub fn fit_temperature_multi_label(logits: &[f32], labels: &[u8], classes: usize) -> Result<Temperature, Error> {
    check_multi_label("logits", logits, labels, classes)?;
    let loss = |beta: f64| -> Loss {
        let entries = logits.iter().zip(labels);
        entries.map(|(&logit, &label)| sigmoid_loss(logit, label == 1, beta)).fold(Loss::default(), Loss::plus)
    };
    Ok(fit(loss, labels.len()))
}

/// Negative log-likelihood at some β = 1/T, and its derivative by β.
#[derive(Clone, Copy, Default)]
struct Loss {
    value: f64,
    slope: f64,
}

impl Loss {
    fn plus(self, other: Self) -> Self {
        Self { value: self.value + other.value, slope: self.slope + other.slope }
    }
}

/// `ln Σ_k exp(β z_k) - β z_label`; slope `Σ_k p_k z_k - z_label`. Logits count from the largest, so that
/// exponentials do not overflow and equal logits give a slope of exactly 0.
fn softmax_loss(row: &[f32], label: usize, beta: f64) -> Loss {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let from_largest = |logit: f32| f64::from(logit) - f64::from(largest);
    let (mut sum, mut weighted) = (0.0, 0.0);
    for &logit in row {
        let z = from_largest(logit);
        let share = (beta * z).exp();
        sum += share;
        weighted += share * z;
    }
    let own = from_largest(row[label]);
    Loss { value: sum.ln() - beta * own, slope: weighted / sum - own }
}

/// `ln (1 + exp(-m β))` with the margin m = z for a present finding, -z for an absent one; slope `-m σ(-m β)`.
fn sigmoid_loss(logit: f32, present: bool, beta: f64) -> Loss {
    let margin = if present { f64::from(logit) } else { -f64::from(logit) };
    let x = beta * margin;
    // Of exp(-|x|), which does not overflow.
    let small = (-x.abs()).exp();
    let wrong = if x > 0.0 { small } else { 1.0 } / (1.0 + small);
    Loss { value: (-x).max(0.0) + small.ln_1p(), slope: -margin * wrong }
}

/// `loss` sums over `terms`.
fn fit(loss: impl Fn(f64) -> Loss, terms: usize) -> Temperature {
    let slope_at = |temperature: f64| loss(1.0 / temperature).slope;
    // The slope by β falls as T rises: colder is better where it is negative, hotter where it is positive.
    let (coldest, hottest) = (slope_at(Temperature::MIN), slope_at(Temperature::MAX));
    let (temperature, at_bound) = if coldest == 0.0 && hottest == 0.0 {
        (1.0, false)
    } else if coldest <= 0.0 {
        (Temperature::MIN, true)
    } else if hottest >= 0.0 {
        (Temperature::MAX, true)
    } else {
        // A relative error of 1e-12 in T.
        let log = bisect(Temperature::MIN.ln(), Temperature::MAX.ln(), 1e-12, |log| slope_at(log.exp()) <= 0.0);
        (log.exp(), false)
    };
    let mean = |temperature: f64| loss(1.0 / temperature).value / terms as f64;
    Temperature { temperature, nll_before: mean(1.0), nll_after: mean(temperature), at_bound }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn logits(classes: usize) -> impl Strategy<Value = (Vec<f32>, Vec<usize>)> {
        let row = (prop::collection::vec(-8.0f32..8.0, classes), 0..classes);
        prop::collection::vec(row, 1..40).prop_map(|rows| {
            let labels = rows.iter().map(|row| row.1).collect();
            (rows.into_iter().flat_map(|row| row.0).collect(), labels)
        })
    }

    /// The definition, without care for overflow: logits are small here.
    fn nll(logits: &[f32], labels: &[usize], classes: usize, temperature: f64) -> f64 {
        let rows = logits.chunks_exact(classes).zip(labels);
        let losses = rows.map(|(row, &label)| {
            let scaled: Vec<f64> = row.iter().map(|z| f64::from(*z) / temperature).collect();
            scaled.iter().map(|z| z.exp()).sum::<f64>().ln() - scaled[label]
        });
        losses.sum::<f64>() / labels.len() as f64
    }

    proptest! {
        #[test]
        fn no_other_temperature_is_better((logits, labels) in logits(3), log in -1.0f64..4.6) {
            let found = fit_temperature_single_label(&logits, &labels, 3).unwrap();
            // A mean of logarithms of order 10, each rounded.
            prop_assert!((found.nll_before - nll(&logits, &labels, 3, 1.0)).abs() < 1e-12);
            prop_assert!(found.nll_after <= found.nll_before + 1e-12);
            prop_assert!(found.nll_after <= nll(&logits, &labels, 3, log.exp()) + 1e-12);
            prop_assert_eq!(found.at_bound, [Temperature::MIN, Temperature::MAX].contains(&found.temperature));
        }

        #[test]
        fn scaling_logits_scales_the_temperature((logits, labels) in logits(4)) {
            let doubled: Vec<f32> = logits.iter().map(|z| 2.0 * z).collect();
            let (one, two) = (
                fit_temperature_single_label(&logits, &labels, 4).unwrap(),
                fit_temperature_single_label(&doubled, &labels, 4).unwrap(),
            );
            if !one.at_bound && !two.at_bound {
                prop_assert!((two.temperature / one.temperature - 2.0).abs() < 1e-9);
            }
        }

        /// Two softmax classes with logits (0, z) are one sigmoid with logit z.
        #[test]
        fn a_sigmoid_is_a_softmax_of_two((logits, labels) in logits(2)) {
            let margins: Vec<f32> = logits.chunks_exact(2).map(|row| row[1]).collect();
            let pairs: Vec<f32> = margins.iter().flat_map(|&z| [0.0, z]).collect();
            let findings: Vec<u8> = labels.iter().map(|&label| label as u8).collect();
            let softmax = fit_temperature_single_label(&pairs, &labels, 2).unwrap();
            let sigmoid = fit_temperature_multi_label(&margins, &findings, 1).unwrap();
            prop_assert!((softmax.nll_after - sigmoid.nll_after).abs() < 1e-12);
            // Twelve digits each, of which a flat minimum keeps fewer.
            prop_assert!((softmax.temperature.ln() - sigmoid.temperature.ln()).abs() < 1e-8);
        }
    }

    #[test]
    fn separated_labels_want_no_temperature() {
        let found = fit_temperature_single_label(&[5.0, 0.0, 0.0, 1.0], &[0, 1], 2).unwrap();
        assert_eq!((found.temperature, found.at_bound), (Temperature::MIN, true));
        let found = fit_temperature_single_label(&[5.0, 0.0, 0.0, 1.0], &[1, 0], 2).unwrap();
        assert_eq!((found.temperature, found.at_bound), (Temperature::MAX, true));
    }

    #[test]
    fn equal_logits_say_nothing() {
        let found = fit_temperature_single_label(&[0.3; 6], &[0, 2], 3).unwrap();
        assert_eq!((found.temperature, found.at_bound), (1.0, false));
        assert!((found.nll_after - 3f64.ln()).abs() < 1e-15);
        assert_eq!(fit_temperature_multi_label(&[0.0; 4], &[0, 1, 1, 0], 2).unwrap().temperature, 1.0);
    }

    #[test]
    fn huge_logits_do_not_overflow() {
        let found = fit_temperature_single_label(&[1e30, -1e30, 1e30, -1e30], &[0, 1], 2).unwrap();
        assert!(found.nll_after.is_finite() && found.at_bound);
        let found = fit_temperature_multi_label(&[1e30, 1e30], &[0, 1], 1).unwrap();
        assert!(found.nll_after.is_finite() && found.at_bound);
    }

    #[test]
    fn logits_not_finite() {
        let error = Error::ScoreNotFinite { row: 0, class: 1, found: f32::INFINITY };
        assert_eq!(fit_temperature_single_label(&[0.0, f32::INFINITY], &[0], 2), Err(error.clone()));
        assert_eq!(fit_temperature_multi_label(&[0.0, f32::INFINITY], &[0, 1], 2), Err(error));
        let length = Error::Length { what: "logits", expected: 4, found: 3 };
        assert_eq!(fit_temperature_single_label(&[0.0; 3], &[0, 1], 2), Err(length));
    }
}
