//! Interval of a share (an accuracy, a sensitivity, a specificity) of cases that come in clusters: the images of a patient
//! are right and wrong together.
//!
//! The variance of a share `p` of `n` cases is that of a ratio of sums over clusters, linearised,
//!
//! `v = K (n - 1) / ((K - 1) n) · Σ_k (Σ_{i in k} (y_i - p) / n)²`   over K clusters,
//!
//! and the interval is Wilson's of `p` and the *effective* number of cases `p (1 - p) / v` (Rao & Scott, Biometrics 48,
//! 1992; Wilson's interval with it: Saha, Miller & Wang, Int. J. Biostat. 12, 2016). It is never taken for larger than `n`.
//! Where the cases do not vary (all right, all wrong) or are of one cluster, their dependence cannot be seen and the
//! worst is assumed: each cluster counts once, `n² / Σ_k n_k²` cases (Kish, Survey Sampling, 1965). So 18 of 18 are
//! [0.824, 1], as with [`wilson`](crate::wilson), which this is where each cluster is one case.

use std::collections::BTreeMap;

use crate::Estimate;
use crate::contributions::Contributions;
use crate::distributions::normal_z;
use crate::proportion::wilson_of;

/// A share, or a mean of shares, with what each cluster contributes to it.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusteredShare {
    value: f64,
    /// Contribution of each (set, cluster): the variance is the sum of their squares.
    contributions: Contributions,
    /// The variance if cases were independent.
    independent: f64,
    /// Σ weight² / effective cases, of shares whose cases do not vary.
    unseen: f64,
}

impl ClusteredShare {
    /// Of `cases`: how right each is, in [0, 1] (0 or 1, or the mean of several trainings), and its cluster. `None` of no case.
    pub fn new(cases: impl IntoIterator<Item = (f64, usize)>) -> Option<Self> {
        let mut clusters: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
        let (mut n, mut sum, mut least, mut most) = (0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY);
        for (value, cluster) in cases {
            let (cases, right) = clusters.entry(cluster).or_default();
            (*cases, *right) = (*cases + 1.0, *right + value);
            (n, sum, least, most) = (n + 1.0, sum + value, value.min(least), value.max(most));
        }
        if clusters.is_empty() {
            return None;
        }
        let p: f64 = sum / n;
        if least == most || clusters.len() == 1 {
            let squares: f64 = clusters.values().map(|(cases, _)| cases * cases).sum();
            let unseen = squares / (n * n);
            return Some(Self { value: p, contributions: Contributions::default(), independent: 0.0, unseen });
        }
        let k = clusters.len() as f64;
        let factor = (k * (n - 1.0) / ((k - 1.0) * n)).sqrt();
        let mut contributions = Contributions::default();
        for (cluster, (cases, right)) in clusters {
            contributions.add(cluster, factor * (right - p * cases) / n);
        }
        Some(Self { value: p, contributions, independent: p * (1.0 - p) / n, unseen: 0.0 })
    }

    /// The share itself.
    pub fn value(&self) -> f64 {
        self.value
    }

    /// The same with clusters that are nobody else's: clusters of different `set`s are different ones, whatever their numbers.
    #[must_use]
    pub fn of_set(self, set: usize) -> Self {
        Self { contributions: self.contributions.of_set(set), ..self }
    }

    /// The mean of shares of different cases, each weighing the same: of classes, folds, tasks. The mean over trainings is no
    /// such thing: average what is right in each case. `None` of nothing; what is `None` does not count.
    pub fn mean(shares: impl IntoIterator<Item = Option<Self>>) -> Option<Self> {
        let shares: Vec<_> = shares.into_iter().flatten().collect();
        let weight = 1.0 / shares.len() as f64;
        let mut of_all = Self { value: 0.0, contributions: Contributions::default(), independent: 0.0, unseen: 0.0 };
        for share in &shares {
            of_all.value += share.value / shares.len() as f64;
            of_all.independent += weight * weight * share.independent;
            of_all.unseen += weight * weight * share.unseen;
            of_all.contributions.add_all(&share.contributions, weight);
        }
        // Rounding: a mean of ones is one.
        if shares.iter().all(|share| share.value == shares[0].value) && !shares.is_empty() {
            of_all.value = shares[0].value;
        }
        (!shares.is_empty()).then_some(of_all)
    }

    /// The share with its interval of confidence `level`, such as 0.95.
    ///
    /// # Panics
    /// Where `level` is not between 0 and 1.
    pub fn estimate(&self, level: f64) -> Estimate {
        let p = self.value;
        let seen = self.contributions.variance();
        // Over p (1 - p), which is 0 where nothing varies and all is right, or all wrong.
        let spread = p * (1.0 - p);
        let per_spread = if spread > 0.0 { seen.max(self.independent) / spread } else { 0.0 };
        let (low, high) = wilson_of(p, 1.0 / (per_spread + self.unseen), normal_z(level));
        Estimate { value: p, low, high }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wilson;
    use proptest::prelude::*;

    fn of(cases: &[(f64, usize)]) -> Estimate {
        ClusteredShare::new(cases.iter().copied()).unwrap().estimate(0.95)
    }

    proptest! {
        #[test]
        fn clusters_of_one_case_are_wilsons(right in prop::collection::vec(any::<bool>(), 1..60)) {
            let cases: Vec<_> = right.iter().enumerate().map(|(i, &right)| (f64::from(u8::from(right)), i)).collect();
            let (low, high) = wilson(right.iter().filter(|&&right| right).count() as u64, right.len() as u64, 0.95).unwrap();
            let found = of(&cases);
            // The effective number is a quotient of sums of up to 60 squares.
            prop_assert!((found.low - low).abs() < 1e-12 && (found.high - high).abs() < 1e-12, "{found:?} {low} {high}");
        }

        #[test]
        fn an_interval_holds_its_share_and_has_a_width(
            cases in prop::collection::vec((0u8..=2, 0usize..8), 1..40), other in prop::collection::vec((0u8..=1, 0usize..8), 0..9)
        ) {
            let share = |cases: &[(u8, usize)]| {
                ClusteredShare::new(cases.iter().map(|&(right, cluster)| (f64::from(right) / 2.0, cluster)))
            };
            let found = ClusteredShare::mean([share(&cases), share(&other)]).unwrap().estimate(0.95);
            prop_assert!(0.0 <= found.low && found.low <= found.value, "{found:?}");
            prop_assert!(found.value <= found.high && found.high <= 1.0, "{found:?}");
            prop_assert!(found.low < found.high);
        }
    }

    #[test]
    fn a_constant_predictors_accuracy_has_an_interval() {
        // 41 of 70 are what is always said.
        let cases: Vec<_> = (0..70).map(|i| (f64::from(u8::from(i < 41)), i)).collect();
        let Estimate { value, low, high } = of(&cases);
        assert!(
            (value - 0.5857).abs() < 1e-4 && (low - 0.4688).abs() < 1e-4 && (high - 0.6937).abs() < 1e-4,
            "{low} {high}"
        );
    }

    #[test]
    fn eighteen_of_eighteen_are_not_certain() {
        let found = of(&(0..18).map(|i| (1.0, i)).collect::<Vec<_>>());
        assert!((found.low - 0.8241).abs() < 1e-4, "{found:?}");
        assert_eq!((found.value, found.high), (1.0, 1.0));
        // Of nine patients with two images each, patients count.
        let found = of(&(0..18).map(|i| (1.0, i / 2)).collect::<Vec<_>>());
        assert!((found.low - wilson(9, 9, 0.95).unwrap().0).abs() < 1e-12);
    }

    #[test]
    fn images_that_go_together_count_as_one() {
        // Ten patients with three images each, all right or all wrong.
        let together: Vec<_> = (0..30).map(|i| (f64::from(u8::from(i / 3 < 7)), i / 3)).collect();
        let apart: Vec<_> = (0..30).map(|i| (f64::from(u8::from(i / 3 < 7)), i)).collect();
        let (together, apart) = (of(&together), of(&apart));
        assert!(together.high - together.low > 1.5 * (apart.high - apart.low), "{together:?} {apart:?}");
    }

    #[test]
    fn a_mean_of_a_class_always_found_and_one_never_found_has_an_interval() {
        let class =
            |right: f64, n: usize, set: usize| ClusteredShare::new((0..n).map(|i| (right, i))).map(|s| s.of_set(set));
        let balanced = ClusteredShare::mean([class(1.0, 40, 0), class(0.0, 30, 1)]).unwrap().estimate(0.95);
        assert_eq!(balanced.value, 0.5);
        assert!(balanced.low < 0.45 && balanced.high > 0.55, "{balanced:?}");
        let perfect = ClusteredShare::mean([class(1.0, 9, 0), class(1.0, 9, 1)]).unwrap().estimate(0.95);
        assert!((perfect.low - wilson(18, 18, 0.95).unwrap().0).abs() < 1e-12 && perfect.value == 1.0);
        assert_eq!(ClusteredShare::mean([None, None]), None);
        assert_eq!(ClusteredShare::new([]), None);
    }
}
