//! The images that a plug-in was surest about, right and wrong, with heat maps.

use crate::cell::load_plugin;
use crate::cell_result::CellResult;
use crate::error::Error;
use crate::plan::Cell;
use crate::results::Example;
use crate::run::Study;
use base64::Engine;
use melo_data::{Manifest, Row};
use melo_interop::read_backbone;
use melo_predict::{Bag, BagImage, Drawing, Predictor, Prepared};
use melo_vit::{BoundPlugin, ExplainMethod};
use std::path::PathBuf;
use std::sync::Arc;

/// Right and wrong images shown, of each.
const SHOWN: usize = 4;
/// Heat maps as the report shows them: small, and half transparent.
const DRAWING: Drawing = Drawing { method: ExplainMethod::Gradient, opacity: 0.5, longest: 192 };

/// One answer of the test split.
struct Answered {
    row: usize,
    class: usize,
    probability: f32,
    correct: bool,
}

/// Examples of the first cell of the first method that leaves a plug-in with an adapter.
///
/// # Errors
/// Why the weights, the plug-in or an image cannot be read.
pub(crate) fn examples(
    study: &Study,
    manifest: &Manifest,
    cells: &[&(Cell, CellResult)],
) -> Result<Vec<Example>, Error> {
    let plan = &study.plan;
    let adapted = |(cell, result): &&&(Cell, CellResult)| {
        cell.data_fraction == 1.0 && result.identity.config.method.trains_low_rank()
    };
    let Some((cell, result)) = cells.iter().find(adapted) else {
        return Ok(Vec::new());
    };
    let backbone = read_backbone(&plan.backbones[cell.backbone].weights)?;
    let folder = study.folder.cell(&plan.cell_name(cell));
    let Some(plugin) = load_plugin(&folder, backbone.info())? else {
        return Ok(Vec::new());
    };
    let predictor = Predictor::new(study.device.load(backbone)?);
    let plugin = predictor.bind(plugin)?;
    let mut answers = answers(result, &plugin);
    answers.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    let hits = answers.iter().filter(|answer| answer.correct).take(SHOWN);
    let misses = answers.iter().filter(|answer| !answer.correct).take(SHOWN);
    hits.chain(misses).map(|answer| example(study, manifest, (cell, result), (&predictor, &plugin), answer)).collect()
}

/// Every image's most probable class, of findings only where it is one.
fn answers(result: &CellResult, plugin: &BoundPlugin) -> Vec<Answered> {
    let (test, truth) = (&result.test, result.test.truth());
    let of = |(row, logits): (usize, &[f32])| {
        let decision = plugin.decide(logits);
        let class = decision.best();
        let said = decision.kind.is_one_class() || decision.findings.contains(&class);
        let (probability, correct) = (decision.probabilities[class], truth[row * test.classes + class]);
        said.then_some(Answered { row, class, probability, correct })
    };
    test.logits.chunks_exact(test.classes).enumerate().filter_map(of).collect()
}

fn example(
    study: &Study,
    manifest: &Manifest,
    (cell, result): (&Cell, &CellResult),
    (predictor, plugin): (&Predictor, &Arc<BoundPlugin>),
    answer: &Answered,
) -> Result<Example, Error> {
    let name = &result.test.names[answer.row];
    let is_of = |row: &&Row| row.bag.as_ref().map_or(&row.name, |bag| &bag.name) == name;
    let mut paths: Vec<&PathBuf> = manifest.rows.iter().filter(is_of).map(|row| &row.path).collect();
    if plugin.bag.is_some() {
        // The image that counted most stands for its bag.
        let bag = Bag { images: paths.iter().map(|path| BagImage::of_file(*path)).collect(), memory: None };
        paths.swap(0, predictor.predict_bag(&bag, plugin)?.leading(1)[0]);
    }
    let path = paths[0];
    let image = Prepared::of_file(path, &[&plugin.card.preprocess], true)?;
    let drawn = predictor.explain(&image, 0, plugin, answer.class, DRAWING)?;
    let png = melo_imaging::encode_png(&drawn.picture).map_err(|source| Error::Io { path: path.clone(), source })?;
    let shown: Vec<&str> = (0..result.test.classes)
        .filter(|class| result.test.truth()[answer.row * result.test.classes + class])
        .map(|class| result.classes[class].as_str())
        .collect();
    Ok(Example {
        method: study.plan.methods[cell.method].name.clone(),
        image: name.clone(),
        truth: if shown.is_empty() { "no finding".to_owned() } else { shown.join(", ") },
        predicted: result.classes[answer.class].clone(),
        probability: f64::from(answer.probability),
        correct: answer.correct,
        overlay_png: base64::engine::general_purpose::STANDARD.encode(png),
    })
}
