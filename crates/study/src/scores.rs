//! A cell's test answers: held against the truth, and sorted once, so that an AUC under the weights of a bootstrap draw costs
//! one pass.

use crate::cell_result::CellResult;
use crate::results::OperatingPoint;
use melo_eval::{Metrics, RankedScores, mean_of_defined};
use melo_train::{Answers, Cases, Judged, column};
use std::fmt;

/// How an operating point is chosen, on the validation split.
#[derive(Clone, Copy)]
pub(crate) enum Rule {
    /// The largest sum of sensitivity and specificity.
    Youden,
    /// The highest specificity at this sensitivity.
    Sensitivity(f64),
    /// The highest sensitivity at this specificity.
    Specificity(f64),
}

pub(crate) const RULES: [Rule; 3] = [Rule::Youden, Rule::Sensitivity(0.9), Rule::Specificity(0.9)];

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

/// Scores of one cell's test split, as its plug-in's card decides.
pub(crate) struct Scores {
    classes: usize,
    pub(crate) judged: Judged,
    /// One a class.
    ranked: Vec<RankedScores>,
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
        let Answers { classes, .. } = result.test;
        let thresholds = melo_train::thresholds(&result.val, result.temperature);
        let judged = Judged::new(&result.test, result.temperature, &thresholds);
        let of = |class: usize| {
            RankedScores::new(&column(judged.probabilities(), class, classes), &column(judged.truth(), class, classes))
        };
        let ranked = (0..classes).map(of).collect();
        Scores { classes, ranked, judged, points: operating_points(result) }
    }

    /// Macro AUC of a bootstrap draw, over the classes whose AUC is defined.
    pub(crate) fn auc(&self, weights: &[u32]) -> Option<f64> {
        mean_of_defined(self.ranked.iter().map(|ranked| ranked.auc(weights)))
    }

    /// The test images that have a class, or do not, and how right they are at an operating point; none where the validation
    /// split does not give it.
    pub(crate) fn rate(&self, point: usize, has_it: bool) -> Option<Cases> {
        let Point { found, .. } = self.points[point].as_ref()?;
        Some(self.judged.rate(found, point / RULES.len(), has_it))
    }

    /// Metrics at the card's decisions.
    pub(crate) fn metrics(&self) -> Result<Metrics, melo_eval::Error> {
        self.judged.metrics()
    }

    pub(crate) fn probability(&self, row: usize, class: usize) -> f32 {
        self.judged.probabilities()[row * self.classes + class]
    }

    pub(crate) fn class_scores(&self, class: usize) -> Vec<f32> {
        column(self.judged.probabilities(), class, self.classes)
    }

    pub(crate) fn truth(&self, class: usize) -> Vec<bool> {
        column(self.judged.truth(), class, self.classes)
    }

    /// Images that show a class.
    pub(crate) fn positives(&self, class: usize) -> u64 {
        self.judged.truth().iter().skip(class).step_by(self.classes).filter(|&&truth| truth).count() as u64
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

/// How right each case is, the mean over trainings of the same cases.
pub(crate) fn mean_over_trainings(trainings: &[Cases]) -> Cases {
    let cases = trainings.first().map_or(0, Vec::len);
    (0..cases).map(|at| (mean(trainings.iter().map(|cases| cases[at].0)), trainings[0][at].1)).collect()
}

/// The mean of at least one value.
pub(crate) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, count), value| (sum + value, count + 1));
    sum / count as f64
}
