//! `melo train`: one task on a frozen backbone.

use super::task::{CACHE_MIB, PrecisionArg, check_output, name_of, open_splits};
use crate::progress::{TrainProgress, duration, percent};
use crate::{Failure, machine, note, say, say_json};
use clap::ValueEnum;
use melo_data::{Augment, Cache, DEFAULT_FRACTIONS, Manifest, Split};
use melo_train::{ClassWeights, Error, Outcome, RunFolder, RunOptions, Start, Task, TrainConfig, defaults, train};
use melo_vit::{Backbone, CropMode, LoraConfig, Plugin, Preprocess, Storage, Target, TaskCard, TaskKind, folder_of};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Train a plug-in: low-rank matrices and a head, beside a backbone that stays as it is
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    melo train --backbone deit_tiny_patch16_224.safetensors --data wbc/labels.csv --out wbc.safetensors\n  \
    melo train --backbone vit.safetensors --data cxr.csv --out cxr.safetensors --rank 8 --targets q,v,fc1 --resume\n  \
    melo train --backbone vit.safetensors --data cxr.csv --out probe.safetensors --rank 0     (linear probe)\n\n\
    The run folder holds config.json, epochs.csv, last.safetensors (to resume from) and best.safetensors.")]
pub(crate) struct Args {
    /// Weights: timm safetensors with their JSON beside them, or a file of `melo pretrain`
    #[arg(long)]
    backbone: PathBuf,
    /// CSV manifest, or a folder with a folder for every class (see `melo data check --help`)
    #[arg(long)]
    data: PathBuf,
    /// Plug-in to write
    #[arg(long)]
    out: PathBuf,
    /// Name of the task [default: name of the data's folder]
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    task: Option<String>,
    /// Run folder [default: --out with the extension `run`]
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Go on from the run folder's last epoch, if it has one
    #[arg(long, conflicts_with = "overwrite")]
    resume: bool,
    /// Start anew where a run or a plug-in exists
    #[arg(long)]
    overwrite: bool,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
    /// Store the plug-in in 16-bit floats: half the size
    #[arg(long)]
    f16: bool,
    /// Seed of splits, initial values, order and augmentation
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Memory for decoded images, MiB
    #[arg(long, default_value_t = CACHE_MIB, value_name = "MIB")]
    cache_mib: usize,
    /// Numbers that go into the backbone's matrix products
    #[arg(long, value_enum, default_value_t = PrecisionArg::F32)]
    precision: PrecisionArg,
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    optimiser: OptimiserArgs,
    #[command(flatten)]
    images: ImageArgs,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Adapter")]
struct AdapterArgs {
    /// Rank of the low-rank matrices; 0 is a linear probe
    #[arg(long, default_value_t = defaults::RANK)]
    rank: usize,
    /// The update is scaled by alpha / rank [default: the rank]
    #[arg(long)]
    alpha: Option<f32>,
    /// Adapted projections
    #[arg(long, value_delimiter = ',', default_value = "q,v", value_name = "LIST")]
    targets: Vec<TargetArg>,
    /// Adapted blocks, from 0 [default: all]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    blocks: Vec<usize>,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Optimiser")]
struct OptimiserArgs {
    /// Passes over the training split
    #[arg(long, default_value_t = defaults::EPOCHS)]
    epochs: usize,
    /// Images a step; memory does not grow with it
    #[arg(long, default_value_t = defaults::BATCH_SIZE)]
    batch_size: usize,
    /// Highest learning rate
    #[arg(long, default_value_t = defaults::LEARNING_RATE)]
    lr: f64,
    /// Learning rate at the end of the cosine
    #[arg(long, default_value_t = defaults::MIN_LEARNING_RATE)]
    min_lr: f64,
    /// Epochs of linear warm-up
    #[arg(long, default_value_t = defaults::WARMUP_EPOCHS)]
    warmup_epochs: f64,
    /// Weight decay of matrices
    #[arg(long, default_value_t = defaults::WEIGHT_DECAY)]
    weight_decay: f64,
    /// Largest norm of the gradient; 0 is unlimited
    #[arg(long, default_value_t = defaults::CLIP_NORM)]
    clip_norm: f64,
    /// Label smoothing, for one class an image
    #[arg(long, default_value_t = defaults::LABEL_SMOOTHING)]
    label_smoothing: f64,
    /// Weights of classes in the loss
    #[arg(long, value_enum, default_value_t = WeightsArg::None)]
    class_weights: WeightsArg,
    /// Stop after this many epochs without a better validation AUC; 0 never
    #[arg(long, default_value_t = defaults::PATIENCE)]
    patience: usize,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Images")]
struct ImageArgs {
    /// Side of the network input, px [default: the weights' own]
    #[arg(long, value_name = "PX")]
    image_size: Option<usize>,
    /// How a rectangle becomes a square: cut the ends, squeeze, or pad
    #[arg(long, value_enum, default_value_t = CropArg::Squash)]
    crop_mode: CropArg,
    /// Share of the side that the centre crop keeps
    #[arg(long, default_value_t = 1.0)]
    crop_pct: f64,
    /// No augmentation at all
    #[arg(long)]
    no_augment: bool,
    /// No horizontal flip (sides matter: situs, laterality)
    #[arg(long)]
    no_flip: bool,
    /// Vertical flip too (no up or down: microscopy, dermoscopy)
    #[arg(long)]
    vertical_flip: bool,
    /// Largest rotation, degrees
    #[arg(long, default_value_t = Augment::default().rotate_degrees)]
    rotate: f32,
    /// Smallest area that a random crop keeps; 1 is off
    #[arg(long, default_value_t = Augment::default().crop_scale)]
    crop_scale: f32,
    /// Largest relative change of brightness
    #[arg(long, default_value_t = Augment::default().brightness)]
    brightness: f32,
    /// Largest relative change of contrast
    #[arg(long, default_value_t = Augment::default().contrast)]
    contrast: f32,
}

#[derive(Clone, Copy, ValueEnum)]
enum TargetArg {
    Q,
    K,
    V,
    O,
    Fc1,
    Fc2,
}

#[derive(Clone, Copy, ValueEnum)]
enum WeightsArg {
    None,
    Balanced,
}

#[derive(Clone, Copy, ValueEnum)]
enum CropArg {
    Center,
    Squash,
    Border,
}

impl Args {
    fn run_path(&self) -> PathBuf {
        self.run.clone().unwrap_or_else(|| self.out.with_extension("run"))
    }

    fn out_exists(&self) -> Failure {
        let (out, run) = (self.out.display(), self.run_path());
        let run = run.display();
        Failure::Message(format!("--out {out}: exists already; --overwrite replaces it, and what {run} may hold"))
    }

    fn config(&self, depth: usize) -> TrainConfig {
        let AdapterArgs { rank, alpha, targets, blocks } = &self.adapter;
        let mut targets: Vec<Target> = targets.iter().map(|target| Target::ALL[*target as usize]).collect();
        let mut blocks = if blocks.is_empty() { (0..depth).collect() } else { blocks.clone() };
        targets.sort();
        targets.dedup();
        blocks.sort_unstable();
        blocks.dedup();
        let lora = match *rank {
            0 => LoraConfig::none(),
            rank => LoraConfig { rank, alpha: alpha.unwrap_or(rank as f32), targets, blocks },
        };
        let optimiser = &self.optimiser;
        TrainConfig {
            lora,
            epochs: optimiser.epochs,
            batch_size: optimiser.batch_size,
            learning_rate: optimiser.lr,
            min_learning_rate: optimiser.min_lr,
            warmup_epochs: optimiser.warmup_epochs,
            weight_decay: optimiser.weight_decay,
            clip_norm: optimiser.clip_norm,
            label_smoothing: optimiser.label_smoothing,
            class_weights: match optimiser.class_weights {
                WeightsArg::None => ClassWeights::None,
                WeightsArg::Balanced => ClassWeights::Balanced,
            },
            patience: optimiser.patience,
            augment: self.images.augment(),
            seed: self.seed,
            ..TrainConfig::new(depth)
        }
    }
}

impl ImageArgs {
    fn augment(&self) -> Augment {
        if self.no_augment {
            return Augment::none();
        }
        Augment {
            horizontal_flip: !self.no_flip,
            vertical_flip: self.vertical_flip,
            rotate_degrees: self.rotate,
            crop_scale: self.crop_scale,
            brightness: self.brightness,
            contrast: self.contrast,
        }
    }

    /// The weights' statistics and filter, the task's size and crop.
    fn preprocess(&self, own: &Preprocess) -> Result<Preprocess, Failure> {
        let crop_mode = match self.crop_mode {
            CropArg::Center => CropMode::Center,
            CropArg::Squash => CropMode::Squash,
            CropArg::Border => CropMode::Border,
        };
        let size = self.image_size.unwrap_or(own.size);
        let preprocess = Preprocess { size, crop_mode, crop_pct: self.crop_pct, ..own.clone() };
        preprocess.check().map_err(usage)?;
        Ok(preprocess)
    }
}

/// Name and version, for cards.
const SOFTWARE: &str = concat!("melo ", env!("CARGO_PKG_VERSION"));

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let started = Instant::now();
    check_outputs(args)?;
    let backbone = Backbone::load_with(&args.backbone, args.precision.into())?;
    let config = args.config(backbone.config.depth);
    config.check().map_err(usage)?;
    config.lora.check(&backbone.config).map_err(usage)?;
    let preprocess = args.images.preprocess(&backbone.preprocess)?;
    backbone.check_size(preprocess.size).map_err(usage)?;
    let mut manifest = Manifest::read(&args.data)?;
    note(manifest.assign_splits(args.seed, DEFAULT_FRACTIONS)?);
    // Shuffles and augmentation go by index: the order of the file's lines must not matter.
    manifest.rows.sort_by(|a, b| a.name.cmp(&b.name));
    let task_name = args.task.clone().unwrap_or_else(|| name_of(&args.data));
    let card = new_card(task_name, &manifest, preprocess.clone(), &backbone);
    card.check().map_err(usage)?;
    let folder = run_folder(args)?;
    let cache = Arc::new(Cache::new(args.cache_mib.saturating_mul(1 << 20)));
    let [train_set, val_set] = open_splits(&manifest, [Split::Train, Split::Val], &preprocess, &cache)?;
    let task = Task { start: Start::Frozen(&backbone), card, train: &train_set, val: &val_set };
    let outcome = train_with_progress(&task, &config, &folder, args.resume)?;
    let storage = if args.f16 { Storage::F16 } else { Storage::F32 };
    outcome.plugin.save(&args.out, &backbone.config, storage)?;
    report(args, &backbone, &outcome, started.elapsed().as_secs_f64())
}

/// Settings out of their range come from the command line.
fn usage(error: impl std::fmt::Display) -> Failure {
    Failure::Usage(error.to_string())
}

/// Refuses, before anything is computed, what could not be written at the end or would be lost.
fn check_outputs(args: &Args) -> Result<(), Failure> {
    check_output("--out", &args.out, &[&args.backbone, &args.data])?;
    let run = args.run_path();
    let parent = folder_of(&args.out).canonicalize();
    let same = run.canonicalize().is_ok_and(|run| parent.is_ok_and(|parent| parent.starts_with(run)));
    if same || args.out.starts_with(&run) {
        let (out, run) = (args.out.display(), run.display());
        return Err(Failure::Usage(format!("--out {out}: lies in the run folder {run}; name another file or --run")));
    }
    if args.out.exists() && !args.overwrite && !args.resume {
        return Err(args.out_exists());
    }
    Ok(())
}

/// The run folder; one that holds a run is taken only to resume it or to start anew.
fn run_folder(args: &Args) -> Result<RunFolder, Failure> {
    let folder = RunFolder::create(&args.run_path())?;
    match (args.overwrite, args.resume) {
        (false, false) => folder.refuse_existing()?,
        (false, true) if args.out.exists() && !folder.has_state() => return Err(args.out_exists()),
        _ => {}
    }
    Ok(folder)
}

/// The card of a task before its training: everything but adapter and metrics.
pub(crate) fn new_card(task: String, manifest: &Manifest, preprocess: Preprocess, backbone: &Backbone) -> TaskCard {
    let kind = if manifest.multi_label { TaskKind::MultiLabel } else { TaskKind::SingleLabel };
    let mut card = TaskCard::new(task, kind, manifest.classes.clone(), preprocess, backbone.reference());
    card.provenance.software = SOFTWARE.to_owned();
    card.provenance.data_digest = manifest.digest();
    card
}

/// Trains with a live view; Ctrl-C stops after the step in flight.
pub(crate) fn train_with_progress(
    task: &Task<'_>,
    config: &TrainConfig,
    folder: &RunFolder,
    resume: bool,
) -> Result<Outcome, Failure> {
    let stop = interrupt_flag()?;
    let mut progress = TrainProgress::new(config.epochs, task.train.len());
    let options = RunOptions { folder, resume, stop: &stop, observer: &mut |event| progress.show(event) };
    let outcome = train(task, config, options);
    progress.finish();
    outcome.map_err(|error| match error {
        Error::Interrupted { .. } => Failure::Interrupted(error.to_string()),
        other => other.into(),
    })
}

/// Set by Ctrl-C or a request to terminate; a second one ends the process at once, which loses only the epoch in flight.
fn interrupt_flag() -> Result<Arc<AtomicBool>, Failure> {
    static FLAG: std::sync::OnceLock<Arc<AtomicBool>> = std::sync::OnceLock::new();
    if let Some(flag) = FLAG.get() {
        return Ok(Arc::clone(flag));
    }
    let flag = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&flag);
    ctrlc::set_handler(move || {
        if raised.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })?;
    Ok(Arc::clone(FLAG.get_or_init(|| flag)))
}

fn report(args: &Args, backbone: &Backbone, outcome: &Outcome, seconds: f64) -> Result<(), Failure> {
    let Outcome { best, trainable, backbone: total, history, .. } = outcome;
    let bytes = std::fs::metadata(&args.out)?.len();
    let digest = Plugin::load(&args.out, backbone)?.digest;
    let percent = percent(*trainable, *total);
    let peak_rss_bytes = machine::peak_rss_bytes();
    if args.json {
        return say_json(&json!({
            "plugin": args.out.to_string_lossy(),
            "task": outcome.plugin.card.task,
            "best_epoch": best.epoch,
            "epochs": history.len(),
            "val_auc_macro": best.val_auc_macro,
            "val_acc": best.val_acc,
            "trainable_parameters": trainable,
            "trainable_percent": percent,
            "plugin_bytes": bytes,
            "plugin_digest": digest,
            "backbone_digest": backbone.digest(),
            "precision": backbone.precision().to_string(),
            "seconds": seconds,
            "peak_rss_bytes": peak_rss_bytes,
        }));
    }
    let memory = peak_rss_bytes.map_or_else(String::new, |bytes| format!(", {} MiB of memory at most", bytes >> 20));
    say(format!(
        "{}: best epoch {} of {}, validation macro AUC {:.4}, ACC {:.4}\n\
         {trainable} trainable parameters ({percent:.3} %), {bytes} bytes, {}{memory}",
        args.out.display(),
        best.epoch,
        history.len(),
        best.val_auc_macro,
        best.val_acc,
        duration(seconds),
    ));
    Ok(())
}
