//! How long the engine computes.

use super::Metrics;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

impl Metrics {
    /// The engine computes until this goes away.
    pub(crate) fn computing(&self) -> Computing<'_> {
        self.busy().change(|at_work| at_work + 1);
        Computing(self)
    }

    pub(super) fn busy(&self) -> MutexGuard<'_, Busy> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The engine at work.
pub(crate) struct Computing<'a>(&'a Metrics);

impl Drop for Computing<'_> {
    fn drop(&mut self) {
        self.0.busy().change(|at_work| at_work - 1);
    }
}

/// How long anything was computed; what is computed at the same time counts once.
#[derive(Default)]
pub(super) struct Busy {
    at_work: usize,
    since: Option<Instant>,
    before: Duration,
}

impl Busy {
    fn change(&mut self, change: impl FnOnce(usize) -> usize) {
        self.at_work = change(self.at_work);
        match (self.at_work, self.since) {
            (0, Some(since)) => {
                self.before += since.elapsed();
                self.since = None;
            }
            (1.., None) => self.since = Some(Instant::now()),
            _ => {}
        }
    }

    /// Seconds up to now.
    pub(super) fn time(&self) -> f64 {
        (self.before + self.since.map_or(Duration::ZERO, |since| since.elapsed())).as_secs_f64()
    }
}
