//! The pages of each task.

use melo_report::Element;

use super::comparison::{badge, line};
use super::legend::legend;
use super::part::{Part, note};
use super::table::{Table, difference, estimate, figure, name, name_of_series, remark};
use super::view::{arm, arms_on, backbones, comparison, main_method, overlaid, series, several_backbones};
use super::words::{count, list, number};
use super::{ARMS_CSV, curves, diagnostics, examples, words};
use crate::{Arm, ClassResults, Results, Subgroup, TaskResults};

pub(super) fn part(results: &Results) -> Option<Part> {
    let tasks: Vec<_> = results.tasks.iter().filter(|task| !task.arms.is_empty()).collect();
    let content: Vec<_> = tasks.iter().enumerate().map(|(i, task)| details(results, task, i == 0)).collect();
    (!content.is_empty()).then_some(Part { id: "tasks", heading: "Task by task", content })
}

/// One task: the first stands open, and on paper all do.
fn details(results: &Results, task: &TaskResults, open: bool) -> Element {
    let details = Element::new("details").class("task");
    let details = if open { details.with("open", "open") } else { details };
    let drawn = details.child(summary(results, task));
    let of_backbones = backbones(results).flat_map(|backbone| on_backbone(results, task, backbone));
    drawn.children(of_backbones).children(examples::block(task))
}

fn summary(results: &Results, task: &TaskResults) -> Element {
    let found = main_method(results).zip(backbones(results).next());
    let auc = found.and_then(|(method, backbone)| Some((method, arm(task, method, backbone)?.auc?)));
    let auc = auc.map(|(method, auc)| Element::new("small").text(format!("{method} {}", words::estimate(Some(&auc)))));
    let verdict = found.and_then(|(method, backbone)| comparison(task, method, backbone));
    Element::new("summary")
        .child(Element::new("h3").text(task.name.as_str()))
        .children(auc)
        .children(verdict.map(|found| badge(found.verdict)))
}

fn on_backbone(results: &Results, task: &TaskResults, backbone: &str) -> Vec<Element> {
    let arms = arms_on(results, task, backbone);
    if arms.is_empty() {
        return Vec::new();
    }
    let shown = overlaid(results, &arms);
    let mut drawn = Vec::new();
    if several_backbones(results) {
        drawn.push(Element::new("h4").class("backbone").text(format!("On {backbone}")));
    }
    drawn.extend(main_line(results, task, backbone));
    drawn.extend(decisions(results, &arms));
    drawn.push(legend(results, &shown));
    if shown.len() < arms.len() {
        let names: Vec<_> = shown.iter().map(|arm| arm.method.clone()).collect();
        drawn.push(note(format!(
            "Charts show {}; the other methods are in the tables and in {ARMS_CSV}.",
            list(&names)
        )));
    }
    drawn.extend(curves::of_classes(results, task, &shown));
    drawn.extend(classes(&arms));
    drawn.extend(operating_points(results, &arms));
    drawn.extend(diagnostics::calibration(results, &shown, &arms));
    drawn.extend(diagnostics::confusion(&shown));
    drawn.extend(curves::learning(results, &shown));
    drawn.extend(subgroups(&arms));
    drawn.extend(fairness(&arms));
    drawn
}

fn main_line(results: &Results, task: &TaskResults, backbone: &str) -> Option<Element> {
    let main = main_method(results)?;
    let found = comparison(task, main, backbone)?;
    Some(Element::new("p").text(format!("Difference of {main} to {}: {}.", found.reference, line(found))))
}

/// Figures at the decisions, which an AUC does not show.
fn decisions(results: &Results, arms: &[&Arm]) -> Option<Element> {
    let mut table = Table::new("At the plug-ins' decisions", &["method", "accuracy", "balanced accuracy", "macro F1"]);
    for arm in arms.iter().filter(|arm| arm.balanced_acc.is_some()) {
        let f1 = figure(arm.f1_macro.map_or(words::NOTHING.to_owned(), |f1| number(f1, 3)));
        let cells = [estimate(arm.acc.as_ref(), None), estimate(arm.balanced_acc.as_ref(), None), f1];
        table.row(name_of_series(&arm.method, series(results, &arm.method)), cells);
    }
    table.draw()
}

/// Names of the arms as columns after `first`.
fn columns<'a>(first: &[&'a str], arms: &[&'a Arm]) -> Vec<&'a str> {
    first.iter().copied().chain(arms.iter().map(|arm| arm.method.as_str())).collect()
}

fn classes(arms: &[&Arm]) -> Option<Element> {
    let longest = arms.iter().max_by_key(|arm| arm.per_class.len())?;
    let mut table = Table::new("AUC of each class against the rest", &columns(&["class", "test images"], arms));
    for (i, class) in longest.per_class.iter().enumerate() {
        let of = |arm: &&Arm| {
            let found = arm.per_class.get(i);
            estimate(found.and_then(|class| class.auc.as_ref()), found.and_then(|class| class.note.as_deref()))
        };
        table.row(name(&class.class), std::iter::once(figure(count(class.positives))).chain(arms.iter().map(of)));
    }
    table.draw()
}

/// Operating points of the main method and the reference.
fn operating_points(results: &Results, arms: &[&Arm]) -> Option<Element> {
    let main = main_method(results);
    let chosen: Vec<_> = arms
        .iter()
        .filter(|arm| Some(arm.method.as_str()) == main || arm.method == results.study.reference)
        .filter(|arm| arm.per_class.iter().any(|class| !class.operating_points.is_empty()))
        .collect();
    let first = chosen.first()?;
    let of_arm = ["threshold", "sensitivity", "specificity"];
    let titles: Vec<_> = std::iter::once("rule").chain(chosen.iter().flat_map(|_| of_arm)).collect();
    let names: Vec<_> = chosen.iter().map(|arm| arm.method.clone()).collect();
    let caption = "Operating points: chosen on the validation split, measured on the test split";
    let mut table = Table::new(caption, &titles).over(&names, of_arm.len());
    for (i, class) in first.per_class.iter().enumerate().filter(|(_, class)| !class.operating_points.is_empty()) {
        table.group(&class.class);
        for point in &class.operating_points {
            let cells = chosen.iter().flat_map(|arm| point_cells(arm.per_class.get(i), &point.rule));
            table.row(name(&point.rule), cells);
        }
    }
    table.draw()
}

fn point_cells(class: Option<&ClassResults>, rule: &str) -> [Element; 3] {
    let point = class.and_then(|class| class.operating_points.iter().find(|point| point.rule == rule));
    let threshold = point.map_or(f64::NAN, |point| point.threshold);
    [
        figure(number(threshold, 3)),
        estimate(point.and_then(|point| point.sensitivity.as_ref()), None),
        estimate(point.and_then(|point| point.specificity.as_ref()), None),
    ]
}

fn subgroups(arms: &[&Arm]) -> Option<Element> {
    let longest = arms.iter().max_by_key(|arm| arm.subgroups.len())?;
    let mut table = Table::new("Test macro AUC of subgroups", &columns(&["subgroup", "test images"], arms));
    for of_column in longest.subgroups.chunk_by(|a, b| a.column == b.column) {
        table.group(&of_column[0].column);
        for group in of_column {
            let of = |arm: &&Arm| {
                let found = same_group(arm, group);
                let why = found.filter(|group| group.auc.is_none()).and_then(|group| group.note.as_deref());
                estimate(found.and_then(|group| group.auc.as_ref()), why)
            };
            table.row(name(&group.value), images(group).chain(arms.iter().map(of)));
        }
    }
    table.draw()
}

/// How much better or worse each subgroup fares than the largest of its column.
fn fairness(arms: &[&Arm]) -> Option<Element> {
    let longest = arms.iter().max_by_key(|arm| arm.subgroups.len())?;
    let caption = "Fairness: test macro AUC of subgroups less that of the largest one";
    let mut table = Table::new(caption, &columns(&["subgroup", "test images"], arms));
    for of_column in longest.subgroups.chunk_by(|a, b| a.column == b.column) {
        let Some(largest) = of_column.iter().reduce(|a, b| if b.images > a.images { b } else { a }) else { continue };
        let others = of_column.iter().filter(|group| group.value != largest.value);
        table.group(&format!("{}, against {}", largest.column, largest.value));
        for group in others {
            let of = |arm: &&Arm| {
                let found = same_group(arm, group);
                let without = found.filter(|group| group.difference.is_some()).and_then(|group| group.note.as_deref());
                difference(found.and_then(|group| group.difference.as_ref())).children(without.map(remark))
            };
            table.row(name(&group.value), images(group).chain(arms.iter().map(of)));
        }
    }
    table.draw()
}

fn same_group<'a>(arm: &'a Arm, group: &Subgroup) -> Option<&'a Subgroup> {
    arm.subgroups.iter().find(|other| (&other.column, &other.value) == (&group.column, &group.value))
}

fn images(group: &Subgroup) -> impl Iterator<Item = Element> + use<> {
    std::iter::once(figure(count(group.images as u64)))
}
