//! Questions that several parts of the report ask of the results.

use crate::{Arm, BackboneInfo, Comparison, Results, TaskResults, Verdict};

/// Methods overlaid in one chart at the most: more cannot be told apart.
pub(super) const MOST_OVERLAID: usize = 4;

/// The method that the report is about: `lora` if there is one, or else the first that is neither the reference nor a
/// linear probe, or else the first besides the reference.
pub(super) fn main_method(results: &Results) -> Option<&str> {
    let others = || others(results);
    others()
        .find(|name| *name == "lora")
        .or_else(|| others().find(|name| !name.starts_with("linear")))
        .or_else(|| others().next())
}

/// Every method but the reference, in the study's order.
pub(super) fn others(results: &Results) -> impl Iterator<Item = &str> {
    let reference = results.study.reference.as_str();
    results.methods.iter().map(|method| method.name.as_str()).filter(move |name| *name != reference)
}

/// The methods that are neither the reference, nor the main one, nor a linear probe: variants that try to do better.
pub(super) fn variants(results: &Results) -> Vec<&str> {
    let main = main_method(results);
    others(results).filter(|name| Some(*name) != main && !name.starts_with("linear")).collect()
}

/// Place of `method` in the study's order: its colour and marker in every chart.
pub(super) fn series(results: &Results, method: &str) -> usize {
    results.methods.iter().position(|known| known.name == method).unwrap_or(results.methods.len())
}

/// `lora`, or `lora · vit_b` where there are several backbones.
pub(super) fn on_backbone(results: &Results, method: &str, backbone: &str) -> String {
    if several_backbones(results) { format!("{method} · {backbone}") } else { method.to_owned() }
}

/// `fundus`, or `fundus · vit_b` where there are several backbones.
pub(super) fn task_on_backbone(results: &Results, task: &TaskResults, backbone: &str) -> String {
    on_backbone(results, &task.name, backbone)
}

pub(super) fn several_backbones(results: &Results) -> bool {
    results.backbones.len() > 1
}

/// Arms of a task that saw all training data, or the largest share that any arm of the task saw.
pub(super) fn full_arms(task: &TaskResults) -> impl Iterator<Item = &Arm> {
    let most = task.arms.iter().map(|arm| arm.data_fraction).fold(0.0, f64::max);
    task.arms.iter().filter(move |arm| arm.data_fraction == most)
}

/// The arms of `backbone` among [`full_arms`], in the study's order of methods.
pub(super) fn arms_on<'a>(results: &Results, task: &'a TaskResults, backbone: &str) -> Vec<&'a Arm> {
    let mut arms: Vec<_> = full_arms(task).filter(|arm| arm.backbone == backbone).collect();
    arms.sort_by_key(|arm| series(results, &arm.method));
    arms
}

/// At most [`MOST_OVERLAID`] of `arms`: the main method, the reference, and then the others in order.
pub(super) fn overlaid<'a>(results: &Results, arms: &[&'a Arm]) -> Vec<&'a Arm> {
    let main = main_method(results);
    let rank = |arm: &Arm| usize::from(Some(arm.method.as_str()) != main && arm.method != results.study.reference);
    let mut chosen: Vec<_> = arms.to_vec();
    chosen.sort_by_key(|arm| rank(arm));
    chosen.truncate(MOST_OVERLAID);
    chosen.sort_by_key(|arm| series(results, &arm.method));
    chosen
}

/// The arm of `method` on `backbone` among [`full_arms`].
pub(super) fn arm<'a>(task: &'a TaskResults, method: &str, backbone: &str) -> Option<&'a Arm> {
    full_arms(task).find(|arm| arm.method == method && arm.backbone == backbone)
}

/// How `method` compares with the reference on `backbone`.
pub(super) fn comparison<'a>(task: &'a TaskResults, method: &str, backbone: &str) -> Option<&'a Comparison> {
    task.comparisons.iter().find(|found| found.method == method && found.backbone == backbone)
}

/// Names of the backbones.
pub(super) fn backbones(results: &Results) -> impl Iterator<Item = &str> {
    results.backbones.iter().map(|backbone: &BackboneInfo| backbone.name.as_str())
}

/// Tasks by verdict for one method on one backbone.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) superior: usize,
    pub(super) non_inferior: usize,
    pub(super) inconclusive: usize,
    pub(super) inferior: usize,
}

impl Tally {
    pub(super) fn of(results: &Results, method: &str, backbone: &str) -> Self {
        let mut tally = Self::default();
        for found in results.tasks.iter().filter_map(|task| comparison(task, method, backbone)) {
            match found.verdict {
                Verdict::Superior => tally.superior += 1,
                Verdict::NonInferior => tally.non_inferior += 1,
                Verdict::Inconclusive => tally.inconclusive += 1,
                Verdict::Inferior => tally.inferior += 1,
            }
        }
        tally
    }

    pub(super) fn sum(&self) -> usize {
        self.superior + self.non_inferior + self.inconclusive + self.inferior
    }

    /// Tasks on which the method is at least non-inferior.
    pub(super) fn passed(&self) -> usize {
        self.superior + self.non_inferior
    }

    /// `non-inferior to full (margin 0.02) on 5 of 7 tasks, superior on 2, inconclusive on 1`; superior tasks are among
    /// the non-inferior ones.
    pub(super) fn sentence(&self, reference: &str, margin: f64) -> String {
        let mut sentence =
            format!("non-inferior to {reference} (margin {margin}) on {} of {} tasks", self.passed(), self.sum());
        let rest = [
            (self.superior, "superior on", " of these"),
            (self.inconclusive, "inconclusive on", ""),
            (self.inferior, "inferior on", ""),
        ];
        for (tasks, word, after) in rest.into_iter().filter(|(tasks, ..)| *tasks > 0) {
            sentence.push_str(&format!(", {word} {tasks}{after}"));
        }
        sentence
    }
}

/// What the interval of the task alone would say, where Holm's correction over tasks does not let the verdict say so much.
pub(super) fn before_holm(results: &Results, found: &Comparison) -> Option<Verdict> {
    let alone = if found.difference.low > 0.0 {
        Verdict::Superior
    } else if found.difference.low > -results.study.margin {
        Verdict::NonInferior
    } else if found.difference.high < -results.study.margin {
        Verdict::Inferior
    } else {
        return None;
    };
    (alone != found.verdict).then_some(alone)
}

/// Whether the method is worse than the reference where the verdict, which asks for more than the margin, does not say so.
pub(super) fn is_worse(results: &Results, found: &Comparison) -> bool {
    let open = matches!(found.verdict, Verdict::Inconclusive | Verdict::NonInferior);
    open && found.difference.value < 0.0 && found.p_holm <= 1.0 - results.study.level
}
