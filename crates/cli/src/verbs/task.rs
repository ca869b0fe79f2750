//! What training and evaluation share: a manifest's splits as data sets, every broken file listed first.

use crate::Failure;
use crate::progress::bar;
use melo_data::{Cache, Dataset, Manifest, Row, Split};
use melo_vit::Preprocess;
use std::path::Path;
use std::sync::Arc;

/// How many broken files are listed before the rest is counted.
const LISTED: usize = 20;

/// One split, decoded once: broken files end here, all together.
pub(crate) fn open_split(
    manifest: &Manifest,
    split: Split,
    preprocess: &Preprocess,
    cache: &Arc<Cache>,
) -> Result<Dataset, Failure> {
    let rows: Vec<Row> = manifest.split(split).into_iter().cloned().collect();
    if rows.is_empty() {
        let path = manifest.path.display();
        return Err(Failure::Message(format!("{path}: no image is in the {split} split")));
    }
    let dataset = Dataset::new(rows, preprocess.clone(), Arc::clone(cache));
    let bar = bar(dataset.len(), "read");
    bar.set_message(split.word());
    let unreadable = dataset.preload(&|done, _| bar.set_position(done as u64));
    bar.finish_and_clear();
    if unreadable.is_empty() {
        return Ok(dataset);
    }
    for broken in unreadable.iter().take(LISTED) {
        eprintln!("melo: line {}: {}", dataset.rows()[broken.row].line, broken.error);
    }
    if unreadable.len() > LISTED {
        eprintln!("melo: and {} more", unreadable.len() - LISTED);
    }
    Err(Failure::Message(format!(
        "{}: {} of {} images of the {split} split cannot be read; mend or remove these rows",
        manifest.path.display(),
        unreadable.len(),
        dataset.len()
    )))
}

/// The name of a task whose data lie in `data`: the folder's.
pub(crate) fn name_of(data: &Path) -> String {
    let absolute = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
    let folder = if absolute.is_dir() { Some(absolute.as_path()) } else { absolute.parent() };
    folder.and_then(Path::file_name).map_or_else(|| "task".to_owned(), |name| name.to_string_lossy().into_owned())
}
