//! The loss of a batch: cross-entropy, with the ranked probability score for grades, binary cross-entropy, weighted, or Huber's, as a
//! function of one image at a time.

use crate::config::{ClassWeights, TrainConfig};
use crate::examples::{Examples, class_counts};
use melo_data::Labels;
use melo_vit::{Head, TaskKind, binary_cross_entropy, cross_entropy, ranked_probability, smooth_l1};

/// The loss with everything but the images fixed.
#[derive(Clone, Debug)]
pub(crate) struct Objective {
    kind: TaskKind,
    classes: usize,
    smoothing: f64,
    /// Class weights `[c]`, empty for all ones.
    weights: Vec<f32>,
    /// Of numbers `[c]`; none of classes.
    scales: Vec<NumberScale>,
}

/// What a number is learnt as: its distance from the mean of the training images, in their standard deviations.
#[derive(Clone, Copy, Debug)]
struct NumberScale {
    mean: f32,
    deviation: f32,
}

impl Objective {
    pub(crate) fn new(config: &TrainConfig, kind: TaskKind, classes: usize, train: &dyn Examples) -> Self {
        let smoothing = if kind.is_one_class() { config.label_smoothing } else { 0.0 };
        let weights = match config.class_weights {
            ClassWeights::None => Vec::new(),
            ClassWeights::Balanced => {
                let n = train.len() as f32;
                let balance = |count: usize| match kind {
                    TaskKind::MultiLabel => (n - count as f32).max(1.0) / count.max(1) as f32,
                    _ => n / (classes as f32 * count.max(1) as f32),
                };
                class_counts(train, classes).into_iter().map(balance).collect()
            }
        };
        let scales = match kind {
            TaskKind::Regression => (0..classes).map(|number| NumberScale::of(train, number)).collect(),
            _ => Vec::new(),
        };
        Objective { kind, classes, smoothing, weights, scales }
    }

    /// What the sum over these images is divided by to be PyTorch's mean; of masks their number.
    pub(crate) fn normaliser(&self, examples: &dyn Examples, images: &[usize]) -> f64 {
        let of_labels = |labels: &Labels| match labels {
            _ if self.kind == TaskKind::Segmentation => 1.0,
            Labels::Single(label) => self.weights.get(*label).map_or(1.0, |&w| f64::from(w)),
            Labels::Multi(_) | Labels::Values(_) => self.classes as f64,
        };
        images.iter().map(|&index| examples.weight(index) * of_labels(examples.labels(index))).sum()
    }

    /// Loss of one image times `scale`, with its gradient on the logits `[c]`.
    pub(crate) fn loss(&self, labels: &Labels, logits: &[f32], scale: f64, d_logits: &mut [f32]) -> f64 {
        match labels {
            Labels::Single(label) => {
                let loss = cross_entropy(logits, *label, self.smoothing, &self.weights, scale, d_logits);
                if self.kind != TaskKind::Ordinal {
                    return loss;
                }
                let weight = self.weights.get(*label).map_or(1.0, |&w| f64::from(w));
                let mut d_ranked = vec![0.0; d_logits.len()];
                let ranked = ranked_probability(logits, *label, weight * scale, &mut d_ranked);
                d_logits.iter_mut().zip(d_ranked).for_each(|(d, more)| *d += more);
                loss + ranked
            }
            Labels::Multi(labels) => binary_cross_entropy(logits, labels, &self.weights, scale, d_logits),
            Labels::Values(values) => {
                let scaled = values.iter().zip(&self.scales).map(|(value, of)| (value - of.mean) / of.deviation);
                smooth_l1(logits, &scaled.collect::<Vec<f32>>(), scale, d_logits)
            }
        }
    }

    /// Logits `[c]` of the head in training to what it is to answer, in place: probabilities, or numbers in their units.
    pub(crate) fn answer(&self, logits: &mut [f32]) {
        self.kind.probabilities(logits);
        logits.iter_mut().zip(&self.scales).for_each(|(x, of)| *x = *x * of.deviation + of.mean);
    }

    /// The head as it goes into a plug-in: one of numbers gives them in their units.
    pub(crate) fn in_units(&self, mut head: Head) -> Head {
        let width = head.width();
        for ((row, bias), of) in head.weight.chunks_exact_mut(width).zip(&mut head.bias).zip(&self.scales) {
            row.iter_mut().for_each(|w| *w *= of.deviation);
            *bias = *bias * of.deviation + of.mean;
        }
        head
    }

    pub(crate) fn kind(&self) -> TaskKind {
        self.kind
    }
}

impl NumberScale {
    fn of(train: &dyn Examples, number: usize) -> Self {
        let values = || (0..train.len()).filter_map(|index| train.labels(index).number(number)).map(f64::from);
        let n = train.len() as f64;
        let mean = values().sum::<f64>() / n;
        let deviation = (values().map(|value| (value - mean).powi(2)).sum::<f64>() / n).sqrt();
        // A number that does not vary is its mean, whatever the image.
        NumberScale { mean: mean as f32, deviation: if deviation > 0.0 { deviation as f32 } else { 1.0 } }
    }
}
