//! What a file of features says of itself.

use crate::embedder::Embedder;
use melo_vit::{BackboneReference, FeatureKind, Precision, Preprocess, Storage};
use serde::{Deserialize, Serialize};

/// Whose numbers these are. Written as JSON: beside an `.npy`, in the header of a safetensors file and the footer of a Parquet file
/// under the key `melo.embed`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// `melo-embed-1`.
    pub format: String,
    /// `melo` with its version.
    pub software: String,
    /// What was taken of a block's tokens.
    pub what: FeatureKind,
    /// The block, from 0.
    pub block: usize,
    /// Whether the final norm was applied.
    pub norm: bool,
    /// Shape of one image's features.
    pub shape: Vec<usize>,
    /// `f32` or `f16`.
    pub dtype: String,
    /// The frozen backbone.
    pub backbone: BackboneReference,
    /// SHA-256 of the plug-in's file.
    pub plugin_digest: Option<String>,
    /// Its task.
    pub task: Option<String>,
    /// From pixels to input.
    pub preprocess: Preprocess,
    /// Kind of engine.
    pub engine: String,
    /// Numbers in the backbone's matrix products.
    pub precision: Precision,
    /// Images of the list.
    pub images: usize,
    /// Rows of the file.
    pub rows: usize,
    /// Images that could not be read.
    pub failed: usize,
}

/// An image that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Its place in the list, from 0.
    pub row: usize,
    /// What it is called.
    pub path: String,
    /// Why; names the file.
    pub reason: String,
}

/// A storage's name.
pub(crate) fn dtype(storage: Storage) -> &'static str {
    match storage {
        Storage::F32 => "f32",
        Storage::F16 => "f16",
    }
}

impl About {
    pub(crate) fn new(embedder: &Embedder, storage: Storage, images: usize) -> Self {
        let (features, info) = (embedder.features(), embedder.engine().info());
        let plugin = embedder.plugin();
        About {
            format: "melo-embed-1".to_owned(),
            software: format!("melo {}", env!("CARGO_PKG_VERSION")),
            what: features.kind,
            block: features.block,
            norm: features.norm,
            shape: embedder.shape(),
            dtype: dtype(storage).to_owned(),
            backbone: embedder.engine().backbone().reference(),
            plugin_digest: plugin.map(|plugin| plugin.digest.clone()),
            task: plugin.map(|plugin| plugin.card.task.clone()),
            preprocess: embedder.preprocess().clone(),
            engine: info.engine.to_owned(),
            precision: info.precision,
            images,
            rows: 0,
            failed: 0,
        }
    }

    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).expect("plain data")
    }
}
