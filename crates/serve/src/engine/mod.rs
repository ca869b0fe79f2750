//! The engine room: one queue with a bound, one batcher that takes what is waiting.
//!
//! ```text
//! admit (or Busy, at once) -> decode elsewhere -> submit -> batcher: up to max_batch rows, or max_wait
//!   -> Backbone::forward_tasks over all of them -> answers
//! ```
//!
//! A row is one image under one plug-in. Plug-ins travel with the job as `Arc`s: a batch keeps the versions that its
//! requests started with, whatever the registry does meanwhile.

mod queue;

use crate::error::{Error, Refusal};
use crate::metrics::Metrics;
use melo_vit::{Backbone, ImageError, ImageSource, Plugin, Workspace};
use queue::{Queue, Taken};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How much is computed at once and how much may wait.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EngineConfig {
    /// Rows of a batch at most; a single request with more is computed alone.
    pub max_batch: usize,
    /// How long the first of a batch waits for others.
    pub max_wait: Duration,
    /// Rows that may be admitted at a time; more are refused.
    pub queue: usize,
    /// Threads that compute.
    pub threads: usize,
}

/// One image, prepared, with the plug-ins that want it so.
#[derive(Clone)]
pub struct Input {
    /// Side `s`, pixels.
    pub size: usize,
    /// `[3, s, s]`, normalised.
    pub pixels: Arc<[f32]>,
    /// Whose answers are wanted.
    pub plugins: Vec<Arc<Plugin>>,
}

/// Logits of every input under each of its plug-ins.
pub type Logits = Vec<Vec<Vec<f32>>>;

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

/// A backbone at work.
pub struct Engine {
    backbone: Arc<Backbone>,
    queue: Arc<Queue>,
    pool: Arc<rayon::ThreadPool>,
    batcher: std::sync::Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Engine {
    /// Starts the batcher.
    ///
    /// # Errors
    /// [`Error::Threads`], [`Error::Settings`].
    pub fn start(backbone: Arc<Backbone>, config: EngineConfig, metrics: Arc<Metrics>) -> Result<Self, Error> {
        if config.max_batch == 0 || config.queue == 0 {
            return Err(Error::Settings("max-batch and queue are at least 1".to_owned()));
        }
        let named = |index| format!("melo-compute-{index}");
        let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(config.threads).thread_name(named).build()?);
        let queue = Arc::new(Queue::new(config));
        let batcher = Batcher {
            backbone: Arc::clone(&backbone),
            queue: Arc::clone(&queue),
            pool: Arc::clone(&pool),
            metrics,
            workspace: Workspace::default(),
        };
        let thread = std::thread::Builder::new().name("melo-batcher".into()).spawn(move || batcher.run());
        let thread = thread.map_err(|error| Error::Settings(format!("the batcher's thread: {error}")))?;
        Ok(Engine { backbone, queue, pool, batcher: std::sync::Mutex::new(Some(thread)) })
    }

    /// The backbone that all tasks share.
    pub fn backbone(&self) -> &Arc<Backbone> {
        &self.backbone
    }

    /// The computing threads.
    pub(crate) fn pool(&self) -> Arc<rayon::ThreadPool> {
        Arc::clone(&self.pool)
    }

    /// Runs other work on the computing threads, such as a heat map or a self-test.
    pub fn compute<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.pool.install(work)
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
    backbone: Arc<Backbone>,
    queue: Arc<Queue>,
    pool: Arc<rayon::ThreadPool>,
    metrics: Arc<Metrics>,
    workspace: Workspace,
}

impl Batcher {
    fn run(mut self) {
        while let Taken::Jobs(mut jobs) = self.queue.take() {
            let before = jobs.len();
            jobs.retain(|job| !job.reply.is_closed());
            self.metrics.abandoned((before - jobs.len()) as u64);
            if jobs.is_empty() {
                continue;
            }
            let started = Instant::now();
            jobs.iter().for_each(|job| self.metrics.waited(started - job.submitted));
            let results = catch_unwind(AssertUnwindSafe(|| self.compute(&jobs)));
            let results = results.unwrap_or_else(|_| {
                // What the panic left half-written is not used again.
                self.workspace = Workspace::default();
                Err(Refusal::Internal("the computation failed; this is a defect, please report it".to_owned()))
            });
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

    /// Logits of all inputs of all jobs, in order; inputs of one size are one batch.
    fn compute(&self, jobs: &[Job]) -> Result<Logits, Refusal> {
        let inputs: Vec<&Input> = jobs.iter().flat_map(|job| &job.inputs).collect();
        let mut logits: Logits = vec![Vec::new(); inputs.len()];
        let mut sizes: Vec<usize> = inputs.iter().map(|input| input.size).collect();
        sizes.sort_unstable();
        sizes.dedup();
        for size in sizes {
            let members: Vec<usize> = (0..inputs.len()).filter(|&index| inputs[index].size == size).collect();
            let source = Members { inputs: &inputs, members: &members };
            let tasks: Vec<Vec<Arc<Plugin>>> = members.iter().map(|&index| inputs[index].plugins.clone()).collect();
            let forward = || self.backbone.forward_tasks(&source, size, &tasks, &self.workspace);
            let found = self.pool.install(forward).map_err(|error| Refusal::Internal(error.to_string()))?;
            members.iter().zip(found).for_each(|(&index, found)| logits[index] = found);
        }
        Ok(logits)
    }
}

/// Some of the inputs, as the engine asks for them.
struct Members<'a> {
    inputs: &'a [&'a Input],
    members: &'a [usize],
}

impl ImageSource for Members<'_> {
    fn load(&self, index: usize, out: &mut [f32]) -> Result<(), ImageError> {
        out.copy_from_slice(&self.inputs[self.members[index]].pixels);
        Ok(())
    }
}
