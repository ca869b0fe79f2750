//! The frozen backbone: what it is, told apart by its digest. What computes with it is an [`crate::Engine`].

use crate::card::BackboneReference;
use crate::checkpoint::Checkpoint;
use crate::config::VitConfig;
use crate::error::Error;
use crate::head::Head;
use crate::preprocess::Preprocess;
use crate::weights::Weights;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::path::Path;

/// What a backbone is, without its weights: all that a plug-in has to be checked against.
///
/// Made from weights alone, so that the digest is always theirs.
#[derive(Clone, Debug)]
pub struct BackboneInfo {
    name: String,
    config: VitConfig,
    preprocess: Preprocess,
    classifier: Option<Head>,
    digest: String,
}

/// A frozen Vision Transformer, not yet on a device: its description, and weights that no longer change.
#[derive(Debug)]
pub struct Backbone {
    info: BackboneInfo,
    weights: Weights,
}

impl BackboneInfo {
    /// Name of the architecture.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Shape of the network.
    pub fn config(&self) -> &VitConfig {
        &self.config
    }

    /// Preprocessing that the weights were trained with.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// The weights' own classifier, where they have one.
    pub fn classifier(&self) -> Option<&Head> {
        self.classifier.as_ref()
    }

    /// SHA-256 (hex) of everything that determines this backbone's features: architecture and every parameter. Empty for
    /// weights in training, which change with every step.
    ///
    /// The same weights in another file, in another order, or without their classifier have the same digest.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What a card says of this backbone.
    pub fn reference(&self) -> BackboneReference {
        BackboneReference { digest: self.digest.clone(), name: self.name.clone() }
    }

    /// Checks that images of side `size` can be tiled by patches.
    ///
    /// # Errors
    /// [`Error::ImageSize`].
    pub fn check_size(&self, size: usize) -> Result<(), Error> {
        self.config.check_size(size)
    }

    /// The same architecture with weights in training: without digest and classifier.
    pub fn in_training(&self) -> Self {
        BackboneInfo { classifier: None, digest: String::new(), ..self.clone() }
    }
}

impl Backbone {
    /// Reads, checks and digests a checkpoint file.
    ///
    /// # Errors
    /// As [`Checkpoint::read`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        Ok(Checkpoint::read(path)?.freeze())
    }

    pub(crate) fn freeze(checkpoint: Checkpoint) -> Self {
        let digest = checkpoint.digest();
        let Checkpoint { name, config, preprocess, weights, classifier } = checkpoint;
        Backbone { info: BackboneInfo { name, config, preprocess, classifier, digest }, weights }
    }

    /// What it is.
    pub fn info(&self) -> &BackboneInfo {
        &self.info
    }

    /// Description and weights, for an engine to take over.
    pub fn into_parts(self) -> (BackboneInfo, Weights) {
        (self.info, self.weights)
    }

    /// Weights that may be changed again.
    pub fn thaw(self) -> Checkpoint {
        let BackboneInfo { name, config, preprocess, classifier, .. } = self.info;
        Checkpoint { name, config, preprocess, weights: self.weights, classifier }
    }
}

/// SHA-256 over the configuration's JSON, then `name`, NUL and the SHA-256 of the little-endian f32 values of every tensor
/// in the order of [`VitConfig::tensor_shapes`].
pub(crate) fn digest(config: &VitConfig, weights: &Weights) -> String {
    let hashes: Vec<[u8; 32]> = weights
        .tensors()
        .into_par_iter()
        .map(|values| {
            let mut hash = Sha256::new();
            let mut bytes = Vec::with_capacity(4 * 4096);
            for chunk in values.chunks(4096) {
                bytes.clear();
                bytes.extend(chunk.iter().flat_map(|x| x.to_le_bytes()));
                hash.update(&bytes);
            }
            hash.finalize().into()
        })
        .collect();
    let mut hash = Sha256::new();
    hash.update(serde_json::to_vec(config).expect("a configuration is plain data"));
    for ((name, _), tensor) in config.tensor_shapes().iter().zip(hashes) {
        hash.update(name.as_bytes());
        hash.update([0]);
        hash.update(tensor);
    }
    hex(&hash.finalize())
}

/// Lower-case hexadecimal digits, as digests are written.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
