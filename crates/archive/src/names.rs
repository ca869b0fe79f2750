//! `DIR/inputs`: the names of all images in their order, each followed by a NUL, as `find -print0` writes them.

use crate::error::Error;
use melo_vit::hex;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Writes names and digests them.
pub(crate) struct NameWriter<W: Write> {
    file: BufWriter<W>,
    hash: Sha256,
    /// Names written.
    pub(crate) count: u64,
}

impl<W: Write> NameWriter<W> {
    pub(crate) fn new(file: W) -> Self {
        NameWriter { file: BufWriter::new(file), hash: Sha256::new(), count: 0 }
    }

    /// Adds a name; one that the file cannot hold is none.
    pub(crate) fn add(&mut self, path: &Path) -> std::io::Result<()> {
        let bytes = bytes_of(path)?;
        for part in [bytes, b"\0"] {
            self.hash.update(part);
            self.file.write_all(part)?;
        }
        self.count += 1;
        Ok(())
    }

    /// The SHA-256 of all.
    pub(crate) fn finish(mut self) -> std::io::Result<String> {
        self.file.flush()?;
        Ok(hex(&self.hash.finalize()))
    }
}

/// Reads names in their order.
pub(crate) struct NameReader {
    file: BufReader<File>,
    path: PathBuf,
}

impl NameReader {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io(path))?;
        Ok(NameReader { file: BufReader::new(file), path: path.to_owned() })
    }

    /// The next `count` names.
    pub(crate) fn take(&mut self, count: usize) -> Result<Vec<PathBuf>, Error> {
        (0..count).map(|_| Ok(path_of(self.next()?))).collect()
    }

    /// Passes over `count` names.
    pub(crate) fn skip(&mut self, count: usize) -> Result<(), Error> {
        (0..count).try_for_each(|_| self.next().map(drop))
    }

    fn next(&mut self) -> Result<Vec<u8>, Error> {
        let mut name = Vec::new();
        self.file.read_until(0, &mut name).map_err(Error::io(&self.path))?;
        match name.pop() {
            Some(0) => Ok(name),
            _ => Err(Error::damaged(&self.path, "ends before the last name")),
        }
    }
}

/// The names at these places of a file, which ascend.
pub(crate) fn names_at(path: &Path, places: &[u64]) -> Result<Vec<PathBuf>, Error> {
    let mut wanted = places.iter().peekable();
    let names = BufReader::new(File::open(path).map_err(Error::io(path))?).split(0);
    let taken = (0..).zip(names).filter(|(place, _)| wanted.next_if_eq(&place).is_some());
    taken.map(|(_, name)| name.map(path_of).map_err(Error::io(path))).collect()
}

#[cfg(unix)]
fn bytes_of(path: &Path) -> std::io::Result<&[u8]> {
    use std::os::unix::ffi::OsStrExt;
    Ok(path.as_os_str().as_bytes())
}

#[cfg(unix)]
fn path_of(name: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    std::ffi::OsString::from_vec(name).into()
}

#[cfg(not(unix))]
fn bytes_of(path: &Path) -> std::io::Result<&[u8]> {
    let text = path.to_str().ok_or_else(|| std::io::Error::other(format!("{}: no Unicode name", path.display())))?;
    Ok(text.as_bytes())
}

#[cfg(not(unix))]
fn path_of(name: Vec<u8>) -> PathBuf {
    String::from_utf8_lossy(&name).into_owned().into()
}
