//! Plug-ins in words for a terminal.

use crate::note;
use melo_vit::{PluginInfo, TaskCard, TaskKind};

/// What a user should know of a result, a line each.
pub(super) fn say_notes(notes: &[String]) {
    notes.iter().for_each(|line| note(format_args!("note: {line}")));
}

/// A plug-in in a few lines.
pub(super) fn describe(info: &PluginInfo) -> String {
    let TaskCard { task, kind, classes, preprocess, backbone, metrics, provenance, temperature, .. } = &info.card;
    let kind = match kind {
        TaskKind::SingleLabel => "one class an image",
        TaskKind::MultiLabel => "any number of findings an image",
    };
    let metrics: Vec<String> =
        metrics.iter().filter(|(name, _)| !name.contains('/')).map(|(name, &value)| figure(name, value)).collect();
    format!(
        "task        {task}: {kind}\n\
         classes     {}\n\
         adapter     {}\n\
         parameters  {} in {} bytes\n\
         input       {preprocess}\n\
         calibration temperature {temperature}\n\
         self-test   {}\n\
         metrics     {}\n\
         trained by  {} on {} images, seed {}\n\
         backbone    {} {}\n\
         digest      {}",
        classes.join(", "),
        adapter(&info.card),
        info.parameters(),
        info.bytes,
        self_test(&info.card),
        metrics.join(", "),
        provenance.software,
        provenance.train_images,
        provenance.seed,
        backbone.name,
        backbone.digest,
        info.digest,
    )
}

/// What a plug-in adds to the blocks.
pub(super) fn adapter(card: &TaskCard) -> String {
    let TaskCard { lora, bottleneck, .. } = card;
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
    if parts.is_empty() { "none (linear probe)".to_owned() } else { parts.join("; ") }
}

/// Whether a plug-in can prove itself, in words.
pub(super) fn self_test(card: &TaskCard) -> String {
    card.self_test.as_ref().map_or("none".to_owned(), |test| format!("taken in {}", test.precision))
}

/// Counts without decimals, the rest with four.
fn figure(name: &str, value: f64) -> String {
    if value.fract() == 0.0 && value.abs() > 1.0 { format!("{name} {value}") } else { format!("{name} {value:.4}") }
}
