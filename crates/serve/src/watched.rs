//! Files of ours that say whom to trust, read again when they change.

use crate::disk;
use crate::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How often it is looked whether a file has changed.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// A file that its owner alone may write, and what it said when it could last be understood.
pub(crate) struct Watched<T> {
    path: PathBuf,
    read: fn(&Path) -> Result<T, Error>,
    known: Mutex<Known<T>>,
}

struct Known<T> {
    value: T,
    stamp: Option<Stamp>,
    looked: Instant,
}

/// What tells one state of a file from another.
#[derive(PartialEq)]
pub(crate) struct Stamp(Option<SystemTime>, u64, u64);

/// None of a file that is not there.
pub(crate) fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
    #[cfg(not(unix))]
    let inode = 0;
    Some(Stamp(metadata.modified().ok(), metadata.len(), inode))
}

/// The text of a file of this kind, which has so many bytes at most.
///
/// # Errors
/// [`Error::Io`], [`Error::Damaged`].
pub(crate) fn text_of(path: &Path, kind: &str, most: u64) -> Result<String, Error> {
    let bytes = std::fs::metadata(path).map_err(Error::io(path))?.len();
    if bytes > most {
        let reason = format!("it has {bytes} bytes, {kind} at most {most}");
        return Err(Error::Damaged { path: path.to_owned(), reason });
    }
    std::fs::read_to_string(path).map_err(Error::io(path))
}

fn owned<T>(path: &Path, read: fn(&Path) -> Result<T, Error>) -> Result<T, Error> {
    if disk::lets_others(path, 0o022).map_err(Error::io(path))? {
        let reason = "others than its owner may write it, and so let themselves in: chmod go-w".to_owned();
        return Err(Error::Damaged { path: path.to_owned(), reason });
    }
    read(path)
}

impl<T: Default> Watched<T> {
    /// # Errors
    /// [`Error::Io`], [`Error::Damaged`], and those of `read`.
    pub(crate) fn open(path: &Path, read: fn(&Path) -> Result<T, Error>) -> Result<Self, Error> {
        let stamp = stamp(path);
        let value = owned(path, read)?;
        Ok(Watched { path: path.to_owned(), read, known: Mutex::new(Known { value, stamp, looked: Instant::now() }) })
    }

    /// What it says now. `changed` hears of what it said before and says since, after a change.
    pub(crate) fn with<R>(&self, changed: impl FnOnce(&T, &T), found: impl FnOnce(&T) -> R) -> R {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = self.look(&mut known) {
            changed(&known.value, &value);
            known.value = value;
        }
        found(&known.value)
    }

    /// What it says that it did not say before. A file that cannot be understood changes nothing, one that is gone says nothing.
    fn look(&self, known: &mut Known<T>) -> Option<T> {
        if known.looked.elapsed() < LOOK {
            return None;
        }
        known.looked = Instant::now();
        let found = stamp(&self.path);
        if found == known.stamp {
            return None;
        }
        known.stamp = found;
        let file = self.path.display();
        match owned(&self.path, self.read) {
            Ok(value) => {
                tracing::info!(%file, "a file of whom to trust has changed");
                Some(value)
            }
            Err(error) if known.stamp.is_none() => {
                tracing::error!(%error, "a file of whom to trust is gone: nobody in it is trusted any more");
                Some(T::default())
            }
            Err(error) => {
                tracing::error!(%error, "a file of whom to trust cannot be read: what it said before stays in force");
                None
            }
        }
    }

    /// Makes the next look happen now.
    #[cfg(test)]
    pub(crate) fn expire(&self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.looked = known.looked.checked_sub(LOOK * 2).unwrap_or(known.looked);
    }
}
