//! From what a head gives to an answer.

use crate::scope::InScope;
use crate::sets::PredictionSet;
use crate::task_kind::TaskKind;

/// What a task says of one image.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What kind of answer it is.
    pub kind: TaskKind,
    /// Calibrated, `[c]`, in the order of the head; none of numbers.
    pub probabilities: Vec<f32>,
    /// Numbers in their units, `[c]`, in the order of the head; of a mask the share of each class in the pixels that the network saw; none
    /// of classes of an image.
    pub values: Vec<f32>,
    /// Classes by probability, the most probable first; of equal ones the first in the order of the head. Outputs in their order.
    pub ranking: Vec<usize>,
    /// Findings whose probability reaches their threshold, in the order of the head; none but for multi-label tasks.
    pub findings: Vec<usize>,
    /// Standard deviation of what the members of an ensemble say, `[c]`, in the order of the head: of probabilities, or of numbers in their units;
    /// none of single plug-ins.
    pub spread: Vec<f32>,
    /// What may be true with the coverage that the plug-in promises; none where it promises none.
    pub set: Option<PredictionSet>,
    /// Whether the image is one for the plug-in; none where it cannot tell.
    pub scope: Option<InScope>,
    /// See [`Decision::best`].
    best: usize,
}

impl Decision {
    /// From probabilities `[c]`, of a regression or a mask from its numbers, and thresholds `[c]` as [`crate::TaskCard::thresholds`]
    /// says; without spread, set and scope.
    pub fn new(kind: TaskKind, outputs: Vec<f32>, thresholds: &[f32]) -> Self {
        let mut ranking: Vec<usize> = (0..outputs.len()).collect();
        if !kind.has_probabilities() {
            return Decision {
                kind,
                probabilities: Vec::new(),
                values: outputs,
                ranking,
                findings: Vec::new(),
                spread: Vec::new(),
                set: None,
                scope: None,
                best: 0,
            };
        }
        ranking.sort_by(|&a, &b| outputs[b].total_cmp(&outputs[a]));
        let reached = |&class: &usize| outputs[class] >= thresholds[class];
        let findings = match kind {
            TaskKind::MultiLabel => (0..outputs.len()).filter(reached).collect(),
            _ => Vec::new(),
        };
        let best = match kind {
            TaskKind::SingleLabel => raised_most(&outputs, thresholds, &ranking),
            TaskKind::Ordinal => median(&outputs),
            _ => ranking[0],
        };
        let (values, spread, set, scope) = (Vec::new(), Vec::new(), None, None);
        Decision { kind, probabilities: outputs, values, ranking, findings, spread, set, scope, best }
    }

    /// The answer of a task of one class: the one whose probability is highest over its threshold, which with equal thresholds is the most
    /// probable one; of ordered classes the median, the first that half of the probability does not lie above. Of findings the most probable,
    /// of numbers the first.
    pub fn best(&self) -> usize {
        self.best
    }

    /// The classes that a heat map explains, the most probable first: every finding, or the answer where there is none; of numbers all,
    /// of a mask, which is a map itself, none.
    pub fn explained(&self) -> Vec<usize> {
        match self.kind {
            TaskKind::Regression => self.ranking.clone(),
            TaskKind::Segmentation => Vec::new(),
            _ if self.findings.is_empty() => vec![self.best()],
            _ => self.ranking.iter().copied().filter(|class| self.findings.contains(class)).collect(),
        }
    }
}

/// The class with the highest probability over threshold; of equal ones the most probable.
fn raised_most(probabilities: &[f32], thresholds: &[f32], ranking: &[usize]) -> usize {
    // A threshold of nothing is one that any probability is far above.
    let raised = |class: usize| f64::from(probabilities[class]) / f64::from(thresholds[class].max(f32::MIN_POSITIVE));
    ranking.iter().copied().reduce(|best, class| if raised(class) > raised(best) { class } else { best }).unwrap_or(0)
}

/// The first class that half of the probability does not lie above.
fn median(probabilities: &[f32]) -> usize {
    let mut below = 0.0;
    let reaches = |p: &f32| {
        below += f64::from(*p);
        below >= 0.5
    };
    // Rounded probabilities of the last may end below one.
    probabilities.iter().position(reaches).unwrap_or(probabilities.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_class_is_the_most_probable_and_the_first_of_equals() {
        let decision = Decision::new(TaskKind::SingleLabel, vec![0.2, 0.4, 0.4], &[0.0; 3]);
        assert_eq!((decision.best(), decision.ranking.as_slice()), (1, [1, 2, 0].as_slice()));
        assert!(decision.findings.is_empty());
        assert_eq!(decision.explained(), [1]);
    }

    #[test]
    fn a_class_of_uneven_thresholds_is_the_one_that_is_raised_most() {
        let called =
            |p: &[f32], thresholds: &[f32]| Decision::new(TaskKind::SingleLabel, p.to_vec(), thresholds).best();
        assert_eq!(called(&[0.6, 0.3, 0.1], &[0.8, 0.15, 0.05]), 1, "0.75, 2 and 2: of equal ones the most probable");
        assert_eq!(called(&[0.6, 0.25, 0.15], &[0.8, 0.15, 0.05]), 2);
        assert_eq!(called(&[0.6, 0.3, 0.1], &[0.2; 3]), 0);
        assert_eq!(called(&[0.9, 0.1, 0.0], &[0.5, 0.5, 0.0]), 0, "what has no probability is not called");
        let decision = Decision::new(TaskKind::SingleLabel, vec![0.6, 0.3, 0.1], &[0.8, 0.15, 0.05]);
        assert_eq!((decision.explained(), decision.ranking), (vec![1], vec![0, 1, 2]));
    }

    #[test]
    fn a_finding_is_what_reaches_its_threshold() {
        let decision = Decision::new(TaskKind::MultiLabel, vec![0.5, 0.7, 0.1, 0.9], &[0.5, 0.8, 0.0, 0.2]);
        assert_eq!(decision.findings, [0, 2, 3]);
        assert_eq!(decision.explained(), [3, 0, 2]);
        let none = Decision::new(TaskKind::MultiLabel, vec![0.3, 0.4], &[0.5; 2]);
        assert!(none.findings.is_empty());
        assert_eq!(none.explained(), [1]);
    }

    #[test]
    fn a_grade_is_the_median_and_not_the_most_probable() {
        let grade = |p: &[f32]| Decision::new(TaskKind::Ordinal, p.to_vec(), &[0.5; 3]).best();
        assert_eq!(grade(&[0.4, 0.3, 0.3]), 1);
        assert_eq!(grade(&[0.5, 0.0, 0.5]), 0);
        assert_eq!(grade(&[0.1, 0.2, 0.2]), 2, "whatever rounding leaves");
        let decision = Decision::new(TaskKind::Ordinal, vec![0.4, 0.3, 0.3], &[0.5; 3]);
        assert_eq!((decision.ranking[0], decision.explained()), (0, vec![1]));
    }

    #[test]
    fn numbers_are_their_own_answer() {
        let decision = Decision::new(TaskKind::Regression, vec![63.5, -2.0], &[0.5; 2]);
        assert_eq!((decision.values.as_slice(), decision.explained()), ([63.5, -2.0].as_slice(), vec![0, 1]));
        assert!(decision.probabilities.is_empty() && decision.findings.is_empty());
    }
}
