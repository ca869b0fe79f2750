//! Sums over tasks.

use super::samples::{ArmSamples, Samples};
use crate::results::{Arm, TaskResults, Total, Verdict};
use crate::run::Study;
use melo_eval::{ClusteredAuc, ClusteredShare};

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
            let auc = ClusteredAuc::mean(of_tasks.iter().map(|samples| samples.auc.clone()));
            let acc = ClusteredShare::mean(of_tasks.iter().map(|samples| samples.acc.clone()));
            let whole = |defined: usize| defined == tasks.len();
            let (aucs, accs) = (arms.iter().filter_map(|arm| arm.auc), arms.iter().filter_map(|arm| arm.acc));
            totals.push(Total {
                backbone: backbone_name.clone(),
                method: method_name.clone(),
                tasks: arms.len(),
                auc: auc.filter(|_| whole(aucs.count())).map(|auc| auc.estimate(plan.level)),
                acc: acc.filter(|_| whole(accs.count())).map(|acc| acc.estimate(plan.level)),
                storage_bytes: shared + stored,
                non_inferior_tasks: (*method_name != plan.reference).then_some(good),
            });
        }
    }
    totals
}
