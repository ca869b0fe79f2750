//! All cells of a study, each in a process of its own: a crash, a lack of memory or a kill costs one cell's epoch at
//! most, and the peak of memory is the cell's own.

use crate::cell::{Manifests, identity};
use crate::cell_result::{CellResult, Identity};
use crate::error::Error;
use crate::plan::{BackbonePlan, Cell, Plan};
use crate::results::Failure;
use crate::store::{CellFolder, GRACE, StudyFolder};
use melo_interop::read_backbone;
use melo_train::EpochRow;
use melo_vit::{BackboneInfo, Device};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// News from a study, for whoever shows them.
#[derive(Debug)]
pub enum StudyEvent {
    /// Before the first cell: how many are planned, and how many are done already.
    Started {
        /// Planned.
        cells: usize,
        /// Done.
        done: usize,
    },
    /// A cell begins or goes on.
    CellStarted {
        /// The cell.
        cell: Cell,
    },
    /// A cell ended an epoch.
    Epoch {
        /// The cell.
        cell: Cell,
        /// The epoch.
        row: EpochRow,
    },
    /// A cell is done.
    CellDone {
        /// The cell.
        cell: Cell,
        /// What it found.
        result: Box<CellResult>,
    },
    /// A cell failed; the others go on.
    CellFailed {
        /// The cell.
        cell: Cell,
        /// Why.
        reason: String,
    },
    /// A cell's task ended without a word; it is submitted again.
    CellLost {
        /// The cell.
        cell: Cell,
        /// How it ended.
        how: String,
    },
    /// Cells were submitted to Slurm.
    Submitted {
        /// The job of the array.
        job: String,
        /// How many.
        cells: usize,
    },
    /// How the cells that are not done stand with Slurm.
    Queue {
        /// Computed now.
        running: usize,
        /// In the queue.
        waiting: usize,
        /// Slurm's reasons why they wait, and of how many.
        reasons: Vec<(String, usize)>,
    },
    /// Slurm did not answer; it is asked again.
    Unheard {
        /// What its command said.
        said: String,
    },
}

/// What a cell's process says to the study that started it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CellNews {
    /// An epoch ended.
    Epoch(EpochRow),
    /// The cell cannot be computed, and why; the process ends.
    Failed(String),
}

/// How a study is run: none of it changes the results.
pub struct StudyOptions<'a> {
    /// Cells at a time.
    pub jobs: usize,
    /// A command that runs one cell by its name, says [`CellNews`] on its standard output, each as a line of JSON, and
    /// stops when its standard input ends.
    pub command: &'a (dyn Fn(&str) -> Command + Sync),
    /// Set from outside to stop.
    pub stop: &'a AtomicBool,
    /// Told the news.
    pub observer: &'a mut dyn FnMut(StudyEvent),
}

/// A study and its folder: what can be computed, resumed and read back.
#[derive(Debug)]
pub struct Study {
    /// What was asked for.
    pub plan: Plan,
    /// Where it is kept.
    pub folder: StudyFolder,
    /// One a backbone of the plan.
    pub(crate) backbones: Vec<BackboneInfo>,
    pub(crate) manifests: Manifests,
    /// Where the report's examples are explained.
    pub(crate) device: Arc<dyn Device>,
}

/// The finished cells and the failed ones.
#[derive(Debug, Default)]
pub struct Finished {
    /// Results, in the plan's order.
    pub cells: Vec<(Cell, CellResult)>,
    /// Failures of this run.
    pub failures: Vec<Failure>,
}

impl Study {
    /// Reads the backbones of a plan once, for their digests.
    ///
    /// # Errors
    /// As [`read_backbone`].
    pub fn new(plan: Plan, folder: StudyFolder, device: Arc<dyn Device>) -> Result<Self, Error> {
        let facts = |backbone: &BackbonePlan| Ok(read_backbone(&backbone.weights)?.info().clone());
        let backbones = plan.backbones.iter().map(facts).collect::<Result<_, Error>>()?;
        Ok(Study { plan, folder, backbones, manifests: Manifests::default(), device })
    }

    pub(crate) fn identity(&self, cell: &Cell) -> Result<Identity, Error> {
        let data = self.manifests.of(&self.plan, cell)?;
        identity(&self.plan, cell, &data, &self.backbones[cell.backbone])
    }

    /// The finished cells so far, each held to what the plan would compute now.
    ///
    /// # Errors
    /// [`Error::Foreign`], [`Error::Result`], or why data cannot be read.
    pub fn finished(&self) -> Result<Vec<(Cell, CellResult)>, Error> {
        let mut cells = Vec::new();
        for cell in self.plan.cells() {
            let folder = self.folder.cell(&self.plan.cell_name(&cell));
            if let Some(result) = folder.read_result(&self.identity(&cell)?)? {
                cells.push((cell, result));
            }
        }
        Ok(cells)
    }

    /// Computes what is missing; a failed cell is named at the end and costs the others nothing.
    ///
    /// # Errors
    /// As [`Study::finished`]; [`Error::Busy`]; [`Error::Interrupted`].
    pub fn run(&self, options: StudyOptions<'_>) -> Result<Finished, Error> {
        let _claim = self.folder.claim()?;
        let StudyOptions { jobs, command, stop, observer } = options;
        let plan = &self.plan;
        let mut finished = Finished { cells: self.finished()?, failures: Vec::new() };
        let cells = plan.cells();
        observer(StudyEvent::Started { cells: cells.len(), done: finished.cells.len() });
        let missing = cells.iter().filter(|cell| finished.cells.iter().all(|(done, _)| done != *cell));
        let queue: Mutex<VecDeque<Cell>> = Mutex::new(missing.copied().collect());
        let (sender, receiver) = channel();
        std::thread::scope(|scope| {
            for _ in 0..jobs.max(1) {
                let sender = sender.clone();
                let queue = &queue;
                scope.spawn(move || {
                    while let Some(cell) = next(queue, stop) {
                        let end = match self.run_one(&cell, command, stop, &sender) {
                            Ok(Some(result)) => StudyEvent::CellDone { cell, result: Box::new(result) },
                            Ok(None) => continue,
                            Err(reason) => StudyEvent::CellFailed { cell, reason },
                        };
                        // The receiver outlives the scope.
                        let _ = sender.send(end);
                    }
                });
            }
            drop(sender);
            for event in receiver {
                match &event {
                    StudyEvent::CellDone { cell, result } => finished.cells.push((*cell, (**result).clone())),
                    StudyEvent::CellFailed { cell, reason } => {
                        finished.failures.push(Failure { cell: plan.cell_name(cell), reason: reason.clone() });
                    }
                    _ => {}
                }
                observer(event);
            }
        });
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted { folder: self.folder.path().to_owned() });
        }
        Ok(self.in_order(finished))
    }

    /// The same cells in the plan's order.
    pub(crate) fn in_order(&self, mut finished: Finished) -> Finished {
        let cells = self.plan.cells();
        finished.cells.sort_by_key(|(cell, _)| cells.iter().position(|planned| planned == cell));
        finished
    }

    /// One cell in its process; none where the study was stopped.
    fn run_one(
        &self,
        cell: &Cell,
        command: &(dyn Fn(&str) -> Command + Sync),
        stop: &AtomicBool,
        news: &Sender<StudyEvent>,
    ) -> Result<Option<CellResult>, String> {
        let say = |error: Error| error.to_string();
        let name = self.plan.cell_name(cell);
        let folder = self.folder.cell(&name);
        folder.create().map_err(say)?;
        let _ = news.send(StudyEvent::CellStarted { cell: *cell });
        let status = supervise(command(&name), &folder, stop, &mut |row| {
            let _ = news.send(StudyEvent::Epoch { cell: *cell, row });
        });
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        status?;
        match self.identity(cell).and_then(|identity| folder.read_result(&identity)).map_err(say)? {
            Some(result) => Ok(Some(result)),
            None => Err("its process ended well without a result".to_owned()),
        }
    }
}

fn next(queue: &Mutex<VecDeque<Cell>>, stop: &AtomicBool) -> Option<Cell> {
    match stop.load(Ordering::Relaxed) {
        true => None,
        false => queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front(),
    }
}

/// Runs a cell's process to its end, passes its epochs on, and asks it to stop where the study is stopped.
fn supervise(
    mut command: Command,
    folder: &CellFolder,
    stop: &AtomicBool,
    epoch: &mut dyn FnMut(EpochRow),
) -> Result<(), String> {
    let log = File::create(folder.log()).map_err(|error| format!("{}: {error}", folder.log().display()))?;
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn();
    let mut child = child.map_err(|error| format!("cannot start its process: {error}"))?;
    let mut failed = None;
    let (sender, lines) = channel();
    let output = child.stdout.take();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for line in output.into_iter().flat_map(|output| BufReader::new(output).lines()).map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        loop {
            match lines.recv_timeout(Duration::from_millis(200)) {
                Ok(line) => match serde_json::from_str(&line) {
                    Ok(CellNews::Epoch(row)) => epoch(row),
                    Ok(CellNews::Failed(reason)) => failed = Some(reason),
                    // Not from this program.
                    Err(_) => {}
                },
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) if stop.load(Ordering::Relaxed) => {
                    end(&mut child);
                    break;
                }
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
            }
        }
    });
    let status = child.wait().map_err(|error| format!("cannot wait for its process: {error}"))?;
    match status.success() {
        true => Ok(()),
        false => Err(failed.unwrap_or_else(|| format!("its process ended with {status}"))),
    }
}

/// Lets a process end its step and leave; ends it where it does not.
fn end(child: &mut Child) {
    drop(child.stdin.take());
    let started = std::time::Instant::now();
    while started.elapsed() < GRACE {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    // It may have left by itself meanwhile.
    let _ = child.kill();
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// What is found of a process that runs this in a shell, and the epochs that it said.
    fn supervised(script: &str) -> (Result<(), String>, Vec<usize>) {
        let room = tempfile::tempdir().expect("a folder");
        let folder = StudyFolder::create(room.path()).expect("a study's folder").cell("task/vit/lora/seed-0");
        folder.create().expect("a cell's folder");
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let mut epochs = Vec::new();
        let end = supervise(command, &folder, &AtomicBool::new(false), &mut |row| epochs.push(row.epoch));
        (end, epochs)
    }

    fn line(news: &CellNews) -> String {
        format!("printf '%s\\n' '{}'\n", serde_json::to_string(news).expect("news are plain data"))
    }

    fn epoch(epoch: usize) -> String {
        line(&CellNews::Epoch(EpochRow {
            epoch,
            learning_rate: 0.1,
            train_loss: 0.5,
            val_loss: 0.5,
            val_auc_macro: Some(0.75),
            val_acc: Some(0.5),
            images_per_s: 10.0,
            seconds: 1.5,
            best: true,
            ..EpochRow::default()
        }))
    }

    #[test]
    fn a_process_passes_on_its_epochs() {
        assert_eq!(supervised(&(epoch(1) + "echo not JSON\n" + &epoch(2))), (Ok(()), vec![1, 2]));
    }

    #[test]
    fn a_process_that_fails_says_why_in_its_own_words() {
        let reason = "melo: a \"b\", in\ntwo lines".to_owned();
        let script = epoch(1) + &line(&CellNews::Failed(reason.clone())) + "echo 'melo: for people' >&2; exit 1";
        assert_eq!(supervised(&script), (Err(reason), vec![1]));
        let (end, _) = supervised("echo '{\"failed\": \"no image\"}'; exit 1");
        assert_eq!(end, Err("no image".to_owned()));
    }

    #[test]
    fn a_process_that_dies_is_known_by_its_status() {
        let (end, _) = supervised("echo 'a panic' >&2; exit 101");
        assert_eq!(end, Err("its process ended with exit status: 101".to_owned()));
        let (end, epochs) = supervised(&(epoch(1) + "kill -9 $$"));
        assert_eq!((end, epochs), (Err("its process ended with signal: 9 (SIGKILL)".to_owned()), vec![1]));
    }
}
