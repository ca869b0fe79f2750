//! One queue with a bound, one batcher that takes what is waiting.
//!
//! ```text
//! admit (or Busy, at once) -> decode elsewhere -> submit -> batcher: up to max_batch rows, callers in turn, or max_wait
//!   -> Predictor::infer over all single images, Predictor::predict_bag for each bag -> answers
//! ```
//!
//! A row is one image under one plug-in, also of a bag. Plug-ins travel with the job as `Arc`s: a batch keeps the versions that its
//! requests started with, whatever the registry does meanwhile.

mod queue;

use crate::defaults;
use crate::error::{Error, Refusal};
use crate::metrics::Metrics;
use melo_predict::{AllGiven, Bag, BagPrediction, Input, Predictor};
use melo_vit::BoundPlugin;
use queue::{Queue, Taken};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How much is computed at once and how much may wait.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchConfig {
    /// Rows of a batch at most; a single request with more is computed alone.
    pub max_batch: usize,
    /// How long the first of a batch waits for others.
    pub max_wait: Duration,
    /// Rows that may be admitted at a time, and an eighth more where one caller holds them; others are refused.
    pub queue: usize,
    /// Share of the queue from which on it counts as pressed; above 1 never.
    pub pressed_share: f64,
    /// How long it is pressed before the server says that it is not ready.
    pub pressed_for: Duration,
}

impl Default for BatchConfig {
    fn default() -> Self {
        BatchConfig {
            max_batch: defaults::MAX_BATCH,
            max_wait: defaults::MAX_WAIT,
            queue: defaults::QUEUE,
            pressed_share: defaults::PRESSED_SHARE,
            pressed_for: defaults::PRESSED_FOR,
        }
    }
}

impl BatchConfig {
    /// Rows from which on the queue is pressed.
    fn pressed(&self) -> usize {
        (self.pressed_share * self.queue as f64).ceil() as usize
    }
}

/// What one request asks.
#[derive(Default)]
pub struct Asked {
    /// Single images.
    pub inputs: Vec<Input>,
    /// Bags, each with who is asked about it.
    pub bags: Vec<(Arc<Bag>, Arc<BoundPlugin>)>,
}

impl Asked {
    fn rows(&self) -> usize {
        let inputs: usize = self.inputs.iter().map(|input| input.plugins.len()).sum();
        inputs + self.bags.iter().map(|(bag, _)| bag.images.len()).sum::<usize>()
    }
}

/// What one request gets, in the order of what it asked.
pub struct Computed {
    /// Of single images.
    pub given: AllGiven,
    /// Of bags.
    pub bags: Vec<BagPrediction>,
}

/// What one request asks, on its way.
pub(crate) struct Job {
    asked: Asked,
    reply: oneshot::Sender<Result<Computed, Refusal>>,
    submitted: Instant,
    permit: Permit,
}

impl Job {
    /// Gives its rows back, then answers: who is answered finds room for the next request.
    fn settle(self, answer: Result<Computed, Refusal>) {
        let Job { reply, permit, .. } = self;
        drop(permit);
        let _ = reply.send(answer);
    }
}

/// Rows that were admitted; they are given back when it goes away.
pub struct Permit {
    queue: Arc<Queue>,
    /// Whose they are.
    caller: Arc<str>,
    rows: usize,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.queue.release(&self.caller, self.rows);
    }
}

impl Permit {
    /// How many there are.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Takes some of its rows into a permit of their own.
    ///
    /// # Panics
    /// If there are not as many.
    pub(crate) fn split(&mut self, rows: usize) -> Permit {
        assert!(rows <= self.rows, "{rows} rows of {}", self.rows);
        self.rows -= rows;
        Permit { queue: Arc::clone(&self.queue), caller: Arc::clone(&self.caller), rows }
    }

    /// Makes room for more rows, or says at once that there is none.
    ///
    /// # Errors
    /// [`Refusal::Full`], [`Refusal::Busy`].
    pub(crate) fn grow(&mut self, rows: usize) -> Result<(), Refusal> {
        self.queue.admit(&self.caller, self.rows, rows)?;
        self.rows += rows;
        Ok(())
    }

    /// Hands what a request asks to the batcher. A caller that drops the receiver is not computed for.
    ///
    /// # Panics
    /// If there are more rows than were admitted.
    pub fn submit(self, asked: Asked) -> oneshot::Receiver<Result<Computed, Refusal>> {
        let rows = asked.rows();
        assert!(rows <= self.rows, "{rows} rows submitted, {} admitted", self.rows);
        let (reply, receiver) = oneshot::channel();
        let queue = Arc::clone(&self.queue);
        queue.push(Job { asked, reply, submitted: Instant::now(), permit: self });
        receiver
    }
}

/// A predictor at work.
pub struct BatchQueue {
    predictor: Predictor,
    queue: Arc<Queue>,
    batcher: std::sync::Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl BatchQueue {
    /// Starts the batcher.
    ///
    /// # Errors
    /// [`Error::Settings`].
    pub fn start(predictor: Predictor, config: BatchConfig, metrics: Arc<Metrics>) -> Result<Self, Error> {
        if config.max_batch == 0 || config.queue == 0 {
            return Err(Error::Settings("max-batch and queue are at least 1".to_owned()));
        }
        if config.pressed_share.is_nan() || config.pressed_share <= 0.0 {
            return Err(Error::Settings(format!(
                "{} is no share of a queue, expected more than 0",
                config.pressed_share
            )));
        }
        metrics.queue_holds_at_most(config.queue);
        let queue = Arc::new(Queue::new(config));
        let batcher = Batcher { predictor: predictor.clone(), queue: Arc::clone(&queue), metrics };
        let thread = std::thread::Builder::new().name("melo-batcher".into()).spawn(move || batcher.run());
        let thread = thread.map_err(|error| Error::Settings(format!("the batcher's thread: {error}")))?;
        Ok(BatchQueue { predictor, queue, batcher: std::sync::Mutex::new(Some(thread)) })
    }

    /// What computes, for work beside the queue such as a heat map.
    pub fn predictor(&self) -> &Predictor {
        &self.predictor
    }

    /// Makes room for rows of a caller, or says at once that there is none. Callers take turns, and who holds nothing yet has a place
    /// beside one who holds all.
    ///
    /// # Errors
    /// [`Refusal::Full`], [`Refusal::Busy`], [`Refusal::Stopping`].
    pub fn admit(&self, caller: &str, rows: usize) -> Result<Permit, Refusal> {
        let caller = Arc::from(caller);
        self.queue.admit(&caller, 0, rows)?;
        Ok(Permit { queue: Arc::clone(&self.queue), caller, rows })
    }

    /// Rows admitted and not yet answered.
    pub fn load(&self) -> usize {
        self.queue.load()
    }

    /// How long the queue has been pressed, where that is longer than it may be.
    pub(crate) fn pressed(&self) -> Option<Duration> {
        self.queue.pressed_too_long()
    }

    /// Rows that may be admitted at a time.
    pub fn capacity(&self) -> usize {
        self.queue.capacity()
    }

    /// Admits nothing more, computes what is there, ends the batcher.
    pub fn drain(&self) {
        self.queue.close();
        let thread = self.batcher.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

/// The one thread that forms batches.
struct Batcher {
    predictor: Predictor,
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
}

impl Batcher {
    fn run(self) {
        while let Taken::Jobs(mut jobs) = self.queue.take() {
            let before = jobs.len();
            jobs.retain(|job| !job.reply.is_closed());
            self.metrics.abandoned((before - jobs.len()) as u64);
            if jobs.is_empty() {
                continue;
            }
            let started = Instant::now();
            jobs.iter().for_each(|job| self.metrics.waited(started - job.submitted));
            let _computing = self.metrics.computing();
            self.answer(jobs, started);
        }
    }

    /// Single images of all jobs together, and who asked of nothing else told at once; then bag by bag, so that one that cannot be read is
    /// its own job's trouble alone.
    fn answer(&self, jobs: Vec<Job>, started: Instant) {
        let rows = jobs.iter().map(|job| job.permit.rows).sum();
        let computed = || {
            self.metrics.computed(rows, started.elapsed());
            self.queue.computed(rows, started.elapsed());
        };
        let inputs: Vec<&Input> = jobs.iter().flat_map(|job| &job.asked.inputs).collect();
        let mut given = match guarded(|| self.predictor.infer(&inputs)) {
            Ok(given) => given.into_iter(),
            Err(refusal) => {
                computed();
                return jobs.into_iter().for_each(|job| job.settle(Err(refusal.clone())));
            }
        };
        let own = |job: Job| {
            let given: AllGiven = given.by_ref().take(job.asked.inputs.len()).collect();
            (job, given)
        };
        let jobs: Vec<(Job, AllGiven)> = jobs.into_iter().map(own).collect();
        let (with_bags, single): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|(job, _)| !job.asked.bags.is_empty());
        if with_bags.is_empty() {
            computed();
        }
        for (job, given) in single {
            job.settle(Ok(Computed { given, bags: Vec::new() }));
        }
        if with_bags.is_empty() {
            return;
        }
        let answered: Vec<_> = with_bags.into_iter().map(|(job, given)| (self.bags(&job), given, job)).collect();
        computed();
        for (bags, given, job) in answered {
            job.settle(bags.map(|bags| Computed { given, bags }));
        }
    }

    fn bags(&self, job: &Job) -> Result<Vec<BagPrediction>, Refusal> {
        let of = |(bag, plugin): &(Arc<Bag>, Arc<BoundPlugin>)| match job.reply.is_closed() {
            true => Err(Refusal::Stopping),
            false => guarded(|| self.predictor.predict_bag(bag, plugin)),
        };
        job.asked.bags.iter().map(of).collect()
    }
}

/// What a computation gives, whatever it does.
fn guarded<T>(compute: impl FnOnce() -> Result<T, melo_predict::Error>) -> Result<T, Refusal> {
    match catch_unwind(AssertUnwindSafe(compute)) {
        Ok(Err(melo_predict::Error::Engine(melo_vit::Error::Image { source, .. }))) => {
            Err(Refusal::Unusable(source.to_string()))
        }
        Ok(done) => done.map_err(|error| Refusal::Internal(error.to_string())),
        Err(_) => Err(Refusal::Internal("the computation failed; this is a defect, please report it".to_owned())),
    }
}
