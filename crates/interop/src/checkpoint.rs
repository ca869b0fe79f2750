//! Any file or folder of weights to a [`Checkpoint`]: what it is goes by its content, its architecture by the JSON beside it.

use crate::hub::{WEIGHTS, locate};
use crate::huggingface::{ModelConfig, read_json};
use crate::names::{OPEN_CLIP, TIMM};
use crate::npz::{NpzFile, transpose};
use crate::renamed::{Classifier, Renamed};
use crate::sharded::Sharded;
use crate::torch_file::TorchFile;
use melo_vit::{Backbone, Checkpoint, Error, Head, ModelDescription, TensorFile, TensorSource, VitConfig};
use serde_json::{Value, json};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Extensions of weights, for a folder with a single file of them under another name.
const EXTENSIONS: [&str; 5] = ["safetensors", "pth", "pt", "bin", "npz"];

/// Reads and digests any checkpoint, see [`read_checkpoint`].
///
/// # Errors
/// As [`read_checkpoint`].
pub fn read_backbone(path: &Path) -> Result<Backbone, Error> {
    Ok(read_checkpoint(path)?.freeze())
}

/// Reads a checkpoint of timm, Hugging Face, PyTorch or Google: safetensors, alone or in shards with their index, a zip archive
/// of `torch.save`, a NumPy archive, a folder with one of these and its `config.json`, or a model on the hub ([`locate`]).
///
/// # Errors
/// Every defect by its name, see [`Error`].
pub fn read_checkpoint(path: &Path) -> Result<Checkpoint, Error> {
    read_with(&weights_in(&locate(path)?)?, None)
}

/// Reads a file of weights, described by timm's JSON in `described` or by the file beside it.
fn read_with(weights: &Path, described: Option<Value>) -> Result<Checkpoint, Error> {
    let io = |source| Error::Io { path: weights.to_owned(), source };
    let mut start = Vec::new();
    std::fs::File::open(weights).map_err(io)?.take(4).read_to_end(&mut start).map_err(io)?;
    if weights.to_string_lossy().ends_with(".index.json") {
        return read_named(&Sharded::open(weights)?, described);
    }
    match start[..] {
        [b'P', b'K', 3, 4] if is_npz(weights) => read_npz(weights, described),
        [b'P', b'K', 3, 4] => read_named(&TorchFile::open(weights)?, described),
        [0x80, 2..=5, ..] => Err(Error::Damaged {
            path: weights.to_owned(),
            format: "PyTorch checkpoint",
            reason: "written in the format before PyTorch 1.6; load it there and `torch.save` it again".into(),
        }),
        _ => {
            let file = TensorFile::open(weights)?;
            let metadata = file.metadata()?;
            match metadata.contains_key("melo.backbone") || metadata.contains_key("melo.card") {
                true => Checkpoint::read(weights),
                false => read_named(&file, described),
            }
        }
    }
}

/// Pixel statistics by the names under which timm keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistics {
    /// torchvision's, of ImageNet: DeiT, DINO, DINOv2, MAE.
    Imagenet,
    /// 0.5 and 0.5: Google's ViTs.
    Inception,
    /// OpenAI's and open_clip's.
    Clip,
}

impl Statistics {
    /// timm's `pretrained_cfg` of a model with these statistics.
    fn pretrained_cfg(self) -> Value {
        let (mean, std, crop_pct) = match self {
            Statistics::Imagenet => ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], 0.875),
            Statistics::Inception => ([0.5; 3], [0.5; 3], 0.9),
            Statistics::Clip => ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711], 1.0),
        };
        json!({ "interpolation": "bicubic", "crop_pct": crop_pct, "mean": mean, "std": std })
    }
}

/// As [`read_checkpoint`], of timm-named or OpenAI-named weights that nothing describes but their pixel statistics.
///
/// # Errors
/// As [`read_checkpoint`], and [`Error::Described`] where the weights do have a description.
pub fn read_bare_checkpoint(path: &Path, statistics: Statistics) -> Result<Checkpoint, Error> {
    let weights = weights_in(path)?;
    if let Some(sidecar) = sidecar(&weights) {
        return Err(Error::Described { path: sidecar, weights });
    }
    let description = json!({ "pretrained_cfg": statistics.pretrained_cfg() });
    read_with(&weights, Some(description))
}

/// The weights that a path stands for.
pub(crate) fn weights_in(path: &Path) -> Result<PathBuf, Error> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    if let Some(known) = WEIGHTS.iter().map(|name| path.join(name)).find(|file| file.is_file()) {
        return Ok(known);
    }
    let entries = std::fs::read_dir(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let is_weights = |file: &PathBuf| {
        let extension = file.extension().and_then(|extension| extension.to_str());
        extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
    };
    let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_weights).collect();
    match (found.pop(), found.is_empty()) {
        (Some(only), true) => Ok(only),
        (some, _) => Err(Error::Config {
            path: path.to_owned(),
            reason: match some {
                Some(_) => "a folder with several files of weights: name one of them".to_owned(),
                None => format!("a folder without weights, expected {}", WEIGHTS.join(", ")),
            },
        }),
    }
}

fn is_npz(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npz"))
}

/// The JSON that describes a file of weights: `<stem>.json`, else `config.json` or `open_clip_config.json` in its folder.
pub(crate) fn sidecar(weights: &Path) -> Option<PathBuf> {
    let beside = ["config.json", "open_clip_config.json"].map(|name| weights.with_file_name(name));
    let named = [weights.with_extension("json")].into_iter().filter(|json| json != weights);
    named.chain(beside).find(|json| json.is_file())
}

/// Tensors of any dialect, told apart by the JSON beside them and by their names.
fn read_named(source: &dyn TensorSource, described: Option<Value>) -> Result<Checkpoint, Error> {
    let path = source.path();
    let (sidecar, json) = match (described, sidecar(path)) {
        (Some(json), _) => (path.to_owned(), json),
        (None, Some(sidecar)) => (sidecar.clone(), read_json(&sidecar)?),
        (None, None) => {
            let expected = "of Hugging Face, or timm's with `architecture` and `pretrained_cfg` (mean, std, crop_pct, \
                            interpolation)";
            let sidecar = path.with_extension("json");
            return Err(Error::NoDescription { path: path.to_owned(), sidecar, expected });
        }
    };
    let wrong = |reason: String| Error::Config { path: sidecar.clone(), reason };
    if json.get("model_type").is_some() {
        let model: ModelConfig = serde_json::from_value(json).map_err(|error| wrong(error.to_string()))?;
        let dialect = model.dialect().map_err(wrong)?;
        let (mut renamed, classifier) = Renamed::new(source, dialect)?;
        let classifies = classifier.head.values().any(|(name, _)| name.contains("classifier"));
        let description = model.describe(&sidecar, &renamed.shapes()?, classifies)?;
        if !description.config.norm {
            renamed.forget("norm");
        }
        let head = classifier.read(source, &description.config)?;
        return Ok(Checkpoint { classifier: head, ..Checkpoint::from_tensors(&renamed, description)? });
    }
    let open_clip = source.shapes()?.keys().any(|name| name.starts_with("visual.") || name == "class_embedding");
    let dialect = if open_clip { &OPEN_CLIP } else { &TIMM };
    let (renamed, classifier) = Renamed::new(source, dialect)?;
    let model: ModelDescription = serde_json::from_value(json).map_err(|error| wrong(error.to_string()))?;
    let description = model.describe(path, &sidecar, &renamed.shapes()?)?;
    let head = classifier.read(source, &description.config)?;
    Ok(Checkpoint { classifier: head, ..Checkpoint::from_tensors(&renamed, description)? })
}

/// Google's archives describe nothing; all of them were trained on pixels in [-1, 1], and timm evaluates them as here.
fn read_npz(path: &Path, described: Option<Value>) -> Result<Checkpoint, Error> {
    let file = NpzFile::open(path)?;
    let (json_path, mut json) = match (described, sidecar(path)) {
        (Some(json), _) => (path.to_owned(), json),
        (None, Some(sidecar)) => (sidecar.clone(), read_json(&sidecar)?),
        (None, None) => (path.to_owned(), json!({ "pretrained_cfg": Statistics::Inception.pretrained_cfg() })),
    };
    if !json.is_object() {
        return Err(Error::Config { path: json_path, reason: "is no JSON object".into() });
    }
    json["model_args"]["num_heads"] = file.heads.into();
    let wrong = |error: serde_json::Error| Error::Config { path: json_path.clone(), reason: error.to_string() };
    let model: ModelDescription = serde_json::from_value(json).map_err(wrong)?;
    let description = model.describe(path, &json_path, &file.shapes()?)?;
    Checkpoint::from_tensors(&file, description)
}

impl Classifier {
    /// The classifier as a head on the backbone's feature; none where there is none or it reads another feature.
    ///
    /// A distilled model averages two classifiers, one a token; one on the class token alone has zeros for the other.
    fn read(&self, source: &dyn TensorSource, config: &VitConfig) -> Result<Option<Head>, Error> {
        let read = |name: &str| -> Result<Option<Head>, Error> {
            let Some((file_name, shape)) = self.head.get(&format!("{name}.weight")) else {
                return Ok(None);
            };
            let width = config.feature_width() / if two_tokens(config) { 2 } else { 1 };
            // OpenAI's projection is multiplied from the right.
            let transposed = file_name.ends_with("proj");
            let classes = if transposed { shape.last() } else { shape.first() }.copied().unwrap_or(0);
            let expected = if transposed { [width, classes] } else { [classes, width] };
            let bias = match self.head.get(&format!("{name}.bias")) {
                Some((bias, _)) => source.read(bias, &[classes])?,
                None => vec![0.0; classes],
            };
            let mut weight = source.read(file_name, &expected)?;
            if transposed {
                weight = transpose(&weight, width, classes);
            }
            Ok(Some(Head { weight, bias }))
        };
        let Some(head) = read("head")? else {
            return Ok(None);
        };
        if !two_tokens(config) {
            return Ok(Some(head));
        }
        let (dist, share) = match read("head_dist")? {
            Some(dist) => (dist, 0.5),
            None => (Head::zeros(head.classes(), config.width), 1.0),
        };
        Ok(Some(Head::side_by_side(&head, &dist, share)))
    }
}

/// True where the feature is that of class and distillation token.
fn two_tokens(config: &VitConfig) -> bool {
    config.distilled && config.feature_width() == 2 * config.width
}
