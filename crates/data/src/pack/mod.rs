//! Decoded and resized images of a manifest in a few large files, so that a training decodes none.
//!
//! A pack is a folder: `pack.index` says what the manifest said, and `00000.shard`, `00001.shard`, … hold pixels, exactly
//! those that [`melo_imaging::fit`] gives for one [`Preprocess`]. `docs/pack-format.md` gives every byte.

mod error;
mod folder;
mod index;
mod layout;
mod open;
mod read;
mod shard;
mod write;

use melo_vit::Preprocess;

pub use error::PackError;
pub use open::{Pack, Packed};
pub use write::{LeftUnread, PackOptions, PackReport, pack};

pub(crate) use read::{PackSource, is_pack};

/// Version of the format.
const VERSION: u32 = 1;

/// The part of `spec` that [`melo_imaging::fit`], and decoding before it, depend on; the rest at fixed values.
pub(crate) fn fit_of(spec: &Preprocess) -> Preprocess {
    Preprocess { size: spec.resize_side(), crop_pct: 1.0, mean: [0.0; 3], std: [1.0; 3], ..spec.clone() }
}

/// A fit for messages: its fields as JSON, without those at fixed values.
fn describe(fit: &Preprocess) -> String {
    let mut fields = serde_json::to_value(fit).unwrap_or_default();
    if let Some(fields) = fields.as_object_mut() {
        ["crop_pct", "mean", "std"].into_iter().for_each(|fixed| drop(fields.remove(fixed)));
    }
    fields.to_string()
}

/// The file of shard `index`.
fn shard_file(index: usize) -> String {
    format!("{index:05}.shard")
}
