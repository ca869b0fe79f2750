//! Calibration of an arm: all cells' predictions together, before and after each cell's own temperature.

use crate::cell::CellResult;
use crate::results::{Calibration, ReliabilityBin};
use crate::scores::mean;
use melo_vit::TaskKind;

/// Bins of a reliability diagram.
const BINS: usize = 10;

/// Calibration on the test split; the temperature comes from the validation split.
pub(crate) fn calibration<'a>(cells: impl Iterator<Item = &'a CellResult> + Clone) -> Calibration {
    let before = Predictions::of(cells.clone(), |_| 1.0);
    let after = Predictions::of(cells.clone(), |cell| cell.temperature);
    Calibration {
        temperature: mean(cells.map(|cell| f64::from(cell.temperature))),
        ece_before: before.ece(),
        ece_after: after.ece(),
        brier_before: before.brier,
        brier_after: after.brier,
        bins_before: before.bins(),
        bins_after: after.bins(),
    }
}

/// What was claimed how surely, and whether it was so.
struct Predictions {
    /// Probability of the predicted class (single label), or of each finding.
    confidence: Vec<f32>,
    right: Vec<bool>,
    brier: f64,
}

impl Predictions {
    fn of<'a>(cells: impl Iterator<Item = &'a CellResult>, temperature: impl Fn(&CellResult) -> f32) -> Self {
        let (mut confidence, mut right, mut brier) = (Vec::new(), Vec::new(), Vec::new());
        for cell in cells {
            let answers = &cell.test;
            let (probabilities, truth) = (answers.probabilities(temperature(cell)), answers.truth());
            match answers.kind {
                TaskKind::MultiLabel => {
                    brier.push(melo_eval::brier_multi_label(&probabilities, &truth));
                    confidence.extend(&probabilities);
                    right.extend(&truth);
                }
                TaskKind::SingleLabel => {
                    brier.push(melo_eval::brier_single_label(&probabilities, &truth, answers.classes));
                    for (row, &label) in probabilities.chunks_exact(answers.classes).zip(&answers.labels) {
                        let predicted = crate::scores::first_maximum(row);
                        confidence.push(row[predicted]);
                        right.push(predicted == label);
                    }
                }
            }
        }
        Predictions { confidence, right, brier: mean(brier.into_iter()) }
    }

    fn ece(&self) -> f64 {
        melo_eval::ece(&self.confidence, &self.right, BINS)
    }

    fn bins(&self) -> Vec<ReliabilityBin> {
        melo_eval::reliability(&self.confidence, &self.right, BINS)
            .into_iter()
            .filter(|bin| bin.count > 0)
            .map(|bin| ReliabilityBin { count: bin.count, confidence: bin.confidence, accuracy: bin.accuracy })
            .collect()
    }
}
