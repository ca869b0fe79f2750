//! A worker: takes chunks from the queue until none is left with anybody.

use crate::broker::Broker;
use crate::compute::Work;
use crate::error::Error;
use crate::folder::{ArchiveFolder, INPUTS, part_name};
use crate::inputs::Listed;
use crate::part::digest;
use crate::plan::Plan;
use crate::queue::{Held, Listener, Queue};
use crate::run::{Event, Settings};
use crate::shared::{Failure, Shared, WorkerReport, WorkerState, joined, now, random, this_worker};
use crate::store::Stores;
use melo_predict::Predictor;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What a rate is taken over.
const LATELY: Duration = Duration::from_secs(60);
/// How long a chunk that failed here waits for another worker.
const PAUSE: Duration = Duration::from_secs(5);

/// What a worker has done.
#[derive(Clone, Debug)]
pub struct Worked {
    /// What is computed.
    pub plan: Plan,
    /// Its name.
    pub worker: String,
    /// Images that it computed.
    pub images: u64,
    /// Images without an answer among them.
    pub refused: u64,
    /// Parts that it wrote.
    pub parts: u64,
    /// Chunks that it was handed once too often, and which nobody tries again.
    pub given_up: u64,
}

/// Computes chunks of a planned archive until none is left with anybody. A server that is lost is waited for. Raised, `stop` ends it after the
/// chunk in flight; what else it holds is given back.
///
/// # Errors
/// Every cause by its name, see [`Error`]: [`Error::NotPlanned`] for other weights or plug-ins than the plan's. What a chunk cannot be computed for
/// ends the worker, and the chunk is given back.
///
/// # Panics
/// If a plug-in is bound to another engine.
pub fn work(
    predictor: &Predictor,
    settings: &Settings,
    path: &Path,
    (broker, listener): (&Broker, Listener),
    stop: &AtomicBool,
    observer: &mut dyn FnMut(Event<'_>),
) -> Result<Worked, Error> {
    let (plan, shared) = joined(path)?;
    let settings = &in_order(settings, &plan);
    refuse_other(predictor, settings, &plan, path)?;
    shared.refuse_elsewhere()?;
    let plan_digest = plan.digest();
    let queue = Queue::connect(broker, &shared.name, listener)?;
    if !queue.refuse_other(&shared.owner(path, &plan_digest))? {
        return Err(Error::Gone { server: broker.address(), name: shared.name });
    }
    let folder = ArchiveFolder::join(path);
    let done = plan.inputs - plan.images(&folder.missing(&plan)?);
    observer(Event::Planned { listed: &listed(&plan), done });
    let (stores, digest) = (&Stores::default(), plan_digest.as_str());
    let work = Work { predictor, settings, plan: &plan, digest, folder: &folder, stores, needs_files: true };
    let worker = Worker::new(&work, &shared, &queue, stop);
    let ended = worker.compute(observer);
    let given_up = worker.given_up.load(Ordering::Relaxed);
    let WorkerReport { worker, images, refused, parts, .. } = worker.end(&ended);
    ended.map(|()| Worked { plan, worker, images, refused, parts, given_up })
}

/// The plug-ins in the plan's order.
fn in_order(settings: &Settings, plan: &Plan) -> Settings {
    let mut settings = settings.clone();
    let place = |digest: &str| plan.plugins.iter().position(|planned| planned.plugin_digest == digest);
    settings.plugins.sort_by_key(|plugin| place(&plugin.digest).unwrap_or(usize::MAX));
    settings
}

/// Refuses everything that would make another part than the plan's.
fn refuse_other(predictor: &Predictor, settings: &Settings, plan: &Plan, path: &Path) -> Result<(), Error> {
    let here = Plan::new(predictor, settings, &listed(plan), plan.chunk);
    here.refuse_other(plan, path).map_err(|error| match error {
        Error::Differs { folder, what, was: planned, now: here } => Error::NotPlanned { folder, what, planned, here },
        error => error,
    })?;
    let inputs = path.join(INPUTS);
    match digest(&inputs)?.0 == plan.inputs_digest {
        true => Ok(()),
        false => Err(Error::damaged(&inputs, "not the names that the plan was made of")),
    }
}

/// What the plan was made of.
fn listed(plan: &Plan) -> Listed {
    let Plan { inputs, inputs_digest, unlisted, .. } = plan.clone();
    Listed { inputs, digest: inputs_digest, unlisted, left_out: 0, repeated: 0 }
}

struct Worker<'a> {
    work: &'a Work<'a>,
    shared: &'a Shared,
    queue: &'a Queue,
    stop: &'a AtomicBool,
    progress: Arc<Mutex<Progress>>,
    given_up: AtomicU64,
}

impl<'a> Worker<'a> {
    fn new(work: &'a Work<'a>, shared: &'a Shared, queue: &'a Queue, stop: &'a AtomicBool) -> Self {
        let progress = Progress::new();
        let name = progress.report.worker.clone();
        let progress = Arc::new(Mutex::new(progress));
        let told = Arc::clone(&progress);
        queue.note_often(&name, move || told.lock().expect("no panic holds it").now());
        Worker { work, shared, queue, stop, progress, given_up: AtomicU64::new(0) }
    }

    fn change(&self, change: impl FnOnce(&mut Progress)) -> WorkerReport {
        let mut progress = self.progress.lock().expect("no panic holds it");
        change(&mut progress);
        progress.now()
    }

    fn compute(&self, observer: &mut dyn FnMut(Event<'_>)) -> Result<(), Error> {
        let consumer = self.queue.consumer(Duration::from_secs(self.shared.ack_wait_s))?;
        // A chunk that failed ends the worker, which may be waiting for the next one.
        let has_failed = AtomicBool::new(false);
        let is_over = || self.stop.load(Ordering::Relaxed) || has_failed.load(Ordering::Relaxed);
        let next = || {
            loop {
                while let Some(held) = self.queue.take(&consumer, self.work.digest, is_over)? {
                    if let Some(held) = self.worth_computing(held) {
                        return Ok(Some((held.chunk, held)));
                    }
                }
                match self.queue_again() {
                    _ if is_over() => return Ok(None),
                    Ok(false) => return Ok(None),
                    // A server that is lost is waited for where chunks are taken.
                    Ok(true) | Err(Error::Broker { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        };
        let settle = |_, held: Held, failed: Option<&Error>| {
            let settled = self.settle(held, failed);
            has_failed.store(failed.is_some() || settled.is_err(), Ordering::Relaxed);
            settled
        };
        self.work.compute(next, settle, &mut |event| {
            match event {
                Event::Computed(images) => drop(self.change(|progress| progress.add(images))),
                Event::Refused(_) => drop(self.change(|progress| progress.report.refused += 1)),
                _ => {}
            }
            observer(event);
        })?;
        self.refuse_stopped()
    }

    /// At the end of the queue: parts that are not there nevertheless, because a server that was killed forgot them, are queued again. False where
    /// there are none.
    fn queue_again(&self) -> Result<bool, Error> {
        let mut missing = self.work.folder.missing(self.work.plan)?;
        if !missing.is_empty() {
            let failures = self.queue.noted::<Failure>("failure")?;
            for failure in failures.iter().filter(|failure| failure.given_up) {
                missing.remove(&failure.part);
            }
        }
        let missing: Vec<u64> = missing.into_iter().collect();
        self.queue.put(&missing, self.work.digest, &random()?)?;
        Ok(!missing.is_empty())
    }

    fn settle(&self, held: Held, failed: Option<&Error>) -> Result<(), Error> {
        if let Some(error) = failed {
            self.note(&held, error.to_string(), false);
            held.give_back(PAUSE);
            return Ok(());
        }
        self.work.folder.sync()?;
        held.done();
        self.change(|progress| progress.report.parts += 1);
        self.refuse_stopped()
    }

    fn refuse_stopped(&self) -> Result<(), Error> {
        let (done, of) = (self.change(|_| {}).images, self.work.plan.inputs);
        match self.stop.load(Ordering::Relaxed) {
            true => Err(Error::Interrupted { done, of, folder: self.work.folder.path().to_owned() }),
            false => Ok(()),
        }
    }

    /// A chunk whose part is not there, and that was not handed out too often.
    fn worth_computing(&self, held: Held) -> Option<Held> {
        if self.work.folder.at(&part_name(held.chunk, self.work.digest)).exists() {
            // Somebody was killed, or lost the server, after writing it.
            held.done();
            return None;
        }
        if held.deliveries <= i64::from(self.shared.max_deliver) {
            return Some(held);
        }
        let last: Option<Failure> = self.queue.noted_of("failure", held.chunk);
        let reason = last.map_or_else(|| "its workers died, or gave it back".to_owned(), |last| last.reason);
        self.note(&held, reason, true);
        self.given_up.fetch_add(1, Ordering::Relaxed);
        held.bury();
        None
    }

    fn note(&self, held: &Held, reason: String, given_up: bool) {
        let worker = self.change(|_| {}).worker;
        let deliveries = held.deliveries - i64::from(given_up);
        let failure = Failure { part: held.chunk, deliveries, worker, reason, given_up };
        self.queue.note("failure", held.chunk, &failure);
    }

    /// Says how it ended.
    fn end(&self, ended: &Result<(), Error>) -> WorkerReport {
        let report = self.change(|Progress { report, .. }| {
            report.state = WorkerState::Ended;
            if let Some(error) = ended.as_ref().err().filter(|error| !matches!(error, Error::Interrupted { .. })) {
                (report.state, report.reason) = (WorkerState::Failed, Some(error.to_string()));
            }
        });
        self.queue.note("worker", &report.worker, &report);
        self.queue.close();
        report
    }
}

/// How far a worker is.
struct Progress {
    report: WorkerReport,
    since: Instant,
    /// Images and when they were computed, of the last minute.
    lately: VecDeque<(Instant, usize)>,
}

impl Progress {
    fn new() -> Self {
        let (state, reason) = (WorkerState::Working, None);
        let (images, refused, parts, images_per_s) = (0, 0, 0, 0.0);
        let report =
            WorkerReport { worker: this_worker(), state, reason, images, refused, parts, images_per_s, at: now() };
        Progress { report, since: Instant::now(), lately: VecDeque::new() }
    }

    fn add(&mut self, images: usize) {
        self.report.images += images as u64;
        self.lately.push_back((Instant::now(), images));
    }

    /// The report with its rate.
    fn now(&mut self) -> WorkerReport {
        while let Some((at, _)) = self.lately.front().filter(|(at, _)| at.elapsed() > LATELY) {
            self.since = *at;
            self.lately.pop_front();
        }
        let images: usize = self.lately.iter().map(|(_, images)| images).sum();
        let is_working = self.report.state == WorkerState::Working;
        let rate = images as f64 / self.since.elapsed().as_secs_f64().max(1e-9);
        WorkerReport { images_per_s: if is_working { rate } else { 0.0 }, at: now(), ..self.report.clone() }
    }
}
