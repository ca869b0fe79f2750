//! Files that say that something belongs to one process.

use crate::error::Error;
use std::fs::{File, TryLockError};
use std::path::Path;

/// Holds `file` for `of` until it is dropped, or the process ends.
///
/// # Errors
/// [`Error::InUse`] naming `of`, [`Error::Io`] naming `path`.
pub(crate) fn hold(file: File, path: &Path, of: &Path) -> Result<File, Error> {
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse { path: of.to_owned() }),
        Err(TryLockError::Error(source)) => Err(Error::Io { path: path.to_owned(), source }),
    }
}
