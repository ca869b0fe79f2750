//! The images that a plug-in was surest about, right and wrong, with heat maps.

use crate::cell::{CellResult, load_plugin};
use crate::error::Error;
use crate::plan::Cell;
use crate::results::Example;
use crate::run::Study;
use crate::scores::first_maximum;
use base64::Engine;
use melo_data::Manifest;
use melo_interop::load_backbone;
use melo_vit::{Backbone, ExplainMethod, Plugin, TaskKind};

/// Right and wrong images shown, of each.
const SHOWN: usize = 4;
/// Longest side of a picture in the report, px.
const SIDE: usize = 192;
/// How strongly the heat map covers the image.
const OPACITY: f32 = 0.5;

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
    let backbone = load_backbone(&plan.backbones[cell.backbone].weights, plan.precision)?;
    let folder = study.folder.cell(&plan.cell_name(cell));
    let Some(plugin) = load_plugin(&folder, &backbone)? else {
        return Ok(Vec::new());
    };
    let mut answers = answers(result);
    answers.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    let hits = answers.iter().filter(|answer| answer.correct).take(SHOWN);
    let misses = answers.iter().filter(|answer| !answer.correct).take(SHOWN);
    hits.chain(misses).map(|answer| example(study, manifest, (cell, result), (&backbone, &plugin), answer)).collect()
}

/// Every image's predicted class (single label); every finding over its threshold (multi-label).
fn answers(result: &CellResult) -> Vec<Answered> {
    let test = &result.test;
    let (c, probabilities, truth) = (test.classes, test.probabilities(result.temperature), test.truth());
    let rows = probabilities.chunks_exact(c).enumerate();
    let of = |row: usize, class: usize| Answered {
        row,
        class,
        probability: probabilities[row * c + class],
        correct: truth[row * c + class],
    };
    match test.kind {
        TaskKind::SingleLabel => rows.map(|(row, p)| of(row, first_maximum(p))).collect(),
        TaskKind::MultiLabel => {
            rows.map(|(row, p)| of(row, first_maximum(p))).filter(|a| a.probability >= 0.5).collect()
        }
    }
}

fn example(
    study: &Study,
    manifest: &Manifest,
    (cell, result): (&Cell, &CellResult),
    (backbone, plugin): (&Backbone, &Plugin),
    answer: &Answered,
) -> Result<Example, Error> {
    let name = &result.test.names[answer.row];
    let path = manifest.rows.iter().find(|row| row.name == *name).map(|row| &row.path).expect("the manifest names it");
    let pixels = melo_imaging::read(path)?;
    let preprocess = &plugin.card.preprocess;
    let input = melo_imaging::prepare(&pixels, preprocess);
    let map = backbone.explain(&input, preprocess.size, plugin, answer.class, ExplainMethod::Gradient)?;
    let overlay = melo_imaging::heatmap::overlay_within(&pixels, preprocess, map.grid, &map.values, OPACITY, SIDE);
    let png = melo_imaging::encode_png(&overlay).map_err(|source| Error::Io { path: path.clone(), source })?;
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
