//! `DIR/inputs`: the names of all images in their order, each followed by a NUL, as `find -print0` writes them.

use crate::error::Error;
use crate::plan::inputs_of;
use melo_vit::hex;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Seek, Write};
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

/// Reads the names of chunks, in any order.
pub(crate) struct NameReader {
    file: BufReader<File>,
    path: PathBuf,
    /// Where the chunks begin that were reached so far, bytes.
    starts: Vec<u64>,
}

impl NameReader {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io(path))?;
        Ok(NameReader { file: BufReader::new(file), path: path.to_owned(), starts: vec![0] })
    }

    /// The names of chunk `number` of `inputs` names in chunks of `chunk`.
    pub(crate) fn chunk(&mut self, inputs: u64, chunk: usize, number: u64) -> Result<Vec<PathBuf>, Error> {
        let reached = self.starts.len() as u64 - 1;
        let first = number.min(reached);
        let start = self.starts[usize::try_from(first).expect("chunks that were reached")];
        let here = self.file.stream_position().map_err(Error::io(&self.path))?;
        self.file.seek_relative(start as i64 - here as i64).map_err(Error::io(&self.path))?;
        for passed in first..number {
            (0..inputs_of(inputs, chunk, passed)).try_for_each(|_| self.next().map(drop))?;
            self.reach()?;
        }
        let names =
            (0..inputs_of(inputs, chunk, number)).map(|_| Ok(path_of(self.next()?))).collect::<Result<_, Error>>()?;
        if number + 1 == self.starts.len() as u64 {
            self.reach()?;
        }
        Ok(names)
    }

    fn reach(&mut self) -> Result<(), Error> {
        self.starts.push(self.file.stream_position().map_err(Error::io(&self.path))?);
        Ok(())
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

/// At most `most` names of a file, from its first million spread evenly, and how many it has.
#[cfg(feature = "queue")]
pub(crate) fn spread(file: &Path, most: usize) -> Result<(Vec<PathBuf>, u64), Error> {
    let names = || Ok::<_, Error>(BufReader::new(File::open(file).map_err(Error::io(file))?).split(0));
    let count = names()?.try_fold(0_u64, |count, name| name.map(|_| count + 1)).map_err(Error::io(file))?;
    let step = usize::try_from(count.min(1_000_000)).unwrap_or(usize::MAX).div_ceil(most).max(1);
    let taken = names()?.step_by(step).take(most).collect::<Result<Vec<_>, _>>().map_err(Error::io(file))?;
    Ok((taken.into_iter().map(path_of).collect(), count))
}

/// True where a name in this file is none from the root of a file system or of a store.
#[cfg(feature = "queue")]
pub(crate) fn any_relative(file: &Path) -> Result<bool, Error> {
    let mut names = BufReader::new(File::open(file).map_err(Error::io(file))?).split(0);
    let found = names.find(|name| name.as_ref().map_or(true, |name| is_relative(name)));
    found.map_or(Ok(false), |name| name.map(|_| true).map_err(Error::io(file)))
}

#[cfg(feature = "queue")]
fn is_relative(name: &[u8]) -> bool {
    !name.windows(3).any(|part| part == b"://") && path_of(name.to_owned()).is_relative()
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

#[cfg(all(test, feature = "queue"))]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_again_in_any_order_and_spread_evenly() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("inputs");
        let mut names = NameWriter::new(File::create(&path).expect("a file"));
        (0..10).for_each(|number| names.add(Path::new(&format!("/films/{number}"))).expect("a name"));
        names.finish().expect("written");
        let mut reader = NameReader::open(&path).expect("a file");
        let mut first_of = |number| {
            let names = reader.chunk(10, 3, number).expect("its names");
            (names[0].display().to_string(), names.len())
        };
        for (chunk, first, count) in [(2, 6, 3), (0, 0, 3), (3, 9, 1), (1, 3, 3), (2, 6, 3)] {
            assert_eq!(first_of(chunk), (format!("/films/{first}"), count), "chunk {chunk}");
        }
        let (some, count) = spread(&path, 5).expect("names");
        assert_eq!((some.len(), count, some[1].as_path()), (5, 10, Path::new("/films/2")));
        assert!(!any_relative(&path).expect("names"));
        std::fs::write(&path, b"/a\0s3://bucket/b\0c\0").expect("written");
        assert!(any_relative(&path).expect("names"));
    }
}
