//! Plug-ins in words for a terminal.

use crate::{advice, note};
use melo::train::{adapter_in_words, calibrations_in_words, ensemble_in_words, self_test_in_words};
use melo::vit::{PluginInfo, ScopeConfig, TaskCard};

/// What a user should know of a result, a line each.
pub(super) fn say_notes(notes: &[String]) {
    notes.iter().for_each(|line| note(format_args!("note: {line}")));
}

/// A plug-in in a few lines.
pub(super) fn describe(info: &PluginInfo) -> String {
    let TaskCard { task, kind, classes, preprocess, backbone, metrics, provenance, .. } = &info.card;
    let kind = kind.in_words();
    let metrics: Vec<String> =
        metrics.iter().filter(|(name, _)| !name.contains('/')).map(|(name, &value)| figure(name, value)).collect();
    let measured: String = advice::of_test(&info.card).iter().map(|line| format!("\n{line}")).collect();
    let ensemble = info.card.ensemble.as_ref();
    let ensemble =
        ensemble.map_or_else(String::new, |ensemble| format!("\nensemble    {}", ensemble_in_words(ensemble)));
    format!(
        "task        {task}: {kind}\n\
         classes     {}\n\
         adapter     {}\n\
         parameters  {} in {} bytes{ensemble}\n\
         scope       {}\n\
         input       {preprocess}\n\
         calibration {}\n\
         self-test   {}\n\
         metrics     {}\n\
         trained by  {} on {} images, seed {}\n\
         backbone    {} {}\n\
         digest      {}{measured}",
        classes.join(", "),
        adapter_in_words(&info.card),
        info.parameters(),
        info.bytes,
        scope_described(info),
        calibrations_in_words(&info.card),
        self_test_in_words(&info.card),
        metrics.join(", "),
        provenance.software,
        provenance.train_images,
        provenance.seed,
        backbone.name,
        backbone.digest,
        info.digest,
    )
}

/// What the description of the training images is, and what it takes.
fn scope_described(info: &PluginInfo) -> String {
    let Some(ScopeConfig { blocks, dimensions, points, .. }) = &info.card.scope else { return "none".to_owned() };
    let blocks: Vec<String> = blocks.iter().map(ToString::to_string).collect();
    format!("blocks {}, {points} images in {dimensions} dimensions, {} bytes", blocks.join(" "), info.scope_bytes)
}

/// Counts without decimals, the rest with four.
fn figure(name: &str, value: f64) -> String {
    if value.fract() == 0.0 && value.abs() > 1.0 { format!("{name} {value}") } else { format!("{name} {value:.4}") }
}
