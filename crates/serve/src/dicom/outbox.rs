//! Results on their way, on the disk until their receiver has them.
//!
//! ```text
//! outgoing/DESTINATION/OBJECT-UID.dcm                waiting; a thread a destination sends them in order
//! undelivered/DESTINATION/OBJECT-UID.dcm, .json      refused by the receiver again and again, and why
//! ```

use super::config::{DestinationConfig, DicomConfig, ResultKind};
use super::delivery::{Delivery, Undelivered};
use super::results::ResultObject;
use super::{files, scu, stow};
use crate::error::Error;
use crate::metrics::{Metrics, Outcome};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Results that are sent in one association at most.
const TOGETHER: usize = 32;
/// How often the folder is looked at while nobody says that there is something in it.
const LOOK: Duration = Duration::from_secs(2);

/// All destinations.
pub(super) struct Outbox {
    destinations: Vec<Destination>,
    retry: (Duration, Duration),
    retry_refused: u32,
    calling: String,
    metrics: Arc<Metrics>,
    stopped: AtomicBool,
    /// Counts results that were put in.
    put: Mutex<u64>,
    changed: Condvar,
}

struct Destination {
    config: DestinationConfig,
    outgoing: PathBuf,
    undelivered: PathBuf,
}

impl Outbox {
    /// Opens or makes the folders; what waits in them is sent.
    pub(super) fn open(folder: &Path, config: &DicomConfig, metrics: Arc<Metrics>) -> Result<Self, Error> {
        let mut destinations = Vec::new();
        for config in &config.destination {
            let outgoing = folder.join("outgoing").join(&config.name);
            let undelivered = folder.join("undelivered").join(&config.name);
            for path in [&outgoing, &undelivered] {
                files::create_folder(path).and_then(|()| files::sweep(path)).map_err(Error::io(path))?;
            }
            destinations.push(Destination { config: config.clone(), outgoing, undelivered });
        }
        Ok(Outbox {
            destinations,
            retry: (Duration::from_secs(config.retry_s), Duration::from_secs(config.retry_max_s)),
            retry_refused: config.retry_refused.max(1),
            calling: config.ae_title.clone(),
            metrics,
            stopped: AtomicBool::new(false),
            put: Mutex::new(0),
            changed: Condvar::new(),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.destinations.len()
    }

    /// True where some destination gets heat maps.
    pub(super) fn wants(&self, kind: ResultKind) -> bool {
        self.destinations.iter().any(|destination| destination.config.results.contains(&kind))
    }

    /// Stores a result for every destination that gets its kind. Repeated, it replaces itself.
    pub(super) fn put(&self, object: &str, result: &ResultObject) -> io::Result<()> {
        let object = object.strip_suffix(".dcm").unwrap_or(object);
        for destination in &self.destinations {
            if destination.config.results.contains(&result.kind) {
                files::write(&destination.outgoing.join(format!("{object}-{}.dcm", result.instance)), &result.file)?;
            }
        }
        *self.put.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
        Ok(())
    }

    /// Lets [`Outbox::run`] return after what it is sending.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        drop(self.put.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn count(&self) -> u64 {
        *self.put.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something is put in after `seen`, or for `time`; of a pause only for `time`, or the stop.
    fn wait(&self, seen: Option<u64>, time: Duration) {
        let put = self.put.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |put: &mut u64| !self.is_stopped() && seen.is_none_or(|seen| *put == seen);
        drop(self.changed.wait_timeout_while(put, time, idle));
    }

    /// Sends to one destination until the server stops.
    pub(super) fn run(&self, index: usize) {
        let destination = &self.destinations[index];
        let name = &destination.config.name;
        let (mut pause, mut refusals) = (self.retry.0, HashMap::new());
        while !self.is_stopped() {
            let seen = self.count();
            let waiting = match destination.waiting(&refusals) {
                Ok(waiting) => waiting,
                Err(error) => {
                    tracing::warn!(destination = name, %error, "the outbox cannot be read");
                    self.wait(None, LOOK);
                    continue;
                }
            };
            if waiting.is_empty() {
                self.wait(Some(seen), LOOK);
                continue;
            }
            let mut trouble = None;
            for (path, sent) in destination.send(&self.calling, waiting) {
                let settled = match sent {
                    Ok(()) => {
                        self.metrics.dicom.sent(name, Outcome::Delivered);
                        files::remove(&path).map_err(|error| error.to_string())
                    }
                    Err(Undelivered::Object(reason)) => self.refused(destination, &mut refusals, &path, reason),
                    Err(Undelivered::Link(reason)) => Err(reason),
                };
                match settled {
                    Ok(()) => drop(refusals.remove(&path)),
                    Err(reason) => trouble = Some(reason),
                }
            }
            match trouble {
                None => pause = self.retry.0,
                Some(reason) => {
                    self.metrics.dicom.not_sent(name);
                    let seconds = pause.as_secs();
                    tracing::warn!(destination = name, reason, seconds, "results wait and are sent again");
                    self.wait(None, pause);
                    pause = (pause * 2).min(self.retry.1);
                }
            }
        }
    }

    /// A receiver refused one result: it is put aside after some tries. An error where it stays.
    fn refused(
        &self,
        destination: &Destination,
        refusals: &mut HashMap<PathBuf, u32>,
        path: &Path,
        reason: String,
    ) -> Result<(), String> {
        let tries = refusals.entry(path.to_owned()).or_insert(0);
        *tries += 1;
        if *tries < self.retry_refused {
            return Err(reason);
        }
        let name = path.file_name().unwrap_or_default();
        let aside = destination.undelivered.join(name);
        let note = serde_json::json!({ "reason": reason, "tries": *tries }).to_string();
        files::write(&aside.with_extension("dcm.json"), note.as_bytes())
            .and_then(|()| files::rename(path, &aside))
            .map_err(|error| error.to_string())?;
        self.metrics.dicom.sent(&destination.config.name, Outcome::Undelivered);
        tracing::error!(destination = destination.config.name, reason, "a result is refused and put aside");
        Ok(())
    }
}

impl Destination {
    /// The next results: those that were refused before come last, so that they hold up nobody.
    fn waiting(&self, refusals: &HashMap<PathBuf, u32>) -> io::Result<Vec<PathBuf>> {
        let names = files::objects(&self.outgoing)?;
        let mut paths: Vec<PathBuf> = names.into_iter().map(|name| self.outgoing.join(name)).collect();
        paths.sort_by_key(|path| refusals.get(path).copied().unwrap_or(0));
        paths.truncate(TOGETHER);
        Ok(paths)
    }

    fn send(&self, calling: &str, paths: Vec<PathBuf>) -> Vec<Delivery> {
        match (&self.config.address, &self.config.ae_title, &self.config.url) {
            (Some(address), Some(title), _) => scu::send((address, title), self.config.tls.as_ref(), calling, paths),
            (_, _, Some(url)) => stow::send(url, self.config.authorization_file.as_deref(), paths),
            _ => Vec::new(),
        }
    }
}
