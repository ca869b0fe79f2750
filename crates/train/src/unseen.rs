//! Which images of a manifest a plug-in has not seen.

use crate::error::Error;
use melo_data::{Assigned, DEFAULT_FRACTIONS, Manifest, ReadOptions};
use melo_vit::{TaskCard, TaskKind};
use std::path::Path;

/// The manifest with the splits that the plug-in's training saw, and the classes in its order.
///
/// Splits that are missing are assigned as the training assigned them, which is only right for the same data: anything
/// else without splits is refused.
///
/// # Errors
/// [`Error::OtherKind`], [`Error::NoBags`], [`Error::InBags`], [`Error::UnknownSplits`]; [`Error::Images`] for classes that the plug-in has not.
pub fn manifest_for(card: &TaskCard, mut manifest: Manifest) -> Result<(Manifest, Assigned), Error> {
    if manifest.kind == TaskKind::SingleLabel && card.kind == TaskKind::Ordinal {
        manifest = Manifest { kind: TaskKind::Ordinal, ..manifest.with_classes(&card.classes)? };
    }
    if manifest.kind == TaskKind::Segmentation && manifest.classes.is_empty() {
        manifest.classes.clone_from(&card.classes);
    }
    if manifest.kind != card.kind {
        return Err(Error::OtherKind { path: manifest.path, found: manifest.kind, needed: card.kind });
    }
    match (card.bag.is_some(), manifest.has_bags()) {
        (true, false) => return Err(Error::NoBags { path: manifest.path }),
        (false, true) => return Err(Error::InBags { path: manifest.path, task: card.task.clone() }),
        _ => {}
    }
    let assigned = manifest.assign_splits(card.provenance.seed, DEFAULT_FRACTIONS)?;
    if assigned != Assigned::Nothing && manifest.digest() != card.provenance.data_digest {
        return Err(Error::UnknownSplits { path: manifest.path, task: card.task.clone() });
    }
    let manifest = manifest.with_classes(&card.classes)?;
    Ok((if card.kind == TaskKind::Segmentation { manifest.with_mask_classes()? } else { manifest }, assigned))
}

/// The manifest at `path` read as what a plug-in answers, see [`manifest_for`]: numbers are looked for where `options` says, else in columns
/// that are called as the plug-in's, else in `label`. For a plug-in of bags, volumes that no column puts in bags are cut into their slices.
///
/// # Errors
/// As [`Manifest::read_with`].
pub fn read_for(card: &TaskCard, path: &Path, options: &ReadOptions) -> Result<Manifest, Error> {
    let manifest = read_labels_for(card, path, options)?;
    if card.bag.is_none() || manifest.has_bags() {
        return Ok(manifest);
    }
    // Volumes that no column puts in bags are bags themselves, cut as in the training.
    let cut = ReadOptions { bag_plane: Some(card.preprocess.rendering.plane), ..options.clone() };
    match read_labels_for(card, path, &cut) {
        Err(Error::Images(melo_data::Error::NoVolumes { .. })) => Ok(manifest),
        read => read,
    }
}

fn read_labels_for(card: &TaskCard, path: &Path, options: &ReadOptions) -> Result<Manifest, Error> {
    match card.kind {
        TaskKind::Segmentation => {
            let masks = ReadOptions { kind: Some(TaskKind::Segmentation), ..options.clone() };
            return Ok(Manifest::read_with(path, &masks)?);
        }
        TaskKind::Regression => {}
        _ => return Ok(Manifest::read_with(path, options)?),
    }
    let numbers = ReadOptions { kind: Some(TaskKind::Regression), ..options.clone() };
    let named = ReadOptions { label_columns: card.classes.clone(), ..numbers.clone() };
    if !options.label_columns.is_empty() {
        return Ok(Manifest::read_with(path, &numbers)?);
    }
    match Manifest::read_with(path, &named) {
        Err(melo_data::Error::NoColumn { .. }) if card.classes.len() == 1 => Ok(Manifest::read_with(path, &numbers)?),
        read => Ok(read?),
    }
}
