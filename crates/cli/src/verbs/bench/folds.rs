//! `melo bench folds`: an ensemble of folds against one plug-in.

use super::line::{Line, Unit};
use super::random::{ArchArgs, batch};
use super::repeat::{RepeatArgs, Spread, timed};
use crate::Failure;
use melo::train::{Method, MethodSettings, SOFTWARE, TrainConfig};
use melo::vit::{
    Adapter, Engine, Ensemble, Head, ImageBatch, LoraConfig, Member, MemberRecord, Plugin, PluginRef, Provenance,
    Segment, Storage, TaskCard, TaskKind,
};
use std::collections::BTreeMap;

/// An ensemble of folds as `melo train --folds` makes it, against one plug-in as it makes that
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    melo bench folds --arch vit_base_patch16_224 --folds 5 --repeats 9\n  \
    melo bench folds --arch vit_tiny_patch16_224 --folds 5 --last-k 3 --batch-size 1 --json\n\n\
    Both are measured in turn; the ratio is that of neighbours. The one plug-in adapts every block, the folds each the last two in its own way, or --last-k and no others.")]
pub(crate) struct Args {
    #[command(flatten)]
    backbone: ArchArgs,
    /// Folds of the ensemble
    #[arg(long, default_value_t = 5, value_name = "K", value_parser = clap::value_parser!(u32).range(2..=20))]
    folds: u32,
    /// Last blocks that the folds adapt [default: as `melo train --folds`]
    #[arg(long, value_name = "K")]
    last_k: Option<usize>,
    /// Classes of a head
    #[arg(long, default_value_t = 7, value_name = "C", value_parser = clap::value_parser!(u32).range(2..=100_000))]
    classes: u32,
    /// Images of a batch
    #[arg(long = "batch-size", alias = "batch", default_value_t = 16, value_name = "N", value_parser = batch)]
    batch: usize,
    #[command(flatten)]
    repeat: RepeatArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let engine = args.backbone.engine()?;
    let vit = engine.backbone().config();
    let (batch, size, folds) = (args.batch, vit.image_size, args.folds as usize);
    let settings = |folds| {
        let last_k = if folds == 0 { None } else { args.last_k };
        let settings =
            MethodSettings { folds: Some(folds).filter(|folds| *folds > 0), last_k, ..MethodSettings::default() };
        settings.resolve(Method::Lora, vit.depth).map_err(|error| Failure::Usage(error.to_string()))
    };
    let one = plugin(args, &*engine, &settings(0)?, 0);
    let ensemble = plugin(args, &*engine, &settings(folds)?, folds);
    let source = ImageBatch::random(batch, size, 0);
    let of_one = [Segment { images: 0..batch, plugins: vec![PluginRef::from(&one)] }];
    let of_all = [Segment { images: 0..batch, plugins: ensemble.members().collect() }];
    let seconds = |segments: &[Segment<'_>]| {
        timed(|| {
            std::hint::black_box(engine.forward(&source, size, segments)?);
            Ok(())
        })
    };
    let mut turn = 0;
    let pairs = args.repeat.measure(|| {
        turn += 1;
        // Whoever comes first finds other caches: each does every second time.
        if turn % 2 == 0 {
            let all = seconds(&of_all)?;
            Ok((all, seconds(&of_one)?))
        } else {
            let one = seconds(&of_one)?;
            Ok((seconds(&of_all)?, one))
        }
    })?;
    let file = tempfile::NamedTempFile::new()?;
    let bytes_of = |plugin: &Plugin| -> Result<u64, Failure> {
        plugin.save(file.path(), vit, Storage::F32)?;
        Ok(std::fs::metadata(file.path())?.len())
    };
    let (bytes, one_bytes) = (bytes_of(&ensemble)?, bytes_of(&one)?);
    let rate = |seconds: f64| batch as f64 / seconds;
    let ratio = Spread::of(pairs.iter().map(|(all, one)| all / one));
    let operations = ensemble.card.ensemble.as_ref().map_or(1.0, |ensemble| ensemble.cost);
    let details = format!(
        "  {folds} folds take {:.3} times as long as one plug-in ({:.3} to {:.3}, {} pairs), {operations:.2} times the operations\n  \
         {:.2} MB, one plug-in {:.2} MB\n",
        ratio.median,
        ratio.min,
        ratio.max,
        pairs.len(),
        bytes as f64 / 1e6,
        one_bytes as f64 / 1e6
    );
    let spread = Spread::of(pairs.iter().map(|(all, _)| rate(*all)));
    Line::new("folds", engine.backbone().name(), Unit::ImagesPerSecond, spread)
        .batch(batch)
        .precision(engine.info().precision)
        .with("folds", folds)?
        .with("repeats", pairs.len())?
        .with("one_plugin_images_per_s", Spread::of(pairs.iter().map(|(_, one)| rate(*one))))?
        .with("time_ratio", ratio)?
        .with("operations_ratio", operations)?
        .with("plugin_bytes", bytes)?
        .with("one_plugin_bytes", one_bytes)?
        .print(args.json, &details)
}

/// Random plug-ins of one task as an ensemble; a single one of none.
fn plugin(args: &Args, engine: &dyn Engine, config: &TrainConfig, folds: usize) -> Plugin {
    let (backbone, classes) = (engine.backbone(), args.classes as usize);
    let vit = backbone.config();
    let names = (0..classes).map(|class| format!("class_{class}")).collect();
    let (preprocess, reference) = (backbone.preprocess().clone(), backbone.reference());
    let mut card = TaskCard::new("random".to_owned(), TaskKind::SingleLabel, names, preprocess, reference);
    card.provenance = Provenance { software: SOFTWARE.to_owned(), ..Provenance::default() };
    let record = MemberRecord { train_images: 0, val_images: 0, split_digest: String::new(), metrics: BTreeMap::new() };
    let late = config.late.as_ref().map(|late| config.of_member(late).lora);
    let first = |lora: &LoraConfig| lora.blocks.first().copied().unwrap_or(vit.depth);
    card.ensemble = (folds > 0).then(|| Ensemble {
        members: vec![record; folds],
        cost: vit.ensemble_cost(vit.image_size, first(late.as_ref().unwrap_or(&config.lora)), folds),
        shared: late.as_ref().map(first),
    });
    let base = Adapter::random(&config.lora, vit, 0);
    let member = |seed: u64| Member {
        adapter: match &late {
            Some(late) => base.beside(&Adapter::random(late, vit, seed), vit),
            None => Adapter::random(&config.lora, vit, seed),
        },
        head: Head::random(classes, vit.feature_width(), seed),
    };
    let Member { adapter, head } = member(0);
    let further = (1..folds as u64).map(member).collect();
    card.lora = adapter.config.clone();
    Plugin { card, adapter, head, further, bag: None, volume: None, scope: None, digest: String::new() }
}
