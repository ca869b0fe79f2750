//! How the figures were made, and with what.

use melo_report::Element;

use super::part::{Part, paragraph};
use super::table::{Table, name, words};
use super::words::{bytes, count, level, list, plural};
use crate::Results;

pub(super) fn part(results: &Results) -> Option<Part> {
    let mut content: Vec<_> = sentences(results).into_iter().map(paragraph).collect();
    content.extend(settings(results));
    content.extend(methods(results));
    content.extend(digests(results));
    content.push(facts(results));
    Some(Part { id: "method", heading: "Methods: how this was made", content })
}

/// How intervals, p values and verdicts were made.
pub(super) fn sentences(results: &Results) -> Vec<String> {
    let study = &results.study;
    let seeds: Vec<_> = study.seeds.iter().map(u64::to_string).collect();
    let splits = match study.folds {
        0 => "on the splits of the manifests".to_owned(),
        folds => format!("on {} by patient", plural(folds, "fold", "folds")),
    };
    let word = if seeds.len() == 1 { "seed" } else { "seeds" };
    let (reference, margin) = (&study.reference, study.margin);
    let trimmed = |p: f64| ((p * 1e6).round() / 1e6).to_string();
    let (alpha, half) = (trimmed(1.0 - study.level), trimmed((1.0 - study.level) / 2.0));
    vec![
        format!(
            "Each method was trained on each task with {word} {} {splits}; these cells are averaged. Epochs \
             are chosen by the validation loss, with findings by the macro AUC, settings by the macro AUC; figures are of the test split unless they say otherwise.",
            list(&seeds)
        ),
        format!(
            "Intervals are at the {} level, with the patient as the unit (the image where the manifest names none), as melo eval \
             and the plug-in's card give them. Accuracy, sensitivity and specificity have Wilson's interval with the effective \
             number of cases (Rao and Scott 1992); AUCs have DeLong's variance by patient (Obuchowski 1997) in logits. Where nothing varies, \
             as with a perfect or a constant predictor, patients count instead: Wilson's interval of so many patients, or \
             Newcombe's of the AUC (2006).",
            level(study.level)
        ),
        format!(
            "Differences are paired and have the percentile bootstrap with {} replicates: patients are drawn with replacement \
             within strata, the rarest class that they show, all of a patient's images go with them, and both methods \
             see the same patients in a replicate.",
            count(study.replicates as u64)
        ),
        "Macro AUC is the mean over classes of the one-vs-rest AUC; a class without a positive or a negative test image has no \
         AUC and is left out. Balanced accuracy is the mean sensitivity over classes, with findings the mean of sensitivity and \
         specificity; macro F1 counts a class that is never called as 0."
            .to_owned(),
        format!(
            "P values of the difference to {reference} are two-sided, by the same bootstrap, and by DeLong's paired test by patient \
             for tasks with two classes or one finding; those of inferiority are one-sided, for the hypothesis that the loss is \
             larger than the margin. Holm's correction is over tasks, for each method. Verdicts go by the corrected p values: superior \
             where that of no difference is at most {alpha} and the difference positive, else non-inferior where that of a loss of \
             more than {margin} is at most {half}, inferior where that of a smaller loss is, and inconclusive otherwise. The \
             intervals are of each task alone, so one may leave out zero where the verdict says less."
        ),
        "Temperatures and operating points were chosen on the validation split and measured on the test split. ROC and \
         precision-recall curves are of all cells' scores together."
            .to_owned(),
    ]
}

/// Settings of all trainings: epochs, batch, augmentation.
fn settings(results: &Results) -> Option<Element> {
    let mut table = Table::of_words("Settings of the trainings", &["setting", "value"]);
    for (setting, value) in &results.study.settings {
        table.row(name(setting), [words(value.as_str())]);
    }
    table.draw()
}

fn methods(results: &Results) -> Option<Element> {
    let mut table = Table::of_words("Methods", &["method", "settings"]);
    for method in &results.methods {
        table.row(name(&method.name), [words(method.description.as_str())]);
    }
    table.draw()
}

fn digests(results: &Results) -> Option<Element> {
    let mut table = Table::of_words("Backbones", &["backbone", "architecture", "parameters", "weights", "digest"]);
    for backbone in &results.backbones {
        let cells = [
            words(backbone.architecture.as_str()),
            words(count(backbone.parameters as u64)),
            words(bytes(backbone.bytes as f64)),
            Element::new("td").child(Element::new("code").text(backbone.digest.as_str())),
        ];
        table.row(name(&backbone.name), cells);
    }
    table.draw()
}

fn facts(results: &Results) -> Element {
    let study = &results.study;
    let cells = format!("{} of {} done", count(study.cells_done as u64), count(study.cells as u64));
    let facts = [
        ("date", study.date.as_str()),
        ("software", study.software.as_str()),
        ("machine", &study.machine),
        ("cells", &cells),
    ];
    let pair = |(what, value): (&str, &str)| {
        Element::new("div").child(Element::new("dt").text(what)).child(Element::new("dd").text(value))
    };
    Element::new("dl").class("facts").children(facts.into_iter().filter(|(_, value)| !value.is_empty()).map(pair))
}
