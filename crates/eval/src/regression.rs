//! Metrics of predicted numbers (an age, a score), each equal to scikit-learn's or scipy's.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::resampled::{Bootstrap, Resampled, check_patients, resample};

/// How far predictions are from the truth, in its unit, with intervals by patient.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegressionMetrics {
    /// Cases.
    pub n: usize,
    /// Patients.
    pub patients: usize,
    /// Mean absolute error.
    pub mae: Resampled,
    /// Root of the mean squared error.
    pub rmse: Resampled,
    /// Mean of prediction - truth: above 0 where predictions are too high.
    pub bias: Resampled,
    /// Coefficient of determination, 1 - Σ (truth - prediction)² / Σ (truth - its mean)²; below 0 where the mean of these cases
    /// would do better. `None` where the truth does not vary.
    pub r2: Option<Resampled>,
    /// Pearson's correlation. `None` where truth or predictions do not vary.
    pub pearson: Option<Resampled>,
    /// What one answer to all reaches on the same cases.
    pub baseline: RegressionBaseline,
}

/// One answer to all cases.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegressionBaseline {
    /// The answer.
    pub answer: f64,
    /// Its mean absolute error.
    pub mae: Resampled,
    /// Its root of the mean squared error.
    pub rmse: Resampled,
}

/// Of `predictions [n]` against `truth [n]`, of `patients [n]`: any numbers, equal where they mean the same. `baseline` is the
/// answer to compare with, the mean of the training cases; without one it is the mean of `truth`.
///
/// A draw in which R² or the correlation is undefined is left out of its interval.
///
/// # Errors
/// No case; lengths that differ; a number that is not finite.
///
/// # Panics
/// Where `bootstrap` has no replicates or a level that is not between 0 and 1.
pub fn regression(
    predictions: &[f64],
    truth: &[f64],
    patients: &[usize],
    baseline: Option<f64>,
    bootstrap: &Bootstrap,
) -> Result<RegressionMetrics, Error> {
    check_patients(patients, truth.len())?;
    if predictions.len() != truth.len() {
        return Err(Error::Length { what: "predictions", expected: truth.len(), found: predictions.len() });
    }
    for (what, values) in [("prediction", predictions), ("truth", truth), ("baseline", baseline.as_slice())] {
        if let Some(row) = values.iter().position(|value| !value.is_finite()) {
            return Err(Error::NotFinite { what, row, found: values[row] });
        }
    }
    let answer = baseline.unwrap_or_else(|| truth.iter().sum::<f64>() / truth.len() as f64);
    let found = resample(patients, bootstrap, |weights| {
        let of = |prediction: &dyn Fn(usize) -> f64| {
            errors(weights.iter().enumerate().map(|(i, weight)| (prediction(i) - truth[i], f64::from(*weight))))
        };
        let [bias, mae, rmse, squares] = of(&|i| predictions[i]);
        let [_, baseline_mae, baseline_rmse, _] = of(&|_| answer);
        let [(varies, of_truth), (predictions_vary, of_predictions)] =
            [truth, predictions].map(|values| spread(values, weights));
        let together = || {
            let products = (0..truth.len())
                .map(|i| f64::from(weights[i]) * (truth[i] - of_truth.mean) * (predictions[i] - of_predictions.mean));
            products.sum::<f64>() / (of_truth.squares.sqrt() * of_predictions.squares.sqrt())
        };
        let r2 = varies.then(|| 1.0 - squares / of_truth.squares);
        let pearson = (varies && predictions_vary).then(|| together().clamp(-1.0, 1.0));
        vec![Some(mae), Some(rmse), Some(bias), r2, pearson, Some(baseline_mae), Some(baseline_rmse)]
    });
    let always = |at: usize| found[at].expect("an error of at least one case");
    Ok(RegressionMetrics {
        n: truth.len(),
        patients: patients.iter().collect::<BTreeSet<_>>().len(),
        mae: always(0),
        rmse: always(1),
        bias: always(2),
        r2: found[3],
        pearson: found[4],
        baseline: RegressionBaseline { answer, mae: always(5), rmse: always(6) },
    })
}

/// Mean, mean absolute value, root of the mean square and sum of squares of weighted errors.
fn errors(weighted: impl Iterator<Item = (f64, f64)>) -> [f64; 4] {
    let (mut n, mut sum, mut absolute, mut squares) = (0.0, 0.0, 0.0, 0.0);
    for (error, weight) in weighted {
        n += weight;
        sum += weight * error;
        absolute += weight * error.abs();
        squares += weight * error * error;
    }
    [sum / n, absolute / n, (squares / n).sqrt(), squares]
}

struct Spread {
    mean: f64,
    /// Σ weight · (value - mean)².
    squares: f64,
}

/// Whether drawn values differ, and by how much.
fn spread(values: &[f64], weights: &[u32]) -> (bool, Spread) {
    let drawn = || values.iter().zip(weights).filter(|(_, weight)| **weight > 0).map(|(v, w)| (*v, f64::from(*w)));
    let n: f64 = drawn().map(|(_, weight)| weight).sum();
    let mean = drawn().map(|(value, weight)| weight * value).sum::<f64>() / n;
    let squares: f64 = drawn().map(|(value, weight)| weight * (value - mean).powi(2)).sum();
    let first = drawn().next().map(|(value, _)| value);
    // Numbers next to each other may have squares of 0.
    let varies = squares > 0.0 && drawn().any(|(value, _)| Some(value) != first);
    (varies, Spread { mean, squares })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(predictions: &[f64], truth: &[f64]) -> Result<RegressionMetrics, Error> {
        regression(predictions, truth, &(0..truth.len()).collect::<Vec<_>>(), None, &Bootstrap::default())
    }

    #[test]
    fn the_mean_is_the_baseline() {
        let truth = [30.0, 50.0, 70.0, 90.0];
        let found = of(&[60.0; 4], &truth).unwrap();
        assert_eq!((found.baseline.answer, found.baseline.mae.value), (60.0, 20.0));
        assert_eq!((found.mae, found.rmse), (found.baseline.mae, found.baseline.rmse));
        assert_eq!((found.r2.unwrap().value, found.bias.value, found.pearson), (0.0, 0.0, None));
        let trained = regression(&[60.0; 4], &truth, &[0, 1, 2, 3], Some(50.0), &Bootstrap::default()).unwrap();
        assert_eq!(trained.baseline.answer, 50.0);
        assert!(trained.baseline.rmse.value > found.baseline.rmse.value);
    }

    #[test]
    fn a_truth_that_does_not_vary_has_errors_alone() {
        let found = of(&[0.1, 0.3, 0.2], &[0.1; 3]).unwrap();
        assert_eq!((found.r2, found.pearson), (None, None));
        assert!((found.mae.value - 0.1).abs() < 1e-15 && found.mae.interval.is_some());
    }

    #[test]
    fn intervals_hold_their_figures() {
        let truth: Vec<f64> = (0..50).map(f64::from).collect();
        let predictions: Vec<f64> = truth.iter().map(|x| 0.8 * x + (x * 1.7).sin() * 5.0 + 4.0).collect();
        let found = of(&predictions, &truth).unwrap();
        for figure in [found.mae, found.rmse, found.bias, found.r2.unwrap(), found.pearson.unwrap()] {
            let (low, high) = figure.interval.unwrap();
            assert!(low < figure.value && figure.value < high, "{found:?}");
        }
    }

    #[test]
    fn wrong_lengths_and_numbers() {
        assert_eq!(of(&[], &[]).unwrap_err(), Error::NoRows);
        assert_eq!(of(&[1.0], &[1.0, 2.0]).unwrap_err(), Error::Length { what: "predictions", expected: 2, found: 1 });
        let infinite = of(&[1.0, f64::INFINITY], &[1.0, 2.0]).unwrap_err();
        assert_eq!(infinite, Error::NotFinite { what: "prediction", row: 1, found: f64::INFINITY });
        let patients = regression(&[1.0], &[1.0], &[0, 1], None, &Bootstrap::default()).unwrap_err();
        assert_eq!(patients, Error::Length { what: "patients", expected: 1, found: 2 });
    }
}
