//! Which activations of a network are taken as features of an image.

use crate::config::VitConfig;
use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What of a block's tokens is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FeatureKind {
    /// The class token, `[d]`.
    Class,
    /// The mean of the patch tokens, `[d]`; without class, distillation and register tokens.
    Mean,
    /// The patch tokens, rows of the grid from the top, `[g, g, d]`.
    Grid,
    /// What heads read, `[feature width]`: pooled as the network pools, with every norm (timm's `forward_head(…, pre_logits=True)`).
    Pooled,
}

impl FeatureKind {
    /// Its name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            FeatureKind::Class => "class",
            FeatureKind::Mean => "mean",
            FeatureKind::Grid => "grid",
            FeatureKind::Pooled => "pooled",
        }
    }
}

impl fmt::Display for FeatureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Features of an image: the tokens that a block gives, and what is taken of them.
///
/// With `norm` they are those of timm's `forward_intermediates(indices=[block], norm=True)`, after the last block those of
/// `forward_features`; without it those of `norm=False`. A network without a final norm over tokens (`fc_norm`) has the same either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features {
    /// What of the tokens.
    pub kind: FeatureKind,
    /// The block, from 0, whose output is taken.
    pub block: usize,
    /// The final norm is applied to each token; `Pooled` always has it.
    pub norm: bool,
}

impl Features {
    /// Of the last block, with the final norm.
    pub fn new(kind: FeatureKind, config: &VitConfig) -> Self {
        Features { kind, block: config.depth.saturating_sub(1), norm: true }
    }

    /// What heads read of this network.
    pub fn pooled(config: &VitConfig) -> Self {
        Features::new(FeatureKind::Pooled, config)
    }

    /// Checks that this network has them.
    ///
    /// # Errors
    /// [`Error::Features`].
    pub fn check(&self, config: &VitConfig) -> Result<(), Error> {
        let wrong = |reason: String| Err(Error::Features(reason));
        let Features { kind, block, norm } = *self;
        if block >= config.depth {
            let last = config.depth.saturating_sub(1);
            return wrong(format!("block {block} of a backbone whose blocks are 0 to {last}"));
        }
        if kind == FeatureKind::Class && config.class_tokens() == 0 {
            return wrong("the class token of a backbone that has none: mean, grid and pooled are there".into());
        }
        if kind == FeatureKind::Pooled && !norm {
            return wrong("what heads read has its norms; only class, mean and grid can be without".into());
        }
        Ok(())
    }

    /// Shape of one image's features: `[d]`, `[g, g, d]` with `g = size / patch`, or `[feature width]`.
    pub fn shape(&self, config: &VitConfig, size: usize) -> Vec<usize> {
        let grid = size / config.patch;
        match self.kind {
            FeatureKind::Class | FeatureKind::Mean => vec![config.width],
            FeatureKind::Grid => vec![grid, grid, config.width],
            FeatureKind::Pooled => vec![config.feature_width()],
        }
    }
}
