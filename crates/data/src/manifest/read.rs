//! Which kind of manifest a path is.

use std::path::{Path, PathBuf};

use melo_vit::TaskKind;

use super::{Manifest, bags, folder, kind, table};
use crate::improbable::improbable;
use crate::pack::{self, PackSource};
use crate::{Error, Note, PackError, ReadOptions};

/// Names of tables that a folder's labels are in.
const TABLES: [&str; 3] = ["labels", "manifest", "metadata"];
/// Endings of tables.
const ENDINGS: [&str; 4] = ["csv", "tsv", "xlsx", "xlsm"];
/// Images that are looked for before a table of another name is taken for a folder's manifest.
const TRIED: usize = 100;

impl Manifest {
    /// [`read_with`](Manifest::read_with) that is told nothing.
    ///
    /// # Errors
    /// As there.
    pub fn read(path: &Path) -> Result<Manifest, Error> {
        Self::read_with(path, &ReadOptions::default())
    }

    /// Reads a table, a directory or a pack. No image is opened: that is [`check`](crate::check)'s part.
    ///
    /// What was decided on the way, and what is improbable, is in [`Manifest::reading`].
    ///
    /// # Errors
    /// The first defect, with its line.
    pub fn read_with(path: &Path, options: &ReadOptions) -> Result<Manifest, Error> {
        let mut manifest = if !path.is_dir() {
            table::read(path, options)?
        } else if pack::is_pack(path) {
            of_pack(path, options)?
        } else {
            of_folder(path, options)?
        };
        bags::gather(&mut manifest, options)?;
        let Some(first) = manifest.rows.first() else {
            return Err(Error::NoRows { path: manifest.path });
        };
        let masks = manifest.kind == TaskKind::Segmentation;
        if !masks && manifest.rows.iter().all(|row| row.labels == first.labels) {
            let found = manifest.describe(&first.labels);
            return Err(Error::OneClass { path: manifest.path, found });
        }
        kind::take(&mut manifest, options)?;
        let improbable = improbable(&manifest);
        manifest.reading.warnings.extend(improbable);
        Ok(manifest)
    }
}

/// The manifest that was packed into `folder`, unless it says something else by now.
fn of_pack(folder: &Path, options: &ReadOptions) -> Result<Manifest, Error> {
    let source = PackSource::read(folder)?;
    if source.path.exists() {
        let options = ReadOptions { images: options.images.clone(), ..source.options().clone() };
        let reason = match Manifest::read_with(&source.path, &options) {
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

/// A folder of classes, or the table that it holds.
///
/// A table called `labels`, `manifest` or `metadata` goes before the folders if it is a manifest; a sole table of another
/// name, if it is one and names an image that is there.
fn of_folder(path: &Path, options: &ReadOptions) -> Result<Manifest, Error> {
    let (named, others) = tables(path)?;
    let sole = if others.len() == 1 { others.first() } else { None };
    let table = named.first().or(sole);
    let read = table.map(|table| {
        let mut manifest = table::read(table, options)?;
        manifest.reading.notes.insert(0, Note::FolderHolds { file: name_of(table) });
        Ok(manifest)
    });
    let is_named = !named.is_empty();
    match read {
        Some(Ok(manifest)) if is_named || manifest.rows.iter().take(TRIED).any(|row| row.path.exists()) => Ok(manifest),
        Some(read) => match folder::read(path) {
            Ok(mut manifest) => {
                if let (Err(error), Some(table)) = (read, table.filter(|_| is_named)) {
                    let reason = Error::to_string(&error);
                    manifest.reading.notes.push(Note::PassedOver { file: name_of(table), reason });
                }
                Ok(manifest)
            }
            // Of a folder that is no data set, its table is what can be mended.
            Err(_) => read,
        },
        None => folder::read(path),
    }
}

/// The tables directly in a folder: those of the usual names, the likelier before, and the others.
fn tables(folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), Error> {
    let broken = |source| Error::Read { path: folder.into(), source };
    let entries = std::fs::read_dir(folder).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let mut tables: Vec<PathBuf> = entries.map_err(broken)?.into_iter().map(|entry| entry.path()).collect();
    let is_table = |path: &PathBuf| {
        let ending =
            path.extension().is_some_and(|found| ENDINGS.iter().any(|known| found.eq_ignore_ascii_case(known)));
        // Excel leaves `~$labels.xlsx` beside a workbook that is open.
        ending && !name_of(path).starts_with(['.', '~']) && path.is_file()
    };
    tables.retain(is_table);
    let rank = |path: &PathBuf| {
        let stem = path.file_stem().unwrap_or_default();
        TABLES.iter().position(|known| stem.eq_ignore_ascii_case(known))
    };
    tables.sort();
    let (mut named, others): (Vec<PathBuf>, Vec<PathBuf>) = tables.into_iter().partition(|path| rank(path).is_some());
    named.sort_by_key(rank);
    Ok((named, others))
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
