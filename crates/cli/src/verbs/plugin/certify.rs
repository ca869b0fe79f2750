//! `melo plugin certify`: the self-test of a plug-in, run or added.

use crate::verbs::backbone_args::BackboneArgs;
use crate::verbs::task::{PrecisionArg, check_output};
use crate::{Failure, say};
use melo::vit::{Plugin, SelfTest, TaskCard};
use std::path::{Path, PathBuf};

/// Add a self-test to a plug-in that has none, or run the one it has
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    melo plugin certify derm.safetensors --backbone vit.safetensors          (adds it to the file)\n  \
    melo plugin certify derm.safetensors --backbone vit.safetensors --check  (writes nothing)\n\n\
    A self-test is what the plug-in gives on two images that are made of integers. It proves, wherever the plug-in is \
    loaded, that the adapter is active and belongs to the backbone. One that is there is run and stays.")]
pub(crate) struct Args {
    /// Plug-in file
    plugin: PathBuf,
    #[command(flatten)]
    backbone: BackboneArgs,
    /// File to write [default: the plug-in itself, replaced atomically]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Run the self-test and write nothing; a plug-in without one is refused
    #[arg(long, conflicts_with = "out")]
    check: bool,
    /// Numbers that go into the backbone's matrix products; a test between f32 and f32 is the sharpest
    #[arg(long, value_enum, default_value_t = PrecisionArg::F32)]
    precision: PrecisionArg,
}

impl Args {
    /// The plug-in, where it is not written to.
    pub(super) fn read_only(&mut self) -> Option<&mut PathBuf> {
        (self.check || self.out.is_some()).then_some(&mut self.plugin)
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let Args { plugin: path, out, .. } = args;
    if let Some(out) = out {
        check_output("--out", out, &[path, args.backbone.path()])?;
    }
    let engine = args.backbone.engine(args.precision.into())?;
    let mut plugin = Plugin::load(path, engine.backbone())?;
    let had_one = plugin.card.self_test.is_some();
    if !had_one && !args.check {
        plugin.card.self_test = Some(SelfTest::take(&*engine, &plugin)?);
    }
    let bound = plugin.prove(&*engine).map_err(|error| Failure::from(error).of(path))?;
    if had_one {
        let (path, made) = (path.display(), &bound.calibration().made);
        let calibrated = if bound.is_at_home() { String::new() } else { format!(", calibrated in {made}") };
        say(format_args!("{path}: passes its self-test in {}{calibrated}", engine.info().precision));
    }
    match out {
        Some(out) => write(path, &bound.card, out)?,
        None if !had_one => write(path, &bound.card, path)?,
        None => {}
    }
    Ok(())
}

fn write(from: &Path, card: &TaskCard, to: &Path) -> Result<(), Failure> {
    Plugin::replace_card(from, card, to)?;
    say(format_args!(
        "wrote {}: self-test {}, format {}",
        to.display(),
        melo::train::self_test_in_words(card),
        card.format_written()
    ));
    Ok(())
}
