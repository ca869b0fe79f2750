//! One queue with a bound, one batcher that takes what is waiting.
//!
//! ```text
//! admit (or Busy, at once) -> decode elsewhere -> submit -> batcher: up to max_batch rows, or max_wait
//!   -> Predictor::infer over all of them -> answers
//! ```
//!
//! A row is one image under one plug-in. Plug-ins travel with the job as `Arc`s: a batch keeps the versions that its
//! requests started with, whatever the registry does meanwhile.

mod queue;

use crate::error::{Error, Refusal};
use crate::metrics::Metrics;
use melo_predict::{Input, Logits, Predictor};
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
    /// Rows that may be admitted at a time; more are refused.
    pub queue: usize,
}

/// Inputs of one request, on their way.
pub(crate) struct Job {
    inputs: Vec<Input>,
    reply: oneshot::Sender<Result<Logits, Refusal>>,
    submitted: Instant,
    permit: Permit,
}

/// Rows that were admitted; they are given back when it goes away.
pub struct Permit {
    queue: Arc<Queue>,
    rows: usize,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.queue.release(self.rows);
    }
}

impl Permit {
    /// Takes some of its rows into a permit of their own.
    ///
    /// # Panics
    /// If there are not as many.
    pub(crate) fn split(&mut self, rows: usize) -> Permit {
        assert!(rows <= self.rows, "{rows} rows of {}", self.rows);
        self.rows -= rows;
        Permit { queue: Arc::clone(&self.queue), rows }
    }

    /// Hands inputs to the batcher. A caller that drops the receiver is not computed for.
    ///
    /// # Panics
    /// If there are more rows than were admitted.
    pub fn submit(self, inputs: Vec<Input>) -> oneshot::Receiver<Result<Logits, Refusal>> {
        let rows: usize = inputs.iter().map(|input| input.plugins.len()).sum();
        assert!(rows <= self.rows, "{rows} rows submitted, {} admitted", self.rows);
        let (reply, receiver) = oneshot::channel();
        let queue = Arc::clone(&self.queue);
        queue.push(Job { inputs, reply, submitted: Instant::now(), permit: self });
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

    /// Makes room for rows, or says at once that there is none.
    ///
    /// # Errors
    /// [`Refusal::Busy`], [`Refusal::Stopping`].
    pub fn admit(&self, rows: usize) -> Result<Permit, Refusal> {
        self.queue.admit(rows)?;
        Ok(Permit { queue: Arc::clone(&self.queue), rows })
    }

    /// Rows admitted and not yet answered.
    pub fn load(&self) -> usize {
        self.queue.load()
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
            let inputs: Vec<&Input> = jobs.iter().flat_map(|job| &job.inputs).collect();
            let results = catch_unwind(AssertUnwindSafe(|| self.predictor.infer(&inputs)));
            let results = match results {
                Ok(results) => results.map_err(|error| Refusal::Internal(error.to_string())),
                Err(_) => {
                    Err(Refusal::Internal("the computation failed; this is a defect, please report it".to_owned()))
                }
            };
            let rows = jobs.iter().map(|job| job.permit.rows).sum();
            self.metrics.computed(rows, started.elapsed());
            self.queue.computed(rows, started.elapsed());
            match results {
                Ok(logits) => {
                    let mut logits = logits.into_iter();
                    for job in jobs {
                        let own = logits.by_ref().take(job.inputs.len()).collect();
                        let _ = job.reply.send(Ok(own));
                    }
                }
                Err(refusal) => jobs.into_iter().for_each(|job| drop(job.reply.send(Err(refusal.clone())))),
            }
        }
    }
}
