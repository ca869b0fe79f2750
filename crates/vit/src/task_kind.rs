//! What a head answers: one class an image, a grade, any number of findings, numbers, or a class of every pixel.

use serde::{Deserialize, Serialize};

/// What kind of answer a task has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// Exactly one class: softmax.
    #[default]
    SingleLabel,
    /// Any number of findings: a sigmoid each.
    MultiLabel,
    /// Exactly one of ordered classes, the lowest first: softmax.
    Ordinal,
    /// Numbers, an output each: as the head gives them.
    Regression,
    /// A class of every pixel, the background first: softmax of its scores. Its numbers are the classes' shares of the pixels.
    Segmentation,
}

impl TaskKind {
    /// True where an image has exactly one class, ordered or not.
    pub fn is_one_class(self) -> bool {
        matches!(self, TaskKind::SingleLabel | TaskKind::Ordinal)
    }

    /// What an image has, in words.
    pub fn in_words(self) -> &'static str {
        match self {
            TaskKind::SingleLabel => "one class an image",
            TaskKind::MultiLabel => "any number of findings an image",
            TaskKind::Ordinal => "one grade an image",
            TaskKind::Regression => "numbers of an image",
            TaskKind::Segmentation => "a mask of an image",
        }
    }

    /// True where an image has probabilities.
    pub fn has_probabilities(self) -> bool {
        !matches!(self, TaskKind::Regression | TaskKind::Segmentation)
    }

    /// Softmax or sigmoids of logits `[c]` of one image, in place, f64 inside; numbers and shares stay as they are.
    pub fn probabilities(self, logits: &mut [f32]) {
        match self {
            TaskKind::SingleLabel | TaskKind::Ordinal => {
                let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let total: f64 = logits.iter().map(|&x| f64::from(x - top).exp()).sum();
                logits.iter_mut().for_each(|x| *x = (f64::from(*x - top).exp() / total) as f32);
            }
            TaskKind::MultiLabel => {
                logits.iter_mut().for_each(|x| *x = (1.0 / (1.0 + f64::from(-*x).exp())) as f32);
            }
            TaskKind::Regression | TaskKind::Segmentation => {}
        }
    }
}
