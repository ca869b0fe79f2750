//! `melo predict` with plug-ins that answer for bags: one answer for each folder, for each volume, and for all other images together.

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
    if args.heatmaps.folder.is_some() {
        return Err(Failure::Usage(
            "--heatmap is for single images, and the plug-in answers for bags of them".to_owned(),
        ));
    }
    if args.frame.is_some() || args.layout.is_some() {
        return Err(Failure::Usage(
            "--frame and --layout are for single images, and the plug-in answers for bags".to_owned(),
        ));
    }
    for plugin in plugins {
        for bag in bags(&args.images, plugin.card.preprocess.rendering.plane)? {
            let images = bag.images.iter().map(BagImage::of_file).collect();
            let found = predictor.predict_bag(&predict::Bag { images, memory: None }, plugin);
            let found = found.map_err(|error| Failure::from(error).of(&bag.name))?;
            if args.json {
                say_json(&Fields::new(&bag, &found, predictor))?;
            } else {
                say(lines(&bag, &found));
            }
        }
    }
    Ok(())
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
    #[serde(flatten)]
    by: By<'a>,
}

impl<'a> Fields<'a> {
    fn new(bag: &'a Bag, found: &'a BagPrediction, predictor: &'a Predictor) -> Self {
        let BagPrediction { plugin, decision, attention, .. } = found;
        Fields {
            bag: &bag.name,
            said: Said::new(&plugin.card, decision),
            images: bag.images.iter().map(|path| path.to_string_lossy().into_owned()).collect(),
            attention,
            leading: found.leading(LEADING),
            by: By::new(plugin, predictor),
        }
    }
}

/// The answer, and below it the images that it rests on most.
fn lines(bag: &Bag, found: &BagPrediction) -> String {
    let images = match bag.images.len() {
        1 => "1 image".to_owned(),
        count => format!("{count} images"),
    };
    let line = format!("{}  {}  ({images})", bag.name.display(), summary(&found.plugin.card, &found.decision));
    let leading = found.leading(LEADING).into_iter();
    leading.fold(line, |lines, at| format!("{lines}\n    {:.3}  {}", found.attention[at], bag.images[at].display()))
}
