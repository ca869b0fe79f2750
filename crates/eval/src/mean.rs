//! The mean over what is defined.

/// Mean of the values that are defined, such as the AUCs of classes for a macro AUC; none where none is.
pub fn mean_of_defined(values: impl IntoIterator<Item = Option<f64>>) -> Option<f64> {
    let (sum, count) = values.into_iter().flatten().fold((0.0, 0usize), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_undefined_does_not_count() {
        assert_eq!(mean_of_defined([Some(1.0), None, Some(0.5)]), Some(0.75));
        assert_eq!(mean_of_defined([None, None]), None);
        assert_eq!(mean_of_defined([]), None);
    }
}
