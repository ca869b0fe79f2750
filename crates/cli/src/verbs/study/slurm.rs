//! A study on a cluster that Slurm schedules.

use super::Args;
use crate::progress::StudyProgress;
use crate::verbs::train::interrupt_flag;
use crate::{Failure, machine, note, say};
use melo::DeviceName;
use melo::study::{Finished, SlurmOptions, SlurmSettings, Study};
use std::path::{Path, PathBuf};

/// What runs the cells.
#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
pub(super) enum Launcher {
    /// Processes on this machine
    Local,
    /// Tasks of Slurm's job arrays
    Slurm,
}

/// Flags that go before the study file's table `[slurm]`.
#[derive(clap::Args)]
#[command(next_help_heading = "Slurm")]
pub(super) struct SlurmArgs {
    /// What runs the cells
    #[arg(long, value_enum, default_value = "local", conflicts_with_all = ["report_only", "cell", "list_cells"])]
    pub(super) launcher: Launcher,
    /// Partition [default: the file's `slurm.partition`, as all of these; else the cluster's]
    #[arg(long, value_name = "NAME")]
    partition: Option<String>,
    /// Account
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// Limit of wall time a cell; one that meets it goes on at its last epoch
    #[arg(long, value_name = "TIME")]
    time: Option<String>,
    /// Memory a cell
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Processors, and threads, a cell [default: the file's, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    cpus: Option<u16>,
    /// A further option of sbatch, `--sbatch=--qos=long`; may be repeated
    #[arg(long = "sbatch", value_name = "OPTION", allow_hyphen_values = true)]
    options: Vec<String>,
    /// A script with {{options}} and {{command}} instead of the built-in one
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// How often a lost cell is submitted again without an epoch in between [default: the file's, else 2]
    #[arg(long, value_name = "N")]
    retries: Option<u16>,
    /// Print the script, submit nothing
    #[arg(long)]
    pub(super) dry_run: bool,
}

impl SlurmArgs {
    /// Refuses what would have no effect.
    pub(super) fn check(&self, args: &Args) -> Result<(), Failure> {
        let given = [
            ("--partition", self.partition.is_some()),
            ("--account", self.account.is_some()),
            ("--time", self.time.is_some()),
            ("--memory", self.memory.is_some()),
            ("--cpus", self.cpus.is_some()),
            ("--sbatch", !self.options.is_empty()),
            ("--template", self.template.is_some()),
            ("--retries", self.retries.is_some()),
            ("--dry-run", self.dry_run),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((flag, _)) if self.launcher == Launcher::Local => {
                Err(Failure::Usage(format!("{flag} is for --launcher slurm")))
            }
            _ if self.dry_run && args.json => Err(Failure::Usage("--dry-run prints a script, not --json".to_owned())),
            _ => Ok(()),
        }
    }

    /// What the flags say; `jobs` is of Slurm where that runs the cells.
    pub(super) fn settings(&self, jobs: Option<u16>) -> SlurmSettings {
        SlurmSettings {
            partition: self.partition.clone(),
            account: self.account.clone(),
            time: self.time.clone(),
            memory: self.memory.clone(),
            cpus: self.cpus.map(usize::from),
            jobs: jobs.map(usize::from),
            options: self.options.clone(),
            template: self.template.clone(),
            retries: self.retries.map(usize::from),
        }
    }
}

/// Prints what would be submitted.
pub(super) fn dry_run(args: &Args, study: &Study) -> Result<(), Failure> {
    match study.slurm_script(&study.plan.slurm, &command(args, study)?)? {
        Some(script) => say(script.trim_end()),
        None => note("every cell is done: nothing to submit"),
    }
    Ok(())
}

/// The whole study as job arrays.
pub(super) fn run_cells(args: &Args, study: &Study) -> Result<Finished, Failure> {
    let stop = interrupt_flag()?;
    let command = command(args, study)?;
    let mut progress = StudyProgress::new(&study.plan);
    let finished = study.run_on_slurm(SlurmOptions {
        settings: &study.plan.slurm,
        command: &command,
        stop: &stop,
        observer: &mut |event| progress.show(&study.plan, event),
    });
    progress.finish();
    Ok(finished?)
}

/// This program on the node of a cell, whose name is the last argument.
fn command(args: &Args, study: &Study) -> Result<Vec<String>, Failure> {
    let text = |path: &Path| match path.to_str() {
        Some(path) if !path.contains(char::is_control) => Ok(path.to_owned()),
        _ => Err(Failure::Message(format!("{}: a script of Slurm cannot hold this path", path.display()))),
    };
    let absolute = |path: &Path| text(&std::path::absolute(path)?);
    let program = machine::command();
    let mut command = vec![text(program.get_program().as_ref())?];
    for argument in program.get_args() {
        command.push(text(argument.as_ref())?);
    }
    let (threads, device) = (study.plan.slurm.cpus().to_string(), machine::device_name());
    command.extend(["--threads", &threads].map(str::to_owned));
    if device != DeviceName::Processor {
        command.extend(["--device".to_owned(), device.to_string()]);
    }
    command.push("study".to_owned());
    command.extend([absolute(&args.file)?, "--out".to_owned(), absolute(&args.out)?]);
    command.extend(args.log.words()?);
    command.extend(["--precision", &study.plan.precision.to_string(), "--cell"].map(str::to_owned));
    Ok(command)
}
