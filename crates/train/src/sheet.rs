//! A plug-in's card as a page for people: figures with intervals, thresholds, where it comes from.

use crate::calibrate::test_counts;
use crate::config::TrainConfig;
use crate::scope::scope_open_in_words;
use crate::sets::open_in_words;
use crate::words::settings_in_words;
use melo_eval::Collapse;
use melo_report::chart::{Bin, HeatTable, Reliability, Scatter};
use melo_report::{Element, Sheet, SheetTable};
use melo_vit::{Ensemble, INTENDED_USE, MemberRecord, PluginInfo, SetBy, TaskCard, TaskKind};
use serde_json::Value;
use std::collections::BTreeMap;

/// Lines of a table of answers.
const SHOWN_PAIRS: usize = 20;

/// The page of a plug-in, to be rendered as HTML or Markdown.
pub fn card_sheet(info: &PluginInfo) -> Sheet {
    let card = &info.card;
    let kind = card.kind.in_words();
    Sheet {
        title: card.task.clone(),
        lead: format!("A plug-in for the backbone {}: {kind}. {INTENDED_USE}", card.backbone.name),
        tables: [
            Some(overall(card)),
            Some(match card.kind {
                TaskKind::Regression => numbers(card),
                TaskKind::Segmentation => masks(card),
                _ => classes(card),
            }),
            scatter(card),
            confusion(card),
            reliability(card),
            sets(card),
            scope(card),
            ensemble(card),
            Some(usage(info)),
            calibrations(card),
            Some(provenance(card)),
        ]
        .into_iter()
        .flatten()
        .collect(),
    }
}

/// What a plug-in adds to the blocks, pools bags by and embeds volumes with, in words.
pub fn adapter_in_words(card: &TaskCard) -> String {
    let TaskCard { lora, bottleneck, bag, volume, .. } = card;
    let mut parts = Vec::new();
    if lora.rank > 0 {
        let targets: Vec<String> = lora.targets.iter().map(ToString::to_string).collect();
        let others: String =
            lora.rank_pattern.iter().map(|(block, rank)| format!(", {rank} in block {block}")).collect();
        let root = if lora.rslora { " over the root of the rank" } else { "" };
        let (rank, alpha, blocks) = (lora.rank, lora.alpha, lora.blocks.len());
        parts.push(format!("rank {rank}{others}, alpha {alpha}{root}, on {} of {blocks} blocks", targets.join(" ")));
    }
    if bottleneck.width > 0 {
        parts.push(format!("bottlenecks of width {} after {} blocks", bottleneck.width, bottleneck.blocks.len()));
    }
    if parts.is_empty() {
        parts.push("none (linear probe)".to_owned());
    }
    parts.extend(bag.map(crate::words::bag_in_words));
    parts.extend(volume.map(crate::words::volume_in_words));
    parts.join("; ")
}

/// How many members an ensemble has and what they cost, in words: `5 folds, each answer their mean: 1.41 times the operations of one`.
pub fn ensemble_in_words(ensemble: &Ensemble) -> String {
    let Ensemble { members, cost, shared } = ensemble;
    let shared = shared.filter(|blocks| *blocks > 0);
    let shared = shared.map_or(String::new(), |blocks| format!(", which share {blocks} blocks"));
    format!("{} folds{shared}, an answer is their mean: {cost:.2} times the operations of one", members.len())
}

/// Whether a plug-in can prove itself, in words.
pub fn self_test_in_words(card: &TaskCard) -> String {
    card.self_test.as_ref().map_or("none".to_owned(), |test| format!("taken in {}", test.precision))
}

/// How probabilities are calibrated where, in words: the training's own way first.
pub fn calibrations_in_words(card: &TaskCard) -> String {
    let own = format!("temperature {}", card.temperature);
    let later = card.calibrations.iter().map(|known| format!("; in {} {}", known.made(), known.temperature));
    std::iter::once(own).chain(later).collect()
}

/// A metric with its interval, or `undefined`.
fn figure(card: &TaskCard, name: &str) -> String {
    match (card.metrics.get(name), card.metric_intervals.get(name)) {
        (Some(value), Some([low, high])) => format!("{value:.3} [{low:.3}, {high:.3}]"),
        (Some(value), None) => format!("{value:.3}"),
        (None, _) => "undefined".to_owned(),
    }
}

fn heads(of: &[&str]) -> Vec<String> {
    of.iter().map(|head| (*head).to_owned()).collect()
}

fn overall(card: &TaskCard) -> SheetTable {
    let rows = [
        ("Test macro AUC", "test_auc_macro"),
        ("Test accuracy", "test_acc"),
        ("Test balanced accuracy", "test_balanced_acc"),
        ("Test macro F1", "test_f1_macro"),
        ("Test quadratic weighted kappa", "test_kappa_quadratic"),
        ("Test mean distance in grades", "test_mae"),
        ("Test mean Dice", "test_dice"),
        ("Test mean intersection over union", "test_iou"),
        ("Test coverage of prediction sets", "test_set_coverage"),
        ("Test answers in a set", "test_set_size"),
        ("Test images out of scope", "test_scope_flagged"),
        ("Validation mean Dice", "val_dice"),
        ("Validation R²", "val_r2"),
        ("Validation quadratic weighted kappa", "val_kappa"),
        ("Validation macro AUC", "val_auc_macro"),
        ("Validation accuracy", "val_acc"),
        ("Validation mean absolute error", "val_mae"),
    ];
    let known = rows.into_iter().filter(|(_, name)| card.metrics.contains_key(*name));
    let split = card.test.as_ref().map(|test| {
        let patients =
            test.patients.map_or(", whose patients are not known".to_owned(), |n| format!(" of {n} patients"));
        vec!["Test split".to_owned(), format!("{} images{patients}", test.images)]
    });
    let figures = known.map(|(title, name)| vec![title.to_owned(), figure(card, name)]);
    let intervals = "Intervals are by patient: DeLong's in logits of an AUC, Wilson's of a share, by draws of patients of anything else.";
    SheetTable {
        title: "How good it is",
        alerts: alerts(card),
        head: heads(&["Figure", "Value [95 % interval]"]),
        rows: split.into_iter().chain(figures).collect(),
        note: if card.metric_intervals.is_empty() { String::new() } else { intervals.to_owned() },
        ..SheetTable::default()
    }
}

/// What the test split says against the plug-in, or against its figures.
fn alerts(card: &TaskCard) -> Vec<String> {
    let counts = test_counts(card);
    let collapse = Collapse::of(&counts).map(|collapse| {
        format!("On the test split, {}. The AUC does not show that.", collapse.sentence(&card.classes))
    });
    let few = melo_eval::too_few(&counts, &card.classes);
    let few = few.map(|few| format!("Test split: {few}. Figures of so few say little, whatever they are."));
    collapse.into_iter().chain(few).collect()
}

fn classes(card: &TaskCard) -> SheetTable {
    let trained = &card.provenance.train_images_of;
    let tested: Vec<u64> = test_counts(card).iter().map(melo_eval::Counts::positives).collect();
    let row = |(class, name): (usize, &String)| {
        let decided = match card.kind {
            TaskKind::MultiLabel => format!("from {:.3}", card.thresholds[class]),
            TaskKind::SingleLabel if card.calls_unevenly() => format!("highest over {:.3}", card.thresholds[class]),
            kind => decided_in_words(kind).to_owned(),
        };
        let count = |counts: &[u64]| counts.get(class).map(|count| grouped(*count));
        let figures =
            ["auc", "sensitivity", "specificity"].map(|figured| figure(card, &format!("test_{figured}/{name}")));
        let counts = count(trained).into_iter().chain(count(&tested));
        [vec![name.clone()], counts.collect(), vec![decided], figures.to_vec()].concat()
    };
    let counted = [(!trained.is_empty(), "Training images"), (!tested.is_empty(), "Test images")];
    let counted: Vec<&str> = counted.into_iter().filter(|(known, _)| *known).map(|(_, head)| head).collect();
    SheetTable {
        title: "Classes, on the test split",
        head: heads(&[&["Class"], &counted[..], &["Reported", "AUC", "Sensitivity", "Specificity"]].concat()),
        rows: card.classes.iter().enumerate().map(row).collect(),
        ..SheetTable::default()
    }
}

/// What of a head is reported, where no threshold says it.
fn decided_in_words(kind: TaskKind) -> &'static str {
    match kind {
        TaskKind::SingleLabel => "the most probable",
        TaskKind::MultiLabel => "from its threshold",
        TaskKind::Ordinal => "the median grade",
        TaskKind::Regression => "as it is",
        TaskKind::Segmentation => "the highest score of each pixel",
    }
}

/// Classes of masks against the truth.
fn masks(card: &TaskCard) -> SheetTable {
    let columns = ["dice", "iou", "hd95", "surface_dice"];
    let trained = &card.provenance.train_images_of;
    let row = |(class, name): (usize, &String)| {
        let figures = columns.map(|figured| figure(card, &format!("test_{figured}/{name}")));
        let images = trained.get(class).map_or_else(String::new, |images| grouped(*images));
        [name.clone(), images].into_iter().chain(figures).collect()
    };
    SheetTable {
        title: "Classes, on the test split",
        head: heads(&[
            "Class",
            "Training images",
            "Dice",
            "Intersection over union",
            "95 % Hausdorff distance",
            "Surface Dice",
        ]),
        rows: card.classes.iter().enumerate().skip(1).map(row).collect(),
        note: "Means over the images that have the class; distances in pixels of the image, surfaces within one pixel."
            .to_owned(),
        ..SheetTable::default()
    }
}

/// Numbers against the truth.
fn numbers(card: &TaskCard) -> SheetTable {
    let columns = ["mae", "baseline_mae", "rmse", "bias", "r2", "pearson"];
    let row = |name: &String| {
        let figures = columns.map(|figured| figure(card, &format!("test_{figured}/{name}")));
        std::iter::once(name.clone()).chain(figures).collect()
    };
    SheetTable {
        title: "Numbers, on the test split",
        head: heads(&["Number", "Mean absolute error", "Of their mean", "Root mean square", "Bias", "R²", "Correlation"]),
        rows: card.classes.iter().map(row).collect(),
        note: "Errors are in the unit of the number; bias is above 0 where answers are too high. Of their mean: the error of one answer to \
               all images, the mean of the split."
            .to_owned(),
        ..SheetTable::default()
    }
}

/// The first number of the test split against the truth.
fn scatter(card: &TaskCard) -> Option<SheetTable> {
    let pairs = card.test.as_ref()?.pairs.first()?;
    let name = card.classes.first()?;
    let points = pairs.iter().map(|&[truth, answer]| (f64::from(truth), f64::from(answer)));
    let chart = Scatter {
        title: format!("{name} against the truth"),
        description: format!("{} images", pairs.len()),
        width: 300.0,
        height: 300.0,
        series: 0,
        truth: format!("true {name}"),
        answer: format!("answered {name}"),
        points: points.collect(),
    };
    Some(SheetTable {
        title: "Answers against the truth",
        head: heads(&["True", "Answered"]),
        rows: pairs.iter().take(SHOWN_PAIRS).map(|pair| pair.iter().map(f32::to_string).collect()).collect(),
        drawn: chart.draw().map(|chart| Element::new("div").class("chart").child(chart)),
        note: format!("{} test images; on the line an answer is right.", pairs.len()),
        ..SheetTable::default()
    })
}

/// Images by true and predicted class.
fn confusion(card: &TaskCard) -> Option<SheetTable> {
    let counts = card.test.as_ref()?.confusion.clone()?;
    let row = |(class, counts): (usize, &Vec<u64>)| {
        let numbers = counts.iter().map(u64::to_string);
        std::iter::once(format!("{} {}", class + 1, card.classes[class])).chain(numbers).collect()
    };
    let numbers = (0..counts.len()).map(|class| (class + 1).to_string());
    let drawn = HeatTable {
        caption: "Test images".into(),
        corner: "true class \\ called".into(),
        names: card.classes.clone(),
        counts: counts.clone(),
    };
    Some(SheetTable {
        title: "Confusion",
        head: std::iter::once("true class \\ called".to_owned()).chain(numbers).collect(),
        rows: counts.iter().enumerate().map(row).collect(),
        drawn: drawn.draw().map(melo_report::scroll),
        note: "Rows are true classes, columns what was called, by number.".to_owned(),
        ..SheetTable::default()
    })
}

/// Whether probabilities mean what they say.
fn reliability(card: &TaskCard) -> Option<SheetTable> {
    let test = card.test.as_ref().filter(|_| card.kind.has_probabilities())?;
    let bins = test.reliability.iter();
    let bins = bins.map(|bin| Bin { count: bin.count, confidence: bin.confidence, accuracy: bin.accuracy });
    let note = format!(
        "Of answers of about a probability, the share that is right; on the diagonal, probabilities mean what they say. Bars count \
         answers. Expected calibration error {:.3}.",
        test.calibration_error
    );
    let diagram = Reliability {
        title: "Reliability".into(),
        description: format!("expected calibration error {:.3}", test.calibration_error),
        width: 300.0,
        height: 330.0,
        series: 0,
        before: Vec::new(),
        after: bins.collect(),
    };
    let row = |bin: &melo_vit::ReliabilityPoint| {
        vec![format!("{:.3}", bin.confidence), format!("{:.3}", bin.accuracy), grouped(bin.count)]
    };
    Some(SheetTable {
        title: "Reliability on the test split",
        head: heads(&["Mean probability", "Share right", "Answers"]),
        rows: test.reliability.iter().map(row).collect(),
        drawn: diagram.draw().map(|chart| Element::new("div").class("chart").child(chart)),
        note,
        ..SheetTable::default()
    })
}

/// Which images are for the plug-in.
fn scope(card: &TaskCard) -> Option<SheetTable> {
    let (config, limits) = (card.scope.as_ref()?, card.scope_limits.as_ref()?);
    let seen = figure(card, "test_scope_flagged");
    let promise = (1e6 * limits.false_alarms).round() / 1e4;
    let note = format!(
        "Each answer comes with a score of how far the image is from those of the training; above 1 it is out of scope, and the answer \
         must not be relied on. The limit was set on the validation split, so that {promise} % of images of new patients like those \
         are called so. An image in scope may still be answered wrongly."
    );
    let numbers = |values: &[usize]| values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    Some(SheetTable {
        title: "Scope, on the test split",
        alerts: scope_open_in_words(limits).map(|open| format!("{open}.")).into_iter().collect(),
        head: heads(&["Out of scope", "Patients fitted on", "Blocks", "Training images kept"]),
        rows: vec![vec![seen, grouped(limits.patients), numbers(&config.blocks), numbers(&[config.points])]],
        note,
        ..SheetTable::default()
    })
}

/// The members of an ensemble.
fn ensemble(card: &TaskCard) -> Option<SheetTable> {
    let ensemble = card.ensemble.as_ref()?;
    let figures = [
        ("Macro AUC", "val_auc_macro"),
        ("Accuracy", "val_acc"),
        ("Quadratic weighted kappa", "val_kappa"),
        ("R²", "val_r2"),
        ("Mean absolute error", "val_mae"),
    ];
    let known = |name: &str| ensemble.members.iter().any(|member| member.metrics.contains_key(name));
    let figures: Vec<(&str, &str)> = figures.into_iter().filter(|(_, name)| known(name)).collect();
    let row = |(fold, member): (usize, &MemberRecord)| {
        let counts = [member.train_images, member.val_images].map(|images| grouped(images as u64));
        let of = figures
            .iter()
            .map(|(_, name)| member.metrics.get(*name).map_or(String::new(), |value| format!("{value:.3}")));
        [(fold + 1).to_string()].into_iter().chain(counts).chain(of).collect()
    };
    let titles: Vec<&str> = figures.iter().map(|(title, _)| *title).collect();
    let (folds, fitted) = match card.has_base() {
        true => ("Figures of a fold flatter: most of its images trained what members share", "validation"),
        false => {
            ("Figures are those of each member's best epoch on its fold, which chose it", "training and validation")
        }
    };
    Some(SheetTable {
        title: "Folds",
        head: heads(&[&["Fold", "Trained on", "Validated on"], &titles[..]].concat()),
        rows: ensemble.members.iter().enumerate().map(row).collect(),
        note: format!(
            "An answer is the mean of what {} members say, their standard deviation its spread; it takes {:.2} times the operations of one. \
             {folds}; validation figures above, temperature, thresholds and sets come from the answers to all {fitted} images by the \
             member that did not see them.",
            ensemble.members.len(),
            ensemble.cost,
        ),
        ..SheetTable::default()
    })
}

/// Prediction sets: the promise, and how the test split kept it.
fn sets(card: &TaskCard) -> Option<SheetTable> {
    let rule = card.sets.as_ref()?;
    let findings = card.kind == TaskKind::MultiLabel;
    let fitted = |class: usize| match findings {
        true => format!("{} without, {} with", rule.patients[2 * class], rule.patients[2 * class + 1]),
        false => grouped(rule.patients[class]),
    };
    let row = |(class, name): (usize, &String)| {
        let mut row = vec![name.clone(), fitted(class), figure(card, &format!("test_set_coverage/{name}"))];
        if findings {
            row.push(figure(card, &format!("test_set_coverage_present/{name}")));
        }
        if card.kind == TaskKind::Regression {
            row.push(rule.thresholds[class].map_or("unbounded".to_owned(), |half| format!("± {half:.4}")));
        }
        row
    };
    let mut head = vec!["Class", "Patients fitted on", "Coverage"];
    head.extend(findings.then_some("Coverage where present"));
    head.extend((card.kind == TaskKind::Regression).then_some("Interval"));
    let alerts = open_in_words(&card.classes, card.kind, rule).map(|open| format!("Too few patients for {open}."));
    let promise = (1e6 * rule.coverage).round() / 1e4;
    let meaning = match card.kind {
        TaskKind::MultiLabel => "For each finding it says present, absent, or that it cannot tell.",
        TaskKind::Regression => "It is an interval around the answer.",
        _ => {
            "It is the list of classes that may be true: one class where the plug-in is sure, several where it is not, none where an image is \
              like none that it was fitted on."
        }
    };
    let whom = match rule.by {
        SetBy::All => "of all images together",
        SetBy::Class if findings => "of the images with and without each finding",
        SetBy::Class => "of the images of each class",
    };
    let kept = crate::sets::sets_in_words(card).map_or(String::new(), |kept| format!(" Seen: {kept}."));
    let note = format!(
        "A prediction set holds the truth for {promise} % {whom}, if patients are like those of the validation split, on which it was fitted \
         (split conformal prediction, {}). {meaning}{kept}",
        rule.method
    );
    Some(SheetTable {
        title: "Prediction sets, on the test split",
        alerts: alerts.into_iter().collect(),
        head: heads(&head),
        rows: card.classes.iter().enumerate().map(row).collect(),
        note,
        ..SheetTable::default()
    })
}

fn usage(info: &PluginInfo) -> SheetTable {
    let card = &info.card;
    let rows = [
        ("Input", card.preprocess.to_string()),
        ("Adapter", adapter_in_words(card)),
        ("Parameters", format!("{} in {} bytes", grouped(info.parameters() as u64), grouped(info.bytes as u64))),
        ("Calibration", format!("temperature {:.4}", card.temperature)),
        ("Self-test", self_test_in_words(card)),
        ("Backbone", format!("{} {}", card.backbone.name, card.backbone.digest)),
        ("Plug-in digest", info.digest.clone()),
    ];
    SheetTable::of_pairs("How to use it", rows.map(|(name, value)| (name.to_owned(), value)))
}

/// Where the plug-in may be used beside where it was finished, and how its answers are read there.
fn calibrations(card: &TaskCard) -> Option<SheetTable> {
    if card.calibrations.is_empty() {
        return None;
    }
    let decided = |thresholds: &[f32]| match card.kind {
        TaskKind::MultiLabel => {
            let of_class = card.classes.iter().zip(thresholds).map(|(class, from)| format!("{class} from {from:.3}"));
            of_class.collect::<Vec<_>>().join(", ")
        }
        TaskKind::SingleLabel if card.calls_unevenly() => {
            let of_class = card.classes.iter().zip(thresholds).map(|(class, over)| format!("{class} over {over:.3}"));
            format!("highest of {}", of_class.collect::<Vec<_>>().join(", "))
        }
        kind => decided_in_words(kind).to_owned(),
    };
    let figures = |metrics: &BTreeMap<String, f64>| {
        ["val_auc_macro", "val_ece", "val_brier"]
            .map(|name| metrics.get(name).map_or_else(String::new, |value| format!("{value:.3}")))
    };
    let own = card.own_calibration();
    let first = [own.made.to_string(), format!("{:.4}", own.temperature), decided(&own.thresholds)];
    let [auc, ..] = figures(&card.metrics);
    let training = [auc, String::new(), String::new(), "the training".to_owned()];
    let later = card.calibrations.iter().map(|known| {
        let fitted = [known.made().to_string(), format!("{:.4}", known.temperature), decided(&known.thresholds)];
        let images = grouped(known.images as u64);
        let data = if known.data.is_empty() { String::new() } else { format!(" of {}", known.data) };
        let date = if known.date.is_empty() { String::new() } else { format!(", {}", known.date) };
        [fitted.to_vec(), figures(&known.metrics).to_vec(), vec![format!("{images} images{data}{date}")]].concat()
    });
    Some(SheetTable {
        title: "Calibrations",
        head: heads(&[
            "Computed in",
            "Temperature",
            "Reported",
            "Validation AUC",
            "Calibration error",
            "Brier score",
            "Fitted on",
        ]),
        rows: std::iter::once([first.to_vec(), training.to_vec()].concat()).chain(later).collect(),
        note: "Figures of the test split are of the first. A plug-in takes the calibration of what computes it."
            .to_owned(),
        ..SheetTable::default()
    })
}

fn provenance(card: &TaskCard) -> SheetTable {
    let provenance = &card.provenance;
    let best = card.metrics.get("best_epoch").map_or(String::new(), |epoch| format!("{epoch}"));
    let mut rows = vec![
        ("Data".to_owned(), provenance.data.clone()),
        ("Date".to_owned(), provenance.date.clone()),
        ("Software".to_owned(), provenance.software.clone()),
        ("Training images".to_owned(), grouped(provenance.train_images as u64)),
        ("Best epoch".to_owned(), best),
    ];
    rows.extend(settings(&provenance.settings, card.kind));
    rows.extend([
        ("Numbers in training".to_owned(), provenance.precision.to_string()),
        ("Seed".to_owned(), provenance.seed.to_string()),
        ("Data digest".to_owned(), provenance.data_digest.clone()),
        ("Split digest".to_owned(), provenance.split_digest.clone()),
    ]);
    rows.retain(|(_, value)| !value.is_empty());
    SheetTable::of_pairs("Where it comes from", rows)
}

/// The settings of a training in words; those of other software by their names.
fn settings(settings: &Value, kind: TaskKind) -> Vec<(String, String)> {
    if let Ok(config) = serde_json::from_value::<TrainConfig>(settings.clone()) {
        return settings_in_words(&config, kind).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    }
    let Value::Object(settings) = settings else { return Vec::new() };
    settings.iter().map(|(name, value)| (name.replace('_', " "), in_words(value))).collect()
}

/// A value of JSON without its marks.
fn in_words(value: &Value) -> String {
    let list = |parts: Vec<String>| parts.join(", ");
    match value {
        Value::Null => "none".to_owned(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(values) => list(values.iter().map(in_words).collect()),
        Value::Object(fields) => {
            list(fields.iter().map(|(name, value)| format!("{} {}", name.replace('_', " "), in_words(value))).collect())
        }
    }
}

/// A count with commas between thousands.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use melo_vit::{BackboneReference, Preprocess};
    use std::collections::BTreeMap;

    fn hostile() -> PluginInfo {
        let preprocess = Preprocess::base(32);
        let backbone = BackboneReference { digest: "abc".into(), name: "tiny & \"small\"".into() };
        let classes = vec!["<script>alert(1)</script>".into(), "a|b\nc".into()];
        let mut card = TaskCard::new("<b>".into(), TaskKind::SingleLabel, classes, preprocess, backbone);
        card.metrics.insert("test_auc_macro".into(), 0.91234);
        card.metric_intervals.insert("test_auc_macro".into(), [0.8, 0.95]);
        PluginInfo { card, shapes: BTreeMap::new(), digest: "def".into(), bytes: 10, scope_bytes: 0 }
    }

    #[test]
    fn names_are_text_and_never_markup() {
        let sheet = card_sheet(&hostile());
        let html = sheet.html();
        assert!(!html.contains("<script") && !html.contains("<b>"), "{html}");
        assert!(html.contains("&lt;script>") && html.contains("tiny &amp; \"small\""), "{html}");
        let markdown = sheet.markdown();
        assert!(!markdown.contains("<script"), "{markdown}");
        assert!(markdown.contains("| a\\|b c |"), "{markdown}");
    }

    #[test]
    fn figures_show_their_intervals_and_what_is_undefined_says_so() {
        let markdown = card_sheet(&hostile()).markdown();
        assert!(markdown.contains("| Test macro AUC | 0.912 [0.800, 0.950] |"), "{markdown}");
        assert!(markdown.contains("undefined"), "{markdown}");
        assert!(!markdown.contains("Test accuracy"), "{markdown}");
    }

    /// A plug-in that was trained and tested, and calls almost everything one class.
    fn collapsed() -> PluginInfo {
        let mut info = hostile();
        let card = &mut info.card;
        card.classes = vec!["eosinophil".into(), "neutrophil".into()];
        card.provenance.data = "wbc/labels.csv".into();
        card.provenance.date = "2026-11-28".into();
        card.provenance.train_images_of = vec![1234, 56];
        card.provenance.settings = serde_json::to_value(TrainConfig::new(2)).unwrap();
        card.test = Some(melo_vit::TestRecord {
            images: 70,
            patients: Some(35),
            counts: vec![[0, 0, 17, 53], [53, 17, 0, 0]],
            confusion: Some(vec![vec![0, 17], vec![0, 53]]),
            reliability: vec![melo_vit::ReliabilityPoint { count: 70, confidence: 0.8, accuracy: 53.0 / 70.0 }],
            calibration_error: 0.04,
            pairs: Vec::new(),
        });
        info.card.check().unwrap();
        info
    }

    #[test]
    fn a_card_says_what_collapsed_and_how_many_cases_there_were() {
        let sheet = card_sheet(&collapsed());
        let (html, markdown) = (sheet.html(), sheet.markdown());
        for text in [&html, &markdown] {
            for phrase in [
                "70 of 70 images are called neutrophil, which 53 are; never called: eosinophil (17 cases)",
                "70 images of 35 patients",
                "1,234",
                "wbc/labels.csv",
                "2026-11-28",
                "Confusion",
                "calibration error 0.040",
                "mirrored left to right",
            ] {
                assert!(text.contains(phrase), "{phrase}: {text}");
            }
            assert!(!text.contains("horizontal_flip") && !text.contains("{\""), "settings are words: {text}");
        }
        assert!(html.contains("<svg") && html.contains("class=\"heat\""));
    }

    #[test]
    fn settings_of_others_are_words_too() {
        let mut info = hostile();
        info.card.provenance.settings =
            serde_json::json!({"image_size": 32, "augment": {"flip": true}, "steps": [1, 2]});
        let markdown = card_sheet(&info).markdown();
        for row in ["| image size | 32 |", "| augment | flip yes |", "| steps | 1, 2 |"] {
            assert!(markdown.contains(row), "{markdown}");
        }
    }
}
