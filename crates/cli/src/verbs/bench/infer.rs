//! `melo bench infer`: forward passes.

use super::line::{Line, Unit};
use super::random::{ArchArgs, PluginArgs, batch};
use super::repeat::{RepeatArgs, Spread, timed};
use crate::Failure;
use melo::vit::{ImageBatch, PluginRef, Segment};

/// Forward passes of a batch: images a second, and the share of the machine's peak that they reach
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    melo bench infer --arch vit_base_patch16_224 --batch-size 32 --precision bf16\n  \
    melo --threads 1 bench infer --arch vit_small_patch16_224 --batch-size 1 --seconds 10 --json\n\n\
    Weights are random; nothing is downloaded. The peak is that of multiply-adds in registers on all threads at once, \
    measured in the same run.")]
pub(crate) struct Args {
    #[command(flatten)]
    backbone: ArchArgs,
    #[command(flatten)]
    plugin: PluginArgs,
    /// Images of a batch
    #[arg(long = "batch-size", alias = "batch", default_value_t = 32, value_name = "N", value_parser = batch)]
    batch: usize,
    #[command(flatten)]
    repeat: RepeatArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let engine = args.backbone.engine()?;
    let backbone = engine.backbone();
    let plugin = args.plugin.plugin(&*engine, 0)?;
    let (batch, size) = (args.batch, backbone.config().image_size);
    let source = ImageBatch::random(batch, size, 0);
    let segments = [Segment { images: 0..batch, plugins: vec![PluginRef::from(&plugin)] }];
    let seconds = args.repeat.measure(|| {
        timed(|| {
            std::hint::black_box(engine.forward(&source, size, &segments)?);
            Ok(())
        })
    })?;
    let spread = Spread::of(seconds.iter().map(|seconds| batch as f64 / seconds));
    Line::new("infer", backbone.name(), Unit::ImagesPerSecond, spread)
        .batch(batch)
        .precision(engine.info().precision)
        .with("rank", args.plugin.rank)?
        .with("repeats", seconds.len())?
        .against_peak(&*engine, backbone.config().forward_flops(size))?
        .print(args.json, "")
}
