//! Calibration of an arm: all cells' predictions together, before and after each cell's own temperature.

use crate::cell_result::CellResult;
use crate::error::Error;
use crate::results::{Calibration, ReliabilityBin};
use crate::scores::mean;
use melo_eval::Reliability;
use melo_vit::TaskKind;

/// Bins of a reliability diagram.
const BINS: usize = 10;

/// Calibration on the test split; the temperature comes from the validation split.
///
/// # Errors
/// [`Error::Eval`].
pub(crate) fn calibration(cells: &[&CellResult]) -> Result<Calibration, Error> {
    let (before, brier_before) = at(cells, |_| 1.0)?;
    let (after, brier_after) = at(cells, |cell| cell.temperature)?;
    Ok(Calibration {
        temperature: mean(cells.iter().map(|cell| f64::from(cell.temperature))),
        ece_before: before.ece,
        ece_after: after.ece,
        brier_before,
        brier_after,
        bins_before: bins(&before),
        bins_after: bins(&after),
    })
}

/// Reliability and Brier score of all cells' test answers.
fn at(cells: &[&CellResult], temperature: impl Fn(&CellResult) -> f32) -> Result<(Reliability, f64), Error> {
    let first = &cells[0].test;
    let probabilities: Vec<f32> = cells.iter().flat_map(|cell| cell.test.probabilities(temperature(cell))).collect();
    let labels: Vec<usize> = cells.iter().flat_map(|cell| cell.test.labels.iter().copied()).collect();
    Ok(match first.kind {
        TaskKind::Regression | TaskKind::Segmentation => unreachable!("studies are of classes and findings"),
        TaskKind::SingleLabel | TaskKind::Ordinal => (
            melo_eval::reliability_single_label(&probabilities, &labels, first.classes, BINS)?,
            melo_eval::brier_single_label(&probabilities, &labels, first.classes)?,
        ),
        TaskKind::MultiLabel => {
            let findings: Vec<u8> = cells.iter().flat_map(|cell| cell.test.findings()).collect();
            let brier = melo_eval::brier_multi_label(&probabilities, &findings, first.classes)?;
            let reliability = melo_eval::reliability_multi_label(&probabilities, &findings, first.classes, BINS)?;
            (reliability, mean(brier.into_iter()))
        }
    })
}

/// The bins that hold something.
fn bins(reliability: &Reliability) -> Vec<ReliabilityBin> {
    let filled = reliability.bins.iter().filter_map(|bin| {
        Some(ReliabilityBin { count: bin.count, confidence: bin.confidence?, accuracy: bin.accuracy? })
    });
    filled.collect()
}
