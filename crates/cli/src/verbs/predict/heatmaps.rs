//! Heat maps beside the answers: where the plug-in looked, one PNG for an image, a task and a class.

use crate::Failure;
use clap::ValueEnum;
use melo::predict::{Drawing, Prediction, Predictor, Prepared};
use melo::vit::{BoundPlugin, Decision, ExplainMethod, TaskCard, folder_of};
use serde::Serialize;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Share of the colour at the hottest place: enough to stand out, little enough to see the tissue below.
const OPACITY: f32 = 0.6;
/// Bytes of a file name that the image's name and each of the others may take; all together stay below 255, which is
/// the most that common file systems allow.
const STEM_BYTES: usize = 100;
const NAME_BYTES: usize = 50;
/// Class names listed in a message.
const LISTED: usize = 20;

#[derive(clap::Args)]
pub(crate) struct HeatmapArgs {
    /// Write heat maps into this folder, as IMAGE.TASK.CLASS.png: of the most probable class, or of every finding (of
    /// the most probable one where there is none)
    #[arg(long = "heatmap", value_name = "DIR")]
    pub(super) folder: Option<PathBuf>,
    /// How relevance is computed: attention weighted by the class's gradient, or attention rollout, which is the same
    /// for every class
    #[arg(long = "heatmap-method", value_enum, default_value_t = Method::Gradient, requires = "folder")]
    method: Method,
    /// Explain this class instead, whatever was predicted; tasks without it get no heat map
    #[arg(long = "heatmap-class", value_name = "NAME", requires = "folder")]
    class: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Method {
    Gradient,
    Rollout,
}

impl From<Method> for ExplainMethod {
    fn from(method: Method) -> ExplainMethod {
        match method {
            Method::Gradient => ExplainMethod::Gradient,
            Method::Rollout => ExplainMethod::Rollout,
        }
    }
}

/// A heat map that was written; part of the contract in `docs/json.md`.
#[derive(Clone, Serialize)]
pub(super) struct Heatmap {
    pub(super) class: String,
    #[serde(serialize_with = "crate::json_path")]
    pub(super) path: PathBuf,
}

/// Where heat maps go, and the names that are taken there.
pub(super) struct Heatmaps<'a> {
    folder: &'a Path,
    method: ExplainMethod,
    class: Option<&'a str>,
    /// In lower case: some file systems do not tell cases apart.
    taken: HashSet<String>,
}

impl<'a> Heatmaps<'a> {
    /// Makes the folder, where heat maps are asked for and can be made.
    pub(super) fn open(
        args: &'a HeatmapArgs,
        plugins: &[Arc<BoundPlugin>],
        images: &[PathBuf],
    ) -> Result<Option<Self>, Failure> {
        let Some(folder) = args.folder.as_deref() else {
            return Ok(None);
        };
        let class = args.class.as_deref();
        if let Some(class) = class {
            check_class(class, plugins)?;
        }
        let refused = |reason: String| format!("--heatmap {}: {reason}", folder.display());
        if folder.exists() && !folder.is_dir() {
            return Err(Failure::Usage(refused("is a file, expected a folder".to_owned())));
        }
        std::fs::create_dir_all(folder).map_err(|error| Failure::Message(refused(error.to_string())))?;
        // An image that is read may lie there under the name of another one's heat map.
        let here = folder.canonicalize().map_err(|error| Failure::Message(refused(error.to_string())))?;
        let inside = images.iter().filter(|image| folder_of(image).canonicalize().is_ok_and(|folder| folder == here));
        let taken = inside.filter_map(|image| Some(image.file_name()?.to_string_lossy().to_lowercase())).collect();
        Ok(Some(Heatmaps { folder, method: args.method.into(), class, taken }))
    }

    /// Writes the heat maps of all predictions and says where they are, prediction by prediction.
    pub(super) fn draw(
        &mut self,
        predictor: &Predictor,
        plugins: &[Arc<BoundPlugin>],
        images: &[(&Path, Prepared)],
        predictions: &[Vec<Prediction>],
    ) -> Result<Vec<Vec<Heatmap>>, Failure> {
        let mut wanted = Vec::new();
        let mut files = Vec::new();
        for ((path, _), predictions) in images.iter().zip(predictions) {
            let classes = predictions.iter().map(|p| self.wanted(&p.plugin.card, &p.decision)).collect::<Vec<_>>();
            let named =
                predictions.iter().zip(&classes).map(|(p, classes)| self.name_all(path, &p.plugin.card, classes));
            files.push(named.collect::<Vec<Vec<Heatmap>>>());
            wanted.push(classes);
        }
        let prepared: Vec<&Prepared> = images.iter().map(|(_, prepared)| prepared).collect();
        let drawing = Drawing { method: self.method, opacity: OPACITY, longest: usize::MAX };
        predictor.explain_each(&prepared, plugins, &wanted, drawing, |[image, task, place], drawn| {
            melo::imaging::write_png(&files[image][task][place].path, &drawn.picture)?;
            Ok::<_, Failure>(())
        })?;
        Ok(files.into_iter().flatten().collect())
    }

    /// The classes of a prediction that are explained.
    fn wanted(&self, card: &TaskCard, decision: &Decision) -> Vec<usize> {
        match self.class {
            Some(name) => card.classes.iter().position(|class| class == name).into_iter().collect(),
            None => decision.explained(),
        }
    }

    /// The files of an image's heat maps for one task.
    fn name_all(&mut self, image: &Path, card: &TaskCard, classes: &[usize]) -> Vec<Heatmap> {
        let named = |&class: &usize| {
            let path = self.folder.join(self.name(image, &card.task, &card.classes[class]));
            Heatmap { class: card.classes[class].clone(), path }
        };
        classes.iter().map(named).collect()
    }

    /// A file name that is not taken: names from cards and images are reduced to letters, digits, `-`, `_` and `.`.
    fn name(&mut self, image: &Path, task: &str, class: &str) -> String {
        let stem = image.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        let parts = [plain(&stem, STEM_BYTES), plain(task, NAME_BYTES), plain(class, NAME_BYTES)];
        let base = parts.join(".");
        let numbered = |n: usize| if n == 1 { format!("{base}.png") } else { format!("{base}.{n}.png") };
        let free = |name: &String| self.taken.insert(name.to_lowercase());
        (1..).map(numbered).find(free).expect("numbers do not end")
    }
}

/// A name as part of a file name of at most `bytes` bytes: it never begins with a dot and never leads elsewhere.
fn plain(name: &str, bytes: usize) -> String {
    let allowed = |c: char| if c.is_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    let mut plain: String = name.chars().map(allowed).collect();
    if plain.is_empty() || plain.starts_with('.') {
        plain.insert(0, '_');
    }
    let end = (0..=bytes.min(plain.len())).rev().find(|&end| plain.is_char_boundary(end));
    plain.truncate(end.unwrap_or(0));
    plain
}

fn check_class(class: &str, plugins: &[Arc<BoundPlugin>]) -> Result<(), Failure> {
    let mut known: Vec<&str> = plugins.iter().flat_map(|plugin| &plugin.card.classes).map(String::as_str).collect();
    if known.contains(&class) {
        return Ok(());
    }
    let more = if known.len() > LISTED { ", …" } else { "" };
    known.truncate(LISTED);
    Err(Failure::Usage(format!("--heatmap-class {class}: no such class, expected one of {}{more}", known.join(", "))))
}
