//! Sums over tasks.

use super::samples::ArmSamples;
use crate::results::{Arm, TaskResults, Total, Verdict};
use crate::run::Study;
use melo_eval::{ClusteredAuc, ClusteredShare};

/// One line a backbone and method that have a result on all tasks.
pub(super) fn totals(study: &Study, tasks: &[TaskResults], samples: &[ArmSamples]) -> Vec<Total> {
    let plan = &study.plan;
    let mut totals = Vec::new();
    let reference = plan.methods.iter().position(|method| method.name == plan.reference);
    for (backbone, facts) in study.backbones.iter().enumerate() {
        let reference_auc = reference.and_then(|reference| mean_auc(samples, (backbone, reference)));
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
            let auc = mean_auc(samples, (backbone, method));
            let of_tasks = samples.iter().filter_map(|samples| samples.get(&(backbone, method)));
            let acc = ClusteredShare::mean(of_tasks.map(|samples| samples.acc.clone()));
            let accs = arms.iter().filter_map(|arm| arm.acc).count();
            totals.push(Total {
                backbone: backbone_name.clone(),
                method: method_name.clone(),
                tasks: arms.len(),
                auc: auc.as_ref().map(|auc| auc.estimate(plan.level)),
                auc_difference: auc
                    .zip(reference_auc.as_ref())
                    .filter(|_| reference != Some(method))
                    .map(|(auc, of_reference)| auc.difference(of_reference, plan.level)),
                acc: acc.filter(|_| accs == tasks.len()).map(|acc| acc.estimate(plan.level)),
                storage_bytes: shared + stored,
                non_inferior_tasks: (*method_name != plan.reference).then_some(good),
            });
        }
    }
    totals
}

/// The mean over tasks; none where a task has none.
fn mean_auc(samples: &[ArmSamples], of: (usize, usize)) -> Option<ClusteredAuc> {
    let of_tasks: Option<Vec<ClusteredAuc>> = samples.iter().map(|samples| samples.get(&of)?.auc.clone()).collect();
    ClusteredAuc::mean(of_tasks?.into_iter().map(Some))
}
