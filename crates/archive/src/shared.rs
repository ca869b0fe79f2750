//! What the processes of a queued archive tell each other: `DIR/queue.json`, and the states that the queue keeps.

use crate::error::Error;
use crate::folder::{ArchiveFolder, PLAN, QUEUE};
use crate::plan::Plan;
use crate::queue::Owner;
use melo_vit::hex;
use ring::rand::SecureRandom;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const FORMAT: &str = "melo-archive-queue-1";

/// How the work on an archive is shared.
#[derive(Clone, Debug)]
pub struct Sharing {
    /// Of the queue; where none is given, after the archive's folder.
    pub name: Option<String>,
    /// How often a chunk is handed out before it counts as failed.
    pub max_deliver: u32,
    /// How long a worker may be silent before its chunks are handed to others.
    pub ack_wait: Duration,
    /// Where workers find what they compute with.
    pub hints: Hints,
}

/// Where workers find what they compute with, unless they are told otherwise: files, which are held to the plan's digests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hints {
    /// The backbone's weights.
    pub backbone: String,
    /// Which of several sets of weights in that file.
    pub weights_key: Option<String>,
    /// The plug-ins, in the plan's order.
    pub plugins: Vec<String>,
}

/// `queue.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shared {
    format: String,
    /// Tells this folder's queue from one of the same name and plan.
    archive: String,
    /// Of the queue.
    pub(crate) name: String,
    pub(crate) max_deliver: u32,
    pub(crate) ack_wait_s: u64,
    /// What the names of images are relative to, where they are.
    relative_to: Option<PathBuf>,
    pub(crate) hints: Hints,
}

impl Shared {
    /// Of a folder from which something is queued now.
    pub(crate) fn new(folder: &ArchiveFolder, sharing: &Sharing, is_relative: bool) -> Result<Self, Error> {
        let was = Shared::read(folder.path())?;
        let name = match (&was, &sharing.name) {
            (Some(was), Some(name)) if was.name != *name => {
                let (folder, what) = (folder.path().to_owned(), "the name of the queue".to_owned());
                return Err(Error::Differs { folder, what, was: was.name.clone(), now: name.clone() });
            }
            (Some(was), _) => was.name.clone(),
            (None, Some(name)) => name.clone(),
            (None, None) => name_of(folder.path())?,
        };
        if name.is_empty() || !name.chars().all(is_plain) {
            return Err(Error::Name { name });
        }
        let relative_to = is_relative.then(here).transpose()?;
        let Sharing { max_deliver, ack_wait, hints, .. } = sharing.clone();
        let archive = match was {
            Some(was) => was.archive,
            None => random()?,
        };
        let ack_wait_s = ack_wait.as_secs().max(1);
        Ok(Shared { format: FORMAT.to_owned(), archive, name, max_deliver, ack_wait_s, relative_to, hints })
    }

    /// Of a folder, where something was queued from it.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>, Error> {
        let path = folder.join(QUEUE);
        let shared: Shared = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| Error::damaged(&path, error))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Io { path, source }),
        };
        match shared.format == FORMAT {
            true => Ok(Some(shared)),
            false => Err(Error::damaged(&path, format_args!("format {}, expected {FORMAT}", shared.format))),
        }
    }

    pub(crate) fn write(&self, folder: &ArchiveFolder) -> Result<(), Error> {
        let mut json = serde_json::to_vec_pretty(self).expect("plain data");
        json.push(b'\n');
        folder.write(QUEUE, &json)?;
        folder.sync()
    }

    /// Whose the queue is.
    pub(crate) fn owner(&self, folder: &Path, plan_digest: &str) -> Owner {
        let folder = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
        let folder = folder.to_string_lossy().into_owned();
        Owner { archive: self.archive.clone(), plan: plan_digest.to_owned(), folder }
    }

    /// Refuses to read images by names that mean others here.
    pub(crate) fn refuse_elsewhere(&self) -> Result<(), Error> {
        match (&self.relative_to, here()?) {
            (Some(planned), here) if *planned != here => Err(Error::Elsewhere { planned: planned.clone(), here }),
            _ => Ok(()),
        }
    }
}

/// An archive that others have planned.
#[derive(Clone, Debug)]
pub struct Joined {
    /// What is computed.
    pub plan: Plan,
    /// Where that is found.
    pub hints: Hints,
}

impl Joined {
    /// Of a folder.
    ///
    /// # Errors
    /// [`Error::NotQueued`], [`Error::Io`], [`Error::Damaged`].
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let (plan, shared) = joined(folder)?;
        Ok(Joined { plan, hints: shared.hints })
    }
}

/// Plan and queue of a folder from which something was queued.
pub(crate) fn joined(folder: &Path) -> Result<(Plan, Shared), Error> {
    match Shared::read(folder)? {
        Some(shared) if folder.join(PLAN).exists() => Ok((Plan::read(&folder.join(PLAN))?, shared)),
        _ => Err(Error::NotQueued { folder: folder.to_owned() }),
    }
}

/// How a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// Computing, or waiting for a chunk.
    Working,
    /// At the end of the queue, or stopped.
    Ended,
    /// By an error.
    Failed,
}

/// What a worker says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerReport {
    /// Host and process.
    pub worker: String,
    /// How it is.
    pub state: WorkerState,
    /// Why it failed.
    pub reason: Option<String>,
    /// Images that it computed.
    pub images: u64,
    /// Images without an answer among them.
    pub refused: u64,
    /// Parts that it wrote.
    pub parts: u64,
    /// Of the last minute.
    pub images_per_s: f64,
    /// When it said so, seconds since 1970.
    pub at: f64,
}

/// A chunk that did not become a part when it was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Its number.
    pub part: u64,
    /// How often it was handed out.
    pub deliveries: i64,
    /// Who tried it last.
    pub worker: String,
    /// Why it is no part.
    pub reason: String,
    /// True where it is not tried again.
    pub given_up: bool,
}

/// Seconds since 1970.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Sixteen bytes that nobody else has.
pub(crate) fn random() -> Result<String, Error> {
    let mut bytes = [0; 16];
    let filled = ring::rand::SystemRandom::new().fill(&mut bytes);
    let none = |_| std::io::Error::other("the system gives no random bytes");
    filled.map_err(none).map_err(Error::io("queue.json"))?;
    Ok(hex(&bytes))
}

/// Host and process, as a token of NATS.
pub(crate) fn this_worker() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let host = host.or_else(|| std::env::var("COMPUTERNAME").ok()).or_else(|| std::env::var("HOSTNAME").ok());
    let host = host.filter(|host| !host.trim().is_empty()).unwrap_or_else(|| "host".to_owned());
    format!("{}-{}", plain(host.trim()), std::process::id())
}

fn here() -> Result<PathBuf, Error> {
    std::env::current_dir().map_err(Error::io("."))
}

fn name_of(folder: &Path) -> Result<String, Error> {
    let path = std::fs::canonicalize(folder).map_err(Error::io(folder))?;
    Ok(plain(&path.file_name().unwrap_or_default().to_string_lossy()))
}

fn plain(text: &str) -> String {
    text.chars().map(|letter| if is_plain(letter) { letter } else { '_' }).collect()
}

fn is_plain(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "-_".contains(letter)
}
