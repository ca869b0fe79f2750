//! The statistics of `melo eval` as functions.

use crate::errors::{Door, Failure, OrRaise};
use melo::eval::{self, Resampling};
use numpy::{PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;
use pyo3::types::PyDict;

fn level(level: f64) -> Result<f64, Failure> {
    match level > 0.0 && level < 1.0 {
        true => Ok(level),
        false => Err(Failure::setting("level", format!("is {level}, expected between 0 and 1"))),
    }
}

/// Scores and truth of as many cases, all finite.
fn cases(
    scores: &PyReadonlyArray1<'_, f32>,
    truth: &PyReadonlyArray1<'_, bool>,
) -> Result<(Vec<f32>, Vec<bool>), Failure> {
    let (scores, truth) = (scores.as_array().to_vec(), truth.as_array().to_vec());
    Failure::unless_as_many((scores.len(), "scores"), (truth.len(), "of truth"))?;
    match scores.iter().position(|score| !score.is_finite()) {
        Some(index) => Err(Failure::new(Door::Data, "NonFinite", format!("score {index} is {}", scores[index]))),
        None => Ok((scores, truth)),
    }
}

fn undefined(what: &str) -> Failure {
    Failure::new(Door::Data, "OneClass", format!("{what} is undefined: every case has the same truth"))
}

/// delong(scores, truth, *, level=0.95)
#[pyfunction]
#[pyo3(signature = (scores, truth, *, level = 0.95))]
pub(crate) fn delong<'py>(
    py: Python<'py>,
    scores: PyReadonlyArray1<'py, f32>,
    truth: PyReadonlyArray1<'py, bool>,
    level: f64,
) -> PyResult<Bound<'py, PyDict>> {
    let (scores, truth) = cases(&scores, &truth)?;
    let found = eval::delong(&scores, &truth, self::level(level)?).ok_or_else(|| undefined("the AUC"))?;
    let said = PyDict::new(py);
    said.set_item("auc", found.auc)?;
    said.set_item("variance", found.variance)?;
    said.set_item("low", found.low)?;
    said.set_item("high", found.high)?;
    Ok(said)
}

/// delong_paired(a, b, truth, *, level=0.95)
#[pyfunction]
#[pyo3(signature = (a, b, truth, *, level = 0.95))]
pub(crate) fn delong_paired<'py>(
    py: Python<'py>,
    a: PyReadonlyArray1<'py, f32>,
    b: PyReadonlyArray1<'py, f32>,
    truth: PyReadonlyArray1<'py, bool>,
    level: f64,
) -> PyResult<Bound<'py, PyDict>> {
    let ((a, truth), (b, _)) = (cases(&a, &truth)?, cases(&b, &truth)?);
    let found = eval::delong_paired(&a, &b, &truth, self::level(level)?).ok_or_else(|| undefined("the AUC"))?;
    let said = PyDict::new(py);
    said.set_item("auc_a", found.auc_a)?;
    said.set_item("auc_b", found.auc_b)?;
    said.set_item("difference", found.difference)?;
    said.set_item("variance", found.variance)?;
    said.set_item("low", found.low)?;
    said.set_item("high", found.high)?;
    said.set_item("z", found.z)?;
    said.set_item("p", found.p)?;
    Ok(said)
}

/// Macro AUC with DeLong's interval by patient, of probabilities `[n, c]`.
#[pyfunction]
#[pyo3(signature = (probabilities, truth, clusters, *, level = 0.95))]
pub(crate) fn clustered_auc(
    probabilities: PyReadonlyArray1<'_, f32>,
    truth: PyReadonlyArray1<'_, bool>,
    clusters: PyReadonlyArray1<'_, i64>,
    level: f64,
) -> PyResult<(f64, f64, f64)> {
    let (scores, truth) = cases(&probabilities, &truth)?;
    let clusters: Vec<usize> = clusters.as_array().iter().map(|&cluster| cluster as usize).collect();
    Failure::unless_as_many((scores.len(), "scores"), (clusters.len(), "groups"))?;
    let found = eval::ClusteredAuc::new(&scores, &truth, &clusters).ok_or_else(|| undefined("the AUC"))?;
    let found = found.estimate(self::level(level)?);
    Ok((found.value, found.low, found.high))
}

/// How often each case is drawn in each replicate, `[replicates][n]`: whole groups, within strata.
#[pyfunction]
#[pyo3(signature = (clusters, strata, *, replicates = 2000, seed = 0))]
pub(crate) fn bootstrap_weights(
    clusters: PyReadonlyArray1<'_, i64>,
    strata: PyReadonlyArray1<'_, i64>,
    replicates: usize,
    seed: u64,
) -> PyResult<Vec<Vec<u32>>> {
    let number = |values: PyReadonlyArray1<'_, i64>| -> Vec<usize> {
        values.as_array().iter().map(|&value| value as usize).collect()
    };
    let (clusters, strata) = (number(clusters), number(strata));
    Failure::unless_as_many((clusters.len(), "groups"), (strata.len(), "strata"))?;
    let resampling = Resampling::new(&clusters, &strata, seed);
    let replicate = |replicate| {
        let mut weights = vec![0; clusters.len()];
        resampling.weights(replicate, &mut weights);
        weights
    };
    Ok((0..replicates).map(replicate).collect())
}

/// calibration(probabilities, truth, *, bins=15)
#[pyfunction]
#[pyo3(signature = (probabilities, truth, *, bins = 15))]
pub(crate) fn calibration<'py>(
    py: Python<'py>,
    probabilities: PyReadonlyArray2<'py, f32>,
    truth: PyReadonlyArray1<'py, i64>,
    bins: usize,
) -> PyResult<Bound<'py, PyDict>> {
    let array = probabilities.as_array();
    let (n, c) = array.dim();
    let values: Vec<f32> = array.iter().copied().collect();
    let labels: Vec<usize> =
        truth.as_array().iter().map(|&label| usize::try_from(label).unwrap_or(usize::MAX)).collect();
    Failure::unless_as_many((n, "rows of probabilities"), (labels.len(), "of truth"))?;
    if bins == 0 {
        return Err(Failure::setting("bins", "is 0, expected at least 1").into());
    }
    let found = eval::reliability_single_label(&values, &labels, c, bins).or_raise(Door::Data)?;
    let brier = eval::brier_single_label(&values, &labels, c).or_raise(Door::Data)?;
    let said = PyDict::new(py);
    said.set_item("ece", found.ece)?;
    said.set_item("brier", brier)?;
    let bins = found.bins.iter().map(|bin| (bin.above, bin.up_to, bin.count, bin.confidence, bin.accuracy));
    said.set_item("bins", bins.collect::<Vec<_>>())?;
    Ok(said)
}

/// wilson(successes, trials, *, level=0.95)
#[pyfunction]
#[pyo3(signature = (successes, trials, *, level = 0.95))]
pub(crate) fn wilson(successes: i64, trials: i64, level: f64) -> PyResult<(f64, f64)> {
    let level = self::level(level)?;
    if !(0..=trials).contains(&successes) || trials == 0 {
        return Err(Failure::setting("successes", format!("is {successes} of {trials}")).into());
    }
    let found = eval::wilson(successes.unsigned_abs(), trials.unsigned_abs(), level);
    Ok(found.ok_or_else(|| undefined("the share"))?)
}
