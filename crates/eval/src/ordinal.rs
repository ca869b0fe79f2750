//! Metrics of ordered grades (of a retinopathy, of a tumour), each equal to scikit-learn's.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::resampled::{Bootstrap, Resampled, check_patients, resample};

/// How well grades agree, with intervals by patient.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrdinalMetrics {
    /// Cases.
    pub n: usize,
    /// Patients.
    pub patients: usize,
    /// Cohen's kappa with weights `(i - j)²` (Cohen, Psychol. Bull. 70, 1968). `None` where all grades, true and predicted, are one.
    pub kappa_quadratic: Option<Resampled>,
    /// The same with weights `|i - j|`.
    pub kappa_linear: Option<Resampled>,
    /// Mean of `|i - j|`, in grades.
    pub mae: Resampled,
    /// Cases `[grades][grades]`, of true and predicted grade.
    pub confusion: Vec<Vec<u64>>,
}

/// Of `predictions [n]` against `truth [n]`, grades below `grades`, of `patients [n]`: any numbers, equal where they mean the same.
///
/// Grades are one apart whether or not a grade between them occurs, as with scikit-learn's `labels=range(grades)`.
/// A draw in which a kappa is undefined is left out of its interval.
///
/// # Errors
/// No case; lengths that differ; fewer than two grades; a grade that is none.
///
/// # Panics
/// Where `bootstrap` has no replicates or a level that is not between 0 and 1.
pub fn ordinal(
    predictions: &[usize],
    truth: &[usize],
    grades: usize,
    patients: &[usize],
    bootstrap: &Bootstrap,
) -> Result<OrdinalMetrics, Error> {
    check_patients(patients, truth.len())?;
    if grades < 2 {
        return Err(Error::TooFewClasses { expected: 2, found: grades });
    }
    if predictions.len() != truth.len() {
        return Err(Error::Length { what: "predictions", expected: truth.len(), found: predictions.len() });
    }
    for (what, values) in [("prediction", predictions), ("truth", truth)] {
        if let Some(row) = values.iter().position(|grade| *grade >= grades) {
            return Err(Error::GradeOutOfRange { what, row, grades, found: values[row] });
        }
    }
    let count = |weights: &[u32]| {
        let mut confusion = vec![vec![0u64; grades]; grades];
        for ((truth, prediction), weight) in truth.iter().zip(predictions).zip(weights) {
            confusion[*truth][*prediction] += u64::from(*weight);
        }
        confusion
    };
    let found = resample(patients, bootstrap, |weights| {
        let confusion = count(weights);
        let linear = |i: usize, j: usize| i.abs_diff(j) as f64;
        let n: u64 = confusion.iter().flatten().sum();
        let apart = disagreement(&confusion, linear) / n as f64;
        vec![kappa(&confusion, |i, j| linear(i, j).powi(2)), kappa(&confusion, linear), Some(apart)]
    });
    Ok(OrdinalMetrics {
        n: truth.len(),
        patients: patients.iter().collect::<BTreeSet<_>>().len(),
        kappa_quadratic: found[0],
        kappa_linear: found[1],
        mae: found[2].expect("an error of at least one case"),
        confusion: count(&vec![1; truth.len()]),
    })
}

/// 1 - Σ weight · observed / Σ weight · expected, with the cases expected of independent grades of the same frequencies.
fn kappa(confusion: &[Vec<u64>], weight: impl Fn(usize, usize) -> f64) -> Option<f64> {
    let sums = |of: &dyn Fn(usize, usize) -> u64| -> Vec<f64> {
        (0..confusion.len()).map(|i| (0..confusion.len()).map(|j| of(i, j)).sum::<u64>() as f64).collect()
    };
    let (of_truth, of_predictions) = (sums(&|i, j| confusion[i][j]), sums(&|i, j| confusion[j][i]));
    let n: f64 = of_truth.iter().sum();
    let mut expected = 0.0;
    for (i, truth) in of_truth.iter().enumerate() {
        for (j, predicted) in of_predictions.iter().enumerate() {
            expected += weight(i, j) * truth * predicted;
        }
    }
    (expected > 0.0).then(|| 1.0 - disagreement(confusion, weight) * n / expected)
}

/// Σ weight · cases.
fn disagreement(confusion: &[Vec<u64>], weight: impl Fn(usize, usize) -> f64) -> f64 {
    let cells = confusion.iter().enumerate().flat_map(|(i, row)| row.iter().enumerate().map(move |(j, n)| (i, j, *n)));
    cells.map(|(i, j, n)| weight(i, j) * n as f64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(predictions: &[usize], truth: &[usize], grades: usize) -> Result<OrdinalMetrics, Error> {
        ordinal(predictions, truth, grades, &(0..truth.len()).collect::<Vec<_>>(), &Bootstrap::default())
    }

    #[test]
    fn one_grade_off_is_better_than_three() {
        let truth = [0, 1, 2, 3, 0, 1, 2, 3];
        let (near, far) = ([0, 1, 2, 2, 0, 1, 2, 3], [0, 1, 2, 0, 0, 1, 2, 3]);
        let kappa = |predictions| of(predictions, &truth, 4).unwrap().kappa_quadratic.unwrap().value;
        assert!(kappa(&near) > 0.9 && kappa(&far) < 0.6, "{} {}", kappa(&near), kappa(&far));
        assert_eq!(of(&far, &truth, 4).unwrap().mae.value, 3.0 / 8.0);
    }

    #[test]
    fn one_grade_alone_has_no_kappa() {
        let found = of(&[2, 2], &[2, 2], 5).unwrap();
        assert_eq!((found.kappa_quadratic, found.kappa_linear, found.mae.value), (None, None, 0.0));
        assert_eq!(found.confusion[2][2], 2);
        // A constant answer agrees by chance.
        assert_eq!(of(&[1, 1, 1], &[0, 1, 2], 3).unwrap().kappa_quadratic.unwrap().value, 0.0);
    }

    #[test]
    fn wrong_lengths_and_grades() {
        assert_eq!(of(&[], &[], 3).unwrap_err(), Error::NoRows);
        assert_eq!(of(&[0], &[0], 1).unwrap_err(), Error::TooFewClasses { expected: 2, found: 1 });
        assert_eq!(of(&[0], &[0, 1], 3).unwrap_err(), Error::Length { what: "predictions", expected: 2, found: 1 });
        let outside = of(&[0, 3], &[0, 1], 3).unwrap_err();
        assert_eq!(outside, Error::GradeOutOfRange { what: "prediction", row: 1, grades: 3, found: 3 });
    }
}
