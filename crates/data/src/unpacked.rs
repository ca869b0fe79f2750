//! Compressed files of many images, unpacked once for the images that are asked for one behind the other.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use melo_imaging::Unpacked;
use sha2::{Digest, Sha256};

/// Files that are kept: more than one, since several threads read.
const FILES: usize = 16;
/// Bytes of them.
const BYTES: usize = 512 << 20;

/// The latest files, the latest last.
#[derive(Debug, Default)]
pub(crate) struct UnpackedFiles(Mutex<Vec<Arc<UnpackedFile>>>);

/// A file, or an array of one.
#[derive(Debug)]
pub(crate) struct UnpackedFile {
    file: PathBuf,
    pub(crate) unpacked: Unpacked,
    /// SHA-256 of the file as it is, for more to be added.
    pub(crate) digest: Sha256,
    /// Bytes of the file as it is.
    pub(crate) bytes: usize,
}

impl UnpackedFiles {
    /// The file that a path names a part of, if anything is gained by unpacking it.
    pub(crate) fn of(&self, path: &Path) -> Option<Arc<UnpackedFile>> {
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let file = melo_imaging::file_of(path);
        if file == path {
            return None;
        }
        let holds = |known: &&Arc<UnpackedFile>| known.file == file && known.unpacked.holds(path);
        if let Some(found) = known().iter().find(holds) {
            return Some(Arc::clone(found));
        }
        let bytes = std::fs::read(&file).ok()?;
        let unpacked = Unpacked::of_bytes(&bytes, path)?;
        let new =
            Arc::new(UnpackedFile { file, unpacked, digest: Sha256::new_with_prefix(&bytes), bytes: bytes.len() });
        let mut all = known();
        all.push(Arc::clone(&new));
        let bytes = |all: &[Arc<UnpackedFile>]| all.iter().map(|file| file.unpacked.size()).sum::<usize>();
        while all.len() > 1 && (all.len() > FILES || bytes(&all) > BYTES) {
            all.remove(0);
        }
        Some(new)
    }
}
