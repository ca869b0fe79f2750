//! `melo eval --scope`: whether a plug-in tells images that are for it from others.

use super::{Args, open_split, read_manifest};
use crate::progress::Counter;
use crate::verbs::images::expand;
use crate::verbs::task::CACHE_MIB;
use crate::{Failure, note, say, say_json};
use melo::Predictor;
use melo::data::{Cache, Manifest, Row, Split};
use melo::eval::{at_sensitivity, roc_auc};
use melo::predict::{Prepared, prepare_files};
use melo::train::{Answers, flagged};
use melo::vit::{BoundPlugin, InScope, ScopeLimits};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Images that are computed together.
const CHUNK: usize = 32;
/// Of the false positive rate that OpenOOD reports (Yang et al., NeurIPS 2022): where so many of the others are found.
const FOUND: f64 = 0.95;

/// The object of `--json`; the contract is `docs/json.md`.
#[derive(Serialize)]
struct Fields<'a> {
    task: &'a str,
    plugin_digest: &'a str,
    split: &'static str,
    images: usize,
    /// What the card promises.
    false_alarms: f64,
    /// Share of the task's own images that are called out of scope, and its interval.
    flagged: f64,
    flagged_interval: [f64; 2],
    others: Vec<Other>,
}

/// How other images are told from the task's own.
#[derive(Serialize)]
struct Other {
    #[serde(serialize_with = "crate::json_path")]
    images_of: PathBuf,
    images: usize,
    /// Area under the ROC curve of the score, the others positive.
    auroc: Option<f64>,
    /// Share of the task's own images that are called out of scope where 95 % of the others are.
    fpr95: Option<f64>,
    /// Share that is called out of scope at the plug-in's own limit.
    flagged: f64,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let predictor = Predictor::new(args.backbone.engine(args.precision.into())?);
    let plugin = predictor.plugin(&args.plugin)?;
    let limits = plugin.calibration().scope_limits.clone().filter(|limits| limits.limits.is_some());
    let Some(limits) = limits else {
        return Err(Failure::Message(format!("{}: does not tell which images are for it", args.plugin.display())));
    };
    let split = Split::from(args.split);
    let manifest = read_manifest(&args.reading, &args.data, &plugin.card)?;
    let cache = Arc::new(Cache::new(CACHE_MIB << 20));
    let dataset = open_split(&manifest, split, &plugin.card.preprocess, &cache)?;
    let answers = Answers::of(&**predictor.engine(), &plugin, &dataset)?;
    let own: Vec<f32> = answers.distances.iter().filter_map(|distances| score(&limits, *distances)).collect();
    let share = flagged(&limits, &answers).expect("a limit, and images of a split");
    let (mut others, mut pooled) = (Vec::new(), Vec::new());
    for other in &args.scope {
        let scores = scores(&predictor, &plugin, &images_of(other)?)?;
        others.push(against(other.clone(), &own, &scores));
        pooled.extend(scores);
    }
    if others.len() > 1 {
        others.push(against("all of these".into(), &own, &pooled));
    }
    let fields = Fields {
        task: &plugin.card.task,
        plugin_digest: &plugin.digest,
        split: split.word(),
        images: own.len(),
        false_alarms: limits.false_alarms,
        flagged: share.value,
        flagged_interval: [share.low, share.high],
        others,
    };
    if args.json {
        return say_json(&fields);
    }
    say(table(&fields));
    Ok(())
}

fn score(limits: &ScopeLimits, distances: [f64; 2]) -> Option<f32> {
    limits.read(distances).map(|scope| scope.score)
}

fn against(images_of: PathBuf, own: &[f32], others: &[f32]) -> Other {
    let scores = [own, others].concat();
    let is_other: Vec<bool> = (0..scores.len()).map(|place| place >= own.len()).collect();
    let out = others.iter().filter(|score| !InScope::of(**score).in_scope).count();
    Other {
        images_of,
        images: others.len(),
        auroc: roc_auc(&scores, &is_other),
        fpr95: at_sensitivity(&scores, &is_other, FOUND).map(|point| 1.0 - point.specificity),
        flagged: out as f64 / others.len().max(1) as f64,
    }
}

/// The images of a folder or file, or of a manifest's test split, of all its splits where it has none.
fn images_of(other: &Path) -> Result<Vec<PathBuf>, Failure> {
    let is_table =
        other.extension().is_some_and(|end| ["csv", "xlsx"].iter().any(|table| end.eq_ignore_ascii_case(table)));
    if !is_table {
        return expand(&[other.to_owned()], None);
    }
    let rows = Manifest::read(other)?.rows;
    let test: Vec<&Row> = rows.iter().filter(|row| row.split == Some(Split::Test)).collect();
    let rows = if test.is_empty() { rows.iter().collect() } else { test };
    Ok(rows.into_iter().map(|row| row.path.clone()).collect())
}

/// The score of each image that can be read; the others are named.
fn scores(predictor: &Predictor, plugin: &Arc<BoundPlugin>, images: &[PathBuf]) -> Result<Vec<f32>, Failure> {
    let (plugins, mut scores) = ([Arc::clone(plugin)], Vec::new());
    let mut progress = Counter::new(images.len(), "answer");
    for (index, chunk) in images.chunks(CHUNK).enumerate() {
        progress.set(index * CHUNK);
        let mut good: Vec<Prepared> = Vec::new();
        for prepared in prepare_files(chunk, &plugins, false) {
            match prepared {
                Ok(prepared) => good.push(prepared),
                Err(error) => progress.print(|| note(format_args!("melo: {error}"))),
            }
        }
        let said = predictor.predict_prepared(&good.iter().collect::<Vec<_>>(), &plugins)?;
        scores.extend(said.iter().flatten().filter_map(|said| Some(said.decision.scope?.score)));
    }
    Ok(scores)
}

fn table(fields: &Fields<'_>) -> String {
    let Fields { task, split, images, false_alarms, flagged, flagged_interval: [low, high], others, .. } = fields;
    let mut lines = vec![format!(
        "{task}, {split} split, {images} images: {flagged:.4} out of scope, 95 % interval {low:.4} to {high:.4}; promised at most {false_alarms}"
    )];
    let width =
        others.iter().map(|other| other.images_of.display().to_string().chars().count()).max().unwrap_or(0).max(14);
    lines.push(format!("{:<width$}  images  AUROC   FPR95   out of scope", "against others"));
    let figure = |value: Option<f64>| value.map_or("none".to_owned(), |value| format!("{value:.4}"));
    for Other { images_of, images, auroc, fpr95, flagged } in others {
        let name = images_of.display().to_string();
        lines.push(format!("{name:<width$}  {images:<6}  {:<6}  {:<6}  {flagged:.4}", figure(*auroc), figure(*fpr95)));
    }
    lines.join("\n")
}
