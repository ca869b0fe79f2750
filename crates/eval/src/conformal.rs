//! Split conformal prediction: how large a score may be for a promised coverage, from scores of cases with known answers that no training saw.
//!
//! The units that may be exchanged are clusters (patients), not cases. Each cluster weighs the same, spread over its cases, and the next
//! one is reckoned with as infinitely strange: of `K` clusters with `n_k` scores `s_ki`, the threshold is the quantile of `coverage` of
//!
//! `Σ_k Σ_i δ(s_ki) / ((K + 1) n_k) + δ(∞) / (K + 1)`
//!
//! (hierarchical conformal prediction: Lee, Barber & Willett, Electronic Journal of Statistics 19, 2025, arXiv 2306.06342; cf. Dunn, Wasserman
//! & Ramdas, JASA 118, 2023). The promise is of a case of a new cluster, each of its cases as likely: of the clusters' mean coverages. Where
//! each cluster is one case, the threshold is the `⌈(K + 1) coverage⌉`-th smallest score.

use crate::Estimate;
use crate::distributions::normal_z;
use std::collections::BTreeMap;

/// Of sums of weights that are equal but for rounding.
const ROUNDING: f64 = 1e-9;

/// How large a score may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConformalThreshold {
    /// Largest score that is not too strange; none where there are fewer than [`clusters_needed`] clusters, and no score is.
    pub most: Option<f64>,
    /// Clusters that it was taken from.
    pub clusters: usize,
}

/// The threshold of scores, each of a case with its cluster.
///
/// # Panics
/// Where `coverage` is not between 0 and 1.
pub fn conformal_threshold(cases: &[(f64, usize)], coverage: f64) -> ConformalThreshold {
    assert!(coverage > 0.0 && coverage < 1.0, "a coverage between 0 and 1");
    let mut sizes: BTreeMap<usize, f64> = BTreeMap::new();
    cases.iter().for_each(|(_, cluster)| *sizes.entry(*cluster).or_default() += 1.0);
    let clusters = sizes.len();
    let mut scores: Vec<(f64, f64)> = cases.iter().map(|(score, cluster)| (*score, 1.0 / sizes[cluster])).collect();
    scores.sort_by(|a, b| a.0.total_cmp(&b.0));
    let needed = coverage * (clusters + 1) as f64 - ROUNDING;
    let mut sum = 0.0;
    let reaches = |(_, weight): &&(f64, f64)| {
        sum += weight;
        sum >= needed
    };
    ConformalThreshold { most: scores.iter().find(reaches).map(|(score, _)| *score), clusters }
}

/// Clusters without which no threshold is finite: `⌈coverage / (1 - coverage)⌉`, 9 for 0.9, 19 for 0.95, as [`conformal_threshold`] rounds.
///
/// # Panics
/// Where `coverage` is not between 0 and 1.
pub fn clusters_needed(coverage: f64) -> usize {
    assert!(coverage > 0.0 && coverage < 1.0, "a coverage between 0 and 1");
    ((coverage - ROUNDING) / (1.0 - coverage)).ceil() as usize
}

/// The mean of each cluster's cases, with the cluster.
pub fn means_by_cluster(cases: impl IntoIterator<Item = (f64, usize)>) -> Vec<(f64, usize)> {
    let mut sums: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
    for (value, cluster) in cases {
        let (sum, count) = sums.entry(cluster).or_default();
        (*sum, *count) = (*sum + value, *count + 1.0);
    }
    sums.into_iter().map(|(cluster, (sum, count))| (sum / count, cluster)).collect()
}

/// The mean of the clusters' means of something at least 0 (a size of sets), with its normal interval of confidence `level`; of one cluster the
/// mean alone. `None` of no case.
///
/// # Panics
/// Where `level` is not between 0 and 1.
pub fn mean_over_clusters(cases: impl IntoIterator<Item = (f64, usize)>, level: f64) -> Option<Estimate> {
    let means = means_by_cluster(cases);
    let n = means.len() as f64;
    let value = means.iter().map(|(mean, _)| mean).sum::<f64>() / n;
    let squares: f64 = means.iter().map(|(mean, _)| (mean - value).powi(2)).sum();
    let half = if n > 1.0 { normal_z(level) * (squares / (n - 1.0) / n).sqrt() } else { 0.0 };
    (n > 0.0).then(|| Estimate { value, low: (value - half).max(0.0), high: value + half })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn of_single_cases_it_is_an_order_statistic() {
        for (n, coverage, rank) in [(19, 0.95, 19), (20, 0.95, 20), (9, 0.9, 9), (99, 0.9, 90), (100, 0.9, 91)] {
            let cases: Vec<_> = (1..=n).map(|i| (f64::from(i), i as usize)).collect();
            assert_eq!(conformal_threshold(&cases, coverage).most, Some(f64::from(rank)), "{n} {coverage}");
        }
    }

    #[test]
    fn too_few_clusters_exclude_nothing() {
        for (coverage, needed) in [(0.9, 9), (0.95, 19), (0.99, 99), (0.8, 4), (0.5, 1), (0.9999, 9999)] {
            assert_eq!(clusters_needed(coverage), needed);
            let found = |n: usize| conformal_threshold(&(0..n).map(|i| (i as f64, i)).collect::<Vec<_>>(), coverage);
            assert_eq!(found(needed - 1), ConformalThreshold { most: None, clusters: needed - 1 });
            assert!(found(needed).most.is_some());
        }
        // Images of eight patients are eight units.
        let cases: Vec<_> = (0..80).map(|i| (f64::from(i), i as usize / 10)).collect();
        assert_eq!(conformal_threshold(&cases, 0.9), ConformalThreshold { most: None, clusters: 8 });
    }

    proptest! {
        #[test]
        fn a_patients_repeated_images_change_nothing(scores in prop::collection::vec(0.0f64..1.0, 1..40), times in 1usize..4) {
            let once: Vec<_> = scores.iter().copied().zip(0..).collect();
            let often: Vec<_> = once.iter().flat_map(|case| vec![*case; times]).collect();
            prop_assert_eq!(conformal_threshold(&once, 0.9), conformal_threshold(&often, 0.9));
        }
    }

    /// Patients of one to five images whose scores go together: as many are covered as promised, by patient.
    #[test]
    fn new_patients_are_covered_as_promised() {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let (mut covered, draws) = (Vec::new(), 400);
        let mut patients = |n: usize| -> Vec<(f64, usize)> {
            let of = |patient: usize| {
                let own: f64 = random.random();
                (0..random.random_range(1..6))
                    .map(|_| (own + 0.3 * random.random::<f64>(), patient))
                    .collect::<Vec<_>>()
            };
            (0..n).flat_map(of).collect()
        };
        for _ in 0..draws {
            let most = conformal_threshold(&patients(30), 0.8).most.unwrap();
            let new = patients(100).into_iter().map(|(score, patient)| (f64::from(u8::from(score <= most)), patient));
            covered.extend(means_by_cluster(new).into_iter().map(|(mean, _)| mean));
        }
        let mean = covered.iter().sum::<f64>() / covered.len() as f64;
        // Between the promise and two patients of 31 above it; the error of 400 thresholds from 30 patients is about 0.004.
        assert!((0.79..0.80 + 2.0 / 31.0).contains(&mean), "{mean}");
    }
}
