//! What the data of a task look like before any training.

use melo_data::{Manifest, examine};

use crate::shortcut::{SHORTCUT_AUC, shortcut};
use crate::{Audit, AuditSplit};

/// Decodes every image of a manifest with splits once, and gathers what would spoil the results.
///
/// Rows without a split are left out of the counts. Each problem and warning of [`melo_data::check`] is one sentence,
/// with line and name where it is about an image; one more says so if the [`shortcut`] baseline reaches
/// [`SHORTCUT_AUC`]. `progress(done, of)` is called from the threads of the ambient `rayon` pool, once an image.
pub fn audit(manifest: &Manifest, progress: &(dyn Fn(usize, usize) + Sync)) -> Audit {
    let (report, appearances) = examine(manifest, progress);
    let shortcut = shortcut(manifest, &appearances);
    let of_split = |count: &melo_data::SplitCount| {
        count.split.map(|split| AuditSplit {
            split: split.word().to_owned(),
            images: count.images,
            patients: report.patients.map(|_| count.patients),
            images_of: count.images_of.clone(),
        })
    };
    let problems = report.problems.iter().map(ToString::to_string);
    let warnings = report.warnings.iter().map(ToString::to_string);
    let alarm = shortcut.auc.filter(|&auc| auc >= SHORTCUT_AUC).map(|auc| {
        format!(
            "size, brightness and colour alone, without looking at what an image shows, reach a test AUC of {auc:.2}: \
             a model may learn how images were made, not what they show, and must clearly beat this figure"
        )
    });
    Audit {
        splits: report.splits.iter().filter_map(of_split).collect(),
        warnings: problems.chain(warnings).chain(alarm).collect(),
        shortcut_auc: shortcut.auc,
        shortcut_features: shortcut.features,
    }
}
