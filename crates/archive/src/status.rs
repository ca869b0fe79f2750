//! How a queued archive is doing.

use crate::broker::Broker;
use crate::error::Error;
use crate::folder::ArchiveFolder;
use crate::plan::Plan;
use crate::queue::{Depth, Listener, Queue};
use crate::shared::{Failure, Shared, WorkerReport, WorkerState, joined, now};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// How long a worker is believed to be alive that says nothing, seconds.
const SILENCE: f64 = 15.0;

/// How an archive is doing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// The queue's name.
    pub queue: String,
    /// SHA-256 of `plan.json`.
    pub plan_digest: String,
    /// Images of the archive.
    pub inputs: u64,
    /// Images whose parts are there.
    pub inputs_done: u64,
    /// Parts of the archive.
    pub parts: u64,
    /// Parts that are there.
    pub parts_done: u64,
    /// Parts that wait for a worker.
    pub waiting: u64,
    /// Parts that workers hold.
    pub held: u64,
    /// Parts that are neither there nor queued nor failed: `enqueue` queues them.
    pub unqueued: u64,
    /// Chunks that failed; those that are not given up are tried again.
    pub failures: Vec<Failure>,
    /// Of the workers that are alive.
    pub images_per_s: f64,
    /// At this rate.
    pub seconds_left: Option<f64>,
    /// All that ever said anything.
    pub workers: Vec<WorkerStatus>,
}

/// A worker, as it last said.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkerStatus {
    /// What it said.
    #[serde(flatten)]
    pub report: WorkerReport,
    /// False where it ended, or says nothing any more.
    pub alive: bool,
    /// How long ago it said so.
    pub seconds_ago: f64,
}

/// Looks at a queued archive.
pub struct Watch {
    folder: PathBuf,
    plan: Plan,
    shared: Shared,
    queue: Queue,
}

impl Watch {
    /// Connects to the server.
    ///
    /// # Errors
    /// [`Error::NotQueued`] and what is wrong with the folder; those of the server.
    pub fn open(folder: &Path, broker: &Broker, listener: Listener) -> Result<Self, Error> {
        let (plan, shared) = joined(folder)?;
        let queue = Queue::connect(broker, &shared.name, listener)?;
        Ok(Watch { folder: folder.to_owned(), plan, shared, queue })
    }

    /// How it is doing now.
    ///
    /// # Errors
    /// [`Error::Io`], those of the server.
    pub fn status(&self) -> Result<Status, Error> {
        let Watch { folder, plan, shared, queue } = self;
        let is_there = queue.refuse_other(&shared.owner(folder, &plan.digest()))?;
        let missing = ArchiveFolder::join(folder).missing(plan)?;
        let (mut depth, mut failures, mut reports) = (Depth { waiting: 0, held: 0 }, Vec::new(), Vec::new());
        if is_there {
            (depth, failures, reports) = (queue.depth()?, queue.noted::<Failure>("failure")?, queue.noted("worker")?);
        }
        failures.retain(|failure| missing.contains(&failure.part));
        failures.sort_by_key(|failure| failure.part);
        let given_up = failures.iter().filter(|failure| failure.given_up).count() as u64;
        let mut workers: Vec<WorkerStatus> = reports.into_iter().map(WorkerStatus::of).collect();
        workers.sort_by(|one, other| one.report.worker.cmp(&other.report.worker));
        let alive = workers.iter().filter(|worker| worker.alive);
        let images_per_s = alive.map(|worker| worker.report.images_per_s).sum::<f64>();
        let left = plan.images(&missing);
        Ok(Status {
            queue: shared.name.clone(),
            plan_digest: plan.digest(),
            inputs: plan.inputs,
            inputs_done: plan.inputs - left,
            parts: plan.chunks(),
            parts_done: plan.chunks() - missing.len() as u64,
            waiting: depth.waiting,
            held: depth.held,
            unqueued: (missing.len() as u64).saturating_sub(depth.waiting + depth.held + given_up),
            failures,
            images_per_s,
            seconds_left: (left == 0 || images_per_s > 0.0)
                .then(|| if left == 0 { 0.0 } else { left as f64 / images_per_s }),
            workers,
        })
    }
}

impl WorkerStatus {
    fn of(report: WorkerReport) -> Self {
        let seconds_ago = (now() - report.at).max(0.0);
        WorkerStatus { alive: report.state == WorkerState::Working && seconds_ago < SILENCE, seconds_ago, report }
    }
}
