//! Submits what is missing, watches it, and submits again what was lost.

use super::array::{Array, array_name};
use super::commands::{Queue, Task, sacct, squeue};
use super::script::Script;
use super::settings::SlurmSettings;
use super::step::{Known, SETTLE, Step, room, step};
use crate::error::Error;
use crate::plan::Cell;
use crate::run::{Finished, Study, StudyEvent};
use crate::state::CellState;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The queue is asked so often while something changes, and at last so rarely while nothing does.
const POLLS: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(30)];

/// A controller may be away for so long.
const PATIENCE: Duration = Duration::from_secs(900);

/// How a study is run by Slurm: none of it changes the results.
pub struct SlurmOptions<'a> {
    /// What is asked of Slurm.
    pub settings: &'a SlurmSettings,
    /// A program and its arguments that runs one cell, whose name is its last argument; all paths absolute.
    pub command: &'a [String],
    /// Set from outside to stop watching; what was submitted goes on.
    pub stop: &'a AtomicBool,
    /// Told the news.
    pub observer: &'a mut dyn FnMut(StudyEvent),
}

/// A cell that has no result yet.
struct Open {
    cell: Cell,
    name: String,
    /// Index of its last array, and its task in it.
    task: Option<(usize, usize)>,
    /// True when this run submitted it.
    is_ours: bool,
    /// When it was first seen without an active task.
    quiet: Option<Instant>,
    is_running: bool,
    epochs: usize,
    /// Epochs that were saved when it was submitted, and how often it was lost since any was.
    epochs_then: usize,
    lost: usize,
    is_due: bool,
}

impl Study {
    /// The script that would be submitted for all missing cells; none where nothing is missing.
    ///
    /// # Errors
    /// As [`Study::finished`]; [`Error::Template`].
    pub fn slurm_script(&self, settings: &SlurmSettings, command: &[String]) -> Result<Option<String>, Error> {
        let tasks = self.plan.cells().len() - self.finished()?.len();
        let folder = self.folder.next_array()?;
        let name = array_name(&self.plan.path, &folder);
        let script = Script { settings, name: &name, folder: &folder, tasks: room(tasks, 0, settings.jobs), command };
        (tasks > 0).then(|| script.text()).transpose()
    }

    /// Computes what is missing as job arrays, those of an earlier call that is gone among them. A lost cell is submitted again, and
    /// given up where that was done as often as [`SlurmSettings`] say without an epoch in between; one that failed in its own words or was
    /// cancelled is named at the end.
    ///
    /// # Errors
    /// As [`Study::run`]; [`Error::NoSlurm`], [`Error::Slurm`], [`Error::Template`]; [`Error::LeftToSlurm`] where it was stopped.
    pub fn run_on_slurm<'a>(&'a self, options: SlurmOptions<'a>) -> Result<Finished, Error> {
        let _claim = self.folder.claim()?;
        let finished = Finished { cells: self.finished()?, failures: Vec::new() };
        let cells = self.plan.cells().len();
        (options.observer)(StudyEvent::Started { cells, done: finished.cells.len() });
        let mut watch = Watch::new(self, options, finished)?;
        watch.run()?;
        Ok(self.in_order(watch.finished))
    }
}

struct Watch<'a> {
    study: &'a Study,
    options: SlurmOptions<'a>,
    arrays: Vec<Array>,
    open: Vec<Open>,
    finished: Finished,
}

impl<'a> Watch<'a> {
    fn new(study: &'a Study, options: SlurmOptions<'a>, finished: Finished) -> Result<Self, Error> {
        let arrays = study.folder.arrays()?;
        let missing = study.plan.cells().into_iter().filter(|cell| finished.cells.iter().all(|(done, _)| done != cell));
        let open = missing.map(|cell| {
            let name = study.plan.cell_name(&cell);
            let task = arrays.iter().enumerate().rev().find_map(|(array, submitted)| {
                let place = submitted.record.cells.iter().position(|submitted| *submitted == name)?;
                Some((array, place + 1))
            });
            let is_due = task.is_none();
            Open {
                cell,
                name,
                task,
                is_ours: false,
                quiet: None,
                is_running: false,
                epochs: 0,
                epochs_then: 0,
                lost: 0,
                is_due,
            }
        });
        let open = open.collect();
        Ok(Watch { study, options, arrays, open, finished })
    }

    fn tell(&mut self, event: StudyEvent) {
        (self.options.observer)(event);
    }

    fn is_stopped(&self) -> bool {
        self.options.stop.load(Ordering::Relaxed)
    }

    fn run(&mut self) -> Result<(), Error> {
        let (mut pause, mut heard, mut last) = (POLLS[0], Instant::now(), None);
        while !self.open.is_empty() && !self.is_stopped() {
            match self.queue() {
                Ok(queue) => {
                    heard = Instant::now();
                    self.learn_jobs(&queue)?;
                    let counts = self.look(&queue)?;
                    let submitted = self.submit()?;
                    let changed = submitted || last.as_ref() != Some(&counts);
                    pause = if changed { POLLS[0] } else { POLLS[1].min(pause * 2) };
                    last = Some(counts);
                }
                Err(Error::Slurm { said, .. }) if heard.elapsed() < PATIENCE => {
                    self.tell(StudyEvent::Unheard { said });
                    pause = POLLS[1].min(pause * 2);
                }
                Err(error) => return Err(error),
            }
            self.pause(pause);
        }
        match self.open.is_empty() {
            true => Ok(()),
            false => Err(Error::LeftToSlurm { folder: self.study.folder.path().to_owned(), jobs: self.jobs() }),
        }
    }

    fn pause(&self, time: Duration) {
        let started = Instant::now();
        while started.elapsed() < time && !self.open.is_empty() && !self.is_stopped() {
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What Slurm knows of the arrays of open cells.
    fn queue(&self) -> Result<Queue, Error> {
        let mut names: Vec<&str> = self.tasks().map(|(array, _)| self.arrays[array].record.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() { Ok(Queue::default()) } else { squeue(&names) }
    }

    fn tasks(&self) -> impl Iterator<Item = (usize, usize)> {
        self.open.iter().filter_map(|open| open.task)
    }

    /// Notes the jobs of arrays whose submission was cut short.
    fn learn_jobs(&mut self, queue: &Queue) -> Result<(), Error> {
        for array in self.arrays.iter_mut().filter(|array| array.record.job.is_none()) {
            if let Some(job) = queue.job(&array.record.name) {
                array.submitted_as(job.to_owned())?;
            }
        }
        Ok(())
    }

    /// Looks at every open cell once.
    fn look(&mut self, queue: &Queue) -> Result<QueueNews, Error> {
        let now = self.study.folder.now();
        let mut news = QueueNews::default();
        for mut open in std::mem::take(&mut self.open) {
            if self.settle(&mut open, queue, now, &mut news)? {
                self.open.push(open);
            }
        }
        let QueueNews { running, waiting, .. } = news;
        self.tell(StudyEvent::Queue { running, waiting, reasons: news.reasons.clone().into_iter().collect() });
        Ok(news)
    }

    /// Takes the steps that are due for a cell; false where it needs none any more.
    fn settle(
        &mut self,
        open: &mut Open,
        queue: &Queue,
        now: std::time::SystemTime,
        news: &mut QueueNews,
    ) -> Result<bool, Error> {
        let folder = self.study.folder.cell(&open.name);
        let mut state = folder.state(now)?;
        let array = open.task.map(|(array, task)| (&self.arrays[array], task));
        let mut task = array.and_then(|(array, task)| queue.task(&array.record.name, task)).cloned();
        let name = array.and_then(|(array, task)| array.task_name(task));
        match task {
            Some(Task::Waiting(_) | Task::Running(_)) => open.quiet = None,
            _ => _ = open.quiet.get_or_insert_with(Instant::now),
        }
        let quiet = open.quiet.map_or(Duration::ZERO, |since| since.elapsed());
        if let (None, Some((array, number)), true) = (&task, array, open.is_ours && !open.is_due && quiet >= SETTLE) {
            task = array.record.job.as_ref().and_then(|job| sacct(job, number));
        }
        let decide = |state: &CellState| {
            step(&Known { state, task: task.as_ref(), name: name.as_deref(), quiet, is_ours: open.is_ours })
        };
        let mut decided = decide(&state);
        if let (Step::Revoke, CellState::Running(holder)) = (&decided, &state) {
            crate::claim::revoke(&folder.claim_file(), holder)?;
            state = folder.state(now)?;
            decided = decide(&state);
        }
        match decided {
            Step::Done => {
                self.done(open);
                return Ok(false);
            }
            Step::Failed(reason) => {
                self.failed(open, reason);
                return Ok(false);
            }
            Step::Waiting => {
                news.waiting += 1;
                if let Some(Task::Waiting(reason)) = task {
                    *news.reasons.entry(reason).or_default() += 1;
                }
                open.is_running = false;
            }
            // A claim that came back belongs to who lives.
            Step::Running | Step::Revoke => {
                news.running += 1;
                self.running(open);
                news.epochs += open.epochs;
            }
            Step::Lost(how) if !open.is_due => return Ok(self.lost(open, &how)),
            Step::Lost(_) => {}
        }
        Ok(true)
    }

    fn done(&mut self, open: &Open) {
        let read = self
            .study
            .identity(&open.cell)
            .and_then(|identity| self.study.folder.cell(&open.name).read_result(&identity));
        match read {
            Ok(Some(result)) => {
                self.finished.cells.push((open.cell, result.clone()));
                self.tell(StudyEvent::CellDone { cell: open.cell, result: Box::new(result) });
            }
            Ok(None) => self.failed(open, "its result was removed".to_owned()),
            Err(error) => self.failed(open, error.to_string()),
        }
    }

    fn failed(&mut self, open: &Open, reason: String) {
        let log = open.task.map(|(array, task)| self.arrays[array].log(task)).filter(|log| log.exists());
        let reason = log.map_or(reason.clone(), |log| format!("{reason}; its log: {}", log.display()));
        self.finished.failures.push(crate::results::Failure { cell: open.name.clone(), reason: reason.clone() });
        self.tell(StudyEvent::CellFailed { cell: open.cell, reason });
    }

    fn running(&mut self, open: &mut Open) {
        // Somebody else may have begun with it before it was submitted.
        open.is_due = false;
        if !std::mem::replace(&mut open.is_running, true) {
            self.tell(StudyEvent::CellStarted { cell: open.cell });
        }
        let rows = self.study.folder.cell(&open.name).epochs();
        if rows.len() > std::mem::replace(&mut open.epochs, rows.len())
            && let Some(row) = rows.last()
        {
            self.tell(StudyEvent::Epoch { cell: open.cell, row: row.clone() });
        }
    }

    /// Makes a lost cell due again; false where it is given up.
    fn lost(&mut self, open: &mut Open, how: &str) -> bool {
        open.epochs = self.study.folder.cell(&open.name).epochs().len();
        if open.is_ours {
            open.lost = if open.epochs > open.epochs_then { 1 } else { open.lost + 1 };
            if open.lost > self.options.settings.retries() {
                self.failed(open, format!("lost {} times without an epoch in between, at last {how}", open.lost));
                return false;
            }
            self.tell(StudyEvent::CellLost { cell: open.cell, how: how.to_owned() });
        }
        (open.is_due, open.is_running) = (true, false);
        true
    }

    /// Submits as many of the due cells as there is room for.
    fn submit(&mut self) -> Result<bool, Error> {
        let due: Vec<usize> = (0..self.open.len()).filter(|&index| self.open[index].is_due).collect();
        let now = room(due.len(), self.open.len() - due.len(), self.options.settings.jobs);
        let due = &due[..now];
        if due.is_empty() || self.is_stopped() {
            return Ok(false);
        }
        let SlurmOptions { settings, command, .. } = self.options;
        let names: Vec<String> = due.iter().map(|&index| self.open[index].name.clone()).collect();
        for name in &names {
            let folder = self.study.folder.cell(name);
            folder.create()?;
            folder.clear_failure()?;
        }
        let array = self.study.folder.submit(&self.study.plan.path, names, settings, command)?;
        let job = array.record.job.clone().unwrap_or_default();
        self.arrays.push(array);
        for (task, &index) in due.iter().enumerate() {
            let open = &mut self.open[index];
            open.task = Some((self.arrays.len() - 1, task + 1));
            (open.is_ours, open.is_due, open.quiet) = (true, false, None);
            open.epochs_then = open.epochs;
        }
        self.tell(StudyEvent::Submitted { job, cells: now });
        Ok(true)
    }

    /// Jobs of open cells.
    fn jobs(&self) -> Vec<String> {
        let mut jobs: Vec<_> = self.tasks().filter_map(|(array, _)| self.arrays[array].record.job.clone()).collect();
        jobs.sort();
        jobs.dedup();
        jobs
    }
}

/// Where all stands.
#[derive(Debug, Default, PartialEq)]
struct QueueNews {
    running: usize,
    waiting: usize,
    epochs: usize,
    /// Why tasks wait, and how many.
    reasons: BTreeMap<String, usize>,
}
