//! `melo train`: one task on a backbone, frozen or not.

mod args;
mod bags;
mod method;
mod ranks;
mod screen;
mod volumes;

pub(crate) use args::{Args, CropArg};
pub(crate) use ranks::leaves_usage_to_rank_0;

use super::log_args;
use super::plugin::sign_file;
use super::task::{check_output, list_unreadable, remark};
use crate::progress::{TrainProgress, duration, grouped, in_words, percent};
use crate::{Failure, advice, machine, note, say, say_json};
use melo::data::Cache;
use melo::log::{Logs, Run};
use melo::sign::SecretKey;
use melo::train::{
    Error, Event, Finished, Job, Outcome, ReadyJob, Resume, RunFolder, RunOptions, SetSettings, Task, Team,
    TrainConfig, ensemble_in_words, scope_open_in_words, task_name, train,
};
use melo::vit::{PluginInfo, Storage, folder_of};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

pub(crate) fn run(args: &Args, threads: usize) -> Result<(), Failure> {
    let team = ranks::join(&args.mpi)?;
    let result = ranks::threads(&team, threads).and_then(|threads| {
        machine::use_threads(threads);
        trained(args, &team)
    });
    ranks::concluded(&team, result)
}

fn trained(args: &Args, team: &Arc<Team>) -> Result<(), Failure> {
    let started = Instant::now();
    if team.leads() {
        check_outputs(args)?;
    }
    let key = args.sign_key.as_deref().filter(|_| team.leads()).map(SecretKey::read).transpose()?;
    let task = args.task.clone().unwrap_or_else(|| task_name(&args.data));
    let mut logs = if team.leads() { Some(logs(args, &task)?) } else { None };
    let device = machine::device(args.precision.into());
    let backbone = args.backbone.read()?;
    let mut config = args.config(backbone.info().config().depth)?;
    let scope = args.scope(&config)?;
    let mut preprocess = args.images.preprocess(backbone.info().preprocess());
    config.volume = args.volumes.config(&mut preprocess, backbone.info().config())?;
    // What is asked later cuts volumes as the training did.
    if let Some(plane) = args.reading.options().bag_plane {
        preprocess.rendering.plane = plane;
    }
    let job = Job {
        task,
        preprocess,
        config,
        storage: if args.f16 { Storage::F16 } else { Storage::F32 },
        sets: args.sets.settings(Some(SetSettings::default()))?,
        scope,
        cache: Arc::new(Cache::new(args.cache_mib.saturating_mul(1 << 20))),
        team: Arc::clone(team),
        ..Job::new(device, backbone, args.reading.manifest(&args.data)?)
    };
    let ranks = ranks::in_words(team)?;
    let show = |ready: &ReadyJob| {
        note(screen::beginning(ready, ranks));
        if let Some(unused) = args.unused(ready.config()) {
            note(unused);
        }
    };
    let folder = || team.leads().then(|| run_folder(args)).transpose();
    let news = &mut |event: &Event<'_>| logs.iter_mut().for_each(|logs| logs.show(event));
    let written = run_with_progress(job, show, folder, resume(args.resume), news).and_then(|finished| {
        if team.leads() {
            write(args, &finished, key.as_ref())?;
        }
        Ok(finished)
    });
    if let Some(logs) = logs {
        log_args::end(logs, &written, Some(&args.out));
    }
    match (written?, team.leads()) {
        (finished, true) => report(args, &finished, started.elapsed().as_secs_f64()),
        (_, false) => Ok(()),
    }
}

/// Writes what came of it.
fn write(args: &Args, finished: &Finished, key: Option<&SecretKey>) -> Result<(), Failure> {
    if let (Some(checkpoint), Some(path)) = (&finished.checkpoint, args.backbone_out()) {
        checkpoint.write(&path, finished.storage)?;
    }
    finished.save(&args.out)?;
    if let Some(key) = key {
        sign_file(&args.out, key, None)?;
    }
    Ok(())
}

/// What else is told of the training.
fn logs(args: &Args, task: &str) -> Result<Logs, Failure> {
    let run = Run {
        name: args.out.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        experiment: task.to_owned(),
        tags: Vec::new(),
        folder: Some(args.run_path()),
    };
    args.log.open(run, &args.run_path().join("tensorboard"))
}

/// Trains with a live view; Ctrl-C stops after the step in flight. The folder is opened when all else is in order and `show` has
/// said what is about to begin; `news` is told what the view is.
pub(super) fn run_with_progress(
    job: Job,
    show: impl FnOnce(&ReadyJob),
    folder: impl FnOnce() -> Result<Option<RunFolder>, Failure>,
    resume: Resume,
    news: &mut (dyn FnMut(&Event<'_>) + Send),
) -> Result<Finished, Failure> {
    let stop = interrupt_flag()?;
    let mut progress = TrainProgress::new();
    let cache = Arc::clone(&job.cache);
    let ready = job.prepare(&mut |event| progress.show(event))?;
    show(&ready);
    let folder = folder()?;
    let observer = &mut |event: Event<'_>| {
        // All images have been read by then.
        if matches!(event, Event::Started { .. }) {
            remark(&cache.tally());
        }
        news(&event);
        progress.show(event);
    };
    let options = RunOptions { folder: folder.as_ref(), resume, stop: &stop, observer };
    let finished = ready.run(options);
    progress.finish();
    finished.map_err(listed)
}

/// The failure, after what it does not say of single images.
fn listed(error: Error) -> Failure {
    if let Error::Images(error) = &error {
        list_unreadable(error);
    }
    error.into()
}

pub(super) fn resume(wanted: bool) -> Resume {
    if wanted { Resume::Always } else { Resume::Never }
}

/// Settings out of their range come from the command line.
pub(crate) fn usage(error: impl std::fmt::Display) -> Failure {
    Failure::Usage(error.to_string())
}

/// Refuses, before anything is computed, what could not be written at the end or would be lost.
fn check_outputs(args: &Args) -> Result<(), Failure> {
    let outputs = [Some(args.out.clone()), args.backbone_out()];
    for output in outputs.iter().flatten() {
        check_output("--out", output, &[args.backbone.path(), &args.data])?;
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
        (false, true) if args.out.exists() && !folder.holds_run() => return Err(args.exists(&args.out)),
        _ => {}
    }
    Ok(folder)
}

/// As [`run_with_progress`], of examples that are no manifest's.
pub(super) fn train_with_progress(
    task: Task<'_>,
    config: &TrainConfig,
    folder: &RunFolder,
    resume: Resume,
) -> Result<Outcome, Failure> {
    let stop = interrupt_flag()?;
    let mut progress = TrainProgress::new();
    let options = RunOptions { folder: Some(folder), resume, stop: &stop, observer: &mut |event| progress.show(event) };
    let outcome = train(task, config, options);
    progress.finish();
    Ok(outcome?)
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

fn report(args: &Args, finished: &Finished, seconds: f64) -> Result<(), Failure> {
    let Finished { best, trainable, backbone: total, history, plugin, engine, .. } = finished;
    let PluginInfo { bytes, digest, .. } = PluginInfo::read(&args.out)?;
    let percent = percent(*trainable, *total);
    let ensemble = plugin.card.ensemble.as_ref();
    let peak_rss_bytes = machine::peak_rss_bytes();
    if args.json {
        let card = &plugin.card;
        let open = card.scope_limits.as_ref().and_then(scope_open_in_words).map(|open| format!("WARNING: {open}"));
        advice::of_open_sets(card).into_iter().chain(open).for_each(note);
        let mut object = json!({
            "plugin": args.out.to_string_lossy(),
            "method": args.method(),
            "backbone": args.backbone_out().as_deref().unwrap_or(&args.backbone.path).to_string_lossy(),
            "task": plugin.card.task,
            "best_epoch": best.epoch,
            "epochs": history.len(),
            "trainable_parameters": trainable,
            "trainable_percent": percent,
            "plugin_bytes": bytes,
            "plugin_digest": digest,
            "backbone_digest": engine.backbone().digest(),
            "precision": engine.info().precision,
            "seconds": seconds,
            "peak_rss_bytes": peak_rss_bytes,
        });
        if let Some(ensemble) = ensemble {
            object["folds"] = ensemble.members.len().into();
            object["cost"] = ensemble.cost.into();
        }
        if let Some(c) = best.c {
            object["c"] = c.into();
        }
        best.figures().into_iter().for_each(|(name, value)| object[name] = value.into());
        return say_json(&object);
    }
    let memory = peak_rss_bytes
        .map_or_else(String::new, |bytes| format!(", {} MiB of memory at most", grouped((bytes >> 20) as usize)));
    say(format!(
        "{}: {}, {} {}\n\
         {} trainable parameters ({percent:.3} %), {} bytes, {}{memory}",
        args.out.display(),
        screen::chosen(finished),
        if ensemble.is_some() { "out of fold" } else { "validation" },
        in_words(plugin.card.kind, best),
        grouped(*trainable),
        grouped(bytes),
        duration(seconds),
    ));
    ensemble.map(ensemble_in_words).into_iter().for_each(say);
    say(screen::ending(args, finished));
    Ok(())
}
