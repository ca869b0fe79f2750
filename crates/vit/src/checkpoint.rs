//! Checkpoints: weights in memory as files hold them, with what they say of themselves.

use crate::config::{Pool, VitConfig};
use crate::digest::digest;
use crate::error::Error;
use crate::fields::parse_json;
use crate::head::Head;
use crate::invalid::Invalid;
use crate::model_description::ModelDescription;
use crate::preprocess::Preprocess;
use crate::tensor_file::{BACKBONE_KEY, CARD_KEY, Storage, TensorFile, TensorSource, read_all, require, write_tensors};
use crate::weights::Weights;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// A checkpoint in memory: what a file says, before it is packed for computing.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Name of the architecture, as the JSON or the file name gives it.
    pub name: String,
    /// Shape of the network.
    pub config: VitConfig,
    /// Preprocessing that the weights were trained with.
    pub preprocess: Preprocess,
    /// Parameters.
    pub weights: Weights,
    /// The weights' own classifier, where they have one.
    pub classifier: Option<Head>,
}

/// What a checkpoint says of itself, in its own metadata or beside its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// Name of the architecture.
    pub name: String,
    /// Shape of the network.
    pub config: VitConfig,
    /// Preprocessing that the weights were trained with.
    pub preprocess: Preprocess,
}

impl Description {
    /// Checks what it says against itself.
    ///
    /// # Errors
    /// [`Invalid`] for the first field that is wrong.
    pub fn check(&self) -> Result<(), Invalid> {
        self.config.check()?;
        self.preprocess.check()?;
        let size = self.preprocess.size;
        self.config.check_size(size).map_err(|error| Invalid::new("size", error.to_string()))
    }
}

impl Checkpoint {
    /// Reads timm safetensors with the JSON beside them (`<stem>.json` or `config.json`), or a file of our own.
    ///
    /// # Errors
    /// Every defect by its name, see [`Error`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let file = TensorFile::open(path)?;
        let description = describe(path, &file, &file.shapes()?)?;
        Checkpoint::from_tensors(&file, description)
    }

    /// Reads tensors of timm's names into the architecture that `description` tells.
    ///
    /// # Errors
    /// [`Error::UnexpectedTensor`], [`Error::MissingTensor`], [`Error::Shape`] before anything is allocated; then those of
    /// [`TensorSource::read`].
    pub fn from_tensors(source: &dyn TensorSource, description: Description) -> Result<Self, Error> {
        let Description { name, config, preprocess } = description;
        let shapes = source.shapes()?;
        let expected = config.tensor_shapes();
        refuse_unknown_tensors(source.path(), &shapes, &expected)?;
        require(source, &expected)?;
        let mut weights = Weights::zeros(&config);
        read_all(source, &expected, weights.tensors_mut())?;
        let classifier = read_classifier(source, &shapes, &config)?;
        Ok(Checkpoint { name, config, preprocess, weights, classifier })
    }

    /// The digest of the backbone that these weights make, see [`crate::BackboneInfo::digest`].
    pub fn digest(&self) -> String {
        digest(&self.config, &self.weights)
    }

    /// Rounds every weight to what a file of this storage would hold, and so gives it the digest of that file.
    pub fn round(&mut self, storage: Storage) {
        self.weights.tensors_mut().into_iter().flatten().for_each(|x| *x = storage.round(*x));
    }

    /// Writes a self-describing file, atomically.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, path: &Path, storage: Storage) -> Result<(), Error> {
        let description =
            Description { name: self.name.clone(), config: self.config.clone(), preprocess: self.preprocess.clone() };
        let json = serde_json::to_string(&description).expect("a description is plain data");
        let shapes = self.config.tensor_shapes();
        let tensors: Vec<_> =
            shapes.into_iter().zip(self.weights.tensors()).map(|((n, s), t)| (n, s, t.as_slice())).collect();
        write_tensors(path, &tensors, HashMap::from([(BACKBONE_KEY.to_owned(), json)]), storage)
    }
}

fn describe(path: &Path, file: &TensorFile, shapes: &BTreeMap<String, Vec<usize>>) -> Result<Description, Error> {
    let wrong_in = |path: &Path, reason: String| Error::Config { path: path.to_owned(), reason };
    let metadata = file.metadata()?;
    if metadata.contains_key(CARD_KEY) {
        return Err(wrong_in(path, "this is a plug-in, expected the weights of a backbone".into()));
    }
    if let Some(json) = metadata.get(BACKBONE_KEY) {
        let own = |reason: String| wrong_in(path, format!("{BACKBONE_KEY}: {reason}"));
        let description: Description = serde_json::from_str(json).map_err(|error| own(error.to_string()))?;
        description.check().map_err(|error| own(error.to_string()))?;
        return Ok(description);
    }
    let sidecars = [path.with_extension("json"), path.with_file_name("config.json")];
    let Some(sidecar) = sidecars.iter().find(|sidecar| sidecar.is_file()) else {
        let [sidecar, _] = sidecars;
        let expected = "timm's JSON with `architecture` and `pretrained_cfg` (mean, std, crop_pct, interpolation)";
        return Err(Error::NoDescription { path: path.to_owned(), sidecar, expected });
    };
    let wrong = |reason: String| wrong_in(sidecar, reason);
    let text = std::fs::read_to_string(sidecar).map_err(|source| Error::Io { path: sidecar.clone(), source })?;
    let json = parse_json(&text).map_err(|error| wrong(error.to_string()))?;
    let model = ModelDescription::new(json).map_err(|error| wrong(error.named()))?;
    model.describe(path, sidecar, shapes)
}

impl ModelDescription {
    /// Architecture and preprocessing of the weights whose tensors have these shapes; `sidecar` is the file that says this.
    ///
    /// # Errors
    /// [`Error::Config`] that names the weights, or the file that describes them.
    pub fn describe(
        self,
        weights: &Path,
        sidecar: &Path,
        shapes: &BTreeMap<String, Vec<usize>>,
    ) -> Result<Description, Error> {
        let wrong_in = |path: &Path, error: Invalid| Error::Config { path: path.to_owned(), reason: error.named() };
        let config = VitConfig::infer(shapes, &self).map_err(|error| wrong_in(weights, error))?;
        config.check().map_err(|error| wrong_in(weights, error))?;
        let head = shapes.get("head.weight");
        let rows = head.and_then(|shape| shape.first().copied());
        self.fits_classifier(head.is_some(), rows).map_err(|error| wrong_in(sidecar, error))?;
        let preprocess = self.preprocess(config.image_size).map_err(|error| wrong_in(sidecar, error))?;
        let stem = || weights.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        let name = if self.architecture.is_empty() { stem() } else { self.architecture };
        let description = Description { name, config, preprocess };
        description.check().map_err(|error| wrong_in(sidecar, error))?;
        Ok(description)
    }
}

/// Tensors of the classifier, which is not part of the frozen backbone.
const CLASSIFIER: [&str; 4] = ["head.weight", "head.bias", "head_dist.weight", "head_dist.bias"];

fn refuse_unknown_tensors(
    path: &Path,
    shapes: &BTreeMap<String, Vec<usize>>,
    expected: &[(String, Vec<usize>)],
) -> Result<(), Error> {
    let known = |name: &str| CLASSIFIER.contains(&name) || expected.iter().any(|(expected, _)| expected == name);
    match shapes.keys().find(|name| !known(name)) {
        None => Ok(()),
        Some(name) => {
            let hint = match name.rsplit('.').nth(1) {
                Some("ls1" | "ls2") => "layer scale must be in every block, on both branches",
                Some("q_norm" | "k_norm") => "query and key normalisation must be in every block",
                _ if name.starts_with("attn_pool.") => "attention pooling goes with `global_pool` `map`",
                Some("attn") if name.contains("rel_pos") => {
                    "relative positions, as Segment Anything's, are not supported"
                }
                _ => "no part of a plain ViT has this name",
            };
            Err(Error::UnexpectedTensor { path: path.to_owned(), name: name.clone(), hint: hint.to_owned() })
        }
    }
}

/// The weights' own classifier on the feature of [`VitConfig::feature_width`].
///
/// A distilled model averages two classifiers, one a token: side by side, each halved, they are one.
fn read_classifier(
    source: &dyn TensorSource,
    shapes: &BTreeMap<String, Vec<usize>>,
    config: &VitConfig,
) -> Result<Option<Head>, Error> {
    let Some(shape) = shapes.get("head.weight") else {
        return Ok(None);
    };
    let classes = shape.first().copied().unwrap_or(0);
    let d = config.width;
    let two = config.pool == Pool::Token && config.distilled;
    let width = if two { d } else { config.feature_width() };
    let read = |name: &str| -> Result<Head, Error> {
        Ok(Head {
            weight: source.read(&format!("{name}.weight"), &[classes, width])?,
            bias: source.read(&format!("{name}.bias"), &[classes])?,
            decoder: None,
        })
    };
    let head = read("head")?;
    if !two {
        return Ok(Some(head));
    }
    let dist = read("head_dist")?;
    Ok(Some(Head::side_by_side(&head, &dist, 0.5)))
}
