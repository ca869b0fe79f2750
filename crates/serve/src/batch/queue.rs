//! Jobs that wait, with a bound on their rows.

use super::{BatchConfig, Job};
use crate::error::Refusal;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Weight of the newest batch in the running time a row takes.
const NEWEST: f64 = 0.2;
/// What `Retry-After` says at most.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

pub(super) enum Taken {
    /// At least one job.
    Jobs(Vec<Job>),
    /// Closed, and everything was taken.
    Closed,
}

pub(super) struct Queue {
    config: BatchConfig,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    /// Rows admitted and not yet answered.
    admitted: usize,
    closed: bool,
    /// Running mean of what a row takes, s.
    seconds_per_row: f64,
}

impl Queue {
    pub(super) fn new(config: BatchConfig) -> Self {
        Queue { config, state: Mutex::default(), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty queue takes a request of any size, so that none is refused for ever.
    pub(super) fn admit(&self, rows: usize) -> Result<(), Refusal> {
        self.grow(0, rows)
    }

    /// More rows for who has `held`; who is alone in the queue takes any number.
    pub(super) fn grow(&self, held: usize, rows: usize) -> Result<(), Refusal> {
        let mut state = self.state();
        if state.closed && held == 0 {
            return Err(Refusal::Stopping);
        }
        if state.admitted > held && state.admitted + rows > self.config.queue {
            let wait = Duration::from_secs_f64(state.seconds_per_row * state.admitted as f64);
            return Err(Refusal::Busy(wait.clamp(Duration::from_secs(1), LONGEST_RETRY)));
        }
        state.admitted += rows;
        Ok(())
    }

    pub(super) fn release(&self, rows: usize) {
        self.state().admitted -= rows;
        self.changed.notify_all();
    }

    pub(super) fn load(&self) -> usize {
        self.state().admitted
    }

    pub(super) fn capacity(&self) -> usize {
        self.config.queue
    }

    pub(super) fn push(&self, job: Job) {
        self.state().waiting.push_back(job);
        self.changed.notify_all();
    }

    pub(super) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    pub(super) fn computed(&self, rows: usize, took: Duration) {
        let newest = took.as_secs_f64() / rows.max(1) as f64;
        let mut state = self.state();
        let known = state.seconds_per_row;
        state.seconds_per_row = if known == 0.0 { newest } else { known + NEWEST * (newest - known) };
    }

    /// Waits for a job, then for more of them until the batch is full or the first has waited long enough. What was
    /// admitted is still taken after closing, also what is not pushed yet.
    pub(super) fn take(&self) -> Taken {
        let mut state = self.state();
        while state.waiting.is_empty() {
            if state.closed && state.admitted == 0 {
                return Taken::Closed;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let until = state.waiting[0].submitted + self.config.max_wait;
        while state.rows_waiting() < self.config.max_batch.min(state.admitted) && !state.closed {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let mut rows = 0;
        let mut jobs = Vec::new();
        while let Some(job) = state.waiting.front() {
            rows += job.permit.rows;
            if !jobs.is_empty() && rows > self.config.max_batch {
                break;
            }
            jobs.extend(state.waiting.pop_front());
        }
        Taken::Jobs(jobs)
    }
}

impl State {
    fn rows_waiting(&self) -> usize {
        self.waiting.iter().map(|job| job.permit.rows).sum()
    }
}
