//! From finished cells to [`Results`].
//!
//! A figure of an arm is the mean over its cells. Its interval is by patient, as [`melo_eval::ClusteredAuc`] and
//! [`melo_eval::ClusteredShare`] say it and `melo eval` and the card give it. A difference to the reference has that of the
//! paired patient bootstrap: patients are drawn with replacement within strata and folds, the same draw for both. All of this
//! says how a figure would vary with other patients of the same kind, for these trainings; how it varies with the training is
//! seen in the seeds.

mod arm;
mod compare;
mod draws;
mod samples;
mod settings;
mod total;

use crate::audit::audit;
use crate::cell_result::CellResult;
use crate::error::Error;
use crate::examples::examples;
use crate::plan::{Cell, Plan};
use crate::results::{Arm, BackboneInfo, Comparison, MethodInfo, Results, StudyInfo, TaskResults};
use crate::run::{Finished, Study};
use crate::subgroup::{Group, subgroups};
use arm::ArmCells;
use draws::TaskDraws;
use melo_train::Answers;
use melo_vit::TaskKind;
use samples::ArmSamples;
use std::collections::BTreeMap;

/// Bytes of a number in f32.
const F32_BYTES: u64 = 4;

/// Statistics of everything that is finished; `machine` is said as it is.
///
/// # Errors
/// Why manifests, plug-ins or images cannot be read.
pub fn analyse(study: &Study, finished: Finished, machine: &str) -> Result<Results, Error> {
    let plan = &study.plan;
    let mut tasks = Vec::new();
    let mut samples = Vec::new();
    for task in 0..plan.tasks.len() {
        let cells: Vec<&(Cell, CellResult)> = finished.cells.iter().filter(|(cell, _)| cell.task == task).collect();
        let (results, of_task) = analyse_task(study, task, &cells)?;
        tasks.push(results);
        samples.push(of_task);
    }
    compare::correct(&mut tasks, plan.level);
    Ok(Results {
        study: StudyInfo {
            name: plan.name.clone(),
            software: melo_train::SOFTWARE.to_owned(),
            machine: machine.to_owned(),
            seeds: plan.seeds.clone(),
            folds: plan.folds,
            level: plan.level,
            replicates: plan.replicates,
            date: melo_train::today(),
            settings: settings::settings(study)?,
            reference: plan.reference.clone(),
            margin: plan.margin,
            cells: plan.cells().len(),
            cells_done: finished.cells.len(),
            failures: finished.failures,
        },
        methods: plan
            .methods
            .iter()
            .map(|method| MethodInfo { name: method.name.clone(), description: method.to_string() })
            .collect(),
        backbones: plan
            .backbones
            .iter()
            .zip(&study.backbones)
            .map(|(backbone, facts)| BackboneInfo {
                name: backbone.name.clone(),
                architecture: facts.name().to_owned(),
                digest: facts.digest().to_owned(),
                parameters: facts.config().parameters(),
                bytes: F32_BYTES * facts.config().parameters() as u64,
            })
            .collect(),
        totals: total::totals(study, &tasks, &samples),
        tasks,
    })
}

fn analyse_task(study: &Study, task: usize, cells: &[&(Cell, CellResult)]) -> Result<(TaskResults, ArmSamples), Error> {
    let plan = &study.plan;
    let any =
        Cell { task, backbone: 0, method: 0, data_fraction: 1.0, fold: plan.fold_numbers()[0], seed: plan.seeds[0] };
    let data = study.manifests.of(plan, &any)?;
    let manifest = &data.manifest;
    let mut results = TaskResults {
        name: plan.tasks[task].name.clone(),
        multi_label: manifest.kind == TaskKind::MultiLabel,
        classes: manifest.classes.clone(),
        audit: audit(manifest, &|_, _| ()),
        arms: Vec::new(),
        comparisons: Vec::new(),
        examples: Vec::new(),
    };
    if cells.is_empty() {
        return Ok((results, ArmSamples::new()));
    }
    let groups = subgroups(&plan.tasks[task], &tests(cells))?;
    let (arms, comparisons, samples) = arms(plan, task, cells, &groups)?;
    results.arms = arms;
    results.comparisons = comparisons;
    results.examples = examples(study, manifest, cells)?;
    Ok((results, samples))
}

/// The test answers of one cell of each fold: names, patients and labels are the same for all of them.
fn tests<'a>(cells: &[&'a (Cell, CellResult)]) -> BTreeMap<Option<usize>, &'a Answers> {
    let mut tests = BTreeMap::new();
    for (cell, result) in cells {
        tests.entry(cell.fold).or_insert(&result.test);
    }
    tests
}

/// The arms of a task, each against the reference, and their bootstrap samples.
fn arms(
    plan: &Plan,
    task: usize,
    cells: &[&(Cell, CellResult)],
    groups: &[Group],
) -> Result<(Vec<Arm>, Vec<Comparison>, ArmSamples), Error> {
    let draws = TaskDraws::new(plan, task, &tests(cells));
    let mut grouped: Vec<ArmCells<'_>> = Vec::new();
    for (cell, result) in cells {
        match grouped.iter_mut().find(|arm| arm.holds(cell)) {
            Some(arm) => arm.add(cell, result),
            None => grouped.push(ArmCells::new(cell, result)),
        }
    }
    grouped.sort_by(|a, b| a.place().partial_cmp(&b.place()).expect("shares are numbers"));
    let (mut arms, mut samples) = (Vec::new(), ArmSamples::new());
    for arm in &grouped {
        let (found, drawn) = arm.describe(plan, &draws, groups)?;
        arms.push(found);
        if let Some(key) = arm.whole_data_key() {
            samples.insert(key, drawn);
        }
    }
    let comparisons = compare::comparisons(plan, &grouped, &arms, &samples);
    Ok((arms, comparisons, samples))
}

#[cfg(test)]
#[path = "tests.rs"]
mod arm_tests;
