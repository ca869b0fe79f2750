//! `melo predict` with plug-ins that answer for bags: one answer for each folder, for each volume, and for all other images together.

use super::heatmaps::{Heatmap, Heatmaps};
use super::{Args, By, Said, summary};
use crate::{Failure, say, say_json};
use melo::data::images_of_bag;
use melo::predict::{self, BagImage, BagPrediction, LEADING, Predictor};
use melo::vit::BoundPlugin;
use melo::vit::rendering::Plane;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A bag as the command line names it.
struct Bag {
    name: PathBuf,
    images: Vec<PathBuf>,
}

pub(super) fn run(args: &Args, predictor: &Predictor, plugins: &[Arc<BoundPlugin>]) -> Result<(), Failure> {
    if let Some(single) = plugins.iter().find(|plugin| plugin.bag.is_none()) {
        let bags = plugins.iter().find(|plugin| plugin.bag.is_some()).map_or("", |plugin| &plugin.card.task);
        let single = &single.card.task;
        let message = format!(
            "task {bags} answers for bags of images, task {single} for single ones; ask them one after the other"
        );
        return Err(Failure::Usage(message));
    }
    if args.frame.is_some() || args.layout.is_some() {
        return Err(Failure::Usage(
            "--frame and --layout are for single images, and the plug-in answers for bags".to_owned(),
        ));
    }
    let mut heatmaps = Heatmaps::open(&args.heatmaps, plugins, &args.images)?;
    for plugin in plugins {
        for bag in bags(&args.images, plugin.card.preprocess.rendering.plane)? {
            let of = |error: Failure| error.of(&bag.name);
            let images: Vec<BagImage> = bag.images.iter().map(BagImage::of_file).collect();
            let asked = predict::Bag { images, memory: None };
            let found = predictor.predict_bag(&asked, plugin).map_err(|error| of(error.into()))?;
            let mut drawn = Vec::new();
            if let Some(heatmaps) = &mut heatmaps {
                for image in found.leading(LEADING) {
                    let prepared = asked.images[image].prepared(&plugin.card.preprocess);
                    let prepared = prepared.map_err(|error| of(error.into()))?;
                    let about = (bag.images[image].as_path(), &prepared);
                    let written = heatmaps.draw_one(predictor, plugin, about, &found.decision)?;
                    drawn.extend(written.into_iter().map(|heatmap| LeadingHeatmap { image, heatmap }));
                }
            }
            if args.json {
                say_json(&Fields::new(&bag, &found, &drawn, predictor))?;
            } else {
                say(lines(&bag, &found, &drawn));
            }
        }
    }
    Ok(())
}

/// The heat map of an image of the bag, 0 the first.
#[derive(Serialize)]
struct LeadingHeatmap {
    image: usize,
    #[serde(flatten)]
    heatmap: Heatmap,
}

/// The bags of a command line: a folder or a file of several images is one, and so are all other files together.
fn bags(paths: &[PathBuf], plane: Plane) -> Result<Vec<Bag>, Failure> {
    let (mut bags, mut single) = (Vec::new(), None);
    for path in paths {
        let images = images_of_bag(path, plane)?;
        if path.is_dir() || images.len() > 1 {
            bags.push(Bag { name: path.clone(), images });
            continue;
        }
        match single {
            None => {
                single = Some(bags.len());
                bags.push(Bag { name: path.clone(), images });
            }
            Some(at) => bags[at].images.extend(images),
        }
    }
    Ok(bags)
}

/// One line of `--json`; the contract is `docs/json.md`.
#[derive(Serialize)]
struct Fields<'a> {
    #[serde(serialize_with = "crate::json_path")]
    bag: &'a Path,
    #[serde(flatten)]
    said: Said<'a>,
    images: Vec<String>,
    attention: &'a [f32],
    leading: Vec<usize>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    heatmaps: &'a [LeadingHeatmap],
    #[serde(flatten)]
    by: By<'a>,
}

impl<'a> Fields<'a> {
    fn new(bag: &'a Bag, found: &'a BagPrediction, heatmaps: &'a [LeadingHeatmap], predictor: &'a Predictor) -> Self {
        let BagPrediction { plugin, decision, attention, .. } = found;
        Fields {
            bag: &bag.name,
            said: Said::new(&plugin.card, decision),
            images: bag.images.iter().map(|path| path.to_string_lossy().into_owned()).collect(),
            attention,
            leading: found.leading(LEADING),
            heatmaps,
            by: By::new(plugin, predictor),
        }
    }
}

/// The answer, and below it the images that it rests on most.
fn lines(bag: &Bag, found: &BagPrediction, heatmaps: &[LeadingHeatmap]) -> String {
    let images = match bag.images.len() {
        1 => "1 image".to_owned(),
        count => format!("{count} images"),
    };
    let line = format!("{}  {}  ({images})", bag.name.display(), summary(&found.plugin.card, &found.decision));
    let mut lines = line;
    for at in found.leading(LEADING) {
        lines += &format!("\n    {:.3}  {}", found.attention[at], bag.images[at].display());
        for LeadingHeatmap { heatmap: Heatmap { class, path }, .. } in heatmaps.iter().filter(|map| map.image == at) {
            lines += &format!("\n        {class}: {}", path.display());
        }
    }
    lines
}
