//! What was answered: who asked, when, on which input, with which plug-in and backbone, and what came out. A file of
//! SQLite whose rows are a chain of hashes, specified in `docs/audit.md`.

mod answers;
mod archive;
mod chain;
mod checkpoint;
mod file;
mod record;
mod replicas;
mod store;
mod verify;

use crate::clock::now_ms;
use crate::error::Error;
use crate::lock;
use crate::replica::host_name;
use crate::syslog::Syslog;
use checkpoint::Checkpoints;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use store::Store;
use tokio::sync::oneshot;

pub(crate) use answers::answers;
pub use archive::{Archived, archive};
pub use chain::{Entry, Head, Stored};
pub use checkpoint::{Checkpoint, CheckpointConfig};
pub use file::entries;
pub use record::{Action, Record};
pub(crate) use replicas::REPLICA;
pub use replicas::verify_replicas;
pub use verify::{Anchor, Broken, InvalidAnchor, Kind, Report, verify, verify_together};

/// Records of one transaction at the most.
const BATCH: usize = 4096;

/// An append-only record of answers, open for writing.
///
/// One thread writes. What several callers bring at a time becomes one transaction, so that a disk that takes its time
/// to say "written" bounds the latency, not the number of answers.
pub struct Audit {
    path: PathBuf,
    head: Arc<Mutex<Head>>,
    unsigned: Arc<AtomicBool>,
    jobs: Option<Sender<Job>>,
    writer: Option<JoinHandle<()>>,
    /// Held as long as the file is written; the system lets go of it when the process dies.
    _lock: File,
}

/// Records on their way, and who waits for them.
struct Job {
    records: Vec<Record>,
    done: oneshot::Sender<Result<(), String>>,
}

impl Audit {
    /// Opens a file, or begins one, and checks the end of its chain, and that it is not behind its last checkpoint.
    ///
    /// # Errors
    /// [`Error::InUse`] where another process writes it; [`Error::Damaged`] where its end does not fit together, and where the
    /// checkpoint is of another chain or cannot be read; [`Error::Settings`] for the key; [`Error::Io`], [`Error::Audit`].
    pub fn open(path: &Path, checkpoints: Option<&CheckpointConfig>) -> Result<Self, Error> {
        Audit::open_as(&host_name(), path, checkpoints, None)
    }

    /// [`Audit::open`] for a replica, whose name checkpoints say; what is on the disk is sent to syslog as well.
    ///
    /// # Errors
    /// As [`Audit::open`].
    pub fn open_as(
        replica: &str,
        path: &Path,
        checkpoints: Option<&CheckpointConfig>,
        syslog: Option<Syslog>,
    ) -> Result<Self, Error> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        }
        let lock = lock(path)?;
        let store = Store::open(path)?;
        let head = store.head()?;
        let mut checkpoints = checkpoints.map(|config| Checkpoints::open(config, replica, path, &head)).transpose()?;
        if let Some(checkpoints) = &mut checkpoints {
            checkpoints.last.as_ref().map_or(Ok(()), |noted| store.holds(noted)).map_err(|e| checkpoints.explain(e))?;
            checkpoints.sign(&head)?;
        }
        let (head, unsigned) = (Arc::new(Mutex::new(head)), Arc::new(AtomicBool::new(false)));
        let (jobs, waiting) = channel();
        let writer = Writer {
            store,
            head: Arc::clone(&head),
            sound: true,
            checkpoints,
            signed: Instant::now(),
            unsigned: Arc::clone(&unsigned),
            syslog,
        };
        let thread = std::thread::Builder::new().name("melo-audit".into()).spawn(move || writer.run(&waiting));
        let thread = thread.map_err(Error::io(path))?;
        Ok(Audit { path: path.to_owned(), head, unsigned, jobs: Some(jobs), writer: Some(thread), _lock: lock })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The last row that is on disk. Noted elsewhere, it proves later that nothing before it was lost.
    pub fn head(&self) -> Head {
        self.head.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// True where the last checkpoint that was due could not be written.
    pub(crate) fn is_unsigned(&self) -> bool {
        self.unsigned.load(Ordering::Relaxed)
    }

    /// Adds records without waiting for them: of what is done whether or not it can be recorded. What goes wrong is logged.
    pub fn note(&self, records: Vec<Record>) {
        if !records.is_empty() {
            drop(self.begin(records));
        }
    }

    /// Adds records, all or none, and returns when they are on disk.
    ///
    /// # Errors
    /// [`Error::Audit`], such as for a full disk.
    ///
    /// # Panics
    /// Within an asynchronous task: there is [`Audit::appended`].
    pub fn append(&self, records: &[Record]) -> Result<(), Error> {
        if records.is_empty() {
            return Ok(());
        }
        self.written(self.begin(records.to_vec())?.blocking_recv().ok())
    }

    /// [`Audit::append`], waited for without a thread.
    ///
    /// # Errors
    /// As [`Audit::append`].
    pub async fn appended(&self, records: Vec<Record>) -> Result<(), Error> {
        if records.is_empty() {
            return Ok(());
        }
        self.written(self.begin(records)?.await.ok())
    }

    fn begin(&self, records: Vec<Record>) -> Result<oneshot::Receiver<Result<(), String>>, Error> {
        let (done, result) = oneshot::channel();
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(Job { records, done }).is_ok());
        if sent { Ok(result) } else { self.written(None).map(|()| result) }
    }

    /// What the writer said; nothing where it has ended.
    fn written(&self, said: Option<Result<(), String>>) -> Result<(), Error> {
        let said = said.unwrap_or_else(|| Err("its writer has ended".to_owned()));
        said.map_err(|reason| Error::Audit { path: self.path.clone(), reason })
    }
}

impl Drop for Audit {
    /// Waits for what is being written.
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

struct Writer {
    store: Store,
    head: Arc<Mutex<Head>>,
    /// False after a failure: what is on disk is read again before more is written.
    sound: bool,
    checkpoints: Option<Checkpoints>,
    /// When the last one was tried.
    signed: Instant,
    /// It could not be written.
    unsigned: Arc<AtomicBool>,
    syslog: Option<Syslog>,
}

impl Writer {
    fn run(mut self, waiting: &Receiver<Job>) {
        while let Some(first) = self.next(waiting) {
            let mut rows = first.records.len();
            let mut jobs = vec![first];
            while rows < BATCH
                && let Ok(job) = waiting.try_recv()
            {
                rows += job.records.len();
                jobs.push(job);
            }
            let result = self.write(&jobs).map_err(|error| match error {
                Error::Audit { reason, .. } => reason,
                other => other.to_string(),
            });
            self.sound = result.is_ok();
            for job in jobs {
                if let Err(Err(reason)) = job.done.send(result.clone()) {
                    tracing::error!(reason, "what was done could not be recorded");
                }
            }
        }
        self.sign();
    }

    /// What is to be written next; meanwhile a checkpoint is signed now and then.
    fn next(&mut self, waiting: &Receiver<Job>) -> Option<Job> {
        loop {
            let Some(every) = self.checkpoints.as_ref().map(Checkpoints::every) else { return waiting.recv().ok() };
            if self.signed.elapsed() >= every {
                self.sign();
            }
            let rest = every.saturating_sub(self.signed.elapsed());
            match waiting.recv_timeout(rest.max(Duration::from_millis(1))) {
                Ok(job) => return Some(job),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    fn sign(&mut self) {
        self.signed = Instant::now();
        let head = self.known();
        let Some(checkpoints) = &mut self.checkpoints else { return };
        let signed = checkpoints.sign(&head);
        if let Err(error) = &signed {
            tracing::error!(%error, file = %checkpoints.file().display(), "the checkpoint of the audit could not be written");
        }
        self.unsigned.store(signed.is_err(), Ordering::Relaxed);
    }

    fn write(&mut self, jobs: &[Job]) -> Result<(), Error> {
        if !self.sound {
            self.keep(self.store.head_after(&self.known())?);
        }
        let (head, time_ms) = (self.known(), now_ms());
        let records = || jobs.iter().flat_map(|job| &job.records);
        let rows = self.store.append(&head, records(), time_ms)?;
        if let Some(syslog) = &self.syslog {
            records().zip(&rows).for_each(|(record, row)| syslog.send(record, row, time_ms));
        }
        if let Some(last) = rows.last() {
            self.keep(last.clone());
        }
        Ok(())
    }

    fn known(&self) -> Head {
        self.head.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, head: Head) {
        *self.head.lock().unwrap_or_else(PoisonError::into_inner) = head;
    }
}

/// A file beside the audit that one process holds. SQLite's own locks would keep readers out, too.
fn lock(path: &Path) -> Result<File, Error> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let beside = PathBuf::from(beside);
    lock::hold(file::private(&beside)?, &beside, path)
}

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod tests;
