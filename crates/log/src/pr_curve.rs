//! Precision and recall at thresholds, as TensorBoard's `pr_curve` counts them.

/// Thresholds `0, 1/(n-1), …, 1`.
pub(crate) const THRESHOLDS: usize = 201;
/// What a count is divided by at least.
const LEAST: f64 = 1e-7;

/// True positives, false positives, true negatives, false negatives, precision and recall at each threshold, `[6, n]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PrCurve(pub(crate) Vec<f32>);

impl PrCurve {
    /// Of probabilities, with what is true; at a threshold counts what is at least it.
    pub(crate) fn of(scored: impl Iterator<Item = (f32, bool)>) -> Self {
        let mut counts = [[0.0; THRESHOLDS]; 2];
        for (probability, truth) in scored {
            let bucket = (f64::from(probability.clamp(0.0, 1.0)) * (THRESHOLDS - 1) as f64) as usize;
            counts[usize::from(truth)][bucket] += 1.0;
        }
        let [false_positives, true_positives] = counts.map(|buckets| {
            let mut sum = 0.0;
            let mut from: Vec<f64> = buckets.iter().rev().map(|count| (sum += count, sum).1).collect();
            from.reverse();
            from
        });
        let rest = |of: &[f64]| of.iter().map(|count| of[0] - count).collect::<Vec<f64>>();
        let (true_negatives, false_negatives) = (rest(&false_positives), rest(&true_positives));
        let share = |of: &[f64], rest: &[f64]| {
            of.iter().zip(rest).map(|(of, rest)| of / (of + rest).max(LEAST)).collect::<Vec<f64>>()
        };
        let precision = share(&true_positives, &false_positives);
        let recall = share(&true_positives, &false_negatives);
        let rows = [true_positives, false_positives, true_negatives, false_negatives, precision, recall];
        PrCurve(rows.concat().into_iter().map(|value| value as f32).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_met_by_what_is_at_least_them() {
        let curve = PrCurve::of([(0.0, false), (0.5, true), (0.499, false), (1.0, true)].into_iter()).0;
        let row = |row: usize, threshold: usize| curve[row * THRESHOLDS + threshold];
        let at = |threshold: usize| [0, 1, 2, 3, 4, 5].map(|of| row(of, threshold));
        assert_eq!(at(0), [2.0, 2.0, 0.0, 0.0, 0.5, 1.0]);
        assert_eq!(at(99), [2.0, 1.0, 1.0, 0.0, 2.0 / 3.0, 1.0]);
        assert_eq!(at(100), [2.0, 0.0, 2.0, 0.0, 1.0, 1.0]);
        assert_eq!(at(101), [1.0, 0.0, 2.0, 1.0, 1.0, 0.5]);
        assert_eq!(at(200), [1.0, 0.0, 2.0, 1.0, 1.0, 0.5]);
    }

    #[test]
    fn a_class_that_never_occurs_has_no_recall() {
        let curve = PrCurve::of([(0.25, false)].into_iter()).0;
        assert!(curve[4 * THRESHOLDS..].iter().all(|&share| share == 0.0));
    }
}
