//! From probabilities to an answer.

use crate::task_kind::TaskKind;

/// What a task says of one image.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// One class, or any number of findings.
    pub kind: TaskKind,
    /// Calibrated, `[c]`, in the order of the head.
    pub probabilities: Vec<f32>,
    /// Classes by probability, the most probable first; of equal ones the first in the order of the head.
    pub ranking: Vec<usize>,
    /// Findings whose probability reaches their threshold, in the order of the head; none for single-label tasks.
    pub findings: Vec<usize>,
}

impl Decision {
    /// From probabilities `[c]` and thresholds `[c]`, which only findings are held to.
    pub fn new(kind: TaskKind, probabilities: Vec<f32>, thresholds: &[f32]) -> Self {
        let mut ranking: Vec<usize> = (0..probabilities.len()).collect();
        ranking.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
        let reached = |&class: &usize| probabilities[class] >= thresholds[class];
        let findings = match kind {
            TaskKind::SingleLabel => Vec::new(),
            TaskKind::MultiLabel => (0..probabilities.len()).filter(reached).collect(),
        };
        Decision { kind, probabilities, ranking, findings }
    }

    /// The most probable class; the answer of a single-label task.
    pub fn best(&self) -> usize {
        self.ranking[0]
    }

    /// The classes that a heat map explains, the most probable first: every finding, or the most probable class where there
    /// is none.
    pub fn explained(&self) -> Vec<usize> {
        match self.findings.is_empty() {
            true => vec![self.best()],
            false => self.ranking.iter().copied().filter(|class| self.findings.contains(class)).collect(),
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
}
