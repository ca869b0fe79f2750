//! What is settled goes after some days: refused objects with their notes, and notes of series that were answered. What waits for its answer
//! or its receiver, and what a receiver refused, is never touched.

use super::files;
use super::spool::Spool;
use crate::error::Error;
use crate::metrics::Metrics;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The folders that are looked through.
pub(super) struct Retention {
    refused: PathBuf,
    answered: PathBuf,
    age: Duration,
    metrics: Arc<Metrics>,
}

impl Retention {
    /// Of the spool in `folder`.
    ///
    /// # Errors
    /// [`Error::Settings`] for no days.
    pub(super) fn new(folder: &Path, days: u32, metrics: Arc<Metrics>) -> Result<Self, Error> {
        if days == 0 {
            return Err(Error::Settings("dicom: `keep-days` is at least 1".to_owned()));
        }
        let age = DAY * days;
        Ok(Retention { refused: folder.join("refused"), answered: folder.join("answered"), age, metrics })
    }

    /// Looks now and every hour until the spool stops.
    pub(super) fn run(&self, spool: &Spool) {
        loop {
            if let Some(before) = SystemTime::now().checked_sub(self.age) {
                self.delete(before);
            }
            if !spool.pause(LOOK) {
                return;
            }
        }
    }

    fn delete(&self, before: SystemTime) {
        for (what, done) in [("refused", self.delete_refused(before)), ("answered", self.delete_answered(before))] {
            match done {
                Ok(0) => {}
                Ok(count) => {
                    tracing::info!(what, count, "what the DICOM spool kept long enough is deleted");
                    self.metrics.dicom.deleted(what, count);
                }
                Err(error) => tracing::warn!(what, %error, "what the DICOM spool kept long enough cannot be deleted"),
            }
        }
    }

    /// The age of an object is that of its note, which was written when it was refused. The note goes last.
    fn delete_refused(&self, before: SystemTime) -> io::Result<u64> {
        let mut count = 0;
        for name in names(&self.refused)? {
            let (object, note) = match name.strip_suffix(".json") {
                Some(object) => (self.refused.join(object), self.refused.join(&name)),
                None => (self.refused.join(&name), self.refused.join(format!("{name}.json"))),
            };
            let written = if note.exists() { &note } else { &object };
            if is_older(written, before) {
                count += u64::from(object.exists());
                files::remove(&object)?;
                files::remove(&note)?;
            }
        }
        Ok(count)
    }

    fn delete_answered(&self, before: SystemTime) -> io::Result<u64> {
        let mut count = 0;
        for name in names(&self.answered)? {
            let note = self.answered.join(name);
            if is_older(&note, before) {
                files::remove(&note)?;
                count += 1;
            }
        }
        Ok(count)
    }
}

/// Of one that is gone nothing is known.
fn is_older(path: &Path, before: SystemTime) -> bool {
    std::fs::metadata(path).and_then(|found| found.modified()).is_ok_and(|written| written < before)
}

/// Names of the whole files of a folder.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if let Some(name) = entry.file_name().to_str().filter(|name| !name.starts_with('.'))
            && entry.file_type()?.is_file()
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, FileTimes};

    #[test]
    fn what_is_settled_goes_after_its_days_and_what_waits_never() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, days: u32| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "x").unwrap();
            let time = SystemTime::now() - DAY * days;
            File::options().write(true).open(&path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
        };
        let waiting = ["incoming/1.dcm", "series/A-1.2/1.dcm", "outgoing/pacs/1.dcm", "undelivered/pacs/1.dcm"];
        waiting.iter().for_each(|name| put(name, 4000));
        // Its note tells when it was refused, whenever it came.
        put("refused/new.dcm", 4000);
        put("refused/new.dcm.json", 6);
        put("refused/old.dcm", 8);
        put("refused/old.dcm.json", 8);
        put("refused/alone.dcm", 8);
        put("refused/moved.dcm.json", 8);
        put("refused/.melo-unfinished", 8);
        put("answered/A-1.2", 6);
        put("answered/A-1.3", 8);
        let metrics = Arc::new(Metrics::default());
        let retention = Retention::new(folder.path(), 7, Arc::clone(&metrics)).unwrap();
        retention.delete(SystemTime::now() - retention.age);
        let mut left = [names(&retention.refused).unwrap(), names(&retention.answered).unwrap()].concat();
        left.sort();
        assert_eq!(left, ["A-1.2", "new.dcm", "new.dcm.json"]);
        assert!(waiting.iter().all(|name| folder.path().join(name).exists()));
        let text = metrics.text(0);
        for line in ["melo_dicom_deleted_total{what=\"refused\"} 2", "melo_dicom_deleted_total{what=\"answered\"} 1"] {
            assert!(text.contains(line), "{text}");
        }
        let error = Retention::new(folder.path(), 0, Arc::default()).err().unwrap();
        assert!(error.to_string().contains("keep-days"), "{error}");
    }
}
