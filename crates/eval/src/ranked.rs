//! Scores sorted once, so that whatever only needs their order is a single pass over them.

use crate::auc::auc_of_groups;

/// Cases in order of their score, equal scores grouped. Sorting is O(n log n), done once; every question
/// after that is O(n).
///
/// -0.0 equals 0.0, infinities are ordered like any other score. Where a score is NaN there is no order, and
/// everything asked of it is undefined (`None`).
#[derive(Clone, Debug)]
pub struct RankedScores {
    /// Cases given.
    cases: usize,
    /// Indices of the cases by score, the lowest first, and within a group the positives first.
    order: Vec<u32>,
    groups: Vec<Group>,
}

/// Cases of equal score: `order[start..negatives_from]` are positive, `order[negatives_from..end]` negative,
/// where `start` is the end of the group before.
#[derive(Clone, Copy, Debug)]
struct Group {
    score: f32,
    negatives_from: u32,
    end: u32,
}

/// One group of equal scores, as indices of cases.
pub(crate) struct Tie<'a> {
    pub(crate) score: f32,
    pub(crate) positives: &'a [u32],
    pub(crate) negatives: &'a [u32],
}

impl RankedScores {
    /// Sorts `scores [n]`, with the truth `positive [n]`.
    ///
    /// # Panics
    /// Where the lengths differ, or n does not fit in 32 bits.
    pub fn new(scores: &[f32], positive: &[bool]) -> Self {
        assert_eq!(scores.len(), positive.len(), "one truth a score");
        let cases = scores.len();
        let nothing = Self { cases, order: Vec::new(), groups: Vec::new() };
        if scores.iter().any(|score| score.is_nan()) {
            return nothing;
        }
        let n = u32::try_from(cases).expect("at most 2^32 cases");
        // -0.0 + 0.0 is 0.0, so that equal scores have equal bits.
        let mut ranked: Vec<_> =
            (0..n).map(|case| (scores[case as usize] + 0.0, !positive[case as usize], case)).collect();
        ranked.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));

        let mut groups = Vec::new();
        let mut end = 0;
        for tie in ranked.chunk_by(|a, b| a.0 == b.0) {
            let negatives_from = end + tie.partition_point(|(_, negative, _)| !negative) as u32;
            end += tie.len() as u32;
            groups.push(Group { score: tie[0].0, negatives_from, end });
        }
        Self { order: ranked.into_iter().map(|(_, _, case)| case).collect(), groups, ..nothing }
    }

    /// AUC where case i counts `weights[i]` times (0: not at all), in [0, 1]. O(n). With all weights 1 it is
    /// [`roc_auc`](crate::roc_auc), to the bit; in general scikit-learn's `roc_auc_score` with `sample_weight`.
    ///
    /// `None` where the positive or the negative cases weigh nothing, or a score is NaN.
    ///
    /// # Panics
    /// Where `weights` is not `[n]`.
    pub fn auc(&self, weights: &[u32]) -> Option<f64> {
        assert_eq!(weights.len(), self.cases, "one weight a score");
        let weigh = |cases: &[u32]| cases.iter().map(|&case| u64::from(weights[case as usize])).sum();
        auc_of_groups(self.ties().map(|tie| (weigh(tie.positives), weigh(tie.negatives))))
    }

    /// Groups of equal scores, the lowest first.
    pub(crate) fn ties(&self) -> impl DoubleEndedIterator<Item = Tie<'_>> {
        self.groups.iter().enumerate().map(|(at, group)| {
            let start = if at == 0 { 0 } else { self.groups[at - 1].end as usize };
            let (middle, end) = (group.negatives_from as usize, group.end as usize);
            Tie { score: group.score, positives: &self.order[start..middle], negatives: &self.order[middle..end] }
        })
    }

    /// (score, positives, negatives) at or above each distinct score, the highest first: the true and false
    /// positives when that score is the threshold.
    pub(crate) fn at_or_above(&self) -> impl Iterator<Item = (f32, u64, u64)> {
        self.ties().rev().scan((0, 0), |(positives, negatives), tie| {
            *positives += tie.positives.len() as u64;
            *negatives += tie.negatives.len() as u64;
            Some((tie.score, *positives, *negatives))
        })
    }

    /// (positives, negatives); nothing of either where a score is NaN.
    pub(crate) fn totals(&self) -> (u64, u64) {
        self.at_or_above().last().map_or((0, 0), |(_, positives, negatives)| (positives, negatives))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roc_auc;
    use proptest::prelude::*;

    fn score() -> impl Strategy<Value = f32> {
        prop_oneof![(-3i8..4).prop_map(|step| f32::from(step) / 4.0), Just(-0.0), proptest::num::f32::NORMAL]
    }

    proptest! {
        #[test]
        fn weights_of_one_are_the_plain_auc(cases in prop::collection::vec((score(), any::<bool>()), 0..80)) {
            let (scores, positive): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
            let ranked = RankedScores::new(&scores, &positive);
            prop_assert_eq!(ranked.auc(&vec![1; scores.len()]), roc_auc(&scores, &positive));
        }

        #[test]
        fn a_weight_is_as_many_copies(
            cases in prop::collection::vec((score(), any::<bool>(), 0u32..4), 0..60)
        ) {
            let copies = || cases.iter().flat_map(|case| (0..case.2).map(move |_| case));
            let scores: Vec<_> = cases.iter().map(|case| case.0).collect();
            let positive: Vec<_> = cases.iter().map(|case| case.1).collect();
            let weights: Vec<_> = cases.iter().map(|case| case.2).collect();
            let (many, truth): (Vec<_>, Vec<_>) = copies().map(|case| (case.0, case.1)).unzip();
            prop_assert_eq!(RankedScores::new(&scores, &positive).auc(&weights), roc_auc(&many, &truth));
        }
    }

    #[test]
    fn nan_has_no_order() {
        let ranked = RankedScores::new(&[0.1, f32::NAN, 0.9], &[false, true, true]);
        assert_eq!(ranked.auc(&[1; 3]), None);
        assert_eq!(ranked.totals(), (0, 0));
    }

    #[test]
    fn huge_weights_do_not_overflow() {
        let ranked = RankedScores::new(&[0.1, 0.2, 0.3, 0.4], &[false, true, false, true]);
        assert_eq!(ranked.auc(&[u32::MAX; 4]), Some(0.75));
    }

    #[test]
    #[should_panic(expected = "one weight a score")]
    fn a_weight_for_each_case() {
        RankedScores::new(&[0.1], &[true]).auc(&[]);
    }
}
