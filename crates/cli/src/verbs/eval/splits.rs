//! `melo eval --splits`: whether prediction sets keep their promise.

use super::{Args, open_split, read_manifest};
use crate::verbs::task::CACHE_MIB;
use crate::{Failure, say, say_json};
use melo::data::{Cache, Split};
use melo::train::{Answers, RepeatedSplits, SetSettings, SplitMean, repeated_splits};
use melo::vit::{Plugin, SetBy};
use serde::Serialize;
use std::sync::Arc;

/// Seed of the splits.
const SEED: u64 = 0;

/// The object of `--json`; the contract is `docs/json.md`.
#[derive(Serialize)]
struct Fields<'a> {
    task: &'a str,
    plugin_digest: &'a str,
    #[serde(flatten)]
    found: &'a RepeatedSplits,
}

pub(super) fn run(args: &Args, splits: usize) -> Result<(), Failure> {
    let engine = args.backbone.engine(args.precision.into())?;
    let plugin = Plugin::load(&args.plugin, engine.backbone())?.bind(&*engine)?;
    let (card, calibration) = (&plugin.card, plugin.calibration());
    if card.ensemble.is_some() {
        let why = "--splits is for single plug-ins: the folds of an ensemble were trained on the validation split";
        return Err(Failure::Usage(why.to_owned()));
    }
    let own = calibration.sets.as_ref().map(SetSettings::from).unwrap_or_default();
    let Some(asked) = args.sets.settings(Some(own))? else {
        return Err(Failure::Usage("--sets none leaves nothing for --splits".to_owned()));
    };
    asked.check(card.kind)?;
    let manifest = read_manifest(&args.reading, &args.data, card)?;
    let cache = Arc::new(Cache::new(CACHE_MIB << 20));
    let mut answers: Option<Answers> = None;
    for split in [Split::Val, Split::Test] {
        let dataset = open_split(&manifest, split, &card.preprocess, &cache)?;
        let of_split = Answers::of(&*engine, &plugin, &dataset)?;
        answers = Some(match answers {
            None => of_split,
            Some(before) => before.with(of_split),
        });
    }
    let answers = answers.expect("two splits were answered");
    let found = repeated_splits(&card.classes, &answers, calibration.temperature, &asked, (splits, SEED))?;
    if args.json {
        return say_json(&Fields { task: &card.task, plugin_digest: &plugin.digest, found: &found });
    }
    say(table(&card.task, &found));
    Ok(())
}

fn table(task: &str, found: &RepeatedSplits) -> String {
    let RepeatedSplits { splits, images, fitted_on, held_to, rule, figures } = found;
    let by = match rule.by {
        SetBy::All => "all images",
        SetBy::Class => "each class",
    };
    let mut lines = vec![
        format!(
            "{task}: {images} validation and test images in {splits} random splits by patient, sets fitted on {fitted_on} patients and held to {held_to}"
        ),
        format!("{}, coverage {} promised for {by}", rule.method, rule.coverage),
    ];
    let width = figures.keys().map(|name| name.chars().count()).max().unwrap_or(0);
    lines.push(format!("{:<width$}  mean    Monte-Carlo error  split to split", "figure"));
    for (name, SplitMean { mean, deviation, error }) in figures {
        lines.push(format!("{name:<width$}  {mean:<6.4}  {error:<17.4}  {deviation:.4}"));
    }
    lines.join("\n")
}
