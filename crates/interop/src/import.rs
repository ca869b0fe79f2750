//! From adapters of others to a plug-in.

use crate::error::Error;
use crate::peft;
use crate::updates::assemble;
use crate::{authors, classifier};
use melo_vit::{
    BackboneInfo, BottleneckConfig, Engine, Head, Plugin, PluginInfo, Provenance, Storage, TaskCard, TaskKind,
    TensorFile,
};
use std::path::Path;

/// Whose files they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdapterFormat {
    /// A folder of PEFT's.
    Peft,
    /// A file of the paper's authors, or of UniCAD's.
    Authors,
}

/// What files of others do not say.
#[derive(Clone, Debug, Default)]
pub struct ImportSettings<'a> {
    /// Whose files they are; told by their content where it is not said.
    pub format: Option<AdapterFormat>,
    /// Name of the task; not needed with a card.
    pub task: Option<&'a str>,
    /// Class names in the order of the classifier's rows; not needed with a card.
    pub classes: Option<&'a [String]>,
    /// Any number of findings an image, instead of one class; a card says it itself.
    pub multi_label: bool,
    /// A card, as JSON; `melo_card.json` in a PEFT folder is found without.
    pub card: Option<&'a Path>,
    /// A classifier, where the adapter has none.
    pub head: Option<&'a Path>,
    /// Numerator of the scale; files of the authors do not say it.
    pub alpha: Option<f32>,
}

/// A plug-in made from files of others.
#[derive(Debug)]
pub struct Imported {
    /// The plug-in, with its self-test; not written yet.
    pub plugin: Plugin,
    /// A sentence for everything that is held in another way than in the files.
    pub notes: Vec<String>,
}

/// Tells whose files these are.
///
/// # Errors
/// [`Error::UnknownFormat`], [`melo_vit::Error`] for files that cannot be read.
pub fn detect_format(path: &Path) -> Result<AdapterFormat, Error> {
    let unknown = |found: String| Err(Error::UnknownFormat { path: path.to_owned(), found });
    if path.is_dir() {
        return match path.join(peft::CONFIG).exists() {
            true => Ok(AdapterFormat::Peft),
            false => unknown(format!("a folder without {}", peft::CONFIG)),
        };
    }
    let shapes = TensorFile::open(path)?.shapes()?;
    if authors::is_one(&shapes) {
        return Ok(AdapterFormat::Authors);
    }
    if PluginInfo::read(path).is_ok() {
        return unknown("a plug-in of melo, which needs no import".to_owned());
    }
    match shapes.keys().next() {
        Some(name) => unknown(format!("{} tensors, first `{name}`", shapes.len())),
        None => unknown("no tensor".to_owned()),
    }
}

/// Reads an adapter of others for the backbone of an engine, which takes the self-test.
///
/// # Errors
/// Every setting and tensor that a plug-in cannot carry, every one that is missing, and what the user has to say, by its name.
pub fn import(path: &Path, engine: &dyn Engine, settings: &ImportSettings<'_>) -> Result<Imported, Error> {
    let backbone = engine.backbone();
    let vit = backbone.config();
    let format = settings.format.map_or_else(|| detect_format(path), Ok)?;
    let beside = if format == AdapterFormat::Peft { peft::card_path(path) } else { None };
    let card = settings.card.or(beside.as_deref()).map(|card| read_card(card, backbone)).transpose()?;
    let (updates, rslora, head, mut notes) = match format {
        AdapterFormat::Peft => {
            if settings.alpha.is_some() {
                let what = format!("{} says alpha; it cannot be given", peft::CONFIG);
                return Err(Error::Contradicted { path: path.to_owned(), what });
            }
            let mut read = peft::read(path, card.as_ref(), vit)?;
            if let Some(base) = read.base_model.filter(|base| card.is_none() && !is_same_model(base, backbone.name())) {
                let name = backbone.name();
                read.notes
                    .push(format!("{} says it was made for `{base}`, and the backbone is `{name}`", peft::CONFIG));
            }
            (read.updates, read.rslora, read.head, read.notes)
        }
        AdapterFormat::Authors => {
            let alpha = settings.alpha.or(card.as_ref().map(|card| card.lora.alpha)).ok_or_else(|| Error::Unsaid {
                path: path.to_owned(),
                setting: "alpha",
                what: "the file does not say the alpha that it was trained with".to_owned(),
            })?;
            if !(alpha.is_normal() && alpha > 0.0) {
                return Err(melo_vit::Error::Lora(format!("alpha is {alpha}, expected a positive number")).into());
            }
            let (updates, head) = authors::read(path, alpha, vit)?;
            let rslora = settings.alpha.is_none() && card.as_ref().is_some_and(|card| card.lora.rslora);
            (updates, rslora, head, Vec::new())
        }
    };
    let head = match (head, settings.head) {
        (Some(_), Some(given)) => return Err(Error::TwoHeads { path: path.to_owned(), given: given.to_owned() }),
        (Some(head), None) => head,
        (None, Some(given)) => classifier::read_file(given, vit)?,
        (None, None) => return Err(Error::NoHead { path: path.to_owned() }),
    };
    let (adapter, more) = assemble(path, &updates, rslora, vit)?;
    notes.extend(more);
    let card = match card {
        Some(card) => agree(path, card, settings, &head)?,
        None => new_card(path, backbone, settings, &head)?,
    };
    notes.extend(card.calibrations.iter().map(|left| {
        format!(
            "the card's calibration for {} is left out: its self-test is of the plug-in that was exported",
            left.made()
        )
    }));
    notes.extend(card.scope.iter().map(|_| {
        "the card's scope is left out: what describes the training images is in no file of others".to_owned()
    }));
    let card = TaskCard {
        scope: None,
        scope_limits: None,
        lora: adapter.config.clone(),
        bottleneck: BottleneckConfig::none(),
        self_test: None,
        calibrations: Vec::new(),
        ..card
    };
    card.check().map_err(|error| Error::Card { path: path.to_owned(), reason: error.reason })?;
    let mut plugin = Plugin::new(card, adapter, head);
    plugin.finish(engine, Storage::F32)?;
    Ok(Imported { plugin, notes })
}

/// True for two names of one model: owner, training recipe and spelling aside.
fn is_same_model(a: &str, b: &str) -> bool {
    let bare = |name: &str| {
        let last = name.trim_end_matches(['/', '\\']).rsplit(['/', '\\', ':']).next().unwrap_or(name).to_lowercase();
        last.split(['.', '@']).next().unwrap_or(&last).replace('-', "_")
    };
    bare(a) == bare(b)
}

/// A card of this backbone.
fn read_card(path: &Path, backbone: &BackboneInfo) -> Result<TaskCard, Error> {
    let wrong = |reason: String| Error::Card { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path)
        .map_err(|source| Error::File(melo_vit::Error::Io { path: path.to_owned(), source }))?;
    let card: TaskCard = serde_json::from_str(&text).map_err(|error| wrong(format!("not a card: {error}")))?;
    card.check().map_err(|error| wrong(error.reason))?;
    backbone.check_size(card.preprocess.size).map_err(|error| wrong(error.to_string()))?;
    if card.bottleneck.width > 0 {
        return Err(wrong("the card's bottlenecks are in no file of others".to_owned()));
    }
    if card.backbone.digest != backbone.digest() {
        return Err(wrong(format!(
            "this card belongs to backbone {} (digest {}), but {} (digest {}) is loaded",
            card.backbone.name,
            card.backbone.digest.chars().take(12).collect::<String>(),
            backbone.name(),
            backbone.digest().chars().take(12).collect::<String>(),
        )));
    }
    Ok(card)
}

/// A card that does not contradict what else was said.
fn agree(path: &Path, card: TaskCard, settings: &ImportSettings<'_>, head: &Head) -> Result<TaskCard, Error> {
    if card.classes.len() != head.rows() {
        return Err(Error::Classes { path: path.to_owned(), expected: head.rows(), found: card.classes.len() });
    }
    if settings.classes.is_some_and(|classes| classes != card.classes) {
        let what = format!("other classes are named than in the card, which has {}", card.classes.join(", "));
        return Err(Error::Contradicted { path: path.to_owned(), what });
    }
    if settings.multi_label && card.kind != TaskKind::MultiLabel {
        let what = "said to be multi-label, but the card says one class an image".to_owned();
        return Err(Error::Contradicted { path: path.to_owned(), what });
    }
    let task = settings.task.map_or(card.task.clone(), str::to_owned);
    Ok(TaskCard { task, ..card })
}

fn new_card(
    path: &Path,
    backbone: &BackboneInfo,
    settings: &ImportSettings<'_>,
    head: &Head,
) -> Result<TaskCard, Error> {
    let unsaid = |setting, what: String| Error::Unsaid { path: path.to_owned(), setting, what };
    let task = settings.task.ok_or_else(|| unsaid("task", "no card says the task's name".to_owned()))?;
    let unnamed = || format!("no card names the {} classes, in the order of the classifier's rows", head.rows());
    let classes = settings.classes.ok_or_else(|| unsaid("classes", unnamed()))?;
    if classes.len() != head.rows() {
        return Err(Error::Classes { path: path.to_owned(), expected: head.rows(), found: classes.len() });
    }
    let kind = if settings.multi_label { TaskKind::MultiLabel } else { TaskKind::SingleLabel };
    let card =
        TaskCard::new(task.to_owned(), kind, classes.to_vec(), backbone.preprocess().clone(), backbone.reference());
    let file = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let software = format!("melo {} (imported from {file})", env!("CARGO_PKG_VERSION"));
    Ok(TaskCard { provenance: Provenance { software, ..Provenance::default() }, ..card })
}

#[cfg(test)]
mod tests {
    use super::is_same_model;

    #[test]
    fn a_model_is_the_same_by_any_of_its_names() {
        for (a, b) in [
            ("google/vit-base-patch16-224", "vit_base_patch16_224.augreg_in21k"),
            ("timm/vit_tiny_patch16_224.augreg", "vit_tiny_patch16_224"),
            ("/models/dinov2-small/", "dinov2-small"),
        ] {
            assert!(is_same_model(a, b), "{a} {b}");
        }
        assert!(!is_same_model("google/vit-base-patch16-224", "vit_small_patch16_224"));
        assert!(!is_same_model("facebook/dinov2-small", "facebook/dinov2-base"));
    }
}
