//! Read-only bytes of a file, mapped into memory.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

/// A file mapped for reading; weights are copied out of it into the layout that the kernels want,
/// or lie in it as they want them.
#[derive(Debug)]
pub struct MappedFile(memmap2::Mmap);

impl MappedFile {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// Whatever the operating system answers: missing, no permission, a directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        MappedFile::of(&File::open(path)?)
    }

    /// Maps an open file.
    ///
    /// # Errors
    /// As [`MappedFile::open`].
    pub fn of(file: &File) -> io::Result<Self> {
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        // SAFETY: the mapping is read-only and private to this value. Another process that shortens the file while it
        // is read ends this one with SIGBUS, as for every mapped reader; plug-ins and weights are replaced by rename,
        // never rewritten in place, so a mapped file keeps its bytes.
        let map = unsafe { memmap2::Mmap::map(file)? };
        Ok(MappedFile(map))
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
