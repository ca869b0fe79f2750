//! The folder of a study: a claim, a folder a cell, and what is made from them.
//!
//! ```text
//! OUT/study.claim   who runs or watches the study
//! OUT/cells/<task>/<backbone>/<method>/<seed…>/  result.json   the cell is done
//!                                               plugin.safetensors   (frozen backbones)
//!                                               log.txt  what the process said
//!                                               cell.claim  who computes it
//!                                               failure.json  why it cannot be computed
//!                                               run-<claim>/  states of a cell in work
//! OUT/slurm/<array>/  what was submitted, logs
//! OUT/results.json  arms.csv  comparisons.csv  report.html  report.md
//! ```

use crate::cell_result::{CellFailure, CellResult, Identity};
use crate::claim::Claim;
use crate::error::Error;
use crate::report;
use crate::results::Results;
use melo_train::{EpochRow, RunFolder};
use melo_vit::write_atomically;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How the names of folders with states begin.
const RUN: &str = "run";

/// How long a cell may take to leave after it was asked to stop: some steps of a large model.
pub(crate) const GRACE: Duration = Duration::from_secs(60);

/// A study's folder.
#[derive(Clone, Debug)]
pub struct StudyFolder(PathBuf);

/// A cell's folder.
#[derive(Clone, Debug)]
pub struct CellFolder(PathBuf);

impl StudyFolder {
    /// Makes the folder where it is missing.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(path: &Path) -> Result<Self, Error> {
        create_folder(path)?;
        Ok(StudyFolder(path.to_owned()))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Keeps other studies out.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Io`].
    pub fn claim(&self) -> Result<Claim, Error> {
        let path = self.0.join("study.claim");
        Claim::take(&path)?.map_err(|holder| Error::Busy { path, holder })
    }

    /// The folder of the cell with this name, which comes from [`crate::Plan::cell_name`] and holds checked names only; it
    /// need not exist.
    pub fn cell(&self, name: &str) -> CellFolder {
        CellFolder(self.0.join("cells").join(name))
    }

    /// Writes every file of the [report](report::files), each atomically; the path of the page.
    ///
    /// # Errors
    /// [`Error::Vit`] that names the file.
    pub fn write_report(&self, results: &Results) -> Result<PathBuf, Error> {
        for (name, content) in report::files(results) {
            write_atomically(&self.0.join(name), content.as_bytes())?;
        }
        Ok(self.0.join(report::REPORT_HTML))
    }
}

impl CellFolder {
    /// Makes the folder where it is missing.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(&self) -> Result<(), Error> {
        create_folder(&self.0)
    }

    /// Keeps other processes out. A cell whose study was killed ends by itself, after the step in flight: that is waited for.
    ///
    /// # Errors
    /// [`Error::Claimed`], [`Error::Io`], [`Error::Interrupted`].
    pub(crate) fn claim(&self, stop: &AtomicBool) -> Result<Claim, Error> {
        let (path, started) = (self.claim_file(), Instant::now());
        loop {
            match Claim::take(&path)? {
                Ok(claim) => return Ok(claim),
                Err(_) if stop.load(Ordering::Relaxed) => return Err(Error::Interrupted { folder: self.0.clone() }),
                Err(_) if started.elapsed() < GRACE => std::thread::sleep(Duration::from_millis(100)),
                Err(holder) => return Err(Error::Claimed { path, holder }),
            }
        }
    }

    pub(crate) fn claim_file(&self) -> PathBuf {
        self.0.join("cell.claim")
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What the cell's process printed.
    pub fn log(&self) -> PathBuf {
        self.0.join("log.txt")
    }

    /// The plug-in.
    pub fn plugin(&self) -> PathBuf {
        self.0.join("plugin.safetensors")
    }

    fn result(&self) -> PathBuf {
        self.0.join("result.json")
    }

    /// The states of the training under this claim. Those of a claim that is gone are taken over by a rename, so that whoever held it
    /// and lives after all can no longer write among them.
    ///
    /// # Errors
    /// As [`RunFolder::create`].
    pub(crate) fn run(&self, claim: &Claim) -> Result<RunFolder, Error> {
        let own = self.0.join(format!("{RUN}-{}", claim.token()));
        for earlier in self.runs() {
            let is_free = RunFolder::create(&earlier).is_ok();
            if is_free && std::fs::rename(&earlier, &own).is_ok() {
                break;
            }
        }
        Ok(RunFolder::create(&own)?)
    }

    /// Removes the states of all claims, after the result is written.
    pub(crate) fn clear_runs(&self) {
        for run in self.runs() {
            // What is left is of no use, and no harm.
            let _ = std::fs::remove_dir_all(run);
        }
    }

    /// Folders of states, the newest first.
    fn runs(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        let runs = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(RUN));
        let mut runs: Vec<_> =
            runs.map(|run| (run.metadata().and_then(|facts| facts.modified()).ok(), run.path())).collect();
        runs.sort();
        runs.into_iter().rev().map(|(_, path)| path).collect()
    }

    /// Epochs of a cell in work.
    pub(crate) fn epochs(&self) -> Vec<EpochRow> {
        let table = self.runs().into_iter().find_map(|run| csv::Reader::from_path(run.join("epochs.csv")).ok());
        table.into_iter().flat_map(csv::Reader::into_deserialize).map_while(Result::ok).collect()
    }

    /// True when the cell has a result, of whichever settings.
    pub fn is_done(&self) -> bool {
        self.result().exists()
    }

    /// Why the cell could not be computed when it was last tried.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn failure(&self) -> Result<Option<CellFailure>, Error> {
        let path = self.failure_file();
        match std::fs::read(&path) {
            // One that is written while it is read is read the next time.
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Io { path, source }),
        }
    }

    pub(crate) fn write_failure(&self, failure: &CellFailure) -> Result<(), Error> {
        let json = serde_json::to_vec(failure).expect("a failure is plain data");
        Ok(write_atomically(&self.failure_file(), &json)?)
    }

    pub(crate) fn clear_failure(&self) -> Result<(), Error> {
        let path = self.failure_file();
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(Error::Io { path, source }),
            _ => Ok(()),
        }
    }

    fn failure_file(&self) -> PathBuf {
        self.0.join("failure.json")
    }

    pub(crate) fn write_result(&self, result: &CellResult) -> Result<(), Error> {
        let json = serde_json::to_vec(result).expect("a result is plain data");
        Ok(write_atomically(&self.result(), &json)?)
    }

    /// The result of a finished cell; none where it is not finished.
    ///
    /// # Errors
    /// [`Error::Result`]; [`Error::Foreign`] where it is not of this identity.
    pub fn read_result(&self, identity: &Identity) -> Result<Option<CellResult>, Error> {
        let path = self.result();
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Io { path, source }),
        };
        let wrong = |reason: String| Error::Result { path: path.clone(), reason };
        let result: CellResult = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        result.check().map_err(wrong)?;
        if let Some((field, saved, current)) = result.identity.difference(identity) {
            return Err(Error::Foreign { path, field, saved, current });
        }
        Ok(Some(result))
    }
}

impl Identity {
    /// The first field that differs, with both values.
    fn difference(&self, current: &Identity) -> Option<(String, String, String)> {
        let fields = |identity: &Identity| {
            let mut fields = flatten("", &serde_json::to_value(identity).expect("an identity is plain data"));
            fields.sort();
            fields
        };
        let (saved, current) = (fields(self), fields(current));
        let differs = saved.iter().find(|field| !current.contains(field));
        let (name, value) = differs.or_else(|| current.iter().find(|field| !saved.contains(field)))?;
        let now = current.iter().find(|(field, _)| field == name).map_or("none", |(_, value)| value);
        Some((name.clone(), value.clone(), now.to_owned()))
    }
}

/// `config.lora.rank` and its value, for every leaf.
fn flatten(prefix: &str, value: &serde_json::Value) -> Vec<(String, String)> {
    match value {
        serde_json::Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| {
                let dot = if prefix.is_empty() { "" } else { "." };
                flatten(&format!("{prefix}{dot}{name}"), value)
            })
            .collect(),
        leaf => vec![(prefix.to_owned(), leaf.to_string())],
    }
}

impl CellResult {
    /// Checks what a file says against itself.
    fn check(&self) -> Result<(), String> {
        for (split, answers) in [("val", &self.val), ("test", &self.test)] {
            answers.check().map_err(|reason| format!("{split}: {reason}"))?;
            if answers.classes != self.classes.len() {
                return Err(format!("{split}: {} classes, expected {}", answers.classes, self.classes.len()));
            }
        }
        if self.history.is_empty() || !(self.temperature.is_finite() && self.temperature > 0.0) {
            return Err("no epoch, or a temperature that is not positive".to_owned());
        }
        Ok(())
    }
}

fn create_folder(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(|source| Error::Io { path: path.to_owned(), source })
}
