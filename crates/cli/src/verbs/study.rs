//! `melo study`: methods compared on tasks, with statistics and a report.

mod cells;
mod slurm;

use super::data_args::StrictArgs;
use super::log_args::LogArgs;
use super::task::PrecisionArg;
use super::train::interrupt_flag;
use crate::progress::StudyProgress;
use crate::{Failure, machine, note, say, say_json};
use melo::data::Manifest;
use melo::study::{Finished, Plan, Results, Study, StudyFolder, StudyOptions, analyse, report};
use melo::vit::Device;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Compare methods on tasks: every seed and fold, honest statistics, one report
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    melo study study.toml --out runs/study                 (again after a kill: goes on where it was)\n  \
    melo study study.toml --out runs/study --report-only   (of the cells that are done)\n  \
    melo study study.toml --out runs/study --log mlflow:http://127.0.0.1:5000   (a run a cell)\n  \
    melo study study.toml --out runs/study --launcher slurm --partition cpu --time 4:00:00 --cpus 8 --jobs 20\n  \
    melo study study.toml --out runs/study --launcher slurm --dry-run   (prints the script, submits nothing)\n  \
    melo study study.toml --out runs/study --list-cells    (for any other scheduler, with the next one)\n  \
    melo study study.toml --out runs/study --cell blood-cell/deit-tiny/lora/seed-0\n\n\
    A small study file:\n  \
    [study]\n  \
    name = \"plug-ins against full fine-tuning\"\n  \
    seeds = [0, 1, 2]\n  \
    methods = [\"lora\", \"linear\", \"full\"]     # or the names of [[method]] tables\n  \
    [[backbone]]\n  \
    name = \"deit-tiny\"\n  \
    weights = \"deit_tiny_patch16_224.safetensors\"\n  \
    [[task]]\n  \
    name = \"blood-cell\"\n  \
    labels = \"wbc/labels.csv\"\n\n\
    All keys: docs/study.md. The folder gets report.html, report.md, results.json, arms.csv,\n\
    comparisons.csv, and a folder for every cell.")]
pub(crate) struct Args {
    /// Study file (TOML); its paths are relative to it
    file: PathBuf,
    /// Folder for cells, results and report
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Cells at a time: here they share the threads [default: one a thread]; with Slurm `%N` [default: no limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Numbers that go into the backbones' matrix products [default: the file's `study.precision`, else f32]
    #[arg(long, value_enum)]
    precision: Option<PrecisionArg>,
    /// Compute nothing, report on the cells that are done
    #[arg(long)]
    report_only: bool,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    strict: StrictArgs,
    /// Compute this cell alone, in this process; `--report-only` makes a report of all later
    #[arg(long, value_name = "NAME", conflicts_with_all = ["report_only", "jobs"])]
    cell: Option<String>,
    /// Tell news as JSON, and stop with standard input
    #[arg(long, hide = true, requires = "cell")]
    attached: bool,
    /// List the cells: `done`, `running`, `failed` or `waiting`, and the name; with `--json` an object a line
    #[arg(long, conflicts_with_all = ["report_only", "cell", "jobs"])]
    list_cells: bool,
    #[command(flatten)]
    slurm: slurm::SlurmArgs,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    args.slurm.check(args)?;
    match (&args.cell, args.list_cells) {
        (Some(name), _) => cells::run_one(args, name),
        (None, true) => cells::list(args),
        (None, false) => run_study(args),
    }
}

/// The study file, the folder, and where all is computed.
fn open(args: &Args) -> Result<(Plan, StudyFolder, Arc<dyn Device>), Failure> {
    let mut plan = Plan::read(&args.file)?.on_slurm(args.slurm.settings(args.jobs))?;
    if let Some(precision) = args.precision {
        plan = plan.in_precision(machine::device(precision.into()).info().precision)?;
    }
    let device = machine::device(Some(plan.precision));
    Ok((plan, StudyFolder::create(&args.out)?, device))
}

fn run_study(args: &Args) -> Result<(), Failure> {
    let (plan, folder, device) = open(args)?;
    for task in &plan.tasks {
        args.strict.tell(&Manifest::read_with(&task.labels, &task.reading)?)?;
    }
    let study = Study::new(plan, folder, device)?;
    if args.slurm.dry_run {
        return slurm::dry_run(args, &study);
    }
    let finished = match (args.report_only, args.slurm.launcher) {
        (true, _) => Finished { cells: study.finished()?, failures: Vec::new() },
        (false, slurm::Launcher::Local) => run_cells(args, &study)?,
        (false, slurm::Launcher::Slurm) => slurm::run_cells(args, &study)?,
    };
    let failed = finished.failures.len();
    let results = analyse(&study, finished, &machine::description())?;
    let report = study.folder.write_report(&results)?;
    summarise(args, &results, &report)?;
    match failed {
        0 => Ok(()),
        _ => Err(Failure::Message(format!(
            "{failed} of {} cells failed; the same command tries them again",
            results.study.cells
        ))),
    }
}

/// The whole study, each cell in a process of this program.
fn run_cells(args: &Args, study: &Study) -> Result<Finished, Failure> {
    let stop = interrupt_flag()?;
    let threads = machine::threads();
    let jobs = args.jobs.map_or(threads, usize::from);
    let logs = args.log.words()?;
    let command = |name: &str| {
        let mut command = machine::command();
        command.args(["--threads", &(threads / jobs).max(1).to_string()]);
        command.args(["--device", &machine::device_name().to_string(), "study"]);
        command.arg(&args.file).arg("--out").arg(&args.out).args(["--attached", "--cell", name]);
        command.args(["--precision", &study.plan.precision.to_string()]).args(&logs);
        command
    };
    let mut progress = StudyProgress::new(&study.plan);
    let options =
        StudyOptions { jobs, command: &command, stop: &stop, observer: &mut |event| progress.show(&study.plan, event) };
    let finished = study.run(options);
    progress.finish();
    Ok(finished?)
}

fn summarise(args: &Args, results: &Results, report: &Path) -> Result<(), Failure> {
    let info = &results.study;
    if args.json {
        let verdicts = |method: &str| {
            let of = |task: &melo::study::TaskResults| {
                let comparison = task.comparisons.iter().find(|comparison| comparison.method == method)?;
                Some((task.name.clone(), json!(comparison.verdict)))
            };
            results.tasks.iter().filter_map(of).collect::<serde_json::Map<_, _>>()
        };
        let methods = results.methods.iter().filter(|method| method.name != info.reference);
        return say_json(&json!({
            "study": info.name,
            "cells": info.cells,
            "cells_done": info.cells_done,
            "failures": info.failures,
            "reference": info.reference,
            "verdicts": methods.map(|m| (m.name.clone(), verdicts(&m.name).into())).collect::<serde_json::Map<_, _>>(),
            "report": report.to_string_lossy(),
        }));
    }
    for failure in &info.failures {
        note(format_args!("melo: {}: {}", failure.cell, failure.reason));
    }
    say(report::summary(results).trim_end());
    say(format!("{} of {} cells; {}", info.cells_done, info.cells, report.display()));
    Ok(())
}
