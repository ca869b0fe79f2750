//! A pack read as the manifest that it was made from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::index::{self, Index, RowRecord};
use super::open::{Pack, Packed};
use super::{PackError, shard_file};
use crate::{Manifest, ReadOptions, Reading, Row};

/// True if `folder` is a pack, finished or not.
pub(crate) fn is_pack(folder: &Path) -> bool {
    folder.join(index::FILE).is_file() || folder.join(shard_file(0)).is_file()
}

/// What a pack says of the manifest that was packed.
pub(crate) struct PackSource {
    /// Where the manifest was; it need not be there any more.
    pub(crate) path: PathBuf,
    index: Index,
}

impl PackSource {
    /// Reads the index of the pack in `folder`.
    ///
    /// # Errors
    /// [`PackError::Unfinished`], [`PackError::Index`].
    pub(crate) fn read(folder: &Path) -> Result<Self, PackError> {
        if !folder.join(index::FILE).is_file() {
            return Err(PackError::Unfinished { path: folder.into() });
        }
        let index = Index::read(folder)?;
        Ok(Self { path: folder.join(&index.source), index })
    }

    /// [`Manifest::digest`] when it was packed.
    pub(crate) fn digest(&self) -> &str {
        &self.index.layout.manifest_digest
    }

    /// How it was read when it was packed.
    pub(crate) fn options(&self) -> &ReadOptions {
        &self.index.reading
    }

    /// The manifest, its images those in `folder`.
    pub(crate) fn manifest(self, folder: &Path) -> Manifest {
        let Self { path: source, index } = self;
        let kind = index.kind();
        let Index { layout, source_is_folder, classes, shards, rows, reading, .. } = index;
        let root = if source_is_folder { source.as_path() } else { source.parent().unwrap_or(folder) };
        let checksums = shards.into_iter().map(|shard| shard.sha256).collect();
        let pack = Arc::new(Pack::new(folder.into(), layout, checksums));
        let row = |row: RowRecord| Row {
            path: root.join(&row.name),
            labels: row.labels(classes.len(), kind),
            name: row.name,
            split: row.split,
            mask: None,
            bag: None,
            patient_id: row.patient_id,
            line: row.line,
            weight: 1.0,
            packed: Some(Packed::new(Arc::clone(&pack), row.image)),
        };
        let rows = rows.into_iter().map(row).collect();
        let reading = Reading { options: reading, ..Reading::default() };
        Manifest { path: folder.into(), classes, kind, rows, reading }
    }
}
