//! Many hypotheses at once.

/// Holm's step-down adjusted p-values, in the order given: with `p(1) <= … <= p(m)`, the i-th smallest becomes
/// `max over j <= i of min(1, (m - j + 1) · p(j))` (Holm, Scand. J. Statist. 6, 1979). Rejecting where an
/// adjusted value is at most α keeps the chance of any false rejection at α, however the tests depend on one
/// another.
///
/// Equals R's `p.adjust(p, "holm")` and statsmodels' `multipletests(p, method="holm")`.
///
/// # Panics
/// Where a value is not in [0, 1].
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    for (test, p) in p_values.iter().enumerate() {
        assert!((0.0..=1.0).contains(p), "p-value of test {test}: expected a number from 0 to 1, found {p}");
    }
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut adjusted = vec![0.0; p_values.len()];
    let mut largest: f64 = 0.0;
    for (smaller, test) in order.into_iter().enumerate() {
        largest = largest.max(((p_values.len() - smaller) as f64 * p_values[test]).min(1.0));
        adjusted[test] = largest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The closed test: a hypothesis falls where every intersection that contains it is rejected by
        /// Bonferroni's test, so its adjusted p-value is the largest Bonferroni p-value of those intersections.
        #[test]
        fn equals_the_closed_bonferroni_test(
            p_values in prop::collection::vec(prop_oneof![0.0f64..1.0, 0.0f64..0.05, Just(0.0), Just(1.0)], 0..8)
        ) {
            let m = p_values.len();
            let closed = |test: usize| {
                let with_it = (0..1u32 << m).filter(|set| set >> test & 1 == 1);
                with_it.map(|set| {
                    let members = (0..m).filter(|i| set >> i & 1 == 1).map(|i| p_values[i]);
                    (f64::from(set.count_ones()) * members.fold(1.0, f64::min)).min(1.0)
                }).fold(0.0, f64::max)
            };
            for (test, adjusted) in holm(&p_values).into_iter().enumerate() {
                prop_assert_eq!(adjusted, closed(test));
            }
        }
    }

    #[test]
    #[should_panic(expected = "p-value of test 1: expected a number from 0 to 1, found NaN")]
    fn nan_is_no_p_value() {
        holm(&[0.5, f64::NAN]);
    }
}
