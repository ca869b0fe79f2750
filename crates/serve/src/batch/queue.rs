//! Jobs that wait, with a bound on their rows, and callers who share it.
//!
//! Rows are computed in fair order: next comes the caller who had the fewest, where who comes anew begins beside those who wait (start-time
//! fair queueing, Goyal, Vin, Cheng 1997, with a clock that goes on by the rows computed over the callers waiting).
//! Rows are admitted in fair shares: beside others who holds some may hold [`SHARE`] times what then stays free (dynamic thresholds,
//! Choudhury, Hahne 1998).

use super::{BatchConfig, Job};
use crate::error::Refusal;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Weight of the newest batch in the running time a row takes.
const NEWEST: f64 = 0.2;
/// What `Retry-After` says at most.
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// Rows that a caller may hold beside others for every row that stays free; seven eighths of the queue are what counts for others.
const SHARE: usize = 7;

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
    lines: HashMap<Arc<str>, Line>,
    /// Rows that a caller who never stopped waiting would have had.
    clock: f64,
    /// Rows admitted and not yet answered, of all lines.
    admitted: usize,
    closed: bool,
    /// Since when the load is at [`BatchConfig::pressed_share`] or more.
    pressed: Option<Instant>,
    /// Running mean of what a row takes, s.
    seconds_per_row: f64,
}

/// A caller.
#[derive(Default)]
struct Line {
    waiting: VecDeque<Job>,
    /// Rows admitted and not yet answered.
    admitted: usize,
    /// Rows that were taken into batches, on the scale of [`State::clock`].
    had: f64,
}

impl Queue {
    pub(super) fn new(config: BatchConfig) -> Self {
        Queue { config, state: Mutex::default(), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// More rows for a caller's request that has `held`; none yet of a new one.
    ///
    /// # Errors
    /// [`Refusal::Full`], [`Refusal::Busy`], and [`Refusal::Stopping`] for a new one.
    pub(super) fn admit(&self, caller: &Arc<str>, held: usize, rows: usize) -> Result<(), Refusal> {
        let mut state = self.state();
        if state.closed && held == 0 {
            return Err(Refusal::Stopping);
        }
        if !state.has_room(self.config.queue, caller, held, rows) {
            let wait = Duration::from_secs_f64(state.seconds_per_row * state.admitted as f64);
            let wait = wait.clamp(Duration::from_secs(1), LONGEST_RETRY);
            let is_full = state.admitted + rows > self.config.queue;
            return Err(if is_full { Refusal::Full(wait) } else { Refusal::Busy(wait) });
        }
        let clock = state.clock;
        let line = state.lines.entry(Arc::clone(caller)).or_insert_with(|| Line { had: clock, ..Line::default() });
        line.admitted += rows;
        state.admitted += rows;
        if state.admitted >= self.config.pressed() {
            state.pressed.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    pub(super) fn release(&self, caller: &str, rows: usize) {
        let mut state = self.state();
        state.admitted -= rows;
        if state.admitted < self.config.pressed() {
            state.pressed = None;
        }
        if let Some(line) = state.lines.get_mut(caller) {
            line.admitted -= rows;
        }
        state.forget_idle();
        drop(state);
        self.changed.notify_all();
    }

    pub(super) fn load(&self) -> usize {
        self.state().admitted
    }

    /// How long its load has been at [`BatchConfig::pressed_share`] or more without a pause, from [`BatchConfig::pressed_for`] on.
    pub(super) fn pressed_too_long(&self) -> Option<Duration> {
        let pressed = self.state().pressed.map(|since| since.elapsed());
        pressed.filter(|pressed| *pressed >= self.config.pressed_for)
    }

    pub(super) fn capacity(&self) -> usize {
        self.config.queue
    }

    pub(super) fn push(&self, job: Job) {
        let mut state = self.state();
        let clock = state.clock;
        let line = state.lines.entry(Arc::clone(&job.permit.caller)).or_default();
        if line.waiting.is_empty() {
            line.had = line.had.max(clock);
        }
        line.waiting.push_back(job);
        drop(state);
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
        let first = loop {
            if let Some(first) = state.first_submitted() {
                break first;
            }
            if state.closed && state.admitted == 0 {
                return Taken::Closed;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        let until = first + self.config.max_wait;
        while state.rows_waiting() < self.config.max_batch.min(state.admitted) && !state.closed {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Taken::Jobs(state.take(self.config.max_batch))
    }
}

impl State {
    /// Whether a caller's request that has `held` may have more rows. Who is alone in the queue may have any number, so that none is
    /// refused for ever.
    fn has_room(&self, queue: usize, caller: &str, held: usize, rows: usize) -> bool {
        if self.admitted == held {
            return true;
        }
        let own = self.lines.get(caller).map_or(0, |line| line.admitted);
        // Of who holds more than a share, the share counts: it leaves a place for who comes then.
        let share = queue - queue / (SHARE + 1);
        let others = self.lines.iter().filter(|(other, _)| ***other != *caller);
        let others: usize = others.map(|(_, line)| line.admitted.min(share)).sum();
        if own == held || others == 0 {
            return others + own + rows <= queue;
        }
        let free = queue.checked_sub(self.admitted + rows);
        free.is_some_and(|free| own + rows <= SHARE * free)
    }

    fn first_submitted(&self) -> Option<Instant> {
        self.lines.values().filter_map(|line| line.waiting.front()).map(|job| job.submitted).min()
    }

    fn rows_waiting(&self) -> usize {
        self.lines.values().flat_map(|line| &line.waiting).map(|job| job.permit.rows).sum()
    }

    /// Jobs of a batch, at least one where some wait. What nobody waits for any more comes along and costs its caller nothing.
    fn take(&mut self, max_batch: usize) -> Vec<Job> {
        let (mut rows, mut jobs) = (0, Vec::new());
        loop {
            let callers = self.lines.values().filter(|line| !line.waiting.is_empty()).count();
            let Some(line) = self.next() else { break };
            let Some(job) = line.waiting.front() else { break };
            let asked = if job.reply.is_closed() { 0 } else { job.permit.rows };
            rows += asked;
            if !jobs.is_empty() && rows > max_batch {
                break;
            }
            line.had += asked as f64;
            jobs.extend(line.waiting.pop_front());
            self.clock += asked as f64 / callers as f64;
        }
        jobs
    }

    /// The caller who had the fewest rows of those who wait; of several the one who waits longest.
    fn next(&mut self) -> Option<&mut Line> {
        let waiting = self.lines.values_mut().filter(|line| !line.waiting.is_empty());
        let order = |line: &Line| (line.had, line.waiting.front().map(|job| job.submitted));
        waiting.min_by(|one, other| {
            let ((had, since), (had_other, since_other)) = (order(one), order(other));
            had.total_cmp(&had_other).then(since.cmp(&since_other))
        })
    }

    /// Callers who hold nothing, and had no more than who comes anew.
    fn forget_idle(&mut self) {
        if self.admitted == 0 {
            self.lines.clear();
            self.clock = 0.0;
        }
        let clock = self.clock;
        self.lines.retain(|_, line| line.admitted > 0 || line.had > clock);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Asked, Computed, Permit};
    use super::*;
    use tokio::sync::oneshot::{Receiver, channel};

    type Reply = Receiver<Result<Computed, Refusal>>;

    fn queue(max_batch: usize) -> Arc<Queue> {
        Arc::new(Queue::new(BatchConfig {
            max_batch,
            max_wait: Duration::ZERO,
            queue: 1 << 20,
            ..BatchConfig::default()
        }))
    }

    fn push(queue: &Arc<Queue>, caller: &str, rows: usize) -> Reply {
        let caller = Arc::from(caller);
        queue.admit(&caller, 0, rows).unwrap();
        let permit = Permit { queue: Arc::clone(queue), caller, rows };
        let (reply, receiver) = channel();
        queue.push(Job { asked: Asked::default(), reply, submitted: Instant::now(), permit });
        receiver
    }

    fn many(queue: &Arc<Queue>, caller: &str, jobs: usize, rows: usize) -> Vec<Reply> {
        (0..jobs).map(|_| push(queue, caller, rows)).collect()
    }

    /// Callers and rows of the next batch, which is computed.
    fn batch(queue: &Queue) -> Vec<(String, usize)> {
        let Taken::Jobs(jobs) = queue.take() else { panic!("nothing waits") };
        jobs.iter().map(|job| (job.permit.caller.to_string(), job.permit.rows)).collect()
    }

    fn of(caller: &str, taken: &[(String, usize)]) -> usize {
        taken.iter().filter(|(other, _)| other == caller).map(|(_, rows)| rows).sum()
    }

    #[test]
    fn who_comes_to_a_full_queue_is_in_the_next_batch() {
        let queue = queue(4);
        let _heavy = many(&queue, "heavy", 48, 1);
        let _light = push(&queue, "light", 1);
        assert_eq!(of("light", &batch(&queue)), 1);
        (0..3).for_each(|_| assert_eq!(of("heavy", &batch(&queue)), 4));
        let _late = push(&queue, "late", 1);
        assert_eq!(of("late", &batch(&queue)), 1);
        let _again = push(&queue, "light", 1);
        assert_eq!(of("light", &batch(&queue)), 1);
    }

    #[test]
    fn a_lone_caller_has_every_batch_in_order_of_arrival() {
        let queue = queue(4);
        let _replies = many(&queue, "one", 10, 1);
        let _large = push(&queue, "one", 9);
        let sizes: Vec<usize> = (0..4).map(|_| of("one", &batch(&queue))).collect();
        assert_eq!(sizes, [4, 4, 2, 9]);
        assert!(queue.state().lines.is_empty(), "nobody is remembered");
    }

    #[test]
    fn turns_are_of_rows_and_not_of_requests() {
        let queue = queue(8);
        let _large = many(&queue, "large", 20, 8);
        let _small = many(&queue, "small", 100, 1);
        let mut had = [0, 0];
        while had[1] < 100 {
            let taken = batch(&queue);
            had = [had[0] + of("large", &taken), had[1] + of("small", &taken)];
            assert!(had[0].abs_diff(had[1]) <= 8, "{had:?}");
        }
    }

    #[test]
    fn a_stream_of_new_callers_keeps_nobody_waiting() {
        let queue = queue(4);
        let mut replies = many(&queue, "waiting", 12, 1);
        (0..8).for_each(|name| replies.push(push(&queue, &format!("first {name}"), 1)));
        let mut had = 0;
        for turn in 0..40 {
            (0..4).for_each(|name| replies.push(push(&queue, &format!("new {turn} {name}"), 1)));
            had += of("waiting", &batch(&queue));
        }
        // Of 160 rows, among some 16 who wait.
        assert!(had >= 8, "{had}");
        assert!(queue.state().lines.len() < 32, "who had its answers is forgotten");
    }

    #[test]
    fn what_nobody_waits_for_costs_its_caller_nothing() {
        let queue = queue(4);
        drop(many(&queue, "gone", 20, 1));
        let (_own, _other) = (many(&queue, "gone", 2, 1), many(&queue, "other", 2, 1));
        let taken = batch(&queue);
        assert_eq!((of("gone", &taken), of("other", &taken)), (22, 2));
        assert_eq!(queue.load(), 0);
    }
}
