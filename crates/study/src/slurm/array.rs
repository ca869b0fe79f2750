//! What was submitted, kept in the study's folder: whoever watches next picks it up.

use super::commands::sbatch;
use super::script::Script;
use super::settings::SlurmSettings;
use crate::error::Error;
use crate::store::StudyFolder;
use melo_vit::write_atomically;
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A job array.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Array {
    /// Its folder.
    pub(crate) folder: PathBuf,
    pub(crate) record: Record,
}

/// What is kept of one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Its name, which no other array has.
    pub(crate) name: String,
    /// Cells by name, task 1 first.
    pub(crate) cells: Vec<String>,
    /// Its job; none until sbatch has answered.
    pub(crate) job: Option<String>,
}

impl Array {
    /// The log of a task, from 1.
    pub(crate) fn log(&self, task: usize) -> PathBuf {
        self.folder.join(format!("{task}.log"))
    }

    /// A task as Slurm and claims call it.
    pub(crate) fn task_name(&self, task: usize) -> Option<String> {
        self.record.job.as_ref().map(|job| format!("{job}_{task}"))
    }

    /// Notes the job.
    ///
    /// # Errors
    /// [`Error::Vit`].
    pub(crate) fn submitted_as(&mut self, job: String) -> Result<(), Error> {
        self.record.job = Some(job);
        self.write()
    }

    fn write(&self) -> Result<(), Error> {
        let json = serde_json::to_vec(&self.record).expect("a record is plain data");
        Ok(write_atomically(&self.folder.join("array.json"), &json)?)
    }
}

impl StudyFolder {
    /// Everything that was submitted, in order.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Result`].
    pub(crate) fn arrays(&self) -> Result<Vec<Array>, Error> {
        let mut arrays = Vec::new();
        for number in 1.. {
            let folder = self.array_folder(number);
            let path = folder.join("array.json");
            match std::fs::read(&path) {
                Ok(bytes) => {
                    let read = serde_json::from_slice(&bytes);
                    let record = read.map_err(|error| Error::Record { path, reason: error.to_string() })?;
                    arrays.push(Array { folder, record });
                }
                // Killed before it was written: nothing was submitted either.
                Err(error) if error.kind() == ErrorKind::NotFound && folder.is_dir() => {}
                Err(error) if error.kind() == ErrorKind::NotFound => break,
                Err(source) => return Err(Error::Io { path, source }),
            }
        }
        Ok(arrays)
    }

    fn array_folder(&self, number: usize) -> PathBuf {
        self.path().join("slurm").join(format!("{number:03}"))
    }

    /// The folder of the next array.
    pub(crate) fn next_array(&self) -> Result<PathBuf, Error> {
        let number = (1..).find(|&number| !self.array_folder(number).is_dir()).expect("a number is free");
        let folder = self.array_folder(number);
        std::path::absolute(&folder).map_err(|source| Error::Io { path: folder, source })
    }

    /// Submits cells as an array.
    ///
    /// # Errors
    /// Why not, by sbatch or by the disk.
    pub(crate) fn submit(
        &self,
        study: &Path,
        cells: Vec<String>,
        settings: &SlurmSettings,
        command: &[String],
    ) -> Result<Array, Error> {
        let folder = self.next_array()?;
        let name = array_name(study, &folder);
        let text = Script { settings, name: &name, folder: &folder, tasks: cells.len(), command }.text()?;
        std::fs::create_dir_all(&folder).map_err(|source| Error::Io { path: folder.clone(), source })?;
        let script = folder.join("script.sh");
        write_atomically(&folder.join("cells"), (cells.join("\n") + "\n").as_bytes())?;
        write_atomically(&script, text.as_bytes())?;
        let mut array = Array { folder, record: Record { name, cells, job: None } };
        array.write()?;
        match sbatch(&array.record.name, &script) {
            Ok(job) => array.submitted_as(job)?,
            Err(error) => {
                // Refused: nothing to pick up.
                let _ = std::fs::remove_dir_all(&array.folder);
                return Err(error);
            }
        }
        Ok(array)
    }
}

/// `melo-STUDY-TIME`: found again in the queue where the answer of sbatch was lost.
pub(crate) fn array_name(study: &Path, folder: &Path) -> String {
    let stem = study.file_stem().unwrap_or_default().to_string_lossy();
    let plain: String = stem.chars().filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).take(24).collect();
    let number = folder.file_name().unwrap_or_default().to_string_lossy();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("melo-{plain}-{number}-{:x}", now.as_millis())
}
