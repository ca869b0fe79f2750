//! Area under the ROC curve, by ranks:
//! `AUC = P(s⁺ > s⁻) + ½ P(s⁺ = s⁻)` for a random positive and a random negative case
//! (Mann-Whitney U over `positives · negatives`; Hanley & McNeil, Radiology 143, 1982).

/// Area under the ROC curve of `scores [n]` against the truth `positive [n]`, in [0, 1]; a tie counts ½.
///
/// Equals scikit-learn's `roc_auc_score`. O(n log n). Infinite scores are ordered like any other.
///
/// `None` where it is undefined: no positive case, no negative case, or a NaN among the scores.
///
/// # Panics
/// Where the lengths differ.
pub fn roc_auc(scores: &[f32], positive: &[bool]) -> Option<f64> {
    assert_eq!(scores.len(), positive.len(), "one truth a score");
    ranked_auc(scores.iter().copied().zip(positive.iter().copied()).collect())
}

/// [`roc_auc`] of (score, positive) pairs in any order.
pub(crate) fn ranked_auc(mut cases: Vec<(f32, bool)>) -> Option<f64> {
    if cases.iter().any(|(score, _)| score.is_nan()) {
        return None;
    }
    cases.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));

    // `==` rather than bits: -0.0 and 0.0 are a tie.
    auc_of_groups(cases.chunk_by(|a, b| a.0 == b.0).map(|tie| {
        let positives = tie.iter().filter(|(_, positive)| *positive).count() as u64;
        (positives, tie.len() as u64 - positives)
    }))
}

/// AUC of (positives, negatives) in each group of tied scores, the lowest score first.
pub(crate) fn auc_of_groups(groups: impl Iterator<Item = (u64, u64)>) -> Option<f64> {
    // Counts are whole numbers, so the only rounding is the final division. Both counts fit in 64 bits, so
    // twice their product fits in 128 unless both are above 2^63.
    let (mut positives, mut negatives, mut twice_won) = (0u64, 0u64, 0u128);
    for (tied_positives, tied_negatives) in groups {
        twice_won += u128::from(tied_positives) * (2 * u128::from(negatives) + u128::from(tied_negatives));
        positives += tied_positives;
        negatives += tied_negatives;
    }
    let pairs = u128::from(positives) * u128::from(negatives);
    (pairs > 0).then(|| twice_won as f64 / (2 * pairs) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, pair by pair.
    fn by_definition(scores: &[f32], positive: &[bool]) -> Option<f64> {
        let of = |truth: bool| {
            let cases = scores.iter().zip(positive);
            cases.filter(move |(_, p)| **p == truth).map(|(s, _)| *s)
        };
        let (mut won, mut pairs) = (0.0, 0.0);
        for above in of(true) {
            for below in of(false) {
                won += if above > below {
                    1.0
                } else if above == below {
                    0.5
                } else {
                    0.0
                };
                pairs += 1.0;
            }
        }
        (pairs > 0.0).then(|| won / pairs)
    }

    /// Few distinct scores (ties are common), both zeros among them, or any finite score.
    fn score() -> impl Strategy<Value = f32> {
        prop_oneof![
            (-3i8..4).prop_map(|step| f32::from(step) / 4.0),
            Just(-0.0),
            proptest::num::f32::NORMAL | proptest::num::f32::SUBNORMAL,
        ]
    }

    proptest! {
        #[test]
        fn equals_the_definition(cases in prop::collection::vec((score(), any::<bool>()), 0..80)) {
            let (scores, positive): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
            // Both divide the same two whole numbers, or their halves.
            prop_assert_eq!(roc_auc(&scores, &positive), by_definition(&scores, &positive));
        }

        #[test]
        fn swapping_the_truth_mirrors_it(cases in prop::collection::vec((score(), any::<bool>()), 0..80)) {
            let (scores, positive): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
            let negative: Vec<_> = positive.iter().map(|p| !p).collect();
            match (roc_auc(&scores, &positive), roc_auc(&scores, &negative)) {
                (Some(auc), Some(mirror)) => prop_assert!((auc + mirror - 1.0).abs() < 1e-15),
                (auc, mirror) => prop_assert_eq!(auc, mirror),
            }
        }
    }

    #[test]
    fn a_missing_class_is_undefined() {
        assert_eq!(roc_auc(&[], &[]), None);
        assert_eq!(roc_auc(&[0.1, 0.9], &[true, true]), None);
        assert_eq!(roc_auc(&[0.1, 0.9], &[false, false]), None);
    }

    #[test]
    fn nan_is_undefined() {
        assert_eq!(roc_auc(&[0.1, f32::NAN, 0.9], &[false, true, true]), None);
    }

    #[test]
    fn infinities_are_ordered() {
        let scores = [f32::NEG_INFINITY, 0.0, f32::INFINITY];
        assert_eq!(roc_auc(&scores, &[false, true, true]), Some(1.0));
        assert_eq!(roc_auc(&scores, &[true, false, true]), Some(0.5));
    }

    #[test]
    fn two_hundred_thousand_scores() {
        // 7919 is coprime to n: the scores are the integers below n in a scattered order. With every
        // third of them positive, positive 3i beats the 2i negatives below it.
        let n = 200_000u64;
        let ranks: Vec<u64> = (0..n).map(|i| i * 7919 % n).collect();
        let scores: Vec<f32> = ranks.iter().map(|&rank| rank as f32).collect();
        let positive: Vec<bool> = ranks.iter().map(|rank| rank % 3 == 0).collect();
        let positives = n.div_ceil(3);
        let won = positives * (positives - 1);
        let auc = won as f64 / (positives * (n - positives)) as f64;
        assert_eq!(roc_auc(&scores, &positive), Some(auc));
    }
}
