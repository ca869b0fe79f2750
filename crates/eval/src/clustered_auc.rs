//! Interval of an AUC, of a mean of AUCs, or of a difference of two, of cases that come in clusters: the images of a patient
//! resemble each other.
//!
//! The variance is DeLong's (see [`delong`](crate::delong)) with the structural components of a cluster's cases added up
//! before they are squared (Obuchowski, Biometrics 53, 1997): with m positive and n negative cases, in p and q clusters,
//! cluster k contributes
//!
//! `d_k = √(p / (p - 1)) · Σ_{i in k, positive} (v_i - AUC) / m + √(q / (q - 1)) · Σ_{i in k, negative} (v_i - AUC) / n`
//!
//! and the variance is `Σ_k d_k²`: DeLong's to the last digit where each cluster is one case. A mean over classes,
//! trainings and folds has the means of the contributions, a difference their differences (as the influence curves of LeDell,
//! Petersen & van der Laan, Electron. J. Stat. 9, 2015).
//!
//! The interval is symmetrical in the logit of the AUC, which keeps within (0, 1) and covers where the plain one falls short
//! (Qin & Hotilovac, Stat. Methods Med. Res. 17, 2008). An AUC whose components do not vary (a perfect one, one of equal
//! scores), or with one cluster of a kind, has no such variance: it has that of Newcombe's score interval (method 5, Stat. Med.
//! 25, 2006), which only asks how many clusters of each kind there are. So three against three in perfect order are [0.5, 1].

use std::collections::BTreeSet;

use crate::Estimate;
use crate::contributions::Contributions;
use crate::delong::twice_won;
use crate::distributions::{bisect, normal_two_sided, normal_z};

/// A variance below this is one of roundings: sums of up to a million numbers below 1.
const ROUNDING: f64 = 1e-24;

/// An AUC, or a mean of AUCs, with what each cluster contributes to it.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusteredAuc {
    value: f64,
    /// Contribution of each (set, cluster): the variance is the sum of their squares.
    contributions: Contributions,
    /// AUCs in it that do not vary.
    flat: Vec<Flat>,
}

/// An AUC without a variance of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Flat {
    weight: f64,
    auc: f64,
    /// Clusters with a positive case.
    positives: f64,
    /// Clusters with a negative case.
    negatives: f64,
}

impl ClusteredAuc {
    /// Of `scores [n]` against `positive [n]`, in `clusters [n]`: any numbers, equal where they mean the same. `None` where the
    /// AUC is undefined: no positive case, no negative case, or a NaN among the scores.
    ///
    /// # Panics
    /// Where the lengths differ, or there are more than 2^31 cases.
    pub fn new(scores: &[f32], positive: &[bool], clusters: &[usize]) -> Option<Self> {
        assert_eq!(scores.len(), positive.len(), "one truth a score");
        assert_eq!(scores.len(), clusters.len(), "one cluster a score");
        let won = twice_won(scores, positive)?;
        let positives = positive.iter().filter(|&&positive| positive).count();
        let negatives = positive.len() - positives;
        if positives == 0 || negatives == 0 {
            return None;
        }
        let of_kind = |kind: bool| {
            let (own, others) = if kind { (positives, negatives) } else { (negatives, positives) };
            let cases = won.iter().zip(positive).zip(clusters).filter(move |((_, positive), _)| **positive == kind);
            (own as f64, 2.0 * others as f64, cases.map(|((won, _), cluster)| (*won, *cluster)).collect::<Vec<_>>())
        };
        let kinds = [of_kind(true), of_kind(false)];
        let total: i128 = kinds[0].2.iter().map(|(won, _)| i128::from(*won)).sum();
        let value = total as f64 / (2 * positives as u128 * negatives as u128) as f64;
        let in_clusters = kinds
            .each_ref()
            .map(|(.., cases)| cases.iter().map(|(_, cluster)| cluster).collect::<BTreeSet<_>>().len() as f64);
        let [of_positives, of_negatives] = in_clusters;
        let flat = Flat { weight: 1.0, auc: value, positives: of_positives, negatives: of_negatives };
        let flat = Self { value, contributions: Contributions::default(), flat: vec![flat] };
        let varies = kinds.iter().any(|(.., cases)| cases.iter().any(|(won, _)| *won != cases[0].0));
        if !varies || in_clusters.contains(&1.0) {
            return Some(flat);
        }
        let mut contributions = Contributions::default();
        for ((own, others, cases), clusters) in kinds.iter().zip(in_clusters) {
            let factor = (clusters / (clusters - 1.0)).sqrt();
            for (won, cluster) in cases {
                contributions.add(*cluster, factor * (*won as f64 / others - value) / own);
            }
        }
        // What varies within clusters may cancel in each of them.
        if contributions.variance() < ROUNDING {
            return Some(flat);
        }
        Some(Self { value, contributions, flat: Vec::new() })
    }

    /// The AUC itself.
    pub fn value(&self) -> f64 {
        self.value
    }

    /// The same with clusters that are nobody else's: clusters of different `set`s are different ones, whatever their numbers.
    #[must_use]
    pub fn of_set(self, set: usize) -> Self {
        Self { contributions: self.contributions.of_set(set), ..self }
    }

    /// The mean of AUCs, each weighing the same: of classes, trainings, folds, tasks. `None` of nothing; what is `None` does
    /// not count.
    pub fn mean(areas: impl IntoIterator<Item = Option<Self>>) -> Option<Self> {
        let areas: Vec<_> = areas.into_iter().flatten().collect();
        let first = areas.first()?;
        let weight = 1.0 / areas.len() as f64;
        // Rounding: a mean of ones is one.
        let same = areas.iter().all(|area| area.value == first.value);
        let sum: f64 = areas.iter().map(|area| area.value).sum();
        let value = if same { first.value } else { sum / areas.len() as f64 };
        let (mut contributions, mut flat) = (Contributions::default(), Vec::new());
        for area in areas {
            contributions.add_all(&area.contributions, weight);
            flat.extend(area.flat.into_iter().map(|flat| Flat { weight: weight * flat.weight, ..flat }));
        }
        Some(Self { value, contributions, flat })
    }

    /// The AUC with its interval of confidence `level`, such as 0.95.
    ///
    /// # Panics
    /// Where `level` is not between 0 and 1.
    pub fn estimate(&self, level: f64) -> Estimate {
        let (z, value) = (normal_z(level), self.value);
        let seen = self.contributions.variance();
        let half = (z * z * seen + self.unseen(level).powi(2)).sqrt();
        let (low, high) = if value >= 1.0 {
            ((1.0 - half).max(0.0), 1.0)
        } else if value <= 0.0 {
            (0.0, half.min(1.0))
        } else {
            let (logit, half) = ((value / (1.0 - value)).ln(), half / (value * (1.0 - value)));
            let inverse = |logit: f64| 1.0 / (1.0 + (-logit).exp());
            (inverse(logit - half), inverse(logit + half))
        };
        Estimate { value, low: low.min(value), high: high.max(value) }
    }

    /// Half the width of the interval that is owed to AUCs that do not vary; 0 where all do. They are taken to err together.
    pub fn unseen(&self, level: f64) -> f64 {
        let z = normal_z(level);
        self.flat.iter().map(|flat| flat.weight * flat.half_width(z)).sum()
    }

    /// The difference to `other`, of the same clusters, of others, or of some of both, with its interval of confidence `level`.
    ///
    /// # Panics
    /// Where `level` is not between 0 and 1.
    pub fn difference(&self, other: &Self, level: f64) -> Estimate {
        let variance = self.contributions.variance_of_difference(&other.contributions);
        let unseen = self.unseen(level) + other.unseen(level);
        let (value, half) = (self.value - other.value, (normal_z(level).powi(2) * variance + unseen * unseen).sqrt());
        Estimate { value, low: (value - half).max(-1.0), high: (value + half).min(1.0) }
    }

    /// Two-sided p-value of no difference to `other` on the same cases, `P(|Z| > |difference| / √variance)`: DeLong's paired
    /// test, by cluster. Where the difference does not vary it is 1 of a difference of 0, and else `None`.
    pub fn p_of_difference(&self, other: &Self) -> Option<f64> {
        let variance = self.contributions.variance_of_difference(&other.contributions);
        let difference = self.value - other.value;
        match variance > 0.0 {
            true => Some(normal_two_sided(difference / variance.sqrt())),
            false => (difference == 0.0).then_some(1.0),
        }
    }
}

impl Flat {
    /// From the AUC to the end of Newcombe's interval that is further from it.
    fn half_width(&self, z: f64) -> f64 {
        let Flat { positives: m, negatives: n, .. } = *self;
        let auc = self.auc.max(1.0 - self.auc);
        let half = (m + n) / 2.0 - 1.0;
        let deviation =
            |a: f64| (a * (1.0 - a) * (1.0 + half * (1.0 - a) / (2.0 - a) + half * a / (1.0 + a)) / (m * n)).sqrt();
        auc - bisect(0.0, auc, 0.0, |a| auc - a <= z * deviation(a))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{delong, delong_paired};
    use proptest::prelude::*;

    fn apart(n: usize) -> Vec<usize> {
        (0..n).collect()
    }

    proptest! {
        #[test]
        fn clusters_of_one_case_are_delongs(
            cases in prop::collection::vec((0u8..12, 0u8..12, any::<bool>()), 4..60)
        ) {
            let a: Vec<_> = cases.iter().map(|case| f32::from(case.0)).collect();
            let b: Vec<_> = cases.iter().map(|case| f32::from(case.1)).collect();
            let truth: Vec<_> = cases.iter().map(|case| case.2).collect();
            let Some(expected) = delong(&a, &truth, 0.95) else { return Ok(()) };
            let of = |scores: &[f32]| ClusteredAuc::new(scores, &truth, &apart(scores.len())).unwrap();
            let found = of(&a);
            let variance = found.contributions.variance();
            // Sums of up to 60 squares of numbers below 1.
            prop_assert!((variance - expected.variance).abs() < 1e-13 && found.value == expected.auc);
            let pair = delong_paired(&a, &b, &truth, 0.95).unwrap();
            if pair.variance > 1e-9 {
                prop_assert!((found.p_of_difference(&of(&b)).unwrap() - pair.p).abs() < 1e-9);
            }
        }

        #[test]
        fn an_interval_holds_its_auc_and_has_a_width(
            cases in prop::collection::vec((0u8..5, any::<bool>(), 0usize..9), 2..40)
        ) {
            let scores: Vec<_> = cases.iter().map(|case| f32::from(case.0)).collect();
            let truth: Vec<_> = cases.iter().map(|case| case.1).collect();
            let clusters: Vec<_> = cases.iter().map(|case| case.2).collect();
            let Some(found) = ClusteredAuc::new(&scores, &truth, &clusters) else { return Ok(()) };
            let Estimate { value, low, high } = found.estimate(0.95);
            prop_assert!(0.0 <= low && low <= value && value <= high && high <= 1.0 && low < high, "{value} [{low}, {high}]");
            // Mirrored scores, mirrored interval.
            let mirrored: Vec<_> = scores.iter().map(|score| -score).collect();
            let other = ClusteredAuc::new(&mirrored, &truth, &clusters).unwrap().estimate(0.95);
            prop_assert!((other.low + high - 1.0).abs() < 1e-9 && (other.high + low - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn cases_that_cancel_in_each_cluster_do_not_make_an_interval_of_no_width() {
        let (scores, truth) = ([3.0, 3.0, 3.0, 4.0, 0.0], [false, true, true, false, false]);
        let Estimate { value, low, high } =
            ClusteredAuc::new(&scores, &truth, &[2, 2, 0, 1, 1]).unwrap().estimate(0.95);
        assert!(value == 0.5 && low < 0.4 && high > 0.6, "{value} [{low}, {high}]");
    }

    #[test]
    fn a_perfect_auc_of_three_against_three_is_not_certain() {
        let truth = [true, true, true, false, false, false];
        let found = ClusteredAuc::new(&[0.9, 0.8, 0.7, 0.3, 0.2, 0.1], &truth, &apart(6)).unwrap().estimate(0.95);
        assert_eq!((found.value, found.high), (1.0, 1.0));
        assert!((found.low - 0.5).abs() < 0.01, "{found:?}");
        // The mean over both classes is no surer.
        let of = |scores: &[f32], truth: &[bool]| ClusteredAuc::new(scores, truth, &apart(6));
        let macro_auc = ClusteredAuc::mean([
            of(&[0.9, 0.8, 0.7, 0.3, 0.2, 0.1], &truth),
            of(&[0.1, 0.2, 0.3, 0.7, 0.8, 0.9], &truth.map(|positive| !positive)),
        ]);
        assert_eq!(macro_auc.unwrap().estimate(0.95), found);
    }

    #[test]
    fn a_constant_predictors_auc_is_one_half_and_nobody_knows_how_surely() {
        let truth: Vec<_> = (0..20).map(|i| i % 2 == 0).collect();
        let found = ClusteredAuc::new(&[0.5; 20], &truth, &apart(20)).unwrap().estimate(0.95);
        assert_eq!(found.value, 0.5);
        assert!(found.low < 0.3 && found.high > 0.7, "{found:?}");
    }

    #[test]
    fn images_that_go_together_count_as_one() {
        let scores = [0.9, 0.3, 0.8, 0.6, 0.2, 0.7, 0.1, 0.4];
        let truth = [true, true, true, true, false, false, false, false];
        let thrice = |values: &[f32]| values.iter().flat_map(|value| [*value; 3]).collect::<Vec<_>>();
        let thrice_truth: Vec<_> = truth.iter().flat_map(|value| [*value; 3]).collect();
        let clusters: Vec<_> = (0..24).map(|i| i / 3).collect();
        let once = ClusteredAuc::new(&scores, &truth, &apart(8)).unwrap().estimate(0.95);
        let copies = ClusteredAuc::new(&thrice(&scores), &thrice_truth, &clusters).unwrap().estimate(0.95);
        assert!((once.low - copies.low).abs() < 1e-12 && (once.high - copies.high).abs() < 1e-12);
    }

    #[test]
    fn a_difference_of_others_has_both_variances_and_one_of_the_same_its_own() {
        let truth: Vec<_> = (0..40).map(|i| i % 2 == 0).collect();
        let scores = |shift: usize| (0..40).map(|i| ((i * 7 + shift * (i % 2)) % 11) as f32).collect::<Vec<_>>();
        let of = |shift, first: usize| {
            ClusteredAuc::new(&scores(shift), &truth, &(first..first + 40).collect::<Vec<_>>()).unwrap()
        };
        let (one, others) = (of(1, 0), of(3, 100));
        let half = |found: Estimate| (found.high - found.low) / 2.0;
        let sum = one.contributions.variance() + others.contributions.variance();
        let found = one.difference(&others, 0.95);
        assert!((half(found) - 1.959_964 * sum.sqrt()).abs() < 1e-5 && found.value == one.value - others.value);
        assert_eq!(one.difference(&one, 0.95), Estimate { value: 0.0, low: 0.0, high: 0.0 });
        let paired = of(3, 0);
        let p = one.p_of_difference(&paired).unwrap();
        let found = one.difference(&paired, 1.0 - p);
        assert!(found.low.abs().min(found.high.abs()) < 1e-6, "the interval at its p ends at no difference: {found:?}");
    }

    #[test]
    fn what_is_undefined_does_not_count() {
        assert_eq!(ClusteredAuc::new(&[0.1, 0.2], &[true, true], &[0, 1]), None);
        assert_eq!(ClusteredAuc::new(&[0.1, f32::NAN], &[true, false], &[0, 1]), None);
        assert_eq!(ClusteredAuc::mean([None, None]), None);
        let one = ClusteredAuc::new(&[0.1, 0.9], &[false, true], &[0, 1]).unwrap();
        assert_eq!(ClusteredAuc::mean([None, Some(one.clone())]), Some(one));
    }
}
