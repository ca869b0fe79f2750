//! Heat maps beside the answers: where the plug-in looked, one PNG for an image, a task and a class.

use super::{Answer, Group, Prepared};
use crate::Failure;
use clap::ValueEnum;
use melo::imaging::heatmap::overlay;
use melo::vit::{Backbone, ExplainMethod, Plugin, TaskKind, folder_of};
use rayon::prelude::*;
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
    folder: Option<PathBuf>,
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
#[derive(Serialize)]
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
        plugins: &[Arc<Plugin>],
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

    /// Writes the heat maps of all answers, which come image by image, and says where they are, answer by answer.
    pub(super) fn draw(
        &mut self,
        backbone: &Backbone,
        groups: &[Group],
        images: &[Prepared],
        answers: &[Answer],
    ) -> Result<Vec<Vec<Heatmap>>, Failure> {
        let tasks: usize = groups.iter().map(|group| group.plugins.len()).sum();
        let wanted: Vec<Vec<(usize, PathBuf)>> = answers.iter().map(|answer| self.wanted(answer)).collect();
        let method = self.method;
        images.par_iter().zip(answers.par_chunks(tasks)).zip(wanted.par_chunks(tasks)).try_for_each(
            |((image, answers), wanted)| {
                if wanted.iter().all(Vec::is_empty) {
                    return Ok(());
                }
                for (task, (answer, wanted)) in answers.iter().zip(wanted).enumerate() {
                    let plugin = &answer.plugin;
                    let preprocess = &plugin.card.preprocess;
                    let inputs = groups.iter().zip(&image.inputs);
                    for (_, input) in inputs.filter(|(group, _)| group.plugins.contains(&task)) {
                        let pixels = melo::imaging::read_with(&image.path, &preprocess.rendering)?;
                        for (class, path) in wanted {
                            let found = backbone.explain(input, preprocess.size, plugin, *class, method)?;
                            let drawn = overlay(&pixels, preprocess, found.grid, &found.values, OPACITY);
                            melo::imaging::write_png(path, &drawn)?;
                        }
                    }
                }
                Ok::<(), Failure>(())
            },
        )?;
        let written = |(answer, wanted): (&Answer, Vec<(usize, PathBuf)>)| {
            let name = |class: usize| answer.plugin.card.classes[class].clone();
            wanted.into_iter().map(|(class, path)| Heatmap { class: name(class), path }).collect()
        };
        Ok(answers.iter().zip(wanted).map(written).collect())
    }

    /// The classes of an answer that are explained, and the files for them.
    fn wanted(&mut self, answer: &Answer) -> Vec<(usize, PathBuf)> {
        let card = &answer.plugin.card;
        let classes = match (self.class, card.kind, answer.found().collect::<Vec<_>>()) {
            (Some(name), ..) => card.classes.iter().position(|class| class == name).into_iter().collect(),
            (None, TaskKind::MultiLabel, found) if !found.is_empty() => found,
            (None, ..) => vec![answer.ranking()[0]],
        };
        let mut file = |class: usize| self.folder.join(self.name(&answer.image, &card.task, &card.classes[class]));
        classes.into_iter().map(|class| (class, file(class))).collect()
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

fn check_class(class: &str, plugins: &[Arc<Plugin>]) -> Result<(), Failure> {
    let mut known: Vec<&str> = plugins.iter().flat_map(|plugin| &plugin.card.classes).map(String::as_str).collect();
    if known.contains(&class) {
        return Ok(());
    }
    let more = if known.len() > LISTED { ", …" } else { "" };
    known.truncate(LISTED);
    Err(Failure::Usage(format!("--heatmap-class {class}: no such class, expected one of {}{more}", known.join(", "))))
}
