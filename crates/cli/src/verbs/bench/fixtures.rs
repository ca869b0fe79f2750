//! `melo bench fixtures`: a backbone and plug-ins for load tests, so that anyone can repeat one.

use super::random::{PluginArgs, described};
use crate::verbs::task::PrecisionArg;
use crate::{Failure, machine, say, say_json};
use melo::vit::{Checkpoint, Engine, Plugin, PluginInfo, Storage};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The file of the backbone, and the folder of the plug-ins.
const BACKBONE: &str = "backbone.safetensors";
const PLUGINS: &str = "plugins";

/// Write a backbone and plug-ins of random weights, to try a server on
#[derive(clap::Args)]
#[command(after_help = "Example:\n  \
    melo bench fixtures load-test --arch vit_base_patch16_224 --plugins 20\n  \
    melo bench fixtures load-int8 --arch vit_base_patch16_224 --plugins 20 --precision int8\n  \
    melo bench load --url http://127.0.0.1:8080 --backbone load-test/backbone.safetensors --plugins load-test/plugins\n\n\
    Files are a function of the options alone: the same everywhere. They answer, and know nothing.")]
pub(crate) struct Args {
    /// Folder to write to; files of the same names are replaced
    folder: PathBuf,
    /// Architecture by timm's name of a plain ViT, or vit_SIZE_patchP_S with any patch and image side
    #[arg(long, default_value = "vit_base_patch16_224", value_name = "NAME")]
    arch: String,
    /// Plug-ins
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    plugins: u16,
    #[command(flatten)]
    plugin: PluginArgs,
    /// Numbers that the self-tests are taken in: those that the server to be tried computes in
    #[arg(long, value_enum, default_value_t = PrecisionArg::F32)]
    precision: PrecisionArg,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// One plug-in that was written.
#[derive(Serialize)]
struct Written {
    task: String,
    #[serde(serialize_with = "crate::json_path")]
    plugin: PathBuf,
    plugin_digest: String,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let (path, folder) = (args.folder.join(BACKBONE), args.folder.join(PLUGINS));
    let failed = |error: std::io::Error| Failure::Message(format!("{}: {error}", folder.display()));
    let checkpoint = Checkpoint::random(described(&args.arch)?, 0);
    args.plugin.lora(&checkpoint.config)?;
    std::fs::create_dir_all(&folder).map_err(failed)?;
    checkpoint.write(&path, Storage::F32)?;
    let engine = machine::device(args.precision.into()).load(checkpoint.freeze())?;
    let backbone = engine.backbone();
    let written: Vec<Written> = (0..usize::from(args.plugins))
        .map(|number| write(&folder, args.plugin.plugin(&*engine, number)?, &*engine))
        .collect::<Result<_, Failure>>()?;
    if args.json {
        return say_json(&serde_json::json!({
            "bench": "fixtures",
            "arch": backbone.name(),
            "backbone": path.to_string_lossy(),
            "backbone_digest": backbone.digest(),
            "plugins": written,
        }));
    }
    let (path, folder, count) = (path.display(), folder.display(), written.len());
    say(format!(
        "{path}: {}, random\n{folder}: {count} plug-ins of rank {}, random",
        backbone.name(),
        args.plugin.rank
    ));
    Ok(())
}

/// Finishes a plug-in: a self-test, and a file.
fn write(folder: &Path, mut plugin: Plugin, engine: &dyn Engine) -> Result<Written, Failure> {
    let path = folder.join(format!("{}.safetensors", plugin.card.task));
    plugin.finish(engine, Storage::F32)?;
    plugin.save(&path, engine.backbone().config(), Storage::F32)?;
    Ok(Written { task: plugin.card.task, plugin_digest: PluginInfo::read(&path)?.digest, plugin: path })
}
