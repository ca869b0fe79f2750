//! `melo bench train`: optimizer steps of a low-rank plug-in.

use super::line::{Line, Unit};
use super::random::{ArchArgs, PluginArgs, batch};
use super::repeat::{RepeatArgs, Spread, timed};
use crate::Failure;
use melo::train::{AdamW, AdamWStep, TensorStep, defaults};
use melo::vit::{Adapter, Batch, Gradients, Head, ImageBatch, cross_entropy};

/// Steps of a plug-in on a frozen backbone: forward, backward and AdamW
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    melo bench train --arch vit_base_patch16_224 --batch-size 32 --precision auto\n  \
    melo bench train --arch vit_tiny_patch16_224 --batch-size 128 --json      (memory does not grow with the batch)\n\n\
    Images are in memory already: nothing is decoded or augmented.")]
pub(crate) struct Args {
    #[command(flatten)]
    backbone: ArchArgs,
    #[command(flatten)]
    plugin: PluginArgs,
    /// Images of a step
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
    let (backbone, vit) = (engine.backbone(), engine.backbone().config());
    let (batch, size, classes) = (args.batch, vit.image_size, args.plugin.classes);
    let source = ImageBatch::random(batch, size, 0);
    let mut adapter = Adapter::init(&args.plugin.lora(vit)?, vit, 0);
    let mut head = Head::zeros(classes, vit.feature_width());
    let first_block = adapter.first_block().unwrap_or(vit.depth);
    let mut gradients = Gradients::zeros(&adapter, &head, vit, false);
    let mut optimizer = AdamW::new(gradients.tensors().into_iter().map(Vec::len));
    let whole = vec![TensorStep::WHOLE; gradients.tensors().len()];
    let step = AdamWStep::new(defaults::LEARNING_RATE, defaults::WEIGHT_DECAY);
    let loss = |image: usize, logits: &[f32], d_logits: &mut [f32]| {
        cross_entropy(logits, image % classes, 0.0, &[], 1.0 / batch as f64, d_logits)
    };
    let mut losses = Vec::new();
    let seconds = args.repeat.measure(|| {
        timed(|| {
            gradients.clear();
            let input = Batch { source: &source, images: batch, size, loss: &loss, dropout: None };
            let (loss, _) = engine.step(&input, &adapter, &head, &mut gradients)?;
            let parameters = adapter.tensors_mut().into_iter().chain(head.tensors_mut()).collect();
            optimizer.step(parameters, &gradients.tensors(), &whole, step);
            losses.push(loss);
            Ok(())
        })
    })?;
    let spread = Spread::of(seconds.iter().map(|seconds| batch as f64 / seconds));
    let (first, last) = (losses[0], losses[losses.len() - 1]);
    Line::new("train", backbone.name(), Unit::ImagesPerSecond, spread)
        .batch(batch)
        .precision(engine.info().precision)
        .with("rank", args.plugin.rank)?
        .with("repeats", seconds.len())?
        .with("first_loss", first)?
        .with("last_loss", last)?
        .against_peak(&*engine, vit.training_flops(size, first_block))?
        .print(args.json, &format!("  loss {first:.4} before the first step, {last:.4} before the last\n"))
}
