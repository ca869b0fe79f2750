//! `melo plugin export`: a plug-in in the files of others.

use super::describe::say_notes;
use crate::verbs::backbone_args::BackboneArgs;
use crate::verbs::task::check_output;
use crate::{Failure, say};
use clap::ValueEnum;
use melo::interop::{AuthorsFormat, Layout, OnnxWeights, write_authors, write_onnx, write_peft};
use melo::vit::{Checkpoint, Plugin};
use std::path::{Path, PathBuf};

/// Write a plug-in for PEFT, for the paper's authors' code, or with its backbone as ONNX
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    melo plugin export derm.safetensors --backbone vit.safetensors --format peft --out derm-peft\n  \
    melo plugin export derm.safetensors --backbone vit.safetensors --format onnx --out derm.onnx\n\n\
    What a format cannot hold is refused by name.")]
pub(crate) struct Args {
    /// Plug-in file
    pub(super) plugin: PathBuf,
    #[command(flatten)]
    backbone: BackboneArgs,
    /// Whose files to write
    #[arg(long, value_enum)]
    format: FormatArg,
    /// Whose model the adapter is for; only with --format peft [default: timm]
    #[arg(long, value_enum)]
    layout: Option<LayoutArg>,
    /// Folder to write with --format peft, else file
    #[arg(long)]
    out: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatArg {
    /// Folder that PEFT's PeftModel.from_pretrained loads, the card beside it
    Peft,
    /// File of the paper's authors: q and v of every block, a classifier without a bias
    Authors,
    /// File of UniCAD's: the same, a classifier with a bias
    Unicad,
    /// Backbone with the plug-in merged in, classifier and calibrated probabilities, opset 17; weights of more than 1.5 GB
    /// lie in OUT.data beside it
    Onnx,
}

#[derive(Clone, Copy, ValueEnum)]
enum LayoutArg {
    /// timm's VisionTransformer
    Timm,
    /// Hugging Face's ViT in transformers before version 5
    Hf,
    /// Hugging Face's ViT since transformers 5
    HfNew,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let Args { plugin: path, backbone, format, layout, out } = args;
    if layout.is_some() && *format != FormatArg::Peft {
        return Err(Failure::Usage("--layout belongs to --format peft".to_owned()));
    }
    if *format != FormatArg::Peft {
        check_output("--out", out, &[path, backbone.path()])?;
    }
    let (checkpoint, plugin) = load(backbone, path)?;
    let config = checkpoint.config.clone();
    let notes = match format {
        FormatArg::Peft => {
            let layout = match layout {
                None | Some(LayoutArg::Timm) => Layout::Timm,
                Some(LayoutArg::Hf) => Layout::HuggingFace,
                Some(LayoutArg::HfNew) => Layout::HuggingFaceNew,
            };
            write_peft(out, &plugin, &config, layout)?;
            Vec::new()
        }
        FormatArg::Authors => write_authors(out, &plugin, &config, AuthorsFormat::Melo)?,
        FormatArg::Unicad => write_authors(out, &plugin, &config, AuthorsFormat::UniCad)?,
        FormatArg::Onnx => {
            write_onnx(out, checkpoint, &plugin, OnnxWeights::Auto)?;
            Vec::new()
        }
    };
    say_notes(&notes);
    say(format_args!("wrote {}", out.display()));
    Ok(())
}

/// A backbone's weights, and a plug-in that belongs to them.
pub(super) fn load(backbone: &BackboneArgs, plugin: &Path) -> Result<(Checkpoint, Plugin), Failure> {
    let backbone = backbone.read()?;
    let plugin = Plugin::load(plugin, backbone.info())?;
    Ok((backbone.thaw(), plugin))
}
