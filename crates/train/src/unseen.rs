//! Which images of a manifest a plug-in has not seen.

use crate::error::Error;
use melo_data::{Assigned, DEFAULT_FRACTIONS, Manifest};
use melo_vit::{TaskCard, TaskKind};

/// The manifest with the splits that the plug-in's training saw, and the classes in its order.
///
/// Splits that are missing are assigned as the training assigned them, which is only right for the same data: anything
/// else without splits is refused.
///
/// # Errors
/// [`Error::OtherKind`], [`Error::UnknownSplits`]; [`Error::Images`] for classes that the plug-in has not.
pub fn manifest_for(card: &TaskCard, mut manifest: Manifest) -> Result<(Manifest, Assigned), Error> {
    if manifest.multi_label != (card.kind == TaskKind::MultiLabel) {
        return Err(Error::OtherKind { path: manifest.path, multi_label: manifest.multi_label });
    }
    let assigned = manifest.assign_splits(card.provenance.seed, DEFAULT_FRACTIONS)?;
    if assigned != Assigned::Nothing && manifest.digest() != card.provenance.data_digest {
        return Err(Error::UnknownSplits { path: manifest.path, task: card.task.clone() });
    }
    Ok((manifest.with_classes(&card.classes)?, assigned))
}
