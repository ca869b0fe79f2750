//! What was compared, the answer, and what is missing.

use melo_report::Element;

use super::part::paragraph;
use super::view::{Tally, backbones, main_method, on_backbone, others};
use super::words::{bytes, count, list, number, plural, short, signed_estimate};
use crate::{Results, Total};

/// The top of the page.
pub(super) fn header(results: &Results, contents: Element) -> Element {
    Element::new("header")
        .child(Element::new("p").class("kicker").text("Study report"))
        .child(Element::new("h1").text(results.study.name.as_str()))
        .child(Element::new("p").class("compared").text(compared(results)))
        .children(answer(results).into_iter().map(|sentences| Element::new("p").class("answer").text(sentences)))
        .children(tiles(results))
        .children(rest(results))
        .children(unfinished(results))
        .child(contents)
}

/// What was compared with what, on what.
pub(super) fn compared(results: &Results) -> String {
    let study = &results.study;
    let names: Vec<_> = others(results).map(str::to_owned).collect();
    let runs = match (study.seeds.len(), study.folds) {
        (seeds, 0) => plural(seeds, "seed", "seeds"),
        (seeds, folds) => format!("{}, {}", plural(seeds, "seed", "seeds"), plural(folds, "fold", "folds")),
    };
    let backbones: Vec<_> =
        results.backbones.iter().map(|backbone| format!("{} ({})", backbone.name, backbone.architecture)).collect();
    let on = if backbones.is_empty() { String::new() } else { format!(" on {}", list(&backbones)) };
    let tasks = plural(results.tasks.len(), "task", "tasks");
    if names.is_empty() {
        return format!("{}{on}: {tasks}, {runs}.", study.reference);
    }
    format!("{} against {}{on}: {tasks}, {runs}.", list(&names), study.reference)
}

/// The answer for the main method in two sentences, one pair a backbone: how good it is, and what it costs.
pub(super) fn answer(results: &Results) -> Vec<String> {
    let Some(main) = main_method(results) else { return Vec::new() };
    backbones(results)
        .map(|backbone| {
            let tally = Tally::of(results, main, backbone);
            let study = &results.study;
            let name = on_backbone(results, main, backbone);
            let first = if tally.sum() == 0 {
                format!("{name} could not be compared with {} yet: no task has results of both.", study.reference)
            } else {
                format!("{name} is {}.", tally.sentence(&study.reference, study.margin))
            };
            format!("{first}{}{}", mean_sentence(results, main, backbone), cost_sentence(results, main, backbone))
        })
        .collect()
}

/// By how much it is better on average, where there are tasks to average over.
fn mean_sentence(results: &Results, main: &str, backbone: &str) -> String {
    let total = total(results, main, backbone).filter(|total| total.tasks > 1);
    let difference = total.and_then(|total| total.auc_difference.as_ref()).filter(|found| found.value.is_finite());
    difference.map_or_else(String::new, |found| {
        format!(" Its macro AUC, mean over the tasks, differs by {}.", signed_estimate(found))
    })
}

fn cost_sentence(results: &Results, main: &str, backbone: &str) -> String {
    let share = mean_percent(results, main, backbone)
        .map(|percent| format!("trains {} % as many parameters as the backbone has", short(percent)));
    let storage = total(results, main, backbone).filter(|total| total.storage_bytes > 0).map(|ours| {
        let tasks = plural(ours.tasks, "task", "tasks");
        let ours_words = bytes(ours.storage_bytes as f64);
        match total(results, &results.study.reference, backbone).filter(|other| other.tasks == ours.tasks) {
            Some(other) => format!(
                "{ours_words} serve {tasks}, where {} needs {}",
                results.study.reference,
                bytes(other.storage_bytes as f64)
            ),
            None => format!("{ours_words} serve {tasks}"),
        }
    });
    match (share, storage) {
        (Some(share), Some(storage)) => format!(" It {share}, and {storage}."),
        (Some(share), None) => format!(" It {share}."),
        (None, Some(storage)) => format!(" {storage}."),
        (None, None) => String::new(),
    }
}

/// The sums over tasks of a method on a backbone.
pub(super) fn total<'a>(results: &'a Results, method: &str, backbone: &str) -> Option<&'a Total> {
    results.totals.iter().find(|total| total.method == method && total.backbone == backbone)
}

/// Mean over tasks of the trained share in percent.
fn mean_percent(results: &Results, method: &str, backbone: &str) -> Option<f64> {
    let shares: Vec<_> = results
        .tasks
        .iter()
        .filter_map(|task| super::view::arm(task, method, backbone))
        .map(|arm| arm.cost.trainable_percent)
        .filter(|percent| percent.is_finite())
        .collect();
    (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
}

/// Four figures to take away, of the first backbone.
fn tiles(results: &Results) -> Option<Element> {
    let main = main_method(results)?;
    let backbone = backbones(results).next()?;
    let reference = results.study.reference.as_str();
    let against = |show: &dyn Fn(&Total) -> Option<String>| {
        let of = |method: &str| total(results, method, backbone).and_then(show);
        Some((of(main)?, of(reference).map(|value| format!("{reference}: {value}"))))
    };
    let tally = Tally::of(results, main, backbone);
    let passed = (tally.sum() > 0).then(|| format!("{} of {}", tally.passed(), tally.sum()));
    let auc = against(&|total| total.auc.map(|auc| number(auc.value, 3)));
    let storage = against(&|total| (total.storage_bytes > 0).then(|| bytes(total.storage_bytes as f64)));
    let percent = |method: &str| mean_percent(results, method, backbone).map(|percent| format!("{} %", short(percent)));
    let trained = percent(main).map(|ours| (ours, percent(reference).map(|other| format!("{reference}: {other}"))));
    let found = [
        passed.map(|passed| ("tasks non-inferior or better".to_owned(), passed, None)),
        auc.map(|(ours, other)| ("mean test macro AUC".to_owned(), ours, other)),
        trained.map(|(ours, other)| ("of the parameters trained".to_owned(), ours, other)),
        storage.map(|(ours, other)| ("storage, all tasks".to_owned(), ours, other)),
    ];
    let tile = |(what, value, other): (String, String, Option<String>)| {
        Element::new("div")
            .class("tile")
            .child(Element::new("dt").text(what))
            .child(Element::new("dd").text(value).children(other.map(|text| Element::new("small").text(text))))
    };
    let tiles: Vec<_> = found.into_iter().flatten().map(tile).collect();
    let whose = on_backbone(results, main, backbone);
    (!tiles.is_empty()).then(|| {
        Element::new("dl").class("tiles").with("aria-label", format!("{whose} in four figures")).children(tiles)
    })
}

/// One line for each other method.
fn rest(results: &Results) -> Option<Element> {
    let main = main_method(results);
    let mut lines = Vec::new();
    for method in others(results).filter(|name| Some(*name) != main) {
        for backbone in backbones(results) {
            let tally = Tally::of(results, method, backbone);
            if tally.sum() > 0 {
                let name = on_backbone(results, method, backbone);
                lines.push(format!("{name}: {}.", tally.sentence(&results.study.reference, results.study.margin)));
            }
        }
    }
    (!lines.is_empty())
        .then(|| Element::new("ul").class("rest").children(lines.into_iter().map(|line| Element::new("li").text(line))))
}

/// Plain words on cells that failed or have not run; none where all is done.
fn unfinished(results: &Results) -> Option<Element> {
    let study = &results.study;
    let sentence = unfinished_sentence(results)?;
    let failure = |failure: &crate::Failure| {
        Element::new("li").child(Element::new("b").text(failure.cell.as_str())).text(format!(": {}", failure.reason))
    };
    let failures =
        (!study.failures.is_empty()).then(|| Element::new("ul").children(study.failures.iter().map(failure)));
    let aside = Element::new("div").class("alert").with("role", "note");
    Some(aside.child(paragraph(sentence)).children(failures))
}

/// `12 of 42 cells have no result: 2 failed, 10 have not ended.`; none where all is done.
pub(super) fn unfinished_sentence(results: &Results) -> Option<String> {
    let study = &results.study;
    let missing = study.cells.saturating_sub(study.cells_done);
    if missing == 0 && study.failures.is_empty() {
        return None;
    }
    let failed = study.failures.len();
    let waiting = missing.saturating_sub(failed);
    let mut reasons = Vec::new();
    if failed > 0 {
        reasons.push(format!("{} failed", count(failed as u64)));
    }
    if waiting > 0 {
        reasons.push(format!("{} {} not ended", count(waiting as u64), if waiting == 1 { "has" } else { "have" }));
    }
    Some(format!(
        "This report is incomplete: {} of {} planned cells {} no result ({}). Tasks and methods are shown as far as they go.",
        count(missing.max(failed) as u64),
        count(study.cells as u64),
        if missing.max(failed) == 1 { "has" } else { "have" },
        list(&reasons)
    ))
}
