//! `melo train`: one task on a backbone, frozen or not.

mod args;
mod method;

pub(crate) use args::{Args, CropArg};

use super::task::{check_output, name_of, open_splits};
use crate::progress::{TrainProgress, duration, percent};
use crate::{Failure, machine, note, say, say_json};
use melo::data::{Cache, DEFAULT_FRACTIONS, Dataset, Manifest, Split};
use melo::interop::read_checkpoint;
use melo::train::{Answers, Error, Outcome, RunFolder, RunOptions, Start, Task, TrainConfig, train};
use melo::vit::{Backbone, BackboneReference, Checkpoint, Plugin, Preprocess, Storage, TaskCard, TaskKind, folder_of};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// The backbone that a run starts from.
enum Trunk {
    Frozen(Box<Backbone>),
    Trained(Box<Checkpoint>),
}

impl Trunk {
    /// Weights that are trained have their positions interpolated to the task's image size first.
    fn new(mut checkpoint: Checkpoint, config: &TrainConfig, preprocess: &Preprocess) -> Self {
        if !config.method.trains_backbone() {
            return Trunk::Frozen(Box::new(Backbone::new_with(checkpoint, config.precision)));
        }
        if preprocess.size != checkpoint.config.image_size {
            checkpoint.weights.resize_positions(&mut checkpoint.config, preprocess.size);
        }
        checkpoint.preprocess = preprocess.clone();
        Trunk::Trained(Box::new(checkpoint))
    }

    fn start(&self) -> Start<'_> {
        match self {
            Trunk::Frozen(backbone) => Start::Frozen(backbone),
            Trunk::Trained(checkpoint) => Start::Trained(checkpoint),
        }
    }

    fn reference(&self) -> BackboneReference {
        match self {
            Trunk::Frozen(backbone) => backbone.reference(),
            Trunk::Trained(checkpoint) => {
                BackboneReference { digest: checkpoint.digest(), name: checkpoint.name.clone() }
            }
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let started = Instant::now();
    check_outputs(args)?;
    let checkpoint = read_checkpoint(&args.backbone)?;
    let config = args.config(checkpoint.config.depth)?;
    config.check().map_err(usage)?;
    config.lora.check(&checkpoint.config).map_err(usage)?;
    config.bottleneck.check(&checkpoint.config).map_err(usage)?;
    let preprocess = args.images.preprocess(&checkpoint.preprocess)?;
    checkpoint.config.check_size(preprocess.size).map_err(usage)?;
    let trunk = Trunk::new(checkpoint, &config, &preprocess);
    let mut manifest = Manifest::read(&args.data)?;
    note(manifest.assign_splits(args.seed, DEFAULT_FRACTIONS)?);
    // Shuffles and augmentation go by index: the order of the file's lines must not matter.
    manifest.rows.sort_by(|a, b| a.name.cmp(&b.name));
    let task_name = args.task.clone().unwrap_or_else(|| name_of(&args.data));
    let card = new_card(task_name, &manifest, preprocess.clone(), trunk.reference());
    card.check().map_err(usage)?;
    let folder = run_folder(args)?;
    let cache = Arc::new(Cache::new(args.cache_mib.saturating_mul(1 << 20)));
    let [train_set, val_set] = open_splits(&manifest, [Split::Train, Split::Val], &preprocess, &cache)?;
    let task = Task { start: trunk.start(), card, train: &train_set, val: &val_set };
    let mut outcome = train_with_progress(&task, &config, &folder, args.resume)?;
    let backbone = finished_backbone(args, &config, trunk, &mut outcome)?;
    certify(&manifest, &backbone, &mut outcome.plugin, &val_set)?;
    outcome.plugin.save_with_self_test(&args.out, &backbone, storage(args))?;
    report(args, &config, &backbone, &outcome, started.elapsed().as_secs_f64())
}

/// The backbone that the plug-in belongs to.
///
/// A fine-tuned one is written and read back: its digest is that of the numbers in its file, 16-bit ones too.
fn finished_backbone(
    args: &Args,
    config: &TrainConfig,
    trunk: Trunk,
    outcome: &mut Outcome,
) -> Result<Backbone, Failure> {
    let backbone = match (trunk, &outcome.checkpoint, args.backbone_out()) {
        (Trunk::Trained(_), Some(checkpoint), Some(path)) => {
            checkpoint.write(&path, storage(args))?;
            Backbone::load_with(&path, config.precision)?
        }
        (Trunk::Frozen(backbone), ..) => *backbone,
        (Trunk::Trained(_), ..) => unreachable!("a trained backbone is returned, and has its file"),
    };
    outcome.plugin.card.backbone = backbone.reference();
    Ok(backbone)
}

fn storage(args: &Args) -> Storage {
    if args.f16 { Storage::F16 } else { Storage::F32 }
}

/// Calibrates the plug-in on the validation split, and measures it on the test split where every image of one is readable.
fn certify(manifest: &Manifest, backbone: &Backbone, plugin: &mut Plugin, val: &Dataset) -> Result<(), Failure> {
    let val_answers = Answers::of(backbone, plugin, val)?;
    let rows: Vec<_> = manifest.split(Split::Test).into_iter().cloned().collect();
    let test = Dataset::new(rows, val.spec().clone(), Arc::new(Cache::new(0)));
    let test = match test.is_empty() {
        true => None,
        false => Answers::of(backbone, plugin, &test)
            .inspect_err(|error| note(format_args!("the card gets no test figures: {error}")))
            .ok(),
    };
    Ok(melo::train::certify(&mut plugin.card, &val_answers, test.as_ref())?)
}

/// Settings out of their range come from the command line.
pub(crate) fn usage(error: impl std::fmt::Display) -> Failure {
    Failure::Usage(error.to_string())
}

/// Refuses, before anything is computed, what could not be written at the end or would be lost.
fn check_outputs(args: &Args) -> Result<(), Failure> {
    let outputs = [Some(args.out.clone()), args.backbone_out()];
    for output in outputs.iter().flatten() {
        check_output("--out", output, &[&args.backbone, &args.data])?;
    }
    let run = args.run_path();
    let parent = folder_of(&args.out).canonicalize();
    let same = run.canonicalize().is_ok_and(|run| parent.is_ok_and(|parent| parent.starts_with(run)));
    if same || args.out.starts_with(&run) {
        let (out, run) = (args.out.display(), run.display());
        return Err(Failure::Usage(format!("--out {out}: lies in the run folder {run}; name another file or --run")));
    }
    match outputs.iter().flatten().find(|output| output.exists()) {
        Some(output) if !args.overwrite && !args.resume => Err(args.exists(output)),
        _ => Ok(()),
    }
}

/// The run folder; one that holds a run is taken only to resume it or to start anew.
fn run_folder(args: &Args) -> Result<RunFolder, Failure> {
    let folder = RunFolder::create(&args.run_path())?;
    match (args.overwrite, args.resume) {
        (false, false) => folder.refuse_existing()?,
        (false, true) if args.out.exists() && !folder.has_state() => return Err(args.exists(&args.out)),
        _ => {}
    }
    Ok(folder)
}

/// The card of a task before its training: everything but adapter and metrics.
pub(crate) fn new_card(
    task: String,
    manifest: &Manifest,
    preprocess: Preprocess,
    backbone: BackboneReference,
) -> TaskCard {
    let kind = if manifest.multi_label { TaskKind::MultiLabel } else { TaskKind::SingleLabel };
    let mut card = TaskCard::new(task, kind, manifest.classes.clone(), preprocess, backbone);
    card.provenance.software = melo::train::SOFTWARE.to_owned();
    card.provenance.data_digest = manifest.digest();
    card.provenance.split_digest = manifest.split_digest();
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
pub(super) fn interrupt_flag() -> Result<Arc<AtomicBool>, Failure> {
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

fn report(
    args: &Args,
    config: &TrainConfig,
    backbone: &Backbone,
    outcome: &Outcome,
    seconds: f64,
) -> Result<(), Failure> {
    let Outcome { best, trainable, backbone: total, history, .. } = outcome;
    let bytes = std::fs::metadata(&args.out)?.len();
    let digest = Plugin::load(&args.out, backbone)?.digest;
    let percent = percent(*trainable, *total);
    let peak_rss_bytes = machine::peak_rss_bytes();
    if args.json {
        return say_json(&json!({
            "plugin": args.out.to_string_lossy(),
            "method": config.method,
            "backbone": args.backbone_out().as_deref().unwrap_or(&args.backbone).to_string_lossy(),
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
            "precision": config.precision.to_string(),
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
