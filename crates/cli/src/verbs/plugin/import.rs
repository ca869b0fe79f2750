//! `melo plugin import`: an adapter of others becomes a plug-in.

use super::describe::say_notes;
use crate::verbs::backbone_args::BackboneArgs;
use crate::verbs::task::check_output;
use crate::{Failure, say};
use clap::ValueEnum;
use melo::interop::{AdapterFormat, ImportSettings, import};
use melo::vit::{PluginInfo, Precision, Storage};
use std::path::{Path, PathBuf};

/// Turn an adapter of PEFT, or a file of the paper's authors, into a plug-in
#[derive(clap::Args)]
#[command(
    group = clap::ArgGroup::new("names").args(["classes", "classes_file"]),
    after_help = "Examples:\n  \
    melo plugin import adapter/ --backbone vit.safetensors --task derm --classes benign,malignant --out derm.safetensors\n  \
    melo plugin import lora.safetensors --backbone vit.safetensors --alpha 4 --task chest --classes-file findings.txt --multi-label --out chest.safetensors\n\n\
    What cannot be carried over exactly is refused by name. What is held in another way is said in a note."
)]
pub(crate) struct Args {
    /// Folder with adapter_config.json and adapter_model.safetensors, or file with tensors w_a_000, w_b_000, …
    adapter: PathBuf,
    #[command(flatten)]
    backbone: BackboneArgs,
    /// Whose files they are [default: told by their content]
    #[arg(long, value_enum)]
    format: Option<FormatArg>,
    /// Name of the task; a card says it itself
    #[arg(long)]
    task: Option<String>,
    /// Names of the classes, in the order of the classifier's rows; a card says them itself
    #[arg(long, value_delimiter = ',')]
    classes: Option<Vec<String>>,
    /// File with a class a line, instead of --classes
    #[arg(long)]
    classes_file: Option<PathBuf>,
    /// Any number of findings an image, instead of exactly one class
    #[arg(long)]
    multi_label: bool,
    /// Card as JSON: class names, preprocessing, temperature, thresholds; a melo_card.json in the folder is found without
    #[arg(long)]
    card: Option<PathBuf>,
    /// Safetensors file with the classifier, where the adapter holds none
    #[arg(long)]
    head: Option<PathBuf>,
    /// Numerator of the scale alpha / r, for files of the authors, which do not say it. The authors' code divides whole
    /// numbers: where r does not divide the alpha it was given, give the largest multiple of r below. Here nothing is rounded
    #[arg(long)]
    alpha: Option<f32>,
    /// Plug-in to write
    #[arg(long)]
    out: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum FormatArg {
    /// Folder of Hugging Face's PEFT
    Peft,
    /// File of the paper's authors, or of UniCAD's
    Authors,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let read = [Some(&args.backbone.path), Some(&args.adapter), args.card.as_ref(), args.head.as_ref()];
    let inputs: Vec<&Path> = read.into_iter().flatten().chain(&args.classes_file).map(PathBuf::as_path).collect();
    check_output("--out", &args.out, &inputs)?;
    let classes = match &args.classes_file {
        Some(path) => Some(lines(path)?),
        None => args.classes.clone(),
    };
    let engine = args.backbone.engine(Some(Precision::F32))?;
    let settings = ImportSettings {
        format: args.format.map(|format| match format {
            FormatArg::Peft => AdapterFormat::Peft,
            FormatArg::Authors => AdapterFormat::Authors,
        }),
        task: args.task.as_deref(),
        classes: classes.as_deref(),
        multi_label: args.multi_label,
        card: args.card.as_deref(),
        head: args.head.as_deref(),
        alpha: args.alpha,
    };
    let imported = import(&args.adapter, &*engine, &settings)?;
    imported.plugin.save(&args.out, engine.backbone().config(), Storage::F32)?;
    say_notes(&imported.notes);
    say(super::describe::describe(&PluginInfo::read(&args.out)?));
    Ok(())
}

/// The lines of a text file, without those that are empty.
fn lines(path: &Path) -> Result<Vec<String>, Failure> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| Failure::Message(format!("{}: {error}", path.display())))?;
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}
