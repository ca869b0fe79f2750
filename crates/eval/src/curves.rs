//! ROC and precision-recall curves as points to draw, and the average precision.

use serde::{Deserialize, Serialize};

use crate::RankedScores;

/// One point of a ROC curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RocPoint {
    /// Cases with a score of at least this are called positive; `None`: no case is.
    pub threshold: Option<f32>,
    /// 1 - specificity.
    pub false_positive_rate: f64,
    /// Sensitivity.
    pub true_positive_rate: f64,
}

/// One point of a precision-recall curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrecisionRecallPoint {
    /// Cases with a score of at least this are called positive; `None`: no case is, and precision is 1 by
    /// convention.
    pub threshold: Option<f32>,
    /// TP / (TP + FP).
    pub precision: f64,
    /// Sensitivity.
    pub recall: f64,
}

/// The ROC curve from (0, 0) to (1, 1), thresholds falling, without the points that lie between two equal
/// steps (equal in true *and* in false positives): the line through the rest is the same.
///
/// Equals scikit-learn's `roc_curve` with its default `drop_intermediate=True`. `None` with no positive case,
/// no negative case, or a NaN.
///
/// # Panics
/// Where the lengths differ.
pub fn roc_points(scores: &[f32], positive: &[bool]) -> Option<Vec<RocPoint>> {
    let ranked = RankedScores::new(scores, positive);
    let (positives, negatives) = ranked.totals();
    if positives == 0 || negatives == 0 {
        return None;
    }
    let steps: Vec<_> = ranked.at_or_above().collect();
    // Twice the middle is the sum of its neighbours: no second difference.
    let on_a_line = |i: usize| {
        let ((_, tp_before, fp_before), (_, tp, fp), (_, tp_after, fp_after)) = (steps[i - 1], steps[i], steps[i + 1]);
        2 * tp == tp_before + tp_after && 2 * fp == fp_before + fp_after
    };
    let kept = (0..steps.len()).filter(|&i| i == 0 || i + 1 == steps.len() || !on_a_line(i));
    let origin = RocPoint { threshold: None, false_positive_rate: 0.0, true_positive_rate: 0.0 };
    let rest = kept.map(|i| {
        let (threshold, tp, fp) = steps[i];
        RocPoint {
            threshold: Some(threshold),
            false_positive_rate: fp as f64 / negatives as f64,
            true_positive_rate: tp as f64 / positives as f64,
        }
    });
    Some(std::iter::once(origin).chain(rest).collect())
}

/// The precision-recall curve from recall 0 to recall 1, thresholds falling, of each run of points with the
/// same recall only the first and the last.
///
/// Equals scikit-learn's `precision_recall_curve(drop_intermediate=True)`, which lists it backwards. `None`
/// with no positive case or a NaN.
///
/// # Panics
/// Where the lengths differ.
pub fn precision_recall_points(scores: &[f32], positive: &[bool]) -> Option<Vec<PrecisionRecallPoint>> {
    let ranked = RankedScores::new(scores, positive);
    let (positives, _) = ranked.totals();
    if positives == 0 {
        return None;
    }
    let steps: Vec<_> = ranked.at_or_above().collect();
    let inside_a_run = |i: usize| steps[i - 1].1 == steps[i].1 && steps[i].1 == steps[i + 1].1;
    let kept = (0..steps.len()).filter(|&i| i == 0 || i + 1 == steps.len() || !inside_a_run(i));
    let origin = PrecisionRecallPoint { threshold: None, precision: 1.0, recall: 0.0 };
    let rest = kept.map(|i| {
        let (threshold, tp, fp) = steps[i];
        PrecisionRecallPoint {
            threshold: Some(threshold),
            precision: tp as f64 / (tp + fp) as f64,
            recall: tp as f64 / positives as f64,
        }
    });
    Some(std::iter::once(origin).chain(rest).collect())
}

/// Average precision, `Σ (recall_i - recall_{i-1}) · precision_i` over falling thresholds, in [0, 1]: the area
/// under the precision-recall steps, without interpolation. Chance is the share of positives.
///
/// Equals scikit-learn's `average_precision_score`. `None` with no positive case or a NaN.
///
/// # Panics
/// Where the lengths differ.
pub fn average_precision(scores: &[f32], positive: &[bool]) -> Option<f64> {
    let ranked = RankedScores::new(scores, positive);
    let (positives, _) = ranked.totals();
    let (mut sum, mut found) = (0.0, 0);
    for (_, tp, fp) in ranked.at_or_above() {
        sum += (tp - found) as f64 * tp as f64 / (tp + fp) as f64;
        found = tp;
    }
    (positives > 0).then(|| sum / positives as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roc_auc;
    use proptest::prelude::*;

    fn cases() -> impl Strategy<Value = (Vec<f32>, Vec<bool>)> {
        let score = prop_oneof![(-3i8..4).prop_map(|step| f32::from(step) / 4.0), Just(-0.0), -1.0f32..1.0];
        prop::collection::vec((score, any::<bool>()), 0..60).prop_map(|cases| cases.into_iter().unzip())
    }

    proptest! {
        #[test]
        fn the_area_under_the_points_is_the_auc((scores, positive) in cases()) {
            let points = roc_points(&scores, &positive);
            prop_assert_eq!(points.is_some(), roc_auc(&scores, &positive).is_some());
            if let Some(points) = points {
                let area: f64 = points.windows(2).map(|pair| {
                    let width = pair[1].false_positive_rate - pair[0].false_positive_rate;
                    width * (pair[0].true_positive_rate + pair[1].true_positive_rate) / 2.0
                }).sum();
                // At most 60 terms of at most 1.
                prop_assert!((area - roc_auc(&scores, &positive).unwrap()).abs() < 1e-14);
                let last = points[points.len() - 1];
                prop_assert_eq!((last.false_positive_rate, last.true_positive_rate), (1.0, 1.0));
            }
        }

        #[test]
        fn the_steps_under_the_points_are_the_average_precision((scores, positive) in cases()) {
            let points = precision_recall_points(&scores, &positive);
            let steps = points.map(|points| -> f64 {
                points.windows(2).map(|pair| (pair[1].recall - pair[0].recall) * pair[1].precision).sum()
            });
            match (steps, average_precision(&scores, &positive)) {
                (Some(steps), Some(average)) => prop_assert!((steps - average).abs() < 1e-14),
                (steps, average) => prop_assert_eq!(steps, average),
            }
        }
    }

    #[test]
    fn a_long_run_is_two_points() {
        let scores: Vec<f32> = (0..1000).map(|i| i as f32).collect();
        let positive: Vec<bool> = (0..1000).map(|i| i >= 500).collect();
        let corners: Vec<_> = roc_points(&scores, &positive).unwrap().iter().map(|p| p.threshold).collect();
        assert_eq!(corners, [None, Some(999.0), Some(500.0), Some(0.0)]);
    }

    #[test]
    fn a_missing_class_is_undefined() {
        assert_eq!(roc_points(&[0.1, 0.9], &[true, true]), None);
        assert_eq!(roc_points(&[0.1, 0.9], &[false, false]), None);
        assert_eq!(roc_points(&[], &[]), None);
        assert_eq!(precision_recall_points(&[0.1, 0.9], &[false, false]), None);
        assert_eq!(average_precision(&[0.1, 0.9], &[false, false]), None);
        assert_eq!(average_precision(&[0.1, 0.9], &[true, true]), Some(1.0));
        assert_eq!(average_precision(&[0.1, f32::NAN], &[true, true]), None);
    }
}
