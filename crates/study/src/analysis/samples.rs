//! What is kept of the arms of a task for comparisons and sums.

use melo_eval::{ClusteredAuc, ClusteredShare};
use std::collections::BTreeMap;

/// Figures of an arm, by patient.
pub(super) struct Samples {
    /// Macro AUC of every bootstrap draw; fewer than the draws where some leave it undefined.
    pub(super) drawn: Vec<f64>,
    /// Macro AUC.
    pub(super) auc: Option<ClusteredAuc>,
    /// Accuracy.
    pub(super) acc: Option<ClusteredShare>,
}

/// Samples by backbone and method, at all training data.
pub(super) type ArmSamples = BTreeMap<(usize, usize), Samples>;
