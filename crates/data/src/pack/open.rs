//! An open pack, and an image in it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use melo_imaging::Pixels;
use melo_vit::Preprocess;

use super::layout::Layout;
use super::shard::{Expected, Shard};
use super::{PackError, describe, fit_of, shard_file};

/// An open pack. Shards are mapped, and their checksums compared, when an image of theirs is first asked for.
#[derive(Debug)]
pub struct Pack {
    path: PathBuf,
    layout: Layout,
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
    /// The pack in `path`, of shards with `checksums`.
    pub(super) fn new(path: PathBuf, layout: Layout, checksums: Vec<String>) -> Self {
        let shards = checksums.iter().map(|_| OnceLock::new()).collect();
        Self { path, key: layout.key(), layout, checksums, shards }
    }

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
        if asked == self.layout.preprocess {
            return Ok(());
        }
        let (packed, asked) = (describe(&self.layout.preprocess), describe(&asked));
        Err(PackError::Preprocess { path: self.path.clone(), packed, asked })
    }

    fn pixels(&self, image: usize) -> Result<(Pixels, usize), PackError> {
        let per = self.layout.images_per_shard;
        let number = image / per;
        let shard = self.shards[number].get_or_init(|| {
            let path = self.path.join(shard_file(number));
            let expected = Expected { number, images: self.layout.images_of(number).len(), key: self.key };
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
    pub(super) fn new(pack: Arc<Pack>, image: usize) -> Self {
        Self { pack, image }
    }

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
