//! Which kind of manifest a path is.

use std::path::Path;

use super::{Manifest, folder, table};
use crate::pack::{self, PackSource};
use crate::{Error, PackError};

impl Manifest {
    /// Reads a CSV, a directory or a pack. No image is opened: that is [`check`](crate::check)'s part.
    ///
    /// # Errors
    /// The first defect, with its line.
    pub fn read(path: &Path) -> Result<Manifest, Error> {
        let manifest = if !path.is_dir() {
            table::read(path)?
        } else if pack::is_pack(path) {
            of_pack(path)?
        } else {
            folder::read(path)?
        };
        let Some(first) = manifest.rows.first() else {
            return Err(Error::NoRows { path: path.into() });
        };
        if manifest.rows.iter().all(|row| row.labels == first.labels) {
            return Err(Error::OneClass { path: path.into(), found: manifest.describe(&first.labels) });
        }
        Ok(manifest)
    }
}

/// The manifest that was packed into `folder`, unless it says something else by now.
fn of_pack(folder: &Path) -> Result<Manifest, Error> {
    let source = PackSource::read(folder)?;
    if source.path.exists() {
        let reason = match Manifest::read(&source.path) {
            Ok(manifest) if manifest.digest() == source.digest() => None,
            Ok(manifest) => Some(format!("digest {}, packed {}", manifest.digest(), source.digest())),
            Err(error) => Some(error.to_string()),
        };
        if let Some(reason) = reason {
            return Err(PackError::Stale { path: folder.into(), manifest: source.path, reason }.into());
        }
    }
    Ok(source.manifest(folder))
}
