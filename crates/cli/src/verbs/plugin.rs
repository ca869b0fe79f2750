//! `melo plugin`: what a plug-in says of itself.

use crate::{Failure, say, say_json};
use melo_vit::{BottleneckConfig, LoraConfig, PluginInfo, TaskCard, TaskKind};
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// Show a plug-in's card, sizes and digests
    #[command(after_help = "Example:\n  melo plugin info wbc.safetensors --json")]
    Info {
        /// Plug-in file
        plugin: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// The object of `--json`; the contract is `docs/json.md`.
#[derive(Serialize)]
struct Fields<'a> {
    #[serde(serialize_with = "crate::json_path")]
    plugin: &'a Path,
    bytes: usize,
    parameters: usize,
    plugin_digest: &'a str,
    card: &'a TaskCard,
}

pub(crate) fn run(verb: &Verb) -> Result<(), Failure> {
    let Verb::Info { plugin, json } = verb;
    let info = PluginInfo::read(plugin)?;
    if *json {
        return say_json(&Fields {
            plugin,
            bytes: info.bytes,
            parameters: info.parameters(),
            plugin_digest: &info.digest,
            card: &info.card,
        });
    }
    say(describe(&info));
    Ok(())
}

fn describe(info: &PluginInfo) -> String {
    let TaskCard {
        task, kind, classes, preprocess, lora, bottleneck, backbone, metrics, provenance, temperature, ..
    } = &info.card;
    let kind = match kind {
        TaskKind::SingleLabel => "one class an image",
        TaskKind::MultiLabel => "any number of findings an image",
    };
    let metrics: Vec<String> = metrics.iter().map(|(name, &value)| figure(name, value)).collect();
    format!(
        "task        {task}: {kind}\n\
         classes     {}\n\
         adapter     {}\n\
         parameters  {} in {} bytes\n\
         input       {preprocess}\n\
         calibration temperature {temperature}\n\
         metrics     {}\n\
         trained by  {} on {} images, seed {}\n\
         backbone    {} {}\n\
         digest      {}",
        classes.join(", "),
        adapter(lora, bottleneck),
        info.parameters(),
        info.bytes,
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
fn adapter(lora: &LoraConfig, bottleneck: &BottleneckConfig) -> String {
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

/// Counts without decimals, the rest with four.
fn figure(name: &str, value: f64) -> String {
    if value.fract() == 0.0 && value.abs() > 1.0 { format!("{name} {value}") } else { format!("{name} {value:.4}") }
}
