//! The clients: each sends a request, waits for its answer, compares it, and sends the next.

use super::expected::Expected;
use super::memory::Memory;
use super::server::{Answered, Reply, Server};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Reasons for failures that are kept.
const REASONS: usize = 10;
/// Wait after a failure: a server that is gone must not keep this machine busy.
const AFTER_FAILURE: Duration = Duration::from_millis(200);
/// How often the server's memory is looked at.
const SAMPLED_EVERY: Duration = Duration::from_millis(500);

/// The load: what is asked, and what is right.
pub(crate) struct Load<'a> {
    pub(crate) expected: &'a Expected,
    /// The server's names of the tasks.
    pub(crate) names: &'a [String],
    pub(crate) tolerance: f64,
    /// Tasks of a request.
    pub(crate) tasks: usize,
    pub(crate) warmup: Duration,
    pub(crate) measured: Duration,
}

/// When an answered request was sent and had its last byte: seconds from the end of the warm-up, which may be negative.
pub(crate) struct Timed {
    pub(crate) sent: f64,
    pub(crate) finished: f64,
    pub(crate) answers: usize,
}

/// What happened.
#[derive(Default)]
pub(crate) struct Tally {
    /// Sent, without those that were sent again because there was no room.
    pub(crate) requests: usize,
    /// Answers that came and were compared.
    pub(crate) answers: usize,
    pub(crate) busy: usize,
    pub(crate) failures: usize,
    pub(crate) wrong: usize,
    /// Largest difference of a right answer.
    pub(crate) largest_difference: f32,
    pub(crate) timed: Vec<Timed>,
    /// What was wrong or failed, the first of it.
    pub(crate) reasons: Vec<String>,
}

impl Tally {
    fn reason(&mut self, reason: String) {
        if self.reasons.len() < REASONS {
            self.reasons.push(reason);
        }
    }

    fn add(mut self, other: Tally) -> Tally {
        other.reasons.into_iter().for_each(|reason| self.reason(reason));
        self.timed.extend(other.timed);
        Tally {
            requests: self.requests + other.requests,
            answers: self.answers + other.answers,
            busy: self.busy + other.busy,
            failures: self.failures + other.failures,
            wrong: self.wrong + other.wrong,
            largest_difference: self.largest_difference.max(other.largest_difference),
            timed: self.timed,
            reasons: self.reasons,
        }
    }
}

/// A request: an image, and tasks by number.
struct Request {
    image: usize,
    tasks: Vec<usize>,
}

impl Load<'_> {
    /// Runs all clients to the end of the measured time; `memory` is sampled from the end of the warm-up on.
    pub(crate) fn run(&self, clients: usize, server: &Server, memory: &mut Memory) -> Tally {
        let next = AtomicUsize::new(0);
        let done = AtomicBool::new(false);
        let started = Instant::now();
        thread::scope(|scope| {
            let workers: Vec<_> = (0..clients).map(|_| scope.spawn(|| self.client(server, &next, started))).collect();
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    if started.elapsed() >= self.warmup {
                        memory.sample();
                    }
                    thread::sleep(SAMPLED_EVERY);
                }
            });
            let tallies =
                workers.into_iter().map(|worker| worker.join().unwrap_or_else(|p| std::panic::resume_unwind(p)));
            let tally = tallies.fold(Tally::default(), Tally::add);
            done.store(true, Ordering::Relaxed);
            tally
        })
    }

    /// Request `number` of all clients together: in every round through images and tasks each pair comes first once, in an
    /// order of its own.
    fn request(&self, number: usize) -> Request {
        let (images, tasks) = (self.expected.images.len(), self.names.len());
        let (round, place) = (number / (images * tasks), number % (images * tasks));
        let pair = melo::data::shuffled(images * tasks, 0, round as u64)[place];
        Request { image: pair / tasks, tasks: (0..self.tasks).map(|k| (pair % tasks + k) % tasks).collect() }
    }

    fn client(&self, server: &Server, next: &AtomicUsize, started: Instant) -> Tally {
        let mut tally = Tally::default();
        let end = self.warmup + self.measured;
        while started.elapsed() < end {
            let request = self.request(next.fetch_add(1, Ordering::Relaxed));
            let names: Vec<&str> = request.tasks.iter().map(|&task| self.names[task].as_str()).collect();
            let (image, names) = (&self.expected.images[request.image], names.join(","));
            tally.requests += 1;
            while started.elapsed() < end {
                let sent = started.elapsed();
                match server.predict(image, &names) {
                    Reply::Answered(answered) => {
                        let finished = started.elapsed();
                        self.compare(&request, &answered, &mut tally);
                        let [sent, finished] = [sent, finished].map(|t| t.as_secs_f64() - self.warmup.as_secs_f64());
                        tally.timed.push(Timed { sent, finished, answers: request.tasks.len() });
                        break;
                    }
                    Reply::Busy(wait) => {
                        tally.busy += 1;
                        thread::sleep(wait.min(end.saturating_sub(started.elapsed())));
                    }
                    Reply::Failed(reason) => {
                        tally.failures += 1;
                        tally.reason(format!("{}, {names}: {reason}", image.name));
                        thread::sleep(AFTER_FAILURE);
                        break;
                    }
                }
            }
        }
        tally
    }

    /// Counts every task of a request as right or wrong; an answer that is missing is wrong.
    fn compare(&self, request: &Request, answered: &Answered, tally: &mut Tally) {
        for &task in &request.tasks {
            tally.answers += 1;
            match self.difference(request, task, answered) {
                Ok(difference) => tally.largest_difference = tally.largest_difference.max(difference),
                Err(reason) => {
                    tally.wrong += 1;
                    let image = &self.expected.images[request.image].name;
                    tally.reason(format!("{image}, {}: {reason}", self.names[task]));
                }
            }
        }
    }

    /// Largest difference from the expected probabilities of one task; what is wrong where the answer is.
    fn difference(&self, request: &Request, task: usize, answered: &Answered) -> Result<f32, String> {
        let (expected, name) = (&self.expected.tasks[task], &self.names[task]);
        let [image] = answered.images.as_slice() else {
            return Err(format!("{} images were answered, one was sent", answered.images.len()));
        };
        if image.name != self.expected.images[request.image].name || image.answers.len() != request.tasks.len() {
            return Err(format!("{} answers on {}", image.answers.len(), image.name));
        }
        let answer = image.answers.iter().find(|answer| answer.task == *name).ok_or("no answer")?;
        if answer.version != expected.digest {
            return Err(format!("version {}, expected {}", answer.version, expected.digest));
        }
        if answer.probabilities.len() != expected.classes.len() {
            return Err(format!("{} classes, expected {}", answer.probabilities.len(), expected.classes.len()));
        }
        let mut largest = 0.0f32;
        for (class, &expected) in expected.classes.iter().zip(&expected.probabilities[request.image]) {
            let &found = answer.probabilities.get(class).ok_or_else(|| format!("no class {class}"))?;
            let difference = (found - expected).abs();
            if difference.is_nan() || f64::from(difference) > self.tolerance {
                return Err(format!("{class} {found}, expected {expected}"));
            }
            largest = largest.max(difference);
        }
        Ok(largest)
    }
}
