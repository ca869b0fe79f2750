//! Ensembles of folds: the training and validation split in `k` parts by patient, and a member for each, trained on the others and validated on
//! it.
//!
//! What the member that did not see an image says of it is said out of fold. Temperature, thresholds and prediction sets are fitted on these
//! answers, none of which is of a member that was trained on the patient. They are applied to the mean of all members, which is better than one
//! of them: sets are rather too large than too small.
//!
//! By default members are trained on top of one plug-in, the base, of the manifest's own splits: its updates are merged into the weights,
//! members adapt the last blocks of these, and what comes out is the base's updates beside a member's own. The base has seen the
//! training split, so that of what is said out of fold only that of the validation split's images counts.

use crate::answers::Answers;
use crate::calibrate::calibrate;
use crate::config::{Kept, TrainConfig};
use crate::error::Error;
use crate::errors::{agreement, mean_errors};
use crate::examples::measure;
use crate::folder::RunFolder;
use crate::job::{Finished, ReadyJob, test_answers, today};
use crate::model::Start;
use crate::scope::{describe, have_scope};
use crate::state::{EpochRow, to_json};
use crate::team::Team;
use crate::trainer::{Event, Outcome, RunOptions, Task, train};
use melo_data::{Dataset, Manifest, Split, unread_splits};
use melo_vit::{
    Adapter, Calibration, Checkpoint, Device, Engine, Ensemble, Member, MemberRecord, Plugin, TaskCard, TaskKind,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The members that are trained so far.
#[derive(Default)]
struct Members {
    plugins: Vec<Plugin>,
    records: Vec<MemberRecord>,
    histories: Vec<Vec<EpochRow>>,
    best: Vec<EpochRow>,
    /// Trained values of all, and of what they share.
    trainable: usize,
    /// What is said of every image of their folds.
    out_of_fold: Option<Answers>,
}

impl ReadyJob {
    /// Trains a member for each fold, or goes on with the one that it was in.
    ///
    /// # Errors
    /// As [`ReadyJob::run`].
    pub(crate) fn run_folds(
        self,
        [train_set, val_set, test_set]: [&Dataset; 3],
        options: RunOptions<'_>,
    ) -> Result<Finished, Error> {
        let (asked_sets, asked_scope) = (self.sets, self.scope);
        let ReadyJob { start, home, manifest, card, config, storage, needs_test, cache, team, folds: parts, .. } = self;
        let folds = parts.len();
        let RunOptions { folder, resume, stop, observer } = options;
        let backbone = start.config().parameters();
        let base = match (&config.late, self.weights) {
            (Some(late), Some((device, checkpoint))) => {
                observer(Event::Base);
                let folder = folder.map(RunFolder::base).transpose()?;
                let of_splits = Task {
                    start: start.clone(),
                    card: card.clone(),
                    train: train_set,
                    val: val_set,
                    volume: None,
                    team: &team,
                };
                let options = RunOptions { folder: folder.as_ref(), resume, stop, observer: &mut *observer };
                let shared = train(of_splits, &config.of_base(), options)?;
                Some(Base::new(shared, &*device, *checkpoint, &team, config.of_member(late))?)
            }
            _ => None,
        };
        let (start, of_member) = match &base {
            Some(base) => (Start::Frozen(Arc::clone(&base.engine)), &base.config),
            None => (start, &config),
        };
        let (engine, _) = home.finish(None, storage)?;
        let together = team.engine(Arc::clone(&engine));
        let vit = engine.backbone().config();
        let shared = base.as_ref().map(|base| base.config.lora.blocks.first().copied().unwrap_or(0));
        // Without a base the images that are described are among those that limits would be fitted on.
        let asked_scope = asked_scope.filter(|_| shared.is_some_and(|shared| have_scope(&card, vit, shared)));
        let mut scope = None;
        let trainable = base.as_ref().map_or(0, |base| base.trainable);
        let mut members = Members { trainable, ..Members::default() };
        for (fold, of_fold) in parts.into_iter().enumerate() {
            observer(Event::Fold { fold: fold + 1, of: folds });
            let mut sets = unread_splits(&of_fold, &[Split::Train, Split::Val], &card.preprocess, &cache)?;
            let (held_out, others) = (sets.pop(), sets.pop());
            let (Some(held_out), Some(others)) = (held_out, others) else {
                unreachable!("a data set for each of two splits");
            };
            let folder = folder.map(|folder| folder.fold(fold + 1)).transpose()?;
            let task = Task {
                start: start.clone(),
                card: card.clone(),
                train: &others,
                val: &held_out,
                volume: None,
                team: &team,
            };
            let options = RunOptions { folder: folder.as_ref(), resume, stop, observer: &mut *observer };
            let mut outcome = train(task, &of_fold_alone(of_member, fold), options)?;
            outcome.plugin.card.provenance.seed = config.seed;
            outcome.plugin.card.provenance.settings = to_json(&config);
            let images = [&others, &held_out].map(Dataset::len);
            let mut unseen = held_out;
            if let Some(base) = &base {
                outcome.plugin.adapter = base.adapter.beside(&outcome.plugin.adapter, vit);
                outcome.plugin.card.lora = outcome.plugin.adapter.config.clone();
                let of_fold = unseen_by_base(&of_fold, &manifest);
                let rows = of_fold.split(Split::Val).into_iter().cloned().collect();
                unseen = Dataset::new(rows, card.preprocess.clone(), Arc::clone(&cache));
            }
            outcome.plugin.round(storage);
            if asked_scope.is_some() && scope.is_none() {
                scope = Some(describe(&*together, &outcome.plugin, train_set, storage)?);
            }
            outcome.plugin.card.scope = scope.as_ref().map(|scope| scope.config.clone());
            outcome.plugin.scope.clone_from(&scope);
            // Few validation images may all be in other folds.
            let val = (!unseen.is_empty()).then(|| Answers::of(&*together, &outcome.plugin, &unseen)).transpose()?;
            members.add(outcome, images, of_fold.split_digest(), val);
        }
        let Members { plugins, records, histories, best, trainable, out_of_fold } = members;
        let out_of_fold = out_of_fold.expect("a fold holds images that are new to its member");
        let first = plugins.iter().filter_map(|plugin| plugin.adapter.first_block()).min().unwrap_or(vit.depth);
        let cost = vit.ensemble_cost(card.preprocess.size, shared.unwrap_or(first), folds);
        let mut plugin = ensemble(plugins, Ensemble { members: records, cost, shared });
        plugin.card.provenance.train_images =
            [Split::Train, Split::Val].map(|split| manifest.examples(split)).iter().sum();
        // What is said of the test split is read by them.
        calibrate(&mut plugin.card, &out_of_fold, None, (asked_sets.as_ref(), asked_scope.as_ref()))?;
        let best = mean_row(&best, validation_figures(&out_of_fold, &plugin.card.own_calibration())?);
        let named = best.figures().into_iter().map(|(name, value)| (name.to_owned(), value));
        plugin.card.metrics = named.collect();
        let test = test_answers(&*together, &plugin, test_set, needs_test, observer)?;
        calibrate(&mut plugin.card, &out_of_fold, test.as_ref(), (asked_sets.as_ref(), asked_scope.as_ref()))?;
        plugin.card.provenance.date = today();
        plugin.finish(&*engine, storage)?;
        observer(Event::Card(&plugin.card));
        let history = mean_history(&histories, card.kind, of_member.kept);
        Ok(Finished {
            plugin,
            engine,
            checkpoint: None,
            storage,
            history,
            best,
            trainable,
            backbone,
            val: out_of_fold,
            test,
        })
    }
}

/// The manifest that an ensemble was trained on, once a member: its validation split is what is said out of fold, see [`crate::out_of_fold`].
///
/// # Errors
/// [`Error::OtherFolds`] for any other manifest; [`Error::Images`].
pub fn manifests_of_folds(card: &TaskCard, manifest: &Manifest) -> Result<Vec<Manifest>, Error> {
    let other = || Error::OtherFolds { path: manifest.path.clone(), task: card.task.clone() };
    let of_fold = |(fold, member): (usize, &MemberRecord)| {
        let of_fold = manifest.with_validation_fold(card.members(), fold, card.provenance.seed)?;
        match (of_fold.split_digest() == member.split_digest, card.has_base()) {
            (false, _) => Err(other()),
            (true, false) => Ok(of_fold),
            (true, true) => Ok(unseen_by_base(&of_fold, manifest)),
        }
    };
    card.ensemble.iter().flat_map(|ensemble| &ensemble.members).enumerate().map(of_fold).collect()
}

/// What is said of every image of the folds, one data set a member, by the member that did not see it.
///
/// # Errors
/// As [`Engine::forward`]; [`Error::Data`] where no fold has an image.
///
/// # Panics
/// If there is not a data set for each member.
pub fn out_of_fold(engine: &dyn Engine, plugin: &Plugin, folds: &[Dataset]) -> Result<Answers, Error> {
    assert_eq!(folds.len(), plugin.card.members(), "a data set for each member");
    let said = folds.iter().enumerate().filter(|(_, images)| !images.is_empty()).map(|(fold, images)| {
        let member = plugin.member(fold).expect("an ensemble has as many members as its card says");
        Answers::of(engine, &member, images)
    });
    let mut said = said.collect::<Result<Vec<_>, _>>()?.into_iter();
    let first = said.next().ok_or_else(nothing_unseen)?;
    Ok(said.fold(first, Answers::with))
}

/// The plug-in that members are trained on top of.
struct Base {
    adapter: Adapter,
    /// Its updates merged into the weights.
    engine: Arc<dyn Engine>,
    /// The settings of a member.
    config: TrainConfig,
    /// Its trained values.
    trainable: usize,
}

impl Base {
    fn new(
        shared: Outcome,
        device: &dyn Device,
        mut checkpoint: Checkpoint,
        team: &Arc<Team>,
        config: TrainConfig,
    ) -> Result<Self, Error> {
        let vit = checkpoint.config.clone();
        let adapter = shared.plugin.adapter;
        adapter.merge_into(&mut checkpoint.weights, &vit);
        let engine = team.engine(device.load(checkpoint.freeze())?);
        Ok(Base { adapter, engine, config, trainable: shared.trainable })
    }
}

/// A member's settings with a seed of its own, that no other fold and no other small seed has: members that begin alike end alike.
fn of_fold_alone(of_member: &TrainConfig, fold: usize) -> TrainConfig {
    TrainConfig { seed: of_member.seed ^ ((fold as u64 + 1) << 32), ..of_member.clone() }
}

/// A member's manifest, its fold without the images of patients that the base was trained on. It may be empty.
fn unseen_by_base(of_fold: &Manifest, manifest: &Manifest) -> Manifest {
    let trained = manifest.rows.iter().filter(|row| row.split == Some(Split::Train));
    let known: BTreeSet<&String> = trained.filter_map(|row| row.patient_id.as_ref()).collect();
    let mut unseen = of_fold.clone();
    for (row, own) in unseen.rows.iter_mut().zip(&manifest.rows) {
        let is_known = row.patient_id.as_ref().is_some_and(|patient| known.contains(patient));
        if row.split == Some(Split::Val) && (own.split != Some(Split::Val) || is_known) {
            row.split = None;
        }
    }
    unseen
}

fn nothing_unseen() -> Error {
    let reason = "has no image of a patient that is in no training, so nothing is said out of fold".to_owned();
    Error::Data { split: "val", reason }
}

/// The manifest once a member of these settings, its fold being the validation split; of settings of a single plug-in none.
///
/// # Errors
/// [`Error::Images`] where there are fewer patients than folds; [`Error::Setting`] where a fold, or all but it, have one label alone;
/// [`Error::Data`] where the plug-in that members share is trained on every patient.
pub(crate) fn cut(manifest: &Manifest, config: &TrainConfig) -> Result<Vec<Manifest>, Error> {
    let Some(folds) = config.folds else { return Ok(Vec::new()) };
    let of_fold = |fold| {
        let of_fold = manifest.with_validation_fold(folds, fold, config.seed)?;
        let alike = |split| {
            let rows = of_fold.split(split);
            rows.iter().all(|row| row.labels == rows[0].labels)
        };
        match alike(Split::Train) || alike(Split::Val) {
            false => Ok(of_fold),
            true => {
                let reason = format!(
                    "is {folds}, and every image of fold {} has the same label, or every other image: too few patients of a class",
                    fold + 1
                );
                Err(Error::Setting { setting: "folds", reason })
            }
        }
    };
    let parts = (0..folds).map(of_fold).collect::<Result<Vec<_>, _>>()?;
    let unseen = |of_fold: &Manifest| !unseen_by_base(of_fold, manifest).split(Split::Val).is_empty();
    match config.late.is_none() || parts.iter().any(unseen) {
        true => Ok(parts),
        false => Err(nothing_unseen()),
    }
}

impl Members {
    fn add(
        &mut self,
        outcome: Outcome,
        [train_images, val_images]: [usize; 2],
        split_digest: String,
        val: Option<Answers>,
    ) {
        let Outcome { plugin, history, best, trainable, .. } = outcome;
        let metrics: BTreeMap<String, f64> = plugin.card.metrics.clone();
        self.records.push(MemberRecord { train_images, val_images, split_digest, metrics });
        self.plugins.push(plugin);
        self.histories.push(history);
        self.best.push(best);
        self.trainable += trainable;
        self.out_of_fold = match (self.out_of_fold.take(), val) {
            (Some(all), Some(val)) => Some(all.with(val)),
            (all, val) => all.or(val),
        };
    }
}

/// Plug-ins of one task as one.
fn ensemble(plugins: Vec<Plugin>, record: Ensemble) -> Plugin {
    let mut plugins = plugins.into_iter();
    let mut plugin = plugins.next().expect("an ensemble has members");
    plugin.further = plugins.map(|Plugin { adapter, head, .. }| Member { adapter, head }).collect();
    plugin.card.ensemble = Some(record);
    plugin.share_blocks();
    plugin
}

/// The figures of a validation split, or of what is said out of fold, as a calibration reads the answers, and nothing else of a row.
pub(crate) fn validation_figures(answers: &Answers, calibration: &Calibration) -> Result<EpochRow, Error> {
    let mut row = EpochRow::default();
    if answers.kind == TaskKind::Regression {
        (row.val_r2, row.val_mae) = mean_errors(&answers.logits, &answers.numbers, answers.classes)?;
        return Ok(row);
    }
    let probabilities = answers.probabilities(calibration.temperature);
    let metrics = measure(answers.kind, &probabilities, &answers.labels, &calibration.thresholds)?;
    (row.val_auc_macro, row.val_acc) = (metrics.auc_macro, Some(metrics.acc));
    if let (TaskKind::Ordinal, Some(confusion)) = (answers.kind, &metrics.confusion) {
        let (kappa, mae) = agreement(confusion)?;
        (row.val_kappa, row.val_mae) = (Some(kappa.unwrap_or(0.0)), Some(mae));
    }
    Ok(row)
}

/// The mean of rows with the figures of another.
fn mean_row(rows: &[EpochRow], figures: EpochRow) -> EpochRow {
    let mean = |of: fn(&EpochRow) -> f64| rows.iter().map(of).sum::<f64>() / rows.len() as f64;
    EpochRow {
        epoch: mean(|row| row.epoch as f64).round() as usize,
        learning_rate: mean(|row| row.learning_rate),
        c: None,
        train_loss: mean(|row| row.train_loss),
        val_loss: mean(|row| row.val_loss),
        images_per_s: mean(|row| row.images_per_s),
        seconds: rows.iter().map(|row| row.seconds).sum(),
        ..figures
    }
}

/// Epoch by epoch the mean over the members that came so far.
fn mean_history(histories: &[Vec<EpochRow>], kind: TaskKind, kept: Kept) -> Vec<EpochRow> {
    let mut history: Vec<EpochRow> = Vec::new();
    for epoch in 0..histories.iter().map(Vec::len).max().unwrap_or(0) {
        let rows: Vec<EpochRow> = histories.iter().filter_map(|rows| rows.get(epoch)).cloned().collect();
        let mean = |of: fn(&EpochRow) -> Option<f64>| {
            let values: Vec<f64> = rows.iter().filter_map(of).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        let figures = EpochRow {
            val_auc_macro: mean(|row| row.val_auc_macro),
            val_acc: mean(|row| row.val_acc),
            val_kappa: mean(|row| row.val_kappa),
            val_r2: mean(|row| row.val_r2),
            val_mae: mean(|row| row.val_mae),
            ..EpochRow::default()
        };
        let mut row = EpochRow { epoch: epoch + 1, ..mean_row(&rows, figures) };
        row.best = kept == Kept::Last || row.is_best_after(&history, kind);
        history.push(row);
    }
    history
}
