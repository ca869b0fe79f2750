//! Variance of an AUC and of the difference of two, without resampling: DeLong, DeLong & Clarke-Pearson,
//! Biometrics 44, 1988, from ranks as Sun & Xu, IEEE Signal Processing Letters 21, 2014, in O(n log n).
//!
//! With m positive and n negative cases, the *structural component* of a positive case is the share of the
//! negatives that it beats (a tie counts ½), of a negative case the share of the positives that beat it. The
//! AUC is the mean of either kind, and its variance is estimated by
//! `var(components of positives) / m + var(components of negatives) / n`, each with the denominator of an
//! unbiased sample variance (m - 1, n - 1). A difference of AUCs has the differences of the components.
//!
//! Cases count as independent: with several images a patient, use [`ClusteredAuc`](crate::ClusteredAuc).

use serde::{Deserialize, Serialize};

use crate::RankedScores;
use crate::distributions::{normal_two_sided, normal_z};

/// An AUC with its uncertainty, from [`delong`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AucEstimate {
    /// As [`roc_auc`](crate::roc_auc).
    pub auc: f64,
    /// DeLong's estimate of the variance of `auc`; 0 where positives and negatives separate perfectly, which
    /// says that the normal interval does not apply, not that the AUC is certain.
    pub variance: f64,
    /// Lower end of the interval, not below 0.
    pub low: f64,
    /// Upper end of the interval, not above 1.
    pub high: f64,
}

/// Two AUCs on the same cases and their difference, from [`delong_paired`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairedAuc {
    /// AUC of the first scores.
    pub auc_a: f64,
    /// AUC of the second scores.
    pub auc_b: f64,
    /// `auc_a - auc_b`.
    pub difference: f64,
    /// Variance of `difference`, covariance included.
    pub variance: f64,
    /// Lower end of the interval of `difference`, not clamped.
    pub low: f64,
    /// Upper end of the interval of `difference`, not clamped.
    pub high: f64,
    /// `difference / √variance`; `None` where the variance is 0.
    pub z: Option<f64>,
    /// Two-sided p-value of equal AUCs, `P(|Z| > |z|)`.
    ///
    /// Where the variance is 0, as pROC: 1 if the difference is 0 too (the two order all pairs alike), else 0.
    /// That 0 comes of components without spread, such as perfect scores against constant ones, and is no
    /// measure of evidence: look at `z`, which is `None` there.
    pub p: f64,
}

/// AUC of `scores [n]` against `positive [n]` with DeLong's variance and the normal interval
/// `auc ± z · √variance` of confidence `level` (such as 0.95), clamped to [0, 1]. Near 0 and 1 that interval is too narrow,
/// and of no width for a perfect AUC: [`ClusteredAuc`](crate::ClusteredAuc) has one that is not.
///
/// Equals pROC's `var` and `ci.auc` with `direction = "<"`. Sums are exact in whole numbers, so the order of
/// the cases does not matter to the last bit. `None` where it is undefined: fewer than two positive or two
/// negative cases, or a NaN among the scores.
///
/// # Panics
/// Where the lengths differ, there are more than 2^31 cases, or `level` is not between 0 and 1.
pub fn delong(scores: &[f32], positive: &[bool], level: f64) -> Option<AucEstimate> {
    let z = normal_z(level);
    let Moments { mean: auc, variance } = Moments::of(&twice_won(scores, positive)?, positive)?;
    let half = z * variance.sqrt();
    Some(AucEstimate { auc, variance, low: (auc - half).max(0.0), high: (auc + half).min(1.0) })
}

/// DeLong's test of whether two sets of scores of the *same* cases have the same AUC, with the normal interval
/// of their difference of confidence `level`.
///
/// Equals pROC's `roc.test(method = "delong", paired = TRUE)`. Swapping `a` and `b` changes signs and nothing
/// else. `None` where [`delong`] is undefined for either.
///
/// # Panics
/// As [`delong`].
pub fn delong_paired(a: &[f32], b: &[f32], positive: &[bool], level: f64) -> Option<PairedAuc> {
    let critical = normal_z(level);
    let (won_a, won_b) = (twice_won(a, positive)?, twice_won(b, positive)?);
    let gained: Vec<i64> = won_a.iter().zip(&won_b).map(|(a, b)| a - b).collect();
    let (auc_a, auc_b) = (Moments::of(&won_a, positive)?.mean, Moments::of(&won_b, positive)?.mean);
    let Moments { mean: difference, variance } = Moments::of(&gained, positive)?;
    let half = critical * variance.sqrt();
    let z = (variance > 0.0).then(|| difference / variance.sqrt());
    let p = match z {
        Some(z) => normal_two_sided(z),
        None if difference == 0.0 => 1.0,
        None => 0.0,
    };
    Some(PairedAuc { auc_a, auc_b, difference, variance, low: difference - half, high: difference + half, z, p })
}

/// For each case, twice the number of cases of the other kind against which the pair is in the right order,
/// ties half: the structural component times 2n (of a positive) or 2m (of a negative). `None` with a NaN.
pub(crate) fn twice_won(scores: &[f32], positive: &[bool]) -> Option<Vec<i64>> {
    if scores.iter().any(|score| score.is_nan()) {
        return None;
    }
    assert!(scores.len() <= 1 << 31, "at most 2^31 cases");
    let ranked = RankedScores::new(scores, positive);
    let all_positives = ranked.totals().0 as i64;
    let mut won = vec![0; scores.len()];
    let (mut positives_below, mut negatives_below) = (0, 0);
    for tie in ranked.ties() {
        let (positives, negatives) = (tie.positives.len() as i64, tie.negatives.len() as i64);
        for &case in tie.positives {
            won[case as usize] = 2 * negatives_below + negatives;
        }
        for &case in tie.negatives {
            won[case as usize] = 2 * (all_positives - positives_below) - positives;
        }
        positives_below += positives;
        negatives_below += negatives;
    }
    Some(won)
}

/// Mean of structural components, or of differences of them, and DeLong's variance of that mean.
struct Moments {
    mean: f64,
    variance: f64,
}

impl Moments {
    /// Of [`twice_won`] or a difference of two; `None` with fewer than two positives or two negatives.
    ///
    /// Each sum is exact, and so a variance is 0 where it should be: with at most 2^31 cases a term is at most
    /// 2^32 either way, the sum of squares at most 2^95, and `count` times that at most 2^126.
    fn of(won: &[i64], positive: &[bool]) -> Option<Self> {
        let mut kinds = [(0u64, 0i128, 0i128); 2];
        for (&won, &positive) in won.iter().zip(positive) {
            let (count, sum, squares) = &mut kinds[usize::from(positive)];
            *count += 1;
            *sum += i128::from(won);
            *squares += i128::from(won) * i128::from(won);
        }
        let [(negatives, ..), (positives, sum, _)] = kinds;
        if positives < 2 || negatives < 2 {
            return None;
        }
        let variance_of_mean = |(count, sum, squares): (u64, i128, i128), others: u64| {
            let spread = (i128::from(count) * squares - sum * sum) as f64;
            let (count, others) = (count as f64, others as f64);
            spread / (count * count * (count - 1.0)) / (4.0 * others * others)
        };
        Some(Self {
            mean: sum as f64 / (2 * u128::from(positives) * u128::from(negatives)) as f64,
            variance: variance_of_mean(kinds[1], negatives) + variance_of_mean(kinds[0], positives),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roc_auc;
    use proptest::prelude::*;

    /// The definition: components pair by pair, variances by their textbook formula.
    fn by_definition(scores: &[&[f32]], signs: &[f64], positive: &[bool]) -> Option<(f64, f64)> {
        let beats = |above: usize, below: usize| -> f64 {
            let one = |scores: &[f32]| match scores[above].partial_cmp(&scores[below]).unwrap() {
                std::cmp::Ordering::Greater => 1.0,
                std::cmp::Ordering::Equal => 0.5,
                std::cmp::Ordering::Less => 0.0,
            };
            scores.iter().zip(signs).map(|(scores, sign)| sign * one(scores)).sum()
        };
        let of = |kind: bool| (0..positive.len()).filter(|&i| positive[i] == kind).collect::<Vec<_>>();
        let (cases, controls) = (of(true), of(false));
        if cases.len() < 2 || controls.len() < 2 {
            return None;
        }
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let variance_of_mean = |values: &[f64]| {
            let squares: f64 = values.iter().map(|v| (v - mean(values)).powi(2)).sum();
            squares / (values.len() - 1) as f64 / values.len() as f64
        };
        let share = |i: &usize, others: &[usize], up: bool| {
            mean(&others.iter().map(|j| if up { beats(*i, *j) } else { beats(*j, *i) }).collect::<Vec<_>>())
        };
        let v10: Vec<_> = cases.iter().map(|i| share(i, &controls, true)).collect();
        let v01: Vec<_> = controls.iter().map(|j| share(j, &cases, false)).collect();
        Some((mean(&v10), variance_of_mean(&v10) + variance_of_mean(&v01)))
    }

    /// Ties within and across, and scores spread out.
    fn score() -> impl Strategy<Value = f32> {
        prop_oneof![(-3i8..4).prop_map(|step| f32::from(step) / 4.0), Just(-0.0), -1.0f32..1.0]
    }

    type Cases = (Vec<f32>, Vec<f32>, Vec<bool>);

    fn cases() -> impl Strategy<Value = Cases> {
        prop::collection::vec((score(), score(), any::<bool>()), 0..40).prop_map(|cases| {
            let positive = cases.iter().map(|case| case.2).collect();
            let (a, b) = cases.into_iter().map(|case| (case.0, case.1)).unzip();
            (a, b, positive)
        })
    }

    proptest! {
        #[test]
        fn equals_the_structural_components((scores, _, positive) in cases()) {
            let found = delong(&scores, &positive, 0.95);
            let expected = by_definition(&[&scores], &[1.0], &positive);
            prop_assert_eq!(found.is_some(), expected.is_some());
            if let (Some(found), Some((auc, variance))) = (found, expected) {
                prop_assert_eq!(Some(found.auc), roc_auc(&scores, &positive));
                // Sums of at most 40 terms of at most 1.
                prop_assert!((found.auc - auc).abs() < 1e-14);
                prop_assert!((found.variance - variance).abs() < 1e-14);
                prop_assert!(0.0 <= found.low && found.low <= found.auc);
                prop_assert!(found.auc <= found.high && found.high <= 1.0);
            }
        }

        #[test]
        fn a_pair_equals_the_structural_components((a, b, positive) in cases()) {
            let found = delong_paired(&a, &b, &positive, 0.9);
            let expected = by_definition(&[&a, &b], &[1.0, -1.0], &positive);
            prop_assert_eq!(found.is_some(), expected.is_some());
            if let (Some(found), Some((difference, variance))) = (found, expected) {
                prop_assert!((found.difference - difference).abs() < 1e-14);
                prop_assert!((found.difference - (found.auc_a - found.auc_b)).abs() < 1e-15);
                prop_assert!((found.variance - variance).abs() < 1e-14);
            }
        }

        #[test]
        fn swapping_a_pair_changes_signs_only((a, b, positive) in cases()) {
            let (there, back) = (delong_paired(&a, &b, &positive, 0.95), delong_paired(&b, &a, &positive, 0.95));
            let mirrored = back.map(|pair| PairedAuc {
                auc_a: pair.auc_b,
                auc_b: pair.auc_a,
                difference: -pair.difference,
                low: -pair.high,
                high: -pair.low,
                z: pair.z.map(|z| -z),
                ..pair
            });
            prop_assert_eq!(there, mirrored);
        }

        #[test]
        fn the_order_of_cases_does_not_matter((a, b, positive) in cases()) {
            let reversed = |values: &[f32]| values.iter().rev().copied().collect::<Vec<_>>();
            let mirrored: Vec<_> = positive.iter().rev().copied().collect();
            prop_assert_eq!(
                delong_paired(&a, &b, &positive, 0.95),
                delong_paired(&reversed(&a), &reversed(&b), &mirrored, 0.95)
            );
        }
    }

    #[test]
    fn too_few_cases_are_undefined() {
        assert_eq!(delong(&[], &[], 0.95), None);
        assert_eq!(delong(&[0.1, 0.2, 0.3], &[true, false, false], 0.95), None, "one positive has no variance");
        assert_eq!(delong(&[0.1, 0.2, 0.3], &[true, false, true], 0.95), None, "one negative has no variance");
        assert_eq!(delong(&[0.1, 0.2, 0.3, f32::NAN], &[true, false, true, false], 0.95), None);
    }

    #[test]
    fn variance_of_nothing() {
        let positive = [false, false, true, true];
        let (perfect, constant) = ([0.1, 0.2, 0.3, 0.4], [0.5; 4]);
        let alone = delong(&perfect, &positive, 0.95).unwrap();
        assert_eq!((alone.auc, alone.variance, alone.low, alone.high), (1.0, 0.0, 1.0, 1.0));
        let same = delong_paired(&perfect, &perfect, &positive, 0.95).unwrap();
        assert_eq!((same.difference, same.z, same.p), (0.0, None, 1.0));
        let apart = delong_paired(&perfect, &constant, &positive, 0.95).unwrap();
        assert_eq!((apart.difference, apart.variance, apart.z, apart.p), (0.5, 0.0, None, 0.0));
    }

    #[test]
    #[should_panic(expected = "one truth a score")]
    fn scores_of_other_cases() {
        delong_paired(&[0.1; 4], &[0.1; 3], &[true, true, false, false], 0.95);
    }
}
