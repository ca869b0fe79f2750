//! The data audit: what each task is made of, what would spoil its results, and what a shortcut alone achieves.

use melo_report::Element;

use super::part::{Part, note};
use super::table::{Table, figure, name};
use super::view::{arm, backbones, main_method};
use super::words::{count, number, plural};
use crate::{Estimate, Results, TaskResults};

pub(super) fn part(results: &Results) -> Option<Part> {
    if results.tasks.is_empty() {
        return None;
    }
    let mut content: Vec<_> = shortcuts(results).into_iter().flatten().collect();
    content.push(Element::new("div").class("cards").children(results.tasks.iter().map(card)));
    Some(Part { id: "audit", heading: "Data audit", content })
}

/// The size-and-brightness baseline of each task against the main method; none where no task has one.
fn shortcuts(results: &Results) -> Option<Vec<Element>> {
    let main = main_method(results)?;
    let backbone = backbones(results).next()?;
    let caption = "A shortcut's test macro AUC against the method's";
    let mut table = Table::new(caption, &["task", "shortcut", main, "of the gain over chance"]);
    let mut features = Vec::new();
    for task in &results.tasks {
        let Some(shortcut) = task.audit.shortcut_auc.filter(|auc| auc.is_finite()) else { continue };
        let auc = arm(task, main, backbone).and_then(|arm| arm.auc);
        table.row(
            name(&task.name),
            [figure(number(shortcut, 3)), super::table::estimate(auc.as_ref(), None), reading(shortcut, auc.as_ref())],
        );
        let of_task = task.audit.shortcut_features.trim();
        if !of_task.is_empty() && !features.contains(&of_task) {
            features.push(of_task);
        }
    }
    let drawn = table.draw()?;
    let what = if features.is_empty() { String::new() } else { format!(" ({})", features.join("; ")) };
    let text = format!(
        "The shortcut is a logistic regression that never sees the image as such{what}. Where it comes close to the method, \
         the task can be solved without looking at the finding, and a high AUC says little."
    );
    Some(vec![drawn, note(text)])
}

/// What share of the method's gain over chance the shortcut reaches.
fn reading(shortcut: f64, auc: Option<&Estimate>) -> Element {
    let Some(auc) = auc.filter(|auc| auc.value > 0.5) else { return figure(super::words::NOTHING) };
    let share = ((shortcut - 0.5) / (auc.value - 0.5)).max(0.0);
    let cell = figure(format!("{} %", number(share * 100.0, 0)));
    if shortcut >= auc.low {
        cell.child(Element::new("small").class("remark").text("as good as the method"))
    } else {
        cell
    }
}

fn card(task: &TaskResults) -> Element {
    let kind = match (task.multi_label, task.classes.len()) {
        (true, findings) => format!("multi-label, {}", plural(findings, "finding", "findings")),
        (false, classes) => format!("single-label, {}", plural(classes, "class", "classes")),
    };
    let warning = |text: &String| Element::new("li").text(text.as_str());
    let warnings = (!task.audit.warnings.is_empty())
        .then(|| Element::new("ul").class("warnings").children(task.audit.warnings.iter().map(warning)));
    Element::new("article")
        .class("card")
        .child(Element::new("h3").text(task.name.as_str()))
        .child(note(kind))
        .children(splits(task))
        .children(warnings)
}

/// Images, patients and images of each class by split.
fn splits(task: &TaskResults) -> Option<Element> {
    let splits = &task.audit.splits;
    if splits.is_empty() {
        return None;
    }
    let columns: Vec<_> = std::iter::once("").chain(splits.iter().map(|split| split.split.as_str())).collect();
    let mut table = Table::new("Images by split", &columns);
    table.row(name("images"), splits.iter().map(|split| figure(count(split.images as u64))));
    if splits.iter().any(|split| split.patients.is_some()) {
        let patients = |patients: Option<usize>| patients.map_or("unknown".to_owned(), |value| count(value as u64));
        table.row(name("patients"), splits.iter().map(|split| figure(patients(split.patients))));
    }
    table.group(if task.multi_label { "images with the finding" } else { "images of the class" });
    for (class, title) in task.classes.iter().enumerate() {
        let of = |split: &crate::AuditSplit| split.images_of.get(class).map_or(0, |images| *images as u64);
        table.row(name(title), splits.iter().map(|split| figure(count(of(split)))));
    }
    table.draw()
}
