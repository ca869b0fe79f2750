//! Packing: decoded in parallel, written a shard at a time.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use melo_imaging::Pixels;
use melo_vit::{Preprocess, TaskKind, write_atomically};
use rayon::prelude::*;
use serde::Serialize;

use super::folder::prepare;
use super::index::{Index, RowRecord, ShardRecord};
use super::layout::Layout;
use super::shard::{self, Expected, Shard};
use super::{PackError, fit_of, is_pack, shard_file};
use crate::cache::read_fitted;
use crate::relative::way_between;
use crate::{Error, Labels, Manifest, Row};

/// Bytes of colour pixels that a shard should hold: large enough to be read in one go, small enough to lose.
const SHARD_BYTES: usize = 1 << 26;
const MAX_PER_SHARD: usize = 1024;

/// How [`pack`] treats what it meets.
#[derive(Clone, Copy, Debug)]
pub struct PackOptions {
    /// Bits a sample; 8 is what decoding gives.
    pub depth: u8,
    /// Replace a pack of another manifest or preprocessing.
    pub overwrite: bool,
    /// Finish without the images that cannot be read, instead of waiting for them to be mended.
    pub leave_out_unreadable: bool,
}

/// What [`pack`] did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PackReport {
    /// Images in the pack.
    pub images: usize,
    /// Shards that hold them.
    pub shards: usize,
    /// Of these, shards that an earlier run had finished.
    pub reused_shards: usize,
    /// Bytes of all shards.
    pub bytes: u64,
    /// Images that cannot be read, in order of name.
    pub unreadable: Vec<LeftUnread>,
    /// True if the pack can be used: false where images are unreadable and must not be left out.
    pub finished: bool,
}

/// An image that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftUnread {
    /// Its name in the manifest.
    pub name: String,
    /// Its line there; 0 in a directory.
    pub line: usize,
    /// Why.
    pub reason: String,
}

/// Decodes and resizes every image of `manifest` as `spec` says, on the ambient `rayon` pool, into the pack `folder`.
///
/// Shards that are there already, whole and of the same manifest and preprocessing, are kept, unless an image of theirs
/// could not be read. Each is written atomically: a kill loses the shards in flight, two at most. The index comes last;
/// without it the pack is not finished. Images that change under the same name are not noticed.
/// `progress(done, of)` is called from the pool's threads, once an image.
///
/// # Errors
/// [`Error::Pack`] for a folder with anything but the same pack in it, a depth of other than 8, a manifest that is a pack;
/// [`Error::Write`] from the disk. Images that cannot be read are in the report.
pub fn pack(
    manifest: &Manifest,
    spec: &Preprocess,
    folder: &Path,
    options: PackOptions,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<PackReport, Error> {
    if manifest.has_masks() {
        return Err(PackError::Masks { manifest: manifest.path.clone() }.into());
    }
    if manifest.has_bags() {
        return Err(PackError::Bags { manifest: manifest.path.clone() }.into());
    }
    let layout = layout(manifest, spec, options.depth)?;
    prepare(folder, &layout, manifest, options.overwrite)?;
    // By name: the order of the manifest's lines is not in its digest, so it must not be in the shards.
    let mut order: Vec<&Row> = manifest.rows.iter().collect();
    order.sort_by(|a, b| a.name.cmp(&b.name));
    let done = AtomicUsize::new(0);
    let advance = |images: usize| progress(done.fetch_add(images, Ordering::Relaxed) + images, layout.images);

    let mut unreadable = Vec::new();
    let mut reused_shards = 0;
    let mut in_flight: Option<(usize, Vec<Option<Pixels>>)> = None;
    for number in 0..layout.shards() {
        let path = folder.join(shard_file(number));
        if Shard::open(&path, Expected::of(&layout, number)).is_ok_and(|shard| shard.unread().next().is_none()) {
            reused_shards += 1;
            advance(layout.images_of(number).len());
            continue;
        }
        let rows = &order[layout.images_of(number)];
        let read = || -> Vec<Result<Pixels, Error>> {
            let read = |row: &&Row| {
                read_fitted(&row.path, spec).map_err(Error::from).inspect(|_| advance(1)).inspect_err(|_| advance(1))
            };
            rows.par_iter().with_max_len(1).map(read).collect()
        };
        // The shard before is written while this one is decoded.
        let ready = in_flight.take();
        let (images, written) = rayon::join(read, || write_shard(&layout, folder, ready));
        written?;
        let keep = |(image, row): (Result<Pixels, Error>, &&Row)| {
            let unread =
                |error: Error| LeftUnread { name: row.name.clone(), line: row.line, reason: error.to_string() };
            image.map_err(|error| unreadable.push(unread(error))).ok()
        };
        in_flight = Some((number, images.into_iter().zip(rows).map(keep).collect()));
    }
    write_shard(&layout, folder, in_flight)?;

    let finished = unreadable.is_empty() || options.leave_out_unreadable;
    let (shards, bytes) = finish(&layout, manifest, &order, folder, finished)?;
    Ok(PackReport { images: layout.images - unreadable.len(), shards, reused_shards, bytes, unreadable, finished })
}

/// Which images come into which shard.
fn layout(manifest: &Manifest, spec: &Preprocess, depth: u8) -> Result<Layout, PackError> {
    if manifest.rows.iter().any(|row| row.packed.is_some()) {
        return Err(PackError::SourceIsPack { path: manifest.path.clone() });
    }
    spec.check().map_err(|error| PackError::Settings { reason: error.reason })?;
    if depth != 8 {
        let reason = format!("depth {depth}: images are decoded to 8 bits a sample, and packed so; use 8");
        return Err(PackError::Settings { reason });
    }
    let preprocess = fit_of(spec);
    let side = preprocess.resize_side();
    Ok(Layout {
        manifest_digest: manifest.digest(),
        images_per_shard: (SHARD_BYTES / (3 * side * side)).clamp(1, MAX_PER_SHARD),
        preprocess,
        depth,
        images: manifest.rows.len(),
    })
}

fn write_shard(layout: &Layout, folder: &Path, shard: Option<(usize, Vec<Option<Pixels>>)>) -> Result<(), Error> {
    let Some((number, images)) = shard else { return Ok(()) };
    let bytes = shard::encode(&images, number, layout.key());
    Ok(write_atomically(&folder.join(shard_file(number)), &bytes)?)
}

/// Reads every shard again and writes the index, if the pack is finished; gives the number of shards and their bytes.
fn finish(
    layout: &Layout,
    manifest: &Manifest,
    order: &[&Row],
    folder: &Path,
    finished: bool,
) -> Result<(usize, u64), Error> {
    let open = |number| Shard::open(&folder.join(shard_file(number)), Expected::of(layout, number));
    let shards: Vec<Shard> = (0..layout.shards()).into_par_iter().map(open).collect::<Result<_, _>>()?;
    let bytes = shards.iter().map(Shard::file_bytes).sum();
    if !finished {
        return Ok((shards.len(), bytes));
    }
    let mut image_of: std::collections::HashMap<&str, usize> =
        order.iter().map(|row| row.name.as_str()).zip(0..).collect();
    for (number, shard) in shards.iter().enumerate() {
        for place in shard.unread() {
            image_of.remove(order[number * layout.images_per_shard + place].name.as_str());
        }
    }
    let record = |row: &Row| {
        Some(RowRecord {
            image: *image_of.get(row.name.as_str())?,
            name: row.name.clone(),
            split: row.split,
            patient_id: row.patient_id.clone(),
            line: row.line,
            shows: match &row.labels {
                Labels::Single(class) => vec![*class],
                Labels::Values(_) => Vec::new(),
                Labels::Multi(_) => (0..manifest.classes.len()).filter(|&class| row.labels.has(class)).collect(),
            },
            values: match &row.labels {
                Labels::Values(values) => values.clone(),
                _ => Vec::new(),
            },
        })
    };
    let way = way_between(folder, manifest.path.parent().unwrap_or(Path::new("")));
    let file = manifest.path.file_name().unwrap_or_default().to_string_lossy();
    let source_is_folder = manifest.path.is_dir();
    let index = Index {
        layout: layout.clone(),
        source: if source_is_folder { way_between(folder, &manifest.path) } else { format!("{way}{file}") },
        source_is_folder,
        multi_label: manifest.kind == TaskKind::MultiLabel,
        kind: Some(manifest.kind).filter(|kind| matches!(kind, TaskKind::Ordinal | TaskKind::Regression)),
        classes: manifest.classes.clone(),
        reading: manifest.reading.options.clone(),
        shards: (shards.iter().zip(0..))
            .map(|(shard, number)| ShardRecord { images: layout.images_of(number).len(), sha256: shard.checksum() })
            .collect(),
        rows: manifest.rows.iter().filter_map(record).collect(),
    };
    index.write(folder)?;
    debug_assert!(is_pack(folder));
    Ok((shards.len(), bytes))
}
