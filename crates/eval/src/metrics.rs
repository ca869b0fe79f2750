//! Metrics of a classifier at its operating point (argmax, or one threshold a finding) and over all
//! of them (AUC), each equal to scikit-learn's on the same scores.

use serde::{Deserialize, Serialize};

use crate::auc::ranked_auc;
use crate::checks::{check_multi_label, check_single_label};
use crate::mean::mean_of_defined;
use crate::{Collapse, Error};

/// One class against the rest: how many images (or pixels, of a segmentation) fall in each cell of the 2 × 2 table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Present and found.
    pub true_positive: u64,
    /// Absent but found.
    pub false_positive: u64,
    /// Present but missed.
    pub false_negative: u64,
    /// Absent and not found.
    pub true_negative: u64,
}

impl Counts {
    /// All images.
    pub fn images(&self) -> u64 {
        self.positives() + self.true_negative + self.false_positive
    }

    /// Images that have the class: TP + FN.
    pub fn positives(&self) -> u64 {
        self.true_positive + self.false_negative
    }

    /// Images that are called so: TP + FP.
    pub fn called(&self) -> u64 {
        self.true_positive + self.false_positive
    }

    /// Recall, TP / (TP + FN); `None` where no image has the class.
    pub fn sensitivity(&self) -> Option<f64> {
        ratio(self.true_positive, self.positives())
    }

    /// TN / (TN + FP); `None` where every image has the class.
    pub fn specificity(&self) -> Option<f64> {
        ratio(self.true_negative, self.true_negative + self.false_positive)
    }

    /// Positive predictive value, TP / (TP + FP); `None` where the class is never predicted.
    pub fn precision(&self) -> Option<f64> {
        ratio(self.true_positive, self.true_positive + self.false_positive)
    }

    /// 2 TP / (2 TP + FP + FN); `None` where the class neither occurs nor is predicted.
    pub fn f1(&self) -> Option<f64> {
        let twice = 2 * self.true_positive;
        ratio(twice, twice + self.false_positive + self.false_negative)
    }

    fn add(&mut self, present: bool, found: bool) {
        match (present, found) {
            (true, true) => self.true_positive += 1,
            (false, true) => self.false_positive += 1,
            (true, false) => self.false_negative += 1,
            (false, false) => self.true_negative += 1,
        }
    }
}

impl std::iter::Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |sum, of| Self {
            true_positive: sum.true_positive + of.true_positive,
            false_positive: sum.false_positive + of.false_positive,
            false_negative: sum.false_negative + of.false_negative,
            true_negative: sum.true_negative + of.true_negative,
        })
    }
}

/// What [`single_label`] and [`multi_label`] find. Fractions are in [0, 1]; `*_per_class` is `[c]`.
///
/// A fraction of nothing (0 / 0) is `None`, never a number. Two kinds of macro average, both unweighted:
/// - `auc_macro` is over the classes whose AUC is defined;
/// - `f1_macro`, `sensitivity_macro`, `specificity_macro` and `precision_macro` are over *all* classes, an
///   undefined one counting 0: scikit-learn's `average="macro"` with `labels=range(c)` and its default
///   `zero_division`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Images.
    pub n: usize,
    /// Accuracy. One label an image: the share of images whose label is predicted. Multi-label: the share
    /// of right answers among all `n · c`, which is 1 - Hamming loss.
    pub acc: f64,
    /// Share of images with *every* label right (scikit-learn's `accuracy_score`, also called subset
    /// accuracy). Equals `acc` where each image has one label.
    pub exact_match: f64,
    /// Balanced accuracy: the mean sensitivity of the classes that have cases (scikit-learn's `balanced_accuracy_score`), which
    /// guessing brings to 1 / c. Multi-label: the mean of sensitivity and specificity, over the findings that have both.
    /// `None` where no class has.
    #[serde(default)]
    pub balanced_acc: Option<f64>,
    /// Mean of the AUCs that are defined; `None` where none is. With two classes whose probabilities sum
    /// to 1, both classes have the same AUC, and this is it.
    pub auc_macro: Option<f64>,
    /// AUC of all `n · c` scores against the flattened (one-hot) truth, as `average="micro"`.
    pub auc_micro: Option<f64>,
    /// One-vs-rest AUC; `None` where every image has the class, or none has it.
    pub auc_per_class: Vec<Option<f64>>,
    /// Macro F1.
    pub f1_macro: f64,
    /// [`Counts::f1`].
    pub f1_per_class: Vec<Option<f64>>,
    /// Macro sensitivity (recall).
    pub sensitivity_macro: f64,
    /// [`Counts::sensitivity`].
    pub sensitivity_per_class: Vec<Option<f64>>,
    /// Macro specificity.
    pub specificity_macro: f64,
    /// [`Counts::specificity`].
    pub specificity_per_class: Vec<Option<f64>>,
    /// Macro precision.
    pub precision_macro: f64,
    /// [`Counts::precision`].
    pub precision_per_class: Vec<Option<f64>>,
    /// Images that have the class (support).
    pub positives_per_class: Vec<u64>,
    /// Each class against the rest.
    pub counts_per_class: Vec<Counts>,
    /// Images by `[true class][predicted class]`, `[c, c]`; `None` for multi-label.
    pub confusion: Option<Vec<Vec<u64>>>,
}

/// Metrics of a task where each image has exactly one of `c` classes.
///
/// `probabilities [n, c]` are finite (they need not sum to 1), `labels [n]` are in `0..c`. The prediction
/// is the argmax of a row, the first maximum where several tie, as numpy's. AUC is one-vs-rest.
///
/// # Errors
/// No images, fewer than two classes, lengths that do not fit, a label out of range, a score that is not finite.
pub fn single_label(probabilities: &[f32], labels: &[usize], classes: usize) -> Result<Metrics, Error> {
    check_single_label("probabilities", probabilities, labels, classes)?;
    let predicted: Vec<usize> = probabilities.chunks_exact(classes).map(argmax).collect();
    single_label_decided(probabilities, labels, &predicted, classes)
}

/// As [`single_label`], of classes `predicted [n]` that somebody else has decided for.
///
/// # Errors
/// As [`single_label`]; a predicted class out of range.
pub fn single_label_decided(
    probabilities: &[f32],
    labels: &[usize],
    predicted: &[usize],
    classes: usize,
) -> Result<Metrics, Error> {
    check_single_label("probabilities", probabilities, labels, classes)?;
    check_single_label("probabilities", probabilities, predicted, classes)?;
    let mut truth = vec![false; probabilities.len()];
    let mut counts = vec![Counts::default(); classes];
    let mut confusion = vec![vec![0; classes]; classes];
    for (row, (&predicted, &label)) in predicted.iter().zip(labels).enumerate() {
        truth[row * classes + label] = true;
        confusion[label][predicted] += 1;
        for (class, counts) in counts.iter_mut().enumerate() {
            counts.add(class == label, class == predicted);
        }
    }
    let right: u64 = (0..classes).map(|class| confusion[class][class]).sum();
    let acc = right as f64 / labels.len() as f64;
    Ok(Metrics {
        acc,
        exact_match: acc,
        balanced_acc: mean_of_defined(counts.iter().map(Counts::sensitivity)),
        confusion: Some(confusion),
        ..Metrics::of_classes(probabilities, &truth, counts)
    })
}

/// Metrics of a task where each image has any number of `c` findings.
///
/// `probabilities [n, c]` are finite, `labels [n, c]` are 0 (absent) or 1 (present), `thresholds [c]`:
/// a finding is predicted where its probability is *at least* its threshold.
///
/// # Errors
/// No images, no findings, lengths that do not fit, a label other than 0 and 1, a score that is not finite,
/// a NaN threshold.
pub fn multi_label(probabilities: &[f32], labels: &[u8], thresholds: &[f32]) -> Result<Metrics, Error> {
    let classes = thresholds.len();
    check_multi_label("probabilities", probabilities, labels, classes)?;
    if let Some(class) = thresholds.iter().position(|threshold| threshold.is_nan()) {
        return Err(Error::ThresholdNan { class });
    }
    let reached = probabilities.iter().zip(thresholds.iter().cycle()).map(|(p, threshold)| p >= threshold);
    multi_label_decided(probabilities, labels, &reached.collect::<Vec<_>>(), classes)
}

/// As [`multi_label`], of findings `found [n, c]` that somebody else has decided for.
///
/// # Errors
/// As [`multi_label`], but for thresholds.
///
/// # Panics
/// If `found` is not `[n, c]`.
pub fn multi_label_decided(
    probabilities: &[f32],
    labels: &[u8],
    found: &[bool],
    classes: usize,
) -> Result<Metrics, Error> {
    check_multi_label("probabilities", probabilities, labels, classes)?;
    assert_eq!(found.len(), probabilities.len(), "decisions of [n, c]");
    let truth: Vec<bool> = labels.iter().map(|label| *label == 1).collect();
    let mut counts = vec![Counts::default(); classes];
    let (mut right, mut exact) = (0u64, 0u64);
    for (found, truth) in found.chunks_exact(classes).zip(truth.chunks_exact(classes)) {
        let mut right_here = 0;
        for (class, counts) in counts.iter_mut().enumerate() {
            counts.add(truth[class], found[class]);
            right_here += u64::from(truth[class] == found[class]);
        }
        right += right_here;
        exact += u64::from(right_here == classes as u64);
    }
    Ok(Metrics {
        acc: right as f64 / labels.len() as f64,
        exact_match: exact as f64 / (labels.len() / classes) as f64,
        balanced_acc: mean_of_defined(
            counts.iter().map(|counts| Some((counts.sensitivity()? + counts.specificity()?) / 2.0)),
        ),
        ..Metrics::of_classes(probabilities, &truth, counts)
    })
}

impl Metrics {
    /// Classes that are never called, or that nearly every image is called; `None` where there is no such class.
    pub fn collapse(&self) -> Option<Collapse> {
        Collapse::of(&self.counts_per_class)
    }

    /// Everything that follows from each class against the rest; the caller fills in `acc`, `exact_match`,
    /// `balanced_acc` and `confusion`. `probabilities` and `truth` are `[n, c]`, `counts` is `[c]`, c > 0.
    fn of_classes(probabilities: &[f32], truth: &[bool], counts: Vec<Counts>) -> Self {
        let classes = counts.len();
        let cases = || probabilities.iter().copied().zip(truth.iter().copied());
        let auc_per_class: Vec<_> =
            (0..classes).map(|class| ranked_auc(cases().skip(class).step_by(classes).collect())).collect();

        let per_class = |fraction: fn(&Counts) -> Option<f64>| counts.iter().map(fraction).collect::<Vec<_>>();
        let f1_per_class = per_class(Counts::f1);
        let sensitivity_per_class = per_class(Counts::sensitivity);
        let specificity_per_class = per_class(Counts::specificity);
        let precision_per_class = per_class(Counts::precision);
        Metrics {
            n: probabilities.len() / classes,
            acc: 0.0,
            exact_match: 0.0,
            balanced_acc: None,
            auc_macro: mean_of_defined(auc_per_class.iter().copied()),
            auc_micro: ranked_auc(cases().collect()),
            auc_per_class,
            f1_macro: mean_with_zeros(&f1_per_class),
            f1_per_class,
            sensitivity_macro: mean_with_zeros(&sensitivity_per_class),
            sensitivity_per_class,
            specificity_macro: mean_with_zeros(&specificity_per_class),
            specificity_per_class,
            precision_macro: mean_with_zeros(&precision_per_class),
            precision_per_class,
            positives_per_class: counts.iter().map(Counts::positives).collect(),
            counts_per_class: counts,
            confusion: None,
        }
    }
}

/// Index of the largest of some finite scores, the first where several tie.
pub fn argmax(scores: &[f32]) -> usize {
    (1..scores.len()).fold(0, |best, class| if scores[class] > scores[best] { class } else { best })
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn mean_with_zeros(fractions: &[Option<f64>]) -> f64 {
    fractions.iter().flatten().sum::<f64>() / fractions.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_label_by_hand() {
        // Predicted 0, 1, 0 (a tie: the first), 0; class 2 neither occurs nor is predicted.
        let probabilities = [0.8, 0.1, 0.1, 0.2, 0.7, 0.1, 0.5, 0.5, 0.0, 0.6, 0.3, 0.1];
        let metrics = single_label(&probabilities, &[0, 1, 1, 0], 3).unwrap();
        assert_eq!(metrics.n, 4);
        assert_eq!((metrics.acc, metrics.exact_match), (0.75, 0.75));
        assert_eq!(metrics.confusion, Some(vec![vec![2, 0, 0], vec![1, 1, 0], vec![0, 0, 0]]));
        assert_eq!(metrics.auc_per_class, [Some(1.0), Some(1.0), None]);
        assert_eq!(metrics.auc_macro, Some(1.0));
        assert_eq!(metrics.sensitivity_per_class, [Some(1.0), Some(0.5), None]);
        assert_eq!(metrics.sensitivity_macro, 0.5);
        assert_eq!(metrics.specificity_per_class, [Some(0.5), Some(1.0), Some(1.0)]);
        assert_eq!(metrics.precision_per_class, [Some(2.0 / 3.0), Some(1.0), None]);
        assert_eq!(metrics.f1_per_class, [Some(0.8), Some(2.0 / 3.0), None]);
        assert_eq!(metrics.positives_per_class, [2, 2, 0]);
    }

    #[test]
    fn multi_label_by_hand() {
        let probabilities = [0.9, 0.2, 0.5, 0.3, 0.4, 0.1];
        let metrics = multi_label(&probabilities, &[1, 0, 1, 1, 0, 0], &[0.5, 0.25]).unwrap();
        assert_eq!((metrics.acc, metrics.exact_match), (1.0, 1.0), "0.5 reaches its threshold");
        let metrics = multi_label(&probabilities, &[1, 0, 1, 1, 0, 0], &[0.6, 0.0]).unwrap();
        assert_eq!((metrics.acc, metrics.exact_match), (0.5, 0.0));
        assert_eq!(metrics.confusion, None);
        let second = Counts { true_positive: 1, false_positive: 2, false_negative: 0, true_negative: 0 };
        assert_eq!(metrics.counts_per_class[1], second);
    }

    #[test]
    fn no_defined_class_leaves_the_macro_auc_undefined() {
        let metrics = single_label(&[0.6, 0.4, 0.3, 0.7], &[1, 1], 2).unwrap();
        assert_eq!(metrics.auc_per_class, [None, None]);
        assert_eq!(metrics.auc_macro, None);
        assert_eq!(metrics.auc_micro, Some(0.75), "0.4 and 0.7 against 0.6 and 0.3: three pairs of four");
    }

    #[test]
    fn survives_json() {
        let metrics = single_label(&[0.75, 0.25, 0.5, 0.5], &[0, 0], 2).unwrap();
        let json = serde_json::to_string(&metrics).unwrap();
        assert_eq!(serde_json::from_str::<Metrics>(&json).unwrap(), metrics);
    }

    #[test]
    fn no_rows() {
        assert_eq!(single_label(&[], &[], 2), Err(Error::NoRows));
        assert_eq!(multi_label(&[], &[], &[0.5]), Err(Error::NoRows));
    }

    #[test]
    fn too_few_classes() {
        let error = Error::TooFewClasses { expected: 2, found: 1 };
        assert_eq!(single_label(&[1.0], &[0], 1), Err(error));
        let error = Error::TooFewClasses { expected: 1, found: 0 };
        assert_eq!(multi_label(&[], &[], &[]), Err(error));
    }

    #[test]
    fn wrong_lengths() {
        let length = |expected, found| Error::Length { what: "probabilities", expected, found };
        assert_eq!(single_label(&[0.5; 5], &[0, 1], 2), Err(length(4, 5)));
        assert_eq!(single_label(&[0.5; 4], &[0, 1], usize::MAX), Err(length(usize::MAX, 4)));
        assert_eq!(multi_label(&[0.5; 2], &[0, 1, 1, 0], &[0.5; 2]), Err(length(4, 2)));
        let ragged = Error::Ragged { what: "labels", classes: 2, found: 3 };
        assert_eq!(multi_label(&[0.5; 3], &[0, 1, 1], &[0.5; 2]), Err(ragged));
    }

    #[test]
    fn labels_out_of_range() {
        let error = Error::LabelOutOfRange { row: 1, classes: 2, found: 2 };
        assert_eq!(error.to_string(), "label of image 1: expected a class below 2, found 2");
        assert_eq!(single_label(&[0.5; 4], &[0, 2], 2), Err(error));
        let error = Error::LabelNotBinary { row: 1, class: 0, found: 7 };
        assert_eq!(multi_label(&[0.5; 4], &[0, 1, 7, 0], &[0.5; 2]), Err(error));
    }

    #[test]
    fn scores_not_finite() {
        let infinite = Error::ScoreNotFinite { row: 1, class: 0, found: f32::INFINITY };
        let scores = [0.5, 0.5, f32::INFINITY, 0.5];
        assert_eq!(single_label(&scores, &[0, 1], 2), Err(infinite.clone()));
        assert_eq!(multi_label(&scores, &[0; 4], &[0.5; 2]), Err(infinite));
        let nan = single_label(&[0.5, f32::NAN], &[0], 2).unwrap_err();
        assert_eq!(nan.to_string(), "score of image 0, class 1: expected a finite number, found NaN");
    }

    #[test]
    fn threshold_nan() {
        let error = Error::ThresholdNan { class: 1 };
        assert_eq!(multi_label(&[0.5; 2], &[0, 1], &[0.5, f32::NAN]), Err(error));
    }
}
