//! Saying that a number cannot be known, and why.

/// Cases of a class, or without it, below which its figures say little: the interval of a sensitivity of 9 of 10 is
/// [0.60, 0.98].
pub const FEW_CASES: u64 = 10;

/// Why a statistic that needs both kinds of cases is undefined, or too uncertain to state, with this many of
/// each: a clause such as "no positive case" or "3 negative cases, at least 10 needed". `None` where there
/// are `minimum` of both (at least one, whatever `minimum` says).
///
/// An AUC needs 1 of each ([`roc_auc`](crate::roc_auc)), its variance 2 ([`delong`](crate::delong)).
pub fn why_undefined(positives: u64, negatives: u64, minimum: u64) -> Option<String> {
    let reasons: Vec<_> = [(positives, "positive"), (negatives, "negative")]
        .into_iter()
        .filter_map(|(found, kind)| match found {
            0 => Some(format!("no {kind} case")),
            _ if found >= minimum => None,
            1 => Some(format!("1 {kind} case, at least {minimum} needed")),
            _ => Some(format!("{found} {kind} cases, at least {minimum} needed")),
        })
        .collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons() {
        let why = |positives, negatives, minimum| why_undefined(positives, negatives, minimum);
        assert_eq!(why(1, 1, 1), None);
        assert_eq!(why(10, 10, 10), None);
        assert_eq!(why(0, 5, 0).unwrap(), "no positive case");
        assert_eq!(why(5, 0, 2).unwrap(), "no negative case");
        assert_eq!(why(0, 0, 1).unwrap(), "no positive case; no negative case");
        assert_eq!(why(1, 90, 10).unwrap(), "1 positive case, at least 10 needed");
        assert_eq!(
            why(9, 3, 10).unwrap(),
            "9 positive cases, at least 10 needed; 3 negative cases, at least 10 needed"
        );
    }
}
