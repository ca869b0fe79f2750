//! `melo plugin merge`: backbone and plug-in as one plain checkpoint.

use super::describe::say_notes;
use super::export::load;
use crate::verbs::backbone_args::BackboneArgs;
use crate::verbs::task::check_output;
use crate::{Failure, say};
use clap::ValueEnum;
use melo::interop::{merge, write_hugging_face, write_timm};
use std::path::PathBuf;

/// Merge a plug-in into its backbone: a plain checkpoint for timm or Hugging Face
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    melo plugin merge derm.safetensors --backbone vit.safetensors --layout timm --out derm_vit.safetensors\n  \
    melo plugin merge derm.safetensors --backbone vit.safetensors --layout hf --out derm-vit\n\n\
    Bottlenecks are layers of their own and cannot be merged.")]
pub(crate) struct Args {
    /// Plug-in file
    pub(super) plugin: PathBuf,
    #[command(flatten)]
    backbone: BackboneArgs,
    /// Whose checkpoint to write
    #[arg(long, value_enum)]
    layout: LayoutArg,
    /// Folder to write; with --layout timm also a file that ends in .safetensors, its JSON beside it
    #[arg(long)]
    out: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LayoutArg {
    /// model.safetensors and config.json for timm's create_model
    Timm,
    /// Folder for AutoModelForImageClassification and AutoImageProcessor
    Hf,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let Args { plugin: path, backbone, layout, out } = args;
    if *layout == LayoutArg::Timm && out.extension().is_some_and(|extension| extension == "safetensors") {
        check_output("--out", out, &[path, backbone.path()])?;
        check_output(
            "--out",
            &out.with_extension("json"),
            &[path, backbone.path(), &backbone.path.with_extension("json")],
        )?;
    }
    let (checkpoint, plugin) = load(backbone, path)?;
    let merged = merge(checkpoint, &plugin)?;
    let notes = match layout {
        LayoutArg::Timm => write_timm(out, &merged, &plugin)?,
        LayoutArg::Hf => write_hugging_face(out, &merged, &plugin)?,
    };
    say_notes(&notes);
    say(format_args!("wrote {}", out.display()));
    Ok(())
}
