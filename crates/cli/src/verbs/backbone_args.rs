//! `--backbone`, the same in every verb.

use crate::{Failure, machine};
use melo::interop::ReadSettings;
use melo::vit::{Backbone, Engine, Precision};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The weights that a verb works on.
#[derive(clap::Args)]
pub(crate) struct BackboneArgs {
    /// Weights: a file, its folder, or a model on the hub (hf:OWNER/NAME, timm/NAME); `melo backbone info --help` lists the formats
    #[arg(long = "backbone", value_name = "FILE|DIR|HUB")]
    pub(crate) path: PathBuf,
    /// Which of several sets of weights in the file: a key such as state_dict_ema or teacher, or what its names begin with
    #[arg(long, value_name = "KEY")]
    pub(crate) weights_key: Option<String>,
}

impl BackboneArgs {
    /// Reads the weights; what was decided on the way is said.
    pub(crate) fn read(&self) -> Result<Backbone, Failure> {
        Ok(machine::read_checkpoint(&self.path, &self.settings())?.freeze())
    }

    /// The backbone, ready to compute.
    pub(crate) fn engine(&self, precision: Option<Precision>) -> Result<Arc<dyn Engine>, Failure> {
        Ok(machine::load_engine_with(&self.path, &self.settings(), precision)?)
    }

    fn settings(&self) -> ReadSettings {
        ReadSettings { weights_key: self.weights_key.clone(), ..ReadSettings::default() }
    }

    /// The weights' path, for outputs that must not replace it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}
