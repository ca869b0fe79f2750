//! The training loop: one frozen or trained backbone, one task, epochs that are saved whole.

mod kept;
mod passes;
mod ranks;
mod task;

pub use task::{Event, Outcome, Resume, RunOptions, Task};

use crate::adamw::{AdamW, TensorStep};
use crate::config::{Kept, Solver, TrainConfig};
use crate::converged::{PATH, Probe};
use crate::error::Error;
use crate::examples::{Examples, class_counts, lengths, truth};
use crate::folder::RunFolder;
use crate::method::Method;
use crate::model::Model;
use crate::objective::Objective;
use crate::probe::{ProbeFeatures, ProbeImages};
use crate::schedule::Schedule;
use crate::state::{EpochRow, Record, State, Values};
use crate::team::Team;
use melo_data::{Augment, EpochAugment};
use melo_vit::{BagHead, Gradients, TaskCard, TaskKind, VolumeEmbedding};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Trains a task, or goes on with it, to its last epoch or to early stopping.
///
/// # Errors
/// Every cause by its name, see [`Error`]; finished epochs stay in the run folder.
pub fn train(task: Task<'_>, config: &TrainConfig, options: RunOptions<'_>) -> Result<Outcome, Error> {
    config.check()?;
    check_method(&task, config)?;
    check_splits(&task)?;
    let RunOptions { folder, resume, stop, observer } = options;
    if let Some(folder) = folder {
        folder.refuse_foreign()?;
    }
    let backbone = task.start.config().parameters();
    let mut run = Run::new(task, config)?;
    let taken_up = match folder {
        Some(folder) => run.take_up(folder, resume)?,
        None => false,
    };
    if let Some(folder) = folder
        && !taken_up
    {
        folder.clear()?;
    }
    run.spread_state(taken_up)?;
    if let Some(folder) = folder {
        folder.write_config(config)?;
    }
    let trainable = run.model.parameters();
    let (images, epochs_done) = (run.train.len(), run.record.history.len());
    observer(Event::Started { card: &run.card, config, trainable, backbone, images, epochs_done });
    if config.solver == Solver::Lbfgs && !run.sees_the_same() {
        let reason = "is lbfgs, which needs images that stay the same, and a classifier of pooled features".to_owned();
        return Err(Error::Setting { setting: "solver", reason });
    }
    if !run.is_finished() && run.is_probe() {
        run.compute_probe(folder, stop, observer)?;
    }
    while !run.is_finished() {
        let row = run.epoch(folder, stop, observer)?;
        run.check_ranks()?;
        if let Some(folder) = folder {
            run.save(folder)?;
        }
        observer(Event::Epoch(&row));
    }
    run.finish(trainable, backbone)
}

fn check_method(task: &Task<'_>, config: &TrainConfig) -> Result<(), Error> {
    if task.start.is_trained() != config.method.trains_backbone() {
        let start = if task.start.is_trained() { "trained" } else { "frozen" };
        let reason = format!("{} does not fit a backbone that is {start}", config.method);
        return Err(Error::Setting { setting: "method", reason });
    }
    let computes_in = task.start.engine_info().precision;
    if computes_in != config.precision {
        let reason = format!("is {}, but the engine computes in {computes_in}", config.precision);
        return Err(Error::Setting { setting: "precision", reason });
    }
    Ok(())
}

/// A split with one class teaches nothing, and a validation AUC must exist.
fn check_splits(task: &Task<'_>) -> Result<(), Error> {
    for (split, examples) in [("train", task.train), ("val", task.val)] {
        let wrong = |reason: &str| Err(Error::Data { split, reason: reason.to_owned() });
        if examples.is_empty() {
            return wrong("has no image");
        }
        if task.card.kind == TaskKind::Regression {
            let first = examples.labels(0);
            match (0..examples.len()).all(|index| examples.labels(index) == first) {
                true => return wrong("every image has the same numbers, so there is nothing to tell apart"),
                false => continue,
            }
        }
        if task.card.kind == TaskKind::Segmentation {
            continue;
        }
        let counts = class_counts(examples, task.card.classes.len());
        if !counts.iter().any(|&count| count > 0 && count < examples.len()) {
            return wrong("every image has the same label, so there is nothing to tell apart");
        }
    }
    Ok(())
}

/// A run in memory.
struct Run<'a> {
    card: TaskCard,
    train: &'a dyn Examples,
    val: &'a dyn Examples,
    config: &'a TrainConfig,
    model: Model,
    best: Values,
    optimizer: AdamW,
    /// How each tensor is stepped.
    tensor_steps: Vec<TensorStep>,
    record: Record,
    objective: Objective,
    gradients: Gradients,
    /// The same of what pools bags.
    bag_gradient: Option<BagHead>,
    /// The same of what embeds volumes.
    volume_gradient: Option<VolumeEmbedding>,
    /// Of every image, where a head alone is trained on images that stay the same.
    probe: Option<ProbeFeatures>,
    team: &'a Team,
}

impl<'a> Run<'a> {
    fn new(task: Task<'a>, config: &'a TrainConfig) -> Result<Self, Error> {
        let Task { start, card, train, val, volume, team } = task;
        let classes = card.classes.len();
        let (backbone, threads) = (start.digest(), start.engine_info().threads);
        let model = Model::new(start, config, &card, volume)?;
        // Ranks add as many lanes as an engine has at most.
        let lanes = if team.is_alone() { threads } else { model.engine().lanes(usize::MAX) };
        let record = Record {
            config: config.clone(),
            data_digest: [&*card.provenance.data_digest, &*card.provenance.mask_digest].concat(),
            backbone,
            classes: card.classes.clone(),
            threads: config.method.trains_backbone().then_some(lanes),
            preprocess: card.preprocess.clone(),
            steps: 0,
            history: Vec::new(),
        };
        Ok(Run {
            config,
            best: model.tensors().into_iter().cloned().collect(),
            optimizer: AdamW::new(model.tensors().into_iter().map(Vec::len)),
            record,
            objective: Objective::new(config, card.kind, classes, train),
            gradients: model.gradients(),
            bag_gradient: model.bag_gradient(),
            volume_gradient: model.volume.as_ref().map(VolumeEmbedding::zeros_like),
            tensor_steps: model.tensor_steps(config, &card.preprocess),
            probe: None,
            model,
            card,
            train,
            val,
            team,
        })
    }

    /// True where the run goes on from the folder's state.
    fn take_up(&mut self, folder: &RunFolder, resume: Resume) -> Result<bool, Error> {
        if resume == Resume::Never || !folder.has_state() {
            return Ok(false);
        }
        match self.restore(folder) {
            Err(Error::ResumeMismatch { .. } | Error::State { .. }) if resume == Resume::IfSame => Ok(false),
            restored => restored.map(|()| true),
        }
    }

    /// Takes up the folder's state, and makes from it what a kill between two files may have left behind.
    fn restore(&mut self, folder: &RunFolder) -> Result<(), Error> {
        let state = State::read(&folder.state(), &self.record, &self.model.tensor_shapes(&self.card.preprocess))?;
        self.best = state.best;
        self.optimizer = state.optimizer;
        self.record = state.record;
        folder.write_table(&self.record.history)?;
        let best = self.best.clone();
        self.set_values(&best)?;
        self.save_best(folder)?;
        self.set_values(&state.last)
    }

    fn set_values(&mut self, values: &Values) -> Result<(), Error> {
        self.model.tensors_mut().into_iter().zip(values).for_each(|(tensor, values)| tensor.clone_from(values));
        self.model.refresh()
    }

    fn is_finished(&self) -> bool {
        let done = self.record.history.len();
        let since_best = self.record.since_best(self.card.kind);
        let epochs = match self.config.solver {
            Solver::AdamW => self.config.epochs,
            Solver::Lbfgs => PATH.len(),
        };
        done >= epochs || (self.config.patience > 0 && since_best >= self.config.patience)
    }

    fn epoch(
        &mut self,
        folder: Option<&RunFolder>,
        stop: &AtomicBool,
        observer: &mut (dyn FnMut(Event<'_>) + Send),
    ) -> Result<EpochRow, Error> {
        let started = Instant::now();
        let done = self.record.history.len();
        let epoch = done + 1;
        let images = self.train.len();
        let (train_loss, learning_rate, c) = match self.config.solver {
            Solver::AdamW => self.steps(folder, stop, observer)?,
            Solver::Lbfgs => self.solve(folder, stop)?,
        };
        observer(Event::Validating { epoch });
        let (val_loss, judged) = match &self.model.head.decoder {
            Some(decoder) => self.judge_masks(decoder)?,
            None => {
                let (loss, answers) = self.validate()?;
                if self.objective.kind().has_probabilities() {
                    let truth = truth(self.val, self.card.classes.len());
                    observer(Event::Validated { epoch, probabilities: &answers, truth: &truth });
                }
                (loss, self.judge(&answers)?)
            }
        };
        let seconds = started.elapsed().as_secs_f64();
        let mut row = EpochRow {
            epoch,
            learning_rate,
            c,
            train_loss,
            val_loss,
            images_per_s: images as f64 / seconds,
            seconds,
            ..judged
        };
        row.best = self.config.kept == Kept::Last || row.is_best_after(&self.record.history, self.card.kind);
        if row.best {
            self.best = self.model.tensors().into_iter().cloned().collect();
        }
        self.record.history.push(row.clone());
        Ok(row)
    }

    /// The steps of an epoch: their mean loss, and the learning rate of the last.
    fn steps(
        &mut self,
        folder: Option<&RunFolder>,
        stop: &AtomicBool,
        observer: &mut (dyn FnMut(Event<'_>) + Send),
    ) -> Result<(f64, f64, Option<f64>), Error> {
        let done = self.record.history.len();
        let epoch = done + 1;
        let order = melo_data::shuffled(self.train.len(), self.config.seed, done as u64);
        let steps_per_epoch = order.len().div_ceil(self.config.batch_size);
        let schedule = Schedule {
            peak: self.config.learning_rate,
            floor: self.config.min_learning_rate,
            warmup_steps: (self.config.warmup_epochs * steps_per_epoch as f64).round() as usize,
            steps: self.config.epochs * steps_per_epoch,
        };
        let (mut loss, mut images, mut learning_rate) = (0.0, 0, 0.0);
        for (step, batch) in order.chunks(self.config.batch_size).enumerate() {
            go_on(self.team, stop, epoch, folder)?;
            if step == 0 && self.probe.is_none() && self.model.volume.is_none() {
                let augment =
                    EpochAugment { augment: &self.config.augment, seed: self.config.seed, epoch: done as u64 };
                let images = lengths(self.train, batch).iter().sum();
                let source = &*self.train.epoch(batch, Some(augment));
                observer(Event::Batch { epoch, source, images, size: self.train.size() });
            }
            learning_rate = schedule.at(done * steps_per_epoch + step);
            loss += self.step(batch, learning_rate)? * batch.len() as f64;
            images += batch.len();
            if !loss.is_finite() {
                return Err(Error::Diverged { loss, epoch, learning_rate: self.config.learning_rate });
            }
            observer(Event::Step { epoch, images, loss: loss / images as f64 });
        }
        Ok((loss / images as f64, learning_rate, None))
    }

    /// The next point on the path of penalties: the mean loss, no learning rate, and `C`.
    fn solve(&mut self, folder: Option<&RunFolder>, stop: &AtomicBool) -> Result<(f64, f64, Option<f64>), Error> {
        let done = self.record.history.len();
        go_on(self.team, stop, done + 1, folder)?;
        let c = PATH[done];
        let features = &self.probe.as_ref().expect("a head alone that is solved knows the features").train.values;
        let loss = Probe::new(features, self.train, &self.objective).solve(c, &mut self.model.head);
        Ok((loss, 0.0, Some(c)))
    }

    /// True where every epoch sees the same features, of which a head alone makes answers.
    fn sees_the_same(&self) -> bool {
        self.config.method == Method::Linear
            && self.model.head.blocks().is_none()
            && self.config.augment == Augment::none()
            && self.train.is_fixed()
            && self.val.is_fixed()
    }

    /// The same, and something that finds the head on features.
    fn is_probe(&self) -> bool {
        let nothing = |_: usize, _: &[f32], _: &mut [f32]| 0.0;
        let Model { head, bag, .. } = &self.model;
        self.sees_the_same()
            && (self.config.solver == Solver::Lbfgs
                || bag.is_some()
                || self.model.engine().head_step(&[], &nothing, head, &mut head.clone()).is_some())
    }

    fn compute_probe(
        &mut self,
        folder: Option<&RunFolder>,
        stop: &AtomicBool,
        observer: &mut (dyn FnMut(Event<'_>) + Send),
    ) -> Result<(), Error> {
        let images = ProbeImages {
            train: self.train,
            val: self.val,
            epoch: self.record.history.len() + 1,
            folder: folder.map(|folder| folder.path().to_owned()),
        };
        let progress = &mut |done, of| observer(Event::Features { done, of });
        self.probe = Some(images.features(self.model.engine(), stop, progress)?);
        Ok(())
    }
}

/// Refuses to go on with an epoch once it is stopped from outside, on any rank.
fn go_on(team: &Team, stop: &AtomicBool, epoch: usize, folder: Option<&RunFolder>) -> Result<(), Error> {
    match team.any("going on", stop.load(Ordering::Relaxed))? {
        true => Err(Error::Interrupted { epoch, folder: folder.map(|folder| folder.path().to_owned()) }),
        false => Ok(()),
    }
}
