//! `melo bench switch`: from one task to another.

use super::line::{Line, Unit, time};
use super::random::{ArchArgs, PluginArgs};
use super::repeat::{RepeatArgs, Spread, timed};
use crate::Failure;
use melo::vit::{Plugin, PluginRef, Segment, Storage};
use std::hint::black_box;
use std::time::Instant;

/// Switches that are timed together: one alone is shorter than a clock can tell.
const SWITCHES: usize = 1_000_000;

/// Time to switch the plug-in of a loaded model, and to load one from a file
#[derive(clap::Args)]
#[command(after_help = "Example:\n  melo bench switch --arch vit_base_patch16_224 --json\n\n\
    A switch changes the plug-in that the next forward pass is given; the backbone is not touched. Loading reads the file, \
    checks it, and takes its digest.")]
pub(crate) struct Args {
    #[command(flatten)]
    backbone: ArchArgs,
    #[command(flatten)]
    plugin: PluginArgs,
    #[command(flatten)]
    repeat: RepeatArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let engine = args.backbone.engine()?;
    let [first, second] = [0, 1].map(|number| args.plugin.plugin(&*engine, number));
    let plugins = [first?, second?];
    let mut segment = Segment { images: 0..1, plugins: vec![PluginRef::from(&plugins[0])] };
    let switching = Spread::of(args.repeat.measure(|| {
        let started = Instant::now();
        for switch in 0..SWITCHES {
            black_box(&mut segment).plugins[0] = PluginRef::from(black_box(&plugins[switch % 2]));
        }
        Ok(started.elapsed().as_secs_f64() / SWITCHES as f64)
    })?);

    let folder = tempfile::tempdir()?;
    let path = folder.path().join("plugin.safetensors");
    plugins[0].save(&path, engine.backbone().config(), Storage::F32)?;
    let loading = Spread::of(args.repeat.measure(|| {
        timed(|| {
            black_box(Plugin::load(&path, engine.backbone())?);
            Ok(())
        })
    })?);
    let bytes = std::fs::metadata(&path)?.len();
    let details = format!(
        "  loading it from a file of {:.0} kB: {} ({} to {})\n",
        bytes as f64 / 1e3,
        time(loading.median),
        time(loading.min),
        time(loading.max)
    );
    Line::new("switch", engine.backbone().name(), Unit::Seconds, switching)
        .precision(engine.info().precision)
        .with("rank", args.plugin.rank)?
        .with("load_seconds", loading)?
        .with("plugin_bytes", bytes)?
        .print(args.json, &details)
}
