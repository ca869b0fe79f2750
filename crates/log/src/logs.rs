//! What a training says, handed on to its logs.

use crate::mlflow::{MlFlow, Server};
use crate::pr_curve::PrCurve;
use crate::record::{Record, Run, Status, settings, tags};
use crate::tensorboard::TensorBoard;
use crate::worker::{Sink, Worker};
use melo_imaging::Pixels;
use melo_train::{EpochRow, Event, Solver, TrainConfig};
use melo_vit::{ImageSource, TaskCard};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Images of a batch that are shown, and those beside each other.
const SHOWN: usize = 8;
const ACROSS: usize = 4;
/// Classes that have curves.
const CLASSES: usize = 20;
/// How often the loss within an epoch is told at most.
const LOSS_EVERY: Duration = Duration::from_secs(1);

/// Told what could not be logged.
pub type Warn = Arc<dyn Fn(&str) + Send + Sync>;

/// Where a training is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Event files in this folder, the run's own.
    TensorBoard(PathBuf),
    /// A run of this server.
    MlFlow(Server),
}

/// The logs of one training; of an ensemble those of each member, and its own.
pub struct Logs {
    destinations: Vec<Destination>,
    run: Run,
    warn: Warn,
    /// The member that is trained, and its settings.
    member: Option<String>,
    config: Option<TrainConfig>,
    training: Option<Training>,
    /// Members that were trained; what they said may be on its way.
    members: Vec<Training>,
}

impl Logs {
    /// Logs of a run; nothing is written before it begins.
    pub fn new(destinations: Vec<Destination>, run: Run, warn: Warn) -> Self {
        Logs { destinations, run, warn, member: None, config: None, training: None, members: Vec::new() }
    }

    /// Takes what there is to log of an event, without waiting.
    pub fn show(&mut self, event: &Event<'_>) {
        match event {
            Event::Base => {
                self.end_member();
                self.member = Some("base".to_owned());
            }
            Event::Fold { fold, .. } => {
                self.end_member();
                self.member = Some(format!("fold-{fold}"));
            }
            Event::Started { card, config, images, epochs_done, .. } => {
                self.config = Some((*config).clone());
                self.begin((*card, *config), *images, *epochs_done);
            }
            Event::Card(card) if self.member.is_some() => {
                self.end_member();
                self.member = None;
                if let Some(config) = self.config.clone() {
                    self.begin((*card, &config), 0, 0);
                }
            }
            _ => {}
        }
        if let Some(training) = &mut self.training {
            training.show(event);
        }
    }

    /// A member was trained; that is not waited for.
    fn end_member(&mut self) {
        if let Some(mut training) = self.training.take() {
            training.add(&Record::End { at: SystemTime::now(), status: Status::Finished });
            self.members.push(training);
        }
    }

    /// Ends the logs, with the plug-in's file where there is one, and waits until all is written or nobody takes it.
    pub fn end(self, status: Status, plugin: Option<&Path>) {
        let Some(mut training) = self.training else { return };
        if let Some(path) = plugin {
            training.add(&Record::Plugin { step: training.step, at: SystemTime::now(), path: path.to_owned() });
        }
        training.add(&Record::End { at: SystemTime::now(), status });
    }

    fn begin(&mut self, (card, config): (&TaskCard, &TrainConfig), images: usize, epochs_done: usize) {
        let mut own = self.run.clone();
        let given = |tag: &str| self.run.tags.iter().any(|(given, _)| given == tag);
        own.tags.extend(tags(card, config).into_iter().filter(|(tag, _)| !given(tag)));
        let part = self.member.clone();
        if let Some(part) = &part {
            own.name = format!("{}/{part}", own.name);
            own.folder = own.folder.map(|folder| folder.join(part));
            own.tags.push(("member".to_owned(), part.clone()));
        }
        let sink = |destination: &Destination| -> Box<dyn Sink> {
            match destination {
                Destination::TensorBoard(folder) => {
                    Box::new(TensorBoard::new(&part.iter().fold(folder.clone(), |folder, part| folder.join(part))))
                }
                Destination::MlFlow(server) => Box::new(MlFlow::new(server, &own, settings(card, config))),
            }
        };
        let steps_per_epoch = match config.solver {
            Solver::AdamW => images.div_ceil(config.batch_size).max(1) as u64,
            Solver::Lbfgs => 1,
        };
        let mut training = Training {
            workers: self.destinations.iter().map(|to| Worker::start(sink(to), Arc::clone(&self.warn))).collect(),
            classes: card.classes.clone(),
            mean: card.preprocess.mean,
            std: card.preprocess.std,
            steps_per_epoch,
            step: epochs_done as u64 * steps_per_epoch,
            told: Instant::now(),
        };
        training.add(&Record::Begin { steps: training.step, goes_on: epochs_done > 0 });
        self.training = Some(training);
    }
}

/// A training that has begun.
struct Training {
    workers: Vec<Worker>,
    classes: Vec<String>,
    mean: [f32; 3],
    std: [f32; 3],
    steps_per_epoch: u64,
    /// Steps taken.
    step: u64,
    /// When the loss within an epoch was told.
    told: Instant,
}

impl Training {
    fn show(&mut self, event: &Event<'_>) {
        match event {
            Event::Batch { epoch, source, images, size } if epoch.is_power_of_two() && self.wants_pictures() => {
                if let Some(pixels) = self.picture(*source, (*images).min(SHOWN), *size) {
                    let step = (*epoch as u64 - 1) * self.steps_per_epoch + 1;
                    self.add(&Record::Picture { step, at: SystemTime::now(), tag: "train/batch", pixels });
                }
            }
            Event::Step { loss, .. } => {
                self.step += 1;
                if self.told.elapsed() >= LOSS_EVERY {
                    self.told = Instant::now();
                    self.scalars(vec![("train_loss_so_far".to_owned(), *loss)]);
                }
            }
            Event::Validated { epoch, probabilities, truth } if self.wants_pictures() => {
                let width = self.classes.len();
                let of = |(class, name): (usize, &String)| {
                    let scored = probabilities.iter().copied().zip(truth.iter().copied());
                    (name.clone(), PrCurve::of(scored.skip(class).step_by(width)))
                };
                let curves = self.classes.iter().enumerate().take(CLASSES).map(of).collect();
                let step = *epoch as u64 * self.steps_per_epoch;
                self.add(&Record::Curves { step, at: SystemTime::now(), curves });
            }
            Event::Epoch(row) => {
                self.step = row.epoch as u64 * self.steps_per_epoch;
                self.scalars(figures(row));
            }
            Event::Card(card) => {
                let tested = card.metrics.iter().filter(|(name, _)| name.starts_with("test"));
                self.scalars(tested.map(|(name, value)| (name.clone(), *value)).collect());
            }
            _ => {}
        }
    }

    fn wants_pictures(&self) -> bool {
        self.workers.iter().any(|worker| worker.wants_pictures)
    }

    fn scalars(&mut self, values: Vec<(String, f64)>) {
        if !values.is_empty() {
            self.add(&Record::Scalars { step: self.step, at: SystemTime::now(), values });
        }
    }

    fn add(&mut self, record: &Record) {
        let is_picture = matches!(record, Record::Picture { .. } | Record::Curves { .. });
        for worker in self.workers.iter_mut().filter(|worker| worker.wants_pictures || !is_picture) {
            worker.add(record.clone());
        }
    }

    /// Images side by side; none where one cannot be read, which the step itself will say.
    fn picture(&self, source: &dyn ImageSource, images: usize, size: usize) -> Option<Pixels> {
        let columns = images.min(ACROSS);
        let (width, height) = (columns * size, images.div_ceil(ACROSS) * size);
        let mut rgb = vec![0; 3 * width * height];
        let mut input = vec![0.0; 3 * size * size];
        for image in 0..images {
            source.load(image, &mut input).ok()?;
            let (left, top) = (image % ACROSS * size, image / ACROSS * size);
            for (at, value) in input.iter().enumerate() {
                let (channel, y, x) = (at / (size * size), at / size % size, at % size);
                let level = (value * self.std[channel] + self.mean[channel]) * 255.0;
                rgb[3 * ((top + y) * width + left + x) + channel] = level.round() as u8;
            }
        }
        (images > 0).then_some(Pixels { width, height, rgb })
    }
}

/// What a line of the table of epochs says, by the names of its columns.
fn figures(row: &EpochRow) -> Vec<(String, f64)> {
    let own = [
        ("epoch", Some(row.epoch as f64)),
        ("train_loss", Some(row.train_loss)),
        ("val_loss", Some(row.val_loss)),
        ("learning_rate", row.c.is_none().then_some(row.learning_rate)),
        ("c", row.c),
        ("images_per_s", Some(row.images_per_s)),
    ];
    let own = own.into_iter().filter_map(|(name, value)| Some((name, value?)));
    own.chain(row.figures()).map(|(name, value)| (name.to_owned(), value)).collect()
}
