//! `melo eval`: a plug-in measured on a split.

mod scope;
mod splits;

use super::data_args::DataArgs;
use super::set_args::SetArgs;
use super::task::{CACHE_MIB, PrecisionArg, check_output, list_unreadable};
use crate::progress::bar;
use crate::verbs::backbone_args::BackboneArgs;
use crate::{Failure, advice, note, say, say_json};
use clap::ValueEnum;
use melo::data::spreadsheet;
use melo::data::{Assigned, Cache, Dataset, Labels, Manifest, Split, columns_with, open_splits};
use melo::eval::{Collapse, FEW_CASES, Metrics, SegmentedClass};
use melo::train::{Answers, Figure, SubgroupFigure, figure_in_words, manifest_for};
use melo::vit::{BoundPlugin, Engine, InScope, Plugin, Preprocess, SCOPE_SCORE, TaskCard, TaskKind};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Measure a plug-in on a labelled split
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    melo eval --backbone vit.safetensors --plugin wbc.safetensors --data wbc/labels.csv\n  \
    melo eval --backbone vit.safetensors --plugin wbc.safetensors --data wbc/labels.csv --split val --json \\\n    \
    --predictions wbc_val.csv\n  \
    melo eval --backbone vit.safetensors --plugin cxr.safetensors --data cxr/labels.csv --meta cxr/meta.csv \\\n    \
    --subgroup sex --subgroup age:40,60\n  \
    melo eval --backbone vit.safetensors --plugin wbc.safetensors --data wbc/labels.csv --splits 20 --coverage 0.95\n  \
    melo eval --backbone vit.safetensors --plugin wbc.safetensors --data wbc/labels.csv --scope cxr/labels.csv photos/")]
pub(crate) struct Args {
    #[command(flatten)]
    backbone: BackboneArgs,
    /// Plug-in
    #[arg(long)]
    pub(crate) plugin: PathBuf,
    /// Manifest (CSV, .xlsx), a folder with a folder for every class, or a pack
    #[arg(long)]
    data: PathBuf,
    /// Split to measure on
    #[arg(long, value_enum, default_value_t = SplitArg::Test)]
    split: SplitArg,
    /// Write every image's probabilities, or numbers, to this CSV
    #[arg(long, value_name = "CSV")]
    predictions: Option<PathBuf>,
    /// Also measure each value of this column, or each bin of a numeric one: `sex`, `age:40,60`; may be repeated
    #[arg(long, value_name = "COLUMN")]
    subgroup: Vec<String>,
    /// Table with a column `path` that holds the subgroup columns [default: the manifest]
    #[arg(long, value_name = "CSV", requires = "subgroup")]
    meta: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Numbers that go into the backbone's matrix products
    #[arg(long, value_enum, default_value_t = PrecisionArg::F32)]
    precision: PrecisionArg,
    /// Instead, fit prediction sets on one random half of the patients of the validation and test images and hold them to the other, this often
    #[arg(long, value_name = "N", conflicts_with_all = ["split", "predictions", "subgroup"])]
    splits: Option<usize>,
    /// Instead, how well the plug-in tells these images from its own: folders, images, or manifests, of which the test split counts where there is one
    #[arg(long, value_name = "OTHERS", num_args = 1.., conflicts_with_all = ["splits", "predictions", "subgroup"])]
    scope: Vec<PathBuf>,
    #[command(flatten)]
    sets: SetArgs,
    #[command(flatten)]
    reading: DataArgs,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum SplitArg {
    Train,
    Val,
    Test,
}

impl From<SplitArg> for Split {
    fn from(split: SplitArg) -> Split {
        match split {
            SplitArg::Train => Split::Train,
            SplitArg::Val => Split::Val,
            SplitArg::Test => Split::Test,
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    if let Some(splits) = args.splits {
        return splits::run(args, splits);
    }
    if args.sets.settings(None)?.is_some() {
        return Err(Failure::Usage(
            "--coverage, --sets and --sets-by are for --splits: a plug-in's own sets are in its card".to_owned(),
        ));
    }
    if !args.scope.is_empty() {
        return scope::run(args);
    }
    if let Some(path) = &args.predictions {
        check_output("--predictions", path, &[args.backbone.path(), &args.plugin, &args.data])?;
    }
    let engine = args.backbone.engine(args.precision.into())?;
    let plugin = Plugin::load(&args.plugin, engine.backbone())?.bind(&*engine)?;
    let split = Split::from(args.split);
    let manifest = read_manifest(&args.reading, &args.data, &plugin.card)?;
    if split == Split::Val && plugin.card.ensemble.is_some() {
        note(
            "warning: the folds of an ensemble were trained on the validation split too; its card has the figures out of fold",
        );
    }
    let cache = Arc::new(Cache::new(CACHE_MIB << 20));
    let dataset = open_split(&manifest, split, &plugin.card.preprocess, &cache)?;
    let answers = Answers::of(&*engine, &plugin, &dataset)?;
    let calibration = plugin.calibration();
    let probabilities = answers.probabilities(calibration.temperature);
    let figures = melo::train::figures(&plugin.card.classes, calibration, &answers)?;
    let groups = subgroups(args, &manifest, &plugin, &answers)?;
    if let Some(path) = &args.predictions {
        write_predictions(path, &plugin, &dataset, &answers, &probabilities)?;
    }
    let metrics = match plugin.card.kind.has_probabilities() {
        true => Some(melo::train::evaluate(&dataset, plugin.card.kind, &probabilities, &calibration.thresholds)?),
        false => None,
    };
    let classes = &plugin.card.classes;
    if args.json {
        let mut object = summary(&plugin, &*engine, split, metrics.as_ref())?;
        object["intervals"] = intervals(&figures);
        match &metrics {
            Some(metrics) => {
                object["collapse"] = collapse(metrics, classes);
                object["few_cases"] = few_cases(metrics, classes);
            }
            None => object["n"] = json!(answers.names.len()),
        }
        let further = figures.iter().filter(|(name, _)| metrics.is_none() || is_further(name));
        further.for_each(|(name, figure)| object[name] = json!(figure.value));
        if !args.subgroup.is_empty() {
            object["subgroups"] = serde_json::to_value(&groups)?;
        }
        return say_json(&object);
    }
    say(format!("{} on {}, {split} split", plugin.card.task, args.data.display()));
    match &metrics {
        Some(metrics) => say(melo::eval::table(metrics, classes).trim_end()),
        None => say(format!(
            "{} {}",
            answers.names.len(),
            match plugin {
                _ if plugin.bag.is_some() => "bags",
                _ if plugin.volume.is_some() => "volumes",
                _ => "images",
            }
        )),
    }
    let of_numbers = classes.iter().flat_map(|number| PRINTED.map(|name| format!("{name}/{number}")));
    let of_numbers = of_numbers.filter(|name| metrics.is_none() || name.starts_with("set_"));
    for name in PRINTED.map(str::to_owned).into_iter().chain(of_numbers) {
        if let Some(Figure { value, low, high }) = figures.get(&name) {
            say(format!("{} {value:.4}, 95 % interval {low:.4} to {high:.4}", title(&name)));
        }
    }
    groups.iter().map(describe).for_each(say);
    if let Some(metrics) = &metrics {
        advice::of_figures(&metrics.counts_per_class, classes).into_iter().for_each(say);
    }
    Ok(())
}

/// True for figures that are no metrics of every classifier: those of grades, of prediction sets and of the scope.
fn is_further(name: &str) -> bool {
    OF_GRADES.contains(&name) || name.starts_with("set_") || name == "scope_flagged"
}

/// Figures that grades have beside those of classes.
const OF_GRADES: [&str; 3] = ["kappa_quadratic", "kappa_linear", "mae"];

/// Figures that are printed with their intervals, in order.
const PRINTED: [&str; 22] = [
    "auc_macro",
    "acc",
    "balanced_acc",
    "kappa_quadratic",
    "kappa_linear",
    "mae",
    "baseline_mae",
    "rmse",
    "bias",
    "r2",
    "pearson",
    "dice",
    "iou",
    "hd95",
    "surface_dice",
    "set_coverage",
    "set_coverage_present",
    "set_size",
    "set_single",
    "set_empty",
    "set_width",
    "scope_flagged",
];

/// What a figure is called, one of a number with it.
fn title(name: &str) -> String {
    match name.split_once('/') {
        None if matches!(name, "dice" | "iou" | "hd95" | "surface_dice") => format!("mean {}", figure_in_words(name)),
        None => figure_in_words(name).to_owned(),
        Some((figure, number)) => format!("{number}: {}", figure_in_words(figure)),
    }
}

/// The groups of the columns that were asked for, by column and value.
fn subgroups(
    args: &Args,
    manifest: &Manifest,
    plugin: &BoundPlugin,
    answers: &Answers,
) -> Result<Vec<SubgroupFigure>, Failure> {
    if args.subgroup.is_empty() {
        return Ok(Vec::new());
    }
    if plugin.bag.is_some() {
        return Err(Failure::Usage(
            "--subgroup is for single images, and the plug-in answers for bags of them".to_owned(),
        ));
    }
    let table = args.meta.as_ref().unwrap_or(&manifest.path);
    let columns = columns_with(table, &args.subgroup, &args.reading.options())?;
    match answers.names.iter().filter(|name| columns.of(name).is_none()).count() {
        missing if missing > 0 && missing < answers.names.len() => {
            let (table, images) = (table.display(), answers.names.len());
            note(format_args!("warning: {table}: lists {} of the {images} images", images - missing));
        }
        _ => {}
    }
    Ok(melo::train::subgroup_figures(plugin, answers, &columns)?)
}

/// A subgroup in a line.
fn describe(group: &SubgroupFigure) -> String {
    let SubgroupFigure { column, value, images, figures } = group;
    let figure = |(name, figure): (&String, &Option<Figure>)| {
        let title = title(name);
        match figure {
            Some(Figure { value, low, high }) => format!("{title} {value:.4}, 95 % interval {low:.4} to {high:.4}"),
            None => format!("{title} undefined: one class only"),
        }
    };
    let figures: Vec<String> = figures.iter().map(figure).collect();
    format!("{column} {value}: {images} images, {}", figures.join("; "))
}

/// `{"auc_macro": [low, high], ...}`
fn intervals(figures: &BTreeMap<String, Figure>) -> Value {
    figures.iter().map(|(name, figure)| (name.clone(), json!([figure.low, figure.high]))).collect::<Map<_, _>>().into()
}

/// What the plug-in has collapsed to, by the names of the classes; `null` where it has not.
fn collapse(metrics: &Metrics, classes: &[String]) -> Value {
    let Some(Collapse { never, dominant, .. }) = metrics.collapse() else { return Value::Null };
    let never = never.iter().map(|never| json!({"class": classes[never.class], "cases": never.cases}));
    let dominant =
        dominant.iter().map(|most| json!({"class": classes[most.class], "called": most.called, "cases": most.cases}));
    json!({"never": never.collect::<Vec<_>>(), "dominant": dominant.collect::<Vec<_>>()})
}

/// Classes with fewer than [`FEW_CASES`] images that have them, and how many.
fn few_cases(metrics: &Metrics, classes: &[String]) -> Value {
    let few = classes.iter().zip(&metrics.positives_per_class).filter(|(_, cases)| **cases < FEW_CASES);
    few.map(|(class, cases)| (class.clone(), json!(cases))).collect::<Map<_, _>>().into()
}

/// The manifest with the splits that training saw and the classes in the plug-in's order.
pub(crate) fn read_manifest(reading: &DataArgs, data: &Path, card: &TaskCard) -> Result<Manifest, Failure> {
    let (manifest, assigned) = manifest_for(card, reading.manifest_for(card, data)?)?;
    if assigned != Assigned::Nothing {
        note(assigned);
    }
    Ok(manifest)
}

/// A split, decoded once; every broken file is listed first.
pub(crate) fn open_split(
    manifest: &Manifest,
    split: Split,
    preprocess: &Preprocess,
    cache: &Arc<Cache>,
) -> Result<Dataset, Failure> {
    let bar = bar(manifest.split(split).len(), "read");
    let opened = open_splits(manifest, &[split], preprocess, cache, &|done, _| bar.set_position(done as u64));
    bar.finish_and_clear();
    let mut sets = opened.inspect_err(list_unreadable)?;
    Ok(sets.swap_remove(0))
}

fn summary(
    plugin: &BoundPlugin,
    engine: &dyn Engine,
    split: Split,
    metrics: Option<&Metrics>,
) -> Result<Value, Failure> {
    let mut object = Map::new();
    object.insert("task".into(), json!(plugin.card.task));
    object.insert("split".into(), json!(split.word()));
    object.insert("classes".into(), json!(plugin.card.classes));
    if let Value::Object(fields) = serde_json::to_value(metrics)? {
        for (field, value) in fields {
            let value = match value {
                Value::Array(values) if field.ends_with("_per_class") => {
                    plugin.card.classes.iter().cloned().zip(values).collect::<Map<_, _>>().into()
                }
                other => other,
            };
            object.insert(field, value);
        }
    }
    object.insert("plugin_digest".into(), json!(plugin.digest));
    object.insert("backbone_digest".into(), json!(engine.backbone().digest()));
    object.insert("precision".into(), json!(engine.info().precision));
    object.insert("calibration".into(), json!(plugin.calibration().made));
    Ok(Value::Object(object))
}

/// How well each class of each image was found; empty where a figure is undefined.
fn write_masks_table(path: &Path, card: &TaskCard, answers: &Answers) -> Result<(), Failure> {
    let mut table = csv::Writer::from_writer(Vec::new());
    let classes = || card.classes.iter().skip(1);
    let figures = ["dice", "iou", "hd95", "surface_dice", "share", "true_share"];
    let named = classes().flat_map(|class| figures.map(|figure| format!("{figure}_{class}")));
    table.write_record(spreadsheet::row(std::iter::once("path".to_owned()).chain(named)))?;
    let c = card.classes.len();
    for (image, name) in answers.names.iter().enumerate() {
        let of_class = |class: usize| {
            let (at, said) =
                (image * c + class, |value: Option<f64>| value.map_or_else(String::new, |v| v.to_string()));
            let SegmentedClass { dice, iou, hd95, surface_dice, .. } = answers.masks[at];
            let shares = [answers.logits[at], answers.numbers[at]].map(|share| share.to_string());
            [dice, iou, hd95, surface_dice].map(said).into_iter().chain(shares)
        };
        table.write_record(spreadsheet::row(std::iter::once(name.clone()).chain((1..c).flat_map(of_class))))?;
    }
    let bytes = table.into_inner()?;
    Ok(melo::vit::write_atomically(path, &bytes)?)
}

fn write_predictions(
    path: &Path,
    plugin: &BoundPlugin,
    dataset: &Dataset,
    answers: &Answers,
    probabilities: &[f32],
) -> Result<(), Failure> {
    let (card, logits) = (&plugin.card, &answers.logits);
    if card.kind == TaskKind::Segmentation {
        return write_masks_table(path, card, answers);
    }
    let mut table = csv::Writer::from_writer(Vec::new());
    let mut head = vec!["path".to_owned()];
    match card.kind {
        TaskKind::SingleLabel | TaskKind::Ordinal => head.push("label".to_owned()),
        _ => {
            head.extend(card.classes.iter().map(|class| format!("label_{class}")));
        }
    }
    if card.kind.is_one_class() {
        head.push("predicted".to_owned());
    }
    let prefix = if card.kind.has_probabilities() { "p_" } else { "" };
    head.extend(card.classes.iter().map(|class| format!("{prefix}{class}")));
    let limits = plugin.calibration().scope_limits.as_ref();
    let scopes: Vec<Option<InScope>> =
        answers.distances.iter().map(|distances| limits.and_then(|limits| limits.read(*distances))).collect();
    let has_scope = scopes.iter().any(Option::is_some);
    head.extend(has_scope.then(|| SCOPE_SCORE.to_owned()));
    table.write_record(spreadsheet::row(head))?;
    let answers = logits.chunks_exact(card.classes.len()).zip(probabilities.chunks_exact(card.classes.len()));
    for (place, (row, (logits, values))) in melo::train::examples(dataset).into_iter().zip(answers).enumerate() {
        let mut record = vec![row.bag.as_ref().map_or(&row.name, |bag| &bag.name).clone()];
        match &row.labels {
            Labels::Single(label) => record.push(card.classes[*label].clone()),
            Labels::Multi(labels) => record.extend(labels.iter().map(ToString::to_string)),
            Labels::Values(values) => record.extend(values.iter().map(ToString::to_string)),
        }
        if card.kind.is_one_class() {
            record.push(card.classes[plugin.decide(logits).best()].clone());
        }
        record.extend(values.iter().map(ToString::to_string));
        record.extend(has_scope.then(|| scopes[place].map_or_else(String::new, |scope| scope.score.to_string())));
        table.write_record(spreadsheet::row(record))?;
    }
    let bytes = table.into_inner()?;
    Ok(melo::vit::write_atomically(path, &bytes)?)
}
