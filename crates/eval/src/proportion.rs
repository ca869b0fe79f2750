//! Intervals of a proportion: a sensitivity, a specificity, an accuracy.
//! Compared by Brown, Cai & DasGupta, Statistical Science 16, 2001.

use crate::distributions::{beta_quantile, normal_z, tails};

/// Wilson's score interval of `successes` of `trials`, with confidence `level` on average over proportions:
/// the proportions π with `|p - π| <= z · √(π (1 - π) / trials)` (J. Am. Stat. Assoc. 22, 1927), without
/// continuity correction.
///
/// Equals statsmodels' `proportion_confint(method="wilson")`. `None` of no trials.
///
/// # Panics
/// Where there are more successes than trials, or `level` is not between 0 and 1.
pub fn wilson(successes: u64, trials: u64, level: f64) -> Option<(f64, f64)> {
    let z = normal_z(level);
    Some(wilson_of(share(successes, trials)?, trials as f64, z))
}

/// Wilson's interval of a proportion `p` in [0, 1] of `n` > 0 trials, which need not be whole.
pub(crate) fn wilson_of(p: f64, n: f64, z: f64) -> (f64, f64) {
    let shrink = 1.0 / (1.0 + z * z / n);
    let centre = shrink * (p + z * z / (2.0 * n));
    let half = shrink * z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    // Exact at the ends, where rounding would leave some 1e-18.
    let low = if p == 0.0 { 0.0 } else { centre - half };
    let high = if p == 1.0 { 1.0 } else { centre + half };
    (low, high)
}

/// Clopper and Pearson's interval of `successes` of `trials`, with confidence *at least* `level` whatever the
/// proportion: the proportions that neither one-sided binomial test rejects at `(1 - level) / 2`
/// (Biometrika 26, 1934), as quantiles of Beta(k, n - k + 1) and Beta(k + 1, n - k).
///
/// Equals scipy's `binomtest(k, n).proportion_ci(level, "exact")`. `None` of no trials.
///
/// # Panics
/// As [`wilson`].
pub fn clopper_pearson(successes: u64, trials: u64, level: f64) -> Option<(f64, f64)> {
    let tail = tails(level) / 2.0;
    share(successes, trials)?;
    let (found, missed) = (successes as f64, (trials - successes) as f64);
    let low = if successes == 0 { 0.0 } else { beta_quantile(tail, found, missed + 1.0) };
    // By symmetry the upper end is the lower one of the failures, which keeps digits near 1.
    let high = if successes == trials { 1.0 } else { 1.0 - beta_quantile(tail, missed, found + 1.0) };
    Some((low, high))
}

fn share(successes: u64, trials: u64) -> Option<f64> {
    assert!(successes <= trials, "at most {trials} successes, found {successes}");
    (trials > 0).then(|| successes as f64 / trials as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Interval = fn(u64, u64, f64) -> Option<(f64, f64)>;

    /// Chance that the interval of a binomial count contains the proportion it was drawn with.
    fn coverage(interval: Interval, n: u64, p: f64, level: f64) -> f64 {
        let choose = |k: u64| (0..k).fold(1.0, |product, i| product * (n - i) as f64 / (i + 1) as f64);
        let chance = |k: u64| choose(k) * p.powi(k as i32) * (1.0 - p).powi((n - k) as i32);
        (0..=n)
            .filter(|&k| {
                let (low, high) = interval(k, n, level).unwrap();
                low <= p && p <= high
            })
            .map(chance)
            .sum()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn clopper_pearson_never_covers_less(n in 1u64..30, p in 0.0f64..1.0, level in 0.5f64..0.99) {
            let covered = coverage(clopper_pearson, n, p, level);
            prop_assert!(covered >= level - 1e-12, "{} of {}", covered, level);
        }

        #[test]
        fn failures_mirror_successes(n in 1u64..1_000_000, share in 0.0f64..1.0, level in 0.5f64..0.999) {
            let k = (n as f64 * share) as u64;
            for interval in [wilson, clopper_pearson] {
                let ((low, high), (mirror_low, mirror_high)) =
                    (interval(k, n, level).unwrap(), interval(n - k, n, level).unwrap());
                prop_assert!((low - (1.0 - mirror_high)).abs() < 1e-12);
                prop_assert!((high - (1.0 - mirror_low)).abs() < 1e-12);
                let p = k as f64 / n as f64;
                prop_assert!(0.0 <= low && low <= p && p <= high && high <= 1.0, "{}..{} of {}", low, high, p);
            }
        }
    }

    #[test]
    fn wilson_covers_on_average() {
        let covered: Vec<_> = (0..500).map(|i| coverage(wilson, 40, (i as f64 + 0.5) / 500.0, 0.95)).collect();
        let mean = covered.iter().sum::<f64>() / 500.0;
        assert!((mean - 0.95).abs() < 0.005, "{mean}");
    }

    #[test]
    fn nothing_of_nothing() {
        assert_eq!(wilson(0, 0, 0.95), None);
        assert_eq!(clopper_pearson(0, 0, 0.95), None);
    }

    #[test]
    #[should_panic(expected = "at most 3 successes, found 4")]
    fn more_successes_than_trials() {
        wilson(4, 3, 0.95);
    }
}
