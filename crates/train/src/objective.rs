//! The loss of a batch: cross-entropy or binary cross-entropy, weighted, as a function of one image at a time.

use crate::config::{ClassWeights, TrainConfig};
use crate::examples::{Examples, class_counts};
use melo_data::Labels;
use melo_vit::{TaskKind, binary_cross_entropy, cross_entropy};

/// The loss with everything but the images fixed.
#[derive(Clone, Debug)]
pub(crate) struct Objective {
    kind: TaskKind,
    classes: usize,
    smoothing: f64,
    /// Class weights `[c]`, empty for all ones.
    weights: Vec<f32>,
}

impl Objective {
    pub(crate) fn new(config: &TrainConfig, kind: TaskKind, classes: usize, train: &dyn Examples) -> Self {
        let smoothing = if kind == TaskKind::SingleLabel { config.label_smoothing } else { 0.0 };
        let weights = match config.class_weights {
            ClassWeights::None => Vec::new(),
            ClassWeights::Balanced => {
                let n = train.len() as f32;
                let balance = |count: usize| match kind {
                    TaskKind::SingleLabel => n / (classes as f32 * count.max(1) as f32),
                    TaskKind::MultiLabel => (n - count as f32).max(1.0) / count.max(1) as f32,
                };
                class_counts(train, classes).into_iter().map(balance).collect()
            }
        };
        Objective { kind, classes, smoothing, weights }
    }

    /// What the sum over these images is divided by to be PyTorch's mean.
    pub(crate) fn normaliser<'a>(&self, labels: impl Iterator<Item = &'a Labels>) -> f64 {
        labels
            .map(|labels| match labels {
                Labels::Single(label) => self.weights.get(*label).map_or(1.0, |&w| f64::from(w)),
                Labels::Multi(_) => self.classes as f64,
            })
            .sum()
    }

    /// Loss of one image times `scale`, with its gradient on the logits `[c]`.
    pub(crate) fn loss(&self, labels: &Labels, logits: &[f32], scale: f64, d_logits: &mut [f32]) -> f64 {
        match labels {
            Labels::Single(label) => cross_entropy(logits, *label, self.smoothing, &self.weights, scale, d_logits),
            Labels::Multi(labels) => binary_cross_entropy(logits, labels, &self.weights, scale, d_logits),
        }
    }

    pub(crate) fn kind(&self) -> TaskKind {
        self.kind
    }
}
