//! The thread of a log.

use crate::error::Error;
use crate::logs::Warn;
use crate::record::Record;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Records that wait for the thread.
const WAITING: usize = 1024;
/// Records that wait for a server that is away.
const PENDING: usize = 16_384;
/// The shortest wait before a lost server is asked again.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest wait before a lost server is asked again.
const LONGEST: Duration = Duration::from_secs(60);

/// Where records are written to.
pub(crate) trait Sink: Send {
    /// Writes what is there, and takes it from the front. What is refused is taken away too; what finds nobody stays.
    ///
    /// # Errors
    /// The first; nothing after it was tried.
    fn write(&mut self, pending: &mut VecDeque<Record>) -> Result<(), Error>;

    /// Whether pictures and curves are of use.
    fn wants_pictures(&self) -> bool;

    /// How long is waited for more, to be written together.
    fn pause(&self) -> Duration;

    /// For whoever reads warnings.
    fn name(&self) -> String;
}

/// A log with its thread.
pub(crate) struct Worker {
    records: Option<SyncSender<Record>>,
    thread: Option<JoinHandle<()>>,
    pub(crate) wants_pictures: bool,
    name: String,
    dropped: usize,
    warn: Warn,
}

impl Worker {
    pub(crate) fn start(sink: Box<dyn Sink>, warn: Warn) -> Self {
        let (records, waiting) = sync_channel(WAITING);
        let (name, wants_pictures) = (sink.name(), sink.wants_pictures());
        let told = warn.clone();
        let thread = std::thread::Builder::new().name("melo-log".into()).spawn(move || work(sink, &waiting, &told));
        if let Err(error) = &thread {
            warn(&format!("nothing is logged to {name}: {error}"));
        }
        Worker { records: Some(records), thread: thread.ok(), wants_pictures, name, dropped: 0, warn }
    }

    /// Never waits.
    pub(crate) fn add(&mut self, record: Record) {
        let sent = self.records.as_ref().is_some_and(|records| records.try_send(record).is_ok());
        self.dropped += usize::from(!sent && self.thread.is_some());
    }
}

impl Drop for Worker {
    /// Writes what is there, if anybody takes it.
    fn drop(&mut self) {
        drop(self.records.take());
        if let Some(thread) = self.thread.take() {
            // What it panicked of was printed.
            let _ = thread.join();
        }
        if self.dropped > 0 {
            (self.warn)(&format!("{} records did not find room on their way to {}", self.dropped, self.name));
        }
    }
}

fn work(mut sink: Box<dyn Sink>, waiting: &Receiver<Record>, warn: &Warn) {
    let mut pending = VecDeque::new();
    let (mut told, mut lost) = (false, 0);
    let (mut wait, mut again_at) = (Duration::ZERO, Instant::now());
    let mut open = true;
    while open {
        if pending.is_empty() {
            match waiting.recv() {
                Ok(record) => pending.push_back(record),
                Err(_) => break,
            }
        }
        let until = again_at.max(Instant::now() + sink.pause());
        while open && pending.len() < PENDING {
            match waiting.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(record) => pending.push_back(record),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => open = false,
            }
        }
        loop {
            let error = match sink.write(&mut pending) {
                Ok(()) => {
                    wait = Duration::ZERO;
                    break;
                }
                Err(error) => error,
            };
            if !told {
                told = true;
                warn(&format!("{}: {error}; the training goes on", sink.name()));
            }
            if matches!(error, Error::Lost { .. }) {
                wait = (wait * 2).clamp(SHORTEST, LONGEST);
                again_at = Instant::now() + wait;
                break;
            }
        }
        if pending.len() >= PENDING {
            // The beginning stays, without which nothing can be written.
            lost += pending.drain(1..=PENDING / 2).count();
        }
    }
    lost += pending.len();
    if lost > 0 {
        warn(&format!("{lost} records were not logged to {}", sink.name()));
    }
}
