//! From what a head gives to an answer.

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
}

impl Decision {
    /// From probabilities `[c]`, of a regression or a mask from its numbers, and thresholds `[c]`, which only findings are held to; without
    /// spread and set.
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
            };
        }
        ranking.sort_by(|&a, &b| outputs[b].total_cmp(&outputs[a]));
        let reached = |&class: &usize| outputs[class] >= thresholds[class];
        let findings = match kind {
            TaskKind::MultiLabel => (0..outputs.len()).filter(reached).collect(),
            _ => Vec::new(),
        };
        Decision { kind, probabilities: outputs, values: Vec::new(), ranking, findings, spread: Vec::new(), set: None }
    }

    /// The answer of a task of one class: the most probable class; of ordered ones the median, the first that half of the probability
    /// does not lie above. Of findings the most probable, of numbers the first.
    pub fn best(&self) -> usize {
        if self.kind != TaskKind::Ordinal {
            return self.ranking[0];
        }
        let mut below = 0.0;
        let reaches = |p: &f32| {
            below += f64::from(*p);
            below >= 0.5
        };
        // Rounded probabilities of the last may end below one.
        self.probabilities.iter().position(reaches).unwrap_or(self.probabilities.len() - 1)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_class_is_the_most_probable_and_the_first_of_equals() {
        let decision = Decision::new(TaskKind::SingleLabel, vec![0.2, 0.4, 0.4], &[0.0; 3]);
        assert_eq!((decision.best(), decision.ranking.as_slice()), (1, [1, 2, 0].as_slice()));
        assert!(decision.findings.is_empty(), "thresholds are no matter of one class");
        assert_eq!(decision.explained(), [1]);
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
