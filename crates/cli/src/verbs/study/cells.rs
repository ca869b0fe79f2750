//! Cells one by one: what a study's own processes and every other scheduler run.

use super::{Args, open};
use crate::verbs::log_args;
use crate::verbs::train::interrupt_flag;
use crate::{Failure, machine, note, say, say_json};
use melo::log::Run;
use melo::study::{Cell, CellFolder, CellNews, CellOptions, CellResult, CellState, Error, Plan, run_cell};
use melo::train::{EpochRow, Event};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// One cell in this process.
pub(super) fn run_one(args: &Args, name: &str) -> Result<(), Failure> {
    match args.attached {
        true => attached(args, name).inspect_err(tell_failure),
        false => alone(args, name),
    }
}

/// For a study that is told the news, and whose end is this one's.
fn attached(args: &Args, name: &str) -> Result<(), Failure> {
    let stop = interrupt_flag()?;
    stop_with_standard_input(&stop);
    compute(args, name, &stop, &mut |row| tell(&CellNews::Epoch(row.clone())))?;
    Ok(())
}

/// For a scheduler, or a person.
fn alone(args: &Args, name: &str) -> Result<(), Failure> {
    let mut observer = |row: &EpochRow| {
        let auc = row.val_auc_macro.unwrap_or(f64::NAN);
        note(format_args!(
            "{name}  epoch {}  loss {:.4}  val AUC {auc:.4}  {:.1} images/s",
            row.epoch, row.train_loss, row.images_per_s
        ));
    };
    let stop = interrupt_flag()?;
    let result = compute(args, name, &stop, &mut observer)?;
    let best = result.history.iter().rev().find(|row| row.best).unwrap_or(&result.history[0]);
    if args.json {
        return say_json(&json!({
            "cell": name,
            "epochs": result.history.len(),
            "best_epoch": best.epoch,
            "val_auc_macro": best.val_auc_macro,
            "seconds": result.seconds,
        }));
    }
    let (auc, epochs) = (best.val_auc_macro.unwrap_or(f64::NAN), result.history.len());
    say(format!("{name}: val AUC {auc:.4} at epoch {} of {epochs}", best.epoch));
    Ok(())
}

fn compute(
    args: &Args,
    name: &str,
    stop: &AtomicBool,
    observer: &mut (dyn FnMut(&EpochRow) + Send),
) -> Result<CellResult, Failure> {
    let (plan, folder, device) = open(args)?;
    let unknown = || Error::UnknownCell { path: plan.path.clone(), name: name.to_owned() };
    let cell = plan.cell(name).ok_or_else(unknown)?;
    let place = folder.cell(name);
    let mut logs = args.log.open(run(&plan, &cell, &place), &folder.path().join("tensorboard").join(name))?;
    let observer = &mut |event: Event<'_>| {
        logs.show(&event);
        if let Event::Epoch(row) = event {
            observer(row);
        }
    };
    let options = CellOptions { stop, observer, peak_rss_bytes: machine::peak_rss_bytes };
    let result = run_cell(&plan, &cell, &place, device, options).map_err(Failure::from);
    let plugin = Some(place.plugin()).filter(|plugin| plugin.is_file());
    log_args::end(logs, &result, plugin.as_deref());
    result
}

/// A cell as logs name it: by the study's own words.
fn run(plan: &Plan, cell: &Cell, folder: &CellFolder) -> Run {
    let mut tags = vec![
        ("study", plan.name.clone()),
        ("backbone", plan.backbones[cell.backbone].name.clone()),
        ("method", plan.methods[cell.method].name.clone()),
    ];
    tags.extend(cell.fold.map(|fold| ("fold", fold.to_string())));
    tags.push(("data_fraction", cell.data_fraction.to_string()));
    Run {
        name: plan.cell_name(cell),
        experiment: plan.name.clone(),
        tags: tags.into_iter().map(|(tag, value)| (tag.to_owned(), value)).collect(),
        folder: Some(folder.path().to_owned()),
    }
}

fn tell_failure(failure: &Failure) {
    if let Some(message) = failure.message() {
        tell(&CellNews::Failed(message.to_owned()));
    }
}

/// A line of JSON to the study.
fn tell(news: &CellNews) {
    if let Ok(json) = serde_json::to_string(news) {
        // The study may be gone: then this process is about to end.
        let _ = writeln!(std::io::stdout().lock(), "{json}");
    }
}

fn stop_with_standard_input(stop: &Arc<AtomicBool>) {
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        let mut nothing = [0; 64];
        while std::io::stdin().read(&mut nothing).is_ok_and(|read| read > 0) {}
        stop.store(true, Ordering::Relaxed);
    });
}

/// How far all cells are, a line each.
pub(super) fn list(args: &Args) -> Result<(), Failure> {
    let (plan, folder, _) = open(args)?;
    for (cell, state, epochs) in folder.states(&plan)? {
        let name = plan.cell_name(&cell);
        let word = match &state {
            CellState::Done => "done",
            CellState::Running(_) => "running",
            CellState::Failed(_) => "failed",
            CellState::Waiting => "waiting",
        };
        if !args.json {
            say(format!("{word:<7} {name}"));
            continue;
        }
        let (host, job, reason) = match &state {
            CellState::Running(holder) => (json!(holder.host), json!(holder.job), Value::Null),
            CellState::Failed(failure) => (json!(failure.host), json!(failure.job), json!(failure.reason)),
            _ => (Value::Null, Value::Null, Value::Null),
        };
        say_json(&json!({
            "cell": name, "state": word, "epochs": epochs, "host": host, "job": job, "reason": reason,
        }))?;
    }
    Ok(())
}
