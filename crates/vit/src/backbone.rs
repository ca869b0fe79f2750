//! The frozen backbone: what it is, told apart by its digest. What computes with it is an [`crate::Engine`].

use crate::card::BackboneReference;
use crate::checkpoint::{Checkpoint, Description};
use crate::config::VitConfig;
use crate::error::Error;
use crate::head::Head;
use crate::image::ImageSource;
use crate::preprocess::Preprocess;
use crate::weights::Weights;
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
    /// What was kept of weights that had this digest.
    pub(crate) fn kept(
        name: String,
        config: VitConfig,
        preprocess: Preprocess,
        classifier: Option<Head>,
        digest: String,
    ) -> Self {
        BackboneInfo { name, config, preprocess, classifier, digest }
    }

    /// What its checkpoint says of itself.
    pub(crate) fn description(&self) -> Description {
        let (name, config, preprocess) = (self.name.clone(), self.config.clone(), self.preprocess.clone());
        Description { name, config, preprocess }
    }

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

    /// Checks that an engine can compute what a source gives for images of side `size`.
    ///
    /// # Errors
    /// [`Error::ImageSize`], [`Error::ImageWork`]; [`Error::Volume`] for embedded patches that its positions do not fit.
    pub fn check_source(&self, source: &dyn ImageSource, size: usize) -> Result<(), Error> {
        match source.layers() {
            None => self.config.check_size(size),
            Some(layers) => self.config.check_volume(size, layers),
        }
    }

    /// The same architecture with weights in training: without digest and classifier.
    pub fn in_training(&self) -> Self {
        BackboneInfo { classifier: None, digest: String::new(), ..self.clone() }
    }
}

impl Checkpoint {
    /// The weights as they will stay; from here on they have a digest.
    pub fn freeze(self) -> Backbone {
        let digest = self.digest();
        let Checkpoint { name, config, preprocess, weights, classifier } = self;
        Backbone { info: BackboneInfo { name, config, preprocess, classifier, digest }, weights }
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

    /// What it is.
    pub fn info(&self) -> &BackboneInfo {
        &self.info
    }

    /// Its weights.
    pub fn weights(&self) -> &Weights {
        &self.weights
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
