//! `melo plugin recalibrate`: temperature and thresholds of a plug-in for another precision.

use crate::progress::Counter;
use crate::verbs::backbone_args::BackboneArgs;
use crate::verbs::data_args::DataArgs;
use crate::verbs::eval::{open_split, read_manifest};
use crate::verbs::scope_args::ScopeArgs;
use crate::verbs::set_args::SetArgs;
use crate::verbs::task::{CACHE_MIB, PrecisionArg, check_output};
use crate::{Failure, machine, note, say, say_json};
use melo::data::{Cache, Dataset, Manifest, Split};
use melo::train::{
    Answers, Reading, ScopeSettings, SetSettings, has_splits_of, manifests_of_folds, open_in_words, out_of_fold,
    recalibrate, scope_open_in_words,
};
use melo::vit::{ComputedOn, Engine, Plugin, PluginInfo, TaskCard, TaskKind};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Fit a plug-in's temperature and thresholds for another precision, and add them to its card
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    melo plugin recalibrate derm.safetensors --backbone vit.safetensors --data derm/labels.csv --precision int8\n  \
    melo plugin recalibrate derm.safetensors --backbone vit.safetensors --data derm/labels.csv --precision int8 \\\n    \
    --out derm_int8.safetensors --json\n  \
    melo plugin recalibrate derm.safetensors --backbone vit.safetensors --data new/labels.csv --precision f32 --coverage 0.95\n\n\
    They are fitted on the validation split, as at the end of a training, and a self-test is taken. The card keeps what it holds for \
    other precisions: whatever computes the plug-in then takes the calibration that is its own. Weights do not change; the digest \
    of the file does.\n\n\
    It says what the validation split says before and after: the AUC shows what the precision costs, the calibration error what the new \
    temperature mends.\n\n\
    An ensemble of folds is calibrated on what is said of every training and validation image by the fold that did not see it, so it needs \
    the images and splits that it was trained on.\n\n\
    Prediction sets are fitted too: as the card has them, or as --coverage, --sets and --sets-by say. Their promise is of images that \
    no training saw: a validation split that chose the best epoch is nearly that, one of new patients is. So are the limits of the \
    scope, where the plug-in has one, with the share of false alarms of the card or of --scope-false-alarms.")]
pub(crate) struct Args {
    /// Plug-in file
    plugin: PathBuf,
    #[command(flatten)]
    backbone: BackboneArgs,
    /// Manifest (CSV, .xlsx), a folder with a folder for every class, or a pack: best what it was trained on
    #[arg(long)]
    data: PathBuf,
    /// Numbers that go into the backbone's matrix products, to be calibrated for
    #[arg(long, value_enum)]
    precision: PrecisionArg,
    /// File to write [default: the plug-in itself, replaced atomically]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sets: SetArgs,
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    reading: DataArgs,
}

/// The object of `--json`; the contract is `docs/json.md`.
#[derive(Serialize)]
struct Fields<'a> {
    #[serde(serialize_with = "crate::json_path")]
    plugin: &'a Path,
    plugin_digest: &'a str,
    task: &'a str,
    images: usize,
    same_splits: Option<bool>,
    before: Option<&'a Reading>,
    unmended: &'a Reading,
    after: &'a Reading,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let path = &args.plugin;
    let out = args.out.as_deref().unwrap_or(path);
    if args.out.is_some() {
        check_output("--out", out, &[path, args.backbone.path(), &args.data])?;
    }
    let card = PluginInfo::read(path)?.card;
    let manifest = read_manifest(&args.reading, &args.data, &card)?;
    let same_splits = has_splits_of(&card, &manifest);
    warn(&card, &args.data, same_splits);
    let cache = Arc::new(Cache::new(CACHE_MIB << 20));
    let val = open(&card, &manifest, &cache)?;
    let target = ComputedOn::from(&machine::device(args.precision.into()).info());
    let before = before(args, &card, &target, &val)?;
    let engine = args.backbone.engine(args.precision.into())?;
    let mut plugin = Plugin::load(path, engine.backbone())?;
    let answers = answer(&*engine, &plugin, &val)?;
    let unmended = Reading::new(target.clone(), &card.own_calibration(), &answers)?;
    let own = card.own_calibration().sets;
    let sets = args.sets.settings(own.as_ref().map(SetSettings::from))?;
    let scope = card.scope_limits.as_ref().map(|own| args.scope.settings(ScopeSettings::from(own)));
    let new = recalibrate(&*engine, &plugin, &manifest, &answers, (sets.as_ref(), scope.as_ref()))?;
    if let Some(open) = new.scope_limits.as_ref().and_then(scope_open_in_words) {
        note(format_args!("warning: {open}"));
    }
    if let Some(open) = new.sets.as_ref().and_then(|rule| open_in_words(&card.classes, card.kind, rule)) {
        note(format_args!("warning: {open}"));
    }
    let after = Reading::new(target, &new.calibration(), &answers)?;
    plugin.card.recalibrate(new);
    let proven = plugin.prove(&*engine).map_err(|error| Failure::from(error).of(path))?;
    Plugin::replace_card(path, &proven.card, out)?;
    if args.json {
        return say_json(&Fields {
            plugin: out,
            plugin_digest: &PluginInfo::read(out)?.digest,
            task: &card.task,
            images: answers.names.len(),
            same_splits,
            before: before.as_ref(),
            unmended: &unmended,
            after: &after,
        });
    }
    say(table(&card, answers.names.len(), &before.into_iter().chain([unmended, after]).collect::<Vec<_>>()));
    let made = proven.calibration().made.clone();
    say(format_args!("wrote {}: calibrated for {made} too, format {}", out.display(), proven.card.format_written()));
    Ok(())
}

/// What there is to say of data that may not be what the plug-in was validated on.
fn warn(card: &TaskCard, data: &Path, same_splits: Option<bool>) {
    let data = data.display();
    match same_splits {
        Some(true) => {}
        Some(false) => note(format_args!(
            "warning: {data}: not the images and splits that {} was trained on; where its validation split holds images of that \
             training, the temperature comes out too low",
            card.task
        )),
        None => note(format_args!(
            "note: {data}: the card does not say which splits {} was trained on, so whether its validation split is new to it \
             cannot be told",
            card.task
        )),
    }
}

/// The validation split as the card's own engine and calibration have it, where that is computed here and is not what is
/// calibrated for; a plug-in that is not what it was is refused.
fn before(args: &Args, card: &TaskCard, target: &ComputedOn, val: &[Dataset]) -> Result<Option<Reading>, Failure> {
    let own = card.own_calibration();
    if own.made.engine != target.engine {
        return Ok(None);
    }
    let engine = args.backbone.engine(Some(own.made.precision))?;
    let plugin = Plugin::load(&args.plugin, engine.backbone())?;
    if card.self_test.is_some() {
        plugin.self_test(&*engine).map_err(|error| Failure::from(error).of(&args.plugin))?;
    }
    if own.made == *target {
        return Ok(None);
    }
    let answers = answer(&*engine, &plugin, val)?;
    Ok(Some(Reading::new(own.made.clone(), &own, &answers)?))
}

/// The validation split, or of an ensemble those of its folds.
fn open(card: &TaskCard, manifest: &Manifest, cache: &Arc<Cache>) -> Result<Vec<Dataset>, Failure> {
    if card.ensemble.is_none() {
        return Ok(vec![open_split(manifest, Split::Val, &card.preprocess, cache)?]);
    }
    let folds = manifests_of_folds(card, manifest)?;
    let images = |fold: &Manifest| match fold.split(Split::Val).is_empty() {
        true => Ok(Dataset::new(Vec::new(), card.preprocess.clone(), Arc::clone(cache))),
        false => open_split(fold, Split::Val, &card.preprocess, cache),
    };
    folds.iter().map(images).collect()
}

fn answer(engine: &dyn Engine, plugin: &Plugin, val: &[Dataset]) -> Result<Answers, Failure> {
    if plugin.card.ensemble.is_some() {
        return Ok(out_of_fold(engine, plugin, val)?);
    }
    let val = &val[0];
    let progress = Mutex::new(Counter::new(val.len(), "answer"));
    let begun = |images| progress.lock().unwrap_or_else(PoisonError::into_inner).set(images);
    Ok(Answers::observed(engine, plugin, val, &begun)?)
}

/// Before and after, a line each.
fn table(card: &TaskCard, images: usize, readings: &[Reading]) -> String {
    let split = if card.ensemble.is_some() { "out of fold," } else { "validation split of" };
    let mut lines = vec![format!("{}, {split} {images} images", card.task)];
    let heads: &[(&str, &str)] = match card.kind {
        TaskKind::Regression => &[("r2", "R2"), ("mae", "mean absolute error")],
        TaskKind::Segmentation => &[("dice", "mean Dice")],
        _ => &[("auc_macro", "macro AUC"), ("ece", "calibration error"), ("brier", "Brier score")],
    };
    let titles: Vec<String> = heads.iter().map(|(_, title)| format!("  {title:<9}")).collect();
    lines.push(format!("computed in    calibrated in  temperature{}", titles.concat()));
    for reading in readings {
        let figure = |(name, title): &(&str, &str)| {
            let figure = reading.figures.get(name).map_or("undefined".to_owned(), |figure| format!("{figure:.4}"));
            format!("  {figure:<width$}", width = title.len().max(9))
        };
        lines.push(format!(
            "{:<13}  {:<13}  {:<11.4}{}",
            reading.computed.to_string(),
            reading.calibration.to_string(),
            reading.temperature,
            heads.iter().map(figure).collect::<String>().trim_end()
        ));
    }
    for (class, name) in card.classes.iter().enumerate() {
        let of = |reading: &Reading| Some(format!("{:.3}", reading.thresholds.as_ref()?.get(class)?));
        let thresholds: Vec<String> = readings.iter().filter_map(of).collect();
        if !thresholds.is_empty() {
            lines.push(format!("{name}: reported from {}", thresholds.join(", then ")));
        }
    }
    lines.join("\n")
}
