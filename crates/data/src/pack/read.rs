//! A pack read as the manifest that it was made from.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use melo_imaging::Pixels;
use melo_vit::Preprocess;

use super::index::{self, Index, Plan};
use super::shard::{Expected, Shard};
use super::{PackError, describe, fit_of, shard_file};
use crate::{Error, Labels, Manifest, Row};

/// An open pack. Shards are mapped, and their checksums compared, when an image of theirs is first asked for.
#[derive(Debug)]
pub struct Pack {
    path: PathBuf,
    plan: Plan,
    key: [u8; 32],
    /// Checksum that each shard must have.
    checksums: Vec<String>,
    shards: Vec<OnceLock<Result<Shard, PackError>>>,
}

/// An image in a pack.
#[derive(Clone, Debug)]
pub struct Packed {
    pack: Arc<Pack>,
    image: usize,
}

impl PartialEq for Packed {
    fn eq(&self, other: &Self) -> bool {
        self.image == other.image && self.pack.path == other.pack.path && self.pack.key == other.pack.key
    }
}

impl Eq for Packed {}

impl Pack {
    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses a preprocessing whose resized images are not those that were packed.
    ///
    /// # Errors
    /// [`PackError::Preprocess`].
    pub fn check(&self, spec: &Preprocess) -> Result<(), PackError> {
        let asked = fit_of(spec);
        if asked == self.plan.preprocess {
            return Ok(());
        }
        let (packed, asked) = (describe(&self.plan.preprocess), describe(&asked));
        Err(PackError::Preprocess { path: self.path.clone(), packed, asked })
    }

    fn pixels(&self, image: usize) -> Result<(Pixels, usize), PackError> {
        let per = self.plan.images_per_shard;
        let number = image / per;
        let shard = self.shards[number].get_or_init(|| {
            let path = self.path.join(shard_file(number));
            let expected = Expected { number, images: self.plan.images_of(number).len(), key: self.key };
            let shard = Shard::open(&path, expected)?;
            if shard.checksum() == self.checksums[number] {
                Ok(shard)
            } else {
                Err(PackError::Shard { path, reason: "its checksum is not the one of the index".to_owned() })
            }
        });
        shard.as_ref().map_err(Clone::clone)?.pixels(image % per)
    }
}

impl Packed {
    /// The pack that it lies in.
    pub fn pack(&self) -> &Pack {
        &self.pack
    }

    /// What [`melo_imaging::fit`] gave for `spec`.
    ///
    /// # Errors
    /// [`PackError::Preprocess`] if the pack was made for another; [`PackError::Shard`] for a damaged shard.
    pub fn fitted(&self, spec: &Preprocess) -> Result<Pixels, PackError> {
        self.pack.check(spec)?;
        Ok(self.pack.pixels(self.image)?.0)
    }

    /// The image as it lies here, and the number of bytes that it takes.
    pub(crate) fn as_stored(&self) -> Result<(Pixels, usize), PackError> {
        self.pack.pixels(self.image)
    }
}

/// True if `folder` is a pack, finished or not.
pub(crate) fn is_pack(folder: &Path) -> bool {
    folder.join(index::FILE).is_file() || folder.join(shard_file(0)).is_file()
}

/// The manifest that was packed into `folder`.
///
/// # Errors
/// [`PackError::Unfinished`], [`PackError::Index`]; [`PackError::Stale`] if the manifest is still there but says
/// something else by now.
pub(crate) fn manifest(folder: &Path) -> Result<Manifest, Error> {
    if !folder.join(index::FILE).is_file() {
        return Err(PackError::Unfinished { path: folder.into() }.into());
    }
    let Index { plan, source, source_is_folder, multi_label, classes, shards, rows } = Index::read(folder)?;
    let source = folder.join(source);
    refuse_stale(folder, &source, &plan)?;
    let root = if source_is_folder { source.as_path() } else { source.parent().unwrap_or(folder) }.to_owned();
    let pack = Arc::new(Pack {
        path: folder.into(),
        key: plan.key(),
        plan,
        shards: shards.iter().map(|_| OnceLock::new()).collect(),
        checksums: shards.into_iter().map(|shard| shard.sha256).collect(),
    });
    let row = |row: index::RowRecord| Row {
        path: root.join(&row.name),
        name: row.name,
        split: row.split,
        labels: match (multi_label, row.shows.first()) {
            (false, Some(&class)) => Labels::Single(class),
            _ => Labels::Multi((0..classes.len()).map(|class| u8::from(row.shows.contains(&class))).collect()),
        },
        patient_id: row.patient_id,
        line: row.line,
        packed: Some(Packed { pack: Arc::clone(&pack), image: row.image }),
    };
    let rows = rows.into_iter().map(row).collect();
    Ok(Manifest { path: folder.into(), classes, multi_label, rows })
}

fn refuse_stale(folder: &Path, source: &Path, plan: &Plan) -> Result<(), Error> {
    if !source.exists() {
        return Ok(());
    }
    let reason = match Manifest::read(source) {
        Ok(manifest) if manifest.digest() == plan.manifest_digest => return Ok(()),
        Ok(manifest) => format!("digest {}, packed {}", manifest.digest(), plan.manifest_digest),
        Err(error) => error.to_string(),
    };
    Err(PackError::Stale { path: folder.into(), manifest: source.into(), reason }.into())
}
