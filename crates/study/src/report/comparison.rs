//! The main comparison: every method on every task, and its difference to the reference.

use melo_eval::FEW_CASES;
use melo_report::Element;
use melo_report::chart::{Axis, Forest, ForestRow};

use super::legend::panel;
use super::part::{Part, note};
use super::table::{Table, difference, estimate, figure, figure_with, head, name, name_of_series};
use super::view::{
    arms_on, backbones, before_holm, comparison, is_worse, on_backbone, others, series, task_on_backbone,
};
use super::words::{NOTHING, level, p_equals, p_value, signed, signed_estimate, signed_interval};
use crate::{Comparison, Results, TaskResults, Verdict};

pub(super) fn part(results: &Results) -> Option<Part> {
    let table = main_table(results)?;
    let forests = forests(results);
    let mut content = vec![table];
    if !forests.is_empty() {
        content.push(note(reading(results)));
        content.push(Element::new("div").class("panels large").children(forests));
    }
    content.extend(collapses(results));
    content.extend(means(results));
    content.extend(tests(results));
    Some(Part { id: "comparison", heading: "Comparison", content })
}

fn main_table(results: &Results) -> Option<Element> {
    let study = &results.study;
    let caption = format!(
        "Test macro AUC, accuracy and difference of AUC to {}, with {} intervals",
        study.reference,
        level(study.level)
    );
    let difference = format!("AUC − {}", study.reference);
    let figures = ["AUC", "accuracy", &difference].map(|title| head(title, true));
    let verdict = Element::new("th").with("scope", "col").class("num wide").text("verdict");
    let heads = std::iter::once(head("method", false)).chain(figures).chain([verdict]);
    let mut table = Table::headed(heads).caption(&caption);
    for task in &results.tasks {
        for backbone in backbones(results) {
            let arms = arms_on(results, task, backbone);
            if arms.is_empty() {
                continue;
            }
            table.group(&task_on_backbone(results, task, backbone));
            for arm in arms {
                let found = comparison(task, &arm.method, backbone);
                let (difference, verdict) = match found {
                    Some(found) => (difference_cell(results, found), verdict_cell(results, found)),
                    None => {
                        let what = if arm.method == study.reference { "reference" } else { NOTHING };
                        (figure(NOTHING), Element::new("td").class("num soft wide").text(what))
                    }
                };
                let cells = [estimate(arm.auc.as_ref(), None), estimate(arm.acc.as_ref(), None), difference, verdict];
                table.row(name_of_series(&arm.method, series(results, &arm.method)), cells);
            }
        }
    }
    table.draw()
}

/// The difference, with the verdict where a phone has no room for a column of its own.
fn difference_cell(results: &Results, found: &Comparison) -> Element {
    let verdict = Element::new("div").class("narrow").children(verdict(results, found));
    figure_with(signed(found.difference.value), signed_interval(&found.difference)).child(verdict)
}

fn verdict_cell(results: &Results, found: &Comparison) -> Element {
    Element::new("td").class("num wide").children(verdict(results, found))
}

/// The verdict, and what the task's interval alone would say where that is more.
fn verdict(results: &Results, found: &Comparison) -> Vec<Element> {
    let alone = before_holm(results, found)
        .map(|alone| Element::new("small").class("remark").text(format!("{} before Holm's correction", alone.word())));
    let worse = is_worse(results, found).then(|| {
        let text = match found.verdict.is_non_inferior() {
            true => format!("worse, by less than {}", results.study.margin),
            false => format!("worse, by {} or not", results.study.margin),
        };
        Element::new("small").class("remark").text(text)
    });
    std::iter::once(badge(found.verdict)).chain(worse).chain(alone).collect()
}

/// A verdict as a word with its sign.
pub(super) fn badge(verdict: Verdict) -> Element {
    let sign = Element::new("span").with("aria-hidden", "true").text(format!("{} ", verdict.sign()));
    Element::new("span").class(format!("verdict {}", verdict.word())).child(sign).text(verdict.word())
}

/// One forest plot a method and backbone, all on one axis.
fn forests(results: &Results) -> Vec<Element> {
    let study = &results.study;
    let all = results.tasks.iter().flat_map(|task| &task.comparisons);
    let ends = all.flat_map(|found| [found.difference.low, found.difference.value, found.difference.high]);
    let title = format!("difference of test macro AUC to {}", study.reference);
    let Some(axis) = Axis::around(title, ends.chain([0.0, -study.margin]), 6) else { return Vec::new() };
    let mut drawn = Vec::new();
    for method in others(results) {
        for backbone in backbones(results) {
            let name = on_backbone(results, method, backbone);
            let rows: Vec<_> = results
                .tasks
                .iter()
                .filter_map(|task| Some(forest_row(results, &task.name, comparison(task, method, backbone)?)))
                .collect();
            let described = rows.iter().map(|row| format!("{}: {}", row.label, row.shown)).collect::<Vec<_>>();
            let forest = Forest {
                title: format!("{name} against {}", study.reference),
                description: described.join("; "),
                width: 340.0,
                axis: axis.clone(),
                zero: Some((0.0, "equal".into())),
                margin: (study.margin > 0.0).then(|| (-study.margin, format!("−{} ", study.margin))),
                rows,
            };
            drawn.extend(forest.draw().map(|chart| panel(&forest.title, None, chart)));
        }
    }
    drawn
}

fn forest_row(results: &Results, task: &str, found: &Comparison) -> ForestRow {
    ForestRow {
        label: task.to_owned(),
        shown: signed_estimate(&found.difference),
        series: series(results, &found.method),
        value: found.difference.value,
        low: found.difference.low,
        high: found.difference.high,
        hollow: found.verdict == Verdict::Inconclusive,
    }
}

fn reading(results: &Results) -> String {
    format!(
        "Right of the solid line the method is better than {}. An interval that stays right of the dashed line (a loss of {}) \
         shows non-inferiority of that task taken alone, one that stays right of the solid line superiority. Verdicts go by p values \
         after Holm's correction over all tasks, which asks for more: where an interval alone would say more than the verdict, the \
         table says so. Hollow markers are inconclusive.",
        results.study.reference, results.study.margin
    )
}

/// Arms that have given up on a class, and classes of too few cases; none where there are none.
fn collapses(results: &Results) -> Option<Element> {
    let sentences: Vec<String> = collapse_sentences(results).into_iter().chain(few_sentences(results)).collect();
    let item = |sentence: String| Element::new("li").text(sentence);
    (!sentences.is_empty()).then(|| {
        let list = Element::new("ul").children(sentences.into_iter().map(item));
        Element::new("div").class("alert").with("role", "note").child(list)
    })
}

/// `wbc, linear: 67 of 72 images are called neutrophil, which 18 are; never called: monocyte (18 cases). The AUC does not show that.`
pub(super) fn collapse_sentences(results: &Results) -> Vec<String> {
    let mut sentences = Vec::new();
    for task in &results.tasks {
        for backbone in backbones(results) {
            for arm in arms_on(results, task, backbone) {
                let Some(collapse) = &arm.collapse else { continue };
                sentences.push(format!(
                    "{}, {}: {} (all cells together). The AUC does not show that.",
                    task.name,
                    on_backbone(results, &arm.method, backbone),
                    collapse.sentence(&task.classes)
                ));
            }
        }
    }
    sentences
}

/// `wbc: fewer than 10 test images: monocyte (3).`
pub(super) fn few_sentences(results: &Results) -> Vec<String> {
    let of = |task: &TaskResults| {
        let classes = &task.arms.first()?.per_class;
        let few = classes.iter().filter(|class| class.positives < FEW_CASES);
        let few: Vec<String> = few.map(|class| format!("{} ({})", class.class, class.positives)).collect();
        (!few.is_empty()).then(|| {
            format!(
                "{}: fewer than {FEW_CASES} test images show {}; their figures say little.",
                task.name,
                few.join(", ")
            )
        })
    };
    results.tasks.iter().filter_map(of).collect()
}

/// Means over tasks.
fn means(results: &Results) -> Option<Element> {
    let against = format!("AUC − {}", results.study.reference);
    let mut table = Table::new("Mean over tasks", &["method", "tasks", "AUC", &against, "accuracy", "non-inferior on"]);
    for total in results.totals.iter().filter(|total| total.tasks > 0) {
        let passed = total.non_inferior_tasks.map_or(NOTHING.to_owned(), |tasks| format!("{tasks} of {}", total.tasks));
        table.row(
            name_of_series(&on_backbone(results, &total.method, &total.backbone), series(results, &total.method)),
            [
                figure(total.tasks.to_string()),
                estimate(total.auc.as_ref(), None),
                difference(total.auc_difference.as_ref()),
                estimate(total.acc.as_ref(), None),
                figure(passed),
            ],
        );
    }
    table.draw()
}

/// The p values behind the verdicts, a table for each method and backbone.
fn tests(results: &Results) -> Option<Element> {
    let study = &results.study;
    let pairs = others(results).flat_map(|method| backbones(results).map(move |backbone| (method, backbone)));
    let tables: Vec<_> = pairs.filter_map(|(method, backbone)| tests_of(results, method, backbone)).collect();
    let text = format!(
        "The p values behind the verdicts: of no difference to {} (two-sided), and of inferiority by more than {} \
         (one-sided).",
        study.reference, study.margin
    );
    (!tables.is_empty()).then(|| {
        let tables = Element::new("div").class("tables").children(tables);
        Element::new("div").class("block").child(note(text)).child(tables)
    })
}

fn tests_of(results: &Results, method: &str, backbone: &str) -> Option<Element> {
    let columns = ["task", "p different", "Holm", "DeLong", "p inferior", "Holm"];
    let caption = format!("{} against {}", on_backbone(results, method, backbone), results.study.reference);
    let mut table = Table::new(&caption, &columns);
    for task in &results.tasks {
        let Some(found) = comparison(task, method, backbone) else { continue };
        let delong = found.p_delong.map_or(NOTHING.to_owned(), p_value);
        let inferior = [p_value(found.p_inferior), p_value(found.p_inferior_holm)];
        let cells = [p_value(found.p), p_value(found.p_holm), delong].into_iter().chain(inferior);
        table.row(name(&task.name), cells.map(figure));
    }
    table.draw()
}

/// `−0.012 [−0.031, +0.006], p = 0.21 (Holm)`: a comparison in a line.
pub(super) fn line(found: &Comparison) -> String {
    format!(
        "{} {}, {} after Holm's correction",
        signed(found.difference.value),
        signed_interval(&found.difference),
        p_equals(found.p_holm)
    )
}
