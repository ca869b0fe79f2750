//! An output on its way: values and rows as they come, and a journal of how much of them counts.

use crate::about::Failed;
use crate::error::Error;
use melo_vit::write_atomically;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// What the journal says; replaced whole after every chunk.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Journal {
    /// Digest of images, weights and settings.
    pub(crate) identity: String,
    /// Images done.
    pub(crate) done: usize,
    /// Images whose features are there.
    pub(crate) rows: usize,
    /// Bytes of the table that count.
    table_bytes: u64,
    /// Images that could not be read.
    pub(crate) failed: Vec<Failed>,
}

/// The folder `OUT.partial`.
pub(crate) struct Partial {
    folder: PathBuf,
    values: File,
    table: File,
    pub(crate) journal: Journal,
}

/// The folder of an unfinished output.
pub(crate) fn folder_of_partial(output: &Path) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

impl Partial {
    /// Opens what an interrupted run of this identity left, or begins anew: with `start` bytes kept free in front of values of
    /// `row_bytes` an image, and the table's first line.
    pub(crate) fn open(
        output: &Path,
        identity: &str,
        (start, row_bytes): (u64, u64),
        head: &[u8],
    ) -> Result<Self, Error> {
        let folder = folder_of_partial(output);
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let open = |name: &str| {
            let path = folder.join(name);
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).open(&path).map_err(Error::io(&path))
        };
        let (values, table) = (open("values")?, open("rows.csv")?);
        match values.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Busy { partial: folder }),
            // A file system without locks.
            Err(TryLockError::Error(_)) => {}
        }
        let length = |file: &File| file.metadata().map_or(0, |metadata| metadata.len());
        let kept = std::fs::read(folder.join("journal.json")).ok();
        let kept = kept.and_then(|json| serde_json::from_slice::<Journal>(&json).ok());
        let whole = |journal: &Journal| {
            let wanted = start + journal.rows as u64 * row_bytes;
            journal.identity == identity && length(&values) >= wanted && length(&table) >= journal.table_bytes
        };
        let journal = kept.filter(whole);
        let goes_on = journal.is_some();
        let journal = journal.unwrap_or_else(|| Journal { identity: identity.to_owned(), ..Journal::default() });
        let mut partial = Partial { folder, values, table, journal };
        partial.cut(start + partial.journal.rows as u64 * row_bytes)?;
        if !goes_on {
            partial.append(&[], head, 0, 0, Vec::new())?;
        }
        Ok(partial)
    }

    /// Forgets what a kill left behind the journal's last chunk.
    fn cut(&mut self, values: u64) -> Result<(), Error> {
        let table = self.journal.table_bytes;
        for (file, name, length) in [(&mut self.values, "values", values), (&mut self.table, "rows.csv", table)] {
            let cut = file.set_len(length).and_then(|()| file.seek(SeekFrom::End(0)));
            cut.map_err(Error::io(self.folder.join(name)))?;
        }
        Ok(())
    }

    /// Adds a chunk: values and lines of `rows` of `images` images, and what could not be read.
    pub(crate) fn append(
        &mut self,
        values: &[u8],
        lines: &[u8],
        images: usize,
        rows: usize,
        failed: Vec<Failed>,
    ) -> Result<(), Error> {
        for (file, name, bytes) in [(&mut self.values, "values", values), (&mut self.table, "rows.csv", lines)] {
            let written = file.write_all(bytes).and_then(|()| file.sync_data());
            written.map_err(Error::io(self.folder.join(name)))?;
        }
        let Journal { done, rows: all, table_bytes, failed: all_failed, .. } = &mut self.journal;
        *done += images;
        *all += rows;
        *table_bytes += lines.len() as u64;
        all_failed.extend(failed);
        let json = serde_json::to_vec(&self.journal).expect("plain data");
        Ok(write_atomically(&self.folder.join("journal.json"), &json)?)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn values_path(&self) -> PathBuf {
        self.folder.join("values")
    }

    pub(crate) fn table_path(&self) -> PathBuf {
        self.folder.join("rows.csv")
    }

    /// Writes the bytes that were kept free in front of the values.
    pub(crate) fn write_start(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let write = |file: &mut File| {
            file.seek(SeekFrom::Start(0))?;
            file.write_all(bytes)?;
            file.seek(SeekFrom::End(0))
        };
        write(&mut self.values).map(drop).map_err(Error::io(self.values_path()))
    }

    /// Adds bytes behind the values, which the journal does not count.
    pub(crate) fn write_end(&mut self, mut from: impl std::io::Read) -> Result<(), Error> {
        std::io::copy(&mut from, &mut self.values).map(drop).map_err(Error::io(self.values_path()))
    }

    /// The values become `output`.
    pub(crate) fn values_become(&mut self, output: &Path) -> Result<(), Error> {
        self.values.sync_all().map_err(Error::io(self.values_path()))?;
        std::fs::rename(self.values_path(), output).map_err(Error::io(output))
    }

    /// Removes the folder's files, and it.
    pub(crate) fn remove(self) -> Result<(), Error> {
        let Partial { folder, values, table, .. } = self;
        drop((values, table));
        for name in ["journal.json", "rows.csv", "values", "parquet", "rows.copy"] {
            match std::fs::remove_file(folder.join(name)) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::Io { path: folder.join(name), source });
                }
                _ => {}
            }
        }
        std::fs::remove_dir(&folder).map_err(Error::io(&folder))
    }
}
