//! What a training says before it begins, and what follows from it.

use super::Args;
use crate::advice;
use crate::progress::grouped;
use melo::data::{Manifest, Row, Split};
use melo::train::{Finished, ReadyJob, settings_in_words};
use melo::vit::{LoraConfig, TaskKind};
use std::collections::HashSet;

/// Classes that are listed with their counts.
const LISTED: usize = 12;

/// What is trained on what, in lines, and by which ranks.
pub(super) fn beginning(ready: &ReadyJob, ranks: Option<String>) -> String {
    let (card, manifest, vit, engine) = (ready.card(), ready.manifest(), ready.vit(), ready.engine_info());
    let kind = card.kind.in_words();
    let splits = Split::ALL.map(|split| format!("{split} {}", grouped(manifest.examples(split))));
    let threads = if engine.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", engine.threads) };
    let backbone = format!(
        "{}, {} blocks of width {}, {} px; {} on {}, {threads}",
        card.backbone.name, vit.depth, vit.width, card.preprocess.size, engine.precision, engine.device
    );
    let mut rows = vec![
        ("task", format!("{}, {kind}", card.task)),
        (if manifest.has_bags() { "bags" } else { "images" }, format!("{}: {}", patients(manifest), splits.join(", "))),
        match card.kind {
            TaskKind::Ordinal => ("grades", classes(manifest)),
            TaskKind::Regression => ("numbers", manifest.classes.join(", ")),
            _ => ("classes", classes(manifest)),
        },
        ("backbone", backbone),
    ];
    rows.extend(ranks.map(|ranks| ("ranks", ranks)));
    let settings = settings_in_words(ready.config(), card.kind);
    rows.extend(settings.iter().map(|(name, value)| (*name, value.clone())));
    if let Some((_, method)) = rows.iter_mut().find(|(name, _)| *name == "Method") {
        method.push_str(&updates(&ready.config().lora));
    }
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<String> =
        rows.iter().map(|(name, value)| format!("{:<width$}  {value}", name.to_lowercase())).collect();
    lines.join("\n")
}

/// `: rank 4 and alpha 4, q and v of 12 blocks`; nothing where there are no low-rank updates.
fn updates(lora: &LoraConfig) -> String {
    if lora.rank == 0 {
        return String::new();
    }
    let targets: Vec<String> = lora.targets.iter().map(ToString::to_string).collect();
    let (rank, alpha, blocks) = (lora.rank, lora.alpha, lora.blocks.len());
    format!(": rank {rank} and alpha {alpha}, {} of {blocks} blocks", targets.join(" and "))
}

fn patients(manifest: &Manifest) -> String {
    let named: HashSet<&str> = manifest.rows.iter().filter_map(|row| row.patient_id.as_deref()).collect();
    let images = match manifest.has_bags() {
        true => format!(
            "{} with {} images",
            grouped(Split::ALL.map(|split| manifest.examples(split)).iter().sum()),
            grouped(manifest.rows.len())
        ),
        false => grouped(manifest.rows.len()),
    };
    match named.len() {
        0 => format!("{images}, each its own patient"),
        patients => format!("{images} of {} patients", grouped(patients)),
    }
}

/// Every class with its images in training, validation and test.
fn classes(manifest: &Manifest) -> String {
    let count = |rows: &[&Row], class: usize| {
        grouped(rows.iter().filter(|row| row.is_example() && row.labels.has(class)).count())
    };
    let splits = Split::ALL.map(|split| manifest.split(split));
    let each = manifest.classes.iter().enumerate().take(LISTED).map(|(class, name)| {
        let counts = splits.each_ref().map(|rows| count(rows, class));
        format!("{name} {}", counts.join("/"))
    });
    let more = manifest.classes.len().saturating_sub(LISTED);
    let rest = if more > 0 { format!(", and {more} more") } else { String::new() };
    each.collect::<Vec<_>>().join(", ") + &rest
}

/// `best epoch 7 of 17`, or which penalty was chosen.
pub(super) fn chosen(Finished { best, history, plugin, .. }: &Finished) -> String {
    let epochs = history.len();
    match (&plugin.card.ensemble, best.c) {
        (Some(ensemble), _) if plugin.card.has_base() => format!("{} folds", ensemble.members.len()),
        (Some(ensemble), _) => format!("{} folds, best epochs {} on average", ensemble.members.len(), best.epoch),
        (None, Some(c)) => format!("C {c}, the best of {epochs}"),
        (None, None) => format!("best epoch {} of {epochs}", best.epoch),
    }
}

/// The figures of the test split, what the best epoch says of the number of epochs, and what to do next.
pub(super) fn ending(args: &Args, finished: &Finished) -> String {
    let (best, epochs) = (finished.best.epoch, finished.history.len());
    let card = &finished.plugin.card;
    let mut lines = advice::of_test(card);
    lines.extend(card.calls_unevenly().then(|| {
        let usual = card.own_calibration().thresholds;
        let over = card.classes.iter().zip(&usual).map(|(class, usual)| format!("{class} {usual:.3}"));
        let over = over.take(LISTED).collect::<Vec<_>>().join(", ");
        format!("uneven classes: the one is called whose probability is highest over the usual ({over})")
    }));
    let single = finished.plugin.further.is_empty();
    if best == epochs && epochs > 1 && finished.best.c.is_none() && single {
        let more = epochs + epochs.div_ceil(2);
        lines.push(format!("the best epoch is the last: more may be better, --epochs {more} --resume goes on"));
    }
    let own = args.backbone_out();
    let backbone = own.as_deref().unwrap_or(args.backbone.path()).display();
    let (plugin, data) = (args.out.display(), args.data.display());
    lines.push(match &finished.test {
        Some(_) => format!("next: melo predict --backbone {backbone} --plugin {plugin} IMAGE"),
        None => format!("next: melo eval --backbone {backbone} --plugin {plugin} --data {data} --split val"),
    });
    lines.join("\n")
}
