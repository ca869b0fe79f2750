//! Ensembles of folds: plug-ins of one task that were trained on different patients, in one file, and their mean as the answer.
//!
//! Of the logits `z_m` of `k` members, all read by one temperature `T`, with a softmax or a sigmoid a finding as `σ`:
//!
//! ```text
//! p      = 1/k · Σ σ(z_m / T)                        the answer
//! spread = √( 1/(k - 1) · Σ (σ(z_m / T) - p)² )      its uncertainty, a number a class
//! z      = T · σ⁻¹(p)                                for whoever reads logits: σ(z / T) is the answer
//! ```
//!
//! Numbers have no `σ`: their answer is the mean.

use crate::adapter::Adapter;
use crate::card::{Provenance, TaskCard};
use crate::config::VitConfig;
use crate::head::Head;
use crate::invalid::Invalid;
use crate::meaning::ReadBy;
use crate::self_test::SelfTest;
use crate::task_kind::TaskKind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// A member of an ensemble.
#[derive(Clone, Debug)]
pub struct Member {
    /// Low-rank matrices and bottlenecks.
    pub adapter: Adapter,
    /// Classifier.
    pub head: Head,
}

impl Member {
    /// What is its own, where it shares the updates of the blocks before `shared`.
    pub(crate) fn tensors(&self, shared: usize) -> impl Iterator<Item = &Vec<f32>> {
        self.adapter.tensors_from(shared).into_iter().chain(self.head.tensors())
    }

    /// As [`Member::tensors`], to write to.
    pub(crate) fn tensors_mut(&mut self, shared: usize) -> impl Iterator<Item = &mut Vec<f32>> {
        self.adapter.tensors_from_mut(shared).into_iter().chain(self.head.tensors_mut())
    }
}

/// What a card says of an ensemble. Since format 10.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ensemble {
    /// Its members, in the order of the file.
    pub members: Vec<MemberRecord>,
    /// Multiplications and additions of an image in parts of a member's alone, see [`VitConfig::ensemble_cost`].
    pub cost: f64,
    /// First blocks whose updates are the same in every member, and in the file once: those of one plug-in, of the training split, that all
    /// members were trained on top of; none where each was trained from nothing. Since format 11.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<usize>,
}

/// Where a member of an ensemble comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberRecord {
    /// Images that it was trained on.
    pub train_images: usize,
    /// Images of its fold: it was validated on them, and the others were trained on them.
    pub val_images: usize,
    /// SHA-256 of which images are in which split, its fold being the validation split.
    pub split_digest: String,
    /// Figures of its best epoch on its fold by name, such as `val_auc_macro`.
    pub metrics: BTreeMap<String, f64>,
}

impl Ensemble {
    /// How many members there may be.
    pub const MEMBERS: RangeInclusive<usize> = 2..=20;

    /// Checks what it says.
    ///
    /// # Errors
    /// [`Invalid`] for the first field that is wrong.
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        let wrong = |reason: String| Err(Invalid::new("ensemble", format!("ensemble: {reason}")));
        if !Self::MEMBERS.contains(&self.members.len()) {
            let (least, most) = (Self::MEMBERS.start(), Self::MEMBERS.end());
            return wrong(format!("{} members, expected {least} to {most}", self.members.len()));
        }
        if !(self.cost.is_finite() && self.cost >= 1.0) {
            return wrong(format!("cost {} is not a number of 1 or more", self.cost));
        }
        let metrics = self.members.iter().flat_map(|member| &member.metrics);
        match metrics.into_iter().find(|(_, value)| !value.is_finite()) {
            Some((name, value)) => wrong(format!("metric `{name}` is {value}, which JSON cannot hold")),
            None => Ok(()),
        }
    }
}

impl TaskCard {
    /// The card of a member of an ensemble, 0 the first, as a plug-in of its own; none where there is no such member. Temperature, thresholds
    /// and sets are the ensemble's, fitted on what all members say out of their folds, and so is the scope; figures are those of its fold, none of the test split.
    pub fn of_member(&self, member: usize) -> Option<TaskCard> {
        let ensemble = self.ensemble.as_ref()?;
        let MemberRecord { train_images, split_digest, metrics, .. } = ensemble.members.get(member)?.clone();
        let classes = self.classes.len();
        let part = |logits: &Vec<f32>| logits[member * classes..(member + 1) * classes].to_vec();
        let mut card = TaskCard {
            ensemble: None,
            metrics,
            metric_intervals: BTreeMap::new(),
            test: None,
            calibrations: Vec::new(),
            provenance: Provenance {
                train_images,
                train_images_of: Vec::new(),
                split_digest,
                ..self.provenance.clone()
            },
            ..self.clone()
        };
        card.self_test = self.self_test.as_ref().map(|test| {
            let of = SelfTest {
                logits: test.logits.each_ref().map(part),
                bare_logits: test.bare_logits.each_ref().map(part),
                ..test.clone()
            };
            let TaskCard { temperature, thresholds, sets, scope_limits, .. } = &card;
            let (sets, scope_limits) = (sets.as_ref(), scope_limits.as_ref());
            of.read_by(&card, ReadBy { temperature: *temperature, thresholds, sets, scope_limits })
        });
        card.format = card.format_written();
        Some(card)
    }
}

impl VitConfig {
    /// Multiplications and additions of one image under `members` plug-ins that differ from block `first` on, in parts of those under
    /// one: blocks before are computed once, and with token pooling the last block's are those of its keys and values, nearly.
    pub fn ensemble_cost(&self, size: usize, first: usize, members: usize) -> f64 {
        let shared = self.flops_before(size, first.min(self.depth)) as f64;
        let all = self.flops_before(size, self.depth) as f64;
        (shared + members as f64 * (all - shared)) / all
    }
}

/// Logits `[c]` whose answer is the mean of those of logits `[k, c]`, in f64 inside; of one member its own.
///
/// # Panics
/// If the logits are not whole rows.
pub fn mean_logits(kind: TaskKind, temperature: f32, logits: &[f32], classes: usize) -> Vec<f32> {
    assert!(!logits.is_empty() && logits.len().is_multiple_of(classes), "logits of another task");
    let members = logits.len() / classes;
    if members == 1 {
        return logits.to_vec();
    }
    let t = f64::from(temperature);
    let of = |class: usize, term: &dyn Fn(&[f32], f64) -> f64| -> Vec<f64> {
        logits.chunks_exact(classes).map(|row| term(row, f64::from(row[class]) / t)).collect()
    };
    let mean = |class: usize| match kind {
        TaskKind::SingleLabel | TaskKind::Ordinal => {
            let log_softmax = |row: &[f32], z: f64| {
                let all: Vec<f64> = row.iter().map(|&z| f64::from(z) / t).collect();
                z - log_sum_exp(&all)
            };
            t * (log_sum_exp(&of(class, &log_softmax)) - (members as f64).ln())
        }
        TaskKind::MultiLabel => {
            let log_sigmoid = |z: f64| -log_sum_exp(&[0.0, -z]);
            let [present, absent] = [1.0, -1.0].map(|sign| log_sum_exp(&of(class, &|_, z| log_sigmoid(sign * z))));
            t * (present - absent)
        }
        TaskKind::Regression | TaskKind::Segmentation => {
            of(class, &|_, z| z * t).into_iter().sum::<f64>() / members as f64
        }
    };
    (0..classes).map(|class| mean(class) as f32).collect()
}

/// The standard deviation of what each of several members says, `[c]`, of logits `[k, c]`: of probabilities, or of numbers. Nothing of one.
pub(crate) fn spread(kind: TaskKind, temperature: f32, logits: &[f32], classes: usize) -> Vec<f32> {
    let members = logits.len() / classes;
    if members < 2 {
        return Vec::new();
    }
    let mut said: Vec<f32> = logits.iter().map(|z| z / temperature).collect();
    said.chunks_exact_mut(classes).for_each(|row| kind.probabilities(row));
    let deviation = |class: usize| {
        let of = || said.iter().skip(class).step_by(classes).map(|&p| f64::from(p));
        let mean = of().sum::<f64>() / members as f64;
        (of().map(|p| (p - mean).powi(2)).sum::<f64>() / (members - 1) as f64).sqrt() as f32
    };
    (0..classes).map(deviation).collect()
}

/// `ln Σ exp x`, of finite numbers, without overflow.
fn log_sum_exp(x: &[f64]) -> f64 {
    let top = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    top + x.iter().map(|x| (x - top).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Description;

    fn probabilities(kind: TaskKind, temperature: f32, logits: &[f32]) -> Vec<f32> {
        let mut values: Vec<f32> = logits.iter().map(|z| z / temperature).collect();
        kind.probabilities(&mut values);
        values
    }

    #[test]
    fn the_answer_is_the_mean_of_calibrated_probabilities() {
        let logits = [1.0, -2.0, 0.5, 3.0, 0.25, -90.0, -1.5, 2.0, 40.0];
        for kind in [TaskKind::SingleLabel, TaskKind::MultiLabel, TaskKind::Ordinal, TaskKind::Regression] {
            let temperature = if kind == TaskKind::Regression { 1.0 } else { 1.75 };
            let mut expected = [0.0; 3];
            for row in logits.chunks_exact(3) {
                let of_member = probabilities(kind, temperature, row);
                expected.iter_mut().zip(of_member).for_each(|(mean, p)| *mean += f64::from(p) / 3.0);
            }
            let found = probabilities(kind, temperature, &mean_logits(kind, temperature, &logits, 3));
            for (found, expected) in found.iter().zip(expected) {
                assert!((f64::from(*found) - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{kind:?}: {found}");
            }
        }
    }

    #[test]
    fn one_member_is_its_own_answer() {
        let logits = [0.1, -3.7, 1e-8];
        assert_eq!(mean_logits(TaskKind::SingleLabel, 2.5, &logits, 3), logits);
        assert!(spread(TaskKind::SingleLabel, 2.5, &logits, 3).is_empty());
    }

    #[test]
    fn spread_is_the_standard_deviation_over_members() {
        let numbers = [1.0, 10.0, 2.0, 10.0, 6.0, 10.0];
        assert_eq!(spread(TaskKind::Regression, 1.0, &numbers, 2), [7.0f32.sqrt(), 0.0]);
        let [near, far] = [0.9f32, 0.1].map(|p| (p / (1.0 - p)).ln());
        let found = spread(TaskKind::MultiLabel, 1.0, &[near, far], 1);
        assert!((found[0] - 0.32f32.sqrt()).abs() < 1e-6, "{found:?}");
    }

    #[test]
    fn members_that_adapt_late_cost_little_more_than_one() {
        let config = Description::named("vit_base_patch16_224").unwrap().config;
        let cost = |first| config.ensemble_cost(224, first, 5);
        assert!((cost(0) - 5.0).abs() < 0.05 && cost(12) == 1.0, "{} {}", cost(0), cost(12));
        assert!(cost(11) > 1.0 && cost(11) < 1.1 && cost(10) > 1.3 && cost(10) < 1.5, "{} {}", cost(11), cost(10));
        assert_eq!(config.ensemble_cost(224, 10, 1), 1.0);
    }
}
