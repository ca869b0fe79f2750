//! Whether probabilities mean what they say: reliability, expected calibration error, Brier score.

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::checks::{check_multi_label, check_probabilities, check_single_label};
use crate::metrics::argmax;

/// Cases whose confidence lies in (`above`, `up_to`]; the first bin holds 0 too.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// Lower edge, itself in the bin before.
    pub above: f64,
    /// Upper edge, itself in this bin.
    pub up_to: f64,
    /// Cases in the bin.
    pub count: u64,
    /// Mean confidence; `None` in an empty bin.
    pub confidence: Option<f64>,
    /// Share of cases that are right (or present); `None` in an empty bin.
    pub accuracy: Option<f64>,
}

/// A reliability diagram and its one-number summary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reliability {
    /// Bins of equal width from 0 to 1.
    pub bins: Vec<ReliabilityBin>,
    /// Expected calibration error, `Σ count / n · |accuracy - confidence|`, in [0, 1] (Guo et al., On Calibration
    /// of Modern Neural Networks, ICML 2017, eq. 3).
    pub ece: f64,
}

/// *Top-label* reliability where each image has one of `c` classes: the confidence of an image is the largest
/// of its probabilities, and it is right where that class (the first, where several tie) is its label.
///
/// `probabilities [n, c]` are in [0, 1] and need not sum to 1, `labels [n]` in `0..c`; `bins` of equal width,
/// (i / bins, (i + 1) / bins] as Guo et al. and as scikit-learn's `calibration_curve`.
///
/// # Errors
/// As [`single_label`](crate::single_label), and a probability outside [0, 1].
///
/// # Panics
/// Where `bins` is 0.
pub fn reliability_single_label(
    probabilities: &[f32],
    labels: &[usize],
    classes: usize,
    bins: usize,
) -> Result<Reliability, Error> {
    check_single_label("probabilities", probabilities, labels, classes)?;
    check_probabilities(probabilities, classes)?;
    let cases = probabilities.chunks_exact(classes).zip(labels).map(|(row, &label)| {
        let predicted = argmax(row);
        (row[predicted], predicted == label)
    });
    Ok(reliability(cases, bins))
}

/// *Pooled binary* reliability where each image has any number of `c` findings: every one of the `n · c`
/// (image, finding) pairs is a case, its confidence is the probability that the finding is present, and
/// accuracy is the share of cases where it is. Unlike in the top-label form, confidence runs from 0.
///
/// `probabilities [n, c]` are in [0, 1], `labels [n, c]` 0 or 1. For one finding alone, pass its column with
/// `classes` 1.
///
/// # Errors
/// No images, no findings, lengths that do not fit, a label other than 0 and 1, a probability that is not
/// finite or outside [0, 1].
///
/// # Panics
/// Where `bins` is 0.
pub fn reliability_multi_label(
    probabilities: &[f32],
    labels: &[u8],
    classes: usize,
    bins: usize,
) -> Result<Reliability, Error> {
    check_multi_label("probabilities", probabilities, labels, classes)?;
    check_probabilities(probabilities, classes)?;
    Ok(reliability(probabilities.iter().copied().zip(labels.iter().map(|label| *label == 1)), bins))
}

/// Of (confidence in [0, 1], right) pairs, at least one.
fn reliability(cases: impl ExactSizeIterator<Item = (f32, bool)>, bins: usize) -> Reliability {
    assert!(bins > 0, "at least one bin");
    let n = cases.len() as f64;
    let edges: Vec<f64> = (0..=bins).map(|i| i as f64 / bins as f64).collect();
    let mut sums = vec![(0u64, 0.0, 0u64); bins];
    for (confidence, right) in cases {
        let confidence = f64::from(confidence);
        // Inner edges below it: one on an edge stays in the lower bin.
        let (count, total, hits) = &mut sums[edges[1..bins].partition_point(|edge| *edge < confidence)];
        *count += 1;
        *total += confidence;
        *hits += u64::from(right);
    }
    let gaps: f64 = sums.iter().map(|(_, total, hits)| (*hits as f64 - total).abs()).sum();
    let bins = sums.into_iter().zip(edges.windows(2)).map(|((count, total, hits), edges)| ReliabilityBin {
        above: edges[0],
        up_to: edges[1],
        count,
        confidence: (count > 0).then(|| total / count as f64),
        accuracy: (count > 0).then(|| hits as f64 / count as f64),
    });
    Reliability { bins: bins.collect(), ece: gaps / n }
}

/// Brier's score where each image has one of `c` classes, in its original form, a sum over classes:
/// `1/n Σ_i Σ_k (p_ik - y_ik)²`, in [0, 2] where probabilities sum to 1 (Monthly Weather Review 78, 1950).
///
/// Equals scikit-learn's `brier_score_loss(labels, probabilities, scale_by_half=False)`, which is its default
/// for three classes and more. Its default for *two* is half of this.
///
/// `probabilities [n, c]` are in [0, 1], `labels [n]` in `0..c`.
///
/// # Errors
/// As [`reliability_single_label`].
pub fn brier_single_label(probabilities: &[f32], labels: &[usize], classes: usize) -> Result<f64, Error> {
    check_single_label("probabilities", probabilities, labels, classes)?;
    check_probabilities(probabilities, classes)?;
    let rows = probabilities.chunks_exact(classes).zip(labels);
    let sum: f64 = rows
        .flat_map(|(row, &label)| row.iter().enumerate().map(move |(class, &p)| squared_error(p, class == label)))
        .sum();
    Ok(sum / labels.len() as f64)
}

/// Brier score `[c]` of each finding, `1/n Σ_i (p_i - y_i)²` in [0, 1]; the task's score is their mean.
///
/// Each equals scikit-learn's `brier_score_loss` of the finding's 0/1 labels and probabilities.
///
/// # Errors
/// As [`reliability_multi_label`].
pub fn brier_multi_label(probabilities: &[f32], labels: &[u8], classes: usize) -> Result<Vec<f64>, Error> {
    check_multi_label("probabilities", probabilities, labels, classes)?;
    check_probabilities(probabilities, classes)?;
    let mut sums = vec![0.0; classes];
    for (row, labels) in probabilities.chunks_exact(classes).zip(labels.chunks_exact(classes)) {
        for ((sum, &p), &label) in sums.iter_mut().zip(row).zip(labels) {
            *sum += squared_error(p, label == 1);
        }
    }
    let n = (labels.len() / classes) as f64;
    Ok(sums.into_iter().map(|sum| sum / n).collect())
}

fn squared_error(probability: f32, present: bool) -> f64 {
    (f64::from(probability) - f64::from(u8::from(present))).powi(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bins_hold_every_case_once(
            cases in prop::collection::vec((prop_oneof![0.0f32..=1.0, Just(0.0), Just(0.5), Just(1.0)], 0u8..2), 1..80),
            bins in 1usize..20,
        ) {
            let (probabilities, labels): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
            let found = reliability_multi_label(&probabilities, &labels, 1, bins).unwrap();
            prop_assert_eq!(found.bins.len(), bins);
            let mut held = 0;
            let mut ece = 0.0;
            for (at, bin) in found.bins.iter().enumerate() {
                let inside = |p: f32| {
                    (bin.above < f64::from(p) || at == 0 && p == 0.0) && f64::from(p) <= bin.up_to
                };
                prop_assert_eq!(bin.count, probabilities.iter().filter(|p| inside(**p)).count() as u64);
                held += bin.count;
                prop_assert_eq!(bin.confidence.is_none(), bin.count == 0);
                if let (Some(confidence), Some(accuracy)) = (bin.confidence, bin.accuracy) {
                    ece += bin.count as f64 / probabilities.len() as f64 * (accuracy - confidence).abs();
                }
            }
            prop_assert_eq!(held, probabilities.len() as u64);
            // At most 20 terms of at most 1.
            prop_assert!((found.ece - ece).abs() < 1e-14);
        }
    }

    #[test]
    fn top_label_by_hand() {
        // Confidences 0.75 (right), 0.75 (wrong) and 0.5 (a tie: class 0, right).
        let found = reliability_single_label(&[0.75, 0.25, 0.25, 0.75, 0.5, 0.5], &[0, 0, 0], 2, 2).unwrap();
        let [low, high] = found.bins[..] else { panic!("two bins") };
        assert_eq!((low.count, low.confidence, low.accuracy), (1, Some(0.5), Some(1.0)), "0.5 is in the lower bin");
        assert_eq!((high.count, high.confidence, high.accuracy), (2, Some(0.75), Some(0.5)));
        assert_eq!(found.ece, (0.5 + 2.0 * 0.25) / 3.0);
    }

    #[test]
    fn brier_by_hand() {
        assert_eq!(brier_single_label(&[1.0, 0.0, 1.0, 0.0], &[0, 1], 2), Ok(1.0), "right costs 0, wrong 2");
        assert_eq!(brier_multi_label(&[0.5, 1.0, 0.5, 0.0], &[1, 0, 0, 0], 2), Ok(vec![0.25, 0.5]));
    }

    #[test]
    fn probability_out_of_range() {
        let error = Error::ProbabilityOutOfRange { row: 1, class: 0, found: 1.5 };
        assert_eq!(error.to_string(), "probability of image 1, class 0: expected a number from 0 to 1, found 1.5");
        let scores = [0.5, 0.5, 1.5, 0.5];
        assert_eq!(reliability_single_label(&scores, &[0, 1], 2, 10), Err(error.clone()));
        assert_eq!(reliability_multi_label(&scores, &[0, 1, 1, 0], 2, 10), Err(error.clone()));
        assert_eq!(brier_single_label(&scores, &[0, 1], 2), Err(error.clone()));
        assert_eq!(brier_multi_label(&scores, &[0, 1, 1, 0], 2), Err(error));
        let negative = brier_multi_label(&[-0.1], &[0], 1).unwrap_err();
        assert_eq!(negative, Error::ProbabilityOutOfRange { row: 0, class: 0, found: -0.1 });
    }
}
