//! How a manifest's images are laid out in shards.

use melo_vit::Preprocess;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What determines every shard's bytes, but for the images' own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Layout {
    /// [`Manifest::digest`](crate::Manifest::digest) of the source.
    pub(super) manifest_digest: String,
    /// [`fit_of`](super::fit_of) what was asked for.
    pub(super) preprocess: Preprocess,
    /// Bits a sample.
    pub(super) depth: u8,
    /// Images of the manifest, unreadable ones too.
    pub(super) images: usize,
    /// Of every shard but the last.
    pub(super) images_per_shard: usize,
}

impl Layout {
    /// SHA-256 of its JSON: stands in every shard, so that one of another pack is not taken for it.
    pub(super) fn key(&self) -> [u8; 32] {
        Sha256::digest(serde_json::to_vec(self).unwrap_or_default()).into()
    }

    /// Number of shards.
    pub(super) fn shards(&self) -> usize {
        self.images.div_ceil(self.images_per_shard)
    }

    /// Images of shard `shard`.
    pub(super) fn images_of(&self, shard: usize) -> std::ops::Range<usize> {
        let first = shard * self.images_per_shard;
        first..self.images.min(first + self.images_per_shard)
    }
}
