//! `melo predict`: any number of plug-ins on any number of images, through one backbone.

mod heatmaps;

use super::task::PrecisionArg;
use crate::{Failure, note, say, say_json};
use heatmaps::{Heatmap, Heatmaps};
use melo::imaging::Pixels;
use melo::interop::load_backbone;
use melo::vit::{Backbone, ImageError, ImageSource, Plugin, Preprocess, Rendering, TaskKind, Workspace};
use rayon::prelude::*;
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
    melo predict --backbone vit.safetensors --plugin oct.safetensors scans/ --heatmap maps/\n\n\
    A heat map shows which parts of an image an answer rests on, not where a disease is. Colours run from none over \
    blue and green to yellow, the most relevant place of each image; what the crop cut off is darkened.\n\n\
    An image that cannot be read is named on standard error, the others are answered, and the exit status is 1.")]
pub(crate) struct Args {
    /// Weights that the plug-ins were trained on
    #[arg(long)]
    backbone: PathBuf,
    /// Plug-in; may be given several times [default: the backbone's own classifier]
    #[arg(long)]
    plugin: Vec<PathBuf>,
    /// Images, or folders of images
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// Print one JSON object for every image and task
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    heatmaps: heatmaps::HeatmapArgs,
    /// Numbers that go into the backbone's matrix products
    #[arg(long, value_enum, default_value_t = PrecisionArg::F32)]
    precision: PrecisionArg,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let backbone = load_backbone(&args.backbone, args.precision.into())?;
    let plugins = load_plugins(args, &backbone)?;
    let groups = by_preprocess(&plugins);
    let images = expand(&args.images)?;
    let mut heatmaps = Heatmaps::open(&args.heatmaps, &plugins, &images)?;
    let workspace = Workspace::default();
    let mut broken = 0;
    for chunk in images.chunks(CHUNK) {
        let prepared: Vec<_> = chunk.par_iter().map(|path| prepare(path, &groups)).collect();
        let mut good = Vec::new();
        for result in prepared {
            match result {
                Ok(image) => good.push(image),
                Err(error) => {
                    note(format_args!("melo: {error}"));
                    broken += 1;
                }
            }
        }
        let mut answers = predict(&backbone, (&plugins, &groups), &good, &workspace)?;
        if let Some(heatmaps) = &mut heatmaps {
            let drawn = heatmaps.draw(&backbone, &groups, &good, &answers)?;
            answers.iter_mut().zip(drawn).for_each(|(answer, drawn)| answer.heatmaps = Some(drawn));
        }
        for answer in answers {
            if args.json {
                say_json(&answer.fields(&backbone))?;
            } else {
                say(answer.lines());
            }
        }
    }
    match broken {
        0 => Ok(()),
        1 => Err(Failure::Reported),
        _ => Err(Failure::Message(format!("{broken} of {} images could not be read", images.len()))),
    }
}

fn load_plugins(args: &Args, backbone: &Backbone) -> Result<Vec<Arc<Plugin>>, Failure> {
    if args.plugin.is_empty() {
        let own = Plugin::own_classifier(backbone).ok_or_else(|| {
            let path = args.backbone.display();
            Failure::Message(format!("{path}: has no classifier of its own; give a plug-in with --plugin"))
        })?;
        return Ok(vec![Arc::new(own)]);
    }
    args.plugin.iter().map(|path| Ok(Arc::new(Plugin::load(path, backbone)?))).collect()
}

/// Files as they are, folders as the images in them, sorted.
fn expand(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut images = Vec::new();
    for path in paths {
        if !path.is_dir() {
            images.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
        let entries = entries.map_err(|error| Failure::Message(format!("{}: {error}", path.display())))?;
        let is_image = |path: &PathBuf| melo::imaging::has_image_extension(path);
        let mut found: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).filter(is_image).collect();
        if found.is_empty() {
            return Err(Failure::Message(format!(
                "{}: holds no {} file",
                path.display(),
                melo::imaging::EXTENSIONS.join(", ")
            )));
        }
        found.sort();
        images.extend(found);
    }
    Ok(images)
}

/// One task's answer for one image.
pub(crate) struct Answer {
    image: PathBuf,
    plugin: Arc<Plugin>,
    /// `[c]`
    probabilities: Vec<f32>,
    /// Those that were written; none where none were asked for.
    heatmaps: Option<Vec<Heatmap>>,
}

/// One line of `--json`; the contract is `docs/json.md`.
#[derive(Serialize)]
struct Fields<'a> {
    #[serde(serialize_with = "crate::json_path")]
    image: &'a Path,
    task: &'a str,
    probabilities: Probabilities<'a>,
    top: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    predicted: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    findings: Option<Vec<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    heatmaps: Option<&'a [Heatmap]>,
    plugin_digest: Option<&'a str>,
    backbone_digest: &'a str,
    precision: String,
}

/// An object of class names and probabilities, in the order of the head.
struct Probabilities<'a> {
    classes: &'a [String],
    values: &'a [f32],
}

impl Serialize for Probabilities<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.classes.iter().zip(self.values))
    }
}

/// Plug-ins that prepare images alike.
pub(crate) struct Group {
    preprocess: Preprocess,
    /// Their indices.
    plugins: Vec<usize>,
}

pub(crate) fn by_preprocess(plugins: &[Arc<Plugin>]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (index, plugin) in plugins.iter().enumerate() {
        let preprocess = &plugin.card.preprocess;
        match groups.iter_mut().find(|group| group.preprocess == *preprocess) {
            Some(group) => group.plugins.push(index),
            None => groups.push(Group { preprocess: preprocess.clone(), plugins: vec![index] }),
        }
    }
    groups
}

/// An image as network input, once for every group; the decoded pixels are gone by then.
pub(crate) struct Prepared {
    path: PathBuf,
    /// `[3, s, s]` for each group.
    inputs: Vec<Vec<f32>>,
}

pub(crate) fn prepare(path: &Path, groups: &[Group]) -> Result<Prepared, melo::imaging::Error> {
    prepare_with(path, groups, |rendering| melo::imaging::read_with(path, rendering))
}

/// As [`prepare`], of an image whose bytes are read by another way.
pub(crate) fn prepare_with(
    path: &Path,
    groups: &[Group],
    read: impl Fn(&Rendering) -> Result<Pixels, melo::imaging::Error>,
) -> Result<Prepared, melo::imaging::Error> {
    let mut rendered: Vec<(&Rendering, Pixels)> = Vec::new();
    let mut inputs = Vec::new();
    for Group { preprocess, .. } in groups {
        // Nearly always all plug-ins want the same pixels.
        let known = rendered.iter().position(|(rendering, _)| **rendering == preprocess.rendering);
        let index = match known {
            Some(index) => index,
            None => {
                rendered.push((&preprocess.rendering, read(&preprocess.rendering)?));
                rendered.len() - 1
            }
        };
        inputs.push(melo::imaging::prepare(&rendered[index].1, preprocess));
    }
    Ok(Prepared { path: path.to_owned(), inputs })
}

/// The images of a chunk as one group wants them.
struct Inputs<'a> {
    images: &'a [Prepared],
    group: usize,
}

impl ImageSource for Inputs<'_> {
    fn load(&self, index: usize, out: &mut [f32]) -> Result<(), ImageError> {
        out.copy_from_slice(&self.images[index].inputs[self.group]);
        Ok(())
    }
}

/// All plug-ins on all images, image by image; the plug-ins of a group share what none of them adapts.
pub(crate) fn predict(
    backbone: &Backbone,
    (plugins, groups): (&[Arc<Plugin>], &[Group]),
    images: &[Prepared],
    workspace: &Workspace,
) -> Result<Vec<Answer>, Failure> {
    let mut logits: Vec<Vec<Vec<f32>>> = vec![vec![Vec::new(); plugins.len()]; images.len()];
    for (group, Group { preprocess, plugins: members }) in groups.iter().enumerate() {
        let tasks = vec![members.iter().map(|&index| Arc::clone(&plugins[index])).collect(); images.len()];
        let answers = backbone.forward_tasks(&Inputs { images, group }, preprocess.size, &tasks, workspace)?;
        for (logits, answers) in logits.iter_mut().zip(answers) {
            members.iter().zip(answers).for_each(|(&index, answer)| logits[index] = answer);
        }
    }
    let mut answers = Vec::new();
    for (Prepared { path, .. }, logits) in images.iter().zip(logits) {
        for (plugin, mut logits) in plugins.iter().zip(logits) {
            plugin.card.probabilities(&mut logits);
            answers.push(Answer {
                image: path.clone(),
                plugin: Arc::clone(plugin),
                probabilities: logits,
                heatmaps: None,
            });
        }
    }
    Ok(answers)
}

impl Answer {
    /// Calibrated, one a class.
    pub(crate) fn probabilities(&self) -> &[f32] {
        &self.probabilities
    }

    /// Class indices, the most probable first.
    fn ranking(&self) -> Vec<usize> {
        let mut ranking: Vec<usize> = (0..self.probabilities.len()).collect();
        ranking.sort_by(|&a, &b| self.probabilities[b].total_cmp(&self.probabilities[a]));
        ranking
    }

    /// Classes at or above their thresholds.
    fn found(&self) -> impl Iterator<Item = usize> {
        let thresholds = self.plugin.card.thresholds.iter();
        self.probabilities
            .iter()
            .zip(thresholds)
            .enumerate()
            .filter(|(_, (p, threshold))| p >= threshold)
            .map(|(i, _)| i)
    }

    /// Names of the findings at or above their thresholds.
    fn findings(&self) -> Vec<&str> {
        self.found().map(|class| self.plugin.card.classes[class].as_str()).collect()
    }

    fn fields<'a>(&'a self, backbone: &'a Backbone) -> Fields<'a> {
        let card = &self.plugin.card;
        let ranking = self.ranking();
        let single = card.kind == TaskKind::SingleLabel;
        Fields {
            image: &self.image,
            task: &card.task,
            probabilities: Probabilities { classes: &card.classes, values: &self.probabilities },
            top: ranking[..TOP.min(ranking.len())].to_vec(),
            predicted: single.then(|| card.classes[ranking[0]].as_str()),
            findings: (!single).then(|| self.findings()),
            heatmaps: self.heatmaps.as_deref(),
            plugin_digest: Some(self.plugin.digest.as_str()).filter(|digest| !digest.is_empty()),
            backbone_digest: backbone.digest(),
            precision: backbone.precision().to_string(),
        }
    }

    /// The answer, and below it where its heat maps are.
    fn lines(&self) -> String {
        let line = format!("{}  {}", self.image.display(), self.summary());
        let heatmaps = self.heatmaps.iter().flatten();
        heatmaps.fold(line, |lines, Heatmap { class, path }| format!("{lines}\n    {class}: {}", path.display()))
    }

    /// Task, findings and the most probable classes.
    pub(crate) fn summary(&self) -> String {
        let card = &self.plugin.card;
        let best: Vec<String> = self
            .ranking()
            .into_iter()
            .take(TOP)
            .map(|class| format!("{} {:.3}", card.classes[class], self.probabilities[class]))
            .collect();
        let findings = match card.kind {
            TaskKind::SingleLabel => String::new(),
            TaskKind::MultiLabel if self.findings().is_empty() => "no finding; ".to_owned(),
            TaskKind::MultiLabel => format!("{}; ", self.findings().join(" + ")),
        };
        format!("{}: {findings}{}", card.task, best.join(", "))
    }
}
