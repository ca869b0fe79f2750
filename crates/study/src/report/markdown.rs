//! The main tables as Markdown, for a paper or an issue.

use melo_report::markdown::{escaped, row};
use melo_vit::INTENDED_USE;

use super::comparison::{collapse_sentences, few_sentences};
use super::costs::of_methods;
use super::headline::{answer, compared, unfinished_sentence};
use super::method::sentences;
use super::view::{arms_on, backbones, before_holm, comparison, is_worse, on_backbone};
use super::words::{NOTHING, estimate, level, number, p_value, signed_estimate};
use crate::{Comparison, Results};

/// The report as Markdown: the answer, the main comparison with intervals and verdicts, the tests, the costs, and how the
/// figures were made. Tables are of GitHub's kind.
pub fn markdown(results: &Results) -> String {
    let study = &results.study;
    let mut out = format!("# {}\n\n{}\n", escaped(&study.name), escaped(&compared(results)));
    let sentences_of = answer(results).into_iter().chain(unfinished_sentence(results));
    for sentence in sentences_of {
        out.push_str(&format!("\n{}\n", escaped(&sentence)));
    }
    for failure in &study.failures {
        out.push_str(&format!("\n- {}: {}", escaped(&failure.cell), escaped(&failure.reason)));
    }
    if !study.failures.is_empty() {
        out.push('\n');
    }
    section(&mut out, "Comparison", &comparisons(results));
    let note = format!(
        "Test figures with {} intervals, each of its task alone. Verdicts are against the margin of {} and go by p values after \
         Holm's correction over tasks. p is of no difference: where it is small and the verdict open, the method is worse, by the margin \
         or not. † The task's interval alone would say more.",
        level(study.level),
        study.margin
    );
    out.push_str(&format!("\n{}\n", escaped(&note)));
    for sentence in collapse_sentences(results).into_iter().chain(few_sentences(results)) {
        out.push_str(&format!("\n{}\n", escaped(&sentence)));
    }
    section(&mut out, "Mean over tasks", &means(results));
    section(&mut out, "Tests", &tests(results));
    section(&mut out, "At the decisions", &decisions(results));
    section(&mut out, "Costs", &costs(results));
    out.push_str("\n## How this was made\n");
    for sentence in sentences(results) {
        out.push_str(&format!("\n{}\n", escaped(&sentence)));
    }
    let settings = results.study.settings.iter().map(|(setting, value)| vec![setting.clone(), value.clone()]);
    section(
        &mut out,
        "Settings of the trainings",
        &[headed(&["setting", "value"])].into_iter().chain(settings).collect::<Vec<_>>(),
    );
    if !results.study.date.is_empty() {
        out.push_str(&format!("\n{}, {}\n", escaped(&results.study.date), escaped(&results.study.software)));
    }
    out.push_str(&format!("\n{INTENDED_USE}\n"));
    out
}

fn section(out: &mut String, heading: &str, rows: &[Vec<String>]) {
    let [head, body @ ..] = rows else { return };
    if body.is_empty() {
        return;
    }
    out.push_str(&format!("\n## {heading}\n\n"));
    push_row(out, head);
    out.push_str(&format!("|{}\n", "---|".repeat(head.len())));
    body.iter().for_each(|cells| push_row(out, cells));
}

fn push_row(out: &mut String, cells: &[String]) {
    out.push_str(&row(&cells.iter().map(|cell| escaped(cell)).collect::<Vec<_>>()));
}

fn headed(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

pub(super) fn comparisons(results: &Results) -> Vec<Vec<String>> {
    let reference = &results.study.reference;
    let mut rows =
        vec![headed(&["task", "method", "AUC", "accuracy", &format!("AUC − {reference}"), "p (Holm)", "verdict"])];
    for task in &results.tasks {
        for backbone in backbones(results) {
            for arm in arms_on(results, task, backbone) {
                let found = comparison(task, &arm.method, backbone);
                let of = |show: &dyn Fn(&Comparison) -> String| found.map_or(NOTHING.to_owned(), show);
                let verdict = |found: &Comparison| {
                    let worse = if is_worse(results, found) { " (worse)" } else { "" };
                    let alone = if before_holm(results, found).is_some() { " †" } else { "" };
                    format!("{}{worse}{alone}", found.verdict.word())
                };
                rows.push(vec![
                    task.name.clone(),
                    on_backbone(results, &arm.method, backbone),
                    estimate(arm.auc.as_ref()),
                    estimate(arm.acc.as_ref()),
                    of(&|found| signed_estimate(&found.difference)),
                    of(&|found| p_value(found.p_holm)),
                    if arm.method == *reference { "reference".into() } else { of(&verdict) },
                ]);
            }
        }
    }
    rows
}

/// Figures at the plug-ins' decisions, which an AUC does not show.
fn decisions(results: &Results) -> Vec<Vec<String>> {
    let mut rows = vec![headed(&["task", "method", "accuracy", "balanced accuracy", "macro F1"])];
    for task in &results.tasks {
        for backbone in backbones(results) {
            for arm in arms_on(results, task, backbone).into_iter().filter(|arm| arm.balanced_acc.is_some()) {
                rows.push(vec![
                    task.name.clone(),
                    on_backbone(results, &arm.method, backbone),
                    estimate(arm.acc.as_ref()),
                    estimate(arm.balanced_acc.as_ref()),
                    arm.f1_macro.map_or(NOTHING.to_owned(), |f1| number(f1, 3)),
                ]);
            }
        }
    }
    rows
}

fn means(results: &Results) -> Vec<Vec<String>> {
    let against = format!("AUC − {}", results.study.reference);
    let mut rows = vec![headed(&["method", "tasks", "AUC", &against, "accuracy", "non-inferior on"])];
    for total in results.totals.iter().filter(|total| total.tasks > 0) {
        rows.push(vec![
            on_backbone(results, &total.method, &total.backbone),
            total.tasks.to_string(),
            estimate(total.auc.as_ref()),
            total.auc_difference.as_ref().map_or(NOTHING.to_owned(), signed_estimate),
            estimate(total.acc.as_ref()),
            total.non_inferior_tasks.map_or(NOTHING.to_owned(), |tasks| tasks.to_string()),
        ]);
    }
    rows
}

fn tests(results: &Results) -> Vec<Vec<String>> {
    let heads = ["task", "method", "p", "p (Holm)", "p (DeLong)", "p inferior", "p inferior (Holm)"];
    let mut rows = vec![headed(&heads)];
    for task in &results.tasks {
        for found in &task.comparisons {
            rows.push(vec![
                task.name.clone(),
                on_backbone(results, &found.method, &found.backbone),
                p_value(found.p),
                p_value(found.p_holm),
                found.p_delong.map_or(NOTHING.to_owned(), p_value),
                p_value(found.p_inferior),
                p_value(found.p_inferior_holm),
            ]);
        }
    }
    rows
}

fn costs(results: &Results) -> Vec<Vec<String>> {
    let heads =
        ["method", "trained parameters", "%", "stored a task", "stored, all tasks", "peak memory", "s/epoch", "epochs"];
    let mut rows = vec![headed(&heads)];
    rows.extend(of_methods(results).iter().map(|method| {
        vec![
            method.name.clone(),
            method.parameters(),
            method.percent(),
            method.stored(),
            method.all_tasks(),
            method.memory(),
            method.epoch_seconds(),
            method.epochs(),
        ]
    }));
    rows
}
