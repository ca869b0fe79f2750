//! Every method against the reference: paired differences, verdicts, correction over tasks.

use super::arm::ArmCells;
use super::samples::ArmSamples;
use crate::plan::Plan;
use crate::results::{Arm, Comparison, Estimate, TaskResults, Verdict};
use melo_eval::{bootstrap_p_inferior, bootstrap_p_zero, holm, percentile_interval};

/// Comparisons of one task, not yet corrected.
pub(super) fn comparisons(plan: &Plan, cells: &[ArmCells<'_>], arms: &[Arm], samples: &ArmSamples) -> Vec<Comparison> {
    let Some(reference) = plan.methods.iter().position(|method| method.name == plan.reference) else {
        return Vec::new();
    };
    let find = |key: (usize, usize)| {
        let index = cells.iter().position(|arm| arm.whole_data_key() == Some(key))?;
        Some((&cells[index], arms[index].auc?, &samples.get(&key)?.auc))
    };
    let mut found = Vec::new();
    for &(backbone, method) in samples.keys().filter(|(_, method)| *method != reference) {
        let (Some((other, other_auc, other_samples)), Some((base, base_auc, base_samples))) =
            (find((backbone, method)), find((backbone, reference)))
        else {
            continue;
        };
        // Arms of unequal cells (a study cut short) or undefined draws cannot be paired.
        if other_samples.len() != base_samples.len() || other.cells.len() != base.cells.len() {
            continue;
        }
        let differences: Vec<f64> = other_samples.iter().zip(base_samples).map(|(a, b)| a - b).collect();
        let (low, high) = percentile_interval(&mut differences.clone(), plan.level);
        let difference = Estimate { value: other_auc.value - base_auc.value, low, high };
        let p_delong = other
            .binary_scores()
            .zip(base.binary_scores())
            .and_then(|((a, truth), (b, _))| Some(melo_eval::delong_paired(&a, &b, &truth, plan.level)?.p));
        let p = bootstrap_p_zero(&differences);
        let p_inferior = bootstrap_p_inferior(&differences, plan.margin);
        found.push(Comparison {
            backbone: plan.backbones[backbone].name.clone(),
            method: plan.methods[method].name.clone(),
            reference: plan.reference.clone(),
            verdict: verdict(difference, plan.margin),
            difference,
            p,
            p_holm: p,
            p_delong,
            p_inferior,
            p_inferior_holm: p_inferior,
        });
    }
    found
}

fn verdict(difference: Estimate, margin: f64) -> Verdict {
    if difference.low > 0.0 {
        Verdict::Superior
    } else if difference.low > -margin {
        Verdict::NonInferior
    } else if difference.high < -margin {
        Verdict::Inferior
    } else {
        Verdict::Inconclusive
    }
}

/// Holm's correction over tasks, for each backbone and method.
pub(super) fn correct(tasks: &mut [TaskResults]) {
    let key = |comparison: &Comparison| (comparison.backbone.clone(), comparison.method.clone());
    let mut keys: Vec<_> = tasks.iter().flat_map(|task| task.comparisons.iter().map(key)).collect();
    keys.sort();
    keys.dedup();
    for wanted in keys {
        let mut family: Vec<&mut Comparison> =
            tasks.iter_mut().flat_map(|task| &mut task.comparisons).filter(|found| key(found) == wanted).collect();
        let of = |p: fn(&Comparison) -> f64| holm(&family.iter().map(|found| p(found)).collect::<Vec<_>>());
        let (two_sided, inferior) = (of(|found| found.p), of(|found| found.p_inferior));
        for ((found, p), p_inferior) in family.iter_mut().zip(two_sided).zip(inferior) {
            (found.p_holm, found.p_inferior_holm) = (p, p_inferior);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_reads_the_interval_against_margin_and_zero() {
        let of = |low: f64, high: f64| verdict(Estimate { value: (low + high) / 2.0, low, high }, 0.02);
        assert_eq!(of(0.001, 0.05), Verdict::Superior);
        assert_eq!(of(-0.019, 0.05), Verdict::NonInferior);
        assert_eq!(of(-0.02, 0.05), Verdict::Inconclusive);
        assert_eq!(of(-0.05, -0.01), Verdict::Inconclusive);
        assert_eq!(of(-0.05, -0.021), Verdict::Inferior);
    }
}
