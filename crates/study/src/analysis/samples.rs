//! Bootstrap samples of the arms of a task.

use std::collections::BTreeMap;

/// Bootstrap samples of an arm.
pub(super) struct Samples {
    /// Macro AUC; fewer than the draws where some leave it undefined.
    pub(super) auc: Vec<f64>,
    /// Accuracy.
    pub(super) acc: Vec<f64>,
}

/// Samples by backbone and method, at all training data.
pub(super) type ArmSamples = BTreeMap<(usize, usize), Samples>;
