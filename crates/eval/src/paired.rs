//! Two methods on the same cases: the difference of a figure, from paired draws.

use crate::Estimate;
use crate::bootstrap::{bootstrap_p_inferior, bootstrap_p_zero, percentile_interval};
use crate::distributions::{normal_below, normal_two_sided, normal_z};

/// A difference of a figure (new minus old, more is better) with its interval and tests, which say the same as the interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairedDifference {
    /// The difference.
    pub difference: Estimate,
    /// Two-sided p of no difference.
    pub p: f64,
    /// One-sided p of a difference of -margin or less: where it is small, the new is not worse than the old by the margin.
    pub p_inferior: f64,
    /// One-sided p of a difference of -margin or more: where it is small, the new is worse by more than the margin.
    pub p_worse: f64,
}

impl PairedDifference {
    /// From the difference itself and its `replicates`: the percentile interval of confidence `level`, and its p-values.
    ///
    /// `unseen` is half the width of the interval that is owed to figures that do not vary in these cases
    /// ([`ClusteredAuc::unseen`](crate::ClusteredAuc::unseen)), which no resampling can show: two perfect methods differ by 0 in
    /// every draw, and nobody knows by how much elsewhere. Where it is not 0, interval and p-values are of a normal
    /// difference with the replicates' variance and what is owed.
    ///
    /// # Panics
    /// Where there are no replicates, one is NaN, `margin` is negative, or `level` is not between 0 and 1.
    pub fn new(value: f64, replicates: &[f64], unseen: f64, margin: f64, level: f64) -> Self {
        if unseen == 0.0 {
            let (low, high) = percentile_interval(&mut replicates.to_vec(), level);
            let mirrored: Vec<f64> = replicates.iter().map(|d| -2.0 * margin - d).collect();
            return Self {
                difference: Estimate { value, low: low.min(value), high: high.max(value) },
                p: bootstrap_p_zero(replicates),
                p_inferior: bootstrap_p_inferior(replicates, margin),
                p_worse: bootstrap_p_inferior(&mirrored, margin),
            };
        }
        let n = replicates.len() as f64;
        let mean = replicates.iter().sum::<f64>() / n;
        let variance = replicates.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / n;
        let z = normal_z(level);
        let deviation = (variance + (unseen / z).powi(2)).sqrt();
        let half = z * deviation;
        let p_inferior = normal_below(-(value + margin) / deviation);
        Self {
            difference: Estimate { value, low: value - half, high: value + half },
            p: normal_two_sided(value / deviation),
            p_inferior,
            p_worse: 1.0 - p_inferior,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ClusteredAuc;

    #[test]
    fn two_perfect_methods_on_few_cases_decide_nothing() {
        let truth = [true, true, true, false, false, false];
        let perfect = ClusteredAuc::new(&[0.9, 0.8, 0.7, 0.3, 0.2, 0.1], &truth, &[0, 1, 2, 3, 4, 5]).unwrap();
        let found = PairedDifference::new(0.0, &[0.0; 99], perfect.unseen(0.95), 0.02, 0.95);
        assert!((found.difference.low + 0.5).abs() < 0.01 && (found.difference.high - 0.5).abs() < 0.01);
        assert!(found.p == 1.0 && found.p_inferior > 0.4 && found.p_worse > 0.4, "{found:?}");
    }

    #[test]
    fn tests_say_what_the_interval_says() {
        for shift in [-0.3, -0.1, -0.02, 0.0, 0.02, 0.1, 0.3] {
            // 1999 draws, evenly over 0.2.
            let replicates: Vec<f64> = (0..1999).map(|i| shift + (f64::from(i) - 999.0) / 10_000.0).collect();
            for unseen in [0.0, 0.05] {
                let found = PairedDifference::new(shift, &replicates, unseen, 0.05, 0.95);
                let Estimate { low, high, .. } = found.difference;
                assert_eq!(found.p <= 0.05, low > 0.0 || high < 0.0, "{shift} {unseen}: {found:?}");
                assert_eq!(found.p_inferior <= 0.025, low > -0.05, "{shift} {unseen}: {found:?}");
                assert_eq!(found.p_worse <= 0.025, high < -0.05, "{shift} {unseen}: {found:?}");
            }
        }
    }
}
