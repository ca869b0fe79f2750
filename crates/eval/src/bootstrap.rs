//! Uncertainty by resampling whole patients within strata, for statistics that have no formula and for images
//! that are not independent (Efron & Tibshirani, An Introduction to the Bootstrap, 1993; Davison & Hinkley,
//! Bootstrap Methods and their Application, 1997, which is cited below).
//!
//! ```
//! use melo_eval::{RankedScores, Resampling, percentile_interval};
//!
//! let (scores, positive) = ([0.2, 0.4, 0.3, 0.9, 0.6, 0.1], [false, false, true, true, true, false]);
//! let (patients, strata) = ([0, 0, 1, 1, 2, 3], [0, 0, 1, 1, 1, 0]);
//! let (ranked, resampling) = (RankedScores::new(&scores, &positive), Resampling::new(&patients, &strata, 7));
//! let mut weights = [0; 6];
//! let mut aucs: Vec<f64> = (0..200)
//!     .filter_map(|replicate| {
//!         resampling.weights(replicate, &mut weights);
//!         ranked.auc(&weights)
//!     })
//!     .collect();
//! let (low, high) = percentile_interval(&mut aucs, 0.95);
//! assert!(low < high && high <= 1.0);
//! ```

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::distributions::tails;

/// Draws of clusters (patients) with replacement, stratum by stratum: a stratum of k clusters gives k draws in
/// every replicate, and a cluster brings all of its cases.
#[derive(Clone, Debug)]
pub struct Resampling {
    seed: u64,
    /// Index of each case's cluster in the order of drawing.
    cluster_of_case: Vec<usize>,
    /// Clusters in each stratum; the clusters of a stratum are consecutive.
    strata: Vec<usize>,
}

impl Resampling {
    /// `clusters [n]` and `strata [n]` are labels of each case: any numbers, equal where they mean the same.
    /// A cluster whose cases are in several strata belongs to the highest of them, so with stratum 1 for a
    /// present finding and 0 for an absent one, a patient is in stratum 1 who has the finding in any image.
    ///
    /// Draws depend on the labels, not on the order of the cases.
    ///
    /// # Panics
    /// Where the lengths differ, or there are more than 2^32 clusters.
    pub fn new(clusters: &[usize], strata: &[usize], seed: u64) -> Self {
        assert_eq!(clusters.len(), strata.len(), "one stratum a case");
        let mut stratum_of: BTreeMap<usize, usize> = BTreeMap::new();
        for (&cluster, &stratum) in clusters.iter().zip(strata) {
            let highest = stratum_of.entry(cluster).or_insert(stratum);
            *highest = stratum.max(*highest);
        }
        let mut drawn: Vec<_> = stratum_of.into_iter().map(|(cluster, stratum)| (stratum, cluster)).collect();
        assert!(u32::try_from(drawn.len()).is_ok(), "at most 2^32 clusters");
        drawn.sort_unstable();
        let place: BTreeMap<_, _> = drawn.iter().enumerate().map(|(at, (_, cluster))| (*cluster, at)).collect();
        Self {
            seed,
            cluster_of_case: clusters.iter().map(|cluster| place[cluster]).collect(),
            strata: drawn.chunk_by(|a, b| a.0 == b.0).map(<[_]>::len).collect(),
        }
    }

    /// How many times each case is drawn in `replicate`, into `out [n]`. A pure function of the labels, the seed
    /// and the replicate, so that every method compared meets the same draws: the generator is ChaCha8 with
    /// `seed` as its seed and `replicate` as its stream. Cases of one cluster have the same weight.
    ///
    /// # Panics
    /// Where `out` is not `[n]`.
    pub fn weights(&self, replicate: usize, out: &mut [u32]) {
        assert_eq!(out.len(), self.cluster_of_case.len(), "one weight a case");
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(replicate as u64);
        let mut drawn = vec![0; self.strata.iter().sum()];
        let mut rest = &mut drawn[..];
        for &size in &self.strata {
            let (stratum, after) = rest.split_at_mut(size);
            for _ in 0..size {
                stratum[rng.random_range(0..size as u32) as usize] += 1;
            }
            rest = after;
        }
        for (weight, &cluster) in out.iter_mut().zip(&self.cluster_of_case) {
            *weight = drawn[cluster];
        }
    }
}

/// The percentile interval of confidence `level`: the quantiles `(1 - level) / 2` and `(1 + level) / 2` of the
/// replicates, each interpolated linearly at `(len - 1) · q` of the sorted values, which is numpy's default.
/// Sorts `samples`.
///
/// # Panics
/// Where there are no samples, one is NaN, or `level` is not between 0 and 1.
pub fn percentile_interval(samples: &mut [f64], level: f64) -> (f64, f64) {
    let tail = tails(level) / 2.0;
    assert!(!samples.is_empty(), "an interval needs at least one replicate");
    assert!(!samples.iter().any(|sample| sample.is_nan()), "a replicate is NaN");
    samples.sort_unstable_by(f64::total_cmp);
    (quantile(samples, tail), quantile(samples, 1.0 - tail))
}

/// Of `sorted [n]`, n > 0, with q in [0, 1].
pub(crate) fn quantile(sorted: &[f64], q: f64) -> f64 {
    let last = sorted.len() - 1;
    let at = last as f64 * q;
    let below = (at as usize).min(last);
    let (low, high) = (sorted[below], sorted[(below + 1).min(last)]);
    // Infinite replicates must not become ∞ - ∞.
    if low == high { low } else { low + (high - low) * (at - below as f64) }
}

/// Two-sided bootstrap p-value of a difference of zero, from replicates of the difference, by inverting the
/// percentile interval: twice the smaller of `(1 + #{d <= 0}) / (1 + B)` and `(1 + #{d >= 0}) / (1 + B)`, at
/// most 1.
///
/// The 1 counts the observed sample as one of the draws (chapter 4): no p-value is 0, the smallest of B
/// replicates is 2 / (B + 1). Replicates that are all 0 give 1.
///
/// # Panics
/// Where there are no replicates or one is NaN.
pub fn bootstrap_p_zero(differences: &[f64]) -> f64 {
    let (below, above) = (tail_share(differences, |d| d <= 0.0), tail_share(differences, |d| d >= 0.0));
    (2.0 * below.min(above)).min(1.0)
}

/// One-sided bootstrap p-value of inferiority, `difference <= -margin`, from replicates of the difference
/// (new minus old, more is better): `(1 + #{d <= -margin}) / (1 + B)`, with 1 added as in
/// [`bootstrap_p_zero`]. Where it is small, the new is not worse than the old by `margin` or more; a margin of
/// 0 asks for superiority.
///
/// # Panics
/// Where there are no replicates, one is NaN, or `margin` is negative or NaN.
pub fn bootstrap_p_inferior(differences: &[f64], margin: f64) -> f64 {
    assert!(margin >= 0.0, "a margin is not negative, found {margin}");
    tail_share(differences, |d| d <= -margin)
}

/// Share of replicates in the tail, the observed sample counted as one in it.
fn tail_share(differences: &[f64], in_tail: impl Fn(f64) -> bool) -> f64 {
    assert!(!differences.is_empty(), "a p-value needs at least one replicate");
    assert!(!differences.iter().any(|d| d.is_nan()), "a replicate is NaN");
    let inside = differences.iter().filter(|d| in_tail(**d)).count();
    (1 + inside) as f64 / (1 + differences.len()) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn weights(clusters: &[usize], strata: &[usize], seed: u64, replicate: usize) -> Vec<u32> {
        let mut out = vec![u32::MAX; clusters.len()];
        Resampling::new(clusters, strata, seed).weights(replicate, &mut out);
        out
    }

    /// Few clusters and strata, in any order, with numbers that are not consecutive.
    fn labels() -> impl Strategy<Value = Vec<(usize, usize)>> {
        prop::collection::vec(((0usize..9).prop_map(|c| c * c + 3), (0usize..3).prop_map(|s| 7 * s)), 0..30)
    }

    proptest! {
        #[test]
        fn each_stratum_keeps_its_number_of_clusters(cases in labels(), seed: u64, replicate in 0usize..1000) {
            let (clusters, strata): (Vec<_>, Vec<_>) = cases.iter().copied().unzip();
            let weights = weights(&clusters, &strata, seed, replicate);
            // The rule, said again: the highest stratum of a cluster.
            let mut of: BTreeMap<usize, (usize, u32)> = BTreeMap::new();
            for ((cluster, stratum), weight) in cases.into_iter().zip(weights) {
                let seen = of.entry(cluster).or_insert((stratum, weight));
                seen.0 = seen.0.max(stratum);
                prop_assert_eq!(seen.1, weight, "cluster {} is drawn as a whole", cluster);
            }
            for wanted in strata {
                let inside = of.values().filter(|(stratum, _)| *stratum == wanted);
                let (clusters, draws) = inside.fold((0, 0), |sum, (_, weight)| (sum.0 + 1, sum.1 + weight));
                prop_assert_eq!(clusters, draws);
            }
        }

        #[test]
        fn draws_follow_the_labels_not_the_order(cases in labels(), seed: u64, turn in 0usize..30) {
            let mut cases: Vec<_> = cases;
            let of = |cases: &[(usize, usize)]| {
                let (clusters, strata): (Vec<_>, Vec<_>) = cases.iter().copied().unzip();
                weights(&clusters, &strata, seed, 5)
            };
            let mut before = of(&cases);
            if !cases.is_empty() {
                let turn = turn % cases.len();
                cases.rotate_left(turn);
                before.rotate_left(turn);
            }
            prop_assert_eq!(before, of(&cases));
        }
    }

    #[test]
    fn draws_are_uniform_and_differ_by_seed_and_replicate() {
        let clusters: Vec<usize> = (0..10).collect();
        let strata = [0, 0, 0, 0, 1, 1, 1, 1, 1, 1];
        let resampling = Resampling::new(&clusters, &strata, 11);
        let (mut sums, mut out) = ([0u32; 10], [0; 10]);
        let replicates = 20_000;
        for replicate in 0..replicates {
            resampling.weights(replicate, &mut out);
            sums.iter_mut().zip(out).for_each(|(sum, weight)| *sum += weight);
        }
        for sum in sums {
            // A weight has mean 1 and variance below 1: the mean of 20000 has a standard error of 0.007.
            let mean = f64::from(sum) / replicates as f64;
            assert!((mean - 1.0).abs() < 0.035, "{mean}");
        }
        assert_ne!(weights(&clusters, &strata, 11, 0), weights(&clusters, &strata, 11, 1));
        assert_ne!(weights(&clusters, &strata, 11, 0), weights(&clusters, &strata, 12, 0));
    }

    /// Records of studies depend on these numbers: a change of generator must show.
    #[test]
    fn draws_stay_what_they_are() {
        assert_eq!(weights(&[0, 0, 1, 2, 3, 4, 5, 6], &[0, 0, 0, 0, 1, 1, 1, 1], 42, 3), [0, 0, 2, 1, 0, 0, 4, 0]);
    }

    #[test]
    fn p_values_count_the_observed_sample() {
        let up = [0.1; 99];
        assert_eq!(bootstrap_p_zero(&up), 0.02);
        assert_eq!(bootstrap_p_zero(&up.map(|d| -d)), 0.02);
        assert_eq!(bootstrap_p_zero(&[0.0; 9]), 1.0);
        assert_eq!(bootstrap_p_zero(&[-0.1, 0.1, 0.2]), 1.0, "twice (1 + 1) / 4");
        assert_eq!(bootstrap_p_inferior(&up, 0.0), 0.01);
        assert_eq!(bootstrap_p_inferior(&[-0.25, -0.2, 0.1], 0.25), 0.5, "-0.25 is inferior by the margin");
        assert_eq!(bootstrap_p_inferior(&[-0.3; 3], 0.25), 1.0);
    }

    #[test]
    fn intervals_of_few() {
        assert_eq!(percentile_interval(&mut [0.5], 0.95), (0.5, 0.5));
        let (low, high) = percentile_interval(&mut [3.0, 1.0, 2.0, 0.0, 4.0], 0.5);
        assert_eq!((low, high), (1.0, 3.0));
        assert_eq!(percentile_interval(&mut [f64::INFINITY; 3], 0.9), (f64::INFINITY, f64::INFINITY));
    }

    #[test]
    #[should_panic(expected = "at least one replicate")]
    fn no_replicates() {
        percentile_interval(&mut [], 0.95);
    }

    #[test]
    #[should_panic(expected = "a replicate is NaN")]
    fn a_replicate_is_nan() {
        bootstrap_p_zero(&[0.1, f64::NAN]);
    }
}
