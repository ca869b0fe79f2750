//! Where to cut: thresholds with a stated aim. The decision is always `score >= threshold`.
//!
//! Candidates are the distinct scores and, so that a specificity of 1 can be reached, the next number above
//! the highest of them; no two candidates have the same counts. Shares are compared in whole numbers or as the
//! f64 nearest to them: 19 of 20 *is* at least 0.95.
//!
//! A threshold is as good as the cases that chose it: choose it on validation cases, state it on test cases.

use serde::{Deserialize, Serialize};

use crate::{Counts, RankedScores};

/// A threshold and what it gives on the cases that chose it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperatingPoint {
    /// Positive is called where the score is at least this. Finite where the scores are below `f32::MAX`.
    pub threshold: f32,
    /// TP / (TP + FN).
    pub sensitivity: f64,
    /// TN / (TN + FP).
    pub specificity: f64,
    /// The four counts.
    pub counts: Counts,
}

/// The threshold of the largest `J = sensitivity + specificity - 1` (Youden, Cancer 3, 1950); among equals the
/// highest, which has the highest specificity. It is scikit-learn's
/// `thresholds[argmax(tpr - fpr)]` where that is not spoilt by rounding.
///
/// `None` with no positive case, no negative case, or a NaN.
///
/// # Panics
/// Where the lengths differ.
pub fn youden(scores: &[f32], positive: &[bool]) -> Option<OperatingPoint> {
    // J · positives · negatives, exact.
    best(scores, positive, |counts| {
        let negatives = counts.false_positive + counts.true_negative;
        let hits = i128::from(counts.true_positive) * i128::from(negatives);
        Some((hits - i128::from(counts.false_positive) * i128::from(counts.positives()), counts.true_negative))
    })
}

/// The threshold of the highest specificity where sensitivity is at least `sensitivity`; among equals the one
/// of the highest sensitivity.
///
/// `None` with no positive case, no negative case or a NaN, or a `sensitivity` above 1 or NaN.
///
/// # Panics
/// Where the lengths differ.
pub fn at_sensitivity(scores: &[f32], positive: &[bool], sensitivity: f64) -> Option<OperatingPoint> {
    best(scores, positive, |counts| {
        (counts.sensitivity()? >= sensitivity).then_some((counts.true_negative, counts.true_positive))
    })
}

/// The threshold of the highest sensitivity where specificity is at least `specificity`; among equals the one
/// of the highest specificity.
///
/// `None` with no positive case, no negative case or a NaN, a `specificity` above 1 or NaN, or one that
/// cannot be reached because negative cases have a score of infinity.
///
/// # Panics
/// Where the lengths differ.
pub fn at_specificity(scores: &[f32], positive: &[bool], specificity: f64) -> Option<OperatingPoint> {
    best(scores, positive, |counts| {
        (counts.specificity()? >= specificity).then_some((counts.true_positive, counts.true_negative))
    })
}

/// The candidate of the largest merit, leaving out those that have none. `merit` orders all candidates.
fn best<M: Ord>(scores: &[f32], positive: &[bool], merit: impl Fn(&Counts) -> Option<M>) -> Option<OperatingPoint> {
    let ranked = RankedScores::new(scores, positive);
    let (positives, negatives) = ranked.totals();
    if positives == 0 || negatives == 0 {
        return None;
    }
    let highest = ranked.at_or_above().next()?.0;
    let nothing_found = (highest < f32::INFINITY).then(|| (highest.next_up(), 0, 0));
    let candidates = nothing_found.into_iter().chain(ranked.at_or_above()).map(|(threshold, tp, fp)| {
        let counts = Counts {
            true_positive: tp,
            false_positive: fp,
            false_negative: positives - tp,
            true_negative: negatives - fp,
        };
        (threshold, counts)
    });
    let (_, (threshold, counts)) =
        candidates.filter_map(|candidate| Some((merit(&candidate.1)?, candidate))).max_by(|a, b| a.0.cmp(&b.0))?;
    Some(OperatingPoint { threshold, sensitivity: counts.sensitivity()?, specificity: counts.specificity()?, counts })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The four counts of the decision itself.
    fn decide(scores: &[f32], positive: &[bool], threshold: f32) -> Counts {
        let count = |truth: bool, found: bool| {
            let cases = scores.iter().zip(positive);
            cases.filter(|(score, positive)| **positive == truth && (**score >= threshold) == found).count() as u64
        };
        Counts {
            true_positive: count(true, true),
            false_positive: count(false, true),
            false_negative: count(true, false),
            true_negative: count(false, false),
        }
    }

    fn cases() -> impl Strategy<Value = (Vec<f32>, Vec<bool>)> {
        let score = prop_oneof![(-3i8..4).prop_map(|step| f32::from(step) / 4.0), Just(-0.0), -1.0f32..1.0];
        prop::collection::vec((score, any::<bool>()), 0..40).prop_map(|cases| cases.into_iter().unzip())
    }

    proptest! {
        /// No threshold whatever does better than the one chosen.
        #[test]
        fn nothing_is_better((scores, positive) in cases(), share in prop_oneof![0.0f64..1.0, Just(0.0), Just(1.0)]) {
            let others: Vec<Counts> = scores.iter().copied().chain([f32::INFINITY])
                .map(|threshold| decide(&scores, &positive, threshold))
                .collect();
            let both = positive.contains(&true) && positive.contains(&false);
            let chosen = [
                youden(&scores, &positive),
                at_sensitivity(&scores, &positive, share),
                at_specificity(&scores, &positive, share),
            ];
            for point in chosen {
                prop_assert_eq!(point.is_some(), both);
                if let Some(point) = point {
                    prop_assert!(point.threshold.is_finite());
                    prop_assert_eq!(point.counts, decide(&scores, &positive, point.threshold));
                    prop_assert_eq!(Some(point.sensitivity), point.counts.sensitivity());
                    prop_assert_eq!(Some(point.specificity), point.counts.specificity());
                }
            }
            if let [Some(by_j), Some(by_sensitivity), Some(by_specificity)] = chosen {
                prop_assert!(by_sensitivity.sensitivity >= share && by_specificity.specificity >= share);
                for other in others {
                    let (sensitivity, specificity) = (other.sensitivity().unwrap(), other.specificity().unwrap());
                    // Two sums of two fractions, each rounded.
                    prop_assert!(sensitivity + specificity <= by_j.sensitivity + by_j.specificity + 1e-15);
                    if sensitivity >= share {
                        let best = (by_sensitivity.specificity, by_sensitivity.sensitivity);
                        prop_assert!((specificity, sensitivity) <= best);
                    }
                    if specificity >= share {
                        let best = (by_specificity.sensitivity, by_specificity.specificity);
                        prop_assert!((sensitivity, specificity) <= best);
                    }
                }
            }
        }
    }

    #[test]
    fn ties_go_as_documented() {
        // J is 1/2 at 0.8 (one of two positives, no negative) and at 0.4 (both, one of two negatives).
        let (scores, positive) = ([0.8, 0.6, 0.4, 0.2], [true, false, true, false]);
        assert_eq!(youden(&scores, &positive).unwrap().threshold, 0.8);
        // Sensitivity 0 is reached by everything: specificity 1 at 0.8 and above it; 0.8 finds one more.
        assert_eq!(at_sensitivity(&scores, &positive, 0.0).unwrap().threshold, 0.8);
        // Specificity 0 likewise: 0.4 and 0.2 find both positives.
        assert_eq!(at_specificity(&scores, &positive, 0.0).unwrap().threshold, 0.4);
    }

    #[test]
    fn a_share_reached_exactly_is_reached() {
        // 19 positives, a negative, a positive: sensitivity 19/20 costs nothing.
        let scores: Vec<f32> = (0..21).map(|i| -(i as f32)).collect();
        let positive: Vec<bool> = (0..21).map(|i| i != 19).collect();
        let point = at_sensitivity(&scores, &positive, 0.95).unwrap();
        assert_eq!((point.threshold, point.sensitivity, point.specificity), (-18.0, 0.95, 1.0));
        // Mirrored: a negative, a positive, 19 negatives; the positive is found at specificity 19/20.
        let (scores, negative): (Vec<f32>, Vec<bool>) =
            scores.iter().zip(&positive).map(|(score, positive)| (-score, !positive)).unzip();
        let point = at_specificity(&scores, &negative, 0.95).unwrap();
        assert_eq!((point.threshold, point.sensitivity, point.specificity), (19.0, 1.0, 0.95));
    }

    #[test]
    fn nothing_may_be_found() {
        let point = at_specificity(&[0.1, 0.9], &[true, false], 1.0).unwrap();
        assert_eq!((point.sensitivity, point.specificity), (0.0, 1.0));
        assert!(point.threshold > 0.9 && point.threshold < 0.900_001);
        assert_eq!(at_specificity(&[0.1, f32::INFINITY], &[true, false], 1.0), None);
        assert_eq!(at_sensitivity(&[0.1, 0.9], &[true, false], 1.1), None);
        assert_eq!(at_sensitivity(&[0.1, 0.9], &[true, false], f64::NAN), None);
        assert_eq!(youden(&[0.1, f32::NAN], &[true, false]), None);
    }
}
