//! `melo pretrain`: the small embedded backbone, from formulas alone.

use super::task::{PrecisionArg, check_output};
use super::train::{resume, train_with_progress};
use crate::progress::duration;
use crate::{Failure, machine, say, say_json};
use melo::data::Augment;
use melo::train::{FormulaSet, Method, RunFolder, Start, Task, Team, TrainConfig, initial_checkpoint, small_vit};
use melo::vit::{Backbone, BackboneReference, DecoderConfig, LoraConfig, Storage, TaskCard, TaskKind};
use std::iter::once;
use std::path::PathBuf;

const NAME: &str = "vit_small_formula";
/// Images of the validation set.
const VALIDATION_IMAGES: usize = 1536;

/// Pre-train the small default backbone on formula-driven images (no photograph, no download)
#[derive(clap::Args)]
#[command(after_help = "Example (how assets/vit_small_formula.safetensors was made, in an hour):\n  \
    melo pretrain --out vit_small_formula.safetensors --precision bf16 --seed 0")]
pub(crate) struct Args {
    /// Backbone to write, in 16-bit floats
    #[arg(long)]
    out: PathBuf,
    /// Run folder [default: --out with the extension `run`]
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Go on from the run folder's last epoch, if it has one
    #[arg(long)]
    resume: bool,
    /// Formulas to tell apart, patch by patch
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u8).range(1..=253))]
    classes: u8,
    /// Images an epoch, all new
    #[arg(long, default_value_t = 15_360)]
    images: usize,
    /// Epochs
    #[arg(long, default_value_t = 80)]
    epochs: usize,
    /// Images a step
    #[arg(long, default_value_t = 16)]
    batch_size: usize,
    /// Highest learning rate
    #[arg(long, default_value_t = 7e-4)]
    lr: f64,
    /// How matrix products are computed: auto, f32, bf16 or bf16x3
    #[arg(long, value_enum, default_value = "f32")]
    precision: PrecisionArg,
    /// Seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let started = std::time::Instant::now();
    check_output("--out", &args.out, &[])?;
    if args.out.exists() && !args.resume {
        return Err(Failure::Usage(format!("--out {}: exists already; name another file", args.out.display())));
    }
    let formulas = usize::from(args.classes);
    let (vit, preprocess) = small_vit();
    let checkpoint = initial_checkpoint(NAME, vit.clone(), preprocess.clone(), args.seed);
    let device = machine::device(args.precision.into());
    let config = TrainConfig {
        method: Method::Full,
        lora: LoraConfig::none(),
        epochs: args.epochs,
        batch_size: args.batch_size,
        learning_rate: args.lr,
        label_smoothing: 0.0,
        patience: 0,
        augment: Augment::none(),
        precision: device.info().precision,
        seed: args.seed,
        ..TrainConfig::new(vit.depth)
    };
    config.check().map_err(|error| Failure::Usage(error.to_string()))?;
    let train_set = FormulaSet::new(args.images, formulas, preprocess.clone(), vit.patch);
    let val_set = FormulaSet::new(VALIDATION_IMAGES, formulas, preprocess.clone(), vit.patch);
    let names: Vec<String> = once("ground".to_owned()).chain((0..formulas).map(|n| format!("formula_{n}"))).collect();
    let reference = BackboneReference { digest: String::new(), name: checkpoint.name.clone() };
    let decoder = Some(DecoderConfig::linear(&vit, names.len()));
    let mut card = TaskCard::new("formulas".to_owned(), TaskKind::Segmentation, names, preprocess, reference);
    card.decoder = decoder;
    card.provenance.data_digest = format!("{} images of {formulas} formulas", args.images);
    let start = Start::Trained { device, checkpoint: Box::new(checkpoint) };
    let task = Task { start, card, train: &train_set, val: &val_set, volume: None, team: &Team::alone() };
    let folder = RunFolder::create(&args.run.clone().unwrap_or_else(|| args.out.with_extension("run")))?;
    if !args.resume {
        folder.refuse_existing()?;
    }
    let outcome = train_with_progress(task, &config, &folder, resume(args.resume))?;
    let trained = outcome.checkpoint.expect("full fine-tuning returns a backbone");
    trained.write(&args.out, Storage::F16)?;
    let (best, seconds) = (&outcome.best, started.elapsed().as_secs_f64());
    if args.json {
        return say_json(&serde_json::json!({
            "backbone": args.out.to_string_lossy(),
            "backbone_digest": Backbone::read(&args.out)?.info().digest(),
            "parameters": outcome.backbone,
            "best_epoch": best.epoch,
            "val_dice": best.val_dice,
            "seconds": seconds,
        }));
    }
    say(format!(
        "{}: {} parameters, {} formulas found with a mean Dice of {:.3} (epoch {}), {}",
        args.out.display(),
        outcome.backbone,
        args.classes,
        best.val_dice.unwrap_or(f64::NAN),
        best.epoch,
        duration(seconds)
    ));
    Ok(())
}
