//! `melo plugin fold`: one member of an ensemble as a plug-in of its own.

use crate::verbs::task::check_output;
use crate::{Failure, say};
use melo::vit::Plugin;
use std::path::PathBuf;

/// Write one fold of an ensemble as a plug-in of its own
#[derive(clap::Args)]
#[command(after_help = "Example:\n  melo plugin fold derm.safetensors --fold 2 --out derm_fold2.safetensors\n\n\
    Its numbers are the ensemble's, bit for bit, and so are temperature, thresholds and sets, which were fitted on what all folds say of images \
    that they did not see. The ensemble's test figures are not its own: `melo eval` measures it.")]
pub(crate) struct Args {
    /// Plug-in file of an ensemble (`melo train --folds`)
    plugin: PathBuf,
    /// Which fold, from 1
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    fold: u32,
    /// File to write
    #[arg(long)]
    out: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let Args { plugin, fold, out } = args;
    check_output("--out", out, &[plugin])?;
    let card = Plugin::write_member(plugin, *fold as usize - 1, out)?;
    say(format_args!("wrote {}: fold {fold}, trained on {} images", out.display(), card.provenance.train_images));
    Ok(())
}
