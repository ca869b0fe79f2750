//! Heat maps beside the answers: where the plug-in looked, one PNG for an image, a task and a class.

use super::names::Names;
use crate::Failure;
use clap::ValueEnum;
use melo::predict::{Drawing, Prediction, Predictor, Prepared};
use melo::vit::{BoundPlugin, Decision, ExplainMethod, TaskCard, TaskKind};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Share of the colour at the hottest place: enough to stand out, little enough to see the tissue below.
const OPACITY: f32 = 0.6;
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

/// Where heat maps go.
pub(super) struct Heatmaps<'a> {
    names: Names<'a>,
    method: ExplainMethod,
    class: Option<&'a str>,
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
        Ok(Some(Heatmaps { names: Names::open("--heatmap", folder, images)?, method: args.method.into(), class }))
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
        predictor.explain_each(&prepared, plugins, &wanted, self.drawing(), |[image, task, place], drawn| {
            melo::imaging::write_png(&files[image][task][place].path, &drawn.picture)?;
            Ok::<_, Failure>(())
        })?;
        Ok(files.into_iter().flatten().collect())
    }

    /// Writes the heat maps of one image under one plug-in, which answered `decision`.
    pub(super) fn draw_one(
        &mut self,
        predictor: &Predictor,
        plugin: &BoundPlugin,
        (path, prepared): (&Path, &Prepared),
        decision: &Decision,
    ) -> Result<Vec<Heatmap>, Failure> {
        let wanted = self.wanted(&plugin.card, decision);
        let files = self.name_all(path, &plugin.card, &wanted);
        for (class, file) in wanted.into_iter().zip(&files) {
            let drawn = predictor.explain(prepared, 0, plugin, class, self.drawing())?;
            melo::imaging::write_png(&file.path, &drawn.picture)?;
        }
        Ok(files)
    }

    fn drawing(&self) -> Drawing {
        Drawing { method: self.method, opacity: OPACITY, longest: usize::MAX }
    }

    /// The classes of a prediction that are explained.
    fn wanted(&self, card: &TaskCard, decision: &Decision) -> Vec<usize> {
        match self.class {
            _ if card.kind == TaskKind::Segmentation => Vec::new(),
            Some(name) => card.classes.iter().position(|class| class == name).into_iter().collect(),
            None => decision.explained(),
        }
    }

    /// The files of an image's heat maps for one task.
    fn name_all(&mut self, image: &Path, card: &TaskCard, classes: &[usize]) -> Vec<Heatmap> {
        let mut named = |&class: &usize| {
            let path = self.names.file(image, &[&card.task, &card.classes[class]], "png");
            Heatmap { class: card.classes[class].clone(), path }
        };
        classes.iter().map(&mut named).collect()
    }
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
