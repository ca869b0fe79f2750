//! Sums over tasks.

use super::samples::{ArmSamples, Samples};
use crate::results::{Arm, Estimate, TaskResults, Total, Verdict};
use crate::run::Study;
use crate::scores::mean;
use melo_eval::percentile_interval;

/// One line a backbone and method that have a result on all tasks.
pub(super) fn totals(study: &Study, tasks: &[TaskResults], samples: &[ArmSamples]) -> Vec<Total> {
    let plan = &study.plan;
    let mut totals = Vec::new();
    for (backbone, facts) in study.backbones.iter().enumerate() {
        for (method, settings) in plan.methods.iter().enumerate() {
            let (backbone_name, method_name) = (&plan.backbones[backbone].name, &settings.name);
            let is_this =
                |arm: &&Arm| arm.data_fraction == 1.0 && arm.backbone == *backbone_name && arm.method == *method_name;
            let arms: Vec<&Arm> = tasks.iter().filter_map(|task| task.arms.iter().find(is_this)).collect();
            if arms.len() != tasks.len() {
                continue;
            }
            let stored: u64 = arms.iter().map(|arm| arm.cost.stored_bytes).sum();
            let shared = if settings.kind.trains_backbone() { 0 } else { 4 * facts.config().parameters() as u64 };
            let verdicts = tasks.iter().flat_map(|task| &task.comparisons);
            let verdicts = verdicts.filter(|c| c.backbone == *backbone_name && c.method == *method_name);
            let good = verdicts.filter(|c| matches!(c.verdict, Verdict::NonInferior | Verdict::Superior)).count();
            let of_tasks: Vec<&Samples> =
                samples.iter().filter_map(|samples| samples.get(&(backbone, method))).collect();
            let over_tasks = |value: fn(&Arm) -> Option<Estimate>, drawn: fn(&Samples) -> &Vec<f64>| {
                let drawn: Vec<&Vec<f64>> = of_tasks.iter().map(|samples| drawn(samples)).collect();
                mean_estimate(arms.iter().map(|arm| value(arm)), &drawn, plan.level)
            };
            totals.push(Total {
                backbone: backbone_name.clone(),
                method: method_name.clone(),
                tasks: arms.len(),
                auc: over_tasks(|arm| arm.auc, |samples| &samples.auc),
                acc: over_tasks(|arm| arm.acc, |samples| &samples.acc),
                storage_bytes: shared + stored,
                non_inferior_tasks: (*method_name != plan.reference).then_some(good),
            });
        }
    }
    totals
}

/// Mean over tasks; the patients of each task are drawn independently of the others'.
fn mean_estimate(
    estimates: impl Iterator<Item = Option<Estimate>>,
    samples: &[&Vec<f64>],
    level: f64,
) -> Option<Estimate> {
    let values: Vec<f64> = estimates.map(|estimate| Some(estimate?.value)).collect::<Option<_>>()?;
    let replicates = samples.iter().map(|samples| samples.len()).min().unwrap_or(0);
    if replicates == 0 || samples.len() != values.len() {
        return None;
    }
    let mut means: Vec<f64> =
        (0..replicates).map(|replicate| mean(samples.iter().map(|samples| samples[replicate]))).collect();
    let (low, high) = percentile_interval(&mut means, level);
    Some(Estimate { value: mean(values.into_iter()), low, high })
}
