//! Every method against the reference: paired differences, correction over tasks, verdicts.

use super::arm::ArmCells;
use super::samples::{ArmSamples, Samples};
use crate::plan::Plan;
use crate::results::{Arm, Comparison, TaskResults, Verdict};
use melo_eval::{ClusteredAuc, PairedDifference, holm};

/// Comparisons of one task, not yet corrected.
pub(super) fn comparisons(plan: &Plan, cells: &[ArmCells<'_>], arms: &[Arm], samples: &ArmSamples) -> Vec<Comparison> {
    let Some(reference) = plan.methods.iter().position(|method| method.name == plan.reference) else {
        return Vec::new();
    };
    let find = |key: (usize, usize)| {
        let index = cells.iter().position(|arm| arm.whole_data_key() == Some(key))?;
        Some((&cells[index], arms[index].auc?, samples.get(&key)?))
    };
    let mut found = Vec::new();
    for &(backbone, method) in samples.keys().filter(|(_, method)| *method != reference) {
        let (Some((other, other_auc, other_samples)), Some((base, base_auc, base_samples))) =
            (find((backbone, method)), find((backbone, reference)))
        else {
            continue;
        };
        // Arms of unequal cells (a study cut short) or undefined draws cannot be paired.
        let (a, b) = (&other_samples.drawn, &base_samples.drawn);
        if a.len() != b.len() || a.is_empty() || other.cells.len() != base.cells.len() {
            continue;
        }
        let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
        // The same answers differ by nothing, here and elsewhere.
        let unseen = |samples: &Samples| samples.auc.as_ref().map_or(0.0, |auc| auc.unseen(plan.level));
        let unseen = if other.answers_as(base) { 0.0 } else { unseen(other_samples).max(unseen(base_samples)) };
        let value = other_auc.value - base_auc.value;
        let paired = PairedDifference::new(value, &differences, unseen, plan.margin, plan.level);
        let delong = |(a, b): (ClusteredAuc, ClusteredAuc)| a.p_of_difference(&b);
        found.push(Comparison {
            backbone: plan.backbones[backbone].name.clone(),
            method: plan.methods[method].name.clone(),
            reference: plan.reference.clone(),
            difference: paired.difference,
            p: paired.p,
            p_holm: paired.p,
            p_delong: other.binary_auc().zip(base.binary_auc()).and_then(delong),
            p_inferior: paired.p_inferior,
            p_inferior_holm: paired.p_inferior,
            p_worse_holm: paired.p_worse,
            verdict: Verdict::Inconclusive,
        });
    }
    found
}

/// What follows at `level` from the p values after correction: the interval of a single task says the same of it.
fn verdict(found: &Comparison, level: f64) -> Verdict {
    let alpha = 1.0 - level;
    if found.difference.value > 0.0 && found.p_holm <= alpha {
        Verdict::Superior
    } else if found.p_inferior_holm <= alpha / 2.0 {
        Verdict::NonInferior
    } else if found.p_worse_holm <= alpha / 2.0 {
        Verdict::Inferior
    } else {
        Verdict::Inconclusive
    }
}

/// Holm's correction over tasks, for each backbone and method, and the verdicts that follow.
pub(super) fn correct(tasks: &mut [TaskResults], level: f64) {
    let key = |comparison: &Comparison| (comparison.backbone.clone(), comparison.method.clone());
    let mut keys: Vec<_> = tasks.iter().flat_map(|task| task.comparisons.iter().map(key)).collect();
    keys.sort();
    keys.dedup();
    for wanted in keys {
        let mut family: Vec<&mut Comparison> =
            tasks.iter_mut().flat_map(|task| &mut task.comparisons).filter(|found| key(found) == wanted).collect();
        let of = |p: fn(&Comparison) -> f64| holm(&family.iter().map(|found| p(found)).collect::<Vec<_>>());
        let (two_sided, inferior) = (of(|found| found.p), of(|found| found.p_inferior));
        let worse = of(|found| found.p_worse_holm);
        for (((found, p), p_inferior), p_worse) in family.iter_mut().zip(two_sided).zip(inferior).zip(worse) {
            (found.p_holm, found.p_inferior_holm, found.p_worse_holm) = (p, p_inferior, p_worse);
            found.verdict = verdict(found, level);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use melo_eval::Estimate;

    /// A task with one comparison of these p values.
    fn task(value: f64, p: f64, p_inferior: f64, p_worse: f64) -> TaskResults {
        let found = Comparison {
            backbone: "vit".into(),
            method: "lora".into(),
            reference: "full".into(),
            difference: Estimate { value, low: value - 0.01, high: value + 0.01 },
            p,
            p_holm: p,
            p_delong: None,
            p_inferior,
            p_inferior_holm: p_inferior,
            p_worse_holm: p_worse,
            verdict: Verdict::Inconclusive,
        };
        TaskResults {
            name: "task".into(),
            multi_label: false,
            classes: Vec::new(),
            audit: crate::results::Audit::default(),
            arms: Vec::new(),
            comparisons: vec![found],
            examples: Vec::new(),
        }
    }

    fn verdicts(mut tasks: Vec<TaskResults>) -> Vec<Verdict> {
        correct(&mut tasks, 0.95);
        tasks.iter().map(|task| task.comparisons[0].verdict).collect()
    }

    #[test]
    fn a_verdict_follows_the_corrected_p_values() {
        assert_eq!(verdicts(vec![task(0.05, 0.04, 0.001, 0.999)]), [Verdict::Superior]);
        assert_eq!(verdicts(vec![task(0.01, 0.2, 0.02, 0.98)]), [Verdict::NonInferior]);
        assert_eq!(verdicts(vec![task(-0.03, 0.04, 0.7, 0.3)]), [Verdict::Inconclusive]);
        assert_eq!(verdicts(vec![task(-0.09, 0.001, 0.999, 0.002)]), [Verdict::Inferior]);
        // Four tasks: what holds alone does not hold among them.
        let of = |value, p, inferior, worse| {
            vec![
                task(value, p, inferior, worse),
                task(0.0, 1.0, 0.9, 0.9),
                task(0.0, 1.0, 0.9, 0.9),
                task(0.0, 1.0, 0.9, 0.9),
            ]
        };
        assert_eq!(verdicts(of(0.05, 0.04, 0.001, 0.999))[0], Verdict::NonInferior);
        assert_eq!(verdicts(of(0.01, 0.2, 0.02, 0.98))[0], Verdict::Inconclusive);
        assert_eq!(verdicts(of(-0.09, 0.001, 0.999, 0.02))[0], Verdict::Inconclusive);
        assert_eq!(verdicts(of(-0.09, 0.001, 0.999, 0.002))[0], Verdict::Inferior);
    }
}
