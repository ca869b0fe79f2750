//! Variants of the main method: which one the validation split would choose, and whether that closes the gap.

use melo_report::Element;

use super::comparison::badge;
use super::part::{Part, note, paragraph};
use super::table::{Table, estimate, figure, figure_with, name, name_of_series};
use super::view::{arm, backbones, comparison, main_method, series, task_on_backbone, variants};
use super::words::{NOTHING, count, number, signed, signed_interval};
use crate::{Arm, Comparison, Results, TaskResults};

pub(super) fn part(results: &Results) -> Option<Part> {
    let main = main_method(results)?;
    let variants = variants(results);
    if variants.is_empty() {
        return None;
    }
    let methods: Vec<_> = results
        .methods
        .iter()
        .map(|method| &*method.name)
        .filter(|name| *name == main || variants.contains(name))
        .collect();
    let mut content = vec![validation(results, &methods)?];
    content.extend(gaps(results, main, &methods));
    Some(Part { id: "variants", heading: "Variants and the gap", content })
}

/// The arm that the validation split would choose.
fn chosen<'a>(task: &'a TaskResults, methods: &[&str], backbone: &str) -> Option<&'a Arm> {
    let of_methods = methods.iter().filter_map(|method| arm(task, method, backbone));
    of_methods
        .filter(|arm| arm.val_auc.is_finite())
        .reduce(|best, arm| if arm.val_auc > best.val_auc { arm } else { best })
}

fn validation(results: &Results, methods: &[&str]) -> Option<Element> {
    let columns: Vec<_> = std::iter::once("task").chain(methods.iter().copied()).collect();
    let mut table = Table::new("Validation macro AUC, the best in bold", &columns);
    for task in &results.tasks {
        for backbone in backbones(results) {
            let Some(best) = chosen(task, methods, backbone) else { continue };
            let cell = |method: &&str| {
                let found = arm(task, method, backbone);
                let cell = figure(found.map_or(NOTHING.to_owned(), |arm| number(arm.val_auc, 3)));
                if *method == best.method {
                    let value = Element::new("b").text(number(best.val_auc, 3));
                    Element::new("td").class("num").child(value)
                } else {
                    cell
                }
            };
            table.row(name(&task_on_backbone(results, task, backbone)), methods.iter().map(cell));
        }
    }
    table.draw()
}

/// Tasks on which the main method is not shown to be non-inferior, with all its variants.
fn gaps(results: &Results, main: &str, methods: &[&str]) -> Vec<Element> {
    let study = &results.study;
    let caption = format!("Tasks on which {main} is not shown to be non-inferior to {}", study.reference);
    let difference = format!("AUC − {}", study.reference);
    let mut table =
        Table::new(&caption, &["method", "trained parameters", "validation AUC", "test AUC", &difference, "verdict"]);
    let (mut gaps, mut closed) = (0, Vec::new());
    for task in &results.tasks {
        for backbone in backbones(results) {
            let open = comparison(task, main, backbone).is_some_and(|found| !found.verdict.is_non_inferior());
            let Some(best) = chosen(task, methods, backbone).filter(|_| open) else { continue };
            gaps += 1;
            let name = task_on_backbone(results, task, backbone);
            table.group(&name);
            for method in methods {
                let Some(arm) = arm(task, method, backbone) else { continue };
                let found = comparison(task, method, backbone);
                table.row(name_of_series(method, series(results, method)), row(arm, found, arm == best));
            }
            if comparison(task, &best.method, backbone).is_some_and(|found| found.verdict.is_non_inferior()) {
                closed.push(format!("{name} ({})", best.method));
            }
        }
    }
    let Some(table) = table.draw() else { return Vec::new() };
    let answer = match closed.len() {
        0 => format!("Choosing among the variants by validation AUC closes the gap on none of {gaps}."),
        n => format!(
            "Choosing among the variants by validation AUC closes the gap on {n} of {gaps}: {}.",
            closed.join(", ")
        ),
    };
    let text = "The choice sees the validation split alone; test figures of the variants that were not chosen are no ground for \
                choosing them.";
    vec![paragraph(answer), table, note(text)]
}

fn row(arm: &Arm, found: Option<&Comparison>, best: bool) -> [Element; 5] {
    let validation = number(arm.val_auc, 3);
    [
        figure(count(arm.cost.trainable_parameters as u64)),
        if best { figure_with(validation, "chosen") } else { figure(validation) },
        estimate(arm.auc.as_ref(), None),
        found.map_or_else(
            || figure(NOTHING),
            |found| figure_with(signed(found.difference.value), signed_interval(&found.difference)),
        ),
        found.map_or_else(|| figure(NOTHING), |found| Element::new("td").class("num").child(badge(found.verdict))),
    ]
}
