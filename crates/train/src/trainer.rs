//! The training loop: one frozen or trained backbone, one task, epochs that are saved whole.

mod ranks;

use crate::adamw::{AdamW, AdamWStep, TensorStep};
use crate::config::{Solver, TrainConfig};
use crate::converged::{PATH, Probe};
use crate::error::Error;
use crate::errors::{agreement, mean_errors};
use crate::examples::{Examples, class_counts, evaluate, lengths, numbers, truth};
use crate::folder::RunFolder;
use crate::mask_loss::{MaskLoss, Overlap, mean_dice, of_outputs};
use crate::method::Method;
use crate::model::{Model, Start};
use crate::objective::Objective;
use crate::probe::{ProbeFeatures, ProbeImages};
use crate::schedule::Schedule;
use crate::state::{EpochRow, Record, State, Values, to_json};
use crate::team::Team;
use melo_data::{Assigned, Augment, EpochAugment};
use melo_vit::{
    BagBatch, BagHead, Batch, Checkpoint, Decoder, Dropout, Gradients, ImageSource, Plugin, TaskCard, TaskKind,
    VolumeEmbedding,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// One task to be trained.
pub struct Task<'a> {
    /// The backbone it starts from.
    pub start: Start,
    /// Classes, kind and preprocessing; metrics are filled in by the run.
    pub card: TaskCard,
    /// Training split.
    pub train: &'a dyn Examples,
    /// Validation split, which chooses the best epoch.
    pub val: &'a dyn Examples,
    /// What embeds volumes at the start; none where examples are images.
    pub volume: Option<VolumeEmbedding>,
    /// The processes that train it together; the engine of `start` shares its passes out among them.
    pub team: &'a Team,
}

/// News from a run, for whoever shows them.
pub enum Event<'a> {
    /// The manifest had not all splits, and was given them.
    Splits(Assigned),
    /// The plug-in that all members of an ensemble share is about to be trained.
    Base,
    /// A member of an ensemble is about to be trained.
    Fold {
        /// Its fold, from 1.
        fold: usize,
        /// Members in all.
        of: usize,
    },
    /// Images are read for the first time, before the first epoch.
    Reading {
        /// Images read.
        done: usize,
        /// Images to read.
        of: usize,
    },
    /// Features of a head alone are computed, before the first epoch.
    Features {
        /// Images done.
        done: usize,
        /// Images of both splits.
        of: usize,
    },
    /// Why there will be no test figures.
    NoTestFigures(&'a Error),
    /// Before the first epoch.
    Started {
        /// What is trained: metrics are not there yet.
        card: &'a TaskCard,
        /// The settings that are run.
        config: &'a TrainConfig,
        /// Trained values.
        trainable: usize,
        /// Values of the backbone.
        backbone: usize,
        /// Training images of an epoch.
        images: usize,
        /// Epochs already done, when resuming.
        epochs_done: usize,
    },
    /// Before the first step of an epoch, but of volumes, and of a head alone whose features are known.
    Batch {
        /// Epoch, from 1.
        epoch: usize,
        /// What the first step is about to learn from, augmented: `[3, size, size]` each.
        source: &'a dyn ImageSource,
        /// How many there are.
        images: usize,
        /// Their side, pixels.
        size: usize,
    },
    /// After every step.
    Step {
        /// Epoch, from 1.
        epoch: usize,
        /// Training images seen in this epoch.
        images: usize,
        /// Mean loss of this epoch so far.
        loss: f64,
    },
    /// After the last step of an epoch: the validation split is about to be judged.
    Validating {
        /// Epoch, from 1.
        epoch: usize,
    },
    /// The answers to the validation split, of classes, grades and findings.
    Validated {
        /// Epoch, from 1.
        epoch: usize,
        /// Probabilities, `[n, c]`.
        probabilities: &'a [f32],
        /// Which classes or findings are true, `[n, c]`.
        truth: &'a [bool],
    },
    /// After every epoch, when its state is on the disk.
    Epoch(&'a EpochRow),
    /// The finished card, with the figures of the test split where there are any.
    Card(&'a TaskCard),
}

/// What becomes of a state that a run folder holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// It is removed.
    Never,
    /// The run goes on from it.
    Always,
    /// The run goes on from it where it belongs to this run; one of other settings, data or threads is removed.
    IfSame,
}

/// How a run behaves besides its settings: none of these changes the result.
pub struct RunOptions<'a> {
    /// Folder for settings, table and states; without one nothing is kept on the way.
    pub folder: Option<&'a RunFolder>,
    /// What becomes of a state in the folder.
    pub resume: Resume,
    /// Set from outside to stop after the step in flight.
    pub stop: &'a AtomicBool,
    /// Told the news.
    pub observer: &'a mut (dyn FnMut(Event<'_>) + Send),
}

/// A finished run.
#[derive(Debug)]
pub struct Outcome {
    /// The plug-in of the best epoch, its card filled in but for calibration and self-test; with full fine-tuning
    /// it belongs to `checkpoint`.
    pub plugin: Plugin,
    /// The backbone of the best epoch, with full fine-tuning.
    pub checkpoint: Option<Checkpoint>,
    /// Every epoch.
    pub history: Vec<EpochRow>,
    /// The best one.
    pub best: EpochRow,
    /// Trained values.
    pub trainable: usize,
    /// Values of the backbone, without a classifier.
    pub backbone: usize,
}

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
        let since_best = self.record.best().map_or(0, |best| done - best.epoch);
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
        row.best = self.record.best().is_none_or(|best| row.is_better(best, self.card.kind));
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

    /// One optimizer step on the images at `batch`; returns the mean loss before it.
    fn step(&mut self, batch: &[usize], learning_rate: f64) -> Result<f64, Error> {
        let train = self.train;
        let epoch = self.record.history.len() as u64;
        let augment = EpochAugment { augment: &self.config.augment, seed: self.config.seed, epoch };
        let source = train.epoch(batch, Some(augment));
        let scale = 1.0 / self.objective.normaliser(train, batch);
        let objective = &self.objective;
        let decoder = self.model.head.decoder.as_ref();
        let masks = decoder.map(|decoder| MaskLoss::new(decoder, train, &*source, batch, Some(augment)));
        let image_loss = |image: usize, logits: &[f32], d_logits: &mut [f32]| match &masks {
            Some(masks) => masks.step(image, logits, train.weight(batch[image]) * scale, d_logits),
            None => objective.loss(train.labels(batch[image]), logits, train.weight(batch[image]) * scale, d_logits),
        };
        let input = Batch {
            source: &*source,
            images: batch.len(),
            size: train.size(),
            loss: &image_loss,
            dropout: self.dropout(),
        };
        self.gradients.clear();
        let of_bags = self.bag_gradient.iter_mut().flat_map(BagHead::tensors_mut);
        let of_volumes = self.volume_gradient.iter_mut().flat_map(VolumeEmbedding::tensors_mut);
        of_bags.chain(of_volumes).for_each(|tensor| tensor.fill(0.0));
        let Model { adapter, head, bag, volume, .. } = &self.model;
        let engine = self.model.engine();
        let known: Option<Vec<f32>> =
            self.probe.as_ref().map(|probe| batch.iter().flat_map(|&index| probe.train.of(index)).copied().collect());
        let of_both = (&mut self.bag_gradient, &mut self.volume_gradient);
        let (loss, _) = match (bag, volume, of_both) {
            (Some(bag), _, (Some(of_bag), _)) => {
                let lengths = lengths(train, batch);
                match known {
                    Some(features) => {
                        let into = (of_bag, &mut self.gradients.head);
                        let step = bag.step(&features, &lengths, &image_loss, head, into);
                        (step.loss, step.logits)
                    }
                    None => {
                        let Batch { source, size, loss, dropout, .. } = input;
                        let input = BagBatch { source, lengths: &lengths, size, loss, dropout };
                        engine.bag_step(&input, adapter, (bag, head), (of_bag, &mut self.gradients))?
                    }
                }
            }
            (_, Some(volume), (_, Some(of_volume))) => {
                engine.volume_step(&input, (adapter, head), volume, (of_volume, &mut self.gradients))?
            }
            _ => match known.and_then(|of| engine.head_step(&of, &image_loss, head, &mut self.gradients.head)) {
                Some(step) => step,
                None => engine.step(&input, adapter, head, &mut self.gradients)?,
            },
        };
        if let Some(masks) = masks {
            masks.finish(&mut self.gradients.head, self.team)?;
        }
        let mut gradients = self.gradients.tensors_mut();
        gradients.extend(self.bag_gradient.iter_mut().flat_map(BagHead::tensors_mut));
        gradients.extend(self.volume_gradient.iter_mut().flat_map(VolumeEmbedding::tensors_mut));
        clip(&mut gradients, self.config.clip_norm);
        let gradients: Vec<&Vec<f32>> = gradients.into_iter().map(|tensor| &*tensor).collect();
        let step = AdamWStep::new(learning_rate, self.config.weight_decay);
        self.optimizer.step(self.model.tensors_mut(), &gradients, &self.tensor_steps, step);
        self.model.refresh()?;
        Ok(loss)
    }

    /// Dropout of the step to be taken: steps are counted over the whole run, also when it was resumed.
    fn dropout(&self) -> Option<Dropout> {
        let TrainConfig { lora_dropout: probability, seed, .. } = *self.config;
        (probability > 0.0).then_some(Dropout { probability, seed, step: self.optimizer.steps })
    }

    /// Mean loss and answers `[n, c]` on the validation split.
    fn validate(&self) -> Result<(f64, Vec<f32>), Error> {
        let val = self.val;
        let classes = self.card.classes.len();
        let order: Vec<usize> = (0..val.len()).collect();
        let engine = self.model.engine();
        let Model { adapter, head, bag, volume, .. } = &self.model;
        let mut logits = match (bag, &self.probe) {
            (None, Some(probe)) => engine.classify(&probe.val.values, head),
            (None, None) => {
                let source = val.epoch(&order, None);
                engine.logits_of(&*source, (val.len(), val.size()), self.model.plugin(), volume.as_ref())?
            }
            (Some(bag), Some(probe)) => {
                let pooled = order.iter().flat_map(|&index| bag.pool(probe.val.of(index)).features);
                engine.classify(&pooled.collect::<Vec<_>>(), head)
            }
            (Some(bag), None) => {
                let (source, lengths) = (val.epoch(&order, None), lengths(val, &order));
                engine.bag_logits(&*source, &lengths, val.size(), Some(adapter), (bag, head))?.logits
            }
        };
        let scale = 1.0 / self.objective.normaliser(val, &order);
        let mut d_logits = vec![0.0; classes];
        let mut loss = 0.0;
        for (index, logits) in logits.chunks_exact_mut(classes).enumerate() {
            loss += self.objective.loss(val.labels(index), logits, val.weight(index) * scale, &mut d_logits);
            self.objective.answer(logits);
        }
        Ok((loss, logits))
    }

    /// Mean loss and figures of masks on the validation split.
    fn judge_masks(&self, decoder: &Decoder) -> Result<(f64, EpochRow), Error> {
        let val = self.val;
        let order: Vec<usize> = (0..val.len()).collect();
        let source = val.epoch(&order, None);
        let judge = MaskLoss::new(decoder, val, &*source, &order, None);
        let images = (&*source, val.len(), val.size());
        let judged = of_outputs(self.model.engine(), self.model.plugin(), images, |image, of| judge.judge(image, of))?;
        let (losses, overlaps): (Vec<f64>, Vec<Vec<Overlap>>) = judged.into_iter().unzip();
        let loss = losses.iter().sum::<f64>();
        let val_dice = Some(mean_dice(&overlaps).unwrap_or(0.0));
        Ok((loss / val.len() as f64, EpochRow { val_dice, ..EpochRow::default() }))
    }

    /// The figures of answers `[n, c]` on the validation split, and nothing else of a row.
    fn judge(&self, answers: &[f32]) -> Result<EpochRow, Error> {
        let mut row = EpochRow::default();
        let kind = self.objective.kind();
        if kind == TaskKind::Regression {
            let truth = numbers(self.val);
            (row.val_r2, row.val_mae) = mean_errors(answers, &truth, self.card.classes.len())?;
            return Ok(row);
        }
        let metrics = evaluate(self.val, kind, answers, &self.card.thresholds)?;
        row.val_auc_macro = Some(metrics.auc_macro.expect("the validation split holds a class and its opposite"));
        row.val_acc = Some(metrics.acc);
        if let (TaskKind::Ordinal, Some(confusion)) = (kind, &metrics.confusion) {
            let (kappa, mae) = agreement(confusion)?;
            (row.val_kappa, row.val_mae) = (Some(kappa.unwrap_or(0.0)), Some(mae));
        }
        Ok(row)
    }

    fn save(&mut self, folder: &RunFolder) -> Result<(), Error> {
        self.record.steps = self.optimizer.steps;
        let state = State {
            record: self.record.clone(),
            last: self.model.tensors().into_iter().cloned().collect(),
            best: self.best.clone(),
            optimizer: self.optimizer.clone(),
        };
        state.write(&folder.state(), &self.model.tensor_shapes(&self.card.preprocess))?;
        folder.write_table(&self.record.history)?;
        if self.record.history.last().is_some_and(|row| row.best) {
            self.save_best(folder)?;
        }
        Ok(())
    }

    /// Writes the values now in the model as those of the best epoch.
    fn save_best(&self, folder: &RunFolder) -> Result<(), Error> {
        match self.model.checkpoint() {
            None => self.plugin().save(&folder.best(), self.model.vit(), melo_vit::Storage::F32)?,
            Some(checkpoint) => checkpoint.write(&folder.best(), melo_vit::Storage::F32)?,
        }
        Ok(())
    }

    /// The plug-in of the values now in the model, with the best epoch's metrics.
    fn plugin(&self) -> Plugin {
        let Model { adapter, head, bag, volume, .. } = &self.model;
        let (adapter, head, bag) = (adapter.clone(), self.objective.in_units(head.clone()), bag.clone());
        Plugin {
            card: self.card(),
            adapter,
            head,
            further: Vec::new(),
            bag,
            volume: volume.clone(),
            scope: None,
            digest: String::new(),
        }
    }

    /// The task's card with the settings of this run and the best epoch's metrics.
    fn card(&self) -> TaskCard {
        let mut card = self.card.clone();
        card.lora = self.config.lora.clone();
        card.bottleneck = self.config.bottleneck.clone();
        card.bag = self.config.bag;
        card.provenance.seed = self.config.seed;
        card.provenance.precision = self.config.precision;
        card.provenance.train_images = self.train.len();
        card.provenance.settings = to_json(self.config);
        if let Some(best) = self.record.best() {
            card.metrics.insert("best_epoch".into(), best.epoch as f64);
            card.metrics.extend(best.figures().into_iter().map(|(name, value)| (name.to_owned(), value)));
        }
        card
    }

    fn finish(mut self, trainable: usize, backbone: usize) -> Result<Outcome, Error> {
        let best = std::mem::take(&mut self.best);
        self.model.tensors_mut().into_iter().zip(best).for_each(|(tensor, values)| *tensor = values);
        let row = self.record.best().cloned().expect("the first epoch is the best so far");
        let mut card = self.card();
        let Model { adapter, head, bag, volume, checkpoint, .. } = self.model;
        if let Some(checkpoint) = &checkpoint {
            card.backbone.digest = checkpoint.digest();
        }
        Ok(Outcome {
            plugin: Plugin {
                card,
                adapter,
                head: self.objective.in_units(head),
                further: Vec::new(),
                bag,
                volume,
                scope: None,
                digest: String::new(),
            },
            checkpoint: checkpoint.map(|checkpoint| *checkpoint),
            best: row,
            trainable,
            backbone,
            history: self.record.history,
        })
    }
}

/// Refuses to go on with an epoch once it is stopped from outside, on any rank.
fn go_on(team: &Team, stop: &AtomicBool, epoch: usize, folder: Option<&RunFolder>) -> Result<(), Error> {
    match team.any("going on", stop.load(Ordering::Relaxed))? {
        true => Err(Error::Interrupted { epoch, folder: folder.map(|folder| folder.path().to_owned()) }),
        false => Ok(()),
    }
}

/// Scales the gradient down to an L2 norm of `limit`, as PyTorch's `clip_grad_norm_`; 0 is unlimited.
fn clip(gradients: &mut [&mut Vec<f32>], limit: f64) {
    let square = |tensor: &&mut Vec<f32>| tensor.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
    let norm = gradients.iter().map(square).sum::<f64>().sqrt();
    if limit > 0.0 && norm > limit {
        let scale = (limit / (norm + 1e-6)) as f32;
        gradients.iter_mut().flat_map(|tensor| tensor.iter_mut()).for_each(|x| *x *= scale);
    }
}
