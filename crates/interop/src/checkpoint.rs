//! Any file or folder of weights to a [`Checkpoint`]: what it is goes by its content, its architecture by the JSON beside it.

use crate::aliased::Aliased;
use crate::hub::{WEIGHTS, locate};
use crate::huggingface::{ModelConfig, read_json};
use crate::names::{Dialect, OPEN_CLIP, TIMM};
use crate::npz::{NpzFile, transpose};
use crate::open_clip;
use crate::renamed::{Classifier, Renamed};
use crate::sharded::Sharded;
use crate::torch_file::TorchFile;
use crate::unwrapped::Unwrapped;
use melo_vit::{
    Backbone, Checkpoint, Description, Error, Head, Invalid, ModelDescription, Pool, TensorFile, TensorSource,
    VitConfig,
};
use serde_json::{Value, json};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Extensions of weights, for a folder with a single file of them under another name.
const EXTENSIONS: [&str; 5] = ["safetensors", "pth", "pt", "bin", "npz"];

/// What a file of weights does not say, or says more than once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadSettings {
    /// Which set of weights, where a file holds several: its key (`state_dict_ema`, `teacher`), or what its names begin with.
    pub weights_key: Option<String>,
    /// The pixel statistics of timm-named or OpenAI-named weights that nothing describes.
    pub statistics: Option<Statistics>,
    /// What heads are to read of the tokens, in place of what the weights' description says: the authors of some encoders take another
    /// feature than their own file gives.
    pub pool: Option<Pool>,
}

/// A checkpoint, and what was decided while it was read.
#[derive(Debug)]
pub struct ReadCheckpoint {
    /// The weights and what they are.
    pub checkpoint: Checkpoint,
    /// A sentence for every choice that the file left open: which of several sets of weights, what was left aside.
    pub notes: Vec<String>,
}

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
    Ok(read_checkpoint_with(path, &ReadSettings::default())?.checkpoint)
}

/// As [`read_checkpoint`], with what the file does not say, and what was decided.
///
/// # Errors
/// As [`read_checkpoint`]; [`Error::Described`] where statistics are given for weights that have a description,
/// [`Error::WeightsKey`] for a set of weights that the file does not hold.
pub fn read_checkpoint_with(path: &Path, settings: &ReadSettings) -> Result<ReadCheckpoint, Error> {
    let weights = weights_in(&locate(path)?)?;
    let mut described = None;
    if let Some(statistics) = settings.statistics {
        if let Some(sidecar) = sidecar(&weights) {
            return Err(Error::Described { path: sidecar, weights });
        }
        described = Some(json!({ "pretrained_cfg": statistics.pretrained_cfg() }));
    }
    let pool = settings.pool;
    let mut reader = Reader { key: settings.weights_key.as_deref(), pool, described, notes: Vec::new() };
    let checkpoint = reader.read(&weights)?;
    Ok(ReadCheckpoint { checkpoint, notes: reader.notes })
}

/// What a file is read with, and what is found to be said of it.
struct Reader<'a> {
    key: Option<&'a str>,
    /// A feature in place of the described one.
    pool: Option<Pool>,
    /// A description in place of the file beside the weights.
    described: Option<Value>,
    notes: Vec<String>,
}

impl Reader<'_> {
    fn read(&mut self, weights: &Path) -> Result<Checkpoint, Error> {
        let io = |source| Error::Io { path: weights.to_owned(), source };
        let mut start = Vec::new();
        std::fs::File::open(weights).map_err(io)?.take(4).read_to_end(&mut start).map_err(io)?;
        if weights.to_string_lossy().ends_with(".index.json") {
            return self.read_named(&Sharded::open(weights)?);
        }
        match start[..] {
            [b'P', b'K', 3, 4] if is_npz(weights) => self.read_npz(weights),
            [b'P', b'K', 3, 4] => self.read_torch(weights),
            [0x80, 2..=5, ..] => Err(Error::Damaged {
                path: weights.to_owned(),
                format: "PyTorch checkpoint",
                reason: "written in the format before PyTorch 1.6; load it there and `torch.save` it again".into(),
            }),
            _ => {
                let file = TensorFile::open(weights)?;
                let metadata = file.metadata()?;
                if metadata.contains_key("melo.state") {
                    let reason = "is the state of a training; what it came to is `best.safetensors` beside it";
                    return Err(Error::Config { path: weights.to_owned(), reason: reason.to_owned() });
                }
                match metadata.contains_key("melo.backbone") || metadata.contains_key("melo.card") {
                    true => {
                        self.refuse_key(weights)?;
                        self.refuse_pool(weights)?;
                        Checkpoint::read(weights)
                    }
                    false => self.read_named(&file),
                }
            }
        }
    }

    /// Refuses a key for a format that holds one set of weights.
    fn refuse_key(&self, path: &Path) -> Result<(), Error> {
        let Some(key) = self.key else { return Ok(()) };
        let reason = format!("no weights under `{key}`");
        Err(Error::WeightsKey { path: path.to_owned(), reason, found: Vec::new() })
    }

    /// Refuses another feature for a file that says itself which one it is of.
    fn refuse_pool(&self, path: &Path) -> Result<(), Error> {
        match self.pool {
            None => Ok(()),
            Some(_) => {
                let reason = "says itself what heads read of it, and no other feature can be taken";
                Err(Error::Config { path: path.to_owned(), reason: reason.to_owned() })
            }
        }
    }

    /// The set of weights under the key that was named, or under the one that counts first.
    fn read_torch(&mut self, weights: &Path) -> Result<Checkpoint, Error> {
        // A key may also be what names begin with within the one set that there is.
        let opened = match TorchFile::open(weights, self.key) {
            Err(unknown @ Error::WeightsKey { .. }) if self.key.is_some() => {
                let read = self.read_named(&TorchFile::open(weights, None)?);
                return read.map_err(|error| if matches!(error, Error::WeightsKey { .. }) { unknown } else { error });
            }
            opened => {
                self.key = None;
                opened?
            }
        };
        if !opened.others.is_empty() {
            let (key, others) = (opened.key.join("."), quoted(&opened.others));
            self.notes.push(format!("the weights under `{key}` are taken; the file also holds {others}"));
        }
        self.read_named(&opened)
    }

    /// Tensors of any dialect, told apart by the JSON beside them and by their names.
    fn read_named(&mut self, source: &dyn TensorSource) -> Result<Checkpoint, Error> {
        let path = source.path();
        let (sidecar, json, is_bare) = match (self.described.take(), sidecar(path)) {
            (Some(json), _) => (path.to_owned(), json, true),
            (None, Some(sidecar)) => (sidecar.clone(), read_json(&sidecar)?, false),
            (None, None) => {
                let expected = "of Hugging Face, or timm's with `architecture` and `pretrained_cfg` (mean, std, crop_pct, \
                                interpolation)";
                let sidecar = path.with_extension("json");
                return Err(Error::NoDescription { path: path.to_owned(), sidecar, expected });
            }
        };
        let wrong = |error: Invalid| Error::Config { path: sidecar.clone(), reason: error.named() };
        if json.get("model_type").is_some() {
            let model = ModelConfig::new(json).map_err(wrong)?;
            let source = self.unwrap(source, model.dialect())?;
            let (mut renamed, classifier) = Renamed::new(&source, model.dialect())?;
            let classifies = classifier.head.values().any(|(name, _)| name.contains("classifier"));
            let rows = classifier.head.get("head.weight").and_then(|(_, shape)| shape.first().copied());
            if let (Some(rows), Some((field, classes))) = (rows, model.classes(!classifies).map_err(wrong)?)
                && rows != classes
            {
                let reason = format!("`{field}` says {classes}, and the weights' classifier has {rows} rows");
                return Err(wrong(Invalid::new("json", reason)));
            }
            let mut description = model.describe(&sidecar, &renamed.shapes()?, classifies)?;
            let mut head = self.read_classifier(&classifier, &source, &description.config)?;
            if self.repool(&sidecar, &mut description)? {
                head = None;
            }
            if !description.config.norm {
                renamed.forget("norm");
            }
            if description.config.pool != Pool::Map {
                renamed.forget("attn_pool");
            }
            if let Some(problem) = model.other_problem().filter(|_| head.is_some()) {
                self.notes
                    .push(format!("its classifier is left out: `problem_type` is `{problem}`, no choice of one class"));
                head = None;
            }
            return Ok(Checkpoint { classifier: head, ..Checkpoint::from_tensors(&renamed, description)? });
        }
        let is_open_clip = |name: &String| name == "class_embedding" || name.ends_with(".class_embedding");
        let dialect = if source.shapes()?.keys().any(is_open_clip) { &OPEN_CLIP } else { &TIMM };
        let source = self.unwrap(source, dialect)?;
        let (mut renamed, classifier) = Renamed::new(&source, dialect)?;
        let json = open_clip::description(json).map_err(wrong)?;
        let model = ModelDescription::new(json).map_err(wrong)?;
        let shapes = source.shapes()?;
        let periods = shapes.iter().find(|(name, _)| dialect.strip(name) == "rope_embed.periods");
        let model = match periods.and_then(|(_, shape)| shape.first()) {
            Some(&periods) => model.with_dinov3_periods(periods),
            None => model,
        };
        let model = if is_bare { model.with_usual_heads() } else { model };
        let rows = classifier.head.get("head.weight").filter(|(name, _)| !name.ends_with("proj"));
        let rows = rows.and_then(|(_, shape)| shape.first().copied());
        model.fits_classifier(!classifier.head.is_empty(), rows).map_err(wrong)?;
        let mut description = model.describe(path, &sidecar, &renamed.shapes()?)?;
        let mut head = self.read_classifier(&classifier, &source, &description.config)?;
        if self.repool(&sidecar, &mut description)? {
            head = None;
            if description.config.pool != Pool::Map {
                renamed.forget("attn_pool");
            }
        }
        Ok(Checkpoint { classifier: head, ..Checkpoint::from_tensors(&renamed, description)? })
    }

    /// The tensors without what a training framework put in front of their names.
    fn unwrap<'s>(&mut self, source: &'s dyn TensorSource, dialect: &Dialect) -> Result<Aliased<'s>, Error> {
        let Unwrapped { tensors, prefix, others, outside } = Unwrapped::new(source, dialect, self.key)?;
        if !others.is_empty() {
            let others = quoted(&others);
            self.notes
                .push(format!("the weights whose names begin with `{prefix}` are taken; others begin with {others}"));
        } else if !outside.is_empty() {
            let (count, some) = (outside.len(), quoted(&outside));
            self.notes.push(format!("{count} tensors whose names do not begin with `{prefix}` are left aside: {some}"));
        }
        Ok(tensors)
    }

    /// Puts the feature that was asked for in place of the described one; true where that is another, which no classifier here reads.
    fn repool(&mut self, described: &Path, description: &mut Description) -> Result<bool, Error> {
        let config = &mut description.config;
        let Some(pool) = self.pool.filter(|pool| *pool != config.pool) else { return Ok(false) };
        config.pool = pool;
        let wrong = |error: Invalid| Error::Config { path: described.to_owned(), reason: error.named() };
        config.check().map_err(wrong)?;
        self.notes.push("another feature is taken than the description says: its classifier is left out".to_owned());
        Ok(true)
    }

    fn read_classifier(
        &mut self,
        classifier: &Classifier,
        source: &dyn TensorSource,
        config: &VitConfig,
    ) -> Result<Option<Head>, Error> {
        let head = classifier.read(source, config)?;
        let biasless = classifier.head.iter().find(|(timm, (name, _))| {
            let bias = timm.replace(".weight", ".bias");
            // A projection into a common space with texts has none.
            !name.ends_with("proj") && !name.contains("projection") && !classifier.head.contains_key(&bias)
        });
        if let Some((_, (name, _))) = biasless {
            self.notes.push(format!("the classifier `{name}` has no bias: zeros are taken"));
        }
        Ok(head)
    }

    /// Google's archives describe nothing; all of them were trained on pixels in [-1, 1], and timm evaluates them as here.
    fn read_npz(&mut self, path: &Path) -> Result<Checkpoint, Error> {
        self.refuse_key(path)?;
        self.refuse_pool(path)?;
        let file = NpzFile::open(path)?;
        let (json_path, mut json) = match (self.described.take(), sidecar(path)) {
            (Some(json), _) => (path.to_owned(), json),
            (None, Some(sidecar)) => (sidecar.clone(), read_json(&sidecar)?),
            (None, None) => (path.to_owned(), json!({ "pretrained_cfg": Statistics::Inception.pretrained_cfg() })),
        };
        let wrong = |error: Invalid| Error::Config { path: json_path.clone(), reason: error.named() };
        if !json.is_object() {
            return Err(wrong(Invalid::new("json", "is no JSON object")));
        }
        json["model_args"]["num_heads"] = file.heads.into();
        let model = ModelDescription::new(json).map_err(wrong)?;
        let description = model.describe(path, &json_path, &file.shapes()?)?;
        Checkpoint::from_tensors(&file, description)
    }
}

/// Some names in quotes.
fn quoted(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let some: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    some.join(", ") + if names.len() > SHOWN { ", …" } else { "" }
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
            Ok(Some(Head { weight, bias, decoder: None }))
        };
        let Some(head) = read("head")? else {
            return match self.head.get("head.bias") {
                Some((bias, _)) => {
                    let name = bias.replace(".bias", ".weight");
                    Err(Error::MissingTensor { path: source.path().to_owned(), name })
                }
                None => Ok(None),
            };
        };
        if !two_tokens(config) {
            return Ok(Some(head));
        }
        let (dist, share) = match read("head_dist")? {
            Some(dist) => (dist, 0.5),
            None => (Head::zeros(head.rows(), config.width), 1.0),
        };
        Ok(Some(Head::side_by_side(&head, &dist, share)))
    }
}

/// True where the feature is that of class and distillation token.
fn two_tokens(config: &VitConfig) -> bool {
    config.distilled && config.feature_width() == 2 * config.width
}
