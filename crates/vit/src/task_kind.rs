//! One class an image, or any number of findings.

use serde::{Deserialize, Serialize};

/// Whether an image has exactly one class, or any number of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// Exactly one class: softmax.
    SingleLabel,
    /// Any number of findings: a sigmoid each.
    MultiLabel,
}

impl TaskKind {
    /// Softmax or sigmoids of logits `[c]` of one image, in place; f64 inside.
    pub fn probabilities(self, logits: &mut [f32]) {
        match self {
            TaskKind::SingleLabel => {
                let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let total: f64 = logits.iter().map(|&x| f64::from(x - top).exp()).sum();
                logits.iter_mut().for_each(|x| *x = (f64::from(*x - top).exp() / total) as f32);
            }
            TaskKind::MultiLabel => {
                logits.iter_mut().for_each(|x| *x = (1.0 / (1.0 + f64::from(-*x).exp())) as f32);
            }
        }
    }
}
