//! `melo bench mixed`: many plug-ins in one batch, and in memory.

use super::line::{Line, Unit};
use super::random::{ArchArgs, PluginArgs, batch};
use super::repeat::{RepeatArgs, Spread, timed};
use crate::{Failure, machine};
use melo::vit::{BackboneInfo, ImageBatch, Plugin, PluginRef, Segment, Storage};
use std::ops::Range;

/// A batch in which every image has a plug-in of its own, against the same batch with one; and what plug-ins take in memory
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    melo bench mixed --arch vit_base_patch16_224 --batch-size 32 --repeats 9\n  \
    melo bench mixed --arch vit_tiny_patch16_224 --resident 0 --json\n\n\
    Both kinds of batch are measured in turn; the ratio is that of neighbours.")]
pub(crate) struct Args {
    #[command(flatten)]
    backbone: ArchArgs,
    #[command(flatten)]
    plugin: PluginArgs,
    /// Images of a batch, and plug-ins
    #[arg(long = "batch-size", alias = "batch", default_value_t = 32, value_name = "N", value_parser = batch)]
    batch: usize,
    /// Plug-ins that are loaded at once to see what memory they take, an even number; 0 leaves that out
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = even)]
    resident: usize,
    #[command(flatten)]
    repeat: RepeatArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn even(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n: &usize| n.is_multiple_of(2)).ok_or_else(|| "expected an even number".to_owned())
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let engine = args.backbone.engine()?;
    let backbone = engine.backbone();
    let (batch, size) = (args.batch, backbone.config().image_size);
    let source = ImageBatch::random(batch, size, 0);
    let plugins: Vec<Plugin> =
        (0..batch).map(|number| args.plugin.plugin(&*engine, number)).collect::<Result<_, _>>()?;
    fn segment(images: Range<usize>, plugin: &Plugin) -> Segment<'_> {
        Segment { images, plugins: vec![PluginRef::from(plugin)] }
    }
    let mixed: Vec<Segment<'_>> = plugins.iter().enumerate().map(|(i, plugin)| segment(i..i + 1, plugin)).collect();
    let alone = [segment(0..batch, &plugins[0])];
    let rate = |segments: &[Segment<'_>]| -> Result<f64, Failure> {
        let seconds = timed(|| {
            std::hint::black_box(engine.forward(&source, size, segments)?);
            Ok(())
        })?;
        Ok(batch as f64 / seconds)
    };
    let mut turn = 0;
    let pairs = args.repeat.measure(|| {
        turn += 1;
        // Whoever comes first finds other caches: each does every second time.
        if turn % 2 == 0 {
            let mixed = rate(&mixed)?;
            Ok((mixed, rate(&alone)?))
        } else {
            let alone = rate(&alone)?;
            Ok((rate(&mixed)?, alone))
        }
    })?;
    let ratio = Spread::of(pairs.iter().map(|(mixed, alone)| mixed / alone));
    let one = Spread::of(pairs.iter().map(|(_, alone)| *alone));
    let line =
        Line::new("mixed", backbone.name(), Unit::ImagesPerSecond, Spread::of(pairs.iter().map(|(mixed, _)| *mixed)));
    let resident = resident(args, backbone, &plugins[0])?;
    let mut details = format!(
        "  {batch} plug-ins against one: {:.3} of its {:.2} images/s ({:.3} to {:.3}, {} pairs)\n",
        ratio.median,
        one.median,
        ratio.min,
        ratio.max,
        pairs.len()
    );
    if let Some(bytes) = resident {
        details += &format!("  {} plug-ins in memory: {:.1} MB\n", args.resident, bytes as f64 / 1e6);
    }
    line.batch(batch)
        .precision(engine.info().precision)
        .with("rank", args.plugin.rank)?
        .with("repeats", pairs.len())?
        .with("plugins", batch)?
        .with("one_plugin_images_per_s", one)?
        .with("ratio", ratio)?
        .with("resident_plugins", args.resident)?
        .with("resident_bytes", resident)?
        .print(args.json, &details)
}

/// Bytes by which this process grows when it loads plug-ins from a file, as a server does.
///
/// The first half fills what earlier work left free in the heap; twice what the second half takes counts.
fn resident(args: &Args, backbone: &BackboneInfo, plugin: &Plugin) -> Result<Option<u64>, Failure> {
    if args.resident == 0 {
        return Ok(None);
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("plugin.safetensors");
    plugin.save(&path, backbone.config(), Storage::F32)?;
    let half = args.resident / 2;
    let load = || (0..half).map(|_| Plugin::load(&path, backbone)).collect::<Result<Vec<_>, _>>();
    let first = load()?;
    let before = machine::rss_bytes(None);
    let second = load()?;
    let after = machine::rss_bytes(None);
    std::hint::black_box((first, second));
    Ok(before.zip(after).map(|(before, after)| 2 * after.saturating_sub(before)))
}
