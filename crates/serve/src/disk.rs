//! What the disk says of our files: that they are there, the room they have, and who else may use them.

use std::fs::File;
use std::io;
use std::path::Path;

/// Names in a folder stay after a power failure only when the folder itself is on the disk.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Bytes that may still be written where `path` is.
#[cfg(unix)]
pub(crate) fn free(path: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(path)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Elsewhere a full disk is seen when something is written.
#[cfg(not(unix))]
pub(crate) fn free(_: &Path) -> io::Result<u64> {
    Ok(u64::MAX)
}

/// Whether the mode of a file gives others than its owner any of these bits.
#[cfg(unix)]
pub(crate) fn lets_others(path: &Path, bits: u32) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::metadata(path)?.permissions().mode() & bits != 0)
}

/// Elsewhere a file has no mode.
#[cfg(not(unix))]
pub(crate) fn lets_others(_: &Path, _: u32) -> io::Result<bool> {
    Ok(false)
}
