//! The folder of a study: a lock, a folder a cell, and what is made from them.
//!
//! ```text
//! OUT/study.lock
//! OUT/cells/<task>/<backbone>/<method>/<seed…>/  result.json   the cell is done
//!                                               plugin.safetensors   (frozen backbones)
//!                                               log.txt  what the process said
//!                                               run/  states of a cell in work
//! OUT/results.json  arms.csv  comparisons.csv  report.html  report.md
//! ```

use crate::cell_result::{CellResult, Identity};
use crate::error::Error;
use crate::report;
use crate::results::Results;
use melo_train::RunFolder;
use melo_vit::write_atomically;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a cell may take to leave after it was asked to stop: some steps of a large model.
pub(crate) const GRACE: Duration = Duration::from_secs(60);

/// A study's folder.
#[derive(Clone, Debug)]
pub struct StudyFolder(PathBuf);

/// A cell's folder.
#[derive(Clone, Debug)]
pub struct CellFolder(PathBuf);

/// Held while a process works in a folder; the system gives it back when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

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
    pub fn lock(&self) -> Result<Lock, Error> {
        lock(&self.0.join("study.lock"))
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
    /// [`Error::Busy`], [`Error::Io`].
    pub fn lock(&self) -> Result<Lock, Error> {
        let started = Instant::now();
        loop {
            match lock(&self.0.join("cell.lock")) {
                Err(Error::Busy { .. }) if started.elapsed() < GRACE => std::thread::sleep(Duration::from_millis(100)),
                other => return other,
            }
        }
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

    /// The states of the training.
    ///
    /// # Errors
    /// As [`RunFolder::create`].
    pub(crate) fn run(&self) -> Result<RunFolder, Error> {
        Ok(RunFolder::create(&self.0.join("run"))?)
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

fn lock(path: &Path) -> Result<Lock, Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(Lock { _file: file }),
        Err(TryLockError::WouldBlock) => Err(Error::Busy { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(io(source)),
    }
}
