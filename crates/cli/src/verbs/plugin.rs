//! `melo plugin`: what a plug-in says of itself.

use crate::{Failure, say, say_json};
use melo_vit::{PluginInfo, TaskCard, TaskKind};
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
    let TaskCard { task, kind, classes, preprocess, lora, backbone, metrics, provenance, temperature, .. } = &info.card;
    let kind = match kind {
        TaskKind::SingleLabel => "one class an image",
        TaskKind::MultiLabel => "any number of findings an image",
    };
    let targets: Vec<String> = lora.targets.iter().map(ToString::to_string).collect();
    let adapter = match lora.rank {
        0 => "none (linear probe)".to_owned(),
        r => format!("rank {r}, alpha {}, on {} of {} blocks", lora.alpha, targets.join(" "), lora.blocks.len()),
    };
    let metrics: Vec<String> = metrics.iter().map(|(name, &value)| figure(name, value)).collect();
    format!(
        "task        {task}: {kind}\n\
         classes     {}\n\
         adapter     {adapter}\n\
         parameters  {} in {} bytes\n\
         input       {preprocess}\n\
         calibration temperature {temperature}\n\
         metrics     {}\n\
         trained by  {} on {} images, seed {}\n\
         backbone    {} {}\n\
         digest      {}",
        classes.join(", "),
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

/// Counts without decimals, the rest with four.
fn figure(name: &str, value: f64) -> String {
    if value.fract() == 0.0 && value.abs() > 1.0 { format!("{name} {value}") } else { format!("{name} {value:.4}") }
}
