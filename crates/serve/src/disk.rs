//! Room on the disk that our files are on.

use std::io;
use std::path::Path;

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
