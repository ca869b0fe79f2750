//! A cell's test scores, sorted once, so that a figure under the weights of a bootstrap draw costs one pass.

use crate::cell_result::CellResult;
use crate::results::OperatingPoint;
use melo_eval::{RankedScores, mean_of_defined};
use melo_train::{Answers, column};
use melo_vit::TaskKind;
use std::fmt;

/// How an operating point is chosen, on the validation split.
#[derive(Clone, Copy)]
enum Rule {
    /// The largest sum of sensitivity and specificity.
    Youden,
    /// The highest specificity at this sensitivity.
    Sensitivity(f64),
    /// The highest sensitivity at this specificity.
    Specificity(f64),
}

const RULES: [Rule; 3] = [Rule::Youden, Rule::Sensitivity(0.9), Rule::Specificity(0.9)];

impl Rule {
    fn threshold(self, scores: &[f32], truth: &[bool]) -> Option<f32> {
        let point = match self {
            Rule::Youden => melo_eval::youden(scores, truth),
            Rule::Sensitivity(wanted) => melo_eval::at_sensitivity(scores, truth, wanted),
            Rule::Specificity(wanted) => melo_eval::at_specificity(scores, truth, wanted),
        };
        Some(point?.threshold)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Youden => f.write_str("Youden"),
            Rule::Sensitivity(wanted) => write!(f, "sensitivity {wanted:.2}"),
            Rule::Specificity(wanted) => write!(f, "specificity {wanted:.2}"),
        }
    }
}

/// Scores of one cell's test split.
pub(crate) struct Scores {
    classes: usize,
    kind: TaskKind,
    /// `[n · c]`
    probabilities: Vec<f32>,
    /// `[n · c]`, one-hot for single-label tasks.
    truth: Vec<bool>,
    /// One a class.
    ranked: Vec<RankedScores>,
    /// Share of right answers of each image, `[n]`: 0 or 1 for single-label tasks.
    right: Vec<f64>,
    /// Index of each image's most probable class, `[n]`.
    predicted: Vec<usize>,
    /// By class and rule.
    points: Vec<Option<Point>>,
}

/// A threshold, and what it decides on every test image.
struct Point {
    threshold: f64,
    found: Vec<bool>,
}

impl Scores {
    pub(crate) fn new(result: &CellResult) -> Self {
        let Answers { classes, kind, .. } = result.test;
        let (probabilities, truth) = (result.test.probabilities(1.0), result.test.truth());
        let ranked = (0..classes)
            .map(|class| RankedScores::new(&column(&probabilities, class, classes), &column(&truth, class, classes)))
            .collect();
        let predicted: Vec<usize> = probabilities.chunks_exact(classes).map(melo_eval::argmax).collect();
        let right = match kind {
            TaskKind::SingleLabel => {
                let answers = predicted.iter().zip(&result.test.labels);
                answers.map(|(predicted, label)| f64::from(u8::from(predicted == label))).collect()
            }
            TaskKind::MultiLabel => probabilities
                .chunks_exact(classes)
                .zip(truth.chunks_exact(classes))
                .map(|(p, truth)| {
                    mean(p.iter().zip(truth).map(|(&p, &truth)| f64::from(u8::from((p >= 0.5) == truth))))
                })
                .collect(),
        };
        let points = operating_points(result);
        Scores { classes, kind, probabilities, truth, ranked, right, predicted, points }
    }

    /// Macro AUC over the classes whose AUC is defined; every image once where no weights are given.
    pub(crate) fn auc(&self, weights: Option<&[u32]>) -> Option<f64> {
        mean_of_defined((0..self.classes).map(|class| self.class_auc(class, weights)))
    }

    /// One-vs-rest AUC of a class.
    pub(crate) fn class_auc(&self, class: usize, weights: Option<&[u32]>) -> Option<f64> {
        match weights {
            Some(weights) => self.ranked[class].auc(weights),
            None => self.ranked[class].auc(&vec![1; self.right.len()]),
        }
    }

    /// Share of right answers: argmax, or 0.5 for each finding.
    pub(crate) fn acc(&self, weights: &[u32]) -> f64 {
        let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
        self.right.iter().zip(weights).map(|(right, &w)| right * f64::from(w)).sum::<f64>() / total
    }

    /// Sensitivity and specificity at an operating point, none where a draw has no case for it.
    pub(crate) fn rates(&self, point: usize, weights: &[u32]) -> (Option<f64>, Option<f64>) {
        let Some(Point { found, .. }) = &self.points[point] else {
            return (None, None);
        };
        // [truth][found]
        let mut counts = [[0u64; 2]; 2];
        let truth = self.truth.iter().skip(point / RULES.len()).step_by(self.classes);
        for ((&truth, &found), &weight) in truth.zip(found).zip(weights) {
            counts[usize::from(truth)][usize::from(found)] += u64::from(weight);
        }
        let share = |part: u64, other: u64| (part + other > 0).then(|| part as f64 / (part + other) as f64);
        (share(counts[1][1], counts[1][0]), share(counts[0][0], counts[0][1]))
    }

    /// One a class and rule; none where the validation split does not give it.
    pub(crate) fn operating_points(&self) -> usize {
        self.points.len()
    }

    pub(crate) fn probability(&self, row: usize, class: usize) -> f32 {
        self.probabilities[row * self.classes + class]
    }

    pub(crate) fn class_scores(&self, class: usize) -> Vec<f32> {
        column(&self.probabilities, class, self.classes)
    }

    pub(crate) fn truth(&self, class: usize) -> Vec<bool> {
        column(&self.truth, class, self.classes)
    }

    /// Images that show a class.
    pub(crate) fn positives(&self, class: usize) -> u64 {
        self.truth.iter().skip(class).step_by(self.classes).filter(|&&truth| truth).count() as u64
    }

    /// Images by true and predicted class; none for multi-label tasks.
    pub(crate) fn confusion(&self) -> Option<Vec<Vec<u64>>> {
        if self.kind == TaskKind::MultiLabel {
            return None;
        }
        let mut table = vec![vec![0; self.classes]; self.classes];
        for (truth, &predicted) in self.truth.chunks_exact(self.classes).zip(&self.predicted) {
            if let Some(label) = truth.iter().position(|&truth| truth) {
                table[label][predicted] += 1;
            }
        }
        Some(table)
    }
}

/// The operating points of one class over cells, their rates not yet filled in.
pub(crate) fn operating_points_of<'a>(
    class: usize,
    cells: impl Iterator<Item = &'a Scores> + Clone,
) -> Vec<OperatingPoint> {
    let point = |index: usize, rule: &Rule| {
        let thresholds = cells.clone().filter_map(|scores| Some(scores.points[index].as_ref()?.threshold));
        let count = thresholds.clone().count();
        OperatingPoint {
            rule: rule.to_string(),
            threshold: if count == 0 { 0.0 } else { mean(thresholds) },
            sensitivity: None,
            specificity: None,
        }
    };
    RULES.iter().enumerate().map(|(rule, name)| point(class * RULES.len() + rule, name)).collect()
}

/// Thresholds on calibrated probabilities of the validation split, applied to the test split.
fn operating_points(result: &CellResult) -> Vec<Option<Point>> {
    let classes = result.val.classes;
    let [val, test] = [&result.val, &result.test].map(|answers| answers.probabilities(result.temperature));
    let truth = result.val.truth();
    let point = |class: usize, rule: Rule| {
        let threshold = rule.threshold(&column(&val, class, classes), &column(&truth, class, classes))?;
        let found = column(&test, class, classes).iter().map(|&p| p >= threshold).collect();
        Some(Point { threshold: f64::from(threshold), found })
    };
    let places = (0..classes).flat_map(|class| RULES.map(|rule| (class, rule)));
    places.map(|(class, rule)| point(class, rule)).collect()
}

/// The mean of at least one value.
pub(crate) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, count), value| (sum + value, count + 1));
    sum / count as f64
}
