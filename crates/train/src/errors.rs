//! How far numbers and grades are from the truth: figures without intervals, for every epoch.

use crate::answers::column;
use melo_eval::{Bootstrap, OrdinalMetrics, RegressionMetrics};

/// One draw: the interval is not looked at.
const NO_INTERVAL: Bootstrap = Bootstrap { replicates: 1, level: 0.95, seed: 0 };

/// The means over the numbers of R² (of those that vary) and of the absolute error, of `answers [n, c]` against `truth [n, c]`.
///
/// # Errors
/// As `melo_eval`.
pub(crate) fn mean_errors(
    answers: &[f32],
    truth: &[f32],
    numbers: usize,
) -> Result<(Option<f64>, Option<f64>), melo_eval::Error> {
    let of = |number: usize| -> Result<RegressionMetrics, melo_eval::Error> {
        let [answers, truth] = [answers, truth].map(|values| of_number(values, number, numbers));
        melo_eval::regression(&answers, &truth, &(0..truth.len()).collect::<Vec<_>>(), None, &NO_INTERVAL)
    };
    let all = (0..numbers).map(of).collect::<Result<Vec<_>, _>>()?;
    let r2: Vec<f64> = all.iter().filter_map(|of| Some(of.r2?.value)).collect();
    let mean = |values: &[f64]| (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
    Ok((mean(&r2), mean(&all.iter().map(|of| of.mae.value).collect::<Vec<_>>())))
}

/// Quadratic weighted kappa, and the mean distance in grades, of images by `[true][called]` grade.
///
/// # Errors
/// As `melo_eval`.
pub(crate) fn agreement(confusion: &[Vec<u64>]) -> Result<(Option<f64>, f64), melo_eval::Error> {
    let (mut truth, mut called) = (Vec::new(), Vec::new());
    for (grade, row) in confusion.iter().enumerate() {
        for (other, images) in row.iter().enumerate() {
            truth.extend((0..*images).map(|_| grade));
            called.extend((0..*images).map(|_| other));
        }
    }
    let patients: Vec<usize> = (0..truth.len()).collect();
    let OrdinalMetrics { kappa_quadratic, mae, .. } =
        melo_eval::ordinal(&called, &truth, confusion.len(), &patients, &NO_INTERVAL)?;
    Ok((kappa_quadratic.map(|kappa| kappa.value), mae.value))
}

/// One number out of `[n, c]`, in f64.
pub(crate) fn of_number(values: &[f32], number: usize, numbers: usize) -> Vec<f64> {
    column(values, number, numbers).into_iter().map(f64::from).collect()
}
