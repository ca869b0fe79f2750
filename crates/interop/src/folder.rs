//! Folders of files, written whole or not at all.

use crate::error::Error;
use melo_vit::folder_of;
use std::fs::File;
use std::path::Path;

/// Fills a temporary folder beside `path`, flushes its files to the disk, and renames it into place.
///
/// # Errors
/// [`Error::Occupied`] unless nothing, or an empty folder, stands at `path`; whatever `fill` or the operating system refuses.
/// `path` is then untouched.
pub(crate) fn write_folder(path: &Path, fill: impl FnOnce(&Path) -> Result<(), Error>) -> Result<(), Error> {
    let io = |source: std::io::Error| Error::File(melo_vit::Error::Io { path: path.to_owned(), source });
    let occupied = |reason: &str| Err(Error::Occupied { path: path.to_owned(), reason: reason.to_owned() });
    if path.symlink_metadata().is_ok() {
        if !path.is_dir() {
            return occupied("is not a folder, and a folder is to be written");
        }
        if path.read_dir().map_err(io)?.next().is_some() {
            return occupied("the folder is not empty; name another, or remove it first");
        }
    }
    let mut builder = tempfile::Builder::new();
    builder.prefix(".melo-");
    // A temporary folder is its owner's alone by default; a result gets what the user's umask leaves.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    let temporary = builder.tempdir_in(folder_of(path)).map_err(io)?;
    fill(temporary.path())?;
    for entry in temporary.path().read_dir().map_err(io)? {
        File::open(entry.map_err(io)?.path()).and_then(|file| file.sync_all()).map_err(io)?;
    }
    if path.is_dir() {
        std::fs::remove_dir(path).map_err(io)?;
    }
    std::fs::rename(temporary.path(), path).map_err(io)?;
    // The folder has another name now: there is nothing left to clean up.
    let _ = temporary.keep();
    Ok(())
}

/// Writes JSON for people to read.
///
/// # Errors
/// [`melo_vit::Error::Io`].
pub(crate) fn write_json(path: &Path, value: &serde_json::Value) -> Result<(), Error> {
    Ok(melo_vit::write_atomically(path, format!("{value:#}\n").as_bytes())?)
}
