//! Classes and findings that are answered held against the truth: what every figure of them is made of, whichever door asks for it.

use crate::answers::{Answers, column};
use melo_eval::{ClusteredAuc, ClusteredShare, Metrics};
use melo_vit::{Decision, TaskKind};

/// Cases of a share: how right each is, in [0, 1], and its patient.
pub type Cases = Vec<(f64, usize)>;

/// Answers at a temperature and thresholds, with the truth.
#[derive(Clone, Debug)]
pub struct Judged {
    kind: TaskKind,
    classes: usize,
    /// `[n · c]`
    probabilities: Vec<f32>,
    /// `[n · c]`, one-hot where an image has one class.
    truth: Vec<bool>,
    /// What is called, `[n · c]`; one-hot where an image has one class.
    called: Vec<bool>,
    /// Number of each image's patient, `[n]`.
    patients: Vec<usize>,
}

impl Judged {
    /// Answers as a card with this temperature and these thresholds `[c]` decides.
    ///
    /// # Panics
    /// For numbers, which are not right or wrong.
    pub fn new(answers: &Answers, temperature: f32, thresholds: &[f32]) -> Self {
        assert!(answers.kind.has_probabilities(), "numbers are not right or wrong");
        let probabilities = answers.probabilities(temperature);
        let called = called(answers.kind, &probabilities, thresholds);
        let (truth, patients) = (answers.truth(), answers.clusters());
        Judged { kind: answers.kind, classes: answers.classes, probabilities, truth, called, patients }
    }

    /// Calibrated probabilities, `[n · c]`.
    pub fn probabilities(&self) -> &[f32] {
        &self.probabilities
    }

    /// What is there, `[n · c]`.
    pub fn truth(&self) -> &[bool] {
        &self.truth
    }

    /// What is called, `[n · c]`.
    pub fn called(&self) -> &[bool] {
        &self.called
    }

    /// The class or grade that is called of each image, `[n]`.
    pub fn grades(&self) -> Vec<usize> {
        of_one_hot(&self.called, self.classes)
    }

    /// Number of each image's patient, `[n]`.
    pub fn patients(&self) -> &[usize] {
        &self.patients
    }

    /// Metrics at these decisions.
    ///
    /// # Errors
    /// As `melo_eval`.
    pub fn metrics(&self) -> Result<Metrics, melo_eval::Error> {
        match self.kind {
            TaskKind::MultiLabel => {
                let labels: Vec<u8> = self.truth.iter().map(|&shown| u8::from(shown)).collect();
                melo_eval::multi_label_decided(&self.probabilities, &labels, &self.called, self.classes)
            }
            _ => {
                let labels = of_one_hot(&self.truth, self.classes);
                melo_eval::single_label_decided(&self.probabilities, &labels, &self.grades(), self.classes)
            }
        }
    }

    /// One-vs-rest AUC of a class, of the images at `rows`.
    pub fn auc(&self, class: usize, rows: Option<&[bool]>) -> Option<ClusteredAuc> {
        let (scores, truth) =
            (column(&self.probabilities, class, self.classes), column(&self.truth, class, self.classes));
        match rows {
            None => ClusteredAuc::new(&scores, &truth, &self.patients),
            Some(rows) => ClusteredAuc::new(&kept(&scores, rows), &kept(&truth, rows), &kept(&self.patients, rows)),
        }
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Mean AUC of the classes that have one, of the images at `rows`.
    pub fn auc_macro(&self, rows: Option<&[bool]>) -> Option<ClusteredAuc> {
        ClusteredAuc::mean((0..self.classes).map(|class| self.auc(class, rows)))
    }

    /// Of the accuracy: every image, or with findings every image and finding.
    pub fn accuracy(&self) -> Cases {
        let right = self.called.iter().zip(&self.truth).map(|(called, truth)| called == truth);
        let right: Vec<bool> = match self.kind {
            TaskKind::MultiLabel => right.collect(),
            // Of a one-hot row all is right, or two values are wrong.
            _ => right.collect::<Vec<_>>().chunks_exact(self.classes).map(|row| row.iter().all(|&r| r)).collect(),
        };
        let each = right.len() / self.patients.len();
        right.into_iter().enumerate().map(|(at, right)| (share(right), self.patients[at / each])).collect()
    }

    /// Of a class's sensitivity: the images that have it.
    pub fn sensitivity(&self, class: usize) -> Cases {
        self.rate(&column(&self.called, class, self.classes), class, true)
    }

    /// Of a class's specificity: the images that do not have it.
    pub fn specificity(&self, class: usize) -> Cases {
        self.rate(&column(&self.called, class, self.classes), class, false)
    }

    /// How right `called [n]` is about a class, on the images that have it or do not.
    pub fn rate(&self, called: &[bool], class: usize, has_it: bool) -> Cases {
        let truth = self.truth.iter().skip(class).step_by(self.classes);
        let cases = truth.zip(called).zip(&self.patients).filter(|((truth, _), _)| **truth == has_it);
        cases.map(|((truth, called), &patient)| (share(truth == called), patient)).collect()
    }

    /// Of the balanced accuracy, a share each whose mean it is: sensitivities, or with findings the sensitivity and the
    /// specificity of each that has both.
    pub fn balanced(&self) -> Vec<Cases> {
        let of = |class: usize| match self.kind {
            TaskKind::MultiLabel => vec![self.sensitivity(class), self.specificity(class)],
            _ => vec![self.sensitivity(class)],
        };
        let classes = (0..self.classes).map(of).filter(|shares| shares.iter().all(|cases| !cases.is_empty()));
        classes.flatten().collect()
    }
}

/// The mean of shares; none of nothing.
pub fn mean_share(shares: impl IntoIterator<Item = Cases>) -> Option<ClusteredShare> {
    ClusteredShare::mean(shares.into_iter().map(ClusteredShare::new))
}

/// What is called at thresholds `[c]`, `[n · c]`.
pub(crate) fn called(kind: TaskKind, probabilities: &[f32], thresholds: &[f32]) -> Vec<bool> {
    let row = |row: &[f32]| {
        let decision = Decision::new(kind, row.to_vec(), thresholds);
        let best = decision.best();
        (0..row.len())
            .map(|class| match kind {
                TaskKind::MultiLabel => decision.findings.contains(&class),
                _ => class == best,
            })
            .collect::<Vec<_>>()
    };
    probabilities.chunks_exact(thresholds.len()).flat_map(row).collect()
}

/// The class of each row of `flags [n, c]`.
pub(crate) fn of_one_hot(flags: &[bool], classes: usize) -> Vec<usize> {
    flags.chunks_exact(classes).map(|row| row.iter().position(|&flag| flag).unwrap_or(0)).collect()
}

fn kept<T: Copy>(values: &[T], rows: &[bool]) -> Vec<T> {
    values.iter().zip(rows).filter(|(_, kept)| **kept).map(|(&value, _)| value).collect()
}

fn share(right: bool) -> f64 {
    f64::from(u8::from(right))
}
