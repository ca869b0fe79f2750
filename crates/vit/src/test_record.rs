//! What a finished training saw on its test split, kept in the card: counts that a page can draw.

use crate::invalid::Invalid;
use crate::task_kind::TaskKind;
use serde::{Deserialize, Serialize};

/// Counts of the test split at the card's decisions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestRecord {
    /// Images.
    pub images: u64,
    /// Patients; none where the manifest names none.
    pub patients: Option<u64>,
    /// Of each class `[c]`, none of numbers and masks: images that have it and are called so, that are called so alone, that have it alone, and the rest.
    pub counts: Vec<[u64; 4]>,
    /// Images by `[true class][predicted class]`, `[c, c]`; none for multi-label tasks, numbers and masks.
    pub confusion: Option<Vec<Vec<u64>>>,
    /// Bins of confidence that hold something, ascending.
    pub reliability: Vec<ReliabilityPoint>,
    /// Expected calibration error, in [0, 1]; 0 of numbers and masks.
    pub calibration_error: f64,
    /// Of each number `[c]`, `[truth, answer]` of at most 500 images, spread over the split; none of classes. Since format 6.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pairs: Vec<Vec<[f32; 2]>>,
}

/// A bin of a reliability diagram: of the most probable class, or of every finding.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReliabilityPoint {
    /// Answers in it.
    pub count: u64,
    /// Their mean probability.
    pub confidence: f64,
    /// The share of them that is right.
    pub accuracy: f64,
}

impl TestRecord {
    /// Checks it against the card's classes.
    ///
    /// # Errors
    /// [`Invalid`] for what does not fit.
    pub(crate) fn check(&self, kind: TaskKind, classes: usize) -> Result<(), Invalid> {
        let wrong = |reason: String| Err(Invalid::new("test", format!("test: {reason}")));
        let sum = |counts: &[u64]| counts.iter().try_fold(0u64, |sum, count| sum.checked_add(*count));
        let numbers = kind == TaskKind::Regression;
        if self.pairs.len() != if numbers { classes } else { 0 } {
            return wrong(format!("pairs of {} outputs are not those of {classes}", self.pairs.len()));
        }
        if self.pairs.iter().flatten().flatten().any(|value| !value.is_finite()) {
            return wrong("pairs hold a number that is not finite".to_owned());
        }
        if !kind.has_probabilities() {
            return match self.counts.is_empty() && self.confusion.is_none() && self.reliability.is_empty() {
                true => Ok(()),
                false => wrong("counts, confusion and reliability belong to classes".to_owned()),
            };
        }
        if self.counts.len() != classes || self.counts.iter().any(|counts| sum(counts) != Some(self.images)) {
            return wrong(format!("counts are not those of {} images and {classes} classes", self.images));
        }
        if self.confusion.is_some() != kind.is_one_class() {
            return wrong("a confusion matrix belongs to tasks of one class an image, and to all of them".to_owned());
        }
        if let Some(confusion) = &self.confusion {
            let square = confusion.len() == classes && confusion.iter().all(|row| row.len() == classes);
            if !square || sum(&confusion.concat()) != Some(self.images) {
                return wrong(format!("confusion is not that of {} images and {classes} classes", self.images));
            }
        }
        let share = |value: f64| (0.0..=1.0).contains(&value);
        if !self.reliability.iter().all(|bin| share(bin.confidence) && share(bin.accuracy)) {
            return wrong("reliability is not of shares in [0, 1]".to_owned());
        }
        if !share(self.calibration_error) {
            return wrong(format!("calibration_error {} is not in [0, 1]", self.calibration_error));
        }
        Ok(())
    }
}
