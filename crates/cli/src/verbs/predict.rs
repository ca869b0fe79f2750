//! `melo predict`: any number of plug-ins on any number of images, through one backbone.

mod bags;
mod heatmaps;
mod masks;
mod names;

use super::images::{Frames, expand, named};
use super::task::{PrecisionArg, remark};
use crate::progress::Counter;
use crate::verbs::backbone_args::BackboneArgs;
use crate::{Failure, note, say, say_json};
use heatmaps::{Heatmap, Heatmaps};
use masks::{MaskFile, Masks};
use melo::imaging::{Place, Tally};
use melo::predict::{Prediction, Predictor, Prepared, prepare_files};
use melo::vit::rendering::Layout;
use melo::vit::{
    BoundPlugin, ComputedOn, Decision, EngineInfo, FindingSet, InScope, NamedSet, Plugin, Precision, PredictionSet,
    SetMembers, TaskCard, TaskKind,
};
use serde::{Serialize, Serializer};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Images decoded and computed together: enough to keep all cores busy, few enough to show results soon.
const CHUNK: usize = 32;
/// Best classes that are listed.
const TOP: usize = 5;

/// Classify images with plug-ins, or with the backbone's own classifier
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    melo predict --backbone vit.safetensors --plugin wbc.safetensors smear.png\n  \
    melo predict --backbone vit.safetensors --plugin cxr.safetensors --plugin tb.safetensors films/ --json\n  \
    melo predict --backbone deit_tiny_patch16_224.safetensors photo.jpg        (its own 1000 classes)\n  \
    melo predict --backbone vit.safetensors --plugin hf:lab/chest-film@v2 film.dcm   (fetched once; oci://HOST/REPOSITORY:TAG too)\n  \
    melo predict --backbone vit.safetensors --plugin oct.safetensors scans/ --heatmap maps/\n  \
    melo predict --backbone vit.safetensors --plugin polyp.safetensors frames/ --masks masks/\n\n\
    A heat map shows which parts of an image an answer rests on, not where a disease is. Colours run from none over \
    blue and green to yellow, the most relevant place of each image; what the crop cut off is darkened.\n\n\
    A plug-in that was trained on bags answers once for each folder, for each volume or file of several frames, and for \
    all other images together, and names the images that counted most. One that was trained on volumes (`--volumes`) \
    answers once for each NIfTI file or array.\n\n\
    A plug-in that makes prediction sets also says which answers may be true with the coverage that it promises, such as \
    `90 % set: eosinophil, neutrophil` (docs/conformal.md).\n\n\
    An ensemble of folds (`melo train --folds`) also says how far its members are apart: `neutrophil 0.912 ± 0.034`, the standard \
    deviation of their probabilities.\n\n\
    An image that cannot be read is named on standard error, the others are answered, and the exit status is 1.")]
pub(crate) struct Args {
    #[command(flatten)]
    backbone: BackboneArgs,
    /// Plug-in; may be given several times [default: the backbone's own classifier]
    #[arg(long)]
    pub(crate) plugin: Vec<PathBuf>,
    /// Images, or folders: every image in them, told by content, also in the folders inside
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// Print one JSON object for every image and task
    #[arg(long)]
    json: bool,
    /// Frame of a multi-frame DICOM, page of a TIFF: first, middle, a number from 1, or all of them [default: the plug-in's]
    #[arg(long, value_name = "N|all")]
    frame: Option<Frames>,
    /// Axes of an array whose shape leaves them open: hw, hwc, chw (channels first), nhw (grey images) [default: the plug-in's]
    #[arg(long)]
    layout: Option<Layout>,
    #[command(flatten)]
    heatmaps: heatmaps::HeatmapArgs,
    #[command(flatten)]
    masks: masks::MaskArgs,
    /// Numbers that go into the backbone's matrix products
    #[arg(long, value_enum, default_value_t = PrecisionArg::F32)]
    precision: PrecisionArg,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let predictor = Predictor::new(args.backbone.engine(args.precision.into())?);
    let plugins = load_plugins(args, &predictor)?;
    if plugins.iter().any(|plugin| plugin.bag.is_some()) {
        return bags::run(args, &predictor, &plugins);
    }
    if plugins.iter().any(|plugin| plugin.volume.is_some()) && args.heatmaps.folder.is_some() {
        return Err(Failure::Usage("--heatmap is for images, and a plug-in answers for volumes".to_owned()));
    }
    let images = named(expand(&args.images, args.heatmaps.folder.as_deref())?, args.frame, args.layout);
    let mut heatmaps = Heatmaps::open(&args.heatmaps, &plugins, &images)?;
    let mut masks = Masks::open(&args.masks, &plugins, &images)?;
    let keep_pixels = heatmaps.is_some() || masks.is_some();
    let mut broken = 0;
    let mut tally = Tally::default();
    let mut progress = Counter::new(images.len(), "predict");
    for (index, chunk) in images.chunks(CHUNK).enumerate() {
        progress.set(index * CHUNK);
        let mut good: Vec<(&Path, Prepared)> = Vec::new();
        for (path, prepared) in chunk.iter().zip(prepare_files(chunk, &plugins, keep_pixels)) {
            match prepared {
                Ok(prepared) => {
                    prepared.seen.iter().take(1).for_each(|seen| tally.add(path, seen));
                    good.push((path, prepared));
                }
                Err(error) => {
                    progress.print(|| note(format_args!("melo: {error}")));
                    broken += 1;
                }
            }
        }
        let prepared: Vec<&Prepared> = good.iter().map(|(_, prepared)| prepared).collect();
        let predictions = predictor.predict_prepared(&prepared, &plugins)?;
        let mut drawn = match &mut heatmaps {
            Some(heatmaps) => heatmaps.draw(&predictor, &plugins, &good, &predictions)?.into_iter().map(Some).collect(),
            None => vec![None; good.len() * plugins.len()],
        }
        .into_iter();
        progress.print(|| -> Result<(), Failure> {
            for ((path, prepared), predictions) in good.iter().zip(&predictions) {
                let place = prepared.seen.first().and_then(|seen| seen.place);
                for (task, (prediction, drawn)) in predictions.iter().zip(drawn.by_ref()).enumerate() {
                    let written = match &mut masks {
                        Some(masks) => masks.write(&predictor, (path, prepared, task), prediction)?,
                        None => Vec::new(),
                    };
                    if args.json {
                        say_json(&Fields::new(path, place, prediction, drawn.as_deref(), &written, &predictor))?;
                    } else {
                        say(lines(path, prediction, drawn.as_deref(), &written));
                    }
                }
            }
            Ok(())
        })?;
    }
    remark(&tally);
    match broken {
        0 => Ok(()),
        1 => Err(Failure::Reported),
        _ => Err(Failure::Message(format!("{broken} of {} images could not be read", images.len()))),
    }
}

fn load_plugins(args: &Args, predictor: &Predictor) -> Result<Vec<Arc<BoundPlugin>>, Failure> {
    if args.plugin.is_empty() {
        let mut own = Plugin::own_classifier(predictor.engine().backbone()).ok_or_else(|| {
            let path = args.backbone.path.display();
            Failure::Message(format!("{path}: has no classifier of its own; give a plug-in with --plugin"))
        })?;
        if let Some(names) = melo::interop::class_names(args.backbone.path(), own.card.classes.len()) {
            own.card.classes = names;
        }
        return Ok(vec![predictor.bind(own)?]);
    }
    args.plugin.iter().map(|path| Ok(predictor.plugin(path)?)).collect()
}

/// One line of `--json`; the contract is `docs/json.md`.
#[derive(Serialize)]
struct Fields<'a> {
    #[serde(serialize_with = "crate::json_path")]
    image: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    frame: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frames: Option<usize>,
    #[serde(flatten)]
    said: Said<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    heatmaps: Option<&'a [Heatmap]>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    masks: &'a [MaskFile],
    #[serde(flatten)]
    by: By<'a>,
}

/// What a task says, of an image or a bag.
#[derive(Serialize)]
struct Said<'a> {
    task: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    probabilities: Option<ByName<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<ByName<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spread: Option<ByName<'a>>,
    top: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    predicted: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    findings: Option<Vec<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    set: Option<NamedSet>,
    #[serde(flatten)]
    scope: Option<InScope>,
}

/// What it was computed by.
#[derive(Serialize)]
struct By<'a> {
    plugin_digest: Option<&'a str>,
    backbone_digest: &'a str,
    precision: Precision,
    calibration: &'a ComputedOn,
}

/// An object of names and probabilities or numbers, in the order of the head.
struct ByName<'a> {
    classes: &'a [String],
    values: &'a [f32],
}

impl Serialize for ByName<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.classes.iter().zip(self.values))
    }
}

impl<'a> Fields<'a> {
    fn new(
        image: &'a Path,
        place: Option<Place>,
        prediction: &'a Prediction,
        heatmaps: Option<&'a [Heatmap]>,
        masks: &'a [MaskFile],
        predictor: &'a Predictor,
    ) -> Self {
        let Prediction { plugin, decision, .. } = prediction;
        Fields {
            image,
            frame: place.map(|place| place.number),
            frames: place.map(|place| place.count),
            said: Said::new(&plugin.card, decision),
            heatmaps,
            masks,
            by: By::new(plugin, predictor),
        }
    }
}

impl<'a> Said<'a> {
    fn new(card: &'a TaskCard, decision: &'a Decision) -> Self {
        let by_name = |values: &'a [f32]| Some(ByName { classes: &card.classes, values });
        Said {
            task: &card.task,
            probabilities: by_name(&decision.probabilities).filter(|_| card.kind.has_probabilities()),
            values: by_name(&decision.values).filter(|_| !card.kind.has_probabilities()),
            spread: by_name(&decision.spread).filter(|_| !decision.spread.is_empty()),
            top: decision.ranking.iter().copied().take(TOP).filter(|_| card.kind.has_probabilities()).collect(),
            predicted: card.kind.is_one_class().then(|| card.classes[decision.best()].as_str()),
            findings: (card.kind == TaskKind::MultiLabel).then(|| findings(card, decision)),
            set: decision.set.as_ref().map(|set| set.named(&card.classes)),
            scope: decision.scope,
        }
    }
}

impl<'a> By<'a> {
    fn new(plugin: &'a BoundPlugin, predictor: &'a Predictor) -> Self {
        let EngineInfo { precision, .. } = predictor.engine().info();
        By {
            plugin_digest: Some(plugin.digest.as_str()).filter(|digest| !digest.is_empty()),
            backbone_digest: predictor.engine().backbone().digest(),
            precision,
            calibration: &plugin.calibration().made,
        }
    }
}

/// Names of the findings.
fn findings<'a>(card: &'a TaskCard, decision: &Decision) -> Vec<&'a str> {
    decision.findings.iter().map(|&class| card.classes[class].as_str()).collect()
}

/// The answer, and below it where its heat maps and masks are.
fn lines(image: &Path, prediction: &Prediction, heatmaps: Option<&[Heatmap]>, masks: &[MaskFile]) -> String {
    let line = format!("{}  {}", image.display(), summary(&prediction.plugin.card, &prediction.decision));
    let heatmaps = heatmaps.into_iter().flatten();
    let lines =
        heatmaps.fold(line, |lines, Heatmap { class, path }| format!("{lines}\n    {class}: {}", path.display()));
    masks.iter().fold(lines, |lines, mask| format!("{lines}\n    {}", mask.path.display()))
}

/// Task, findings and the most probable classes.
pub(crate) fn summary(card: &TaskCard, decision: &Decision) -> String {
    let spread = |class: usize, digits| match decision.spread.get(class) {
        Some(spread) => format!(" ± {spread:.digits$}"),
        None => String::new(),
    };
    let named =
        |&class: &usize| format!("{} {:.3}{}", card.classes[class], decision.probabilities[class], spread(class, 3));
    let best = || decision.ranking.iter().take(TOP).map(named).collect::<Vec<String>>().join(", ");
    let warned = decision
        .scope
        .filter(|scope| !scope.in_scope)
        .map_or(String::new(), |scope| format!("; {scope}, do not rely on this"));
    let said = match card.kind {
        TaskKind::Regression => {
            let numbers = card.classes.iter().zip(&decision.values).enumerate();
            let numbers: Vec<String> =
                numbers.map(|(at, (name, value))| format!("{name} {value:.4}{}", spread(at, 4))).collect();
            return format!("{}: {}{}{warned}", card.task, numbers.join(", "), set(card, decision));
        }
        TaskKind::Segmentation => {
            let shares = card.classes.iter().zip(&decision.values).skip(1);
            let shares: Vec<String> = shares.map(|(name, share)| format!("{name} {:.2} %", 100.0 * share)).collect();
            return format!("{}: {} of the image{warned}", card.task, shares.join(", "));
        }
        TaskKind::Ordinal => format!("{}; ", card.classes[decision.best()]),
        TaskKind::SingleLabel if decision.best() == decision.ranking[0] => String::new(),
        TaskKind::SingleLabel => {
            let is_open = |set: &PredictionSet| match &set.members {
                SetMembers::Classes(classes) => classes.contains(&decision.best()),
                _ => true,
            };
            let outside = if decision.set.as_ref().is_none_or(is_open) { "" } else { ", outside of the set" };
            format!("{}, likelier than usual{outside}; ", card.classes[decision.best()])
        }
        TaskKind::MultiLabel if decision.findings.is_empty() => "no finding; ".to_owned(),
        TaskKind::MultiLabel => format!("{}; ", findings(card, decision).join(" + ")),
    };
    format!("{}: {said}{}{}{warned}", card.task, best(), set(card, decision))
}

/// What may be true with the coverage that the plug-in promises, behind the answer; of findings those that it leaves open.
fn set(card: &TaskCard, decision: &Decision) -> String {
    let Some(set) = &decision.set else { return String::new() };
    let named = set.named(&card.classes);
    let SetMembers::Findings(of) = &set.members else { return format!("; {named}") };
    let open = |set: &FindingSet| matches!(set, FindingSet::Either | FindingSet::Neither);
    let undecided: Vec<&str> =
        card.classes.iter().zip(of).filter(|(_, set)| open(set)).map(|(name, _)| name.as_str()).collect();
    let names = if undecided.is_empty() { "none".to_owned() } else { undecided.join(", ") };
    format!("; undecided at {}: {names}", named.promise())
}
